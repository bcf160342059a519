"""Verify as a whole: what it reads, what it does not touch, and that it reports all problems at once."""

import fcntl
import os
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from tests.store.caches import add_videos, random_posterior, writer_of
from tests.store.damage import LENGTHS, MEAN_B, STD_B, flip, found, rewrite
from vidlat.errors import StoreError
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.process import ROOM_BYTES
from vidlat.store.reader import open_cache
from vidlat.store.storage.filesystem import locked
from vidlat.store.verify.cache import measure_unused_space, verify_cache


def test_undamaged_cache_has_no_problem(path):
    read = []
    assert list(verify_cache(path, lambda *video: read.append(video))) == []
    assert read == [(video_id, 3) for video_id in LENGTHS]


def test_empty_cache_has_no_problem(cache_path):
    assert found(cache_path) == []
    assert measure_unused_space(cache_path).num_hole_frames == 0


def test_verifying_changes_no_file(path):
    def state():
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*")}

    flip(path / MEAN_B, 3)
    before = state()
    assert found(path)
    assert state() == before


def test_holes_are_counted_and_no_problem(path):
    writer_of(path).reserve(2)
    start = writer_of(path).reserve(1)
    write_shards(path, start, [random_posterior(8)])  # never committed
    assert found(path) == []
    assert measure_unused_space(path).num_hole_frames == 5 * 8 + 3 * 8 - sum(LENGTHS.values())


def test_video_replaced_by_a_later_record_is_not_read_any_more(path):
    add_videos(path, {"b.mp4": random_posterior(2)})
    (path / MEAN_B).unlink()
    assert found(path) == []


def test_records_are_read_while_no_driver_writes(path, monkeypatch):
    from vidlat.store.verify import cache as verify

    read_zarr_metadata, held = verify.read_zarr_metadata, []

    def and_try_the_lock(storage):
        with (path / "videos/records/lock").open("ab") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return read_zarr_metadata(storage)

    monkeypatch.setattr(verify, "read_zarr_metadata", and_try_the_lock)
    assert found(path) == []
    assert held == [True]
    with locked(path / "videos/records/lock"):
        pass  # released


def test_all_problems_are_reported_at_once(path):
    flip(path / "mean/c/0/0/0/0", 0)
    (path / STD_B).unlink()
    rewrite(path / "videos/records/000000000003-000000000003.parquet", latents_frame_crc32c=[bytes(24)])
    (path / "notes.txt").write_text("?")
    (path / "videos/records/.0af0.partial").write_text("")
    assert sorted(found(path)) == [
        ("a.mp4", "damaged"),
        ("b.mp4", "missing"),
        ("c/[b].mp4", "checksum"),
        ("c/[b].mp4", "checksum"),
        ("notes.txt", "foreign"),
        ("videos/records/.0af0.partial", "leftover"),
    ]


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: zarr.create_group(path)])
def test_path_without_a_cache_is_refused(tmp_path, make):
    make(tmp_path / "no.zarr")
    with pytest.raises(StoreError, match="is not a vidlat cache"):
        list(verify_cache(tmp_path / "no.zarr"))


def test_only_the_videos_asked_for_are_read_and_all_files_are_checked(path):
    flip(path / "mean/c/0/0/0/0", 0)
    flip(path / MEAN_B, 0)
    (path / "notes.txt").write_text("?")
    read = []
    problems = list(verify_cache(path, lambda *video: read.append(video), only={"b.mp4"}))
    assert [(problem.where, problem.kind) for problem in problems] == [
        ("b.mp4", "damaged"),
        ("notes.txt", "foreign"),
    ]
    assert read == [("b.mp4", 1)]


def test_no_shard_is_deleted_while_it_is_verified(path):
    readers = path / "videos/records/readers"
    readers.touch()
    held = []

    def and_try_the_lock(*_):
        with readers.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)

    assert list(verify_cache(path, and_try_the_lock)) == []
    assert held == [True] * 3
    with readers.open("rb") as prune:
        fcntl.flock(prune, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(StoreError, match="is being pruned"):
            list(verify_cache(path))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_of_a_process_that_has_read_is_refused_and_not_aborted(path):
    open_cache(path).read_latents("a.mp4")
    child = os.fork()
    if child == 0:
        try:
            list(verify_cache(path))
        except StoreError as error:
            os._exit(0 if "forked" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "error",
    [pa.ArrowMemoryError("malloc of size 64 failed"), pa.ArrowException("Failed to launch worker thread")],
)
def test_lack_of_memory_is_no_damage_of_a_record_file(path, monkeypatch, error):
    """`--repair` would set the file aside."""

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fails)
    with pytest.raises(MemoryError, match=str(error)):
        list(verify_cache(path))


@pytest.mark.parametrize("read", [lambda cache: cache.records(), lambda cache: cache.read_windows([0], 1)])
def test_reading_without_address_space_for_threads_is_refused_and_not_aborted(path, read):
    cache = open_cache(path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM_BYTES // 2, before[1]))
    try:
        with pytest.raises(MemoryError, match="128 MiB more of address space, see `ulimit -v`"):
            read(cache)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    read(cache)
