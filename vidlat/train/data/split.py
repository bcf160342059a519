"""Which videos are trained on and which are held out: by subject, so that no subject is on both sides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from vidlat.errors import ConfigError, TrainError
from vidlat.store.reader import LatentCache
from vidlat.train.data.latents import Whitening
from vidlat.train.data.nearest import NearestRows
from vidlat.types import Annotation, Source, VideoRecord, source_id

NEAR = 0.2
"""Root mean square difference of whitened latents below which two videos count as copies of each other.

Among 57 lung and heart clips, copies in ten codecs differ by at most 0.013, a copy with a misread range of
gray levels by 0.14, and any two other clips by at least 0.33.
"""

SIGNATURE_FRAMES, SIGNATURE_SIDE = 4, 16
READ_AT_ONCE = 512

SIDES = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a label that tells the split of a data set may say, in lower case, and what it means."""


def stated_split(
    annotations: Mapping[str, Annotation], split_by: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Training and validation videos, each sorted, as the label `split_by` states them.

    Videos for testing are on neither side. None where that is no such label: all videos that have it are said
    to be for training, or some other thing is said and nothing to be for training. Raises TrainError where
    some videos have no or another value, or none is for training.
    """
    stated = {
        video_id: "" if split_by is None else annotation.labels.get(split_by, "")
        for video_id, annotation in annotations.items()
    }
    sides = {video_id: SIDES.get(text.lower(), "") for video_id, text in stated.items()}
    said, others = set(sides.values()) - {""}, [video_id for video_id, side in sides.items() if not side]
    trains = "training" in said
    if said <= {"training"} or not (trains or all(stated[video_id] == "" for video_id in others)):
        return None
    if others:
        raise TrainError(
            f"split_by: label {split_by!r} tells a split, but of {len(others)} of {len(stated)} videos it is "
            f"{stated[others[0]]!r} ({', '.join(others[:5])}); expected train, val or test for every video"
        )
    if not trains:
        raise TrainError(
            f"split_by: label {split_by!r} tells a split, but of all {len(stated)} videos it is "
            f"{', '.join(sorted(set(stated.values())))}; expected train for those to train on, or choose a "
            "label that tells subjects"
        )
    training, validation = (
        sorted(video_id for video_id, side in sides.items() if side == wanted)
        for wanted in ("training", "validation")
    )
    return tuple(training), tuple(validation)


def subjects_of(
    sources: Mapping[str, Source], annotations: Mapping[str, Annotation], split_by: str | None
) -> dict[str, str]:
    """The subject of each video, by video_id.

    split_by: "subject", the name of a label, or a regular expression for video ids; None for the recorded
    subject, or the source, of which parts, stretches of time and copies have one subject. Raises TrainError
    for videos without that label or match, ConfigError for an invalid expression.
    """
    known = {video_id: annotations.get(video_id, Annotation("", {})) for video_id in sources}
    if split_by is None:
        names = _names_of_sources(sources)
        subjects = {names[video_id]: known[video_id].subject for video_id in known if known[video_id].subject}
        return {
            video_id: annotation.subject or subjects.get(names[video_id], names[video_id])
            for video_id, annotation in known.items()
        }
    found = {
        video_id: annotation.subject if split_by == "subject" else annotation.labels.get(split_by, "")
        for video_id, annotation in known.items()
    }
    if split_by == "subject" or any(found.values()):
        return _require_all(found, f"label {split_by!r}")
    try:
        pattern = re.compile(split_by)
    except re.error as error:
        raise ConfigError(
            f"split_by: got {split_by!r}; expected a label or a regular expression ({error})"
        ) from error
    matches = {video_id: pattern.search(video_id) for video_id in known}
    found = {
        video_id: (match.group(1 if pattern.groups else 0) or "") if match else ""
        for video_id, match in matches.items()
    }
    return _require_all(found, f"match of {split_by!r} (and no video has a label of that name)")


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


def _require_all(subjects: dict[str, str], what: str) -> dict[str, str]:
    without = [video_id for video_id, subject in subjects.items() if not subject]
    if without:
        raise TrainError(
            f"split_by: {len(without)} of {len(subjects)} videos have no {what}: "
            f"{', '.join(without[:5])}; choose something that every video has"
        )
    return subjects


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


def _unit_hash(subject: str) -> float:
    return int.from_bytes(hashlib.sha256(subject.encode()).digest()[:7], "big") / 2**56


def near_duplicates(
    cache: LatentCache,
    training: Sequence[VideoRecord],
    validation: Sequence[VideoRecord],
    whitening: Whitening,
) -> list[tuple[str, str]]:
    """Pairs of a validation video and the nearest training video, if their starts are nearly the same.

    Compares the posterior means of the first frames, averaged over time and to at most 16 x 16 positions.
    Reads one window per video.
    """
    if not training or not validation:
        return []
    search = NearestRows(torch.cat(list(_signatures(cache, validation, whitening))))
    for signatures in _signatures(cache, training, whitening):
        search.add(signatures)
    mean_squared = search.squared / signatures.shape[1]
    return [
        (validation[row].video_id, training[int(search.index[row])].video_id)
        for row in (mean_squared < NEAR**2).nonzero().flatten().tolist()
    ]


def _signatures(
    cache: LatentCache, records: Sequence[VideoRecord], whitening: Whitening
) -> Iterator[torch.Tensor]:
    """Blocks (N, L * h * w) float32, one row per video."""
    starts = np.array([record.start for record in records])
    for first in range(0, len(starts), READ_AT_ONCE):
        mean, _ = cache.read_windows(starts[first : first + READ_AT_ONCE], SIGNATURE_FRAMES, with_std=False)
        still = whitening.whiten(torch.from_numpy(mean).float()).mean(2)
        side = -(-max(still.shape[2:]) // SIGNATURE_SIDE)
        yield functional.avg_pool2d(still, side).flatten(1)
