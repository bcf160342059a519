"""The metrics of a run's steps, as they are so far, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, Self

from vidlat.checked_settings import LARGE
from vidlat.documents import Fields, parse_json
from vidlat.files import read_file

METRICS_BYTES = 2**30
"""Most bytes of a metrics.jsonl: some million steps."""

NUM_RECENT = 100
"""Steps whose mean is the loss of a run: that of one step depends on its random timesteps."""


NUM_AVERAGED = 10
"""Steps at most whose mean is a point of a curve."""


class StepMetrics(NamedTuple):
    """What a line tells of its step; None for what it does not tell, or is not finite."""

    step: int
    loss: float | None
    validation_loss: float | None
    stopped_early: bool


class Metrics:
    """The lines of a metrics.jsonl, parsed when they are asked for.

    A line that is none of a step, such as one that is still being written, is left out.
    """

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        self._lines = lines

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Those of a run, none before its first step; raises OSError for what is no regular file."""
        try:
            return cls(read_file(run_dir / "metrics.jsonl", METRICS_BYTES).splitlines())
        except FileNotFoundError:
            return cls()

    @cached_property
    def last(self) -> StepMetrics | None:
        """Those of the last step; the line after it may be incomplete."""
        return max(_parsed(self._lines[-2:]), key=lambda each: each.step, default=None)

    @cached_property
    def loss(self) -> float | None:
        """The mean of the last NUM_RECENT steps that have a finite loss."""
        return _mean(_parsed(self._lines[-NUM_RECENT:]))

    @cached_property
    def validations(self) -> list[tuple[int, float]]:
        """The steps that were validated, and their losses."""
        lines = _parsed(line for line in self._lines if b'"validation_loss"' in line)
        return [(each.step, each.validation_loss) for each in lines if each.validation_loss is not None]

    @property
    def best(self) -> tuple[int, float] | None:
        """The first step with the lowest validation loss, and that loss."""
        return min(self.validations, key=lambda each: each[1], default=None)

    def curve(self, most_points: int) -> list[tuple[float, float]]:
        """Step and loss as means over stretches of equally many steps, so that a curve has few points.

        Of each stretch up to NUM_AVERAGED steps are read, evenly spread: a run may have millions.
        """
        stride = max(-(-len(self._lines) // most_points), 1)
        points = []
        for start in range(0, len(self._lines), stride):
            lines = self._lines[start : start + stride : -(-stride // NUM_AVERAGED)]
            stretch = list(_parsed(lines))
            if (loss := _mean(stretch)) is not None:
                points.append((fmean(each.step for each in stretch), loss))
        return points


def _parsed(lines: Iterable[bytes]) -> Iterator[StepMetrics]:
    for line in lines:
        try:
            fields = Fields(parse_json(line), "a step")
            yield StepMetrics(
                step=fields.whole("step", 0, int(LARGE)),
                loss=_number(fields, "loss"),
                validation_loss=_number(fields, "validation_loss"),
                stopped_early="stopped_early" in fields.names() and fields.boolean("stopped_early"),
            )
        except ValueError:
            continue


def _number(fields: Fields, name: str) -> float | None:
    is_known = name in fields.names() and not fields.is_null(name)
    return fields.number(name) if is_known else None


def _mean(steps: Iterable[StepMetrics]) -> float | None:
    losses = [each.loss for each in steps if each.loss is not None]
    return fmean(losses) if losses else None
