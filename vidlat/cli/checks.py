"""Checks that what a command line names exists, made before the command loads torch, MONAI or Dask.

Each check takes a value, raises a VidlatError for one that cannot be used, and imports what it needs itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from vidlat.errors import ConfigError, InputError, WeightsError
from vidlat.paths import is_address, local_path

Check = Callable[[Any], None]
Callback = Callable[[click.Context, click.Parameter, Any], Any]


_TO_DO = f"{__name__}.to_do"


def checked(check: Check) -> Callback:
    """The callback of an option or argument whose value, or each of its values, is to pass a check."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:  # noqa: ARG001
        values = value if isinstance(value, tuple) else (value,)
        later = [partial(check, each) for each in values if each is not None]
        ctx.meta.setdefault(_TO_DO, []).extend(later)
        return value

    return callback


def make_checks(ctx: click.Context) -> None:
    """Make the checks of a command's values, in their order: all flags are known to be right by now."""
    for check in ctx.meta.get(_TO_DO, ()):
        check()


def written_as(suffix: str) -> Callback:
    """The callback of a path to write, of one suffix: a clip of that name would be replaced."""

    def callback(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:  # noqa: ARG001
        if path and path.suffix.lower() != suffix:
            raise ConfigError(f"{param.opts[0]} {path}: is written as {suffix}; give such a name")
        return path

    return callback


def require_cache(where: Path | str) -> None:
    """Refuse what is no cache on this machine; what lies at an address is asked for once, by the body."""
    from vidlat.store.metadata import read_schema
    from vidlat.store.storage.opening import cache_storage, require_address

    if is_address(where):
        require_address(str(where))
    else:
        _refuse_run(local_path(where))
        read_schema(cache_storage(where))


def _refuse_run(folder: Path) -> None:
    from vidlat.train.runs.presence import holds_training

    with suppress(OSError):  # told by what reads a cache
        if holds_training(folder):
            raise InputError(f"{folder}: is a run, not a vidlat cache; give a cache")


def require_place_of_cache(where: Path | str) -> None:
    """Refuse a place on this machine that is neither a cache nor free for one, and an address for none."""
    from vidlat.store.layout import holds_anything
    from vidlat.store.storage.opening import require_address

    if is_address(where):
        require_address(str(where), write=True)
    elif holds_anything(local_path(where)):
        require_cache(where)


def require_input(text: str) -> None:
    """Refuse an --input on this machine that does not exist, or a pattern that matches nothing."""
    from vidlat.pipeline.inputs import require_input
    from vidlat.store.object_sources import split_address

    if is_address(text):
        split_address(text)
    else:
        require_input(text)


def require_files(values: Mapping[str, Any]) -> None:
    """Refuse --input of nothing but folders without a file; a part of the videos may have none."""
    from vidlat.pipeline.inputs import is_empty_folder

    inputs = values["inputs"]
    if not values["settings"].get("part") and all(map(is_empty_folder, inputs)):
        raise InputError(f"no video in {', '.join(inputs)} (0 other files); is it the right folder?")


def require_file(path: Path) -> None:
    """Refuse a file that does not exist."""
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such file")


def require_folder(path: Path) -> None:
    """Refuse a folder that does not exist."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")


def require_run(folder: str | Path) -> None:
    """Refuse a folder on this machine that is neither a run nor an exported model."""
    from vidlat.train.runs.presence import require_run

    if not is_address(folder):
        require_run(local_path(folder))


def require_start(name: str) -> None:
    """As `require_run`, or a .safetensors file, which its reader asks for."""
    if not name.endswith(".safetensors"):
        require_run(name)


def require_resumable_run(values: Mapping[str, Any]) -> None:
    """Refuse --resume of what is no run, or with settings that it cannot take."""
    from vidlat.train.runs.presence import require_resumable

    if values["resume"]:
        require_resumable(values["out"], values["settings"])


def require_resumable_training(values: Mapping[str, Any]) -> None:
    """As `require_resumable_run`, of the training of a VAE."""
    from vidlat.config import FitVAEConfig
    from vidlat.fit.continuing import settings_to_continue
    from vidlat.fit.run import read_plan

    if values["resume"]:
        run = read_plan(values["out"])
        given = FitVAEConfig.overruled(run.config.to_dict(), values["settings"])
        settings_to_continue(FitVAEConfig.from_mapping(given), run, values["out"])


def require_size_of_vae(values: Mapping[str, Any]) -> None:
    """Refuse a --size that the VAE named beside it cannot take."""
    from vidlat.encode.weights import require_size_of

    settings = values["settings"]
    if "vae" in settings and "size" in settings:
        require_size_of(settings["vae"], settings["size"])


def require_training(folder: Path) -> None:
    """Refuse a folder without a training of a VAE."""
    from vidlat.fit.run import read_plan

    read_plan(folder)


def require_weights(specs: str | tuple[str, ...]) -> None:
    """Refuse a --vae that names no weights; of several, that all do: one that does not is left out."""
    from vidlat.encode.weights import require_weights

    refused = []
    specs = (specs,) if isinstance(specs, str) else specs
    for spec in specs:
        try:
            require_weights(spec)
        except WeightsError as error:
            refused.append(error)
    if refused and len(refused) == len(specs):
        raise refused[0]


def require_device(name: str) -> None:
    """Refuse what names no device; whether there is such a GPU, only torch knows."""
    from vidlat.config.device import require_device_name

    require_device_name(name)


def require_scheduler(name: str) -> None:
    """Refuse what is neither the address of a scheduler nor a scheduler file."""
    from vidlat.config.scheduler import require_scheduler_name

    require_scheduler_name(name)


NAMED: Mapping[str, Check] = {
    "device": require_device,
    "model": require_run,
    "scheduler": require_scheduler,
    "start": require_start,
    "weights": require_weights,
}
"""The checks of settings, by what they name."""
