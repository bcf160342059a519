"""The VAE weights this project knows: where each comes from, under which licence, with which hash.

Published weights are never part of the package. They are fetched once, with their licence shown, into the
cache that all programs built on huggingface_hub share, and proven by hash before every use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from vidlat.encode.hub_cache import HubFile, find_cached, prove_cached
from vidlat.encode.hub_download import download
from vidlat.errors import WeightsError

EMBEDDED_NAME = "tiny"
"""The name of the small VAE that is part of the package."""

WeightsState = Literal["absent", "cached", "wrong"]
"""In the local cache: not there, there and proven, or there with other bytes than expected."""

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """VAE weights that somebody else publishes: their source and the terms under which they may be used."""

    name: str
    file: HubFile
    licence: str
    licence_url: str

    @property
    def page_url(self) -> str:
        """The model's page, with its card and its terms."""
        return f"https://huggingface.co/{self.file.repo}"

    @property
    def notice(self) -> str:
        """The line to show before the file is downloaded."""
        return (
            f"{self.name} is {self.file.filename} of {self.page_url}, revision {self.file.revision}. "
            f"Licence: {self.licence} ({self.licence_url}); using the weights means accepting it."
        )


PUBLISHED_WEIGHTS: dict[str, PublishedWeights] = {
    weights.name: weights
    for weights in (
        PublishedWeights(
            name="maisi",
            file=HubFile(
                repo="MONAI/maisi_ct_generative",
                revision="1.0.0",
                filename="models/autoencoder.pt",
                sha256="1f8a7a056d0ebc00486edc43c26768bf1c12eaa6df9dd172e34598003be95eb3",
            ),
            # The card names the weights' licence so and refers to the LICENSE file beside it.
            licence="NVIDIA's, named NCLS v1 by the model card; read the model page before any use",
            licence_url="https://huggingface.co/MONAI/maisi_ct_generative",
        ),
        PublishedWeights(
            name="nv-generate-ct",
            file=HubFile(repo="nvidia/NV-Generate-CT", revision="main", filename="models/autoencoder_v1.pt"),
            licence="NVIDIA Open Model License",
            licence_url="https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
        ),
        PublishedWeights(
            name="nv-generate-mr",
            file=HubFile(repo="nvidia/NV-Generate-MR", revision="main", filename="models/autoencoder_v2.pt"),
            licence="NVIDIA OneWay Non-Commercial License: research use only",
            licence_url="https://developer.download.nvidia.com/licenses/"
            "NVIDIA-OneWay-Noncommercial-License-22Mar2022.pdf",
        ),
    )
}
"""Every published VAE by the name `--vae` takes. A file without sha256 is trusted on first use."""


def list_weights() -> list[tuple[PublishedWeights, WeightsState]]:
    """Every published VAE and what the local cache holds of it; asks no hub."""
    return [(weights, _state(weights)) for weights in PUBLISHED_WEIGHTS.values()]


def fetch_weights(name: str, announce: Announce | None = None) -> Path:
    """The path of published weights in the local cache, downloaded if they are absent or damaged there.

    announce: receives the licence notice before anything is downloaded; by default it goes to stderr.
    Raises WeightsError for an unknown name, and, with the ways out, when the right file cannot be had.
    """
    weights = _published(name)
    try:
        if _state(weights) != "cached":
            (announce or _tell_stderr)(weights.notice)
            return download(weights.file)
        return _proven(weights)[0]
    except WeightsError as error:
        raise _with_ways_out(weights, error) from error


def resolve_weights(spec: str, announce: Announce | None = None) -> Path:
    """The file that `--vae SPEC` means: published weights by name, the embedded `tiny`, or a path.

    Published weights come from the local cache, proven, or are fetched once when it has none. A cached file
    with wrong bytes is refused, not replaced. announce: see fetch_weights. Raises WeightsError.
    """
    if spec == EMBEDDED_NAME:
        return _embedded()
    if spec not in PUBLISHED_WEIGHTS:
        path = Path(spec).expanduser()
        if path.is_file():
            return path
        known = ", ".join([*PUBLISHED_WEIGHTS, EMBEDDED_NAME])
        raise WeightsError(f"no weights file at {path}; expected one, or one of the names {known}")
    weights = PUBLISHED_WEIGHTS[spec]
    if find_cached(weights.file) is None:
        return fetch_weights(spec, announce)
    try:
        return _proven(weights)[0]
    except WeightsError as error:
        raise _with_ways_out(weights, error) from error


def licence_of(spec: str) -> str:
    """The licence of the weights that `--vae SPEC` means, as a cache records it; a path has none."""
    if spec == EMBEDDED_NAME:
        return "Apache-2.0 (see the model card, docs/tiny-vae.md)"
    return PUBLISHED_WEIGHTS[spec].licence if spec in PUBLISHED_WEIGHTS else "unknown"


def check_weights(name: str) -> tuple[Path, str]:
    """Read cached published weights from first to last byte: their path and sha256; asks no hub.

    Raises WeightsError, with the ways out, when they are absent or not the expected bytes.
    """
    weights = _published(name)
    try:
        return _proven(weights, reread=True)
    except WeightsError as error:
        raise _with_ways_out(weights, error) from error


def _published(name: str) -> PublishedWeights:
    if name not in PUBLISHED_WEIGHTS:
        raise WeightsError(f"no published weights {name!r}; known are {', '.join(PUBLISHED_WEIGHTS)}")
    return PUBLISHED_WEIGHTS[name]


def _state(weights: PublishedWeights) -> WeightsState:
    if find_cached(weights.file) is None:
        return "absent"
    try:
        _proven(weights)
    except WeightsError:
        return "wrong"
    return "cached"


def _proven(weights: PublishedWeights, *, reread: bool = False) -> tuple[Path, str]:
    path = find_cached(weights.file)
    if path is None:
        raise WeightsError("not in the local cache")
    return path, prove_cached(weights.file, path, reread=reread)


def _embedded() -> Path:
    path = Path(str(resources.files("vidlat.encode").joinpath(f"{EMBEDDED_NAME}.safetensors")))
    if not path.is_file():
        raise WeightsError(f"the package holds no {path.name}; install it anew, or use --vae PATH")
    return path


def _with_ways_out(weights: PublishedWeights, error: WeightsError) -> WeightsError:
    return WeightsError(
        f"{weights.name}: {error}. Ways out: `vidlat weights fetch {weights.name}` once with a network, "
        f"`--vae PATH` with a file at hand, or `--vae {EMBEDDED_NAME}`"
    )


def _tell_stderr(line: str) -> None:
    print(line, file=sys.stderr)
