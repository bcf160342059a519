"""The result of an evaluation of samples, as plain values and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vidlat
from vidlat.copies.result import Copies
from vidlat.evaluate.samples.adherence import Adherence
from vidlat.evaluate.samples.comparison import Row
from vidlat.evaluate.samples.measuring import LATENTS
from vidlat.metrics.frechet import LEAST_ITEMS
from vidlat.metrics.intervals import in_figures
from vidlat.metrics.neighbourhoods import NUM_NEIGHBOURS
from vidlat.wording import format_count, shorten

HELD_OUT, REAL, STILL, NOISE = "held-out clips", "real against real", "standing still", "noise"
"""The reference, and the rows that are no samples: training clips, the same without motion, and noise."""

FEW_SUBJECTS = 10
"""With fewer subjects on a side, another draw of subjects may give quite another figure."""

NOISE_SHARE = 0.5
"""Where noise has this share of the precision or coverage of real clips, the two say nothing of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedFeatures:
    """Features that were compared. sha256, takes: of a network's file, and its input; empty for latents."""

    name: str
    sha256: str = ""
    takes: str = ""


def held_out_in_words(
    num_clips: int, num_subjects: int, settings: Mapping[str, Any], num_videos: int | None = None
) -> str:
    """How many clips samples were compared with, of how many videos, and whose; settings: of the evaluation.

    Clips of the test videos are held out too; their subjects are called test subjects. num_videos: None where
    it is not known; told where several clips are of one video.
    """
    which = "test " * (settings.get("held_out") == "test")
    clips, subjects = (
        format_count(number, noun)
        for number, noun in ((num_clips, "held-out clip"), (num_subjects, f"{which}subject"))
    )
    several = num_videos is not None and num_videos < num_clips
    windows = f" (windows of {format_count(num_videos or 0, 'video')})" * several
    return f"{clips}{windows} of {subjects}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEvaluation:
    """Everything that was found about the samples of a run, or of a folder.

    settings: of the evaluation. rows: by name, the sets of samples first. bands: temporal frequencies, in
    words. adherence: by condition, then by row. drawn, seconds: by the name of a set of samples, how it was
    drawn and how long one took. held_out: numbers of clips and subjects of the reference. num_videos: of
    those that its clips are windows of. left_out: held-out videos that nearly equal a training video. copies:
    of training clips, by the name of a set of samples; empty where it is not known what was trained on.
    differing: how the samples of a folder differ, in words. damaged: by id, what is wrong with the videos
    that were left out for it.
    """

    settings: dict[str, Any]
    run: dict[str, Any]
    features: Sequence[UsedFeatures]
    held_out: tuple[int, int]
    num_videos: int
    rows: Mapping[str, Row]
    bands: Sequence[str]
    adherence: Mapping[str, Mapping[str, Adherence]]
    drawn: Mapping[str, dict[str, Any]]
    seconds: Mapping[str, float | None]
    left_out: Sequence[str]
    copies: Mapping[str, Copies]
    differing: str = ""
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def held_out_in_words(self) -> str:
        """Such as `24 held-out clips (windows of 18 videos) of 15 subjects`."""
        return held_out_in_words(*self.held_out, self.settings, self.num_videos)

    @property
    def samples(self) -> dict[str, Row]:
        """The rows of samples."""
        return {name: row for name, row in self.rows.items() if name in self.drawn}

    def way_to_noise(self, name: str) -> float | None:
        """How far a row is on the way from real clips (0) to noise (1), by the kernel distance of latents.

        None where one of the distances cannot be told, or noise is no farther than real clips.
        """
        distance, real, noise = (
            self.rows[row].distances[LATENTS].kernel.value for row in (name, REAL, NOISE)
        )
        if distance is None or real is None or noise is None or noise <= real:
            return None
        return (distance - real) / (noise - real)

    def missing_distances(self, features: str) -> str:
        """Why distances in some features are missing, and what they take; empty where there are all."""
        found = [row.distances[features] for row in self.rows.values()]
        kernel = "a KID takes clips of at least 2 subjects in each set"
        frechet = f"a Fréchet distance at least {LEAST_ITEMS} clips"
        reasons = [kernel] if any(each.kernel.value is None for each in found) else []
        reasons += [frechet] if any(each.frechet.value is None for each in found) else []
        return self._missing(" and ".join(reasons)) if reasons else ""

    def missing_neighbours(self, features: str) -> str:
        """The same of what lies in neighbourhoods."""
        are_there = [bool(row.distances[features].neighbourhoods) for row in self.rows.values()]
        if all(are_there):
            return ""
        return self._missing(
            f"neighbours take at least {NUM_NEIGHBOURS + 1} clips in each set, and for each of them "
            f"{NUM_NEIGHBOURS} clips of other subjects",
            "figure (-)" if any(are_there) else "precision, recall, density or coverage",
        )

    def _missing(self, reason: str, what: str = "figure (-)") -> str:
        clips = min(self.held_out[0], *(row.num_clips for row in self.rows.values()))
        subjects = min(self.held_out[1], *(row.num_groups for row in self.rows.values()))
        got = f"{format_count(clips, 'clip')} of {format_count(subjects, 'subject')}"
        return f"No {what}: {reason}; of the sets here the least has {got}."

    def conclusions(self) -> list[str]:
        """What the figures say, a sentence per set of samples, and what they cannot say."""
        of_copies = [f"{name}: {copies.conclusion()}" for name, copies in self.copies.items()]
        return [*map(self._conclusion, self.samples), *of_copies, *self._warnings()]

    def _conclusion(self, name: str) -> str:
        distances = self.rows[name].distances[LATENTS]
        real, found, excess = self.rows[REAL].distances[LATENTS].kernel, distances.kernel, distances.excess
        if found.value is None or real.low is None or real.high is None or excess.value is None:
            return f"{name}: whether they are as good as real clips cannot be told: too few subjects."
        where = "within" if real.holds(found.value) else "below" if found.value < real.low else "above"
        few = ", which so few subjects leave wide" if where == "within" and self._few_subjects() else ""
        way = self.way_to_noise(name)
        share = "" if way is None else f"; it is {way:.1%} of the way from there to noise"
        chance = ", which may be chance" if excess.holds(0) else ""
        difference = f"differs from its value by {excess.in_words(1000)}{chance}"
        return (
            f"{name}: KID x 1000 is {where} the interval of real against real{few}, and {difference}{share}."
        )

    def _few_subjects(self) -> dict[str, int]:
        """Sides of the split that have fewer than FEW_SUBJECTS, and how many they have."""
        subjects = {"held-out": self.held_out[1], "training": self.rows[REAL].num_groups}
        return {side: number for side, number in subjects.items() if number < FEW_SUBJECTS}

    def doubts(self) -> list[str]:
        """The conclusions that question all figures, a sentence each."""
        doubts = []
        if self.differing:
            doubts.append(f"Measured as one set, though drawn in different ways: {self.differing}.")
        for side, number in self._few_subjects().items():
            counted = f"{format_count(number, 'subject')} among the {side} clips that are compared"
            doubts.append(
                f"Only {counted}: with other subjects all figures could be quite different, even those of "
                "real against real."
            )
        return doubts

    def _warnings(self) -> list[str]:
        warnings = self.doubts()
        if self.left_out:
            warnings.append(f"Left out, being nearly equal to training videos: {shorten(self.left_out)}.")
        if self.damaged:
            warnings.append(f"Left out, being damaged: {shorten(list(self.damaged))}.")
        warnings += self._blind_features()
        for copies in list(self.copies.values())[:1]:  # held-out clips are the same for all
            warnings += copies.warnings()
        for condition, rows in self.adherence.items():
            warnings += self._warnings_of(condition, rows)
        numbers = {row.num_clips for row in self.rows.values()} | {self.held_out[0]}
        if len(numbers) > 1:
            warnings.append(
                f"The sets hold {min(numbers)} to {max(numbers)} clips: compare the Fréchet distance, "
                "density and coverage of sets of equal size alone."
            )
        return warnings

    def _warnings_of(self, condition: str, rows: Mapping[str, Adherence]) -> list[str]:
        """What the figures of one condition cannot say, and which sets of samples have none."""
        real, warnings = rows.get(HELD_OUT), []
        if real and real.error.value is not None and real.error.value >= real.constant_error:
            meaning = (
                ", so what is read from samples tells how like training clips they are, not whether they "
                "show it"
            )
            are_read = any(name in rows for name in self.samples)
            warnings.append(
                f"{condition}: is read from held-out clips no better than by a constant{meaning * are_read}."
            )
        if real and (absent := [name for name in self.samples if name not in rows]):
            warnings.append(
                f"{condition}: no row for {'; '.join(absent)}, as no value that they were drawn with is "
                "recorded."
            )
        return warnings

    def _blind_features(self) -> list[str]:
        """Features by which noise lies among held-out clips about as much as real clips do: a sentence each.

        So it is with few clips, where the ball as far as the fifth neighbour holds nearly everything.
        """
        sentences = []
        for used in self.features:
            real, noise = (self.rows[name].distances[used.name].neighbourhoods for name in (REAL, NOISE))
            if real is None or noise is None:
                continue
            pairs = {
                "precision": (noise.precision.value, real.precision.value),
                "coverage": (noise.coverage.value, real.coverage.value),
            }
            told = [
                f"{name} {in_figures(of_noise)} (real against real {in_figures(of_real)})"
                for name, (of_noise, of_real) in pairs.items()
                if of_noise is not None and of_real is not None and of_noise >= NOISE_SHARE * of_real
            ]
            if told:
                what = "the VAE's latents" if used.name == LATENTS else Path(used.name).name
                sentences.append(
                    f"Precision, recall, density and coverage in {what} say little of samples, since even "
                    f"noise has {' and '.join(told)}: too few clips, or features that do not see it."
                )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "vidlat_version": vidlat.__version__,
            "settings": self.settings,
            "run": self.run,
            "features": [
                {"name": each.name, "sha256": each.sha256, "takes": each.takes} for each in self.features
            ],
            "held_out": {
                "num_clips": self.held_out[0],
                "num_groups": self.held_out[1],
                "num_videos": self.num_videos,
            },
            "left_out": list(self.left_out),
            "damaged": dict(self.damaged),
            "rows": {name: row.to_dict() for name, row in self.rows.items()},
            "bands": list(self.bands),
            "way_to_noise": {name: self.way_to_noise(name) for name in self.samples},
            "adherence": {
                condition: {name: each.to_dict() for name, each in rows.items()}
                for condition, rows in self.adherence.items()
            },
            "samples": {
                name: {"drawn": self.drawn[name], "seconds_per_clip": self.seconds[name]}
                for name in self.samples
            },
            "copies": {name: copies.to_dict() for name, copies in self.copies.items()},
            "conclusions": self.conclusions(),
        }
