"""The lowest validation loss of a training, and whether it has been too long since."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class BestValidation:
    """The lowest validation loss so far, and its step, or the one from which validations are counted.

    every: steps between validations. patience: validations without a lower loss after which to stop; 0 for
    never. Their number follows from the steps, so that a resumed training needs nothing but the best one.
    """

    every: int
    patience: int
    step: int
    loss: float = math.inf

    def take(self, step: int, loss: float) -> None:
        """Take the loss of a validation."""
        if loss < self.loss:
            self.step, self.loss = step, loss

    def is_too_long_ago(self, step: int) -> bool:
        """Whether patience is at its end after a step, which was validated if that was due."""
        return self.patience > 0 and step // self.every - self.step // self.every >= self.patience
