"""The checkpoints of a run, by their names, without torch; what is in them is in checkpoint.py."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"step_(\d{8,15})")


def list_checkpoints(directory: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    found = directory.iterdir() if directory.is_dir() else iter(())
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=step_of)


def last_step(directory: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    checkpoints = list_checkpoints(directory)
    return step_of(checkpoints[-1]) if checkpoints else 0


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("step_"))
