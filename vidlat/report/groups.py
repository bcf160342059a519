"""Which groups of videos, by subject or source folder, have other latents than the rest: drift within a
cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.store.reader import LatentCache
from vidlat.types import hashed_name

FAR = 2.0
"""A group whose shift is so many times what chance makes differs from the rest."""

HASH_LETTERS = 12

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The latents of some videos against those of all.

    shift: distance of the means, in standard deviations of all, as the root mean square over the channels.
    spread: ratio of the standard deviations, as the geometric mean over the channels. chance: the shift that
    so many videos drawn at random would have on the root mean square; 0 for all of them.
    """

    name: str
    num_videos: int
    shift: float
    spread: float
    chance: float

    @property
    def times_chance(self) -> float | None:
        """The shift over what chance makes; None where chance makes none."""
        return self.shift / self.chance if self.chance else None

    @property
    def differs(self) -> bool:
        """Whether that is FAR or more."""
        return (self.times_chance or 0) >= FAR


class _Sums:
    """Of latents, per channel: their number, values and squares, of some videos."""

    def __init__(self, latent_dim: int) -> None:
        self.num_videos, self.count = 0, 0
        self.values, self.squares = np.zeros(latent_dim), np.zeros(latent_dim)

    def add(self, count: int, values: Array, squares: Array) -> None:
        self.num_videos += 1
        self.count += count
        self.values += values
        self.squares += squares

    @property
    def mean(self) -> Array:
        return self.values / self.count

    @property
    def std(self) -> Array:
        return np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 1e-12))


def compare_groups(cache: LatentCache) -> tuple[str, list[Group]]:
    """What videos are grouped by, in words, and each group, the one that differs most first.

    By the recorded subject if any video has one, else by the folder of the source; subjects are hashed where
    the cache hides names, and folders are not known there: then, or without videos, there are no groups.
    Reads records only, a block at a time.
    """
    columns = "latents_count", "latents_sum_mean", "latents_sum_mean_squared"
    latent_dim = cache.schema.latent_dim
    every, of_means = _Sums(latent_dim), _Sums(latent_dim)
    by_name: dict[str, _Sums] = {}
    what, names = _names(cache)
    for name, (count, values, squares) in zip(names, cache.rows(*columns), strict=True):
        sums = count, np.asarray(values), np.asarray(squares)
        every.add(*sums)
        of_means.add(1, sums[1] / count, np.square(sums[1] / count))
        by_name.setdefault(name, _Sums(latent_dim)).add(*sums)
    if not what or not every.num_videos:
        return what, []
    groups = [_group(name, sums, every, of_means.std) for name, sums in by_name.items()]
    return what, sorted(groups, key=lambda group: (-(group.times_chance or 0), group.name))


def _group(name: str, sums: _Sums, every: _Sums, std_of_means: Array) -> Group:
    # The mean of n of N videos drawn without repetition.
    variance = std_of_means**2 / sums.num_videos
    variance *= (every.num_videos - sums.num_videos) / max(every.num_videos - 1, 1)
    return Group(
        name=name,
        num_videos=sums.num_videos,
        shift=float(np.sqrt(np.mean(np.square((sums.mean - every.mean) / every.std)))),
        spread=float(np.exp(np.mean(np.log(sums.std / every.std)))),
        chance=float(np.sqrt(np.mean(variance / every.std**2))),
    )


def _names(cache: LatentCache) -> tuple[str, Iterator[str]]:
    """What the videos are grouped by, and the group of each, in the order of their ids."""
    hides_names = cache.schema.ids == "hash"
    if any(subject for (subject,) in cache.rows("annotation_subject")):
        subjects = (subject for (subject,) in cache.rows("annotation_subject"))
        shown = (
            hashed_name(subject)[:HASH_LETTERS] if hides_names and subject else subject
            for subject in subjects
        )
        return "subject", (name or "(no subject)" for name in shown)
    if hides_names:
        return "", ("" for _ in range(len(cache)))
    folders = [str(Path(path).parent) for (path,) in cache.rows("source_path")]
    top = _common(folders)
    return "source folder", (os.path.relpath(folder, top) for folder in folders)


def _common(folders: list[str]) -> str:
    """The folder above all; one of them where they have none in common."""
    try:
        return os.path.commonpath(set(folders))
    except ValueError:
        return "/"
