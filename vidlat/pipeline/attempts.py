"""Which videos get another attempt when their worker dies, and how many stacks per VAE call it may use."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from vidlat.pipeline.failures import failure_of
from vidlat.pipeline.plan import Batch
from vidlat.types import FailureRecord

MAX_DEATHS_ALONE = 2
"""A video fails when its worker died this often while it ran alone, the last time with one stack per call."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Videos that one task encodes, with at most `most_stacks` per VAE call.

    is_alone: nothing else runs meanwhile, so that this video is to blame if the worker dies.
    """

    videos: Batch
    most_stacks: int
    is_alone: bool = False

    def without(self, video_ids: set[str]) -> Attempt:
        """The same attempt without these videos."""
        left = tuple(video for video in self.videos if video.video_id not in video_ids)
        return replace(self, videos=left)


class Suspects:
    """Videos that run alone because their worker died.

    A worker that dies takes all of its tasks along, so the first death proves nothing: the video runs again
    as before, but alone. If the worker dies again, memory may be short: the video gets half as many stacks
    per call, and once that has helped, so do the suspects after it.
    """

    def __init__(self, most_stacks: int) -> None:
        self._most_stacks = most_stacks
        self._waiting: deque[Attempt] = deque()
        self._deaths: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> Attempt:
        """The next attempt, to be made when nothing else runs."""
        attempt = self._waiting.popleft()
        return replace(attempt, most_stacks=min(attempt.most_stacks, self._most_stacks))

    def add(self, attempt: Attempt) -> list[FailureRecord]:
        """Add the videos of an attempt whose worker died; returns the failures of those that get no other."""
        failures = []
        for video in attempt.videos:
            self._deaths[video.video_id] += attempt.is_alone
            num_deaths = self._deaths[video.video_id]
            if attempt.most_stacks == 1 and num_deaths >= MAX_DEATHS_ALONE:
                reason = (
                    f"the process that encoded it, and nothing else, died {num_deaths} times, at last with "
                    "one stack per call"
                )
                failures.append(failure_of(video, "worker-died", f"{reason} (out of memory?)"))
                continue
            most_stacks = max(1, attempt.most_stacks // 2) if attempt.is_alone else attempt.most_stacks
            self._waiting.append(Attempt((video,), most_stacks, is_alone=True))
        return failures

    def clear(self, attempt: Attempt) -> None:
        """Learn from an attempt that succeeded."""
        if attempt.is_alone:
            self._most_stacks = min(self._most_stacks, attempt.most_stacks)
