"""The frozen MAISI VAE: built exactly as published, loaded all or nothing, run without detours.

Shape letters: B videos, T frames, H height, W width; L latent channels, t latent frames, h, w latent
height and width; N stacks, S frames of a stack.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import torch
from monai.apps.generation.maisi.networks import autoencoderkl_maisi as maisi
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.stacking import stack_frames, unstack_frames
from vidlat.errors import ShapeError, WeightsError

MAISI_NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 4,
    "num_channels": [64, 128, 256],
    "num_res_blocks": [2, 2, 2],
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
    "attention_levels": [False, False, False],
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "use_convtranspose": False,
}
"""The network of the published weights: 130 tensors, 20,944,897 parameters."""

TINY_NETWORK: dict[str, Any] = {
    **MAISI_NETWORK,
    "num_channels": [16, 32, 64],
    "num_res_blocks": [1, 2, 1],
    "norm_num_groups": 4,
    "use_convtranspose": True,
}
"""A small network of the same class: what `vidlat fit-vae` trains from scratch, and the embedded `tiny`."""

NETWORK_METADATA_KEY = "vidlat_network"
"""Where a safetensors file says, as JSON, what differs from MAISI_NETWORK."""


def build_network(network: dict[str, Any]) -> nn.Module:
    """MONAI's AutoencoderKlMaisi, with the settings that only save memory switched off.

    Splitting a convolution loses rows of sizes that do not divide, and float16 norms break a float32
    pass; neither changes the mathematics nor a tensor's name.
    """
    autoencoder: nn.Module = maisi.AutoencoderKlMaisi(
        **network, num_splits=1, dim_split=0, norm_float16=False, save_mem=False
    )
    return autoencoder


def bypass_wrappers(network: nn.Module) -> nn.Module:
    """Replace MAISI's group norm and convolution wrappers by the plain layers they hold, in place.

    The wrappers loop over groups and splits in Python. The plain layers hold the same tensors under the same
    names, so neither the mathematics nor the state dict changes.
    """
    for name, child in list(network.named_children()):
        if isinstance(child, maisi.MaisiGroupNorm3D):
            # Made on "meta": no memory, no draw from the random generator, the tensors are replaced at once.
            plain = nn.GroupNorm(child.num_groups, child.num_channels, child.eps, child.affine, device="meta")
            plain.weight, plain.bias = child.weight, child.bias
            setattr(network, name, plain)
        elif isinstance(child, maisi.MaisiConvolution):
            setattr(network, name, _PlainConvolution(child.conv))
        else:
            bypass_wrappers(child)
    return network


class _PlainConvolution(nn.Module):
    """MONAI's convolution under its own name, run by oneDNN on a CPU.

    For a single small float32 input PyTorch would choose a slow kernel of its own: half the time of a call.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: nn.Module = self.conv.conv  # type: ignore[assignment]
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
        if isinstance(layer, nn.Conv3d) and x.device.type == "cpu" and exact and _has_onednn():
            padding: Any = layer.padding
            return torch.mkldnn_convolution(
                x, layer.weight, layer.bias, padding, layer.stride, layer.dilation, layer.groups
            )
        answer: torch.Tensor = layer(x)
        return answer


@cache
def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class FrozenVAE:
    """A VAE that never trains: `(B, 1, T, H, W)` in [0, 1] to latent mean and std, and back.

    batch: stacks of one call. Every call has exactly this shape, the last one padded, so that a
    video's latents depend neither on its neighbours nor on how often a run was resumed.
    """

    def __init__(
        self,
        network: nn.Module,
        network_settings: dict[str, Any],
        *,
        stack: int = 4,
        batch: int = 8,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.settings = network_settings
        self.weights_hash = hash_weights(network.state_dict())
        self.compression = 2 ** sum(isinstance(m, maisi.MaisiDownsample) for m in network.modules())
        self.latent_dim: int = network_settings["latent_channels"]
        self.stack = check_stack(stack, self.compression)
        self.batch = batch
        self.device = torch.device(device)
        self.precision = precision
        self._network = bypass_wrappers(network).to(self.device).eval().requires_grad_(False)

    @property
    def size(self) -> tuple[int, int]:
        """Number of tensors and of parameters."""
        tensors = self._network.state_dict().values()
        return len(tensors), sum(tensor.numel() for tensor in tensors)

    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent mean and standard deviation, each (B, L, t, h, w) float32 on the VAE's device.

        video: (B, 1, T, H, W) float in [0, 1], any T >= 1; t = ceil(T / stack) * stack / compression.
        Raises ShapeError where H or W is no multiple of the compression.
        """
        if video.ndim != 5 or video.shape[1] != 1:
            raise ShapeError(f"a video is (B, 1, T, H, W): got {tuple(video.shape)}")
        mean, std = self.encode_stacks(stack_frames(video, self.stack))
        return unstack_frames(mean, len(video)), unstack_frames(std, len(video))

    def decode(self, latent: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Frames (B, 1, T, H, W) float32, T = num_frames: the padding of the last stack is cut off.

        latent: (B, L, t, h, w), t a multiple of stack / compression. Values may leave [0, 1] a little.
        """
        depth = self.stack // self.compression
        if latent.ndim != 5 or latent.shape[1] != self.latent_dim or latent.shape[2] % depth:
            raise ShapeError(
                f"latents are (B, {self.latent_dim}, a multiple of {depth}, h, w): got {tuple(latent.shape)}"
            )
        frames = unstack_frames(self.decode_stacks(stack_frames(latent, depth)), len(latent))
        return frames[:, :, :num_frames]

    def encode_stacks(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, S, H, W) to mean and std (N, L, S / compression, h, w), any N >= 1."""
        height, width = stacks.shape[-2:]
        if height % self.compression or width % self.compression:
            raise ShapeError(
                f"frames of {height}x{width}: the VAE compresses {self.compression} times, "
                f"so both must be multiples of {self.compression}"
            )
        answers = [self._network_call(self._network.encode, part) for part in self._calls(stacks)]
        mean = torch.cat([mean for mean, _ in answers])[: len(stacks)]
        return mean, torch.cat([std for _, std in answers])[: len(stacks)]

    def decode_stacks(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L, S / compression, h, w) to frames (N, 1, S, H, W), any N >= 1."""
        answers = [self._network_call(self._network.decode, part) for part in self._calls(latents)]
        return torch.cat(answers)[: len(latents)]

    def _calls(self, stacks: torch.Tensor) -> list[torch.Tensor]:
        """Cut into parts of exactly `batch` stacks, the last stack repeated to fill the last part."""
        missing = -len(stacks) % self.batch
        if missing:
            stacks = torch.cat([stacks, stacks[-1:].expand(missing, -1, -1, -1, -1)])
        return list(torch.split(stacks, self.batch))

    def _network_call(self, function: Any, part: torch.Tensor) -> Any:
        part = part.to(self.device, torch.float32)
        half = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            answer = function(part)
        return tuple(a.float() for a in answer) if isinstance(answer, tuple) else answer.float()


def check_stack(stack: int, compression: int) -> int:
    """The stack length itself; raises ShapeError where the network would fail or silently drop frames."""
    if stack >= compression and stack % compression == 0:
        return stack
    below, above = stack // compression * compression, (stack // compression + 1) * compression
    nearest = f"{below} and {above}" if below else str(above)
    raise ShapeError(
        f"stack {stack}: this VAE compresses time {compression} times, so a stack is a multiple of "
        f"{compression} frames; nearest that works: {nearest}"
    )


def resolve_device(device: str) -> str:
    """`auto` is a GPU where there is one; raises WeightsError where a GPU is asked for and absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise WeightsError(f"device {device}: no usable GPU on this machine; use --device cpu")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` is bfloat16 on a GPU that has it, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def load_vae(
    path: Path, *, stack: int = 4, batch: int = 8, device: str = "auto", precision: str = "auto"
) -> FrozenVAE:
    """Build the network a weights file holds and load every tensor of it.

    path: `.safetensors`, or `.pt` with a state dict, flat or under "unet_state_dict".
    Raises WeightsError for a file that cannot be read or does not fit, with the tensors by name, and
    ShapeError for a stack length the network cannot take.
    """
    keep_freed_memory()
    tensors, changes = read_weights(path)
    settings = {**MAISI_NETWORK, **changes}
    network = build_network(settings)
    load_strictly(network, tensors, path)
    device = resolve_device(device)
    return FrozenVAE(
        network,
        settings,
        stack=stack,
        batch=batch,
        device=device,
        precision=resolve_precision(precision, device),
    )


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a weights file in float32, and what its network changes in MAISI_NETWORK."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                changes = json.loads((file.metadata() or {}).get(NETWORK_METADATA_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            changes, tensors = {}, torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({_first_line(error)}); "
            "expected a .safetensors file, or a .pt file that torch.load(weights_only=True) takes"
        ) from error
    if isinstance(tensors, dict) and "unet_state_dict" in tensors:
        tensors = tensors["unet_state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise WeightsError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return {name: tensor.float() for name, tensor in tensors.items()}, changes


def write_weights(path: Path, tensors: dict[str, torch.Tensor], network_settings: dict[str, Any]) -> None:
    """Write float16 safetensors that `load_vae` takes, the network's settings inside; whole or not at all."""
    changes = {k: v for k, v in network_settings.items() if v != MAISI_NETWORK.get(k)}
    half = {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file(half, partial, metadata={NETWORK_METADATA_KEY: json.dumps(changes, sort_keys=True)})
    partial.replace(path)


def load_strictly(network: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load all tensors or none; raises WeightsError naming those missing, unexpected and misshapen."""
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
        listed = "; ".join(f"{kind}: {_shorten(names)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{path}: {fitting} of {len(expected)} tensors fit this network; {listed}")
    network.load_state_dict(tensors)


def hash_weights(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and float32 bytes in order of name: the same for `.pt` and safetensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)}\n".encode())
        digest.update(array.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _shorten(names: list[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
