"""A full, read-only or failing disk gives one clear error, and what was committed is unchanged."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from tests.store.caches import SCHEMA, add_videos, failure_of, random_posterior, record_of, writer_of
from tests.store.faults import every_error
from tests.thorough import some_of
from vidlat.errors import StoreError
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import hold_lease
from vidlat.store.writing.opening import create_cache, open_writer

OLD = {"a.mp4": random_posterior(3), "b.mp4": random_posterior(9)}
NEW = random_posterior(9, seed=1)
START_OF_NEW = 24


def content(path):
    """Every latent and every failure that a reader sees."""
    cache = open_cache(path)
    latents = {video_id: cache.read_latents(video_id) for video_id in cache.records()}
    return {video_id: (video.mean.tobytes(), video.std.tobytes()) for video_id, video in latents.items()} | {
        f"failure of {video_id}": failure.reason for video_id, failure in cache.failures().items()
    }


def problems(path):
    return [problem for problem in verify_cache(path) if problem.kind != "leftover"]


def require_one_line(error, path):
    """A user must see a StoreError of one line that names the cache."""
    assert isinstance(error, StoreError), repr(error)
    assert str(path) in str(error)
    assert "\n" not in str(error)


MERGE = {"max_small_files": 1}
"""Limits of a writer whose second commit ends in a merge."""


def add(path):
    add_videos(path, {"new.mp4": NEW, "a.mp4": random_posterior(2, seed=1)}, **MERGE)


def reserve(path):
    writer_of(path).reserve(2)


def commit(path):
    writer_of(path, **MERGE).commit([record_of("new.mp4", START_OF_NEW, NEW)])


def record_failures(path):
    writer_of(path, **MERGE).record_failures([failure_of("c.mp4"), failure_of("d.mp4")])


def remove(path):
    writer_of(path, **MERGE).remove(["a.mp4"])


def hold(path):
    with hold_lease(path, "test") as lease:
        lease.beat()
        lease.require_held()


@pytest.fixture
def old(cache_path):
    """A cache of two videos in two commits, and a third that is written and not committed."""
    for video_id, video in OLD.items():
        add_videos(cache_path, {video_id: video})
    assert writer_of(cache_path).reserve(2) == START_OF_NEW
    write_shards(cache_path, START_OF_NEW, [NEW])
    return cache_path


STAYS = [False, pytest.param(True, marks=pytest.mark.slow)]
"""Whether the error persists."""

TOLERATED = {"mkdir", "lstat"}
"""The folder exists; a path whose links cannot be resolved is used as it is."""

TOLERATED_OF_A_LEASE = TOLERATED | {
    *("utime", "stat", "rename", "unlink", "flock", "open", "open to read", "fstat"),
}
"""A missed heartbeat, an unknown age, a lease that is not deleted: the next holder checks the process."""


@pytest.mark.parametrize(
    "operation",
    [
        commit,
        hold,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (reserve, record_failures, remove, add)),
    ],
)
@pytest.mark.parametrize("stays", STAYS)
def test_error_at_any_step_is_reported_and_harms_nothing(old, tmp_path, monkeypatch, operation, stays):
    before = content(old)
    whole = shutil.copytree(old, tmp_path / "whole.zarr")
    operation(whole)
    after = content(whole)
    path = shutil.copytree(old, tmp_path / "l.zarr")
    for hit, error in every_error(lambda: operation(path), monkeypatch, stays):
        if error:
            require_one_line(error, path)
        elif hit:
            assert hit[0] in (TOLERATED_OF_A_LEASE if operation is hold else TOLERATED)
        assert content(path) in (before, after)
        assert problems(path) == []
        operation(path)
        assert content(path) == after
        shutil.rmtree(path)
        shutil.copytree(old, path)


@pytest.mark.parametrize("stays", STAYS)
def test_error_at_any_step_of_the_making_leaves_no_half_cache(tmp_path, monkeypatch, stays):
    path = tmp_path / "new" / "l.zarr"
    for hit, error in every_error(lambda: create_cache(path, SCHEMA), monkeypatch, stays):
        if error:
            require_one_line(error, path)
        elif hit:
            assert hit[0] in {"mkdir", "utime"}
        if path.exists():
            assert problems(path) == []
        create_cache(path, SCHEMA)
        assert list(path.parent.iterdir()) == [path]
        assert open_cache(path).schema == SCHEMA
        assert (path / "videos/records/readers").read_bytes() == b""
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("stays", STAYS)
def test_error_beside_a_cache_of_another_driver_leaves_that_as_it_is(tmp_path, monkeypatch, stays):
    path = tmp_path / "l.zarr"
    create_cache(path, SCHEMA)
    add_videos(path, OLD)
    before = content(path)
    for _, error in every_error(lambda: create_cache(path, SCHEMA), monkeypatch, stays):
        if error:
            require_one_line(error, path)
        assert content(path) == before


WRITE_WITH_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
path, num_bytes = Path(sys.argv[1]), int(sys.argv[2])
from tests.store.caches import random_posterior, writer_of
from vidlat.errors import StoreError
from vidlat.store.latents.write_shards import write_shards
start = writer_of(path).reserve(3)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
try:
    write_shards(path, start, [random_posterior(20)])
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("num_bytes", some_of([400, 0, 1]))
def test_shard_that_outgrows_the_largest_file_is_reported_and_seen_by_nobody(old, tmp_path, num_bytes):
    before = content(old)
    command = [sys.executable, "-c", WRITE_WITH_A_LIMIT, str(old), str(num_bytes)]
    (message,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert message.startswith(f"{old}: mean cannot be written: ")
    assert "File too large" in message
    assert content(old) == before
    assert problems(old) == []
    assert not list(old.glob("mean/c/0/*/*.__lock"))
    add(old)
    assert content(old).keys() == {"a.mp4", "b.mp4", "new.mp4"}


@contextmanager
def mounted(folder, num_bytes):
    """A small file system, mounted for the duration of a block."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not permitted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, num_left):
    """Fill a file system except for `num_left` bytes; returns the filling file."""
    file = folder / "fill"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    file.write_bytes(bytes(max(0, free - num_left)))
    return file


def message_of(operation, path):
    """The one-line error of an operation, empty if it succeeds."""
    try:
        operation(path)
    except StoreError as error:
        require_one_line(error, path)
        return str(error)
    return ""


@pytest.mark.slow
def test_full_disk_is_reported_and_harms_nothing(tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        path = disk / "l.zarr"
        create_cache(path, SCHEMA)
        add_videos(path, OLD)
        before, messages = content(path), set[str]()
        for num_left in range(0, 20 * 4096, 4096):
            filler = fill(disk, num_left)
            for operation in (add, record_failures, hold):
                messages.add(message_of(operation, path))
                assert content(path).keys() >= before.keys()
                assert problems(path) == []
            filler.unlink()
        assert all("No space left on device" in message for message in messages - {""})
        assert any("zarr.json" in message or "cannot be written: [" in message for message in messages)
        assert any("mean cannot be written" in message for message in messages)  # of a shard
        add(path)
        record_failures(path)
        assert content(path).keys() == {"a.mp4", "b.mp4", "new.mp4", "failure of c.mp4", "failure of d.mp4"}


@pytest.mark.slow
def test_read_only_disk_can_be_read_and_not_written(tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        path = disk / "l.zarr"
        create_cache(path, SCHEMA)
        add_videos(path, OLD)
        start = writer_of(path).reserve(2)
        with open_writer(path, "test") as writer:
            remount_read_only(disk)
            for operation in (
                lambda: writer.reserve(1),
                lambda: writer.commit([record_of("x.mp4", 0, OLD["a.mp4"])]),
                lambda: writer.remove(["a.mp4"]),
                lambda: write_shards(path, start, [random_posterior(9)]),
                lambda: create_cache(disk / "other.zarr", SCHEMA),
            ):
                with pytest.raises(StoreError, match="Read-only file system") as error:
                    operation()
                assert "\n" not in str(error.value)
        cache = open_cache(path)
        assert list(cache.records()) == list(OLD)
        for video_id, video in OLD.items():
            np.testing.assert_array_equal(cache.read_latents(video_id).mean, video.mean.astype(np.float16))
        starts = np.array([record.start for record in cache.records().values()])
        assert np.isfinite(cache.read_windows(starts, 2)[0]).all()
        assert problems(path) == []
        with pytest.raises(StoreError, match=r"cannot be written: .*Read-only file system") as error:
            open_writer(path, "test").__enter__()
        assert "\n" not in str(error.value)


def remount_read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
