"""Axes: from values to places in a picture, linear or logarithmic, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MOST_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values from `low` to `high` to places from `start` to `stop`, in pixels."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, stop: float, *, is_log: bool = False) -> Self:
        """The scale on which all values that are numbers lie, with some room at both ends.

        is_log: on a logarithmic scale only positive values have a place. Without any value, from 0 to 1 or
        from 1 to 10.
        """
        known = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
        if not known:
            known = [1.0, 10.0] if is_log else [0.0, 1.0]
        low, high = min(known), max(known)
        if is_log:
            room = (high / low) ** 0.05 if high > low else 1.5
            return cls(low=low / room, high=high * room, start=start, stop=stop, is_log=True)
        room = (high - low) * 0.05 or max(abs(high) * 0.05, 0.5)
        return cls(low=low - room, high=high + room, start=start, stop=stop)

    def place(self, value: float) -> float:
        """Where a value is; a value that has no place on a logarithmic scale is at `low`."""
        ends = self.low, self.high, value
        if self.is_log:
            ends = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        low, high, here = ends
        return self.start + (here - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values within the scale, in order."""
        if self.is_log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            stride = -(-len(exponents) // MOST_TICKS)
            for digits in ((1,), (1, 3), (1, 2, 5)):
                found = self._within(digit * 10.0**power for power in exponents[::stride] for digit in digits)
                if len(found) >= 3:
                    return found
        step = _round_up((self.high - self.low) / MOST_TICKS)
        first = math.ceil(self.low / step)
        return self._within(number * step for number in range(first, first + MOST_TICKS + 1))

    def _within(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if self.low <= value <= self.high]


def _round_up(step: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= step * (1 - 1e-9))


def tick_text(value: float) -> str:
    """A short text of a round number: `0.25`, `20k`, `1e-05`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
