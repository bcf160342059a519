"""The progress of a copy of a cache, as `push` and `pull` show it."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from vidlat.commands.display import Stages, format_bytes
from vidlat.store.copying.copy import CopyPlan, CopyProgress

COLUMN = "{task.fields[name]}"
"""Of the progress bar: bytes and their rate, or the video that is verified."""


@dataclass(slots=True)
class Transferred:
    """What has been copied so far. plan: of the copy; None if nothing was to be done, or before it began."""

    plan: CopyPlan | None = None
    num_files: int = 0
    num_bytes: int = 0
    is_card_kept: bool = False

    def follow(self, events: Generator[CopyProgress], stages: Stages, doing: str) -> None:
        """Carry out a copy and show it as a stage."""
        with closing(events):
            self.plan = plan = next(events).plan
            if not plan:
                return
            total = "" if plan.num_bytes is None else f" of {format_bytes(plan.num_bytes)}"
            num_files = plan.num_files + plan.num_to_compare
            if num_files:
                stages.show(doing, 0, num_files, name="")  # the first file may take long
            began = time.monotonic()
            for event in events:
                self.num_files += event.num_files
                self.num_bytes += event.num_bytes
                self.is_card_kept |= event.is_card_kept
                seconds = max(time.monotonic() - began, 1e-9)
                if not (event.num_files or event.num_compared):
                    continue
                rate = format_bytes(self.num_bytes / seconds)
                name = f"{format_bytes(self.num_bytes)}{total}, {rate}/s"
                stages.advance(doing, event.num_files + event.num_compared, num_files, name=name)
