"""Latents of any length from a trained run, in batches of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vidlat.config import Precision, SampleConfig
from vidlat.encode.device import has_bfloat16, resolve_precision
from vidlat.resources import are_threads_given
from vidlat.sample.guidance import GuidedDenoiser
from vidlat.sample.network_calls import NetworkCalls
from vidlat.sample.sampler import Sampler, num_steps_for, sampling_noise
from vidlat.train.objectives.objective import OBJECTIVES
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.train.threads import FEWEST_STEPS, fastest, seconds_by_threads


class ClipSampler:
    """Samples whitened latents from the averaged weights of a run, as the settings say.

    device: where the network runs; unless the settings give a batch size, it is 1 on a CPU and 8 on a GPU.
    The network computes in the precision that it was trained in, unless they give another.
    Raises DeviceError for a precision that the device lacks.
    """

    def __init__(self, trained: TrainedRun, settings: SampleConfig, device: torch.device) -> None:
        self._run, self._settings, self._device = trained.run, settings, device
        precision = sampling_precision(settings.precision, trained.run.config.precision, device.type)
        self._network = NetworkCalls(trained.model.to(device), precision)
        self._batch = settings.batch or (1 if device.type == "cpu" else 8)
        objective = OBJECTIVES[trained.run.config.objective]
        self._sampler = Sampler(
            objective=objective,
            method=settings.sampler,
            num_steps=num_steps_for(objective, settings.steps),
            shift=trained.run.config.shift,
        )

    def sample(
        self,
        seeds: Sequence[int],
        num_frames: int,
        *,
        conditions: Sequence[Sequence[str]] | None = None,
        first_frames: Tensor | None = None,
        attempt: int = 0,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Tensor]:
        """Yield the whitened latents (L, t, h, w) float32 of each seed, on the CPU, for `num_frames` frames.

        conditions: those of each sample, `NAME=VALUE`; by default those of the settings. first_frames: the
        given first latent frames of each, whitened (N, L, K, h, w). attempt: another one draws the noise of
        each seed anew. on_progress: called with the number of samples computed since, which may be a
        fraction. Raises ConfigError for a condition that the run does not know, and NotEnoughMemoryError
        where memory does not suffice for a single sample.

        The last batch is filled up, so a sample depends on its seed alone, whatever other seeds there are.
        Only where memory runs out, and calls of the network become smaller, may its last bits differ.
        Clips longer than a training clip are sampled clip by clip, each continuing the one before, if the run
        was trained with first-frame conditioning; else in overlapping windows (see `GuidedDenoiser`).
        """
        shape = self._run.window_shape()
        length = shape.timing.num_latent_frames(num_frames)
        num_clips, window = 1, shape.num_latent_frames
        if self._run.config.first_frame and length > window:
            num_clips += -(-(length - window) // (window - shape.covering(self._run.config.first_frames)))
        if not seeds:  # all samples of a folder are there already
            return
        features = self._features(conditions or [self._settings.condition] * len(seeds))
        for start in range(0, len(seeds), self._batch):
            rows = [min(start + place, len(seeds) - 1) for place in range(self._batch)]
            num = min(self._batch, len(seeds) - start)
            latents = self._sample_batch(
                [seeds[row] for row in rows],
                length,
                num_clips,
                None if features is None else features[rows].to(self._device),
                None if first_frames is None else first_frames[rows].to(self._device),
                attempt,
                partial(on_progress, num / (num_clips * self._sampler.num_steps)),
            )
            yield from latents[:num, :, :length].cpu()

    def choose_threads(self, num_samples: int) -> Mapping[int, float]:
        """Let torch compute with the number of threads that is fastest on this CPU, before many steps.

        Returns the seconds of a step by number; nothing where nothing was tried: for few samples, on a GPU,
        and where OMP_NUM_THREADS says the number. Another number changes the last bits of samples.
        """
        is_long = num_samples * self._sampler.num_steps >= FEWEST_STEPS
        if self._device.type != "cpu" or are_threads_given() or not is_long:
            return {}
        seeds, window = [0] * self._batch, self._run.window_shape().num_latent_frames
        features, one_step = self._features([()] * self._batch), replace(self._sampler, num_steps=1)
        tried = seconds_by_threads(
            lambda: self._sample_clip(seeds, window, features, None, (0, 0), lambda: None, one_step)
        )
        torch.set_num_threads(fastest(tried))
        return tried

    def _features(self, conditions: Sequence[Sequence[str]]) -> Tensor | None:
        """(N, D), or None for a run without conditions."""
        known = self._run.conditions
        features = torch.from_numpy(np.stack([known.parse(texts) for texts in conditions]))
        return features if known.num_features else None

    def _sample_batch(
        self,
        seeds: Sequence[int],
        length: int,
        num_clips: int,
        features: Tensor | None,
        first_frames: Tensor | None,
        attempt: int,
        on_step: Callable[[], None],
    ) -> Tensor:
        shape = self._run.window_shape()
        window, num_given = shape.num_latent_frames, self._run.config.first_frames
        again = shape.covering(num_given)
        first_length = length if num_clips == 1 else window
        latents = self._sample_clip(seeds, first_length, features, first_frames, (0, attempt), on_step)
        for clip in range(1, num_clips):
            # Given are the first frames of the last stacks, as at the start of a clip that is trained on: the
            # VAE's calls begin there. What else these stacks hold is sampled again.
            earlier, last = latents[:, :, :-again], latents[:, :, -again:]
            continued = self._sample_clip(
                seeds, window, features, last[:, :, :num_given], (clip, attempt), on_step
            )
            latents = torch.cat([earlier, continued], dim=2)
        return latents

    def _sample_clip(
        self,
        seeds: Sequence[int],
        length: int,
        features: Tensor | None,
        first_frames: Tensor | None,
        noise_key: tuple[int, int],
        on_step: Callable[[], None],
        sampler: Sampler | None = None,
    ) -> Tensor:
        """One clip (B, L, length, h, w) per seed; noise_key: its number and the attempt, with the seed that
        of its noise. sampler: by default that of the settings.
        """
        run, shape = self._run, self._run.window_shape()
        denoiser = GuidedDenoiser(
            network=self._network,
            window=shape.num_latent_frames,
            stride=max(shape.num_stacks // 2, 1) * shape.timing.latent_step,
            features=features,
            guidance=self._settings.guidance,
            guidance_interval=self._settings.guidance_interval,
            takes_first_frame=run.config.first_frame > 0,
            first_frames=first_frames,
        )
        latent_dim, _, height, width = run.latent_shape()
        noise = sampling_noise(seeds, (latent_dim, length, height, width), *noise_key).to(self._device)
        latents = (sampler or self._sampler).sample(denoiser, noise, on_step)
        if first_frames is not None:
            given = first_frames[:, :, :length]
            latents[:, :, : given.shape[2]] = given
        return latents


def sampling_precision(asked: Precision, trained: Precision, device: str) -> str:
    """float32 or bfloat16; `auto` is that of the training, but float32, which is more exact, if a CPU must.

    Raises DeviceError for bfloat16 on a CPU without it.
    """
    if asked == "auto" and not has_bfloat16(device):
        return "float32"
    return resolve_precision(trained if asked == "auto" else asked, device)
