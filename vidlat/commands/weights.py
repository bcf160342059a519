"""`vidlat weights`: published VAE weights."""

from __future__ import annotations

from vidlat.commands.display import echo
from vidlat.encode import weights


def list_weights() -> None:
    """Print each published VAE with its state and licence."""
    for published, state in weights.list_weights():
        file = published.file
        echo(f"{published.name:<16} {state:<7} {file.repo} {file.filename} (revision {file.revision})")
        echo(f"{'':<24} licence: {published.licence} ({published.licence_url})")
    for name, what in weights.EMBEDDED_WEIGHTS.items():
        echo(f"{name:<16} part of the package; {what}")


def fetch_weights(name: str) -> None:
    """Download published weights and print their path."""
    echo(str(weights.fetch_weights(name, lambda notice: echo(notice, err=True))))


def check_weights(name_or_path: str) -> None:
    """Load weights completely and print their size, compression and hash."""
    if name_or_path in weights.PUBLISHED_WEIGHTS:
        path, sha256 = weights.check_weights(name_or_path)
        echo(f"sha256 {sha256}")
    else:
        path = weights.resolve_weights(name_or_path)
    from vidlat.encode.vae import load_vae  # loads torch, which a wrong name does not need

    vae = load_vae(path, device="cpu")
    num_tensors, num_parameters = vae.size
    echo(
        f"{path}: all {num_tensors} tensors present, {num_parameters:,} parameters, "
        f"compression {vae.time_compression} in time and {vae.space_compression} in height and width, "
        f"{vae.latent_dim} latent channels, weights hash {vae.weights_hash}"
    )
