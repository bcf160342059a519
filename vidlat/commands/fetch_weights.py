"""`vidlat weights fetch`."""

from __future__ import annotations

import click

from vidlat.encode import weights


def fetch_weights(name: str) -> None:
    """Download published weights and print their path."""
    click.echo(weights.fetch_weights(name, lambda notice: click.echo(notice, err=True)))
