"""Masks beside videos are told by their names, and the patterns that are suggested leave them out."""

import shutil

import pytest

from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.masks import named_like_masks

VIDEOS = [
    "patient0001/patient0001_2CH_half_sequence.nii.gz.mp4",
    "p2/gtx.mp4",
    "p2/segment_3.mp4",
    "p2/unlabeled.mp4",
    "p2/Masked Singer.mp4",
    "label-free/a.mp4",
]
MASKS = {
    "*_gt*": ["patient0001/patient0001_2CH_half_sequence_gt.nii.gz.mp4", "p2/b_gt_1.mp4"],
    "*_GT*": ["p2/b_GT.mp4"],
    "*-seg*": ["p2/b-seg.mp4"],
    "*_segmentation*": ["p2/b_segmentation.mp4"],
    "*.mask*": ["p2/b.mask.mp4"],
    "mask*": ["p2/mask_7.mp4"],
    "*_labels*": ["p2/b_labels.mp4"],
    "labelmap*": ["labelmap.mp4"],
    "*masks/*": ["masks/a.mp4", "p3/masks/deep/a.mp4"],
    "*labelsTr/*": ["labelsTr/la_003.mp4"],
}


@pytest.fixture(scope="module")
def folder(make_videos, tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    film = make_videos(root, {"film.mp4": 2}) / "film.mp4"
    for name in [*VIDEOS, *(name for names in MASKS.values() for name in names)]:
        path = root / "v" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, path)
    return str(root / "v")


def test_masks_are_found_by_name_and_left_out_by_the_patterns(folder):
    found = named_like_masks(discover_videos([folder]).videos)
    assert found == {pattern: sorted(names) for pattern, names in MASKS.items()}
    left = discover_videos([folder], exclude=list(found))
    assert [video.video_id for video in left.videos] == sorted(VIDEOS)
    assert named_like_masks(left.videos) == {}


def test_of_hashed_ids_only_the_names_of_files_count(folder):
    found = named_like_masks(discover_videos([folder], ids="hash").videos)
    assert found.keys() == {pattern for pattern in MASKS if "/" not in pattern}
    assert not any("/" in video_id or "_" in video_id for names in found.values() for video_id in names)
