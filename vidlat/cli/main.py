"""The `vidlat` command: what all its subcommands share, above all how errors end."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from vidlat import __version__
from vidlat.errors import VidlatError

COMMANDS = {
    "encode": "encode",
    "info": "info",
    "ls": "ls",
    "verify": "verify",
    "prune": "prune",
    "preview": "preview",
    "train": "train",
    "sample": "sample",
    "decode": "sample",
    "evaluate": "evaluate",
    "weights": "weights",
    "fit-vae": "fit_vae",
}
"""Each command and the file it lives in: `vidlat --help` reads them, but imports nothing heavy."""

EXIT_INTERRUPTED = 130


class _Commands(click.Group):
    """Loads a command's file when it is asked for, and lets no user error end in a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vidlat.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VidlatError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # `vidlat info | head`: click ends it in silence
        except OSError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidlat")
def commands() -> None:
    """Encode medical video once with a frozen MAISI VAE; train diffusion models from the latents.

    \b
    Three commands make the whole path:
      vidlat encode --input videos/ --out latents.zarr
      vidlat train  --latents latents.zarr --out runs/first
      vidlat sample --run runs/first --out samples/
    """


def main() -> None:
    """Run the command line; ends the process."""
    sys.exit(commands())
