"""A kill between any two file operations leaves a cache that opens and holds exactly what was committed."""

import shutil
import signal
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
import zarr

from tests.store.caches import SCHEMA, add_videos, failure_of, random_posterior, record_of, writer_of
from tests.store.faults import every_kill, meet
from tests.thorough import steps
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.layout import MANIFEST
from vidlat.store.reader import open_cache
from vidlat.store.storage import filesystem
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import hold_lease, read_lease
from vidlat.store.writing.opening import create_cache, open_writer


def test_creation_killed_at_any_step_leaves_nothing_or_a_whole_cache(tmp_path, monkeypatch):
    for step in steps():
        path = tmp_path / f"{step}.zarr"
        hit, _ = meet(lambda path=path: create_cache(path, SCHEMA), step, monkeypatch)
        if not path.exists():
            create_cache(path, SCHEMA)
        assert open_cache(path).schema == SCHEMA
        assert zarr.open_group(path, mode="r")["mean"].shape == (2, 0, 3, 5)
        assert [file.name for file in tmp_path.iterdir() if file.name.startswith(f".{step}.")] == []
        if hit is None:
            assert step > 10
            return


def test_reservation_killed_at_any_step_hands_no_frame_out_twice(cache_path, monkeypatch):
    writer, taken = writer_of(cache_path), set()
    committed = {record.video_id for record in add_videos(cache_path, {"a.mp4": random_posterior(3)})}
    taken.update(range(8))
    for step in every_kill(lambda: writer_of(cache_path).reserve(2), monkeypatch):
        group = zarr.open_group(cache_path, mode="r")
        assert group["mean"].shape == group["std"].shape
        assert set(open_cache(cache_path).records()) == committed
        own = [len(zarr.open_array(cache_path / name, mode="r")[0]) for name in ("mean", "std")]
        assert len(taken) <= group["mean"].shape[1] <= min(own)
        video = random_posterior(9, seed=step)
        start = writer.reserve(2)
        assert start >= max(own)
        frames = set(range(start, start + 2 * SCHEMA.shard_frames))
        assert not frames & taken
        taken |= frames
        ((first, _),) = write_shards(cache_path, start, [video])
        writer.commit([record_of(f"{step}.mp4", first, video)])
        committed.add(f"{step}.mp4")
        np.testing.assert_array_equal(
            open_cache(cache_path).read_latents(f"{step}.mp4").mean, video.mean.astype(np.float16)
        )
    group = zarr.open_group(cache_path, mode="r", use_consolidated=False)
    assert group["mean"].shape == group["std"].shape


def test_record_file_is_never_written_over(tmp_path):
    filesystem.create_file(tmp_path / "record", b"first")
    with pytest.raises(FileExistsError):
        filesystem.create_file(tmp_path / "record", b"second")
    assert (tmp_path / "record").read_bytes() == b"first"


@pytest.mark.parametrize("kind", ["commit", "record_failures"])
def test_commit_killed_at_any_step_happened_wholly_or_not_at_all(cache_path, monkeypatch, kind):
    def seen():
        cache = open_cache(cache_path)
        return set(cache.records()) if kind == "commit" else set(cache.failures())

    def batch():
        ids = [f"{batch_number}-{i}.mp4" for i in range(3)]
        if kind == "commit":
            writer_of(cache_path).commit([record_of(id, next(starts), random_posterior(3)) for id in ids])
        else:
            writer_of(cache_path).record_failures([failure_of(id) for id in ids])
        return set(ids)

    batch_number, committed = 0, set()
    writer_of(cache_path).reserve(200)
    starts = count(0, SCHEMA.chunk_frames)
    for _ in every_kill(batch, monkeypatch):
        new = seen() - committed
        assert new in (set(), {f"{batch_number}-{i}.mp4" for i in range(3)})
        assert seen() >= committed
        # The next commit must not write into what the kill has left.
        committed |= new
        batch_number += 1
        committed |= batch()
        assert seen() == committed
        batch_number += 1


def test_commit_whose_manifest_was_not_written_is_completed_before_a_prune(path):
    before = (path / MANIFEST).read_bytes()
    add_videos(path, {"new.mp4": random_posterior(3)})
    (path / MANIFEST).write_bytes(before)  # as a kill between the two files leaves it
    assert list(verify_cache(path)) == []
    assert "new.mp4" not in open_cache(path).records()
    writer_of(path).roll_forward()
    assert open_cache(path).read_latents("new.mp4").mean.shape[1] == 3


def test_removal_killed_at_any_step_happened_wholly_or_not_at_all(cache_path, monkeypatch):
    both, kept = {"a.mp4", "b.mp4"}, {"c.mp4"}
    videos = {video_id: random_posterior(3) for video_id in sorted(both | kept)}
    add_videos(cache_path, videos)
    for _ in every_kill(lambda: writer_of(cache_path).remove(sorted(both)), monkeypatch):
        assert set(open_cache(cache_path).records()) in (kept, both | kept)
        writer_of(cache_path).remove(sorted(both))
        assert set(open_cache(cache_path).records()) == kept
        add_videos(cache_path, videos)


def test_holder_killed_at_any_step_leaves_a_cache_that_the_next_can_hold(cache_path, monkeypatch):
    def hold():
        with hold_lease(cache_path, "killed") as lease:
            lease.beat()
            lease.require_held()

    for _ in every_kill(hold, monkeypatch):
        assert {problem.kind for problem in verify_cache(cache_path)} <= {"leftover"}
        with open_writer(cache_path, "next") as writer:
            assert read_lease(cache_path).purpose == "next"
            writer.reserve(1)
        assert read_lease(cache_path) is None
        # A whole lease or none: only damage makes an unknown holder.
        assert writer.lease.taken_from is None or writer.lease.taken_from.purpose == "killed"


def test_merge_killed_at_any_step_loses_no_record(cache_path, tmp_path, monkeypatch):
    video = random_posterior(3)
    writer_of(cache_path).reserve(3)
    for number in range(4):
        writer_of(cache_path).commit([record_of(f"{number % 3}.mp4", 4 * number, video)])
    for step in steps():
        path = tmp_path / f"{step}.zarr"
        shutil.copytree(cache_path, path)

        def merges(path=path):
            writer_of(path, max_small_files=4).commit([record_of("new.mp4", 16, video)])

        hit, _ = meet(merges, step, monkeypatch)
        old = {"0.mp4": 12, "1.mp4": 4, "2.mp4": 8}
        assert starts_in(path) in (old, old | {"new.mp4": 16})
        writer_of(path, max_small_files=4).commit([record_of("2.mp4", 20, video)])
        assert starts_in(path) | {"new.mp4": 16} == old | {"2.mp4": 20, "new.mp4": 16}
        if hit is None:
            assert step > 10
            return


def starts_in(path):
    return {video_id: record.start for video_id, record in open_cache(path).records().items()}


DRIVER = """
import sys
from itertools import count
from pathlib import Path
from tests.store.caches import add_videos, random_posterior
for number in count():
    add_videos(Path(sys.argv[1]), {f"{number:04d}.mp4": random_posterior(5 + number % 20, seed=number)})
    print(number, flush=True)
"""


def test_cache_of_a_driver_killed_for_real_holds_what_it_announced(cache_path):
    command = [sys.executable, "-c", DRIVER, str(cache_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        announced = [int(driver.stdout.readline()) for _ in range(6)]
        driver.send_signal(signal.SIGKILL)
    records = open_cache(cache_path).records()
    assert [f"{number:04d}.mp4" for number in announced] == list(records)[:6]
    for number, video_id in enumerate(records):
        video = random_posterior(5 + number % 20, seed=number)
        read = open_cache(cache_path).read_latents(video_id)
        np.testing.assert_array_equal(read.std, video.std.astype(np.float16))
    last = max(record.stop for record in records.values())
    assert writer_of(cache_path).reserve(1) >= last
