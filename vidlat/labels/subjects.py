"""Which videos show the same subject."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping

from vidlat.errors import ConfigError
from vidlat.types import Annotation, Source, source_id
from vidlat.wording import shorten


def subjects_of(
    sources: Mapping[str, Source],
    annotations: Mapping[str, Annotation],
    split_by: str | None = None,
    pattern: str | None = None,
    *,
    settings: tuple[str, str] = ("split_by", "split_by_pattern"),
) -> dict[str, str]:
    """The subject of each video, by video_id.

    split_by: "subject" or the name of a label; pattern: a regular expression, whose match, or first group, in
    the video id is the subject; at most one of them. Without either it is the recorded subject, or the
    source, of which parts, stretches of time and copies have one subject. Names that differ by spaces around
    them, in the Unicode form of a letter, or as 3 and 3.0 are one. settings: what errors call the two.

    Raises ConfigError for a name that is no label, an invalid expression, and videos without that label or
    match.
    """
    by_name, by_pattern = settings
    known = {video_id: annotations.get(video_id, Annotation()) for video_id in sources}
    if pattern is not None:
        return _require_all(_matches(known, pattern, by_pattern), f"{by_pattern}: no match of {pattern!r} in")
    if split_by is None:
        names = _names_of_sources(sources)
        recorded = {video_id: _one_form(annotation.subject) for video_id, annotation in known.items()}
        of_sources = {names[video_id]: subject for video_id, subject in recorded.items() if subject}
        return {
            video_id: subject or of_sources.get(names[video_id], names[video_id])
            for video_id, subject in recorded.items()
        }
    if split_by not in (names_known := label_names(known.values())):
        there_are = f"there are {', '.join(names_known)}" if names_known else "they have none"
        raise ConfigError(
            f"{by_name}: {split_by!r} is no label of the videos; {there_are} (an expression for their ids is "
            f"given by --{by_pattern.replace('_', '-')})"
        )
    subjects = {id: _one_form(label_of(annotation, split_by)) for id, annotation in known.items()}
    return _require_all(subjects, f"{by_name}: no label {split_by!r} of")


def subject_notes(
    sources: Mapping[str, Source],
    annotations: Mapping[str, Annotation],
    only: Collection[str] | None = None,
) -> Iterator[str]:
    """A line on videos without a recorded subject, where others have one: their patient may be among these.

    only: ids of the videos to name; of all by default. A video of a source whose subject another records
    has it too, as in `subjects_of`.
    """
    names = _names_of_sources(sources)
    known = {names[id] for id in sources if annotations.get(id, Annotation()).subject}
    lacking = (
        sorted(id for id in (sources if only is None else only) if names[id] not in known) if known else []
    )
    if lacking:
        one, several = ("has", "counts as its own", "it"), ("have", "count as their own", "them")
        have, count, them = one if len(lacking) == 1 else several
        yield (
            f"{len(lacking):,} of {len(sources):,} videos {have} no subject and {count}, though others have "
            f"one: {shorten(lacking)}; add {them} to the table that `vidlat encode --labels` takes"
        )


def label_names(annotations: Iterable[Annotation]) -> list[str]:
    """The names of all labels, sorted; `subject` is one where a subject is recorded."""
    return sorted({name for annotation in annotations for name in annotation.columns()})


def label_of(annotation: Annotation, name: str) -> str:
    """A label of a video, or its subject; empty where it has none."""
    return annotation.subject if name == "subject" else annotation.labels.get(name, "")


def _one_form(subject: str) -> str:
    """How a subject is written in one form: pandas makes 3.0 of 3, and macOS takes letters apart."""
    text = unicodedata.normalize("NFC", subject).strip()
    return text.partition(".")[0] if re.fullmatch(r"[0-9]+\.0+", text) else text


def _matches(video_ids: Iterable[str], pattern: str, setting: str) -> dict[str, str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{setting}: got {pattern!r}; expected a regular expression ({error})") from error
    matches = {video_id: expression.search(video_id) for video_id in video_ids}
    group = 1 if expression.groups else 0
    return {video_id: (match.group(group) or "") if match else "" for video_id, match in matches.items()}


def _require_all(subjects: dict[str, str], lacking: str) -> dict[str, str]:
    without = [video_id for video_id, subject in subjects.items() if not subject]
    if without:
        raise ConfigError(
            f"{lacking} {len(without)} of {len(subjects)} videos: {shorten(without)}; choose something that "
            "every video has"
        )
    return subjects


def _names_of_sources(sources: Mapping[str, Source]) -> dict[str, str]:
    """A name for the source of each video: the least of the ids with the same content, or the same whole.

    A part of a series has files of its own, and its id tells the series; a stretch may have any id, and the
    hash of its file tells the file.
    """
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(key: tuple[int, str]) -> tuple[int, str]:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    wholes = {video_id: (0, source_id(video_id, source.selection)) for video_id, source in sources.items()}
    for video_id, source in sources.items():
        content = (1, source.sha256) if source.sha256 else wholes[video_id]
        first, second = sorted((root(wholes[video_id]), root(content)))
        parents[second] = first
    return {video_id: root(whole)[1] for video_id, whole in wholes.items()}
