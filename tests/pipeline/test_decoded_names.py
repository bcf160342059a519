"""Names of files that show videos are short, unique and stable, and lie inside their folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vidlat.errors import InputError
from vidlat.pipeline.decoded_names import file_stems, path_below

# Few letters, so that ids clash often; and whatever a cache from elsewhere may hold.
NAMES = st.text(st.sampled_from("ab."), min_size=1, max_size=3)
SUFFIXES = st.sampled_from(["", ".mp4", ".avi", ".AVI", ".nii.gz", ".txt", ".mp4.mp4", ".mp4.avi"])
CLASHING = st.builds(
    lambda *parts: "".join(parts), st.sampled_from(["", "a/", "a.mp4/", "../", "/"]), NAMES, SUFFIXES
)
IDS = st.sets(CLASHING | st.text(max_size=12), max_size=8)


@pytest.mark.parametrize(
    ("ids", "stems"),
    [
        (["patient_10_L1.mp4"], ["patient_10_L1"]),
        (["deep/a.avi", "a.mp4"], ["deep/a", "a"]),
        (["a.mp4", "a.avi", "b.avi"], ["a.mp4", "a.avi", "b"]),
        (["a", "a.mp4"], ["a", "a.mp4"]),
        (["scan.nii.gz", "v1.2"], ["scan", "v1.2"]),
        ([".mp4", "deep/.mp4"], [".mp4", "deep/.mp4"]),
        (["a.avi", "a.mp4/slice"], ["a.avi", "a.mp4/slice"]),
        (["x/../a.avi", "a.avi"], None),
    ],
)
def test_a_suffix_is_left_out_unless_two_would_clash(ids, stems):
    assert list(file_stems(ids).values()) == (stems or [])


def test_two_ids_of_one_path_are_both_refused():
    ids = ["x/../a.avi", "a.avi"]
    for video_id in ids:
        with pytest.raises(
            InputError, match=r"a\.avi'?: another one has the same file name; it is not written"
        ):
            path_below(Path("/out"), video_id, file_stems(ids))


@given(IDS)
def test_no_two_videos_have_one_file_and_none_leaves_the_folder(ids):
    stems, folder, paths = file_stems(ids), Path("/out"), []
    for video_id in ids:
        try:
            paths.append(path_below(folder, video_id, stems))
        except InputError:
            continue
    assert all(Path(os.path.normpath(path)).is_relative_to(folder) and path != folder for path in paths)
    assert len(set(paths)) == len(paths)


@given(IDS, st.randoms())
def test_names_do_not_depend_on_the_order(ids, random):
    shuffled = sorted(ids)
    random.shuffle(shuffled)
    assert file_stems(shuffled) == file_stems(sorted(ids))


@given(IDS, IDS)
def test_names_stay_when_videos_are_added(before, added):
    first = file_stems(before)
    grown = file_stems(before | added, first)
    assert {video_id: grown[video_id] for video_id in first} == first
    assert len(set(grown.values())) == len(grown)
    assert file_stems(before | added, grown) == grown
