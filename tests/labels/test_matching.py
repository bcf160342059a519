"""Which rows of a table are about which videos."""

import re

import pytest
from hypothesis import given, strategies as st

from tests.train.toys import whole_file
from vidlat.errors import InputError
from vidlat.labels.matching import match_labels
from vidlat.types import Annotation


def table(*names):
    """A row for each name, with the name as a label."""
    return {name: Annotation("", {"row": name}) for name in names}


def match(names, videos, **options):
    return match_labels(table(*names), dict.fromkeys(videos, whole_file("")), **options)


def rows_of(found):
    return {video_id: annotation.labels["row"] for video_id, annotation in found.rows.items()}


@pytest.mark.parametrize(
    ("name", "video_id", "way"),
    [
        ("Videos/0X1A.avi", "Videos/0X1A.avi", "path"),
        ("data/Videos/0X1A.avi", "Videos/0X1A.avi", "path"),
        ("Videos/0X1A.avi", "data/Videos/0X1A.avi", "path"),
        ("0X1A.avi", "Videos/0X1A.avi", "file name"),
        ("0X1A.avi", "0X1A.avi", "file name"),
        ("0X1A", "Videos/0X1A.avi", "file name without extension"),
        ("p1/scan", "data/p1/scan.nii.gz", "file name without extension"),
        ("0X1A.avi", "0X1A", "file name without extension"),
        ("1.2.840.10", "study/1.2.840.10.dcm", "file name without extension"),
    ],
)
def test_a_row_names_a_video_by_path_by_file_name_or_without_extension(name, video_id, way):
    found = match([name], [video_id, "other.mp4"])
    assert rows_of(found) == {video_id: name}
    assert list(found.lines()) == [
        f"labels: 1 of 2 videos by {way}",
        "labels: 1 video without a row: other.mp4",
    ]


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("north/a.mp4", "south/a.mp4"),
        ("a.avi", "a.mp4"),
        ("1.2.840.1", "1.2.840.2"),
        ("1.2.840.10", "1.2.840"),
        ("X1A", "0X1A.avi"),
    ],
)
def test_another_folder_extension_or_number_is_another_video(name, video_id):
    message = f"none of the 1 rows is about one of the 1 videos: the table names '{name}', the videos are "
    with pytest.raises(InputError, match=re.escape(f"{message}'{video_id}'")):
        match([name], [video_id])


def test_a_longer_path_does_not_mean_a_video_with_a_row_of_its_own():
    found = match(["a.mp4", "x/a.mp4"], ["a.mp4"])
    assert (rows_of(found), found.unmatched) == ({"a.mp4": "a.mp4"}, ("x/a.mp4",))


def test_two_longer_paths_of_one_video_are_refused():
    with pytest.raises(InputError, match=re.escape("'x/a.mp4' and 'y/a.mp4' both mean 'a.mp4'")):
        match(["x/a.mp4", "y/a.mp4"], ["a.mp4"])


def test_hidden_names_are_in_no_line_and_no_error():
    found = match(["doe", "smith.mp4"], ["smith.mp4", "roe.mp4"])
    assert list(found.lines(hide=True)) == [
        "labels: 1 of 2 videos by file name",
        "labels: 1 video without a row",
        "labels: 1 row without a video",
    ]
    with pytest.raises(InputError) as caught:
        match(["doe"], ["roe.mp4"], hide=True)
    assert "oe" not in str(caught.value)


def test_a_part_of_the_videos_may_have_no_row():
    found = match(["a"], ["b.mp4"], is_part=True)
    assert (found.rows, found.unmatched) == ({}, ())
    assert next(found.lines()) == "labels: 0 of 1 video"


def test_slices_are_named_by_their_scan_or_by_their_whole_ids_alone():
    slices = {f"p1/scan.nii/z{z}": whole_file("", part=f"z{z}") for z in range(3)}
    found = match_labels(table("scan", "p1/scan.nii/z1", "z2"), slices)
    assert rows_of(found) == {"p1/scan.nii/z0": "scan", "p1/scan.nii/z1": "p1/scan.nii/z1"} | {
        "p1/scan.nii/z2": "scan"
    }
    assert found.unmatched == ("z2",)


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


@given(ids=st.sets(names, min_size=1, max_size=8), others=st.sets(names, max_size=8))
def test_whole_ids_match_whatever_else_the_videos_are_called(ids, others):
    found = match(sorted(ids), sorted(ids | others))
    assert rows_of(found).items() >= {video_id: video_id for video_id in ids}.items()
