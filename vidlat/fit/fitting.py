"""Training the VAE itself: from a linear start, or fine-tuning the weights of any AutoencoderKlMaisi."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vidlat.config import FitVAEConfig
from vidlat.encode.autoencoder import require_size
from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import (
    TINY_NETWORK,
    build_network,
    bypass_wrappers,
    compression_of,
    small_network,
)
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import load_network, write_weights
from vidlat.errors import ConfigError, DecodeError, TrainError, one_line
from vidlat.fit.linear_start import start_from_pca
from vidlat.fit.run import FitStep
from vidlat.fit.stacks import TrainingStacks
from vidlat.fit.unfinished import UnfinishedFit
from vidlat.paths import local_path
from vidlat.pipeline.discover import discover_videos
from vidlat.timing import Timing
from vidlat.train.checkpoint import TrainState
from vidlat.train.optimisation import learning_rate, set_learning_rate, start_average, update_average
from vidlat.train.seeding import Draw, Stream, normal
from vidlat.train.transfer import tensor_to_device
from vidlat.train.unread_steps import NUM_BEHIND, OnItsWay
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared
from vidlat.video.writer import prepare_file

SMALL_MSE = 1e-5
"""Added to each stack's mean squared error: black stacks, far above 50 dB, must not dominate the loss."""

MEAN_SHARE = 0.05
"""The part of a step that the mean of a kernel makes."""


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


def fit_vae(
    inputs: Sequence[str | Path], out: str | Path, settings: FitVAEConfig, *, resume: bool = False
) -> Generator[VideoRead | FitStep]:
    """Train a VAE on videos and write it to `out`, yielding each video read and then each step.

    inputs: files, folders, glob patterns or manifests. resume: continue an unfinished fit, bit for bit where
    machine and device are the same. The averaged weights and a checkpoint are written every `save_every`
    steps, and when the iterator is closed; at the end the checkpoint is removed.
    Raises, when called, ConfigError, DeviceError, WeightsError, InputError, or TrainError where
    there is nothing to resume, or `out` or an unfinished fit of it without `resume`; and, when iterated,
    TrainError if another process fits to `out`, no video is long enough, the loss is not finite, or an
    unfinished fit had other videos.
    """
    out = local_path(out)
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: weights are written as .safetensors; give such a name")
    unfinished = UnfinishedFit(out)
    if resume:
        settings = unfinished.continued_with(settings)
    else:
        unfinished.require_none()
    init = resolve_weights(settings.init) if settings.init else None
    precision = resolve_precision(settings.precision, resolve_device(settings.device))
    settings = FitVAEConfig.from_mapping(settings.to_dict() | {"precision": precision})
    _load_network(settings, init)
    sources = discover_videos([str(text) for text in inputs]).videos
    prepare_file(out)
    return _hold_and_fit(sources, out, settings, init, resume)


def _hold_and_fit(
    sources: Sequence[InputVideo], out: Path, settings: FitVAEConfig, init: Path | None, resume: bool
) -> Generator[VideoRead | FitStep]:
    with UnfinishedFit(out).held():
        stacks = TrainingStacks(settings)
        yield from _read(sources, stacks, settings)
        yield from fit_to_stacks(stacks, out, settings, init, resume=resume)


def _read(
    sources: Sequence[InputVideo], stacks: TrainingStacks, settings: FitVAEConfig
) -> Generator[VideoRead]:
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


def fit_to_stacks(
    stacks: TrainingStacks,
    out: Path,
    settings: FitVAEConfig,
    init: Path | None = None,
    *,
    resume: bool = False,
) -> Generator[FitStep]:
    """Train on stacks, starting from the weights in `init` or else from their PCA, and write to `out`.

    resume: continue the unfinished fit of `out`, whose settings these are.
    """
    if not len(stacks):
        raise TrainError(f"no video with at least {settings.stack} frames to train on")
    keep_freed_memory()
    unfinished, device = UnfinishedFit(out), resolve_device(settings.device)
    state, network_settings = _start(stacks, settings, init, device)
    if resume:
        unfinished.load(state, stacks.hash())
    else:
        unfinished.start(settings, stacks.hash())
    unread = deque[_UnreadStep]()
    while state.step < settings.steps:
        unread.append(_take_step(state, tensor_to_device(stacks.draw(state.step + 1), device), settings))
        is_last, is_saved = state.step == settings.steps, state.step % settings.save_every == 0
        records = list(_records(unread, 0 if is_last or is_saved else _num_behind(device)))
        if is_last or is_saved:
            _write(out, state.ema, network_settings, settings)
        if is_last:
            unfinished.remove()
        elif is_saved:
            unfinished.save(state)
        try:
            yield from records
        except GeneratorExit:
            if not (is_last or is_saved):
                deque(_records(unread, 0), maxlen=0)  # no state is saved whose figures are not finite
                unfinished.save(state)
            raise


def _write(out: Path, network: nn.Module, network_settings: dict[str, Any], settings: FitVAEConfig) -> None:
    try:
        write_weights(out, network.state_dict(), network_settings, sorted(settings.call_lengths))
    except OSError as error:
        raise TrainError(f"{out}: the weights cannot be written: {one_line(error)}") from error


def _start(
    stacks: TrainingStacks, settings: FitVAEConfig, init: Path | None, device: str
) -> tuple[TrainState, dict[str, Any]]:
    """The state before the first step, and the network's settings."""
    torch.manual_seed(settings.seed)
    network, network_settings = _load_network(settings, init)
    bypass_wrappers(network)
    if init is None:
        start_from_pca(network, stacks.pca(network_settings["latent_channels"]))
    # Channels last: a seventh faster to train on a CPU, the layout of tensor cores on a GPU.
    network = network.to(device, memory_format=torch.channels_last_3d).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    state = TrainState(model=network, ema=start_average(network), optimiser=optimiser)
    if settings.checkpoint_activations:
        _checkpoint_activations(network)
    return state, network_settings


def _checkpoint_activations(network: Any) -> None:
    """Let each block keep its input alone, and compute what is inside again in the backward pass."""
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


@dataclass(frozen=True, slots=True)
class _UnreadStep:
    """A step that was asked of a device. figures: its loss, log MSE, and norm of the gradient."""

    step: int
    learning_rate: float
    figures: OnItsWay


def _num_behind(device: str) -> int:
    """Steps that a device may be behind the host."""
    return NUM_BEHIND if device.startswith("cuda") else 0


def _records(unread: deque[_UnreadStep], num_left: int) -> Iterator[FitStep]:
    """The oldest steps, all but the last `num_left`; raises TrainError at one that is not finite."""
    while len(unread) > num_left:
        oldest = unread.popleft()
        loss, log_mse, norm = oldest.figures.wait()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainError(
                f"step {oldest.step}: the loss is {loss}, its gradient's norm {norm}; try a lower "
                "--learning-rate"
            )
        yield FitStep(
            step=oldest.step, epoch=0.0, loss=loss, mse=math.exp(log_mse), learning_rate=oldest.learning_rate
        )


def _take_step(state: TrainState, target: torch.Tensor, settings: FitVAEConfig) -> _UnreadStep:
    """Change the weights by one step on stacks (N, 1, S, H, W), without waiting for a GPU."""
    rate = learning_rate(settings, state.step)
    loss, log_mse = _loss(state.model, target, settings, state.step)
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    set_learning_rate(state.optimiser, rate)
    _step_smoothly(state)
    average, weights = list(state.ema.parameters()), list(state.model.parameters())
    update_average(average, weights, settings.ema_decay, state.step)
    state.step += 1
    return _UnreadStep(state.step, rate, OnItsWay(torch.stack([loss.detach(), log_mse.detach(), norm])))


@torch.no_grad()
def _step_smoothly(state: TrainState) -> None:
    """A step of the optimiser that moves the mean of each kernel less than its shape.

    Pictures are smooth, so that all taps of a kernel see nearly the same, and AdamW, which moves each weight
    equally far, moves their sum much too far: 300 steps that begin at a PCA of 16 components end 1.2 dB
    higher with this than without.
    """
    kernels = [p for p in state.model.parameters() if p.ndim == 5 and p.shape[-1] > 1]
    before = [kernel.clone() for kernel in kernels]
    state.optimiser.step()
    for kernel, old in zip(kernels, before, strict=True):
        kernel.sub_((kernel - old).mean(dim=(2, 3, 4), keepdim=True), alpha=1 - MEAN_SHARE)


def _loss(
    network: Any, target: torch.Tensor, settings: FitVAEConfig, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of stacks (N, 1, S, H, W), and its first term. step: counted from 0.

    The mean log of each stack's squared error, so that every stack counts by its PSNR; the same for its
    changes from frame to frame, also between the calls that it is cut into; and the divergence of the
    posterior from a standard normal (Kingma and Welling 2014, appendix B).
    """
    lengths = settings.call_lengths
    # One channel: frames that follow each other are side by side in memory, and so are the parts.
    calls = target.reshape(-1, 1, lengths[step % len(lengths)], *target.shape[-2:])
    with torch.autocast(target.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        mean, std = (values.float() for values in network.encode(calls))
        noise = normal((settings.seed, Stream.TRAINING, step, 0), Draw.POSTERIOR, tuple(std.shape))
        decoded = network.decode(mean + std * tensor_to_device(torch.from_numpy(noise), std.device))
    error = decoded.float().reshape(target.shape) - target
    log_mse = _mean_log_square(error)
    divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
    loss = log_mse + settings.kl_weight * divergence
    if settings.change_weight and target.shape[2] > 1:
        loss = loss + settings.change_weight * _mean_log_square(error.diff(dim=2))
    return loss, log_mse


def _mean_log_square(error: torch.Tensor) -> torch.Tensor:
    """The mean log of each stack's mean square."""
    return error.square().mean(dim=(1, 2, 3, 4)).add(SMALL_MSE).log().mean()


def _load_network(settings: FitVAEConfig, init: Path | None) -> tuple[Any, dict[str, Any]]:
    """The network to train and its settings; raises ConfigError if it refuses a setting."""
    if init is None:
        network_settings = small_network(settings.latent_dim or TINY_NETWORK["latent_channels"])
        network: Any = build_network(network_settings)
    else:
        network, network_settings = load_network(init)
    latent_dim = network_settings["latent_channels"]
    if settings.latent_dim not in (None, latent_dim):
        raise ConfigError(
            f"latent_dim: got {settings.latent_dim}, but the weights of --init have {latent_dim}; "
            "leave out one of the two"
        )
    compression = compression_of(network)
    for length in settings.call_lengths:
        Timing(stack=length, compression=compression)  # raises TimingError
    require_size(settings.size, compression)
    if settings.patch:
        require_size(settings.patch, compression, "patch")
    return network, network_settings
