"""Whether a folder holds a run, asked without torch."""

from __future__ import annotations

from pathlib import Path

from vidlat.errors import TrainError


def require_run(run_dir: Path) -> None:
    """Raise TrainError for a folder without a config.json, which is no run, OSError if nobody can tell."""
    try:
        (run_dir / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainError(
            f"{run_dir} is not a run: it has no config.json; start one with `vidlat train`"
        ) from error
