"""`vidlat weights check`."""

from __future__ import annotations

import click

from vidlat.encode import weights
from vidlat.encode.vae import load_vae


def check_weights(name_or_path: str) -> None:
    """Load weights completely and print their size, compression and hash."""
    if name_or_path in weights.PUBLISHED_WEIGHTS:
        path, sha256 = weights.check_weights(name_or_path)
        click.echo(f"sha256 {sha256}")
    else:
        path = weights.resolve_weights(name_or_path)
    vae = load_vae(path, device="cpu")
    num_tensors, num_parameters = vae.size
    click.echo(
        f"{path}: all {num_tensors} tensors present, {num_parameters:,} parameters, "
        f"compression {vae.compression}, {vae.latent_dim} latent channels, weights hash {vae.weights_hash}"
    )
