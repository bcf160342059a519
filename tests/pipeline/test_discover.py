"""Which videos are found, and with which ids."""

import hashlib
import os
import re
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from vidlat.config import Reading
from vidlat.errors import InputError
from vidlat.pipeline import short_videos
from vidlat.pipeline.discover import _escape, discover_videos
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.short_videos import find_short
from vidlat.store.sources import source_state
from vidlat.types import WHOLE, Annotation, Selection, VideoHeader
from vidlat.video.reader import open_video


@pytest.fixture(scope="module")
def mp4(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("source"), {"a.mp4": 2}) / "a.mp4"


@pytest.fixture
def place(mp4, tmp_path, monkeypatch):
    """place("b/c.mp4", ...) puts a real video there, below the current folder."""
    monkeypatch.chdir(tmp_path)

    def place(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mp4, path)
        return tmp_path

    return place


def ids(*inputs):
    return [source.video_id for source in discover_videos([str(name) for name in inputs]).videos]


def test_ids_are_paths_below_the_folder_with_their_extension_in_order(place):
    root = place("v/b.mp4", "v/a.mp4", "v/a.avi", "v/deep/er/c d.MP4")
    assert ids("v") == ids(root / "v") == ids("./v/") == ["a.avi", "a.mp4", "b.mp4", "deep/er/c d.MP4"]


def test_a_file_that_two_inputs_reach_counts_once_under_its_first_id(place):
    place("v/a.mp4", "v/sub/b.mp4")
    assert ids("v", "v/sub", "v/a.mp4") == ["a.mp4", "sub/b.mp4"]
    assert ids("v/sub", "v") == ["a.mp4", "b.mp4"]


def test_sources_carry_size_and_time(place):
    root = place("v/a.mp4")
    (source,) = discover_videos(["v"]).videos
    status = (root / "v" / "a.mp4").stat()
    assert source.path == root / "v" / "a.mp4"
    assert (source.source.num_bytes, source.source.mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_single_file_has_its_name_as_id(place):
    place("v/a.mp4", "v/b.mp4")
    assert ids("v/a.mp4") == ["a.mp4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("v/*.mp4", ["a.mp4"]),
        ("v/*/*.mp4", ["x/b.mp4", "y/b.mp4"]),
        ("v/**/*.mp4", ["a.mp4", "x/b.mp4", "y/b.mp4"]),
        ("v/[xy]", ["x/b.mp4", "y/b.mp4"]),
        ("*/x/?.mp4", ["v/x/b.mp4"]),
    ],
)
def test_pattern_gives_ids_below_its_fixed_part(place, pattern, expected):
    root = place("v/a.mp4", "v/x/b.mp4", "v/y/b.mp4")
    assert ids(pattern) == expected
    if not pattern.startswith("*"):
        assert ids(root / pattern) == expected


def test_name_with_signs_of_a_pattern_is_taken_as_it_is_where_it_exists(place):
    place("v/Cov (1)+[2].mp4")
    assert ids("v/Cov (1)+[2].mp4") == ids("v") == ["Cov (1)+[2].mp4"]


def test_several_inputs_are_joined_and_a_file_given_twice_counts_once(place):
    place("v/a.mp4", "w/b.mp4")
    assert ids("v", "w/b.mp4", "v/a.mp4", "w") == ["a.mp4", "b.mp4"]


def test_two_files_of_one_id_are_refused(place):
    place("v/a.mp4", "w/a.mp4")
    with pytest.raises(InputError, match=r"v/a\.mp4 and .*w/a\.mp4 would both be video 'a\.mp4'"):
        discover_videos(["v", "w"])


def test_hidden_files_are_passed_over_and_other_files_counted(place):
    root = place("v/a.mp4", "v/.b.mp4", "v/.git/c.mp4", "v/.DS_Store")
    (root / "v" / "notes.txt").write_text("no video")
    (root / "v" / "empty").write_bytes(b"")
    found = discover_videos(["v"])
    assert [source.video_id for source in found.videos] == ["a.mp4"]
    assert found.ignored == {".txt": 1, "": 1}


def test_file_named_like_a_video_stays_so_that_its_failure_is_seen(place):
    root = place("v/a.mp4")
    (root / "v" / "broken.avi").write_text("no video")
    assert ids("v") == ["a.mp4", "broken.avi"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes only there")
def test_undecodable_bytes_are_escaped_and_the_file_still_opens(place):
    root = place("v/a.mp4")
    path = root / "v" / os.fsdecode(b"100%\xff.mp4")
    try:
        (root / "v" / "a.mp4").rename(path)
    except OSError:
        pytest.skip("this file system takes no such name")
    (source,) = discover_videos(["v"]).videos
    assert source.video_id == "100%25%FF.mp4"
    assert source.path.read_bytes()


@given(name=st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_escaped_names_are_plain_text_and_tell_undecodable_names_apart(name):
    text = os.fsdecode(name)
    escaped = _escape(text)
    escaped.encode()  # would raise for a byte that is no text
    if escaped == text:
        return
    plain = bytearray()
    rest = escaped.encode()
    while rest:
        plain += bytes.fromhex(rest[1:3].decode()) if rest[:1] == b"%" else rest[:1]
        rest = rest[3:] if rest[:1] == b"%" else rest[1:]
    assert bytes(plain) == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.timeout(20)
def test_pipe_never_hangs_the_search(place):
    root = place("v/a.mp4")
    os.mkfifo(root / "v" / "pipe.mp4")
    os.mkfifo(root / "v" / "pipe")
    assert ids("v") == ids("v/*") == ["a.mp4"]
    with pytest.raises(InputError, match="no video"):
        discover_videos(["v/pipe.mp4"])


def test_symlinks_to_files_count_and_loops_do_not_hang(place):
    root = place("v/a.mp4")
    (root / "v" / "link.mp4").symlink_to("a.mp4")
    (root / "v" / "loop").symlink_to(root / "v", target_is_directory=True)
    (root / "v" / "self.mp4").symlink_to("self.mp4")
    (root / "v" / "dangling.mp4").symlink_to("nowhere")
    found = discover_videos(["v"])
    assert [source.video_id for source in found.videos] == ["a.mp4", "link.mp4"]
    assert found.ignored == {".mp4": 2}


@pytest.mark.parametrize(
    ("given_input", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("missing/*.mp4", "matches nothing"),
        ("empty", r"no video in empty \(0 other files\)"),
        ("texts", r"no video in texts \(2 other files: 2 \.txt\)"),
        ("texts/a.txt", "no video"),
    ],
)
def test_input_without_a_video_is_refused_with_one_line(tmp_path, monkeypatch, given_input, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (Path("texts") / name).write_text("no video")
    with pytest.raises(InputError, match=message) as error:
        discover_videos([given_input])
    assert "\n" not in str(error.value)


def test_file_that_cannot_be_read_stays_so_that_its_failure_is_seen(place, monkeypatch):
    place("v/a.mp4", "v/secret.mp4", "v/secret")
    opened = Path.open

    def open_path(path, *args, **options):
        if path.stem == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_path)
    assert ids("v") == ["a.mp4", "secret", "secret.mp4"]


def test_folder_behind_a_link_is_entered_only_once(place):
    root = place("elsewhere/deep/b.mp4", "v/a.mp4")
    (root / "v" / "link").symlink_to(root / "elsewhere", target_is_directory=True)
    (root / "v" / "twin").symlink_to(root / "elsewhere", target_is_directory=True)
    (root / "elsewhere" / "deep" / "up").symlink_to(root / "elsewhere", target_is_directory=True)
    assert ids("v") == ["a.mp4", "link/deep/b.mp4"]


def place_pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (8, 8)).save(folder / name)


def selections(*inputs):
    return {source.video_id: source.selection for source in discover_videos(list(inputs)).videos}


def test_numbered_pictures_are_one_video_called_like_their_folder(place):
    root = place("v/a.mp4")
    place_pictures(root / "v" / "p1", "f10.png", "f9.png")
    expected = {"a.mp4": WHOLE, "p1": Selection(files=("f9.png", "f10.png"))}
    assert selections("v") == expected
    assert selections("v/p1") == {"p1": expected["p1"]}
    assert discover_videos(["v"]).videos[1].path == root / "v" / "p1"


def test_several_sequences_of_a_folder_are_called_like_their_first_pictures(place):
    root = place("v/a.mp4")
    place_pictures(root / "v", "x1_f1.png", "x1_f2.png", "x2_f1.png", "x2_f2.png")
    assert list(selections("v")) == ["a.mp4", "x1_f1.png", "x2_f1.png"]


def test_single_picture_is_no_video(place):
    root = place("v/a.mp4")
    place_pictures(root / "v", "thumbnail.png")
    assert sum(discover_videos(["v"]).ignored.values()) == 1


def test_picture_that_is_named_like_a_video_stays_so_that_its_failure_is_seen(place):
    root = place("v/a.mp4")
    Image.new("L", (8, 8)).save(root / "v" / "b.mp4", format="PNG")
    assert ids("v") == ["a.mp4", "b.mp4"]


def test_size_and_time_of_many_files_are_their_sum_and_the_latest(place):
    root = place()
    place_pictures(root / "v", "f1.png", "f2.png")
    os.utime(root / "v" / "f1.png", ns=(7, 7))
    (source,) = discover_videos(["v"]).videos
    one, two = ((root / "v" / name).stat() for name in ("f1.png", "f2.png"))
    assert (source.source.num_bytes, source.source.mtime_ns) == (one.st_size + two.st_size, two.st_mtime_ns)


def test_source_of_many_files_that_lost_one_is_stale_and_without_its_folder_vanished(place):
    root = place()
    place_pictures(root / "v", "f1.png", "f2.png")
    (source,) = discover_videos(["v"]).videos
    assert source_state(source.source) == "ok"
    (root / "v" / "f2.png").unlink()
    assert source_state(source.source) == "stale"
    shutil.rmtree(root / "v")
    assert source_state(source.source) == "vanished"


def test_volume_over_time_is_one_video_per_slice(place):
    root = place("v/a.mp4")
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", root / "v")
    found = selections("v")
    names = [f"example4d.nii.gz/z{index:02d}" for index in range(24)]
    assert list(found) == ["a.mp4", *names]
    assert [found[name].part for name in names] == [f"z{index:02d}" for index in range(24)]


def test_dicom_without_pixels_is_no_video(place):
    root = place("v/a.mp4")
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID = "1.2.3"
    report.save_as(root / "v" / "DICOMDIR", enforce_file_format=True)
    found = discover_videos(["v"])
    assert [source.video_id for source in found.videos] == ["a.mp4"]
    assert sum(found.ignored.values()) == 1


def place_study(folder):
    """As in MIMIC-IV-ECHO: cines and stills in one folder; below it, a series of three slices."""
    folder.mkdir(parents=True)
    still, cine = (Path(get_testdata_file(name, download=False)) for name in ("CT_small.dcm", CINE))
    for name in ("0001.dcm", "0003.dcm"):
        shutil.copy(cine, folder / name)
    for number, name in ((2, "0002.dcm"), (4, "0004")):
        dataset = dcmread(still)
        dataset.Modality, dataset.InstanceNumber = "US", number
        del dataset.ImagePositionPatient
        dataset.save_as(folder / name)
    (folder / "ct").mkdir()
    for z in range(3):
        dataset = dcmread(still)
        dataset.ImagePositionPatient = [0, 0, z]
        dataset.save_as(folder / "ct" / str(z))


CINE = "examples_ybr_color.dcm"


def test_stills_are_counted_and_found_by_their_frames(place):
    place_study(place() / "v" / "p10" / "s1")
    found = discover_videos(["v"])
    cines = ["p10/s1/0001.dcm", "p10/s1/0003.dcm"]
    names = [cines[0], "p10/s1/0002.dcm", cines[1], "p10/s1/0004", "p10/s1/ct"]
    assert [video.video_id for video in found.videos] == names
    assert (found.num_stills, found.ignored) == (2, {})
    assert find_short(found.videos, 2, Reading()) == [names[1], names[3]]
    assert find_short(found.videos, 4, Reading()) == [names[1], names[3], names[4]]


def test_stills_of_a_manifest_are_found_too(place):
    root = place()
    place_study(root / "v")
    rows = "path,subject\n0001.dcm,10\n0002.dcm,10\n0003.dcm,10\n0004,10\n"
    manifest = write(root / "v" / "records.csv", rows)
    found = discover_videos([manifest])
    assert found.num_stills == 2
    assert find_short(found.videos, 2, Reading()) == ["0002.dcm", "0004"]


def test_frames_are_counted_where_no_header_states_them_and_what_cannot_be_read_is_kept(place, monkeypatch):
    root = place("v/a.mp4", "v/b.mp4")
    (root / "v" / "broken.mp4").write_bytes(b"no video")
    videos = discover_videos(["v"]).videos
    (first, *_) = videos
    length = sum(1 for _ in open_video(first.path, first.source.selection, print).frames())
    unknown = VideoHeader(num_frames=None, seconds=None)
    monkeypatch.setattr(
        short_videos, "open_video", lambda *args: replace(open_video(*args), header=lambda: unknown)
    )
    assert find_short(videos, length, Reading()) == []
    assert find_short(videos, length + 1, Reading()) == ["a.mp4", "b.mp4"]


def test_a_broken_image_is_no_still(place):
    root = place("v/a.mp4")
    image = Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes()
    (root / "v" / "b.dcm").write_bytes(image[:900])
    found = discover_videos(["v"])
    assert [video.video_id for video in found.videos] == ["a.mp4", "b.dcm"]
    assert (found.num_stills, find_short(found.videos, 2, Reading())) == (0, [])


def write(path, text):
    path.write_text(text)
    return str(path)


def test_manifest_names_videos_stretches_and_labels(place):
    root = place("v/a.mp4", "v/b.mp4", "w/c.mp4")
    rows = "path,id,start_seconds,stop_seconds,subject,EF\na.mp4,,,,S1,0.5\na.mp4,,0,1.5,,\nb.mp4,bee,2,,,\n"
    found = discover_videos([write(root / "v" / "m.csv", rows + "../w/c.mp4,,,,,\n")]).videos
    assert [source.video_id for source in found] == ["a.mp4", "a.mp4@0-1.5s", "bee", "w/c.mp4"]
    assert found[0].annotation == Annotation("S1", {"EF": "0.5"})
    assert found[1].selection == Selection(start_seconds=0.0, stop_seconds=1.5)
    assert found[2].selection == Selection(start_seconds=2.0)
    assert found[3].path.samefile(root / "w" / "c.mp4")


def test_manifest_may_name_a_folder_of_frames_or_a_file_of_several_videos(place):
    root = place()
    place_pictures(root / "v" / "p", "f1.png", "f2.png")
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", root / "v")
    found = selections(write(root / "v" / "m.csv", "path,id\np,\nexample4d.nii.gz,mr\n"))
    assert list(found) == [*(f"mr/z{index:02d}" for index in range(24)), "p"]
    assert found["p"].files == ("f1.png", "f2.png")


def test_file_that_a_manifest_names_is_tried_whatever_it_is(place):
    root = place("v/a.mp4")
    write(root / "v" / "notes.txt", "no video")
    manifest = write(root / "v" / "m.csv", "path\na.mp4\nnotes.txt\nmissing.mp4\n")
    assert ids(manifest) == ["a.mp4", "missing.mp4", "notes.txt"]


def test_manifest_that_names_a_video_twice_is_refused(place):
    root = place("v/a.mp4", "v/b.mp4")
    with pytest.raises(InputError, match="would both be video 'x'"):
        discover_videos([write(root / "v" / "m.csv", "path,id\na.mp4,x\nb.mp4,x\n")])
    with pytest.raises(InputError, match=r"names 'a\.mp4' twice"):
        discover_videos([write(root / "v" / "m.csv", "path,EF\na.mp4,1\na.mp4,2\n")])


def test_manifest_that_names_an_empty_folder_is_refused_by_its_line(place):
    root = place("v/p/deeper/a.mp4")
    with pytest.raises(InputError, match=r"m\.csv line 2: p is a folder without a video of its own"):
        discover_videos([write(root / "v" / "m.csv", "path\np\n")])


def test_table_inside_a_folder_is_no_manifest(place):
    root = place("v/a.mp4")
    write(root / "v" / "m.csv", "path\nmissing.mp4\n")
    assert ids("v") == ["a.mp4"]


def test_labels_are_joined_by_id_and_unmatched_ids_are_reported(place):
    root = place("v/a.mp4", "v/b.mp4")
    labels = Path(write(root / "l.csv", "video_id,subject,EF\na.mp4,S1,0.5\nlost.mp4,S2,0.6\n"))
    found = discover_videos(["v"], labels=labels)
    assert [source.annotation for source in found.videos] == [Annotation("S1", {"EF": "0.5"}), None]
    assert (found.labels.unmatched, found.labels.unlabelled) == (("lost.mp4",), ("b.mp4",))


@pytest.mark.parametrize("name", ["0X1A", "0X1A.avi", "Videos/0X1A.avi"])
def test_a_row_may_name_a_video_by_the_last_part_of_its_id(place, name):
    root = place("v/Videos/0X1A.avi", "v/Videos/0X1B.avi")
    labels = Path(write(root / "l.csv", f"FileName,EF\n{name},55\n0X1C,60\n"))
    found = discover_videos(["v"], labels=labels)
    assert [source.annotation for source in found.videos] == [Annotation("", {"EF": "55"}), None]
    assert (found.labels.unmatched, found.labels.unlabelled) == (("0X1C",), ("Videos/0X1B.avi",))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1\n", "labels: 'a' fits 2 videos, x/a.avi and y/a.mp4 among them"),
        ("b,1\nx/b.avi,2\n", "labels: 'b' and 'x/b.avi' both mean 'x/b.avi'; keep one"),
        ("x/b.avi,2\nb.avi,1\n", "labels: 'x/b.avi' and 'b.avi' both mean 'x/b.avi'; keep one"),
    ],
)
def test_a_row_that_may_mean_several_videos_and_two_rows_of_one_are_refused(place, rows, message):
    root = place("v/x/a.avi", "v/y/a.mp4", "v/x/b.avi")
    with pytest.raises(InputError, match=re.escape(message)):
        discover_videos(["v"], labels=Path(write(root / "l.csv", f"video_id,EF\n{rows}")))


def test_a_whole_id_is_no_last_part_of_another_one(place):
    root = place("v/a.mp4", "v/x/a.mp4")
    labels = Path(write(root / "l.csv", "video_id,EF\na.mp4,1\nx/a.mp4,2\n"))
    videos = discover_videos(["v"], labels=labels).videos
    assert [video.annotation.labels["EF"] for video in videos] == ["1", "2"]


def test_a_row_of_a_scan_reaches_its_slices_and_stretches_unless_they_have_their_own(place):
    root = place("v/a.mp4")
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", root / "v")
    manifest = write(root / "v" / "m.csv", "path,stop_seconds\nexample4d.nii.gz,\na.mp4,0.05\na.mp4,\n")
    rows = "video_id,subject,EF\nexample4d.nii.gz,S1,0.5\nexample4d.nii.gz/z07,,0.7\na.mp4,S2,\nlost,,1\n"
    found = discover_videos([manifest], labels=Path(write(root / "l.csv", rows)))
    told = {video.video_id: video.annotation for video in found.videos}
    assert len(told) == 26
    assert told.pop("example4d.nii.gz/z07") == Annotation("S1", {"EF": "0.7"})
    assert told.pop("a.mp4") == told.pop("a.mp4@0-0.05s") == Annotation("S2", {})
    assert set(map(str, told.values())) == {str(Annotation("S1", {"EF": "0.5"}))}
    assert (found.labels.unmatched, found.labels.unlabelled) == (("lost",), ())


def test_hashed_ids_of_slices_tell_that_they_belong_together_and_nothing_else(place):
    root = place()
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", root / "v.nii.gz")
    hashed = hashlib.sha256(b"v.nii.gz").hexdigest()[:32]
    found = discover_videos(["v.nii.gz"], ids="hash").videos
    assert [video.video_id for video in found] == [f"{hashed}/z{index:02d}" for index in range(24)]


def test_labels_win_over_the_manifest_column_by_column(place):
    root = place("v/a.mp4")
    manifest = write(root / "v" / "m.csv", "path,subject,EF,view\na.mp4,S1,0.5,A4C\n")
    labels = Path(write(root / "l.csv", "video_id,EF\na.mp4,0.7\n"))
    (source,) = discover_videos([manifest], labels=labels).videos
    assert source.annotation == Annotation("S1", {"EF": "0.7", "view": "A4C"})


def test_hashed_ids_are_stable_and_labels_are_joined_before(place):
    root = place("v/DOE^JANE/a.mp4")
    labels = Path(write(root / "l.csv", "video_id,EF\nDOE^JANE/a.mp4,0.5\n"))
    (source,) = discover_videos(["v"], labels=labels, ids="hash").videos
    assert source.video_id == hashlib.sha256(b"DOE^JANE/a.mp4").hexdigest()[:32]
    assert source.hides_names
    assert source.annotation == Annotation("", {"EF": "0.5"})


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), ["a.mp4", "a_gt.mp4", "m/b.mp4", "m/deep/b_GT.mp4", "pictures", "pictures_gt"]),
        (("*_gt*",), ["a.mp4", "m/b.mp4", "m/deep/b_GT.mp4", "pictures"]),
        (("*_gt.*", "*_GT.*"), ["a.mp4", "m/b.mp4", "pictures", "pictures_gt"]),
        (("m/*",), ["a.mp4", "a_gt.mp4", "pictures", "pictures_gt"]),
        (("b.mp4",), ["a.mp4", "a_gt.mp4", "m/deep/b_GT.mp4", "pictures", "pictures_gt"]),
        (("*/f[23].png",), ["a.mp4", "a_gt.mp4", "m/b.mp4", "m/deep/b_GT.mp4"]),
        (("*.MP4", "a"), ["a.mp4", "a_gt.mp4", "m/b.mp4", "m/deep/b_GT.mp4", "pictures", "pictures_gt"]),
    ],
)
def test_files_that_match_a_pattern_by_path_or_name_are_passed_over(place, patterns, left):
    root = place("v/a.mp4", "v/a_gt.mp4", "v/m/b.mp4", "v/m/deep/b_GT.mp4")
    for name in ("pictures", "pictures_gt"):
        place_pictures(root / "v" / name, "f1.png", "f2.png", "f3.png")
    found = discover_videos(["v"], exclude=patterns)
    assert [video.video_id for video in found.videos] == left
    files_left = sum(len(video.selection.files) or 1 for video in found.videos)
    assert found.num_excluded + sum(found.ignored.values()) + files_left == 10
    assert discover_videos(["v/**/*.mp4", "v"], exclude=patterns).videos == found.videos


def test_an_excluded_input_leaves_no_video_and_a_manifest_excludes_nothing(place):
    root = place("v/a_gt.mp4")
    with pytest.raises(InputError, match=r"no video in v/a_gt.mp4 \(0 other files, 1 more excluded\)"):
        discover_videos(["v/a_gt.mp4"], exclude=["*_gt*"])
    found = discover_videos([write(root / "v" / "m.csv", "path\na_gt.mp4\n")], exclude=["*_gt*"])
    assert [video.video_id for video in found.videos] == ["a_gt.mp4"]


def test_decoded_videos_below_the_input_are_no_clips_unless_they_are_asked_for(place):
    root = place("v/a.mp4", "v/recon/a.mp4.mp4", "v/recon/deep/b.mp4.mp4", "v/recon_other/c.mp4")
    (root / "v" / "recon" / DECODED_MARK).touch()
    for text in ("v", "./v/", "v/", "[v]"):
        found = discover_videos([text])
        assert {video.path.name for video in found.videos} == {"a.mp4", "c.mp4"}
        assert [Path(name).name for name in found.decoded] == ["recon"]
    assert ids("v/recon") == ["a.mp4.mp4", "deep/b.mp4.mp4"]


def test_folder_that_cannot_be_listed_is_refused(place, monkeypatch):
    place("v/a.mp4", "v/locked/b.mp4")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"locked: cannot be listed \(Permission denied\)"):
        discover_videos(["v"])
