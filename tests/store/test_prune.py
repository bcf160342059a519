"""What prune leaves: the remaining videos, bit for bit, and not a byte of anything else."""

import dataclasses
import errno
import fcntl
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings, strategies as st

from tests.store.caches import SCHEMA, add_videos, failure_of, random_posterior, record_of, writer_of
from tests.store.faults import Killed, meet
from tests.thorough import some_of
from vidlat.errors import EncodeError, StoreError
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.pruning import prune as prune_module
from vidlat.store.pruning.plan import plan_prune, vanished_videos
from vidlat.store.pruning.prune import prune
from vidlat.store.reader import open_cache
from vidlat.store.records.manifest import read_manifest
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import create_cache, open_writer

SECRET = "ward-7/mueller.mp4"
FAILED = {"broken.mp4", "a.mp4"}
"""One video was never encoded; for the other, an attempt to replace it failed."""


def pruned(path, *drop):
    """Prune as the command does: what a killed process had not committed is completed first."""
    writer = writer_of(path)
    writer.roll_forward()
    return prune(writer, plan_prune(path, drop))


def stored(posterior):
    return posterior.mean.astype(np.float16).tobytes(), posterior.std.astype(np.float16).tobytes()


def content_of(path):
    """The latents of every video as bytes, by id."""
    cache = open_cache(path)
    return {video_id: stored(cache.read_latents(video_id)) for video_id in cache.records()}


def files_of(path):
    return {file: file.read_bytes() for file in sorted(path.parent.rglob("*")) if file.is_file()}


def frames_stored_outside_videos(path):
    """Latent frames that hold numbers and belong to no record, as another library reads them."""
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    is_stored = ~np.isnan(np.concatenate([group["mean"][:], group["std"][:]])).all(axis=(0, 2, 3))
    for record in open_cache(path).records().values():
        is_stored[record.start : record.stop] = False
    return np.flatnonzero(is_stored).tolist()


def write_orphan(path, num_latent_frames, seed):
    """What a driver leaves if it dies between write and commit."""
    video = random_posterior(num_latent_frames, seed)
    write_shards(path, writer_of(path).reserve(SCHEMA.num_shards([num_latent_frames])), [video])


@pytest.fixture
def used_cache(cache_path):
    """A cache with replaced and removed videos, failures, orphaned shards and leftovers; and its content."""
    first = {"a.mp4": random_posterior(3, 1), SECRET: random_posterior(6, 2), "b.mp4": random_posterior(9, 3)}
    add_videos(cache_path, first)
    alone, replaced = {"alone.mp4": random_posterior(8, 4)}, {"b.mp4": random_posterior(5, 5)}
    add_videos(cache_path, alone)
    add_videos(cache_path, replaced | {"c.mp4": random_posterior(2, 6)})
    add_videos(cache_path, {"removed.mp4": random_posterior(4, 7)})
    writer = writer_of(cache_path)
    writer.record_failures([failure_of(id) for id in ("removed.mp4", SECRET, *FAILED)])
    writer.remove(["removed.mp4"])
    write_orphan(cache_path, 11, 8)
    half = writer.reserve(1) // SCHEMA.shard_frames
    shutil.copytree(cache_path / "mean/c/0/0", cache_path / f"mean/c/0/{half}")
    (cache_path / "videos/records/.0af0.partial").write_bytes(b"half a record")
    (cache_path / "mean/c/0/1/0/0.__lock").touch()
    (cache_path / f"std/c/0/{half}/0").mkdir(parents=True)
    (cache_path.parent / f".{cache_path.name}.{'0a' * 16}.partial").mkdir()
    videos = first | alone | replaced | {"c.mp4": random_posterior(2, 6)}
    return cache_path, {video_id: stored(video) for video_id, video in videos.items()}


def test_pruned_cache_holds_its_videos_bit_for_bit_and_nothing_else(used_cache):
    path, content = used_cache
    before = open_cache(path).records()
    num_bytes = sum(map(len, files_of(path).values()))
    plan = plan_prune(path, [SECRET])
    assert (plan.drop, set(plan.groups)) == ((SECRET,), {("a.mp4",)})
    result = prune(writer_of(path), plan)
    del content[SECRET]
    assert content_of(path) == content
    assert frames_stored_outside_videos(path) == []
    assert list(verify_cache(path)) == []
    assert result.damaged == {}
    assert result.num_freed_bytes == num_bytes - sum(map(len, files_of(path).values())) > 0
    where = ("start", "stop", "sequence")
    for video_id, record in open_cache(path).records().items():
        for name in set(record.__slots__) - set(where):
            assert getattr(record, name) == getattr(before[video_id], name)
    assert set(open_cache(path).failures()) == FAILED


def test_what_was_removed_has_left_no_trace_in_any_file(used_cache):
    path, _ = used_cache
    prune(writer_of(path), plan_prune(path, vanished=[SECRET]))
    for file, content in files_of(path).items():
        for name in (SECRET, "mueller", "removed.mp4"):
            assert name.encode() not in content
            assert name not in str(file)
            if file.suffix == ".parquet":
                assert name not in repr(pq.ParquetFile(file).read().to_pylist())
    for log, ids in (("videos", ["a.mp4", "alone.mp4", "b.mp4", "c.mp4"]), ("failures", sorted(FAILED))):
        (file,) = (path / log / "records").glob("*.parquet")
        assert sorted(pq.ParquetFile(file).read()["video_id"].to_pylist()) == ids
    names = {file.name for folder in (path, path.parent) for file in folder.rglob("*")}
    assert not {name for name in names if "partial" in name or "lock" in name} - {"lock"}


def test_of_a_video_that_was_dropped_only_the_id_is_kept(used_cache):
    path, _ = used_cache
    pruned(path, SECRET)
    cache = open_cache(path)
    assert cache.dropped() == [SECRET]
    assert SECRET not in {*cache.records(), *cache.failures()}
    (file,) = (path / "failures/records").glob("*.parquet")
    (row,) = (row for row in pq.ParquetFile(file).read().to_pylist() if row["video_id"] == SECRET)
    kept = {name: value for name, value in row.items() if value and name != "sequence"}
    assert kept == {"video_id": SECRET, "kind": "dropped", "reason": "removed by `vidlat prune --drop`"}
    assert plan_prune(path, [SECRET]).is_empty
    assert vanished_videos(path)[1] == len({*cache.records(), *FAILED})
    assert list(verify_cache(path)) == []


def test_a_video_that_is_gone_can_still_be_dropped(used_cache):
    path, content = used_cache
    writer_of(path).remove([SECRET])
    pruned(path, SECRET)
    assert open_cache(path).dropped() == [SECRET]
    assert plan_prune(path).is_empty
    del content[SECRET]
    assert content_of(path) == content


def test_drop_of_which_a_kill_left_the_record_alone_is_completed_by_the_next_prune(used_cache):
    path, content = used_cache
    writer = writer_of(path)
    writer.remove([], excluded=[SECRET])  # what `remove` writes first, as roll_forward commits it
    assert (open_cache(path).dropped(), SECRET in open_cache(path).records()) == ([SECRET], True)
    assert plan_prune(path).drop == (SECRET,)
    pruned(path)
    del content[SECRET]
    assert (open_cache(path).dropped(), content_of(path)) == ([SECRET], content)


def test_a_dropped_video_that_is_encoded_again_is_a_video(used_cache):
    path, _ = used_cache
    pruned(path, SECRET, "broken.mp4")
    add_videos(path, {SECRET: random_posterior(3, 1)})
    writer_of(path).record_failures([failure_of("broken.mp4")])
    cache = open_cache(path)
    assert (cache.dropped(), SECRET in cache.records(), set(cache.failures())) == ([], True, FAILED)


def test_second_prune_finds_nothing_to_do(used_cache):
    path, _ = used_cache
    pruned(path, SECRET)
    before = files_of(path)
    plan = plan_prune(path)
    assert plan.is_empty
    prune(writer_of(path), plan)
    assert files_of(path) == before


def bytes_on_disk(folder):
    """Bytes of all files below, each once whatever its names: what `du --apparent-size` counts of files."""
    files = (file.lstat() for file in folder.rglob("*") if not file.is_dir())
    return sum({(status.st_dev, status.st_ino): status.st_size for status in files}.values())


BLOCK = 512
"""The least block of a file system. Records of moved videos have other numbers, which pack otherwise."""


@pytest.mark.parametrize(
    "drop", some_of([[], ["alone.mp4"], [SECRET, "broken.mp4"], ["a.mp4", "b.mp4", "c.mp4"]])
)
def test_prune_frees_the_bytes_that_its_plan_promises(used_cache, drop):
    path, _ = used_cache
    (path.parent / f".{path.name}.{'0b' * 16}.partial").mkdir()
    (path.parent / f".{path.name}.{'0b' * 16}.partial" / "zarr.json").write_bytes(b"x" * 5000)
    plan, before = plan_prune(path, drop), bytes_on_disk(path.parent)
    result = prune(writer_of(path), plan)
    freed = before - bytes_on_disk(path.parent)
    assert result.num_freed_bytes == freed
    assert abs(plan.num_freed_bytes - freed) < BLOCK
    assert (plan.num_kept_bytes, plan_prune(path).num_freed_bytes) == (0, 0)


def test_prune_promises_no_bytes_that_a_hard_link_keeps(used_cache, tmp_path):
    path, _ = used_cache
    (tmp_path / "elsewhere").mkdir()
    for number, file in enumerate(path.glob("mean/c/0/*/0/0")):
        os.link(file, tmp_path / "elsewhere" / str(number))
    kept = [file.stat().st_size for file in (tmp_path / "elsewhere").iterdir()]
    plan, before = plan_prune(path, ["alone.mp4"]), bytes_on_disk(tmp_path)
    result = prune(writer_of(path), plan)
    freed = before - bytes_on_disk(tmp_path)
    assert result.num_freed_bytes == freed
    assert abs(plan.num_freed_bytes - freed) < BLOCK
    assert 0 < plan.num_kept_bytes <= sum(kept)


def test_shards_that_hold_only_videos_are_left_where_they_are(used_cache):
    path, _ = used_cache
    shards = [open_cache(path).records()[video_id].start // 8 for video_id in ("alone.mp4", "c.mp4")]
    before = [(path / f"mean/c/0/{shard}/0/0").stat().st_ino for shard in shards]
    pruned(path, SECRET)
    assert [(path / f"mean/c/0/{shard}/0/0").stat().st_ino for shard in shards] == before


def test_no_frame_and_no_commit_number_is_handed_out_again(used_cache):
    path, content = used_cache
    writer, num_frames = writer_of(path), open_cache(path).num_latent_frames
    sequence = writer.last_sequence()
    pruned(path, *content, "broken.mp4")
    assert not open_cache(path).records()
    assert not open_cache(path).failures()
    assert not list(path.rglob("c/0/*"))
    assert writer.reserve(1) >= num_frames
    writer.commit([record_of("new.mp4", num_frames, random_posterior(2))])
    assert open_cache(path).records()["new.mp4"].sequence > sequence
    assert open_cache(path).num_hole_frames == num_frames + 8 - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "stays", "stride"),
    [(Killed, True, 1), (errno.ENOSPC, True, 5), (errno.EIO, False, 37)],
    ids=["killed", "a disk that stays full", "one error"],
)
def test_prune_that_ends_at_any_step_loses_nothing_and_can_be_done_again(
    used_cache, monkeypatch, error, stays, stride
):
    path, content = used_cache
    without = {video_id: latents for video_id, latents in content.items() if video_id != SECRET}
    for step in count(0, stride):
        copy = path.parent / str(step) / path.name
        shutil.copytree(path, copy)
        hit, raised = meet(lambda copy=copy: pruned(copy, SECRET), step, monkeypatch, error, stays)
        assert raised is None or isinstance(raised, Killed | StoreError | OSError)
        held = content_of(copy)
        assert held in (content, without)
        assert {problem.kind for problem in verify_cache(copy)} <= {"leftover"}
        is_still_there = held == content
        assert set(open_cache(copy).failures()) == FAILED | ({SECRET} if is_still_there else set())
        pruned(copy, *([SECRET] if is_still_there else []))
        assert content_of(copy) == without
        assert set(open_cache(copy).failures()) == FAILED
        assert frames_stored_outside_videos(copy) == []
        assert list(verify_cache(copy)) == []
        assert plan_prune(copy).is_empty
        shutil.rmtree(copy.parent)
        if hit is None:
            assert step > 60
            return


def test_copy_that_is_only_half_written_is_no_loss(used_cache, monkeypatch):
    path, content = used_cache

    def writes_one_array(path, start, posteriors):
        write_shards(path, start, posteriors)
        (path / f"std/c/0/{start // SCHEMA.shard_frames}/0/0").unlink()
        raise StoreError("std cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prune_module, "write_shards", writes_one_array)
        with pytest.raises(StoreError, match="No space left"):
            pruned(path, SECRET)
    del content[SECRET]
    assert content_of(path) == content
    pruned(path)
    assert content_of(path) == content
    assert plan_prune(path).is_empty


def test_copy_that_reads_back_otherwise_is_not_committed(used_cache, monkeypatch):
    path, content = used_cache

    def writes_something_else(path, start, posteriors):
        return write_shards(path, start, [random_posterior(p.mean.shape[1], seed=99) for p in posteriors])

    monkeypatch.setattr(prune_module, "write_shards", writes_something_else)
    with pytest.raises(StoreError, match="its copy differs from what was written"):
        pruned(path, SECRET)
    del content[SECRET]
    assert content_of(path) == content


@pytest.mark.parametrize("error", [ValueError("checksum"), EncodeError("nan")])
def test_source_that_is_damaged_while_it_is_copied_is_one_clear_error(used_cache, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(prune_module, "write_shards", fails)
    with pytest.raises(StoreError, match="can no longer be read"):
        pruned(used_cache[0], SECRET)


def test_damaged_video_is_reported_and_left_with_its_shards(used_cache):
    path, content = used_cache
    shard = path / "mean/c/0/0/0/0"  # of a.mp4 and of SECRET
    damaged = bytearray(shard.read_bytes())
    damaged[20] ^= 1
    shard.write_bytes(damaged)
    start = open_cache(path).records()["a.mp4"].start
    result = pruned(path, SECRET)
    assert list(result.damaged) == ["a.mp4"]
    assert "mean/c/0/0/0/0" in result.damaged["a.mp4"]
    assert shard.read_bytes() == damaged
    assert open_cache(path).records()["a.mp4"].start == start
    for video_id in content.keys() - {SECRET, "a.mp4"}:
        assert stored(open_cache(path).read_latents(video_id)) == content[video_id]
    add_videos(path, {"a.mp4": random_posterior(3, 1)})
    pruned(path)
    del content[SECRET]
    assert content_of(path) == content
    assert frames_stored_outside_videos(path) == []


@pytest.mark.parametrize("end", ["whole", "empty", "short"])
def test_shard_with_a_damaged_index_is_left_where_it_is(used_cache, end):
    path, _ = used_cache
    shard = path / "std/c/0/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes({"whole": whole[:-20] + bytes(20), "empty": b"", "short": whole[:-10]}[end])
    before = shard.read_bytes()
    pruned(path, SECRET)
    assert shard.read_bytes() == before
    assert set(open_cache(path).records()) == {"a.mp4", "alone.mp4", "b.mp4", "c.mp4"}


def test_files_of_others_are_left_alone(used_cache):
    path, _ = used_cache
    others = [path / "mean/c/0/0/notes.txt", path / "mean/c/0/77/README", path / "videos/me.csv"]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    pruned(path, SECRET)
    assert all(file.read_text() == "mine" for file in others)
    assert plan_prune(path).is_empty


def test_cache_that_somebody_reads_is_refused_and_not_changed(used_cache):
    path, _ = used_cache
    (path / "videos/records/readers").touch()
    before = files_of(path)
    with (path / "videos/records/readers").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with pytest.raises(StoreError, match="is being read"):
            pruned(path, SECRET)
    assert files_of(path) == before
    pruned(path, SECRET)


def test_disk_that_is_too_full_to_move_videos_is_refused_and_nothing_changed(used_cache, monkeypatch):
    path, _ = used_cache
    before = files_of(path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))
    plan = plan_prune(path, [SECRET])
    frame_bytes = 2 * 2 * 3 * 5 * 2  # both arrays, channels, height, width, float16
    assert plan.num_needed_bytes <= (4 + 8) * frame_bytes
    with pytest.raises(StoreError, match="bytes of disk"):
        prune(writer_of(path), dataclasses.replace(plan, num_needed_bytes=1))
    assert files_of(path) == before


def test_plan_of_a_cache_that_has_changed_since_is_refused(used_cache):
    path, content = used_cache
    plan = plan_prune(path, [SECRET])
    add_videos(path, {"new.mp4": random_posterior(3, 9)})
    with pytest.raises(StoreError, match="has changed since"):
        prune(writer_of(path), plan)
    assert content_of(path) == content | {"new.mp4": stored(random_posterior(3, 9))}


def test_lease_of_a_dead_process_is_taken_over_and_not_deleted(used_cache):
    path, content = used_cache
    lease = path / "videos/records/lease"
    lease.write_bytes(b"torn")
    os.utime(lease, (0, 0))
    plan = plan_prune(path)
    with open_writer(path, "test") as writer:
        prune(writer, plan)
    assert content_of(path) == content
    assert not lease.exists()


def test_unknown_video_is_refused_by_name(used_cache):
    with pytest.raises(StoreError, match=r"holds no video 'nobody\.mp4'; nothing was changed"):
        plan_prune(used_cache[0], ["a.mp4", "nobody.mp4"])
    with pytest.raises(StoreError, match=r"holds no video 'a'; nothing was changed; did you mean a\.mp4\?$"):
        plan_prune(used_cache[0], ["a"])


@pytest.mark.parametrize(
    ("changes", "why"),
    some_of(
        [
            ({"start": 4, "stop": 6}, "name the same latent frames"),
            ({"start": 1, "stop": 3}, "starts inside a chunk"),
            ({"start": 800, "stop": 802}, "the arrays end at 80"),
            ({"start": 2}, "is no range"),
            ({"start": -4, "stop": -2}, "is no range"),
            ({"start": 2**62, "stop": 2**62 + 2}, "the arrays end at 80"),
        ]
    ),
)
def test_records_that_cannot_be_true_are_refused_until_they_are_dropped(used_cache, changes, why):
    path, _ = used_cache
    wrong = dataclasses.replace(record_of("x.mp4", 0, random_posterior(2)), **changes)
    writer_of(path).commit([wrong])
    with pytest.raises(StoreError, match=why):
        plan_prune(path)
    assert plan_prune(path, ["x.mp4"]).drop == ("x.mp4",)


def test_failed_video_can_be_dropped(used_cache):
    path, content = used_cache
    pruned(path, "broken.mp4")
    assert set(open_cache(path).failures()) == {SECRET, "a.mp4"}
    assert content_of(path) == content


def test_vanished_are_those_whose_source_does_not_exist(cache_path, tmp_path):
    there, odd = tmp_path / "there.mp4", os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    locked = tmp_path / "no_folder_but_a_file"
    for file in (there, odd, locked):
        Path(file).touch()
    sources = {
        "there": str(there),
        "odd": odd,
        "gone": str(tmp_path / "gone.mp4"),
        "under a file": str(locked / "x.mp4"),
        "name too long to look at": str(tmp_path / ("x" * 300)),
    }
    writer = writer_of(cache_path)
    writer.commit([record_of(id, 0, random_posterior(2), source_path=path) for id, path in sources.items()])
    writer.record_failures([failure_of("failed"), failure_of("there", path="/no")])
    assert vanished_videos(cache_path) == (["failed", "gone", "under a file"], 6)


def test_a_video_longer_than_many_shards_moves_whole(cache_path):
    videos = {"short": random_posterior(4, 1), "long": random_posterior(83, 2), "end": random_posterior(5, 3)}
    add_videos(cache_path, videos)
    pruned(cache_path, "short")
    assert content_of(cache_path) == {name: stored(videos[name]) for name in ("end", "long")}
    assert frames_stored_outside_videos(cache_path) == []
    assert plan_prune(cache_path).is_empty


ids = st.sampled_from(["a", "b", "c", "d", "e"])
steps = st.one_of(
    st.tuples(st.just("add"), st.dictionaries(ids, st.integers(1, 20), min_size=1, max_size=4)),
    st.tuples(st.just("fail"), ids),
    st.tuples(st.just("remove"), ids),
    st.tuples(st.just("orphan"), st.integers(1, 20)),
    st.tuples(st.just("reserve"), st.integers(1, 2)),
    st.tuples(st.just("prune"), st.sets(ids)),
)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(steps, max_size=10), st.sets(ids))
def test_after_any_history_prune_leaves_what_a_dictionary_would_hold(history, last_drop):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.zarr"
        create_cache(path, SCHEMA)
        videos, failures, dropped = {}, set(), set()
        for number, (kind, what) in enumerate([*history, ("prune", last_drop)]):
            if kind == "add":
                added = {id: random_posterior(length, number) for id, length in what.items()}
                add_videos(path, added)
                videos |= {id: stored(video) for id, video in added.items()}
                failures -= added.keys()
                dropped -= added.keys()
            elif kind == "fail":
                writer_of(path).record_failures([failure_of(what)])
                failures.add(what)
                dropped.discard(what)
            elif kind == "remove":
                writer_of(path).remove([what])
                videos.pop(what, None)
                failures.discard(what)
                dropped.discard(what)
            elif kind == "orphan":
                write_orphan(path, what, number)
            elif kind == "reserve":
                writer_of(path).reserve(what)
            elif not read_manifest(local_cache(path)).files and list(path.glob("*/c/0/*")):
                # As in a cache whose records were lost.
                with pytest.raises(StoreError, match="no record of any video"):
                    pruned(path)
            else:
                drop = what & (videos.keys() | failures)
                pruned(path, *drop)
                videos = {id: latents for id, latents in videos.items() if id not in drop}
                failures -= drop
                dropped |= drop
                assert plan_prune(path).is_empty
                assert frames_stored_outside_videos(path) == []
                assert_only_shards_of_videos_are_stored(path)
            assert content_of(path) == videos
            assert set(open_cache(path).failures()) == failures
            assert set(open_cache(path).dropped()) == dropped


def assert_only_shards_of_videos_are_stored(path):
    ranges = [(record.start, record.stop) for record in open_cache(path).records().values()]
    used = {frame // SCHEMA.shard_frames for start, stop in ranges for frame in range(start, stop)}
    for name in ("mean", "std"):
        folder = path / name / "c/0"
        assert {int(shard.name) for shard in folder.iterdir()} == used if folder.exists() else not used


def test_record_file_that_a_repair_has_set_aside_goes_too(cache_path):
    """It may name videos that were removed later."""
    add_videos(cache_path, {"a.mp4": random_posterior(3)})
    aside = cache_path / "videos" / "records" / "000000000009-000000000009.parquet.0123abcd.damaged"
    aside.write_bytes(b"a.mp4, b.mp4")
    (aside.parent / "notes.damaged").write_text("nobody's")
    pruned(cache_path)
    assert not aside.exists()
    assert (aside.parent / "notes.damaged").exists()
