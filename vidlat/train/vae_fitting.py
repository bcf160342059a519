"""Training the VAE itself: from a linear start, or fine-tuning the weights of any AutoencoderKlMaisi."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vidlat.config import FitVAEConfig
from vidlat.encode.device import resolve_device
from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network, bypass_wrappers, compression_of
from vidlat.encode.vae import check_stack
from vidlat.encode.weights_file import load_strictly, read_weights, write_weights
from vidlat.errors import ConfigError, TrainError
from vidlat.train.averaging import start_average, update_average
from vidlat.train.learning_rate import learning_rate, set_learning_rate
from vidlat.train.vae_start import BlockMoments, Components, start_from_components

MSE_FLOOR = 1e-5
"""Mean squared error below which a stack earns nothing more (50 dB): a black stack must not rule the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """One step of fitting: `psnr` in dB of this step's stacks, latents drawn from the posterior."""

    step: int
    loss: float
    psnr: float
    learning_rate: float


class StackCollection:
    """Training stacks in bounded memory: an even draw from everything shown, and the moments of all of it."""

    def __init__(self, config: FitVAEConfig) -> None:
        self._config = config
        self._random = np.random.default_rng(config.seed)
        self._stacks: list[npt.NDArray[np.uint8]] = []
        self._num_seen = 0
        self.num_videos = 0
        self._moments = BlockMoments(0, np.zeros(64), np.zeros((64, 64)))

    def add_video(self, frames: Iterable[npt.NDArray[np.float32]]) -> None:
        """Take a video's frames, each (size, size) in [0, 1]; those after the last whole stack are unused.

        `num_videos` counts the videos that gave a stack.
        """
        pending: list[npt.NDArray[np.float32]] = []
        num_seen_before = self._num_seen
        for frame in frames:
            pending.append(frame)
            if len(pending) == self._config.stack:
                self.num_videos += self._num_seen == num_seen_before
                self._add_stack(np.stack(pending))
                pending.clear()

    def _add_stack(self, stack: npt.NDArray[np.float32]) -> None:
        self._moments += BlockMoments.of_frames(stack)
        # Reservoir sampling (Vitter 1985, algorithm R): every stack seen is held with the same probability.
        held = (stack * 255).round().astype(np.uint8)
        if len(self._stacks) < self._config.max_stacks:
            self._stacks.append(held)
        elif (place := self._random.integers(self._num_seen + 1)) < len(self._stacks):
            self._stacks[place] = held
        self._num_seen += 1

    def __len__(self) -> int:
        return len(self._stacks)

    def components(self, num_components: int) -> Components:
        """The PCA of all 4x4x4 blocks shown."""
        return self._moments.principal_components(num_components)

    def draw(self, step: int) -> torch.Tensor:
        """The stacks of one step, (batch, 1, S, H, W) float32 in [0, 1], mirrored and dimmed at random.

        Depends on the seed and the step alone.
        """
        random = np.random.default_rng((self._config.seed, step))
        batch = []
        for index in random.integers(len(self._stacks), size=self._config.batch):
            stack = self._stacks[index].astype(np.float32) / 255
            for axis in range(3):
                if random.random() < 0.5:
                    stack = np.flip(stack, axis)
            batch.append(stack * random.uniform(0.6, 1.2))
        return torch.from_numpy(np.stack(batch)).clamp(0, 1)[:, None]


def fit_vae(
    stacks: StackCollection, config: FitVAEConfig, out: Path, init: Path | None
) -> Iterator[FitRecord]:
    """Train and write the averaged weights to `out` every `save_every` steps and at the end.

    The loss is the mean log of each stack's squared error, so that every stack counts by its PSNR, plus the
    divergence of the posterior from a standard normal (Kingma and Welling 2014, appendix B).
    Raises TrainError where there is nothing to train on or the loss is no number.
    """
    if not len(stacks):
        raise TrainError(f"no video with at least {config.stack} frames to train on")
    torch.manual_seed(config.seed)
    keep_freed_memory()
    device = resolve_device(config.device)
    network, settings = _build(stacks, config, init)
    # Channels last: a seventh faster to train on a CPU, the layout of tensor cores on a GPU.
    network = network.to(device, memory_format=torch.channels_last_3d).train()
    average = start_average(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.0)
    for step in range(1, config.steps + 1):
        target = stacks.draw(step).to(device)
        mean, std = network.encode(target)
        reconstruction = network.decode(mean + std * torch.randn_like(std))
        log_mse = (reconstruction - target).square().mean(dim=(1, 2, 3, 4)).add(MSE_FLOOR).log().mean()
        divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        loss = log_mse + config.kl_weight * divergence
        if not torch.isfinite(loss):
            raise TrainError(f"step {step}: the loss is {loss.item()}; try a lower --learning-rate")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rate = learning_rate(config, step - 1)
        set_learning_rate(optimiser, rate)
        optimiser.step()
        update_average(average, network, config.ema_decay, step - 1)
        if step % config.save_every == 0 or step == config.steps:
            write_weights(out, average.state_dict(), settings)
        yield FitRecord(
            step=step, loss=loss.item(), psnr=-10 / math.log(10) * log_mse.item(), learning_rate=rate
        )


def check_fit(config: FitVAEConfig, init: Path | None) -> None:
    """Find out before any video is read what would stop the fit.

    Raises DeviceError for a device that is not there, WeightsError for an `init` that does not load,
    ShapeError and ConfigError for a stack and a size that the network cannot take.
    """
    resolve_device(config.device)
    _load(config, init)


def _build(stacks: StackCollection, config: FitVAEConfig, init: Path | None) -> tuple[Any, dict[str, Any]]:
    network, settings = _load(config, init)
    network = bypass_wrappers(network)
    if init is None:
        start_from_components(network, stacks.components(settings["latent_channels"]))
    return network, settings


def _load(config: FitVAEConfig, init: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    if init is not None:
        tensors, changes = read_weights(init)
        settings = {**MAISI_NETWORK, **changes}
        network = build_network(settings)
        load_strictly(network, tensors, init)
    else:
        settings = TINY_NETWORK
        network = build_network(settings)
    compression = compression_of(network)
    check_stack(config.stack, compression)
    if config.size % compression:
        raise ConfigError(f"size: got {config.size}; expected a multiple of {compression} for this VAE")
    return network, settings
