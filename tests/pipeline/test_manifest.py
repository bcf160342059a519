"""Tables that people write: which rows are understood, and which lines are named."""

import json
import zipfile

import pytest
from hypothesis import given, strategies as st

from vidlat.errors import InputError
from vidlat.labels.reading import read_labels
from vidlat.pipeline.manifest import is_manifest, read_manifest
from vidlat.types import Annotation


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_row_of_a_manifest_is_read_whole(tmp_path):
    text = "path,id,start_seconds,stop_seconds,subject,EF,view\nv/a.mp4,a,0.5,3,S1,0.55,A4C\nb.mp4,,,,,,\n"
    first, second = read_manifest(write(tmp_path / "m.csv", text))
    assert (first.path, first.video_id, first.start_seconds, first.stop_seconds) == ("v/a.mp4", "a", 0.5, 3.0)
    assert first.annotation == Annotation("S1", {"EF": "0.55", "view": "A4C"})
    assert (second.path, second.video_id, second.start_seconds, second.stop_seconds) == ("b.mp4",) + (
        None,
    ) * 3
    assert second.annotation == Annotation()
    assert (first.where, second.where) == (f"{tmp_path}/m.csv line 2", f"{tmp_path}/m.csv line 3")


def test_json_lines_say_the_same_as_csv(tmp_path):
    rows = [
        {"path": "a.mp4", "id": "x", "start_seconds": 1, "EF": 0.5, "good": True, "none": None},
        {"path": "b"},
    ]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    first, second = read_manifest(write(tmp_path / "m.jsonl", lines))
    assert (first.path, first.video_id, first.start_seconds) == ("a.mp4", "x", 1.0)
    assert first.annotation.labels == {"EF": "0.5", "good": "true"}
    assert (second.path, second.video_id, second.annotation) == ("b", None, Annotation())


cells = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
    .map(str.strip)
    .filter(bool)
)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_what_the_csv_library_writes_is_read_back(tmp_path_factory, rows):
    import csv

    path = tmp_path_factory.mktemp("labels") / "l.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video_id", "EF"), *rows])
    assert read_labels(path) == {video_id: Annotation("", {"EF": value}) for video_id, value in rows}


def test_byte_order_mark_of_a_spreadsheet_is_no_part_of_a_name(tmp_path):
    path = write(tmp_path / "l.csv", "video_id,EF\r\na.mp4,1\r\n", "utf-8-sig")
    assert read_labels(path) == {"a.mp4": Annotation("", {"EF": "1"})}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_of_a_spreadsheet_may_have_other_separators_than_commas(tmp_path, mark):
    text = mark.join(("FileName", "EF", "note")) + "\r\n" + mark.join(("a.mp4", "1", '"a, b; c"')) + "\r\n"
    path = write(tmp_path / "l.csv", text)
    assert read_labels(path) == {"a.mp4": Annotation("", {"EF": "1", "note": "a, b; c"})}


def test_a_table_without_the_column_is_refused_with_the_other_name_that_it_may_have(tmp_path):
    with pytest.raises(InputError, match=r"video_id \(or one such as FileName\) among them; got id, EF"):
        read_labels(write(tmp_path / "l.csv", "id,EF\na.mp4,1\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "a first line of different columns, path (or one such as dicom_filepath) among"),
        ("m.csv", "file,EF\na.mp4,1\n", "among them; got file, EF"),
        ("m.csv", "path;EF\na.mp4;1;2\n", "m.csv line 2: has 3 cells under 2 columns"),
        ("m.csv", "path,path\na,b\n", "different columns"),
        ("m.csv", "path,EF\n,1\n", "m.csv line 2: has no path"),
        ("m.csv", "path\na.mp4,1\n", "m.csv line 2: has 2 cells under 1 columns"),
        ("m.csv", "path,EF,view\na.mp4,1\n", "m.csv line 2: has 2 cells under 3 columns"),
        ("m.csv", 'path\nb\n"a\nc\n', "m.csv line 3: cannot be read as CSV (unexpected end of data)"),
        ("m.csv", 'path\nb\n"a"c\n', "m.csv line 3: cannot be read as CSV (',' expected after '\"')"),
        ("m.csv", '"path\n', "m.csv line 1: cannot be read as CSV"),
        ("m.csv", f"path\na\nb\n{'c' * 131_073}\n", "m.csv line 4: cannot be read as CSV (field larger than"),
        ("m.csv", "path,start_seconds\na,soon\n", "line 2: start_seconds is 'soon'; expected seconds"),
        ("m.csv", "path,stop_seconds\na,-1\n", "line 2: stop_seconds is '-1'; expected seconds"),
        ("m.csv", "path,stop_seconds\na,nan\n", "line 2: stop_seconds is 'nan'"),
        (
            "m.csv",
            "path,start_seconds,stop_seconds\na,2,2\n",
            "line 2: stop_seconds 2 is not after start_seconds 2",
        ),
        ("m.jsonl", '{"path": "a"}\nnonsense\n', "m.jsonl line 2: is no JSON"),
        ("m.jsonl", "[" * 100_000, "m.jsonl line 1: is no JSON (is nested too deeply)"),
        ("m.jsonl", '{"path": "a", "path": "b"}', "'path' is given twice"),
        ("m.jsonl", '{"path": "a", "ef": NaN}', "holds NaN"),
        ("m.jsonl", "[1]\n", "m.jsonl line 1: expected an object of texts and numbers, with path"),
        ("m.jsonl", '{"path": "a", "x": [1]}\n', "line 1: expected an object"),
        ("m.jsonl", '{"id": "a"}\n', "line 1: has no path"),
    ],
)
def test_table_that_makes_no_sense_is_refused_by_its_line(tmp_path, name, text, message):
    with pytest.raises(InputError) as caught:
        list(read_manifest(write(tmp_path / name, text)))
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("column", ["dicom_filepath", "FilePath", "video_path"])
def test_a_single_column_of_paths_need_not_be_called_so(tmp_path, column):
    (row,) = read_manifest(write(tmp_path / "m.csv", f"subject_id,{column}\n10,s1/a.dcm\n"))
    assert (row.path, row.annotation) == ("s1/a.dcm", Annotation("", {"subject_id": "10"}))


def test_paths_in_two_columns_are_told_apart_by_name_only(tmp_path):
    (row,) = read_manifest(write(tmp_path / "m.csv", "path,mask_path\na.dcm,b.dcm\n"))
    assert (row.path, row.annotation.labels) == ("a.dcm", {"mask_path": "b.dcm"})
    with pytest.raises(InputError, match="among them; got image_path, mask_path"):
        list(read_manifest(write(tmp_path / "n.csv", "image_path,mask_path\na.dcm,b.dcm\n")))


@pytest.mark.parametrize("column", ["FileName", "file_name"])
def test_labels_by_file_name_are_read(tmp_path, column):
    path = write(tmp_path / "l.csv", f"{column},EF\n0X1A,55\n")
    assert read_labels(path) == {"0X1A": Annotation("", {"EF": "55"})}


def test_table_that_is_not_there_is_called_so(tmp_path):
    with pytest.raises(InputError, match=r"l\.csv: no such file"):
        read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_byte_that_is_no_utf8_is_named_by_its_line(tmp_path, line_end):
    text = line_end.join(["video_id,name", "a,Ann", "b,Jörg", "c,Zoë", ""])
    said = r"l\.csv line 3: is not in UTF-8 \(got byte 0xf6\); save it as CSV UTF-8$"
    with pytest.raises(InputError, match=said):
        read_labels(write(tmp_path / "l.csv", text, "latin-1"))
    assert read_labels(write(tmp_path / "u.csv", text))["b"] == Annotation("", {"name": "Jörg"})


def test_lines_of_another_encoding_are_refused_in_json_and_with_the_mark_of_utf_16(tmp_path):
    with pytest.raises(InputError, match=r"m\.jsonl line 2: is not in UTF-8 .*; save it as UTF-8$"):
        list(read_manifest(write(tmp_path / "m.jsonl", '{"path": "a"}\n{"path": "ä"}\n', "latin-1")))
    with pytest.raises(InputError, match=r"l\.csv line 1: is not in UTF-8 .*; save it as CSV UTF-8$"):
        read_labels(write(tmp_path / "l.csv", "video_id,EF\na.mp4,1\n", "utf-16"))


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv", "labels.jsonl"])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_workbook_is_to_be_saved_as_csv(tmp_path, name, is_old):
    path = tmp_path / name
    if is_old:
        path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as workbook:
            workbook.writestr("[Content_Types].xml", "<Types/>")
    said = rf"{name}: is an Excel workbook.*; expected a table as text: save it as CSV UTF-8$"
    with pytest.raises(InputError, match=said):
        read_labels(path)


def test_a_table_may_begin_with_the_letters_of_a_zip_archive(tmp_path):
    assert read_labels(write(tmp_path / "l.csv", "PK,video_id\n1,a\n")) == {"a": Annotation("", {"PK": "1"})}


def test_table_without_a_row_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"l\.csv: holds no row"):
        read_labels(write(tmp_path / "l.csv", "video_id,EF\n"))


def test_labels_that_tell_of_a_video_twice_are_refused(tmp_path):
    path = write(tmp_path / "l.csv", "video_id,EF\na,1\na,2\n")
    with pytest.raises(InputError, match="line 3: 'a' stands in an earlier line too"):
        read_labels(path)


def test_table_is_a_manifest_by_its_name(tmp_path):
    names = ["m.CSV", "m.jsonl", "m.txt"]
    found = [
        is_manifest(path) for path in [*(write(tmp_path / name, "") for name in names), tmp_path / "x.csv"]
    ]
    assert found == [True, True, False, False]


def test_a_subject_may_be_in_any_case_and_a_column_without_a_name_is_left_out(tmp_path):
    path = write(tmp_path / "l.csv", ",Video_ID,Subject,EF\n0,a.mp4,ann,1\n1,b.mp4,bob,2\n")
    told = {"a.mp4": Annotation("ann", {"EF": "1"}), "b.mp4": Annotation("bob", {"EF": "2"})}
    assert read_labels(path) == told
    path = write(tmp_path / "l.jsonl", '{"video_id": "a.mp4", "SUBJECT": " ann ", "EF": 1, "note": " "}\n')
    assert read_labels(path) == {"a.mp4": told["a.mp4"]}
    path = write(tmp_path / "two.csv", "video_id,Subject,subject\na.mp4,x,ann\nb.mp4,y,\n")
    both = {"a.mp4": Annotation("ann", {"Subject": "x"}), "b.mp4": Annotation("", {"Subject": "y"})}
    assert read_labels(path) == both
