"""Which objects of a bucket are videos, and with which ids: as in a folder of the same files."""

import csv
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from PIL import Image

from vidlat.config import Part, Reading
from vidlat.errors import InputError
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.short_videos import find_short
from vidlat.store import object_sources
from vidlat.store.storage.objects import ObjectStorage
from vidlat.types import Annotation, Selection

CLIPS = Path(__file__).parents[2].parent / "shared" / "data" / "videos"


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket, s3://b."""
    storage = ObjectStorage(MemoryStore(), "s3://b")
    monkeypatch.setattr(object_sources, "_storage", {"s3://b": storage}.__getitem__)
    return storage


@pytest.fixture(scope="module")
def collection(make_videos, tmp_path_factory):
    """Films in folders, a hidden one, one that was decoded, one named by capitals, a volume, and others."""
    root = tmp_path_factory.mktemp("collection") / "v"
    film = make_videos(root, {"a.mp4": 2}) / "a.mp4"
    names = (
        "b c.mp4",
        "s1/deep/ü%20#.MP4",
        "s1/.hidden/a.mp4",
        "s2/.a.mp4",
        "s2/decoded/a.mp4",
        "s2/a_gt.mp4",
    )
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, root / name)
    (root / "s2" / "decoded" / DECODED_MARK).touch()
    (root / "notes.txt").write_text("no video")
    (root / "s1" / "broken.avi").write_text("no video")
    (root / "s1" / "scan.tar.gz").write_text("no video")
    shutil.copy(files("nibabel.tests") / "data" / "anatomical.nii", root / "s1")
    return root


def put(storage, folder):
    """Store the files below a folder, with its name as the first part of their keys."""
    for path in folder.rglob("*"):
        if path.is_file():
            storage.create(path.relative_to(folder.parent).as_posix(), path.read_bytes())
    return f"{storage.where}/{folder.name}"


def discover(*inputs, **settings):
    return discover_videos([str(text) for text in inputs], addresses=True, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exclude": ("*_gt*",)},
        {"exclude": ("s1/*",)},
        {"ids": "hash"},
        *({"part": Part(number, 3)} for number in (1, 2, 3)),
    ],
    ids=str,
)
def test_a_bucket_gives_the_videos_that_a_folder_gives(collection, bucket, settings):
    address = put(bucket, collection)
    here, there = discover(collection, **settings), discover(address + "/", **settings)
    assert [video.video_id for video in there.videos] == [video.video_id for video in here.videos]
    assert [video.source.num_bytes for video in there.videos] == [v.source.num_bytes for v in here.videos]
    assert there.num_excluded == here.num_excluded
    assert there.decoded == (f"{address}/s2/decoded",)
    if "part" not in settings:  # which counts the others of a folder with its videos
        assert there.ignored == here.ignored
    if "ids" in settings:
        assert all(video.recorded_source.path == "" for video in there.videos)
    else:
        assert {video.source.path for video in there.videos} == {
            f"{address}/{video.video_id}" for video in here.videos
        }


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the clips of the shared folder")
def test_real_clips_have_the_ids_that_a_folder_gives(bucket):
    clips = [path for path in CLIPS.rglob("*") if path.is_file()]
    for path in clips:  # names decide, not content
        bucket.create(path.relative_to(CLIPS).as_posix(), b"x")
    local, remote = ({video.video_id for video in discover(place).videos} for place in (CLIPS, "s3://b"))
    assert remote <= local
    assert len(remote) > 3
    assert {name for name in local if name.lower().endswith((".mp4", ".mov", ".gif", ".avi"))} <= remote


def test_parts_of_a_bucket_make_up_the_whole(collection, bucket):
    address = put(bucket, collection)
    parts = [discover(address, part=Part(number, 3)) for number in (1, 2, 3)]
    whole = discover(address)
    assert sorted(video.video_id for part in parts for video in part.videos) == [
        video.video_id for video in whole.videos
    ]
    assert sum(part.num_ignored for part in parts) == whole.num_ignored


def test_one_object_has_its_name_as_id(collection, bucket):
    address = put(bucket, collection)
    (video,) = discover(f"{address}/s2/a_gt.mp4").videos
    assert (video.video_id, video.source.path) == ("a_gt.mp4", f"{address}/s2/a_gt.mp4")


def test_an_object_that_two_inputs_reach_counts_once(collection, bucket):
    address = put(bucket, collection)
    once = discover(address, f"{address}/s2/", f"{address}/a.mp4")
    assert once.videos == discover(address).videos


def test_an_object_and_a_file_of_one_id_are_refused(collection, bucket):
    address = put(bucket, collection)
    with pytest.raises(
        InputError, match=rf"^{collection}/a.mp4 and {address}/a.mp4 would both be video 'a.mp4'"
    ):
        discover(collection, address)


def test_pictures_and_names_without_a_suffix_are_counted_as_not_opened(bucket, collection, tmp_path):
    put(bucket, collection)
    for number in range(3):
        Image.new("L", (8, 8)).save(tmp_path / f"{number}.png")
        bucket.create(f"v/pictures/{number}.png", (tmp_path / f"{number}.png").read_bytes())
    bucket.create("v/IM0001", b"perhaps DICOM")
    found = discover("s3://b/v")
    assert found.num_unopened == 4
    assert (found.ignored[".png"], found.ignored[""], found.ignored[".txt"]) == (3, 1, 1)


def test_empty_objects_that_stand_for_folders_are_none(bucket):
    for key in ("v", "v/sub", "v/sub/deep", "v/sub/deep/empty.mp4"):
        bucket.create(key, b"")
    bucket.create("v/sub/deep/a.mp4", b"x")
    found = discover("s3://b/v/")
    assert [video.video_id for video in found.videos] == ["sub/deep/a.mp4", "sub/deep/empty.mp4"]
    assert (found.num_ignored, found.num_unopened) == (0, 0)


def test_labels_reach_objects(collection, bucket, tmp_path):
    table = tmp_path / "ef.csv"
    table.write_text("FileName,subject,EF\na_gt,p1,55\n")
    videos = discover(put(bucket, collection), labels=table).videos
    assert {video.video_id: video.annotation for video in videos if video.annotation} == {
        "s2/a_gt.mp4": Annotation("p1", {"EF": "55"})
    }


ROWS = [
    ("path", "start_seconds", "subject"),
    ("s3://b/v/a.mp4", "", "p1"),
    ("s3://b/v/s2/a_gt.mp4", "0.04", "p2"),
    ("s3://b/gone.mp4", "", ""),
]
IDS = ["b/gone.mp4", "b/v/a.mp4", "b/v/s2/a_gt.mp4@0.04-s"]


def table_of(rows, path):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_rows_of_a_manifest_may_name_objects_and_files(collection, bucket, tmp_path):
    put(bucket, collection)
    rows = [*ROWS, (str(collection / "b c.mp4"), "", "")]
    found = {video.video_id: video for video in discover(table_of(rows, tmp_path / "m.csv")).videos}
    (local,) = found.keys() - set(IDS)
    assert found[local].source.path == str(collection / "b c.mp4")
    assert found[IDS[1]].annotation.subject == "p1"
    assert found[IDS[1]].source.num_bytes == (collection / "a.mp4").stat().st_size
    assert found[IDS[2]].selection == Selection(start_seconds=0.04)
    assert found[IDS[0]].source[:3] == ("s3://b/gone.mp4", 0, 0)  # the encode reports it


def test_paths_of_a_manifest_in_a_bucket_start_from_it(collection, bucket, tmp_path):
    put(bucket, collection)
    rows = [("path",), ("../v/a.mp4",), ("s1/clip.mp4",), ("s3://b/v/b c.mp4",)]
    bucket.create("tables/m.csv", table_of(rows, tmp_path / "m.csv").read_bytes())
    found = {video.video_id: video.source.path for video in discover("s3://b/tables/m.csv").videos}
    assert found == {
        "v/a.mp4": "s3://b/v/a.mp4",
        "s1/clip.mp4": "s3://b/tables/s1/clip.mp4",
        "b/v/b c.mp4": "s3://b/v/b c.mp4",
    }
    bucket.create("tables/lines.jsonl", b'{"path": "../v/a.mp4"}\n')
    assert [video.video_id for video in discover("s3://b/tables/lines.jsonl").videos] == ["v/a.mp4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://b/v/*.mp4", r"^s3://b/v/\*\.mp4: no such object, .* not a pattern$"),
        ("s3://b/none/", "^s3://b/none/: no such object, and none below it"),
        ("https://host/v/a.mp4", "^https://host/v/a.mp4: expected s3://BUCKET/FOLDER, gs:// or az://"),
        ("s3://b/none.csv", "^s3://b/none.csv: no such file"),
        ("s3://b/tables/absolute.csv", r"absolute.csv line 2: /data/a.mp4 is a path on a machine; expected"),
        ("s3://b/tables/web.csv", r"web.csv line 2: https://host/a.mp4: expected s3://BUCKET"),
        ("s3://b/tables", r"^no video in s3://b/tables \(2 other files: 2 \.csv\); is it the right folder"),
    ],
)
def test_what_cannot_be_found_is_refused_in_one_line(bucket, text, said):
    bucket.create("tables/absolute.csv", b"path\n/data/a.mp4\n")
    bucket.create("tables/web.csv", b"path\nhttps://host/a.mp4\n")
    with pytest.raises(InputError, match=said) as error:
        discover(text)
    assert "\n" not in str(error.value)


def test_stills_are_not_looked_for_in_a_bucket(collection, bucket):
    found = discover(put(bucket, collection))
    with pytest.raises(InputError, match=r"^--min-frames: not for videos in a bucket"):
        find_short(found.videos, 2, Reading())


def test_other_commands_take_no_address(collection, bucket, tmp_path):
    put(bucket, collection)
    for text in ("s3://b/v", table_of(ROWS, tmp_path / "m.csv")):
        with pytest.raises(InputError, match=r"s3://b/v\S* is a URL; expected a path on this machine"):
            discover_videos([str(text)])
