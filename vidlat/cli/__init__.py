"""The command line: every command with its flags and help. The bodies are in vidlat/commands/."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from vidlat import __version__
from vidlat.cli.cache import info, ls, merge, prune, pull, push, split, verify
from vidlat.cli.declaration import Group
from vidlat.cli.decode import decode, evaluate, preview, report
from vidlat.cli.encode import encode, worker
from vidlat.cli.train import export, runs, sample, train
from vidlat.cli.vae import compare, fit_vae, weights
from vidlat.interrupts import end_as_by_ctrl_c


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidlat")
def commands() -> None:
    """Encode medical video once with a frozen VAE; train diffusion models from the latents.

    \b
    The whole path is three commands:
      vidlat encode --input videos/ --out latents.zarr --vae tiny-16 --size 128
      vidlat train  --latents latents.zarr --out runs/first
      vidlat sample --run runs/first --out samples/

    The VAE tiny-16 comes with vidlat. Without --vae it is MAISI, whose weights are downloaded once.
    """


for command in (
    encode, worker, info, ls, split, verify, prune, merge, push, pull, preview, train, runs, sample, export,
    decode, evaluate, report, compare, weights, fit_vae,
):  # fmt: skip
    commands.add_command(command)


def main() -> None:
    """Run the command line; ends the process."""
    end_as_by_ctrl_c()
    try:
        sys.exit(commands())
    except SystemExit as end:
        if end.code and "obstore" in sys.modules:
            _leave(end.code)
        raise


def _leave(code: str | int) -> None:
    """End the process after an error or Ctrl-C, without waiting for requests that nobody answers."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code))
