"""`vidlat encode` as a separate process with workers, to be watched and killed; Linux only."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from vidlat.video.writer import write_video

# The driver dies with whoever started it; its workers then end by themselves. It hears Ctrl-C as from a
# terminal: whoever runs the tests in the background of a script would pass on that it is ignored.
VIDLAT = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from vidlat.cli import main
main()
"""
SIZE = 32
POLL_SECONDS = 1e-4
PATIENCE_SECONDS = 200


def make_videos(folder: Path, num_videos: int, seed: int = 0) -> Path:
    """Videos of noise with 1 to 39 frames of 32 x 32 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(num_videos):
        coarse = rng.integers(0, 256, (int(rng.integers(1, 40)), 8, 8), np.uint8)
        write_video(folder / f"{number:03d}.mp4", coarse.repeat(4, 1).repeat(4, 2), 25)
    return folder


class EncodeProcess:
    """An encode in a session of its own, whose number identifies all of its processes, orphans too."""

    def __init__(self, videos: Path, cache: Path, scratch: Path) -> None:
        self.videos, self.cache, self.scratch = videos, cache, scratch
        flags = f"--vae tiny --size {SIZE} --stretch 1 --batch 1 --workers 2 --device cpu".split()
        command = ["encode", "--input", str(videos), "--out", str(cache), *flags]
        scratch.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch), "COLUMNS": "1000"}
        self._out, self._err = (scratch / name for name in ("out", "err"))
        # Files, for a pipe ends with the last orphan.
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.driver = subprocess.Popen(
                [sys.executable, "-c", VIDLAT, *command],
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.driver.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def is_running(self) -> bool:
        return self.driver.poll() is None

    def processes(self) -> list[int]:
        """All living processes: the driver, its workers, their helpers."""
        pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if self._is_own(pid)]

    def workers(self) -> list[int]:
        """The processes that the driver's fork server has forked, or the driver itself has spawned.

        It spawns them where the path of its TMPDIR is too long for the server's socket.
        """
        return [pid for pid in self.processes() if self._is_worker(pid)]

    def _is_worker(self, pid: int) -> bool:
        command = _command_of(pid)
        is_forked = b"multiprocessing.forkserver" in command and _status_of(pid)[1] != str(self.pid)
        return is_forked or b"multiprocessing.spawn" in command

    def _is_own(self, pid: int) -> bool:
        state, _, _, session = _status_of(pid)
        return session == str(self.pid) and state not in "ZX"

    def wait(self) -> int:
        """Wait for the driver alone; returns its exit code."""
        return self.driver.wait(PATIENCE_SECONDS)

    def wait_for_all(self) -> None:
        """Wait until no process of this encode is left."""
        wait_until(lambda: not self.processes())

    def freeze(self) -> None:
        """Suspend the workers, wherever they are."""
        _signal(self.workers(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the workers."""
        _signal(self.processes(), signal.SIGCONT)

    def end(self) -> None:
        """Kill all processes that are left."""
        while processes := self.processes():
            _signal(processes, signal.SIGKILL)
            self.driver.poll()
        self.driver.wait()


@contextmanager
def encoding(videos: Path, cache: Path, scratch: Path):
    """An encode that is killed, if it still runs, when the block ends."""
    encode = EncodeProcess(videos, cache, scratch)
    try:
        yield encode
    finally:
        encode.end()


def wait_until(condition) -> None:
    """Wait for a condition; raises TimeoutError after a time that suffices on any machine."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS} s for what did not come")
        time.sleep(POLL_SECONDS)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _status_of(pid: int) -> list[str]:
    """State, parent, process group and session; that of a dead process where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return ["X", "", "", ""]


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
