"""Scripted faults: before any file operation of some code comes a kill, or an error of the system."""

import errno
import fcntl
import io
import os
import threading
from itertools import count
from pathlib import Path

OPERATIONS = [
    *((os, name) for name in ("open", "fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir")),
    *((os, name) for name in ("stat", "lstat", "fstat", "scandir", "listdir", "utime", "write", "ftruncate")),
    (fcntl, "flock"),
    (io, "open"),
]
"""All under pathlib and shutil. What tensorstore and pyarrow do in C++ meets real faults, elsewhere."""

READS = {"stat", "lstat", "fstat", "scandir", "listdir", "flock", "open to read"}
"""These change nothing: a kill before one is a kill before the next, and a full disk can be read."""


class Killed(BaseException):
    """No error that code could handle: the process is gone, and does nothing any more."""


class Fault:
    """Raises `error` before the file operation number `step`; if it `stays`, before all later writes too.

    hit: the operation that met it and the name of its file; None if there were not so many.
    """

    def __init__(self, step, error, stays):
        self.step, self.error, self.stays = step, error, stays
        self.numbers, self.thread, self.hit = count(), threading.current_thread(), None

    def before(self, name, file=""):
        if threading.current_thread() is not self.thread or (self.stays and name in READS):
            return
        number = next(self.numbers)
        if number == self.step or (self.stays and number > self.step):
            file = getattr(file, "name", str(file))
            self.hit = self.hit or (name, Path(file).name)
            raise Killed if self.error is Killed else OSError(self.error, os.strerror(self.error), file)


class TornFile(io.FileIO):
    """A file whose writes, where a fault comes, end half-way."""

    fault: Fault

    def write(self, content):
        try:
            self.fault.before("write", self.name)
        except BaseException:
            super().write(content[: len(content) // 2])
            raise
        return super().write(content)


def meet(operation, step, monkeypatch, error=Killed, stays=True):
    """Run `operation` with a fault at one of its steps; error: Killed or a number of errno.

    Returns what met it, None if nothing did, and the exception that the operation ended in, if any.
    """
    fault = Fault(step, error, stays)

    def guarded(name, real):
        def call(*arguments, **named):
            if real is not open:
                fault.before(name, *arguments[:1])
                return real(*arguments, **named)
            file, mode = arguments[:2]
            fault.before("open to read" if "r" in mode else "open to write", file)
            if "r" in mode:
                return real(*arguments, **named)
            torn = TornFile(file, mode.replace("b", ""))
            torn.fault = fault
            return io.BufferedWriter(torn)

        return call

    with monkeypatch.context() as patch:
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, guarded(name, getattr(owner, name)))
        try:
            operation()
        except (Exception, Killed) as raised:
            return fault.hit, raised
    return fault.hit, None


def every_kill(operation, monkeypatch):
    """Kill `operation` at each of its steps in turn, then let it end; yields the step after each."""
    for step in count():
        hit, raised = meet(operation, step, monkeypatch)
        if not isinstance(raised, Killed | None):
            raise raised
        yield step
        if hit is None:
            assert step > 2
            return


def every_error(operation, monkeypatch, stays=False):
    """Let each step of `operation` fail in turn; yields what met the error and how the operation ended.

    stays: the disk can not be written from there on; else the error passes by.
    """
    numbers = (errno.ENOSPC, errno.EROFS, errno.EIO)
    for step in count():
        hit, raised = meet(operation, step, monkeypatch, numbers[step % len(numbers)], stays)
        yield hit, raised
        if hit is None:
            assert step > 5
            return
