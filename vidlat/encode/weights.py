"""The VAE weights this project knows by name: where each comes from, under which licence, with which hash.

Published weights are not part of the package. They are downloaded once, after their licence is shown, into
the cache that all programs built on huggingface_hub share, and verified by hash before every use.

What loads torch is imported where it is used: a name that is unknown is refused at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal

from vidlat.encode.hub import HubFile, download, find_cached, verify
from vidlat.encode.vae_spec import PREFIX, local_folder, require_size
from vidlat.errors import InputError, UnknownWeightsError, WeightsError, one_line
from vidlat.files import require_regular_file
from vidlat.paths import local_path
from vidlat.spelling import did_you_mean

EMBEDDED_WEIGHTS = {
    "tiny": "4 latent channels, as MAISI has: for demos, tests and laptops",
    "tiny-16": "16 latent channels: keeps more of the picture and of its motion, for four times the latents",
}
"""The small VAEs that are part of the package, by the name that `--vae` takes, and what they are."""

SUITED_TIMES: dict[str, dict[str, int]] = {
    "tiny": {"stack": 4, "stretch": 4},
    "tiny-16": {"stack": 16, "overlap": 4},
}
"""The time settings of VAEs by name that keep the motion of a video; see docs/design/0009-time.md."""

NAMED_COMPRESSION = 4
"""Pixels per latent position in height and width, of every VAE that has a name here."""

WeightsState = Literal["absent", "cached", "wrong"]
"""State of the local copy: missing, verified, or different from what is expected."""

ShowNotice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """VAE weights published by others: their source and the terms under which they may be used."""

    name: str
    file: HubFile
    licence: str
    licence_url: str

    @property
    def notice(self) -> str:
        """The line to show before the file is downloaded."""
        return (
            f"{self.name} is {self.file.filename} of https://huggingface.co/{self.file.repo}, "
            f"revision {self.file.revision}. "
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
            # As the model card names it; the terms are in the LICENSE file beside it.
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
"""Published VAEs by the name that `--vae` takes."""


def list_weights() -> list[tuple[PublishedWeights, WeightsState]]:
    """Every published VAE and the state of its local copy; makes no request."""
    return [(weights, _state(weights)) for weights in PUBLISHED_WEIGHTS.values()]


def fetch_weights(name: str, show_notice: ShowNotice | None = None) -> Path:
    """The local path of published weights, downloaded if they are absent or wrong there.

    show_notice: receives the licence notice before anything is downloaded; by default it goes to stderr.
    Raises WeightsError for an unknown name, and, with the ways out, if the expected file cannot be had.
    """
    weights = _published(name)
    with _naming_ways_out(weights):
        if _state(weights) != "cached":
            (show_notice or partial(print, file=sys.stderr))(weights.notice)
            return download(weights.file)
        return _verified(weights)[0]


def resolve_weights(spec: str, show_notice: ShowNotice | None = None) -> Path:
    """What `--vae SPEC` means: the file of published or embedded weights by name, or a path; or a folder.

    Only a spec that begins with `diffusers:` means a folder, or files of a hub. Weights of a hub come
    verified from the local cache, or are downloaded if it has none. A wrong local copy is refused, not
    replaced. show_notice: see fetch_weights. Raises WeightsError.
    """
    if spec.startswith(PREFIX):
        from vidlat.encode import diffusers_hub

        return diffusers_hub.find_folder(spec, show_notice or partial(print, file=sys.stderr))
    if spec in EMBEDDED_WEIGHTS:
        path = Path(str(resources.files("vidlat.encode").joinpath(f"{spec}.safetensors")))
        if not path.is_file():
            raise WeightsError(f"the package holds no {path.name}; install it anew, or use --vae PATH")
        return path
    if spec not in PUBLISHED_WEIGHTS:
        return _own_file(spec)
    weights = PUBLISHED_WEIGHTS[spec]
    if find_cached(weights.file) is None:
        return fetch_weights(spec, show_notice)
    with _naming_ways_out(weights):
        return _verified(weights)[0]


def require_weights(spec: str) -> None:
    """Raise WeightsError for a spec that names nothing; opens no file and makes no request."""
    if spec.startswith(PREFIX):
        local_folder(spec)
    elif spec not in PUBLISHED_WEIGHTS and spec not in EMBEDDED_WEIGHTS:
        _own_file(spec)


def require_size_of(spec: str, size: int) -> None:
    """Raise ConfigError for a size that a VAE of this name cannot take; of a path its reader knows."""
    if spec in PUBLISHED_WEIGHTS or spec in EMBEDDED_WEIGHTS:
        require_size(size, NAMED_COMPRESSION)


def _own_file(spec: str) -> Path:
    try:
        path = local_path(spec)
    except InputError as error:
        raise WeightsError(str(error)) from error
    try:
        require_regular_file(path)
    except (OSError, ValueError) as error:
        known = [*PUBLISHED_WEIGHTS, *EMBEDDED_WEIGHTS]
        way_out = did_you_mean(spec, known)
        if "is a folder" in one_line(error):
            way_out = f"; for a folder that diffusers has written, give diffusers:{spec}"
        kind = UnknownWeightsError if _is_name(path) else WeightsError
        raise kind(
            f"no weights file at {path} ({one_line(error)}); expected one, one of the names "
            f"{', '.join(known)}, or {PREFIX}FOLDER{way_out}"
        ) from error
    return path


def _is_name(path: Path) -> bool:
    """Whether what was taken for a path that is not there looks like a name: in no folder, without suffix."""
    is_there = os.path.exists(path)  # noqa: PTH110  # that of Path raises for a name that is too long
    return len(path.parts) == 1 and not path.suffix and not is_there


def times_for(spec: str, path: Path) -> dict[str, int]:
    """The stack, overlap and stretch that suit the weights at `path`, which `--vae SPEC` means, if known.

    Of a file of one's own, the longest stack that it was trained on. Of a folder, whose VAE takes each frame
    for itself, one frame: no video is padded.
    """
    if spec in SUITED_TIMES:
        return SUITED_TIMES[spec]
    if path.is_dir():
        return {"stack": 1}
    from vidlat.encode.weights_file import trained_stacks

    stacks = trained_stacks(path)
    return {"stack": max(stacks)} if stacks else {}


def licence_of(spec: str, path: Path) -> str:
    """The licence of the weights at `path`, which `--vae SPEC` means, as a cache records it; else unknown."""
    if path.is_dir():
        from vidlat.encode.diffusers_folder import licence_in

        return licence_in(path)
    if spec in EMBEDDED_WEIGHTS:
        return "Apache-2.0 (see the model card, docs/reference/tiny-vae.md)"
    return PUBLISHED_WEIGHTS[spec].licence if spec in PUBLISHED_WEIGHTS else "unknown"


def check_weights(name: str) -> tuple[Path, str]:
    """Path and sha256 of the local copy of published weights, read to the last byte; makes no request.

    Raises WeightsError, with the ways out, if it is absent or not the expected file.
    """
    weights = _published(name)
    with _naming_ways_out(weights):
        return _verified(weights, reread=True)


def _published(name: str) -> PublishedWeights:
    if name not in PUBLISHED_WEIGHTS:
        hint = did_you_mean(name, PUBLISHED_WEIGHTS)
        raise UnknownWeightsError(
            f"no published weights {name!r}; known are {', '.join(PUBLISHED_WEIGHTS)}{hint}"
        )
    return PUBLISHED_WEIGHTS[name]


def _state(weights: PublishedWeights) -> WeightsState:
    if find_cached(weights.file) is None:
        return "absent"
    try:
        _verified(weights)
    except WeightsError:
        return "wrong"
    return "cached"


def _verified(weights: PublishedWeights, *, reread: bool = False) -> tuple[Path, str]:
    path = find_cached(weights.file)
    if path is None:
        raise WeightsError("not in the local cache")
    return path, verify(weights.file, path, reread=reread)


@contextmanager
def _naming_ways_out(weights: PublishedWeights) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsError(
            f"{weights.name}: {error}. Ways out: `vidlat weights fetch {weights.name}` once with a network, "
            f"`--vae PATH` with a local file, or `--vae tiny`"
        ) from error
