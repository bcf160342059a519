"""The metrics of each step, in metrics.jsonl and as TensorBoard scalars."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from vidlat.files import replace_file

NUM_TOGETHER, SECONDS_TOGETHER = 20, 1.0
"""Steps that are written together, at most, and how long one may wait for others: a step of a small network
on a GPU takes little longer than writing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """The metrics of one finished step.

    step: counted from 1. loss: of the step's batch, before its update. grad_norm: before clipping. Either may
    be infinite or NaN, and the step was skipped then. steps_per_second: of this step alone, or of the few
    whose figures came at once from a GPU, without validation and checkpoint. data_wait: the share of that
    time spent waiting for data. validation_loss: of the averaged weights, at steps that validate.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    steps_per_second: float
    data_wait: float
    validation_loss: float | None = None

    @property
    def is_skipped(self) -> bool:
        """Whether the step changed no weight, because its loss or its gradient is not finite."""
        return not (math.isfinite(self.loss) and math.isfinite(self.grad_norm))


class Recorder:
    """Appends to the metrics of a run, after dropping those beyond the step that it resumes from.

    A number that is not finite is null in metrics.jsonl, because JSON has none, and left out of TensorBoard.

    A killed run may have written lines after its last checkpoint, and half a line. The resumed run repeats
    those steps, so metrics.jsonl holds every step once.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        path = run_dir / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        # One line per step, in order. Only the last may be incomplete, and it belongs to no checkpoint.
        replace_file(path, b"".join(lines[:step]))
        self._lines = path.open("a")
        self._scalars = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
        self._waiting: list[StepRecord] = []
        self._written = time.monotonic()

    def write(self, records: Iterable[StepRecord]) -> None:
        """Append the metrics of the next steps, within about a second or when `sync` is called."""
        self._waiting += records
        if len(self._waiting) >= NUM_TOGETHER or time.monotonic() - self._written > SECONDS_TOGETHER:
            self._write_waiting()

    def _write_waiting(self) -> None:
        events = self._scalars._get_file_writer()  # type: ignore[no-untyped-call]
        for record in self._waiting:
            values = {name: value for name, value in asdict(record).items() if value is not None}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._lines.write(json.dumps(dict.fromkeys(values) | finite) + "\n")
            # One event for all curves: SummaryWriter.add_scalar writes one for each.
            curves = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in finite.items()
                if name != "step"
            ]
            events.add_summary(Summary(value=curves), record.step)
        self._lines.flush()
        self._waiting.clear()
        self._written = time.monotonic()

    def sync(self) -> None:
        """Write and sync all lines to disk, because a checkpoint must not outlive the lines before it."""
        self._write_waiting()
        os.fsync(self._lines.fileno())

    def close(self) -> None:
        """Write out what is buffered and close the files."""
        self._write_waiting()
        self._lines.close()
        self._scalars.close()
