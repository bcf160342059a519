"""The metrics of each step, in metrics.jsonl and as TensorBoard scalars."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from vidlat.files import replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """The metrics of one finished step.

    step: counted from 1. loss: of the step's batch, before its update. grad_norm: before clipping.
    steps_per_second: of this step alone, without validation and checkpoint. data_wait: the share of its time
    spent waiting for data. validation_loss: of the averaged weights, at steps that validate.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    steps_per_second: float
    data_wait: float
    validation_loss: float | None = None


class Recorder:
    """Appends to the metrics of a run, after dropping those beyond the step that it resumes from.

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

    def write(self, record: StepRecord) -> None:
        """Append the metrics of one step."""
        values = {name: value for name, value in asdict(record).items() if value is not None}
        self._lines.write(json.dumps(values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if name != "step":
                self._scalars.add_scalar(name, value, record.step)

    def sync(self) -> None:
        """Sync all lines to disk, because a checkpoint must not outlive the lines before it."""
        os.fsync(self._lines.fileno())

    def close(self) -> None:
        """Write out what is buffered and close the files."""
        self._lines.close()
        self._scalars.close()
