"""Who gets another attempt when a worker dies, and with how much of its memory; only counting, no Dask."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from vidlat.pipeline.failures import failure_of
from vidlat.pipeline.plan import Batch
from vidlat.types import FailureRecord

MAX_DEATHS_ALONE = 2
"""A video whose worker dies this often while it runs alone, at last with one stack a call, is a failure."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Videos that one task encodes, with calls of at most so many stacks.

    is_alone: nothing else runs meanwhile, so that a death is this video's doing.
    """

    videos: Batch
    most_stacks: int
    is_alone: bool = False

    def without(self, video_ids: set[str]) -> Attempt:
        """What is left of it."""
        left = tuple(video for video in self.videos if video.video_id not in video_ids)
        return replace(self, videos=left)


class Suspects:
    """Videos that run alone, since a worker died that had them.

    A worker that dies takes all of its tasks along: the first death accuses nobody, and the video gets an
    attempt like the first. A video that died alone gets half as many stacks a call, since it may be the
    memory, and so do the suspects that follow once that has helped.
    """

    def __init__(self, most_stacks: int) -> None:
        self._most_stacks = most_stacks
        self._waiting: deque[Attempt] = deque()
        self._deaths: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> Attempt:
        """The one to try next, whose turn it is when nothing else runs."""
        attempt = self._waiting.popleft()
        return replace(attempt, most_stacks=min(attempt.most_stacks, self._most_stacks))

    def add(self, attempt: Attempt) -> list[FailureRecord]:
        """Take the videos of an attempt whose worker died; returns those that get no other."""
        failures = []
        for video in attempt.videos:
            self._deaths[video.video_id] += attempt.is_alone
            num_deaths = self._deaths[video.video_id]
            if attempt.most_stacks == 1 and num_deaths >= MAX_DEATHS_ALONE:
                reason = (
                    f"the process that encoded it, and nothing else, died {num_deaths} times, at last with "
                    "one stack a call"
                )
                failures.append(failure_of(video, "worker-died", f"{reason} (out of memory?)"))
                continue
            most_stacks = max(1, attempt.most_stacks // 2) if attempt.is_alone else attempt.most_stacks
            self._waiting.append(Attempt((video,), most_stacks, is_alone=True))
        return failures

    def clear(self, attempt: Attempt) -> None:
        """Learn from an attempt whose videos are in the cache."""
        if attempt.is_alone:
            self._most_stacks = min(self._most_stacks, attempt.most_stacks)
