"""Whether a folder holds a run, asked without torch."""

from __future__ import annotations

from pathlib import Path

from vidlat.errors import TrainError


def require_run(run_dir: Path) -> None:
    """Raise TrainError for a folder without a config.json, which is no run, OSError if nobody can tell."""
    try:
        (run_dir / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "it has no config.json" if run_dir.is_dir() else "there is no such folder"
        raise TrainError(f"{run_dir} is not a run: {what}; start one with `vidlat train`") from error
