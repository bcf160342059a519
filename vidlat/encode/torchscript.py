"""Networks of others in TorchScript files, local or on a hub; their hash says which one was used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch

from vidlat.encode.hub import HubFile, download
from vidlat.errors import ConfigError, WeightsError, one_line
from vidlat.files import read_file
from vidlat.paths import local_path

NETWORK_BYTES = 2**32
"""Most bytes of a TorchScript file."""

HUB = "hub:"
"""What the name of a file on the hub begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFile:
    """A file that was read once: what is loaded is what was hashed. sha256: of its content."""

    path: Path
    content: bytes = field(repr=False)
    sha256: str

    def load(self, device: torch.device) -> torch.jit.ScriptModule:
        """The network in evaluation mode, its weights without gradients.

        Raises RuntimeError, ValueError or torch.jit.Error, as PyTorch does, for a file that is none.
        """
        network: torch.jit.ScriptModule = torch.jit.load(BytesIO(self.content), map_location=device)  # type: ignore[no-untyped-call]
        for weight in network.eval().parameters():
            weight.requires_grad_(False)
        return network


def read_network(name: str, setting: str, sha256: str | None = None) -> NetworkFile:
    """Read the file `name`, a path or hub:OWNER/REPOSITORY/FILE.

    setting: what it is given by, for the message of an error. sha256: for a file on the hub, its published
    hash; None trusts the first download. Raises ConfigError for a name on the hub that is not whole,
    WeightsError for a file that cannot be read or downloaded.
    """
    path = _path_of(name, setting, sha256)
    try:
        content = read_file(path, NETWORK_BYTES)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {one_line(error)}") from error
    return NetworkFile(path=path, content=content, sha256=hashlib.sha256(content).hexdigest())


def _path_of(name: str, setting: str, sha256: str | None) -> Path:
    if not name.startswith(HUB):
        return local_path(name)
    owner, _, rest = name.removeprefix(HUB).partition("/")
    repository, _, filename = rest.partition("/")
    if not (owner and repository and filename):
        raise ConfigError(f"{setting}: got {name}; expected hub:OWNER/REPOSITORY/FILE")
    return download(HubFile(repo=f"{owner}/{repository}", revision="main", filename=filename, sha256=sha256))
