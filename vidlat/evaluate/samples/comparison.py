"""A set of clips against held-out real ones: distances, motion, sharpness, diversity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidlat.evaluate.samples.measuring import LATENTS, MeasuredClips
from vidlat.metrics.diversity import DiversityRatio
from vidlat.metrics.features import Features
from vidlat.metrics.frechet import FrechetDistance, PrincipalComponents
from vidlat.metrics.intervals import Estimate, estimate, ratio_of_means
from vidlat.metrics.kernel_distance import KernelDistance, KernelExcess
from vidlat.metrics.neighbourhoods import Neighbourhoods, neighbourhoods
from vidlat.metrics.standardisation import Standardisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """How far a set is from the reference in one kind of features.

    excess: its kernel distance less that of the training clips. diversity: over the reference's.
    """

    kernel: Estimate
    excess: Estimate
    frechet: Estimate
    neighbourhoods: Neighbourhoods | None
    diversity: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kernel_distance": self.kernel.to_dict(),
            "excess_over_real": self.excess.to_dict(),
            "frechet_distance": self.frechet.to_dict(),
            "neighbourhoods": self.neighbourhoods.to_dict() if self.neighbourhoods else None,
            "diversity": self.diversity.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one set. distances: by the name of the features.

    inside, at_borders, sharpness, bands: energies per clip over those of the reference, see `FrameFigures`.
    """

    num_clips: int
    num_groups: int
    distances: Mapping[str, Distances]
    inside: Estimate
    at_borders: Estimate
    sharpness: Estimate
    bands: tuple[Estimate, ...]

    @property
    def diversity(self) -> Estimate:
        """In the features of latents."""
        return self.distances[LATENTS].diversity

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "num_clips": self.num_clips,
            "num_groups": self.num_groups,
            "distances": {name: each.to_dict() for name, each in self.distances.items()},
            "motion_inside": self.inside.to_dict(),
            "motion_at_borders": self.at_borders.to_dict(),
            "sharpness": self.sharpness.to_dict(),
            "bands": [band.to_dict() for band in self.bands],
        }


class Reference:
    """Held-out clips, which all sets are compared with, and the scales of features.

    training: clips whose features have mean 0 and spread 1 after standardisation, and whose principal
    components the Fréchet distance is computed in. num_clips: the least number in any set.
    """

    def __init__(self, held_out: MeasuredClips, training: MeasuredClips, num_clips: int) -> None:
        self.held_out, self._training = held_out, training
        self._scales = {
            name: Standardisation.fit(features.values) for name, features in training.features.items()
        }
        self._components = {
            name: PrincipalComponents.fit(scale(training.features[name].values), num_clips)
            for name, scale in self._scales.items()
        }

    def standardised(self, clips: MeasuredClips, name: str = LATENTS) -> Features:
        """Features of clips, in units of the training clips' spread."""
        features = clips.features[name]
        return features.with_values(self._scales[name](features.values))

    def compare(self, clips: MeasuredClips) -> Row:
        """The row of a set of clips."""

        def over_reference(name: str) -> Estimate:
            return self._ratio(clips, clips.column(name), self.held_out.column(name))

        bands, real_bands = clips.bands(), self.held_out.bands()
        return Row(
            num_clips=len(clips),
            num_groups=clips.num_groups,
            distances={name: self._distances(clips, name) for name in self._scales},
            inside=over_reference("inside"),
            at_borders=over_reference("at_borders"),
            sharpness=over_reference("detail"),
            bands=tuple(
                self._ratio(clips, bands[:, band], real_bands[:, band]) for band in range(bands.shape[1])
            ),
        )

    def _ratio(self, clips: MeasuredClips, values: Any, real_values: Any) -> Estimate:
        one, other = clips.features[LATENTS], self.held_out.features[LATENTS]
        return estimate(ratio_of_means(values, real_values), one, other, is_positive=True)

    def _distances(self, clips: MeasuredClips, name: str) -> Distances:
        ours, real = self.standardised(clips, name), self.standardised(self.held_out, name)
        components = self._components[name]
        frechet = Estimate(value=None)
        if components:
            low, real_low = (each.with_values(components(each.values)) for each in (ours, real))
            frechet = estimate(FrechetDistance(low, real_low), low, real_low, is_positive=True)
        return Distances(
            kernel=estimate(KernelDistance(ours, real), ours, real),
            excess=self._excess(clips, name),
            frechet=frechet,
            neighbourhoods=neighbourhoods(real, ours),
            diversity=estimate(DiversityRatio(ours, real), ours, real, is_positive=True),
        )

    def _excess(self, clips: MeasuredClips, name: str) -> Estimate:
        if clips is self._training:
            return Estimate(value=None)
        sets = [self.standardised(each, name) for each in (clips, self._training, self.held_out)]
        return estimate(KernelExcess(*sets), *sets)
