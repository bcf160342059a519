"""A run at a glance, from its folder as it is: in training, ended or damaged; without torch."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from vidlat.checked_settings import LARGE
from vidlat.config import TrainConfig
from vidlat.documents import Fields, read_json
from vidlat.errors import InputError, one_line
from vidlat.store.layout import ROOT
from vidlat.store.storage.filesystem import lock_shared
from vidlat.train.runs.checkpoint_list import last_step
from vidlat.train.runs.evaluation import EVALUATION, EvaluatedSamples, read_evaluation
from vidlat.train.runs.metrics import Metrics
from vidlat.train.runs.presence import RUN_BYTES, is_training

T = TypeVar("T")

State = Literal["running", "done", "stopped early", "stopped", "failed", "damaged"]
"""stopped early: for want of a lower validation loss. stopped: with a checkpoint of its last step. failed:
with later steps than that, or without a checkpoint. damaged: its settings cannot be read.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What the folder of a run tells.

    trains: `diffusion` or `VAE`. step: the last one; steps: as many as are planned, None where that cannot be
    read. settings: of the training, its cache (`cache.size`) and the numbers of its videos. updated: when its
    metrics were last written. problems: what cannot be read, a sentence each.
    """

    run_dir: Path
    trains: str
    state: State
    step: int
    steps: int | None
    settings: Mapping[str, Any]
    metrics: Metrics
    evaluation: Sequence[EvaluatedSamples]
    updated: datetime | None
    problems: Sequence[str]

    @property
    def nearest(self) -> EvaluatedSamples | None:
        """Of the samples that were evaluated, those nearest to held-out clips."""
        return self.evaluation[0] if self.evaluation else None


def find_runs(places: Iterable[Path], show_notice: Callable[[str], None]) -> list[Path]:
    """The folders of runs at and below some places, in order; links are not followed, nor runs entered.

    show_notice: receives a line about a folder that cannot be listed. Raises InputError for a place without.
    """
    found: dict[Path, None] = {}
    for place in places:
        runs = []
        for folder, folders, files in os.walk(place, onerror=lambda error: show_notice(str(error))):
            folders.sort()
            if is_training(folders + files):
                runs.append(Path(folder))
                folders.clear()
            elif ROOT in files:
                folders.clear()
        if not runs:
            raise InputError(
                f"{place}: holds no run; give what `vidlat train --out` named, or a folder around it"
            )
        found |= dict.fromkeys(runs)
    return list(found)


def summarise_run(run_dir: Path) -> RunSummary:
    """Read what a folder tells of its run; what cannot be read is among its problems."""
    problems: list[str] = []

    def known(name: str, read: Callable[[Path], T], otherwise: T) -> T:
        try:
            return read(run_dir)
        except (OSError, ValueError) as error:
            problems.append(f"{run_dir / name} cannot be read: {one_line(error)[:500]}")
        return otherwise

    nothing: dict[str, Any] = {}
    trains, settings = known("config.json", _read_settings, ("diffusion", nothing))
    metrics = known("metrics.jsonl", Metrics.read, Metrics())
    saved = known("checkpoints", lambda folder: last_step(folder / "checkpoints"), 0)
    return RunSummary(
        run_dir=run_dir,
        trains=trains,
        state=_state(run_dir, metrics, saved, settings["steps"]) if settings else "damaged",
        step=max(metrics.last.step if metrics.last else 0, saved),
        steps=settings.get("steps"),
        settings=settings,
        metrics=metrics,
        evaluation=known(str(EVALUATION), read_evaluation, ()),
        updated=_time_of(run_dir),
        problems=problems,
    )


def _read_settings(run_dir: Path) -> tuple[str, dict[str, Any]]:
    """What is trained, and the settings by name, those that an older run does not know by their default.

    Raises OSError or ValueError for what no training has written.
    """
    document = Fields(read_json(run_dir / "config.json", RUN_BYTES), "the run")
    document.fields("config").whole("steps", 1, int(LARGE))
    values = document.take("config", dict, "an object")
    if "trains" in document.names():
        return "VAE", values
    cache, training, validation = document.fields("cache"), *map(document.texts, ("training", "validation"))
    of_cache = cache.take("settings", dict, "an object") | {"vae": cache.text("vae_name")}
    names = zlib.crc32("\n".join(validation).encode("utf-8", "surrogatepass"))
    return "diffusion", {
        "training videos": len(training),
        "held-out videos": f"{len(validation)} ({names:08x})" if validation else "none",
        **TrainConfig().to_dict(),
        **values,
        **{f"cache.{name}": value for name, value in of_cache.items() if name != "encoder_config"},
    }


def _state(run_dir: Path, metrics: Metrics, saved: int, steps: int) -> State:
    """saved: the step of the last checkpoint."""
    if _is_held(run_dir):
        return "running"
    reached = metrics.last.step if metrics.last else 0
    if not saved or reached > saved:
        return "failed"
    if reached >= steps:
        return "done"
    return "stopped early" if metrics.last and metrics.last.stopped_early else "stopped"


def _is_held(run_dir: Path) -> bool:
    """Whether a process trains in a folder; False where that cannot be told."""
    try:
        lock_shared(run_dir / "lock", wait=False).close()
    except BlockingIOError:
        return True
    return False


def _time_of(run_dir: Path) -> datetime | None:
    for name in ("metrics.jsonl", "config.json"):
        try:
            return datetime.fromtimestamp((run_dir / name).stat().st_mtime, UTC)
        except (OSError, ValueError, OverflowError):
            continue
    return None
