"""`vidlat weights list`."""

from __future__ import annotations

import click

from vidlat.encode import weights


def list_weights() -> None:
    """Print each published VAE with its state and licence."""
    for published, state in weights.list_weights():
        file = published.file
        click.echo(f"{published.name:<16} {state:<7} {file.repo} {file.filename} (revision {file.revision})")
        click.echo(f"{'':<24} licence: {published.licence} ({published.licence_url})")
    click.echo(f"{'tiny':<16} part of the package; small, for demos, tests and laptops")
