"""Samples of a trained run as latents, of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vidlat.config import SampleConfig
from vidlat.encode.vae import FrozenVAE
from vidlat.train.run import TrainedRun
from vidlat.train.sampler import sample_latents
from vidlat.train.steering import steer

_SampleClip = Callable[[int, torch.Tensor | None, int], torch.Tensor]
"""One clip of each sample, from its latent frames, what is given as for `draw`, and the clip's number."""


def draw(
    trained: TrainedRun,
    vae: FrozenVAE,
    config: SampleConfig,
    seeds: Sequence[int],
    num_frames: int,
    given: torch.Tensor | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> torch.Tensor:
    """Latents (N, L, t, h, w) float32 of `num_frames` frames, one sample a seed, drawn on the VAE's device.

    given: the whitened first latent frame of each, (N, L, h, w). More frames than a training clip has are
    drawn clip by clip, each going on from the end of the one before, where the run has learnt to go on from
    frames (`first_frame`), and else in windows that fade into each other. on_progress: called now and then
    with the samples drawn since, or the parts of one.
    """
    run = trained.run
    window, step = run.window_shape().num_latent_frames, run.window_shape().stack_length
    length = -(-num_frames // run.schema.settings.stack) * step
    num_clips = 1
    if run.config.first_frame and length > window:
        num_clips += -(-(length - window) // (window - step))
    sample = _clip_sampler(trained, vae, config, seeds, lambda share: on_progress(share / num_clips))
    latents = sample(length if num_clips == 1 else window, given, 0)
    for clip in range(1, num_clips):
        # The last stack's first frame is known: the others of that stack are drawn again with what follows.
        last = run.whitening.whiten(latents[:, :, -step:])[:, :, 0]
        latents = torch.cat([latents[:, :, :-step], sample(window, last, clip)], dim=2)
    return latents[:, :, :length]


def _clip_sampler(
    trained: TrainedRun,
    vae: FrozenVAE,
    config: SampleConfig,
    seeds: Sequence[int],
    on_progress: Callable[[float], None],
) -> _SampleClip:
    """Draws the clips of some samples, as the settings say."""
    run, shape = trained.run, trained.run.window_shape()
    latent_dim, window, height, width = run.latent_shape()
    network, conditions = trained.model.to(vae.device), run.conditions
    features = torch.from_numpy(conditions.parse(config.condition)) if conditions.num_features else None

    def sample(length: int, given: torch.Tensor | None, clip: int) -> torch.Tensor:
        model = steer(
            network,
            window=window,
            stride=max(window // 2 // shape.stack_length, 1) * shape.stack_length,
            features=features,
            guidance=config.guidance,
            takes_given=run.config.first_frame > 0,
            is_given=given is not None,
        )
        return sample_latents(
            model,
            objective=run.config.objective,
            whitening=run.whitening,
            shape=(latent_dim, length, height, width),
            seeds=seeds,
            num_steps=config.steps,
            sampler=config.sampler,
            shift=run.config.shift,
            given=given,
            clip=clip,
            batch=batch_of(config, vae),
            device=vae.device,
            on_step=lambda count: on_progress(count / config.steps),
        )

    return sample


def batch_of(config: SampleConfig, vae: FrozenVAE) -> int:
    """Samples that are drawn at once."""
    return config.batch or (1 if vae.device.type == "cpu" else 8)
