"""Steps that are skipped because their numbers are not finite: how many in a row a training bears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from vidlat.errors import TrainError


class Step(Protocol):
    """The metrics of a step, as far as they say whether it was skipped."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def grad_norm(self) -> float: ...
    @property
    def is_skipped(self) -> bool: ...


AnyStep = TypeVar("AnyStep", bound=Step)


class SkippedSteps:
    """Counts the steps that were skipped in a row. most: as many as are borne."""

    def __init__(self, most: int) -> None:
        self._most, self._num_in_a_row = most, 0

    def require_few(self, steps: Sequence[AnyStep], advise: Callable[[AnyStep], str]) -> None:
        """Count the next steps; raises TrainError at one that is skipped after `most` others in a row.

        advise: says what to do about that step.
        """
        for step in steps:
            self._num_in_a_row = self._num_in_a_row + 1 if step.is_skipped else 0
            if self._num_in_a_row > self._most:
                raise TrainError(
                    f"step {step.step}: the loss is {step.loss}, its gradient's norm {step.grad_norm}; "
                    f"{self._num_in_a_row} steps in a row were not finite and changed nothing, and "
                    f"--max-skipped is {self._most}; {advise(step)}"
                )
