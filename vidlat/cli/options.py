"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vidlat.cli.declaration import PATH, PATH_OR_PATTERN

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

latents_argument = click.argument("latents", type=PATH)
latents_option = click.option("--latents", type=PATH, required=True, help="The cache to read.")
vae_option = click.option(
    "--vae",
    help="Where the VAE of the latents is now, if it was moved after they were encoded, or one with another "
    "decoder: as for encode.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU where there is one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def out_option(help: str) -> Decorator:
    """`--out`, required, with what it is for this command."""
    return click.option("--out", type=PATH, required=True, help=help)


def input_option(help: str) -> Decorator:
    """`--input`, required; may be repeated."""
    return click.option(
        "--input",
        "inputs",
        type=PATH_OR_PATTERN,
        multiple=True,
        required=True,
        help=f"{help} May be repeated.",
    )


def labels_option(help: str) -> Decorator:
    """`--labels`, a table."""
    return click.option(
        "--labels",
        type=PATH,
        help=f"CSV or JSONL table with a column video_id, of a video or of a scan for all its slices; {help}",
    )
