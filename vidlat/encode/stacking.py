"""From the frames of a video to VAE calls, and from what calls return to one sequence again: as streams.

Shape letters: H height, W width, S frames of a call, R frames shown for each. Without torch, which a process
that only reads videos does not load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from vidlat.timing import Timing

Frame = npt.NDArray[np.float32]

Item = TypeVar("Item", bound=Any)
"""What a call returns for one time: a NumPy array or tensor, of one video or of several."""


def fold_frames(frames: Iterable[Frame], timing: Timing) -> Iterator[Frame]:
    """Fold a stream of frames (H, W) into calls (S, H, W), the last one filled with its last frame.

    Holds one call in memory; an error of `frames` is raised without yielding a part of one.
    """
    shown, shared = _stretched(frames, timing), list[Frame]()
    while new := list(islice(shown, timing.stack - len(shared))):
        some = shared + new
        yield np.stack(some + [some[-1]] * (timing.stack - len(some)))
        shared = some[timing.stack - timing.overlap :]


def _stretched(frames: Iterable[Frame], timing: Timing) -> Iterator[Frame]:
    """Each frame R times, or with R - 1 blends of it and the next one; the last frame R times."""
    if timing.stretch == 1 or timing.stretch_by == "repeat":
        for frame in frames:
            yield from [frame] * timing.stretch
        return
    shares = [np.float32(part / timing.stretch) for part in range(timing.stretch)]
    ends: Iterable[Frame | None] = chain(frames, [None])
    for before, following in pairwise(ends):
        assert before is not None
        after = before if following is None else following
        yield from (before * (1 - share) + after * share for share in shares)


def unfold_frames(calls: Iterable[Iterable[Item]], timing: Timing) -> Iterator[Item]:
    """The frames of a stream of calls, each of S frames: the inverse of `fold_frames`, padding kept.

    Calls that share frames are cross-faded. A frame is the mean of what stands for it, without blends.
    """
    shown = join_calls(calls, timing.stack - timing.overlap, "cross-fade")
    while copies := list(islice(shown, timing.stretch)):
        yield copies[0] if timing.stretch_by == "linear" else sum(copies[1:], copies[0]) / timing.stretch


def join_calls(
    calls: Iterable[Iterable[Item]], step: int, blend: Literal["average", "center", "cross-fade"]
) -> Iterator[Item]:
    """Join calls of one length, each of which starts `step` items after the one before.

    What several calls hold becomes their mean (average), that of the call in which it lies nearest the
    middle (center), or their mean with weights that fall linearly towards both ends (cross-fade).
    """
    joiner = CallJoiner[Item](step, blend)
    for call in calls:
        yield from joiner.add(call)
    yield from joiner.finish()


class CallJoiner(Generic[Item]):
    """What `join_calls` does, one call at a time; holds back what the next call may share."""

    def __init__(self, step: int, blend: Literal["average", "center", "cross-fade"]) -> None:
        self._step, self._blend = step, blend
        self._held: list[tuple[int, Item]] = []

    def add(self, call: Iterable[Item]) -> list[Item]:
        """Add a call; returns the items that no later call shares."""
        items = list(call)
        length, is_weighted = len(items), self._blend != "average"
        new = [
            (min(place + 1, length - place) if is_weighted else 1, item) for place, item in enumerate(items)
        ]
        shared = [self._merge(held, added) for held, added in zip(self._held, new, strict=False)]
        joined = shared + new[len(shared) :]
        self._held = joined[self._step :]
        return [item for _, item in joined[: self._step]]

    def finish(self) -> list[Item]:
        """The items that the last call would have shared."""
        held, self._held = self._held, []
        return [item for _, item in held]

    def _merge(self, held: tuple[int, Item], added: tuple[int, Item]) -> tuple[int, Item]:
        if self._blend == "center":
            return max(held, added, key=lambda weighted: weighted[0])
        weight = held[0] + added[0]
        return weight, held[1] + (added[1] - held[1]) * (added[0] / weight)
