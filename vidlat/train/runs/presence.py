"""Whether a folder holds a run that can be used or resumed, asked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidlat.config import TrainConfig
from vidlat.config.train import MAY_CHANGE
from vidlat.documents import read_json
from vidlat.errors import TrainError, VidlatError

RUN_BYTES = 2**30
"""Most bytes of a config.json: a run on a million videos has a quarter of them."""


def require_run(run_dir: Path) -> None:
    """Raise TrainError for a folder without a config.json, which is no run, OSError if nobody can tell."""
    try:
        (run_dir / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "it has no config.json" if run_dir.is_dir() else "there is no such folder"
        raise TrainError(f"{run_dir} is not a run: {what}; start one with `vidlat train`") from error


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
    was, wanted = before.to_dict(), now.to_dict()
    may_change = (*MAY_CHANGE, "distil") if before.distil and now.distil else MAY_CHANGE
    changed = [name for name in wanted if wanted[name] != was[name] and name not in may_change]
    if changed:
        pairs = "; ".join(f"{name}: got {wanted[name]}, the run has {was[name]}" for name in changed)
        raise TrainError(f"{run_dir} cannot be resumed with other settings ({pairs}); choose another --out")
