"""Files of VAE weights: reading, writing, loading completely or not at all, and a hash of the values."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from vidlat.encode.network import MAISI_NETWORK, build_network
from vidlat.errors import WeightsError, shorten
from vidlat.files import replace_file

NETWORK_METADATA_KEY = "vidlat_network"
"""The metadata of a safetensors file that states, as JSON, what differs from MAISI_NETWORK."""


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a weights file in float32, and the settings that its network changes in MAISI_NETWORK.

    Raises WeightsError if the file cannot be read or is no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                changes = json.loads((file.metadata() or {}).get(NETWORK_METADATA_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            changes, tensors = {}, torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails in as many ways as there are first bytes of a file
        raise WeightsError(
            f"{path}: cannot be read as weights ({_first_line(error)}); "
            "expected a .safetensors file, or a .pt file that torch.load(weights_only=True) reads"
        ) from error
    if isinstance(tensors, dict) and "unet_state_dict" in tensors:
        tensors = tensors["unet_state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise WeightsError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return {name: tensor.float() for name, tensor in tensors.items()}, changes


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a weights file, and its settings; raises WeightsError if it does not fit them."""
    tensors, changes = read_weights(path)
    settings = {**MAISI_NETWORK, **changes}
    network = build_network(settings)
    load_strictly(network, tensors, path)
    return network, settings


def write_weights(path: Path, tensors: dict[str, torch.Tensor], network_settings: dict[str, Any]) -> None:
    """Write float16 safetensors for `load_vae`, with the network's settings; atomically."""
    changes = {k: v for k, v in network_settings.items() if v != MAISI_NETWORK.get(k)}
    half = {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # As bytes: safetensors itself makes files that only their owner can read.
    content = save(half, metadata={NETWORK_METADATA_KEY: json.dumps(changes, sort_keys=True)})
    replace_file(path, content, partial)


def load_strictly(network: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load all tensors or none; raises WeightsError with the missing, unexpected and misshapen ones."""
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(problems.values()):
        fitting = len(expected) - len(missing) - len(misshapen)
        listed = "; ".join(f"{kind}: {shorten(names, 8)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{path}: {fitting} of {len(expected)} tensors fit this network; {listed}")
    network.load_state_dict(tensors)


def hash_weights(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and float32 bytes in order of name, whatever the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)}\n".encode())
        digest.update(array.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's message advises loading it unsafely.
        return "not a PyTorch weights file, or one that holds more than tensors"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
