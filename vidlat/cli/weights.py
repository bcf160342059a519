"""`vidlat weights`: the published VAE weights."""

from __future__ import annotations

import click


@click.group()
def weights() -> None:
    """List, fetch and check VAE weights that others publish.

    \b
    Example:
      vidlat weights fetch maisi
    """


@weights.command("list")
def list_() -> None:
    """Show every published VAE: source, licence, and what is in the local cache.

    \b
    Example:
      vidlat weights list
    """
    from vidlat.encode.weights import list_weights

    for published, state in list_weights():
        file = published.file
        click.echo(f"{published.name:<16} {state:<7} {file.repo} {file.filename} (revision {file.revision})")
        click.echo(f"{'':<24} licence: {published.licence} ({published.licence_url})")
    click.echo(f"{'tiny':<16} part of the package; small, for demos, tests and laptops")


@weights.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download published weights once, after showing their licence.

    \b
    Example:
      vidlat weights fetch maisi
    """
    from vidlat.encode.weights import fetch_weights

    click.echo(fetch_weights(name, lambda notice: click.echo(notice, err=True)))


@weights.command()
@click.argument("name_or_path")
def check(name_or_path: str) -> None:
    """Check weights from the first byte to the last: hash, and every tensor of the network.

    \b
    Example:
      vidlat weights check maisi
      vidlat weights check my-vae.safetensors
    """
    from vidlat.encode.vae import load_vae
    from vidlat.encode.weights import PUBLISHED_WEIGHTS, check_weights, resolve_weights

    if name_or_path in PUBLISHED_WEIGHTS:
        path, sha256 = check_weights(name_or_path)
        click.echo(f"sha256 {sha256}")
    else:
        path = resolve_weights(name_or_path)
    vae = load_vae(path, device="cpu")
    num_tensors, num_parameters = vae.size
    click.echo(
        f"{path}: all {num_tensors} tensors present, {num_parameters:,} parameters, "
        f"compression {vae.compression}, {vae.latent_dim} latent channels, weights hash {vae.weights_hash}"
    )
