"""What an unfinished fit keeps beside its weights, from which it is continued.

vae.fit/              beside vae.safetensors; removed once the fit is finished
  lock                held while a process fits
  settings.json       the settings, and a hash of the training stacks
  step_00000200/      a checkpoint, see vidlat/train/checkpoint.py
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vidlat.config import FitVAEConfig
from vidlat.documents import Fields, read_json
from vidlat.errors import TrainError, VidlatError, one_line
from vidlat.files import replace_file
from vidlat.store.filesystem import delete_tree, locked
from vidlat.train.checkpoint import (
    TrainState,
    list_checkpoints,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    step_of,
)

MAY_CHANGE = ("device", "save_every", "checkpoint_activations")
"""Settings that a continued fit may change."""

_LOCK = "lock"
_SETTINGS_BYTES = 100_000
_KEPT = 2
"""Checkpoints: should the last one be damaged, there is one before it."""


class UnfinishedFit:
    """The folder of a fit that writes its weights to `out`."""

    def __init__(self, out: Path) -> None:
        self._out, self.folder = out, out.with_suffix(".fit")
        self._document = self.folder / "settings.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from fitting to the same weights.

        Makes the folder, and removes it at the end if no fit was begun. Raises TrainError if another process
        fits to them, or the folder cannot be made.
        """
        lock = ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(locked(self.folder / _LOCK, wait=False))
        except BlockingIOError as error:
            raise TrainError(
                f"another process fits {self._out}; wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise TrainError(
                f"{self.folder}: cannot hold a fit ({one_line(error)}); choose another --out"
            ) from error
        with lock:
            try:
                yield
            finally:
                if not self._document.exists():
                    delete_tree(self.folder)

    def require_none(self) -> None:
        """Raise TrainError if there is an earlier fit, finished or not: it would be overwritten."""
        if self._document.exists() and list_checkpoints(self.folder):
            raise TrainError(
                f"{self.folder} holds an unfinished fit; continue it with --resume, remove that folder, "
                "or choose another --out"
            )
        if self._out.exists():
            raise TrainError(
                f"{self._out} is there already, and caches made with it need it; choose another --out, or "
                "remove it"
            )

    def read_settings(self) -> FitVAEConfig:
        """The settings it was started with; raises TrainError if there is none."""
        return self._read()[0]

    def continued_with(self, settings: FitVAEConfig) -> FitVAEConfig:
        """The settings to continue with; `auto` precision means that of the start.

        Raises TrainError if there is nothing to continue, or if settings other than `MAY_CHANGE` differ.
        """
        started = self.read_settings()
        if settings.precision == "auto":
            settings = dataclasses.replace(settings, precision=started.precision)
        before, now = started.to_dict(), settings.to_dict()
        changed = [name for name in now if now[name] != before[name] and name not in MAY_CHANGE]
        if changed:
            pairs = "; ".join(f"{name}: got {now[name]}, it has {before[name]}" for name in changed)
            raise TrainError(f"{self._out} cannot be continued with other settings ({pairs})")
        return settings

    def last_step(self) -> int | None:
        """The number of steps that its last checkpoint has taken; None without one, as of a finished fit."""
        checkpoints = list_checkpoints(self.folder)
        return step_of(checkpoints[-1]) if checkpoints else None

    def start(self, settings: FitVAEConfig, stacks_hash: str) -> None:
        """Make the folder, over the remains of a fit without a checkpoint; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                delete_tree(path)
        document = {"settings": settings.to_dict(), "stacks": stacks_hash}
        replace_file(self._document, (json.dumps(document, indent=2) + "\n").encode())

    def load(self, state: TrainState, stacks_hash: str) -> None:
        """Load the last checkpoint into a newly built state; without one it stays as it is.

        Raises TrainError if the stacks are others than at the start, or the checkpoint is damaged.
        """
        if stacks_hash != self._read()[1]:
            raise TrainError(
                f"{self._out} cannot be continued: the videos give other training stacks than those it was "
                f"started with; give the same --input, or remove {self.folder} to start anew"
            )
        remove_partial_checkpoints(self.folder)
        if checkpoints := list_checkpoints(self.folder):
            load_checkpoint(checkpoints[-1], state)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, whole or not at all; raises TrainError."""
        save_checkpoint(self.folder, state, keep=_KEPT)

    def remove(self) -> None:
        """Remove the folder; without the document, which goes first, it holds nothing to continue."""
        self._document.unlink()
        delete_tree(self.folder)

    def _read(self) -> tuple[FitVAEConfig, str]:
        try:
            fields = Fields(read_json(self._document, _SETTINGS_BYTES), self._document.name)
            settings = fields.take("settings", dict, "an object")
            return FitVAEConfig.from_mapping(settings), fields.text("stacks")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TrainError(f"{self._out}: no unfinished fit in {self.folder} to resume") from error
        except (OSError, ValueError, VidlatError) as error:
            raise TrainError(
                f"{self._document} cannot be read as a fit's settings: {one_line(error)[:500]}; remove "
                f"{self.folder} to start anew"
            ) from error
