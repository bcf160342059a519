"""The metrics of each step, in metrics.jsonl, TensorBoard and other trackers."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, Self

from vidlat.checked_settings import LARGE
from vidlat.documents import Fields, parse_json
from vidlat.files import replace_file
from vidlat.train.event_files import EventFiles
from vidlat.train.trackers import Trackers

NUM_TOGETHER, SECONDS_TOGETHER = 20, 1.0
"""Steps that are written together, at most, and how long one may wait for others: a step of a small network
on a GPU takes little longer than writing it."""


class Record(Protocol):
    """The metrics of one finished step."""

    @property
    def step(self) -> int:
        """Counted from 1; 0 is what is measured before the first."""

    def to_dict(self) -> dict[str, Any]:
        """The step first, then numbers, which may be in mappings by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """The metrics of one finished step.

    step: counted from 1. loss: of the step's batch, before its update. grad_norm: before clipping. Either may
    be infinite or NaN, and the step was skipped then. steps_per_second: of this step alone, or of the few
    whose figures came at once from a GPU, without validation and checkpoint. data_wait: the share of that
    time spent waiting for data. validation_loss: of the averaged weights, at steps that validate, with
    timesteps spread evenly; validation_loss_as_trained: with timesteps and weights as in training.
    stopped_early: True at the step after which the training ends for want of a lower validation loss.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    steps_per_second: float
    data_wait: float
    validation_loss: float | None = None
    validation_loss_as_trained: float | None = None
    stopped_early: bool | None = None

    @property
    def is_skipped(self) -> bool:
        """Whether the step changed no weight, because its loss or its gradient is not finite."""
        return not (math.isfinite(self.loss) and math.isfinite(self.grad_norm))

    def to_dict(self) -> dict[str, Any]:
        """The fields that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """A step that was not validated, with NaN for null; raises ValueError for what is none."""
        names = "loss", "learning_rate", "grad_norm", "steps_per_second", "data_wait"
        numbers: dict[str, Any] = {
            name: math.nan if fields.is_null(name) else fields.number(name) for name in names
        }
        return cls(step=fields.whole("step", 1, int(LARGE)), **numbers)


class Recorder:
    """Appends to the metrics of a run, after dropping those beyond the step that it resumes from.

    A number that is not finite is null in metrics.jsonl, because JSON has none, and left out of TensorBoard.

    A killed run may have written lines after its last checkpoint, and half a line. The resumed run repeats
    those steps, so metrics.jsonl holds every step once. settings: of the run, for TensorBoard. trackers:
    receive the same figures.
    """

    def __init__(
        self, run_dir: Path, step: int, settings: Mapping[str, Any], trackers: Trackers | None = None
    ) -> None:
        self._trackers = trackers
        path = run_dir / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        # One line per step, in order. Only the last may be incomplete, and it belongs to no checkpoint.
        # Without a step there is no checkpoint, and what was measured before the first is measured again.
        kept = list(takewhile(lambda line: _step_of(line) <= step, lines)) if step else []
        replace_file(path, b"".join(kept))
        self._lines = path.open("a")
        self._events = EventFiles(run_dir, step, settings)
        self._waiting: list[Record] = []
        self._written = time.monotonic()

    def write(self, records: Iterable[Record]) -> None:
        """Append the metrics of the next steps, within about a second or when `sync` is called."""
        self._waiting += records
        if len(self._waiting) >= NUM_TOGETHER or time.monotonic() - self._written > SECONDS_TOGETHER:
            self._write_waiting()

    def _write_waiting(self) -> None:
        for record in self._waiting:
            values = record.to_dict()
            self._lines.write(json.dumps(finite(values)) + "\n")
            curves = {tag: value for tag, value in _curves(values) if tag != "step"}
            self._events.write(record.step, curves)
            if self._trackers:
                self._trackers.write(record.step, curves)
        self._lines.flush()
        self._waiting.clear()
        self._written = time.monotonic()

    def sync(self) -> None:
        """Write and sync all lines to disk, because a checkpoint must not outlive the lines before it."""
        self._write_waiting()
        os.fsync(self._lines.fileno())

    def show(self, tag: str, path: Path, step: int) -> None:
        """Show a GIF or PNG in TensorBoard."""
        self._events.show(tag, path, step)

    def close(self) -> None:
        """Write out what is buffered and close the files; at the end of Python, only metrics.jsonl."""
        if sys.is_finalizing():
            # Of a training that nobody has closed. The thread that writes the curves has ended, and to wait
            # for it would be for ever.
            self._lines.close()
            return
        self._write_waiting()
        self._lines.close()
        self._events.close()
        if self._trackers:
            self._trackers.close()


def _step_of(line: bytes) -> float:
    """The step of a line; infinite for one that is incomplete or damaged."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return math.inf


def finite(value: Any) -> Any:
    """The same with None for each number that is not finite."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _curves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Each finite number with its name, below those of the mappings that it is in."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _curves(value, f"{above}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{above}{name}", value
