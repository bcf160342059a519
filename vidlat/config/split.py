"""Settings of `vidlat split`, and of a split that several trainings share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidlat.checked_settings import SEED_STOP, Config, setting
from vidlat.errors import ConfigError


def split_setting() -> Any:
    return setting(
        None,
        "a table with the columns video_id and split (train, val or test), as `vidlat split` writes "
        "it: each video is in the part that it states, whatever labels say; those for testing are left out",
        group="Split",
    )


def split_by_setting() -> Any:
    return setting(
        None,
        "the label that identifies a subject, or subject, for every video; else the recorded subject or the "
        "source (a file or series), whose parts stay together. A label of train, val and test is a split: it "
        "is kept, and test videos are left out; one named split is kept without being given",
        group="Split",
    )


def split_by_pattern_setting() -> Any:
    return setting(
        None,
        "a regular expression whose match, or first group, in the video id identifies a subject",
        group="Split",
    )


_OF_EXPRESSIONS = frozenset(r"\^$()[]{}|*+?")


def with_pattern(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run has recorded, with an expression in `split_by` moved to `split_by_pattern`.

    Before --split-by-pattern, --split-by took a name or an expression. A text with a character that is
    special in expressions, and hardly ever part of a label's name, is taken for one.
    """
    split_by = settings.get("split_by")
    if "split_by_pattern" in settings or not (isinstance(split_by, str) and _OF_EXPRESSIONS & set(split_by)):
        return dict(settings)
    return {**settings, "split_by": None, "split_by_pattern": split_by}


def useless_of_split(settings: Any) -> dict[str, str]:
    """Which of these settings have no effect beside the others."""
    if settings.split_by and settings.split_by_pattern:
        return {"split_by_pattern": "beside --split-by; leave one of these out"}
    return {}


@dataclass(frozen=True, kw_only=True)
class SplitConfig(Config):
    """Settings of `vidlat split`."""

    fractions: tuple[float, ...] = setting(
        (),
        "shares of the subjects for training, validation and test, 1 together; else those of the file to "
        "extend, and of a new one 0.8,0.1,0.1",
        group="Split",
        at_least=0,
        at_most=1,
    )
    by: str | None = setting(
        None,
        "the label that identifies a subject, or subject, for every video; else the recorded subject or the "
        "source (a file or series)",
        group="Split",
    )
    by_pattern: str | None = split_by_pattern_setting()
    stratify: str | None = setting(
        None,
        "a label that is to be alike in all parts: a class, or a number, by its quantiles",
        group="Split",
    )
    seed: int = setting(0, "another one gives another split", group="Split", at_least=0, below=SEED_STOP)

    def __post_init__(self) -> None:
        super().__post_init__()
        is_whole = len(self.fractions) == 3 and abs(sum(self.fractions) - 1) < 1e-6
        if self.fractions and not (is_whole and self.fractions[0]):
            raise ConfigError(
                f"fractions: got {','.join(map(str, self.fractions))}; expected three, for training, "
                "validation and test, which are 1 together, the first above 0, such as 0.8,0.1,0.1"
            )
        if self.by and self.by_pattern:
            raise ConfigError("by_pattern: has no effect beside --by; leave one of these out")
