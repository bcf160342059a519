"""Merged caches hold the videos of all, bit for bit, wherever a merge ends; the caches themselves stay."""

import errno
import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from tests.store.caches import (
    SCHEMA,
    add_videos,
    failure_of,
    frames_of,
    random_posterior,
    record_of,
    writer_of,
)
from tests.store.damage import edit_json, flip, rewrite
from tests.store.faults import Killed, meet
from tests.store.test_lease import write_lease
from tests.store.test_prune import content_of, frames_stored_outside_videos, pruned, stored
from tests.store.test_write_faults import mounted
from tests.thorough import is_thorough, some_of
from vidlat.errors import CacheMismatchError, InputError, StoreError
from vidlat.store.copying.merge import merge_caches
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.metadata import read_schema
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.reader import open_cache
from vidlat.store.records.manifest import read_manifest
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import read_lease
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.store.writing.writer import CacheWriter
from vidlat.types import Annotation


def latents_of(content):
    """The latents of a content, which is a number: of 1 to 20 latent frames."""
    return random_posterior(1 + content % 20, content)


def sha256_of(content):
    return hashlib.sha256(str(content).encode()).hexdigest()


def add(path, videos):
    """Add one batch of videos, each of a content, as an encode does."""
    writer = writer_of(path)
    posteriors = [latents_of(content) for content in videos.values()]
    start = writer.reserve(SCHEMA.num_shards(frames_of(posteriors)))
    ranges = write_shards(path, start, posteriors)
    writer.commit(
        [
            record_of(video_id, first, posterior, source_sha256=sha256_of(content))
            for (video_id, content), posterior, (first, _) in zip(
                videos.items(), posteriors, ranges, strict=True
            )
        ]
    )


def make(path, *batches, failed=(), schema=SCHEMA):
    """A cache of these batches of videos, and of failures."""
    create_cache(path, schema)
    for videos in batches:
        add(path, videos)
    writer_of(path).record_failures([failure_of(video_id) for video_id in failed])
    return path


def merged(*paths):
    """Merge all but the last into the last; returns the plan, and what each source gave."""
    *sources, out = paths
    first, *events = merge_caches(sources, out)
    return first.plan, [event.merged for event in events if event.merged]


def latents_as_bytes(videos):
    return {video_id: stored(latents_of(content)) for video_id, content in videos.items()}


def bytes_in(*paths):
    """Every file of these caches but the empty lock."""
    return {
        file: file.read_bytes()
        for path in paths
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def problems(path):
    return [(problem.where, problem.kind) for problem in verify_cache(path)]


A, B = {"a.mp4": 3, "long.mp4": 38, "b.mp4": 7}, {"c/[c].mp4": 12, "d.mp4": 4}
"""Contents by id; long.mp4 takes 19 latent frames, which is more than two shards of 8."""


@pytest.fixture
def one(tmp_path):
    """A cache in which a hole lies between the videos, one was removed, one replaced, and one failed."""
    path = make(tmp_path / "one.zarr", {"a.mp4": 99, "gone.mp4": 6})
    writer_of(path).reserve(2)
    add(path, {"long.mp4": A["long.mp4"], "b.mp4": A["b.mp4"]})
    add(path, {"a.mp4": A["a.mp4"]})
    writer_of(path).remove(["gone.mp4"])
    writer_of(path).record_failures([failure_of("broken.mp4"), failure_of("b.mp4")])
    return path


@pytest.fixture
def two(tmp_path):
    return make(tmp_path / "two.zarr", B, failed=["broken too.mp4"])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "all.zarr"


FAILED = {"broken.mp4", "b.mp4", "broken too.mp4"}


def test_merged_cache_equals_one_that_was_encoded_at_once(one, two, out, tmp_path):
    at_once = make(tmp_path / "at once.zarr", A | B)
    before = bytes_in(one, two)
    merged(one, two, out)
    assert content_of(out) == content_of(at_once) == latents_as_bytes(A | B)
    assert set(open_cache(out).failures()) == FAILED
    assert problems(out) == []
    assert bytes_in(one, two) == before
    assert open_cache(out).schema == SCHEMA
    assert open_cache(out).uuid not in (open_cache(one).uuid, open_cache(two).uuid)


def test_records_are_those_of_the_sources_but_for_their_place(one, two, out):
    add_videos(two, {"labelled.mp4": random_posterior(2)})
    record = open_cache(two).records()["labelled.mp4"]
    note = Annotation("S1", {"view": "A4C"})
    writer_of(two).commit([replace(record, annotation=note, pts_seconds=tuple(map(float, range(8))))])
    merged(one, two, out)
    before = open_cache(one).records() | open_cache(two).records()
    after = open_cache(out).records()
    assert after.keys() == before.keys()
    for video_id, record in after.items():
        where = {name: getattr(record, name) for name in ("start", "stop", "sequence")}
        assert replace(before[video_id], **where) == record
    failures = open_cache(one).failures() | open_cache(two).failures()
    for video_id, failure in open_cache(out).failures().items():
        assert replace(failures[video_id], sequence=failure.sequence) == failure


def test_shards_of_live_videos_alone_are_linked_and_packed(one, two, out):
    _, (of_one, of_two) = merged(one, two, out)
    frames = open_cache(out).num_latent_frames
    shards = sorted(int(folder.name) for folder in (out / "mean/c/0").iterdir())
    # Of one, the shards of long.mp4 and b.mp4 behind it, and that of a.mp4; B packs 16 and 8 frames.
    assert (of_one.num_linked, of_two.num_linked) == (2 * 5, 2 * 3)
    assert shards == list(range(8))
    assert frames == 64
    inodes = {file.stat().st_ino for path in (one, two) for file in path.glob("*/c/0/*/0/0")}
    assert {file.stat().st_ino for file in out.glob("*/c/0/*/0/0")} <= inodes
    assert (of_one.num_copied, of_one.why_copied) == (0, "")


def test_each_source_is_one_commit(one, two, out):
    merged(one, two, out)
    assert read_manifest(local_cache(out)).sequence == 2
    by_source = {record.sequence for video_id, record in open_cache(out).records().items() if video_id in A}
    assert by_source == {1}


def test_second_merge_adds_nothing(one, two, out):
    merged(one, two, out)
    before = bytes_in(out)
    plan, sources = merged(one, two, out)
    assert plan.num_files == 0
    assert [(source.num_videos, source.num_skipped, source.num_failures) for source in sources] == [
        (0, len(A), 0),
        (0, len(B), 0),
    ]
    assert bytes_in(out) == before


def test_cache_that_is_there_is_added_to(one, two, out):
    make(out, {"own.mp4": 5, "d.mp4": B["d.mp4"]}, failed=["a.mp4"])
    uuid = open_cache(out).uuid
    plan, sources = merged(one, two, out)
    assert plan.first == out
    assert [source.num_skipped for source in sources] == [0, 1]
    assert content_of(out) == latents_as_bytes(A | B | {"own.mp4": 5})
    assert set(open_cache(out).failures()) == FAILED  # a.mp4 has come
    assert problems(out) == []
    assert open_cache(out).uuid == uuid


def test_source_that_has_grown_is_merged_again_for_what_is_new(one, two, out):
    merged(one, two, out)
    add(two, {"new.mp4": 17})
    _, sources = merged(one, two, out)
    assert [source.num_videos for source in sources] == [0, 1]
    assert content_of(out) == latents_as_bytes(A | B | {"new.mp4": 17})


def test_failure_of_a_video_that_is_there_does_not_come_along(one, two, out):
    writer_of(two).record_failures([failure_of("a.mp4"), failure_of("broken.mp4", "another reason")])
    merged(one, two, out)
    assert set(open_cache(out).failures()) == FAILED
    assert open_cache(out).failures()["broken.mp4"].reason == "no frame decodes"


def test_video_of_a_later_cache_supersedes_the_failure_of_an_earlier_one(tmp_path, out):
    failed = make(tmp_path / "failed.zarr", failed=["a.mp4", "b.mp4"])
    encoded = make(tmp_path / "encoded.zarr", {"a.mp4": 3, "b.mp4": 7}, failed=["b.mp4"])
    merged(failed, encoded, out)
    assert content_of(out) == latents_as_bytes({"a.mp4": 3, "b.mp4": 7})
    assert set(open_cache(out).failures()) == {"b.mp4"}  # a later attempt, in the cache that holds it


def test_what_the_cache_has_dropped_is_not_taken_from_a_part(tmp_path, out):
    part, two = make(tmp_path / "1.zarr", A, failed=["x"]), make(tmp_path / "2.zarr", B)
    make(out, A, failed=["x"])
    pruned(out, "a.mp4", "x")
    plan, _ = merged(part, two, out)
    assert plan.dropped == ("a.mp4",)
    videos = {video_id: content for video_id, content in (A | B).items() if video_id != "a.mp4"}
    assert content_of(out) == latents_as_bytes(videos)
    before = bytes_in(out)
    merged(part, two, out)
    assert bytes_in(out) == before
    pruned(out)
    assert (open_cache(out, hold=False).dropped(), problems(out)) == (["a.mp4", "x"], [])
    assert open_cache(out, hold=False).failures() == {}


def test_what_a_part_has_dropped_is_dropped_where_no_other_cache_holds_it(tmp_path, out):
    one, two = (
        make(tmp_path / "1.zarr", A, failed=["x"]),
        make(tmp_path / "2.zarr", {"a.mp4": 5}, failed=["x"]),
    )
    pruned(one, "a.mp4", "b.mp4", "x")
    for parts in ((one, two), (two, one)):
        plan, _ = merged(*parts, out)
        assert (plan.dropped, open_cache(out, hold=False).dropped()) == ((), ["b.mp4", "x"])
        assert content_of(out) == latents_as_bytes({"a.mp4": 5, "long.mp4": A["long.mp4"]})
        shutil.rmtree(out)


def test_empty_caches_become_an_empty_cache(tmp_path, out):
    _, (source,) = merged(make(tmp_path / "empty.zarr"), out)
    assert (source.num_videos, source.num_linked) == (0, 0)
    assert len(open_cache(out)) == 0
    assert problems(out) == []


def test_same_content_under_two_ids_is_told_and_stays(tmp_path, one, two, out):
    copy = make(tmp_path / "copy.zarr", {"copy of a.mp4": A["a.mp4"], "again.mp4": A["a.mp4"]})
    plan, _ = merged(one, two, copy, out)
    (ids,) = plan.same_content
    assert set(ids) == {"a.mp4", "copy of a.mp4", "again.mp4"}
    assert len(content_of(out)) == len(A | B) + 2


def test_pruned_or_repaired_merged_cache_leaves_the_sources_as_they_are(one, two, out):
    """Their shards have the same bytes on disk, which nothing writes to."""
    merged(one, two, out)
    before = bytes_in(one, two)
    pruned(out, "b.mp4")  # shares a shard with long.mp4, which is moved
    add(out, {"a.mp4": A["a.mp4"]})  # what a repair does with a damaged video
    pruned(out, "d.mp4")
    assert bytes_in(one, two) == before
    kept = {video_id: content for video_id, content in (A | B).items() if video_id not in ("b.mp4", "d.mp4")}
    assert content_of(out) == latents_as_bytes(kept)
    assert problems(out) == problems(one) == problems(two) == []


def test_merged_cache_outlives_its_sources(one, two, out):
    merged(one, two, out)
    shutil.rmtree(one)
    pruned(two, *B)
    assert content_of(out) == latents_as_bytes(A | B)


def test_source_on_a_read_only_disk_or_without_its_locks_is_merged(one, two, out, monkeypatch):
    for path in (one, two):
        for name in ("readers", "lock"):
            (path / "videos/records" / name).unlink(missing_ok=True)
    before = bytes_in(one, two)
    merged(one, two, out)
    assert bytes_in(one, two) == before
    assert not (one / "videos/records/readers").exists()
    assert content_of(out) == latents_as_bytes(A | B)


def refuse_links(monkeypatch, number):
    """Links of shards fail; those that make record files do not."""
    real = os.link

    def link(file, new_file, **options):
        if "/c/0/" in str(new_file):
            raise OSError(number, os.strerror(number), str(file))
        real(file, new_file, **options)

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize(
    "number", some_of([errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS])
)
def test_shards_are_copied_where_links_are_impossible_which_is_told(one, two, out, monkeypatch, number):
    refuse_links(monkeypatch, number)
    _, sources = merged(one, two, out)
    assert [(source.num_linked, source.num_copied) for source in sources] == [(0, 10), (0, 6)]
    assert {source.why_copied for source in sources} == {os.strerror(number)}
    assert content_of(out) == latents_as_bytes(A | B)
    assert problems(out) == []
    assert all(file.stat().st_nlink == 1 for file in out.glob("*/c/0/*/0/0"))


def test_merge_onto_another_disk_copies(one, two, tmp_path):
    with mounted(tmp_path / "disk", 2**21) as disk:
        _, sources = merged(one, two, disk / "all.zarr")
        assert {source.why_copied for source in sources} == {os.strerror(errno.EXDEV)}
        assert content_of(disk / "all.zarr") == latents_as_bytes(A | B)


def test_disk_that_is_too_full_for_copies_is_one_line_and_the_same_merge_continues(one, two, tmp_path):
    with mounted(tmp_path / "disk", 2**18) as disk:
        out, filler = disk / "all.zarr", disk / "filler"
        merged(one, out)
        filler.write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 7 * 4096))
        with pytest.raises(StoreError, match="No space left on device") as refusal:
            merged(one, two, out)
        assert "\n" not in str(refusal.value)
        assert content_of(out) == latents_as_bytes(A)
        filler.unlink()
        merged(one, two, out)
        assert content_of(out) == latents_as_bytes(A | B)
        assert problems(out) == []


OTHER = {
    "size": (lambda: replace(SCHEMA, settings=replace(SCHEMA.settings, size=64)), "size: 64, there 12"),
    "vae": (
        lambda: replace(
            SCHEMA,
            settings=replace(SCHEMA.settings, encoder_hash="ff", encoder_config={"latent_channels": 2}),
        ),
        "encoder_config.num_channels: 'nothing', there [8, 16]; encoder_hash: 'ff', there '0123abcd'",
    ),
    "ids": (lambda: replace(SCHEMA, ids="hash"), "ids: 'hash', there 'path'"),
    "layout": (
        lambda: replace(SCHEMA, shard_frames=16, latent_height=6, space_compression=2),
        "space_compression: 2, there 4; latent_height: 6, there 3; shard_frames: 16, there 8",
    ),
    "chunks": (lambda: replace(SCHEMA, chunk_frames=8), "chunk_frames: 8, there 4"),
}


@pytest.mark.parametrize("what", OTHER)
def test_cache_that_was_made_otherwise_is_refused_with_both_values(one, two, tmp_path, out, what):
    schema, fields = OTHER[what]
    other = make(tmp_path / "other.zarr", schema=schema())
    with pytest.raises(CacheMismatchError) as refusal:
        merged(one, two, other, out)
    assert str(refusal.value).startswith(f"{other}: made otherwise than {one} ({fields}): ")
    assert not out.exists()
    make(out, {"own.mp4": 1})
    before = bytes_in(out)
    with pytest.raises(CacheMismatchError) as refusal:
        merged(other, out)
    assert str(refusal.value).startswith(f"{other}: made otherwise than {out} ({fields}): ")
    assert bytes_in(out) == before


def test_every_cache_that_was_made_otherwise_is_named(one, tmp_path, out):
    others = [make(tmp_path / f"{what}.zarr", schema=OTHER[what][0]()) for what in ("size", "ids")]
    with pytest.raises(CacheMismatchError) as refusal:
        merged(one, *others, out)
    for other, what in zip(others, ("size", "ids"), strict=True):
        assert f"{other}: made otherwise than {one} ({OTHER[what][1]})" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_another_place_or_decoder_of_the_vae_is_no_difference_and_told(one, two, tmp_path, out):
    schema = replace(SCHEMA, vae_path="/elsewhere/tiny.safetensors", vae_hash="ee")
    moved = make(tmp_path / "moved.zarr", {"m.mp4": 1}, schema=schema)
    plan, _ = merged(one, two, moved, out)
    assert plan.kept == {"vae_hash": (moved,), "vae_path": (moved,)}
    assert (plan.first, read_schema(local_cache(out))) == (one, SCHEMA)
    assert content_of(out) == latents_as_bytes(A | B | {"m.mp4": 1})


@pytest.mark.parametrize("where", ["out", "source"])
def test_same_id_of_another_content_is_refused_before_anything_is_written(one, two, tmp_path, out, where):
    other = make(tmp_path / "other.zarr", {"x.mp4": 1, "d.mp4": 77, "c/[c].mp4": 78})
    paths = (one, two, other, out) if where == "source" else (one, two, other)
    before = bytes_in(one, two, other)
    with pytest.raises(StoreError) as refusal:
        merged(*paths)
    first, second = (two, other) if where == "source" else (other, two)
    assert str(refusal.value).startswith(
        f"c/[c].mp4: {first} and {second} hold different videos of this id, and so it is with 1 more; remove"
    )
    assert bytes_in(one, two, other) == before
    assert not out.exists()


def test_another_stretch_of_the_same_file_is_another_content(two, tmp_path, out):
    other = tmp_path / "stretch.zarr"
    create_cache(other, SCHEMA)
    record = open_cache(two).records()["d.mp4"]
    add_videos(other, {"d.mp4": latents_of(B["d.mp4"])})
    selection = replace(record.source.selection, start_seconds=1.0)
    start = open_cache(other).records()["d.mp4"].start
    stop = start + record.stop - record.start
    source = record.source._replace(selection=selection)
    writer_of(other).commit([replace(record, start=start, stop=stop, source=source)])
    with pytest.raises(StoreError, match=r"d\.mp4: .* hold different videos"):
        merged(two, other, out)


def test_video_without_a_hash_of_its_content_is_never_taken_for_another(two, tmp_path, out):
    for name in ("x", "y"):
        path = make(tmp_path / f"{name}.zarr", {"x.mp4": 5})
        (file,) = (path / "videos/records").glob("*.parquet")
        rewrite(file, source_sha256=[""])
    with pytest.raises(StoreError, match=r"x\.mp4: .* hold different videos"):
        merged(tmp_path / "x.zarr", tmp_path / "y.zarr", out)


def test_target_that_is_a_source_or_lies_in_a_cache_is_refused(one, two, tmp_path):
    before = bytes_in(one, two)
    (tmp_path / "link.zarr").symlink_to(one)
    for target in (one, tmp_path / "link.zarr", one / ".." / one.name):
        with pytest.raises(InputError, match="is one of the caches to merge"):
            merged(one, two, target)
    for target in (one / "all.zarr", two / "videos" / "all.zarr", tmp_path / "link.zarr" / "all.zarr"):
        with pytest.raises(InputError, match="lies in the cache"):
            merged(one, target)
    with pytest.raises(InputError, match=r"one\.zarr: lies in .*, into which it is to be merged"):
        merged(one, two, tmp_path)
    with pytest.raises(InputError, match="no cache to merge"):
        merged(tmp_path / "all.zarr")
    assert bytes_in(one, two) == before


def test_what_is_no_cache_is_refused(one, tmp_path, out):
    for source in (tmp_path / "nothing.zarr", tmp_path):
        with pytest.raises(StoreError, match="is not a vidlat cache"):
            merged(one, source, out)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not a vidlat cache"):
        merged(one, out)
    (out / "notes.txt").unlink()
    merged(one, out)
    assert content_of(out) == latents_as_bytes(A)


def test_source_that_is_encoded_into_is_refused(one, two, out):
    in_use = pytest.raises(StoreError, match=r"two\.zarr: in use by `vidlat encode` .* wait until it has")
    with open_writer(two, "vidlat encode"), in_use:
        merged(one, two, out)
    assert not out.exists()


def test_source_whose_encode_was_killed_is_refused_with_a_remedy(one, two, out):
    write_lease(two, pid=2**30)
    with pytest.raises(
        StoreError, match=r"two\.zarr: may be unfinished: `vidlat encode` .* run that command"
    ):
        merged(one, two, out)
    assert not out.exists()
    with open_writer(two, "vidlat verify --repair"):
        pass
    merged(one, two, out)


def test_source_that_is_pruned_is_refused(one, two, out):
    (two / "videos/records/readers").touch()
    being_pruned = pytest.raises(StoreError, match="is being pruned")
    with filesystem.locked(two / "videos/records/readers"), being_pruned:
        merged(one, two, out)
    assert not out.exists()


def test_source_is_kept_from_prune_while_its_shards_are_taken(one, two, out):
    events = merge_caches([one, two], out)
    next(events)
    assert next(events).num_files == 1
    with pytest.raises(StoreError, match="is being read"):
        pruned(one, "a.mp4")
    list(events)
    pruned(one, "a.mp4")
    assert content_of(out) == latents_as_bytes(A | B)


def test_source_that_changes_during_the_merge_is_refused(one, two, out):
    events = merge_caches([one, two], out)
    next(events)
    add(two, {"late.mp4": 9})
    with pytest.raises(StoreError, match=r"two\.zarr: changed during the merge; run the same command again"):
        list(events)
    assert content_of(out) == latents_as_bytes(A)
    merged(one, two, out)
    assert content_of(out) == latents_as_bytes(A | B | {"late.mp4": 9})


def test_shards_far_away_on_the_time_axis_take_no_memory(tmp_path, out):
    path, frames = make(tmp_path / "far.zarr", {"a.mp4": 3}), 2**40
    edit_json(path / "mean/zarr.json", lambda document: document["shape"].__setitem__(1, frames))
    edit_json(path / "std/zarr.json", lambda document: document["shape"].__setitem__(1, frames))
    (file,) = (path / "videos/records").glob("*.parquet")
    rewrite(file, start=[frames - 8], stop=[frames - 4])
    for name in ("mean", "std"):
        (path / name / "c/0/0").rename(path / name / f"c/0/{frames // 8 - 1}")
    merged(path, out)
    assert content_of(out) == latents_as_bytes({"a.mp4": 3})


def missing(file):
    file.unlink()


def a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def a_link(file):
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def a_folder(file):
    file.unlink()
    file.mkdir()


WRONG_SHARDS = {
    missing: "is missing; `vidlat verify --repair`",
    a_pipe: "is a named pipe; expected a regular file; `vidlat verify --repair`",
    a_link: "is a link; expected a regular file; put the file itself there",
    a_folder: "is a folder; expected a regular file; `vidlat verify --repair`",
}


@pytest.mark.parametrize("damage", some_of(WRONG_SHARDS))
@pytest.mark.parametrize("name", ["mean", "std"])
def test_shard_that_is_no_file_is_refused_by_its_video(one, two, out, damage, name):
    start = open_cache(one).records()["long.mp4"].start
    where = f"{name}/c/0/{start // 8 + 1}/0/0"
    damage(one / where)
    with pytest.raises(StoreError) as refusal:
        merged(two, one, out)
    assert str(refusal.value).startswith(f"{one}: damaged: long.mp4: {where} {WRONG_SHARDS[damage]}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("columns", "what"),
    some_of(
        [
            ({"stop": [4, 24]}, "names latent frames"),
            ({"fps": [-1.0, 25.0]}, r"fps: got -1\.0; expected a frame rate"),
            ({"source_selection": ["{", ""]}, "source_selection: "),
            ({"latents_sum_mean": [[1.0], [1.0, 2.0]]}, "expected sums of 2 channels in its record"),
        ]
    ),
)
def test_damaged_record_is_refused_by_its_video_and_nothing_of_the_source_is_taken(
    one, two, out, columns, what
):
    (file,) = (two / "videos/records").glob("*.parquet")
    rewrite(file, **columns)
    with pytest.raises(
        StoreError, match=rf"two\.zarr: damaged: '?c/\[c\]\.mp4'?: .*{what}.*--repair`"
    ) as refusal:
        merged(one, two, out)
    assert "\n" not in str(refusal.value)
    assert not out.exists() or content_of(out) == latents_as_bytes(A)


def test_damaged_record_file_or_description_is_refused(one, two, out):
    (file,) = (two / "videos/records").glob("*.parquet")
    content = file.read_bytes()
    flip(file, 100)
    with pytest.raises(StoreError, match="is not what was committed; `vidlat verify --repair`"):
        merged(one, two, out)
    file.unlink()
    with pytest.raises(StoreError, match="is missing; `vidlat verify --repair`"):
        merged(one, two, out)
    file.write_bytes(content)
    edit_json(two / "mean/zarr.json", lambda document: document.update(shape=[2, 8, 3, 5]))
    with pytest.raises(StoreError, match=r"two\.zarr: damaged: .*`vidlat verify --repair`"):
        merged(one, two, out)
    assert not out.exists()


def test_two_merges_into_one_cache_one_is_refused(one, two, out):
    events = merge_caches([one, two], out)
    next(events)
    assert next(events).num_files == 1
    with pytest.raises(StoreError, match="in use by `vidlat merge`"):
        merged(two, out)
    list(events)
    merged(two, out)
    assert content_of(out) == latents_as_bytes(A | B)
    assert read_lease(out) is None


def test_of_two_merges_that_were_planned_at_once_the_second_is_refused(one, two, out):
    first, second = merge_caches([one], out), merge_caches([two, one], out)
    next(first)
    next(second)
    list(first)
    with pytest.raises(StoreError, match="changed while this merge was planned; run the same command again"):
        list(second)
    assert content_of(out) == latents_as_bytes(A)


def test_merge_that_lost_the_cache_to_another_changes_nothing(one, two, out):
    lost = merge_caches([one, two], out)
    next(lost)
    assert next(lost).num_files == 1
    (out / "videos/records/lease").unlink()  # as if the process had seemed dead
    merged(two, out)
    with pytest.raises(StoreError, match="its lease is gone"):
        list(lost)
    assert content_of(out) == latents_as_bytes(B)
    merged(one, two, out)
    assert content_of(out) == latents_as_bytes(A | B)
    assert problems(out) == []


def test_merge_that_is_stopped_releases_the_cache(one, two, out):
    events = merge_caches([one, two], out)
    next(events)
    next(events)
    events.close()
    assert read_lease(out) is None
    assert content_of(out) == {}
    merged(one, two, out)
    assert content_of(out) == latents_as_bytes(A | B)


def test_range_that_somebody_has_linked_elsewhere_is_not_written_through(one, out, tmp_path):
    make(out)
    (tmp_path / "elsewhere").mkdir()
    (out / "mean/c/0").mkdir(parents=True)
    (out / "mean/c/0/1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"File exists: .*mean/c/0/1.; what was merged before is safe"):
        merged(one, out)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_many_sources_leave_few_record_files(tmp_path, out, monkeypatch):
    monkeypatch.setattr(CacheWriter, "max_small_files", 2)
    contents = {f"{number}.mp4": number for number in range(6)}
    sources = [
        make(tmp_path / f"{name}.zarr", {name: content}, failed=[f"not {name}"])
        for name, content in contents.items()
    ]
    merged(*sources, out)
    for folder in ("videos", "failures"):
        assert len(read_manifest(local_cache(out)).files_in(f"{folder}/records")) <= 2
    assert content_of(out) == latents_as_bytes(contents)
    assert set(open_cache(out).failures()) == {f"not {name}" for name in contents}
    assert problems(out) == []


HELD = {}, latents_as_bytes(A), latents_as_bytes(A | B)
"""What the merged cache may hold wherever a merge ends."""


def state_of(path):
    """What a cache holds, nothing if there is none."""
    return content_of(path) if path.exists() else {}


ENDS = [
    pytest.param(Killed, True, False, 41, id="killed"),
    pytest.param(Killed, True, False, 1, id="killed anywhere", marks=pytest.mark.slow),
    pytest.param(Killed, True, True, 5, id="killed while it copies", marks=pytest.mark.slow),
    pytest.param(errno.ENOSPC, True, True, 7, id="a disk that stays full", marks=pytest.mark.slow),
    pytest.param(errno.EIO, False, False, 7, id="one error", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("error", "stays", "copies", "stride"), ENDS)
def test_merge_that_ends_at_any_step_adds_each_source_wholly_and_continues(
    one, two, tmp_path, monkeypatch, error, stays, copies, stride
):
    before = bytes_in(one, two)
    if copies:
        refuse_links(monkeypatch, errno.EXDEV)
    for step in count(0, stride):
        out = tmp_path / str(step) / "all.zarr"
        hit, raised = meet(lambda out=out: merged(one, two, out), step, monkeypatch, error, stays)
        assert raised is None or isinstance(raised, Killed | StoreError | OSError)
        assert "\n" not in str(raised)
        assert state_of(out) in HELD
        assert not out.exists() or {kind for _, kind in problems(out)} <= {"leftover"}
        merged(one, two, out)
        assert content_of(out) == latents_as_bytes(A | B)
        assert set(open_cache(out).failures()) == FAILED
        assert {kind for _, kind in problems(out)} <= {"leftover"}
        pruned(out)
        assert content_of(out) == latents_as_bytes(A | B)
        assert set(open_cache(out).failures()) == FAILED
        assert frames_stored_outside_videos(out) == []
        assert problems(out) == []
        assert bytes_in(one, two) == before
        shutil.rmtree(out.parent)
        if hit is None:
            assert step > 100
            return


ids = st.sampled_from(["a", "b", "c", "d", "e", "f"])
contents = st.integers(0, 40)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(ids, contents, min_size=1, max_size=4)),
        st.tuples(st.just("own"), st.sets(ids, min_size=1, max_size=4)),
        st.tuples(st.just("fail"), ids),
        st.tuples(st.just("remove"), ids),
        st.tuples(st.just("orphan"), st.integers(1, 20)),
        st.tuples(st.just("reserve"), st.integers(1, 2)),
        st.tuples(st.just("prune"), st.none()),
    ),
    max_size=6,
)


def live(path, history):
    """A cache with a history; returns the content of its videos by id, and the ids of its failures."""
    create_cache(path, SCHEMA)
    videos, failures = {}, set()
    for kind, what in history:
        if kind in ("add", "own"):
            # Of its own content, the same in every cache.
            added = what if kind == "add" else {video_id: 50 + ord(video_id) for video_id in sorted(what)}
            add(path, added)
            videos |= added
            failures -= added.keys()
        elif kind == "fail":
            writer_of(path).record_failures([failure_of(what, reason=path.name)])
            failures.add(what)
        elif kind == "remove":
            writer_of(path).remove([what])
            videos.pop(what, None)
            failures.discard(what)
        elif kind == "orphan":
            video = random_posterior(what, 1000)
            write_shards(path, writer_of(path).reserve(SCHEMA.num_shards([what])), [video])
        elif kind == "reserve":
            writer_of(path).reserve(what)
        elif read_manifest(local_cache(path)).files:
            pruned(path)
    return videos, failures


def merge_of_dictionaries(caches):
    """Videos and failures of a merge as dictionaries have it; None for two contents of one id."""
    videos, failures = {}, {}
    for name, (own_videos, own_failures) in caches.items():
        if any(videos.get(video_id, content) != content for video_id, content in own_videos.items()):
            return None
        before = set(videos)
        for video_id in own_videos.keys() - before:
            failures.pop(video_id, None)
        videos |= own_videos
        for video_id in own_failures - before:
            failures.setdefault(video_id, name)
    return videos, failures


@settings(max_examples=20 if is_thorough() else 7)
@given(st.lists(histories, min_size=1, max_size=3), st.none() | histories)
def test_merge_of_any_caches_holds_what_dictionaries_would(all_histories, history_of_target):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.zarr"
        sources = [Path(folder) / f"{number}.zarr" for number in range(len(all_histories))]
        caches = {} if history_of_target is None else {out.name: live(out, history_of_target)}
        for path, history in zip(sources, all_histories, strict=True):
            caches[path.name] = live(path, history)
        expected, before = merge_of_dictionaries(caches), bytes_in(Path(folder))
        if expected is None:
            with pytest.raises(StoreError, match="hold different videos of this id"):
                merged(*sources, out)
            assert bytes_in(Path(folder)) == before
            return
        videos, failures = expected
        plan, _ = merged(*sources, out)
        assert content_of(out) == latents_as_bytes(videos)
        assert {id: failure.reason for id, failure in open_cache(out).failures().items()} == failures
        assert problems(out) == []
        assert bytes_in(*sources) == {
            file: content for file, content in before.items() if not file.is_relative_to(out)
        }
        twins = {tuple(sorted(id for id in videos if videos[id] == content)) for content in videos.values()}
        assert {tuple(sorted(ids)) for ids in plan.same_content} == {ids for ids in twins if len(ids) > 1}
        assert merged(*sources, out)[0].num_files == 0
        if read_manifest(
            local_cache(out)
        ).files:  # prune deletes no shard of a cache that has no record at all
            pruned(out)
            assert content_of(out) == latents_as_bytes(videos)
            assert plan_prune(out).is_empty
