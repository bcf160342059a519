"""Settings that a resumed run changed, which it records, so that it tells how it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from vidlat.checked_settings import LARGE, Config
from vidlat.documents import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that a resumed run changed. from_step: the first step with it, counted from 1."""

    from_step: int
    setting: str
    before: Any
    after: Any

    @classmethod
    def from_fields(cls, fields: Fields, config: Config) -> Self:
        """Raises ValueError or ConfigError for what no run with these settings has changed."""
        step, setting = fields.whole("from_step", 1, int(LARGE)), fields.text("setting")
        before, after = (fields.take(name, (int, float, str), "a setting") for name in ("before", "after"))
        for value in (before, after):
            type(config).from_mapping(config.to_dict() | {setting: value})
        return cls(from_step=step, setting=setting, before=before, after=after)


def changes_after(
    changes: Sequence[Change], before: Config, now: Config, recorded: Sequence[str], step: int
) -> tuple[Change, ...]:
    """The changes of a run that goes on after a step with the settings `now`, those before among them.

    before: its settings so far. recorded: the settings whose changes count. Changes that came after the step
    are void, as are the steps since.
    """
    values, wanted = before.to_dict(), now.to_dict()
    for change in reversed(changes):
        if change.from_step > step:
            values[change.setting] = change.before
    earlier = [change for change in changes if change.from_step <= step]
    newer = [
        Change(from_step=step + 1, setting=name, before=values[name], after=wanted[name])
        for name in recorded
        if values[name] != wanted[name]
    ]
    return (*earlier, *newer)
