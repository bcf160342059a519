"""The frozen MAISI VAE: built exactly as published, loaded completely or refused.

Shape letters: B videos, T frames, H height, W width; L latent channels, t latent frames, h, w latent
height and width; N stacks, S frames per stack.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidlat.config import LatentSettings
from vidlat.encode.cutting import cut_calls, split_calls, stretch_video
from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.encode.memory import keep_freed_memory, release_freed_memory
from vidlat.encode.network import bypass_wrappers, compression_of, hold_in_bfloat16
from vidlat.encode.stacking import join_calls, unfold_frames
from vidlat.encode.weights_file import hash_weights, load_network
from vidlat.errors import NotEnoughMemoryError, ShapeError, is_out_of_memory
from vidlat.timing import Timing

DEFAULT_SETTINGS = LatentSettings()


class FrozenVAE:
    """A VAE that is not trained: `(B, 1, T, H, W)` in [0, 1] to latent mean and std, and back.

    timing: how frames become stacks. batch: stacks per call. Every call has exactly this many, the last one
    padded, so that a video's latents depend neither on other videos nor on how often an encode was resumed.
    """

    def __init__(
        self,
        network: nn.Module,
        network_settings: dict[str, Any],
        settings: LatentSettings = DEFAULT_SETTINGS,
        *,
        batch: int = 8,
        device: str = "cpu",
        precision: str = "float32",
        cudnn_benchmark: bool = False,
    ) -> None:
        self.settings = network_settings
        self.weights_hash = hash_weights(network.state_dict())
        self.compression = compression_of(network)
        self.latent_dim: int = network_settings["latent_channels"]
        self.timing = settings.timing(self.compression)
        self.batch = batch
        self._most_decoded = sys.maxsize
        self.device = torch.device(device)
        self.precision = precision
        self.cudnn_benchmark = cudnn_benchmark
        # oneDNN computes on channels last as it is, and reorders the default format before and after.
        is_cpu = self.device.type == "cpu"
        self._memory_format = torch.channels_last_3d if is_cpu else torch.contiguous_format
        self._network: Any = bypass_wrappers(network).eval().requires_grad_(False)
        if precision == "bfloat16":
            hold_in_bfloat16(self._network, self.device.type)
        try:
            self._network.to(self.device, memory_format=self._memory_format)  # type: ignore[call-overload]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
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
        """The same VAE, sharing the network in memory, with another number of stacks per call."""
        other = copy(self)
        other.batch = batch
        return other

    def with_timing(self, timing: Timing) -> FrozenVAE:
        """The same VAE, sharing the network in memory, that is shown videos in another way."""
        other = copy(self)
        other.timing = timing
        return other

    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent mean and standard deviation, each (B, L, t, h, w) float32 on the VAE's device.

        video: (B, 1, T, H, W) float in [0, 1], any T >= 1; t = timing.num_latent_frames(T).
        Raises ShapeError if H or W is not a multiple of the compression.
        """
        if video.ndim != 5 or video.shape[1] != 1:
            raise ShapeError(f"a video is (B, 1, T, H, W): got {tuple(video.shape)}")
        timing, num_videos = self.timing, len(video)
        shown = stretch_video(video, timing)
        outputs = self.encode_stacks(cut_calls(shown, timing.stack, timing.stack - timing.overlap))
        mean, std = (
            torch.stack(list(join_calls(split_calls(calls, num_videos), timing.latent_step, timing.blend)), 2)
            for calls in outputs
        )
        return mean, std

    def decode(self, latent: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Frames (B, 1, T, H, W) float32, T = num_frames, without the padding of the last call.

        latent: (B, L, t, h, w), t = timing.num_latent_frames of a T that is not smaller. Frames may leave
        [0, 1] a little.
        """
        depth, step = self.timing.latents_per_call, self.timing.latent_step
        num_latent_frames = latent.shape[2] if latent.ndim == 5 else 0
        if latent.ndim != 5 or latent.shape[1] != self.latent_dim or (num_latent_frames - depth) % step:
            expected = f"a multiple of {depth}" if step == depth else f"{depth} and a multiple of {step}"
            raise ShapeError(
                f"latents are (B, {self.latent_dim}, {expected}, h, w): got {tuple(latent.shape)}"
            )
        calls = split_calls(self.decode_stacks(cut_calls(latent, depth, step)), len(latent))
        return torch.stack(list(unfold_frames(calls, self.timing)), 2)[:, :, :num_frames]

    def encode_stacks(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, S, H, W) to mean and std (N, L, S / compression, h, w), any N >= 1.

        Raises NotEnoughMemoryError if the memory of the device does not suffice.
        """
        height, width = stacks.shape[-2:]
        if height % self.compression or width % self.compression:
            raise ShapeError(
                f"frames of {height}x{width}: the VAE compresses {self.compression} times, "
                f"so both must be multiples of {self.compression}"
            )
        outputs = [
            self._call_network(self._network.encode, part, "lower --batch, --stack or --size")
            for part in self._split_into_calls(stacks)
        ]
        mean, std = (torch.cat(parts)[: len(stacks)] for parts in zip(*outputs, strict=True))
        return mean, std

    def decode_stacks(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L, S / compression, h, w) to frames (N, 1, S, H, W), any N >= 1.

        A call is not filled up. Where the memory of the device does not suffice, it takes half as many
        stacks, and so do all later ones, which changes frames by rounding at most. Raises
        NotEnoughMemoryError if it does not suffice for a single stack.
        """
        size = min(self.batch, self._most_decoded, len(latents))
        advice = "free some, or use another --device"
        try:
            parts = torch.split(latents, size)
            return torch.cat([self._call_network(self._network.decode, part, advice) for part in parts])
        except NotEnoughMemoryError:
            if size == 1:
                raise
        self._most_decoded = size // 2
        return self.decode_stacks(latents)

    def _split_into_calls(self, stacks: torch.Tensor) -> list[torch.Tensor]:
        """Split into parts of exactly `batch` stacks; the last stack is repeated to fill the last part."""
        missing = -len(stacks) % self.batch
        if missing:
            stacks = torch.cat([stacks, stacks[-1:].expand(missing, -1, -1, -1, -1)])
        return list(torch.split(stacks, self.batch))

    def _call_network(self, function: Any, part: torch.Tensor, advice: str) -> Any:
        try:
            with torch.inference_mode(), _convolving(self.cudnn_benchmark):
                if self.device.type == "cuda" and part.device.type == "cpu":
                    part = part.pin_memory()
                part = part.to(self.device, torch.float32, non_blocking=True)
                return function(part.contiguous(memory_format=self._memory_format))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: inside it, the error's traceback keeps every activation of the call alive.
        release_freed_memory(self.device)
        num_stacks, *shape = part.shape
        raise NotEnoughMemoryError(
            f"not enough memory on {self.device} for {num_stacks} stack{'s' * (num_stacks > 1)} of "
            f"{'x'.join(map(str, shape))}; {advice}"
        )


@contextmanager
def _convolving(cudnn_benchmark: bool) -> Iterator[None]:
    """Full float32, and cuDNN's algorithms timed or not; the settings of before return at the end.

    By default cuDNN rounds to the 10 bits of TF32 on a GPU. A cache's settings include the precision but not
    the device, so latents must agree across devices.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = False, False, cudnn_benchmark
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before


def load_vae(
    path: Path,
    settings: LatentSettings = DEFAULT_SETTINGS,
    *,
    batch: int = 8,
    device: str = "auto",
    computes_here: bool = True,
    cudnn_benchmark: bool = False,
) -> FrozenVAE:
    """Build the network of a weights file and load all its tensors.

    path: `.safetensors`, or `.pt` with a state dict, flat or under "unet_state_dict". settings: how frames
    become stacks, and the precision, which is `auto` only if it computes here. computes_here: False where
    only other processes compute: the network stays in the CPU's memory, whether or not that could compute it.
    cudnn_benchmark: let cuDNN choose its algorithms by timing them, and with them the last bits of a latent.
    Raises DeviceError for a device that does not exist or lacks the precision, WeightsError for a file that
    cannot be read or does not fit, naming the tensors, and ShapeError for a stack length that the network
    cannot process.
    """
    keep_freed_memory()
    network, network_settings = load_network(path)
    device = resolve_device(device) if computes_here else "cpu"
    return FrozenVAE(
        network,
        network_settings,
        settings,
        batch=batch,
        device=device,
        precision=resolve_precision(settings.precision, device) if computes_here else settings.precision,
        cudnn_benchmark=cudnn_benchmark,
    )
