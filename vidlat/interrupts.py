"""Ctrl-C, the signals of a batch system and a closed terminal as a request to finish the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""SLURM sends SIGUSR1, or another, some time before the limit of a job."""


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP, which nothing else handles, interrupt this process as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell script
        signal.default_int_handler(number, frame)
    signal.raise_signal(signal.SIGINT)


@contextmanager
def stopping(stop: Callable[[], None], signals: Collection[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Within the block these signals call `stop`; a second Ctrl-C interrupts as usual.

    A second one of the others does not: launchers forward signals that the whole process group has received
    already. A signal that is ignored, as SIGINT is in the background of a shell script, stays ignored. In
    another thread than the main one, which alone may handle signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: handler for number in signals if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])
        stop()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
