"""Dividing subjects into parts for training, validation and test, with a label spread evenly."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from vidlat.config import SplitConfig
from vidlat.errors import ConfigError
from vidlat.labels.matching import match_labels
from vidlat.labels.split import require_whole_subjects
from vidlat.labels.split_file import PARTS, Placed
from vidlat.labels.subjects import label_names, label_of, subjects_of
from vidlat.types import Annotation, Source
from vidlat.wording import format_count

USUAL = 0.8, 0.1, 0.1
"""Shares of the parts where none are given."""

NUM_QUANTILES = 5
"""Parts of the range of a number, each with as many subjects, that are spread over the parts of a split."""


def place_videos(
    sources: Mapping[str, Source],
    annotations: Mapping[str, Annotation],
    settings: SplitConfig,
    rows: Mapping[str, Annotation],
) -> tuple[dict[str, Placed], set[str]]:
    """The subject and part of each video, by video_id, and the ids of those that `rows` say nothing of.

    rows: of the file that is extended, see `read_split_rows`; none for a new split. Their videos stay where
    they are, and a new video of a subject that is there joins it, whatever it is called now. The other
    subjects are ordered by a hash of seed and name, so that the same settings give the same split.
    Raises ConfigError as `subjects_of`, for a label that there is not, for fewer subjects than parts, and for
    a subject that is in two parts already.
    """
    told = match_labels(rows, sources, is_part=True, table="split").rows
    known = {
        id: Annotation(told[id].subject if id in told else "").updated(annotations.get(id, Annotation()))
        for id in sources
    }
    subjects = subjects_of(sources, known, settings.by, settings.by_pattern, settings=("by", "by_pattern"))
    parts = {id: row.labels["split"] for id, row in told.items()}
    require_whole_subjects(parts, {id: subjects[id] for id in parts}, "the file")
    placed = {row.subject: row.labels["split"] for row in rows.values() if row.subject}
    placed |= {subjects[id]: part for id, part in parts.items()}
    new = set(subjects.values()) - placed.keys()
    strata = _strata(subjects, known, settings.stratify)
    placed |= _assign({subject: strata[subject] for subject in new}, settings, Counter(placed.values()))
    found = {id: Placed(subject, placed[subject]) for id, subject in subjects.items()}
    return found, found.keys() - told.keys()


def numbers_in(texts: Iterable[str]) -> list[float] | None:
    """The numbers that texts are; None where one is none."""
    with suppress(ValueError):
        numbers = [float(text) for text in texts]
        return numbers if all(map(math.isfinite, numbers)) else None
    return None


def _strata(
    subjects: Mapping[str, str], annotations: Mapping[str, Annotation], label: str | None
) -> dict[str, str | int]:
    """What is to be spread evenly: the commonest text of a subject's label, or the quantile of its mean.

    Subjects without the label are a stratum of their own.
    """
    if label is None:
        return dict.fromkeys(subjects.values(), 0)
    if label not in (names := label_names(annotations.values())):
        raise ConfigError(
            f"stratify: {label!r} is no label of the videos; there are {', '.join(names) or 'none'}"
        )
    texts: dict[str, list[str]] = {subject: [] for subject in subjects.values()}
    for video_id, subject in subjects.items():
        if text := label_of(annotations[video_id], label):
            texts[subject].append(text)
    every = {text for of_subject in texts.values() for text in of_subject}
    if numbers_in(every) is None or len(every) <= NUM_QUANTILES:
        return {
            subject: min(each, key=lambda text: (-each.count(text), text), default="")
            for subject, each in texts.items()
        }
    means = {subject: np.mean([float(text) for text in each]) for subject, each in texts.items() if each}
    bounds = np.quantile([*means.values()], np.arange(1, NUM_QUANTILES) / NUM_QUANTILES)
    return {
        subject: int(np.searchsorted(bounds, means[subject])) if subject in means else -1 for subject in texts
    }


def _assign(strata: Mapping[str, str | int], settings: SplitConfig, taken: Counter[str]) -> dict[str, str]:
    """A part for each subject: the one that is furthest behind its share of the subjects so far."""
    order = sorted(strata, key=lambda subject: (strata[subject], _hash(settings.seed, subject)))
    total, counts = taken.total() + len(order), Counter(taken)
    if not order:
        return {}
    of_file = [counts[part] / taken.total() for part in PARTS] if taken else USUAL
    shares = _shares(total, settings.fractions or of_file)
    parts = {}
    for number, subject in enumerate(order, taken.total() + 1):
        behind = {
            part: shares[part] * number / total - counts[part]
            for part in PARTS
            if counts[part] < shares[part]
        }
        parts[subject] = max(behind, key=behind.__getitem__)
        counts[parts[subject]] += 1
    return parts


def _shares(total: int, fractions: Sequence[float]) -> dict[str, int]:
    """How many of the subjects come into each part: at least one where its fraction is not 0."""
    wanted = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction]
    if total < len(wanted):
        raise ConfigError(
            f"fractions: {format_count(total, 'subject')} cannot be in {len(wanted)} parts; say by --by "
            "what a subject is, or ask for fewer parts, such as --fractions 0.8,0.2,0"
        )
    exact = {part: total * fraction for part, fraction in zip(PARTS, fractions, strict=True)}
    shares = {part: math.floor(number) for part, number in exact.items()}
    for part in sorted(PARTS, key=lambda part: shares[part] - exact[part])[: total - sum(shares.values())]:
        shares[part] += 1
    for part in wanted:
        if not shares[part]:
            shares[max(PARTS, key=shares.__getitem__)] -= 1
            shares[part] = 1
    return shares


def _hash(seed: int, subject: str) -> str:
    return hashlib.sha256(f"{seed} {subject}".encode()).hexdigest()
