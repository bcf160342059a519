"""The frozen VAE: any autoencoder, loaded completely or refused, and how it is called.

Shape letters: B videos, T frames, H height, W width; L latent channels, t latent frames, h, w latent
height and width; N stacks, S frames per stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TypeVar

import torch

from vidlat.config import LatentSettings
from vidlat.encode.autoencoder import Autoencoder
from vidlat.encode.cutting import cut_calls, split_calls, stretch_video
from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.encode.diffusers_folder import load_folder
from vidlat.encode.maisi import MaisiAutoencoder
from vidlat.encode.memory import ShrinkingCalls, keep_freed_memory, within_memory
from vidlat.encode.stacking import join_calls, unfold_frames
from vidlat.encode.weights_file import hash_encoder, hash_weights, load_network
from vidlat.errors import ShapeError
from vidlat.timing import Timing
from vidlat.wording import format_count

DEFAULT_SETTINGS = LatentSettings()

Output = TypeVar("Output")


class FrozenVAE:
    """A VAE that is not trained: `(B, 1, T, H, W)` in [0, 1] to latent mean and std, and back.

    timing: how frames become stacks. batch: stacks per call. Every call has exactly this many, the last one
    padded, so that a video's latents depend neither on other videos nor on how often an encode was resumed.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        settings: LatentSettings = DEFAULT_SETTINGS,
        *,
        batch: int = 8,
        device: str = "cpu",
        precision: str = "float32",
        cudnn_benchmark: bool = False,
    ) -> None:
        network = autoencoder.network.eval().requires_grad_(False)
        self.encoder_config, self.library = autoencoder.encoder_config, autoencoder.library
        tensors = network.state_dict()
        self.weights_hash, self.encoder_hash = hash_weights(tensors), hash_encoder(tensors)
        self.time_compression = autoencoder.time_compression
        self.space_compression = autoencoder.space_compression
        self.latent_dim = autoencoder.latent_dim
        self.timing = settings.timing(self.time_compression)
        self.batch = batch
        self._decode_calls = ShrinkingCalls()
        self.device = torch.device(device)
        self.precision = precision
        self.cudnn_benchmark = cudnn_benchmark
        self._autoencoder = autoencoder
        if precision == "bfloat16":
            autoencoder.hold_in_bfloat16(self.device.type)
        memory_format = autoencoder.memory_format(self.device.type)
        within_memory(
            lambda: network.to(self.device, memory_format=memory_format),  # type: ignore[call-overload]
            self.device,
            f"not enough memory on {device} for the VAE itself; free some, or use another --device",
        )

    @property
    def size(self) -> tuple[int, int]:
        """Number of tensors and of parameters."""
        tensors = self._autoencoder.network.state_dict().values()
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
        Raises ShapeError if H or W is not a multiple of the compression of space.
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
        """(N, 1, S, H, W) to mean and std (N, L, t, h, w), any N >= 1; t = S / time_compression.

        Raises NotEnoughMemoryError if the memory of the device does not suffice.
        """
        (height, width), compression = stacks.shape[-2:], self.space_compression
        if height % compression or width % compression:
            raise ShapeError(
                f"frames of {height}x{width}: the VAE compresses {compression} times, "
                f"so both must be multiples of {compression}"
            )
        outputs = [
            self._call_network(self._autoencoder.encode, part, "lower --batch, --stack or --size")
            for part in self._split_into_calls(stacks)
        ]
        mean, std = (torch.cat(parts)[: len(stacks)] for parts in zip(*outputs, strict=True))
        return mean, std

    def decode_stacks(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L, t, h, w) to frames (N, 1, S, H, W), any N >= 1; t = S / time_compression.

        A call is not filled up. Where the memory of the device does not suffice, it takes half as many
        stacks, and so do all later ones, which changes frames by rounding at most. Raises
        NotEnoughMemoryError if it does not suffice for a single stack.
        """
        decode, advice = self._autoencoder.decode, "free some, or use another --device"
        return torch.cat(
            self._decode_calls(
                lambda rows: self._call_network(decode, latents[rows], advice), len(latents), self.batch
            )
        )

    def _split_into_calls(self, stacks: torch.Tensor) -> list[torch.Tensor]:
        """Split into parts of exactly `batch` stacks; the last stack is repeated to fill the last part."""
        missing = -len(stacks) % self.batch
        if missing:
            stacks = torch.cat([stacks, stacks[-1:].expand(missing, -1, -1, -1, -1)])
        return list(torch.split(stacks, self.batch))

    def _call_network(
        self, function: Callable[[torch.Tensor], Output], part: torch.Tensor, advice: str
    ) -> Output:
        def call() -> Output:
            with torch.inference_mode(), _convolving(self.cudnn_benchmark):
                is_to_pin = self.device.type == "cuda" and part.device.type == "cpu"
                given = part.pin_memory() if is_to_pin else part
                return function(given.to(self.device, torch.float32, non_blocking=True))

        num_stacks, *shape = part.shape
        return within_memory(
            call,
            self.device,
            f"not enough memory on {self.device} for {format_count(num_stacks, 'stack')} of "
            f"{'x'.join(map(str, shape))}; {advice}",
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
    """Build the network of a weights file, or of a folder, and load all its tensors.

    path: `.safetensors`, or `.pt` with a state dict, flat or under "unet_state_dict", of MAISI's class; or a
    folder in which diffusers has saved an AutoencoderKL. settings: how frames become stacks, and the
    precision, which is `auto` only if it computes here. computes_here: False where only other processes
    compute: the network stays in the CPU's memory, whether or not that could compute it.
    cudnn_benchmark: let cuDNN choose its algorithms by timing them, and with them the last bits of a latent.
    Raises DeviceError for a device that does not exist or lacks the precision, WeightsError for a file that
    cannot be read or does not fit, naming the tensors, and TimingError for a stack length that the network
    cannot process.
    """
    keep_freed_memory()
    autoencoder = load_folder(path) if path.is_dir() else MaisiAutoencoder(*load_network(path))
    device = resolve_device(device) if computes_here else "cpu"
    return FrozenVAE(
        autoencoder,
        settings,
        batch=batch,
        device=device,
        precision=resolve_precision(settings.precision, device) if computes_here else settings.precision,
        cudnn_benchmark=cudnn_benchmark,
    )
