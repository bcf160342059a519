"""Experiment trackers, such as W&B or MLflow, to which a training reports besides its own files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidlat.errors import TrainError, one_line
from vidlat.train.event_files import plain

PROJECT = "vidlat"
"""Project or experiment of the runs in a tracker; its own variables, such as WANDB_PROJECT, overrule it."""

PACKAGES = {"comet_ml": "comet-ml"}
"""Of trackers that are installed under another name."""

_RUN_NAME = {"wandb": "name", "mlflow": "run_name", "trackio": "name", "swanlab": "experiment_name"}
"""The argument of each tracker that names a run."""


class Trackers:
    """Those trackers of Hugging Face Accelerate that a training reports its figures and settings to.

    names: as in the settings; TensorBoard's files are `Recorder`'s. run_dir: names the run there, and holds
    the files of trackers that write some. A tracker that fails on the way is left out with a line on stderr.
    Raises TrainError for one that does not start; `require_installed` tells earlier of one that cannot.
    """

    def __init__(self, names: Sequence[str], run_dir: Path, settings: Mapping[str, Any]) -> None:
        self._trackers = {name: _start(name, run_dir, settings) for name in _wanted(names)}

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Report the figures of a step."""
        self._each("log", dict(figures), step=step)

    def close(self) -> None:
        """End the runs there."""
        self._each("finish")
        self._trackers.clear()

    def _each(self, method: str, *arguments: Any, **named: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*arguments, **named)
            except Exception as error:  # of any library, and no reason to end a training
                del self._trackers[name]
                print(f"The training goes on without {name}, which failed: {_why(error)}", file=sys.stderr)


def require_installed(names: Sequence[str]) -> None:
    """Raise TrainError for a tracker that is not installed."""
    if not (wanted := _wanted(names)):
        return
    from accelerate.tracking import get_available_trackers  # takes a second to import

    missing = [name for name in wanted if name not in map(str, get_available_trackers())]
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise TrainError(
            f"tracker: {', '.join(missing)} not installed; install it by `pip install {packages}`"
        )


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != "tensorboard"]


def _start(name: str, run_dir: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # every tracker asks it which process this is
    arguments: dict[str, Any] = {_RUN_NAME[name]: run_dir.name} if name in _RUN_NAME else {}
    if name == "wandb":
        arguments["dir"] = str(run_dir)
    if LOGGER_TYPE_TO_CLASS[name].requires_logging_directory:
        arguments["logging_dir"] = str(run_dir)
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, **arguments)
        tracker.start()
        tracker.store_init_configuration({key: plain(value) for key, value in settings.items()})
    except Exception as error:
        raise TrainError(
            f"tracker: {name} does not start ({_why(error)}); its documentation tells how to use it, offline "
            "too; or leave it out"
        ) from error
    return tracker


def _why(error: Exception) -> str:
    return one_line(error)[:300] or type(error).__name__
