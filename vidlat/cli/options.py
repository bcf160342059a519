"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from vidlat.cli.checks import (
    Check,
    checked,
    require_cache,
    require_device,
    require_file,
    require_input,
    require_place_of_cache,
    require_run,
    require_weights,
    written_as,
)
from vidlat.cli.declaration import CACHE, PATH, PATH_OR_PATTERN, LocalPath
from vidlat.cli.parameters import Option, OptionOrArgument
from vidlat.paths import CACHE_DIR, CACHE_GB, DEFAULT_CACHE_GB

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

WHERE = "a folder, or the address of one: s3://, gs://, az:// or https://."


def latents_option(help: str, check: Check | None = require_cache) -> Decorator:
    """A cache to work on: LATENTS, an argument, or `--latents`."""
    return click.option(
        "--latents",
        cls=OptionOrArgument,
        metavar="LATENTS",
        type=CACHE,
        callback=checked(check) if check else None,
        help=help,
    )


def run_option(help: str, type: LocalPath | None = None) -> Decorator:
    """A run to work on: RUN, an argument, or `--run`."""
    return click.option(
        "--run",
        "run_dir",
        cls=OptionOrArgument,
        metavar="RUN",
        type=type,
        callback=checked(require_run),
        help=help,
    )


cache_option = latents_option(f"The cache: {WHERE}")
local_cache_option = latents_option("The cache, a folder of this machine.")
vae_option = click.option(
    "--vae",
    callback=checked(require_weights),
    help="Where the VAE of the latents is now, if it was moved after they were encoded, or one with another "
    "decoder: as for encode.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=checked(require_device),
    help="cpu, cuda, or auto: a GPU where there is one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def _to_environment(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """What sets an environment variable, which processes that are started later read too."""

    def set_variable(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ARG001
        if value is not None:
            os.environ[name] = str(value)

    return set_variable


def shard_cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--cache-dir` and `--cache-gb`, for commands that read latents."""
    limit = click.option(
        "--cache-gb",
        cls=Option,
        group="Performance",
        type=click.FloatRange(0, min_open=True),
        envvar=CACHE_GB,
        show_envvar=True,
        expose_value=False,
        callback=_to_environment(CACHE_GB),
        help=f"Gigabytes that --cache-dir may hold.  [default: {DEFAULT_CACHE_GB:g}]",
    )
    folder = click.option(
        "--cache-dir",
        cls=Option,
        group="Performance",
        type=PATH,
        envvar=CACHE_DIR,
        show_envvar=True,
        expose_value=False,
        callback=_to_environment(CACHE_DIR),
        help="Folder on a local disk in which latents of a remote cache are kept, for all processes.",
    )
    return folder(limit(command))


def out_option(help: str, suffix: str = "") -> Decorator:
    """`--out`, required, with what it is for this command; of a file, with its suffix."""
    callback = written_as(suffix) if suffix else None
    return click.option("--out", type=PATH, required=True, callback=callback, help=help)


def resume_option(help: str) -> Decorator:
    """`--resume`, of what is in --out."""
    return click.option("--resume", cls=Option, group="Basic", is_flag=True, help=help)


def file_option(flag: str, name: str, suffix: str, help: str) -> Decorator:
    """A file of one suffix to write."""
    return click.option(flag, name, type=PATH, callback=written_as(suffix), help=help)


def cache_out_option(help: str) -> Decorator:
    """`--out` of a cache, required, with what it is for this command."""
    return click.option(
        "--out",
        type=CACHE,
        required=True,
        callback=checked(require_place_of_cache),
        help=f"{help} A folder, or an address: s3://, gs:// or az://.",
    )


def input_option(help: str, type: LocalPath = PATH_OR_PATTERN) -> Decorator:
    """`--input`, required; may be repeated."""
    return click.option(
        "--input",
        "inputs",
        type=type,
        multiple=True,
        required=True,
        callback=checked(require_input),
        help=f"{help} May be repeated.",
    )


def labels_option(help: str) -> Decorator:
    """`--labels`, a table."""
    return click.option(
        "--labels",
        cls=Option,
        group="Basic",
        type=PATH,
        callback=checked(require_file),
        help="CSV or JSONL table with a column video_id, or FileName, of a video or of a scan for all its "
        f"slices: an id, or a file name with or without extension. Or the folder of CAMUS; {help}",
    )
