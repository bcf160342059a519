"""Scripted faults: a kill or a system error before any file operation of some code."""

import errno
import fcntl
import io
import os
import threading
from itertools import count
from pathlib import Path

from tests.thorough import steps

OPERATIONS = [
    *((os, name) for name in ("open", "fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir")),
    *((os, name) for name in ("stat", "lstat", "fstat", "scandir", "listdir", "utime", "write", "ftruncate")),
    (os, "sync"),
    (fcntl, "flock"),
    (io, "open"),
]
"""What pathlib and shutil call. tensorstore and pyarrow, in C++, are tested with real faults elsewhere."""

READS = {"stat", "lstat", "fstat", "scandir", "listdir", "flock", "open to read"}
"""These change nothing, so a kill before one equals a kill before the next, and a full disk allows them."""


class Killed(BaseException):
    """Simulates a kill: no code handles it, and the process does nothing more."""


class Fault:
    """Raises `error` before file operation number `step`; if it `stays`, also before all later writes.

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
            file = str(getattr(file, "name", file))
            self.hit = self.hit or (name, Path(file).name)
            raise Killed if self.error is Killed else OSError(self.error, os.strerror(self.error), file)


class TornFile(io.FileIO):
    """A file whose writes stop halfway at a fault."""

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
    """Kill `operation` at one of its steps after the other, until it completes; yields each step."""
    for step in steps():
        hit, raised = meet(operation, step, monkeypatch)
        if not isinstance(raised, Killed | None):
            raise raised
        yield step
        if hit is None:
            assert step > 2
            return


def every_error(operation, monkeypatch, stays=False):
    """Let one step of `operation` after the other fail; yields that step and the exception, if any.

    stays: no later write succeeds either.
    """
    numbers = (errno.ENOSPC, errno.EROFS, errno.EIO)
    for number, step in enumerate(steps()):
        hit, raised = meet(operation, step, monkeypatch, numbers[number % len(numbers)], stays)
        yield hit, raised
        if hit is None:
            assert step > 5
            return
