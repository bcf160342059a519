"""The folder that `diffusers:FOLDER_OR_HUB_ID` means: a local one, else files of a hub in the local cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vidlat.encode.diffusers_folder import CONFIG, WEIGHTS, import_autoencoder_kl, licence_in
from vidlat.encode.hub import HubFile, download, fetch, find_cached
from vidlat.encode.vae_spec import PREFIX, local_folder
from vidlat.errors import WeightsError, one_line
from vidlat.paths import local_path

_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)*)")
"""OWNER/NAME and a folder inside, if any."""


def find_folder(spec: str, show_notice: Callable[[str], None]) -> Path:
    """The folder of a spec; of a hub, its files are downloaded once and verified before every use.

    show_notice: receives the licence before the weights are downloaded. Raises WeightsError.
    """
    text = spec.removeprefix(PREFIX)
    if folder := local_folder(spec):
        return folder
    hub_id = _HUB_ID.fullmatch(text)
    if not hub_id:
        raise WeightsError(
            f"{spec}: no folder at {local_path(text)}; expected one, or OWNER/NAME[/FOLDER] of a hub"
        )
    from huggingface_hub.errors import HFValidationError

    import_autoencoder_kl()  # before anything is downloaded
    repo, inside = hub_id[1], hub_id[2].removeprefix("/")
    config, weights = (
        HubFile(repo=repo, revision="main", filename=f"{inside}/{name}".removeprefix("/"))
        for name in (CONFIG, WEIGHTS)
    )
    try:
        settings = fetch(config)
        if find_cached(weights) is None:
            with suppress(WeightsError):  # a repository may have none
                download(HubFile(repo=repo, revision="main", filename="README.md"))
            licence = licence_in(settings.parent)
            show_notice(
                f"{spec} is {weights.filename} of https://huggingface.co/{repo}. "
                f"Licence: {licence}; using the weights means accepting it."
            )
        tensors = fetch(weights)
    except (WeightsError, HFValidationError) as error:
        raise WeightsError(f"{spec}: no such folder here, and {one_line(error)}") from error
    if settings.parent != tensors.parent:
        raise WeightsError(f"{spec}: changed on the hub while it was downloaded; run the command again")
    return tensors.parent
