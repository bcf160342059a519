"""One process writes to a cache at a time, and a refused process is told which."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.store.caches import add_videos, failure_of, random_posterior, record_of, writer_of
from vidlat.errors import StoreError
from vidlat.files import create_file
from vidlat.store import process as process_module
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.process import this_process
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.pruning.prune import prune
from vidlat.store.reader import open_cache
from vidlat.store.storage import filesystem
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing import lease as lease_module
from vidlat.store.writing.lease import STALE_SECONDS, hold_lease, read_lease, refuse_if_held
from vidlat.store.writing.opening import open_writer

LEASE = "videos/records/lease"


def write_lease(path, silent_seconds=0.0, **changes):
    """A lease as another process would have left it, last touched so long ago."""
    content = asdict(this_process()) | {"purpose": "vidlat encode", "since": "2026-01-02T03:04:05+00:00"}
    (path / LEASE).write_text(json.dumps(content | {"token": "another's"} | changes))
    age(path / LEASE, silent_seconds)


def age(file, seconds):
    """Move the modification time of a file into the past, by the clock of its file system."""
    file.touch()
    now = file.stat().st_mtime_ns
    os.utime(file, ns=(now, now - int(seconds * 1e9)))


@contextmanager
def running_process(*command):
    with subprocess.Popen(command or ("sleep", "1000"), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_held(path):
    try:
        refuse_if_held(path)
    except StoreError:
        return True
    return False


def test_lease_names_its_holder_while_the_block_lasts(cache_path):
    assert read_lease(cache_path) is None
    before = datetime.now(UTC) - timedelta(seconds=1)
    with hold_lease(cache_path, "vidlat encode") as lease:
        holder = read_lease(cache_path)
        assert holder.process.pid == os.getpid()
        assert holder.process.host == os.uname().nodename
        assert holder.purpose == "vidlat encode"
        assert before <= datetime.fromisoformat(holder.since) <= datetime.now(UTC)
        assert holder.is_alive()
        assert lease.taken_from is None
        lease.require_held()
    assert read_lease(cache_path) is None
    assert list(verify_cache(cache_path)) == []


def test_second_holder_is_refused_and_reported_of_the_first(cache_path):
    with hold_lease(cache_path, "vidlat encode"):
        since = read_lease(cache_path).since
        for refused in (lambda: refuse_if_held(cache_path), lambda: hold_lease(cache_path, "p").__enter__()):
            with pytest.raises(StoreError) as error:
                refused()
            assert str(error.value) == (
                f"{cache_path}: in use by `vidlat encode` on {os.uname().nodename}, process {os.getpid()}, "
                f"since {since} (last sign of life 0 s ago): wait until it has finished, or stop it"
            )
        assert list(verify_cache(cache_path)) == []
    refuse_if_held(cache_path)
    with hold_lease(cache_path, "vidlat prune"):
        pass


def test_of_many_that_start_at_once_one_wins(cache_path):
    outcomes, all_others_refused = SimpleQueue(), threading.Event()

    def try_to_hold():
        try:
            with hold_lease(cache_path, "test"):
                outcomes.put("held")
                all_others_refused.wait()
        except StoreError:
            outcomes.put("refused")

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(try_to_hold)
        seen = [outcomes.get() for _ in range(8)]
        all_others_refused.set()
    assert sorted(seen) == ["held"] + 7 * ["refused"]


def test_who_is_refused_does_not_touch_the_lease(cache_path, monkeypatch):
    # Without locks its holder would stop, if it looked while the lease was away.
    moved = []
    with hold_lease(cache_path, "test"):
        monkeypatch.setattr(filesystem, "rename", lambda *paths: moved.append(paths))
        with pytest.raises(StoreError, match="in use by"):
            hold_lease(cache_path, "other").__enter__()
        assert moved == []
        monkeypatch.undo()
    assert read_lease(cache_path) is None


@pytest.mark.parametrize("changes", [{"boot_id": "other"}, {"pid_namespace": "other"}, {"host": "far"}])
def test_holder_that_cannot_be_asked_for_is_judged_by_its_heartbeat(cache_path, changes, monkeypatch):
    if "host" in changes:
        without_proc(monkeypatch)
    monkeypatch.setattr(lease_module.time, "time", lambda: 1e12)  # the clocks of hosts differ
    changes["pid"] = number_of_the_dead()  # here, not there
    write_lease(cache_path, STALE_SECONDS / 2, **changes)
    with pytest.raises(StoreError, match=r"last sign of life [23]\d s ago"):
        hold_lease(cache_path, "test").__enter__()
    write_lease(cache_path, STALE_SECONDS * 2, **changes)
    with hold_lease(cache_path, "test") as lease:
        assert lease.taken_from.token == "another's"
        assert not lease.taken_from.is_alive()
        assert read_lease(cache_path).token == lease.token


def without_proc(monkeypatch):
    """As on macOS."""
    for name in ("_read_text", "_read_link"):
        monkeypatch.setattr(process_module, name, lambda _: "")


def number_of_the_dead():
    """The number of a process that has ended and was reaped."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_dead_process_of_this_machine_holds_nothing_however_fresh_its_heartbeat(cache_path):
    write_lease(cache_path, pid=number_of_the_dead())
    with hold_lease(cache_path, "test") as lease:
        assert lease.taken_from.token == "another's"


def test_process_that_got_the_number_of_a_dead_one_holds_nothing(cache_path):
    with running_process() as other:
        write_lease(cache_path, pid=other.pid, pid_start=1)
        refuse_if_held(cache_path)


def test_dead_process_that_its_parent_has_not_noticed_holds_nothing(cache_path):
    with running_process() as other:
        start = process_module._start_of(other.pid)
        write_lease(cache_path, pid=other.pid, pid_start=start)
        assert is_held(cache_path)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{other.pid}").exists()
        assert not is_held(cache_path)


@pytest.mark.parametrize("has_proc", [True, False])
def test_where_a_process_is_hidden_its_number_needs_a_heartbeat_too(cache_path, monkeypatch, has_proc):
    if not has_proc:
        without_proc(monkeypatch)
    monkeypatch.setattr(process_module, "_start_of", lambda _: 0)
    with running_process() as other:
        write_lease(cache_path, pid=other.pid)
        assert is_held(cache_path)
        write_lease(cache_path, STALE_SECONDS * 2, pid=other.pid)
        assert not is_held(cache_path)
    write_lease(cache_path, pid=number_of_the_dead())
    assert not is_held(cache_path)


def test_process_of_another_user_may_be_alive(cache_path, monkeypatch):
    def refuses(pid, signal):
        raise PermissionError

    with running_process() as other, monkeypatch.context() as patch:
        start = process_module._start_of(other.pid)
        write_lease(cache_path, STALE_SECONDS * 2, pid=other.pid, pid_start=start)
        patch.setattr(os, "kill", refuses)
        assert is_held(cache_path)


@given(
    st.binary()
    | st.recursive(st.integers() | st.text() | st.none(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_content_names_a_holder_or_nobody_known(content):
    holder = lease_module.parse_lease(content, 1.0)
    assert holder.process is None
    assert (holder.token, holder.silent_seconds) == ("", 1.0)


FIELDS = [*asdict(this_process()), "purpose", "since", "token"]


@given(
    st.fixed_dictionaries(
        {},
        optional={name: st.integers() | st.floats() | st.text() | st.lists(st.integers()) for name in FIELDS},
    )
)
def test_lease_of_any_values_is_read_and_its_process_asked_for(values):
    lease_module.parse_lease(json.dumps(values).encode(), 1.0).is_alive()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"host": "a", "pid": 3', b"[]", b'{"pid": -1}'])
def test_damaged_lease_is_of_an_unknown_process_and_ages(cache_path, content):
    (cache_path / LEASE).write_bytes(content)
    with pytest.raises(StoreError, match=r"in use by an unknown process \(its lease is damaged\)"):
        hold_lease(cache_path, "test").__enter__()
    age(cache_path / LEASE, STALE_SECONDS * 2)
    with hold_lease(cache_path, "test") as lease:
        assert lease.taken_from.process is None


class Ticks:
    """An event that ends a heartbeat after `num_beats`, without waiting."""

    def __init__(self, num_beats, before_each=lambda: None):
        self.num_left, self.before_each, self.waited = num_beats, before_each, []

    def wait(self, seconds):
        self.waited.append(seconds)
        self.num_left -= 1
        self.before_each()
        return self.num_left < 0


def test_heart_beats_until_the_lease_is_given_back(cache_path):
    with hold_lease(cache_path, "test") as lease:
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "lease"] == [True]
        age(cache_path / LEASE, 1000)
        assert read_lease(cache_path).silent_seconds >= 1000
        ticks = Ticks(3)
        lease_module._beat_until(ticks, lease)
        assert ticks.waited == 4 * [lease_module.HEARTBEAT_SECONDS]
        assert read_lease(cache_path).silent_seconds < 500
    assert "lease" not in [thread.name for thread in threading.enumerate()]


def test_heart_survives_an_error_that_passes_by(cache_path):
    with hold_lease(cache_path, "test") as lease:
        away = cache_path / "away"
        age(cache_path / LEASE, 1000)
        moves = iter(
            [lambda: (cache_path / LEASE).rename(away), lambda: away.rename(cache_path / LEASE), int]
        )
        lease_module._beat_until(Ticks(2, lambda: next(moves)()), lease)
        assert read_lease(cache_path).silent_seconds < 500


def test_heart_does_not_beat_for_another(cache_path):
    with hold_lease(cache_path, "test") as lease:
        write_lease(cache_path, 1000)
        lease.beat()
        assert read_lease(cache_path).silent_seconds >= 1000
        with pytest.raises(StoreError, match="another process has taken it over"):
            lease.require_held()
    assert read_lease(cache_path).token == "another's"


def test_ctrl_c_while_the_lease_is_being_taken_gives_it_back(cache_path, monkeypatch):
    create = filesystem.create_file

    def interrupted(*arguments):
        create(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(filesystem, "create_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hold_lease(cache_path, "test").__enter__()
    assert read_lease(cache_path) is None


@pytest.mark.parametrize("is_gone", [False, True])
def test_driver_that_was_taken_for_dead_changes_nothing_more(cache_path, is_gone):
    with open_writer(cache_path, "test") as writer:
        add_videos(cache_path, {"a.mp4": random_posterior(3)})
        if is_gone:
            (cache_path / LEASE).unlink()
        else:
            write_lease(cache_path, host="far", pid=77)
        before = sorted((cache_path / "zarr.json", *cache_path.glob("*/records/*.parquet")))
        told = (
            "its lease is gone" if is_gone else r"taken it over \(`vidlat encode` on far, process 77, since"
        )
        for operation in (
            lambda: writer.reserve(1),
            lambda: writer.commit([record_of("b.mp4", 0, random_posterior(3))]),
            lambda: writer.record_failures([failure_of("b.mp4")]),
            lambda: writer.remove(["a.mp4"]),
        ):
            with pytest.raises(
                StoreError, match=rf"{told}.*what was committed is safe, run the same command"
            ):
                operation()
        assert sorted((cache_path / "zarr.json", *cache_path.glob("*/records/*.parquet"))) == before
    assert list(open_cache(cache_path).records()) == ["a.mp4"]
    assert open_cache(cache_path).num_latent_frames == 8


def test_leaving_hides_no_error_of_the_block(cache_path):
    def fails():
        with hold_lease(cache_path, "test"):
            shutil.rmtree(cache_path)
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        fails()
    assert not cache_path.exists()


def test_of_two_hosts_that_no_lock_keeps_apart_one_is_refused(cache_path, monkeypatch):
    refuse, calls = refuse_if_held, []

    def overtaken(path):
        calls.append(path)
        found = refuse(path)
        if len(calls) == 1:
            write_lease(path, host="far", boot_id="far", pid=77)
        return found

    monkeypatch.setattr(lease_module, "refuse_if_held", overtaken)
    with pytest.raises(StoreError, match="on far, process 77"):
        hold_lease(cache_path, "test").__enter__()
    assert read_lease(cache_path).token == "another's"


def without_common_locks(monkeypatch):
    """As on a network disk mounted with locks local to each host."""
    monkeypatch.setattr(filesystem, "locked", lambda path, wait=True: nullcontext(True))


def test_a_starter_that_is_overtaken_at_a_dead_lease_puts_the_new_one_back(cache_path, monkeypatch):
    without_common_locks(monkeypatch)
    write_lease(cache_path, pid=number_of_the_dead())
    rename, first = filesystem.rename, ExitStack()

    def overtaken(path, new_path):
        monkeypatch.setattr(filesystem, "rename", rename)
        first.enter_context(hold_lease(cache_path, "the first"))
        rename(path, new_path)

    monkeypatch.setattr(filesystem, "rename", overtaken)
    with first:
        with pytest.raises(StoreError, match="in use by `the first`"):
            hold_lease(cache_path, "the second").__enter__()
        held = read_lease(cache_path)
        assert (held.purpose, held.is_alive()) == ("the first", True)
    assert not list((cache_path / "videos/records").glob("*lease*"))
    assert list(verify_cache(cache_path)) == []


def test_a_former_holder_that_wakes_up_leaves_the_lease_of_the_next(cache_path, monkeypatch):
    without_common_locks(monkeypatch)
    lease = hold_lease(cache_path, "asleep")
    with lease:
        write_lease(cache_path, host="far", boot_id="far", pid=77)
    assert read_lease(cache_path).token == "another's"
    assert list(verify_cache(cache_path)) == []


def test_of_many_that_find_a_dead_lease_without_common_locks_one_stays(cache_path, monkeypatch):
    without_common_locks(monkeypatch)
    dead = number_of_the_dead()
    for _ in range(25):
        write_lease(cache_path, pid=dead)
        together = threading.Barrier(6)

        def is_last_holder(together=together):
            with ExitStack() as held:
                lease = None
                with suppress(StoreError):
                    lease = held.enter_context(hold_lease(cache_path, "test"))
                together.wait()
                is_held = False
                with suppress(StoreError):
                    if lease:
                        lease.require_held()
                        is_held = True
                together.wait()
                return is_held

        with ThreadPoolExecutor(6) as pool:
            found = [future.result() for future in [pool.submit(is_last_holder) for _ in range(6)]]
        assert sum(found) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_the_lease_alone_keeps_writers_apart(cache_path, monkeypatch, number):
    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with open_writer(cache_path, "vidlat encode") as writer:
        assert not writer.lease.has_locks
        add_videos(cache_path, {"one.mp4": random_posterior(3), "two.mp4": random_posterior(9)})
        with pytest.raises(StoreError, match="in use by `vidlat encode`"):
            open_writer(cache_path, "vidlat encode").__enter__()
    before = sorted(cache_path.rglob("*"))
    with pytest.raises(StoreError, match=r"has no locks, so that prune cannot tell .* copy the cache"):
        prune(writer_of(cache_path), plan_prune(cache_path, ["two.mp4"]))
    assert sorted(cache_path.rglob("*")) == before
    assert len(open_cache(cache_path)) == 2
    assert list(verify_cache(cache_path)) == []


def test_other_errors_of_a_lock_are_no_missing_locks(cache_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(StoreError, match="cannot be written"):
        open_writer(cache_path, "test").__enter__()


def test_a_link_that_nfs_repeats_is_known_as_its_own(tmp_path, monkeypatch):
    link = os.link

    def repeated(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    create_file(tmp_path / "new", b"content")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_nothing_is_put_into_a_folder_that_is_no_cache(tmp_path):
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "mine", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="is not a vidlat cache"):
            open_writer(path, "test").__enter__()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_cache_whose_empty_folders_were_lost_can_be_held(cache_path):
    shutil.rmtree(cache_path / "videos/records")
    with open_writer(cache_path, "test") as writer:
        writer.reserve(1)
    assert read_lease(cache_path) is None


def test_late_write_of_a_dead_drivers_task_harms_nobody(cache_path):
    """Driver A dies while its worker still writes; B has taken over."""
    late, other = random_posterior(9, seed=1), random_posterior(13, seed=2)
    with open_writer(cache_path, "driver A") as dead:
        start_of_late = dead.reserve(2)
        write_lease(cache_path, pid=number_of_the_dead())
        with open_writer(cache_path, "driver B") as writer:
            start = writer.reserve(2)
            ((first, _),) = write_shards(cache_path, start, [other])
            writer.commit([record_of("b.mp4", first, other)])
            ((first, _),) = write_shards(cache_path, start_of_late, [late])
            with pytest.raises(StoreError, match="taken it over"):
                dead.commit([record_of("a.mp4", first, late)])
            assert list(verify_cache(cache_path)) == []
    cache = open_cache(cache_path)
    assert list(cache.records()) == ["b.mp4"]
    assert cache.num_hole_frames == 4 * 8 - 13
    np.testing.assert_array_equal(cache.read_latents("b.mp4").mean, other.mean.astype(np.float16))


def test_late_write_into_shards_that_prune_has_deleted_harms_nobody(cache_path):
    add_videos(cache_path, {"a.mp4": random_posterior(5)})
    start = writer_of(cache_path).reserve(2)
    write_shards(cache_path, start, [random_posterior(9, seed=1)])
    add_videos(cache_path, {"b.mp4": random_posterior(13)})
    for shard in (1, 2):
        for name in ("mean", "std"):
            (cache_path / name / "c/0" / str(shard) / "0/0").unlink()
    write_shards(cache_path, start, [random_posterior(9, seed=2)])
    assert list(verify_cache(cache_path)) == []
    assert open_cache(cache_path).num_hole_frames == 2 * 8 + 3 + 3
    for video_id, length in (("a.mp4", 5), ("b.mp4", 13)):
        read = open_cache(cache_path).read_latents(video_id)
        np.testing.assert_array_equal(read.mean, random_posterior(length).mean.astype(np.float16))


HOLDER = """
import sys
from pathlib import Path
from queue import SimpleQueue
from vidlat.store.writing.opening import open_writer
with open_writer(Path(sys.argv[1]), "vidlat encode") as writer:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_real_processes_take_turns_and_a_killed_one_is_succeeded_at_once(cache_path):
    command = [sys.executable, "-c", HOLDER, str(cache_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        last_line = second.stderr.splitlines()[-1]
        assert f"in use by `vidlat encode` on {os.uname().nodename}, process {first.pid}, since" in last_line
        first.send_signal(signal.SIGSTOP)  # asleep, without a heartbeat: alive
        age(cache_path / LEASE, 1000)
        with pytest.raises(StoreError, match=rf"process {first.pid}, .* 10\d\d s ago"):
            refuse_if_held(cache_path)
        first.kill()
        first.wait()
        third = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert (third.returncode, third.stdout) == (0, "held\n"), third.stderr
    assert read_lease(cache_path) is None
