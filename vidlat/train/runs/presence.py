"""Whether a folder holds a run that can be used or resumed, asked without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from vidlat.checked_settings import Config
from vidlat.config import TrainConfig
from vidlat.config.train import MAY_CHANGE
from vidlat.documents import read_json
from vidlat.errors import TrainError, VidlatError
from vidlat.store.layout import ROOT
from vidlat.wording import shorten

RUN_BYTES = 2**30
"""Most bytes of a config.json: a run on a million videos has a quarter of them."""

SIGNS = {"config.json", "metrics.jsonl", "checkpoints", "lock"}
"""What every training writes into its folder; two of these make a run."""


def is_training(names: Iterable[str]) -> bool:
    """Whether the names in a folder are those of a training, and not of a cache."""
    names = set(names)
    return ROOT not in names and len(names & SIGNS) > 1


def holds_training(folder: Path) -> bool:
    """Whether a folder is that of a training; raises OSError where it cannot be listed."""
    return is_training(path.name for path in folder.iterdir())


def require_run(run_dir: Path) -> None:
    """Raise TrainError for a folder without a config.json, which is no run, OSError if nobody can tell."""
    try:
        (run_dir / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainError(f"{run_dir} is not a run: {_found_instead(run_dir)}") from error


def _found_instead(folder: Path) -> str:
    if not folder.is_dir():
        return "there is no such folder; start one with `vidlat train`"
    if (folder / ROOT).exists():
        return "it is a cache; give a run"
    below = sorted(path.parent for path in folder.glob("*/config.json"))
    if runs := [str(path) for path in below if holds_training(path)]:
        return f"give one of those in it: {shorten(runs, 3)}"
    return "it has no config.json; start one with `vidlat train`"


def require_resumable(run_dir: Path, given: Mapping[str, Any]) -> None:
    """Raise TrainError for what is no run, or has other settings than those given; read_run tells more."""
    require_run(run_dir)
    try:
        before = TrainConfig.from_mapping(read_json(run_dir / "config.json", RUN_BYTES)["config"])
        now = TrainConfig.from_mapping(before.to_dict() | dict(given))
    except (OSError, ValueError, KeyError, TypeError, VidlatError):
        return
    require_same_settings(run_dir, before, now)


def require_same_settings(run_dir: Path, before: TrainConfig, now: TrainConfig) -> None:
    """Raise TrainError, naming them, for settings of a resumed run that differ and must not."""
    may_change = (*MAY_CHANGE, "distil") if before.distil and now.distil else MAY_CHANGE
    require_unchanged(run_dir, before, now, may_change)


def require_unchanged(
    run_dir: Path, before: Config, now: Config, may_change: Collection[str], way_out: str = ""
) -> None:
    """Raise TrainError, naming them, for settings that differ between two configs of a class and must not."""
    was, wanted = before.to_dict(), now.to_dict()
    changed = [name for name in wanted if wanted[name] != was[name] and name not in may_change]
    if changed:
        pairs = "; ".join(f"{name}: got {wanted[name]}, the run has {was[name]}" for name in changed)
        raise TrainError(
            f"{run_dir} cannot be resumed with other settings ({pairs}); choose another --out{way_out}"
        )
