"""Which videos are trained on, validated and tested: no subject is in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vidlat.errors import ConfigError
from vidlat.labels.split_file import PART_OF, PARTS, read_split
from vidlat.labels.subjects import label_names, label_of, subjects_of
from vidlat.paths import local_path
from vidlat.types import Annotation, Source
from vidlat.wording import format_count, shorten


class SplitSettings(Protocol):
    """The settings of a training that decide its split."""

    @property
    def split(self) -> str | None:
        """A file that states the part of each video."""

    @property
    def split_by(self) -> str | None:
        """The label that tells subjects, or parts."""

    @property
    def split_by_pattern(self) -> str | None:
        """The expression that finds subjects in ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSplit:
    """The ids of each part, sorted, the number of subjects in each, and what states the parts.

    stated_by: a label or a file, in words; empty where subjects were held out by a hash of their names.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    num_subjects: Mapping[str, int]
    stated_by: str = ""

    @classmethod
    def of(cls, parts: Mapping[str, str], subjects: Mapping[str, str], stated_by: str = "") -> VideoSplit:
        """The split of the videos whose part and subject are given by id."""
        ids = {part: tuple(sorted(id for id, of in parts.items() if of == part)) for part in PARTS}
        return cls(
            training=ids["train"],
            validation=ids["val"],
            test=ids["test"],
            num_subjects={part: len({subjects[id] for id in ids[part]}) for part in PARTS},
            stated_by=stated_by,
        )

    def in_words(self) -> str:
        """One line with the numbers of videos and subjects of each part."""
        num_videos = len(self.training), len(self.validation), len(self.test)
        return describe_split(num_videos, self.num_subjects, self.stated_by)


def describe_split(num_videos: Iterable[int], num_subjects: Mapping[str, int], stated_by: str) -> str:
    """Such as `split by subject: train 17 videos of 15 subjects, val 2 videos of 2 subjects`.

    num_videos: of each of the PARTS. num_subjects: of each, by its name, where it is known. stated_by: see
    `VideoSplit`.
    """
    texts = []
    for part, number in zip(PARTS, num_videos, strict=True):
        subjects = num_subjects.get(part)
        of = "" if subjects is None else f" of {format_count(subjects, 'subject')}"
        if number or part != "test":
            texts.append(f"{part} {format_count(number, 'video')}{of}{' (not used)' * (part == 'test')}")
    return f"split by {stated_by or 'subject'}: {', '.join(texts)}"


def decide_split(
    sources: Mapping[str, Source],
    annotations: Mapping[str, Annotation],
    settings: SplitSettings,
    validation_fraction: float,
) -> VideoSplit:
    """Decide the part of each video: as a file states, or a label, else by subject.

    A label states it that settings name, or one called `split`, in any case. Raises ConfigError as
    `subjects_of`, InputError as `read_split`; and ConfigError where a label states the part of some videos
    alone, and where no video is for training or a subject is in two parts.
    """
    known = {video_id: annotations.get(video_id, Annotation()) for video_id in sources}
    if settings.split:
        found = read_split(local_path(settings.split), sources)
        parts, stated_by = {id: placed.part for id, placed in found.items()}, settings.split
        known = {id: Annotation(found[id].subject).updated(each) for id, each in known.items()}
    else:
        parts, stated_by = _stated_by_label(known, settings.split_by)
    subjects = run_subjects(sources, known, settings)
    if not parts:
        training, _ = split_videos(subjects, validation_fraction)
        trained = set(training)
        return VideoSplit.of({id: "train" if id in trained else "val" for id in sources}, subjects)
    if "train" not in parts.values():
        raise ConfigError(f"split: {stated_by} has no video for training; expected train for some of them")
    require_whole_subjects(parts, subjects, stated_by)
    return VideoSplit.of(parts, subjects, stated_by)


def run_subjects(
    sources: Mapping[str, Source], annotations: Mapping[str, Annotation], settings: SplitSettings
) -> dict[str, str]:
    """The subject of each video as settings tell it; a label that tells parts tells no subjects."""
    known = {video_id: annotations.get(video_id, Annotation()) for video_id in sources}
    by = settings.split_by
    by = None if by and _tells_parts(known, by) else by
    return subjects_of(sources, known, by, settings.split_by_pattern)


def _stated_by_label(
    annotations: Mapping[str, Annotation], split_by: str | None
) -> tuple[dict[str, str], str]:
    """The parts that the label `split_by` states, or one called split, and which does; empty if none does."""
    named = [name for name in label_names(annotations.values()) if name.lower() == "split"]
    for name in [*([split_by] if split_by else []), *named]:
        if _tells_parts(annotations, name):
            return _parts_by_label(annotations, name), f"label {name!r}"
    return {}, ""


def _tells_parts(annotations: Mapping[str, Annotation], name: str) -> bool:
    """Whether a label says the parts of videos, of all or of some of them.

    It does where it says of one to be for training and of another to be held out; where it says nothing of
    training, only if it says nothing but parts.
    """
    texts = {label_of(annotation, name) for annotation in annotations.values()} - {""}
    parts = {PART_OF.get(text.lower(), "") for text in texts}
    return bool(parts - {"train", ""}) and ("train" in parts or "" not in parts)


def _parts_by_label(annotations: Mapping[str, Annotation], name: str) -> dict[str, str]:
    """The part of each video as a label states it; raises ConfigError where it states none for some."""
    texts = {video_id: label_of(annotation, name) for video_id, annotation in annotations.items()}
    parts = {video_id: PART_OF.get(text.lower(), "") for video_id, text in texts.items()}
    others = [video_id for video_id, part in parts.items() if not part]
    if others:
        raise ConfigError(
            f"the label or column {name!r} says the part of {len(texts) - len(others)} of {len(texts)} "
            f"videos; of the others it is {texts[others[0]]!r} ({shorten(others)}); expected train, val "
            "or test for every video, or a --split FILE, which goes before labels (`vidlat split` writes one)"
        )
    if "train" not in parts.values():
        raise ConfigError(
            f"the label or column {name!r} says the part of videos, but of all {len(texts)} it is "
            f"{', '.join(sorted(set(texts.values())))}; expected train for those to train on, or a --split "
            "FILE, which goes before labels (`vidlat split` writes one)"
        )
    return parts


def require_whole_subjects(parts: Mapping[str, str], subjects: Mapping[str, str], stated_by: str) -> None:
    """Raise ConfigError where two videos of one subject are in two parts."""
    first: dict[str, str] = {}
    for video_id, subject in subjects.items():
        other = first.setdefault(subject, video_id)
        if parts[other] != parts[video_id]:
            raise ConfigError(
                f"split: {stated_by} puts subject {subject!r} into two parts: {other} into {parts[other]}, "
                f"{video_id} into {parts[video_id]}; put all of its videos into one"
            )


def split_videos(
    subjects: Mapping[str, str], validation_fraction: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split videos by subject into training and validation videos, each sorted.

    subjects: by video_id. The side of a subject depends on the hash of its name alone, so it stays the same
    when others are added. With two or more subjects each side gets at least one (the smallest or largest
    hash), unless the fraction is 0.
    """
    ranked = sorted((_unit_hash(subject), subject) for subject in set(subjects.values()))
    num_validation = sum(hashed < validation_fraction for hashed, _ in ranked)
    if validation_fraction > 0:
        num_validation = max(num_validation, 1)
    held_out = {subject for _, subject in ranked[: min(num_validation, len(ranked) - 1)]}
    training = (video_id for video_id, subject in subjects.items() if subject not in held_out)
    validation = (video_id for video_id, subject in subjects.items() if subject in held_out)
    return tuple(sorted(training)), tuple(sorted(validation))


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56
