"""Several trainings of a VAE beside one another: their weights, and the clips that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.config import Preprocessing
from vidlat.errors import ConfigError, TrainError
from vidlat.fit.learning import LearningCurve
from vidlat.fit.run import WEIGHTS, FitRun, read_fit
from vidlat.paths import local_path
from vidlat.wording import shorten


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    """The runs in some folders. folders, runs: by what each is called, its folder's name where that tells."""

    folders: dict[str, Path]
    runs: dict[str, FitRun]

    @classmethod
    def read(cls, folders: Sequence[str | Path]) -> Trainings:
        """Read runs of `vidlat fit-vae`; raises TrainError for a folder without one, or without weights."""
        paths = [local_path(folder) for folder in dict.fromkeys(folders)]
        names = [path.name if path.name.strip(".") else path.resolve().name for path in paths]
        named = {
            name if names.count(name) == 1 else str(path): path
            for name, path in zip(names, paths, strict=True)
        }
        runs = {name: read_fit(path) for name, path in named.items()}
        for path in named.values():
            if not (path / WEIGHTS).is_file():
                raise TrainError(
                    f"{path} has no weights yet: they come with its first checkpoint; let it go on"
                )
        return cls(folders=named, runs=runs)

    @property
    def weights(self) -> dict[str, str]:
        """The file of each training's averaged weights, by what it is called."""
        return {name: str(folder / WEIGHTS) for name, folder in self.folders.items()}

    @property
    def curves(self) -> list[LearningCurve]:
        """What each has learned, and how soon."""
        return [LearningCurve.of(name, run) for name, run in self.runs.items()]

    def held_out(self) -> frozenset[str]:
        """Ids of the videos that every training holds out; raises TrainError if there is none."""
        shared = frozenset.intersection(*(frozenset(run.validation) for run in self.runs.values()))
        if not shared:
            counts = ", ".join(f"{name} {len(run.validation)}" for name, run in self.runs.items())
            raise TrainError(
                f"no video is held out by every training ({counts}): train them on the same videos with the "
                "same --split-by and --validation-fraction"
            )
        return shared

    def settings(self) -> dict[str, Any]:
        """How all of them prepared frames, and the stacks that they learned, as settings of a comparison.

        Raises ConfigError where they prepared frames in different ways.
        """
        prepared = {name: run.config.select(Preprocessing).to_dict() for name, run in self.runs.items()}
        first_name, first = next(iter(prepared.items()))
        for name, other in prepared.items():
            different = [field for field in first if other[field] != first[field]]
            if different:
                pairs = shorten([f"{field}: {first[field]} and {other[field]}" for field in different])
                raise ConfigError(
                    f"training: {first_name} and {name} saw frames that were prepared in different ways "
                    f"({pairs}); compare trainings of the same frames"
                )
        return first | {"stack": tuple(sorted({run.config.stack or 4 for run in self.runs.values()}))}
