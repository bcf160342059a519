"""Files of VAE weights: reading, writing, loading completely or not at all, and a hash of the values."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from vidlat.checked_settings import MANY
from vidlat.documents import Fields, parse_json
from vidlat.encode.network import MAISI_NETWORK, build_network
from vidlat.errors import WeightsError, is_out_of_memory, one_line, printable, shown
from vidlat.files import replace_file, require_regular_file
from vidlat.wording import shorten

NETWORK_METADATA_KEY = "vidlat_network"
"""The metadata of a safetensors file that states, as JSON, what differs from MAISI_NETWORK."""

STACKS_METADATA_KEY = "vidlat_trained_stacks"
"""The metadata of a safetensors file that states, as JSON, the frames of the stacks it was trained on."""

MOST_CHANNELS, MOST_LEVELS, MOST_STACKS = 4096, 8, 64
"""Limits of what a file may state."""


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a weights file in float32, and the settings that its network changes in MAISI_NETWORK.

    Raises WeightsError if the file cannot be read or is no state dict.
    """
    try:
        require_regular_file(path)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                changes = parse_json((file.metadata() or {}).get(NETWORK_METADATA_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            changes, tensors = {}, torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails in as many ways as there are first bytes of a file
        if is_out_of_memory(error):
            raise
        whole = "a whole .safetensors file"
        readable = "a .safetensors file, or a .pt file that torch.load(weights_only=True) reads"
        raise WeightsError(
            f"{path}: cannot be read as weights ({_first_line(error)}); "
            f"expected {whole if path.suffix == '.safetensors' else readable}"
        ) from error
    if isinstance(tensors, dict) and "unet_state_dict" in tensors:
        tensors = tensors["unet_state_dict"]
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and _is_plain(tensor) for name, tensor in tensors.items()
    ):
        raise WeightsError(f"{path}: holds no state dict (a mapping of names to tensors)")
    tensors = {printable(name): tensor.float() for name, tensor in tensors.items()}
    unusable = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if unusable:
        raise WeightsError(f"{path}: holds numbers that are not finite, in {shorten(unusable)}")
    return tensors, changes


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a weights file, and its settings; raises WeightsError if it does not fit them."""
    tensors, changes = read_weights(path)
    try:
        planned, settings = planned_network(changes)
    except ValueError as error:
        raise WeightsError(
            f"{path}: its {NETWORK_METADATA_KEY} is no network of MAISI's class ({one_line(error)})"
        ) from error
    return load_strictly(planned, tensors, path), settings


def planned_network(changes: object) -> tuple[nn.Module, dict[str, Any]]:
    """The network that changes some settings of MAISI_NETWORK, on the meta device, and all its settings.

    Takes no memory: a file may state a network of any size. Raises ValueError if there is no such network.
    """
    settings = {**MAISI_NETWORK, **_network_changes(changes)}
    try:
        with torch.device("meta"):
            return build_network(settings), settings
    except (TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(one_line(error)) from error


def trained_stacks(path: Path) -> tuple[int, ...]:
    """The frames of the stacks that weights were trained on; none if their file does not say."""
    if path.suffix != ".safetensors" or path.is_dir():
        return ()
    try:
        require_regular_file(path)
        with safe_open(path, framework="pt") as file:
            stated = {"stacks": parse_json((file.metadata() or {}).get(STACKS_METADATA_KEY, "[]"))}
        return tuple(Fields(stated, STACKS_METADATA_KEY).whole_list("stacks", MOST_STACKS, MANY))
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{path}: its {STACKS_METADATA_KEY} cannot be read ({one_line(error)})") from error


def _network_changes(changes: object) -> dict[str, Any]:
    """What a file changes in MAISI_NETWORK; raises ValueError for what no network of this class has."""
    fields = Fields(changes, NETWORK_METADATA_KEY)
    known: dict[str, Any] = {}
    for name in fields.names():
        match MAISI_NETWORK.get(name):
            case None:
                raise ValueError(f"unknown {shown(name)}; known are {', '.join(MAISI_NETWORK)}")
            case bool():
                known[name] = fields.boolean(name)
            case int(usual):
                fixed = name in ("spatial_dims", "in_channels", "out_channels")
                known[name] = fields.whole(name, usual if fixed else 1, usual if fixed else MOST_CHANNELS)
            case float():
                known[name] = fields.number(name, 1e-12, 1)
            case [bool(), *_]:
                known[name] = fields.booleans(name, MOST_LEVELS)
            case _:
                known[name] = fields.whole_list(name, MOST_LEVELS, MOST_CHANNELS)
    return known


def _is_plain(tensor: object) -> bool:
    """Whether it is a tensor of real numbers in memory, each of which has a place of its own."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def write_weights(
    path: Path,
    tensors: dict[str, torch.Tensor],
    network_settings: dict[str, Any],
    trained_stacks: Sequence[int] = (),
    *,
    keeps_encoder: bool = False,
) -> None:
    """Write float16 safetensors for `load_vae`, with the network's settings; atomically.

    trained_stacks: frames of the stacks that the weights were trained on, if that is known. keeps_encoder:
    write what makes latents in float32 where float16 would round it, so that its hash stays.
    """
    changes = {k: v for k, v in network_settings.items() if v != MAISI_NETWORK.get(k)}
    stored = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        half = whole.half()
        is_rounded = keeps_encoder and makes_latents(name) and not torch.equal(half.float(), whole)
        stored[name] = whole if is_rounded else half
    # As bytes: safetensors itself makes files that only their owner can read.
    metadata = {NETWORK_METADATA_KEY: json.dumps(changes, sort_keys=True)}
    if trained_stacks:
        metadata[STACKS_METADATA_KEY] = json.dumps(list(trained_stacks))
    replace_file(path, save(stored, metadata=metadata))


def load_strictly(planned: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """A network from the meta device with tensors of a file, in memory of its own: the file may change later.

    Raises WeightsError unless the network has these tensors and no others.
    """
    _require_fitting(planned, tensors, path)
    network = planned.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network


def _require_fitting(network: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
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


def hash_weights(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and float32 bytes in order of name, whatever the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)}\n".encode())
        digest.update(array.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def hash_encoder(tensors: dict[str, torch.Tensor]) -> str:
    """`hash_weights` of the tensors that make latents: the encoder's and those of the layers behind it.

    Two VAEs with the same have the same latents. Every kind of autoencoder names them so.
    """
    return hash_weights({name: tensor for name, tensor in tensors.items() if makes_latents(name)})


def makes_latents(name: str) -> bool:
    """Whether a tensor of that name is one of the encoder or of the layers behind it."""
    return name.startswith(("encoder.", "quant_conv"))


def _first_line(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's message advises loading it unsafely.
        return "not a PyTorch weights file, or one that holds more than tensors"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
