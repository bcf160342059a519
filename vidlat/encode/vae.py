"""The frozen MAISI VAE: built exactly as published, loaded all or nothing, run without detours.

Shape letters: B videos, T frames, H height, W width; L latent channels, t latent frames, h, w latent
height and width; N stacks, S frames of a stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.encode.memory import give_back_freed_memory, keep_freed_memory
from vidlat.encode.network import MAISI_NETWORK, build_network, bypass_wrappers, compression_of
from vidlat.encode.stacking import stack_frames, unstack_frames
from vidlat.encode.weights_file import hash_weights, load_strictly, read_weights
from vidlat.errors import NotEnoughMemoryError, ShapeError


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
        self.compression = compression_of(network)
        self.latent_dim: int = network_settings["latent_channels"]
        self.stack = check_stack(stack, self.compression)
        self.batch = batch
        self.device = torch.device(device)
        self.precision = precision
        self._network = bypass_wrappers(network).eval().requires_grad_(False)
        try:
            self._network.to(self.device)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise NotEnoughMemoryError(
                f"not enough memory on {device} for the VAE itself; free some, or use another --device"
            ) from error

    @property
    def size(self) -> tuple[int, int]:
        """Number of tensors and of parameters."""
        tensors = self._network.state_dict().values()
        return len(tensors), sum(tensor.numel() for tensor in tensors)

    def with_batch(self, batch: int) -> FrozenVAE:
        """The same VAE, with the same network in memory, that takes another number of stacks a call."""
        other = copy(self)
        other.batch = batch
        return other

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
        """(N, 1, S, H, W) to mean and std (N, L, S / compression, h, w), any N >= 1.

        Raises NotEnoughMemoryError where the memory does not suffice.
        """
        height, width = stacks.shape[-2:]
        if height % self.compression or width % self.compression:
            raise ShapeError(
                f"frames of {height}x{width}: the VAE compresses {self.compression} times, "
                f"so both must be multiples of {self.compression}"
            )
        answers = [
            self._network_call(self._network.encode, part, "lower --batch or --size")
            for part in self._calls(stacks)
        ]
        mean = torch.cat([mean for mean, _ in answers])[: len(stacks)]
        return mean, torch.cat([std for _, std in answers])[: len(stacks)]

    def decode_stacks(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L, S / compression, h, w) to frames (N, 1, S, H, W), any N >= 1.

        Raises NotEnoughMemoryError where the memory does not suffice.
        """
        advice = "free some, or use another --device"
        answers = [self._network_call(self._network.decode, part, advice) for part in self._calls(latents)]
        return torch.cat(answers)[: len(latents)]

    def _calls(self, stacks: torch.Tensor) -> list[torch.Tensor]:
        """Cut into parts of exactly `batch` stacks, the last stack repeated to fill the last part."""
        missing = -len(stacks) % self.batch
        if missing:
            stacks = torch.cat([stacks, stacks[-1:].expand(missing, -1, -1, -1, -1)])
        return list(torch.split(stacks, self.batch))

    def _network_call(self, function: Any, part: torch.Tensor, advice: str) -> Any:
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        try:
            with torch.inference_mode(), _without_tf32(), half:
                if self.device.type == "cuda" and part.device.type == "cpu":
                    part = part.pin_memory()
                answer = function(part.to(self.device, torch.float32, non_blocking=True))
            return tuple(a.float() for a in answer) if isinstance(answer, tuple) else answer.float()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Behind the handler, not in it: an error's traceback keeps every activation of the call alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        give_back_freed_memory()
        num_stacks, *shape = part.shape
        raise NotEnoughMemoryError(
            f"not enough memory on {self.device} for {num_stacks} stacks of "
            f"{'x'.join(map(str, shape))}; {advice}"
        )


_SIGNS_OF_LITTLE_MEMORY = (
    "can't allocate memory",  # a CPU
    "out of memory",  # CUDA
    "ALLOC_FAILED",  # cuDNN and cuBLAS
    "could not create a primitive",  # oneDNN, which keeps the reason to itself
    "could not create a memory",
)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """float32 that is float32: by default cuDNN rounds to the 10 bits of TF32 on a GPU.

    A cache's identity covers the precision and not the device, so latents must agree across devices.
    """
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolution, product


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for its own allocator on a GPU: not for a CPU, nor for the libraries it calls."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error) for sign in _SIGNS_OF_LITTLE_MEMORY
    )


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
