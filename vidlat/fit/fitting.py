"""Training the VAE itself: from a linear start, or fine-tuning the weights of any AutoencoderKlMaisi."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidlat.config import FitVAEConfig
from vidlat.encode.device import resolve_device
from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import TINY_NETWORK, build_network, bypass_wrappers, compression_of, require_size
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import load_network, write_weights
from vidlat.errors import ConfigError, DecodeError, TrainError
from vidlat.fit.linear_start import start_from_pca
from vidlat.fit.stacks import TrainingStacks
from vidlat.paths import local_path
from vidlat.pipeline.discover import discover_videos
from vidlat.timing import Timing
from vidlat.train.optimisation import learning_rate, set_learning_rate, start_average, update_average
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared
from vidlat.video.writer import prepare_file

SMALL_MSE = 1e-5
"""Added to each stack's mean squared error: black stacks, far above 50 dB, must not dominate the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRead:
    """A video was read for its stacks.

    number: counts from 1 to num_sources. num_stacks, num_videos: stacks held so far, and videos long enough
    for one. failure: why this video was left out.
    """

    video_id: str
    number: int
    num_sources: int
    num_stacks: int
    num_videos: int
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitStep:
    """A training step. mse: geometric mean over its stacks, latents drawn from the posterior."""

    step: int
    loss: float
    mse: float
    learning_rate: float


def fit_vae(
    inputs: Sequence[str | Path], out: str | Path, settings: FitVAEConfig
) -> Iterator[VideoRead | FitStep]:
    """Train a VAE on videos and write it to `out`, yielding each video read and then each step.

    inputs: files, folders, glob patterns or manifests. The averaged weights are written every `save_every`
    steps and at the end. Raises, when called, ConfigError, DeviceError, WeightsError, ShapeError or
    InputError; and, when iterated, TrainError if no video is long enough or the loss is not finite.
    """
    out = local_path(out)
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: weights are written as .safetensors; give such a name")
    init = resolve_weights(settings.init) if settings.init else None
    resolve_device(settings.device)
    _load_network(settings, init)
    sources = discover_videos([str(text) for text in inputs]).videos
    prepare_file(out)
    return _read_and_fit(sources, out, settings, init)


def _read_and_fit(
    sources: Sequence[InputVideo], out: Path, settings: FitVAEConfig, init: Path | None
) -> Iterator[VideoRead | FitStep]:
    stacks = TrainingStacks(settings)
    for number, source in enumerate(sources, 1):
        failure = None
        try:
            frames = read_prepared(source.path, source.selection, settings)
            stacks.add_video(frame.pixels for frame in frames)
        except DecodeError as error:
            failure = str(error)
        yield VideoRead(
            video_id=source.video_id,
            number=number,
            num_sources=len(sources),
            num_stacks=len(stacks),
            num_videos=stacks.num_videos,
            failure=failure,
        )
    yield from fit_to_stacks(stacks, out, settings, init)


def fit_to_stacks(
    stacks: TrainingStacks, out: Path, settings: FitVAEConfig, init: Path | None = None
) -> Iterator[FitStep]:
    """Train on stacks, starting from the weights in `init` or else from their PCA, and write to `out`.

    The loss is the mean log of each stack's squared error, so that every stack counts by its PSNR, plus the
    divergence of the posterior from a standard normal (Kingma and Welling 2014, appendix B).
    """
    if not len(stacks):
        raise TrainError(f"no video with at least {settings.stack} frames to train on")
    torch.manual_seed(settings.seed)
    keep_freed_memory()
    device = resolve_device(settings.device)
    network, network_settings = _load_network(settings, init)
    bypass_wrappers(network)
    if init is None:
        start_from_pca(network, stacks.pca(network_settings["latent_channels"]))
    # Channels last: a seventh faster to train on a CPU, the layout of tensor cores on a GPU.
    network = network.to(device, memory_format=torch.channels_last_3d).train()
    average = start_average(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    for step in range(1, settings.steps + 1):
        loss, log_mse = _loss(network, stacks.draw(step).to(device), settings.kl_weight)
        if not torch.isfinite(loss):
            raise TrainError(f"step {step}: the loss is {loss.item()}; try a lower --learning-rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rate = learning_rate(settings, step - 1)
        set_learning_rate(optimiser, rate)
        optimiser.step()
        update_average(average, network, settings.ema_decay, step - 1)
        if step % settings.save_every == 0 or step == settings.steps:
            write_weights(out, average.state_dict(), network_settings, [settings.stack])
        yield FitStep(step=step, loss=loss.item(), mse=math.exp(log_mse.item()), learning_rate=rate)


def _loss(network: Any, target: torch.Tensor, kl_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of stacks (N, 1, S, H, W), and its first term, the mean log of their squared errors."""
    mean, std = network.encode(target)
    reconstruction = network.decode(mean + std * torch.randn_like(std))
    log_mse = (reconstruction - target).square().mean(dim=(1, 2, 3, 4)).add(SMALL_MSE).log().mean()
    divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
    return log_mse + kl_weight * divergence, log_mse


def _load_network(settings: FitVAEConfig, init: Path | None) -> tuple[Any, dict[str, Any]]:
    """The network to train and its settings; raises ShapeError or ConfigError if it refuses stack or size."""
    network, network_settings = load_network(init) if init else (build_network(TINY_NETWORK), TINY_NETWORK)
    compression = compression_of(network)
    Timing(stack=settings.stack, compression=compression)  # raises ShapeError
    require_size(settings.size, compression)
    return network, network_settings
