"""Settings of a split that several trainings share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidlat.checked_settings import setting


def split_setting() -> Any:
    return setting(
        None,
        "a table with the columns video_id and split (train, val or test): each video is in the part that it "
        "states, whatever labels say, and those for testing are left out",
    )


def split_by_setting() -> Any:
    return setting(
        None,
        "the label that identifies a subject, or subject, for every video; else the recorded subject or the "
        "source (a file or series), whose parts stay together. A label of train, val and test is a split: it "
        "is kept, and test videos are left out; one named split is kept without being given",
    )


def split_by_pattern_setting() -> Any:
    return setting(
        None,
        "a regular expression whose match, or first group, in the video id identifies a subject",
    )


_OF_EXPRESSIONS = frozenset(r"\^$()[]{}|*+?")


def with_pattern(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a run has recorded them, of now.

    Runs from before --split-by-pattern had a name or an expression as --split-by: what holds a sign that
    expressions have, and names of labels hardly ever, is one.
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
