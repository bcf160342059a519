"""The training loop: a generator of step records. Printing and progress bars stay outside.

Everything random follows from the seed, the step and the item's index (see seeding.py), so all that a
resumed run needs is the checkpoint's state.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vidlat.config import TrainConfig
from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.encode.memory import keep_freed_memory
from vidlat.errors import TrainError
from vidlat.store.reader import LatentCache
from vidlat.train.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from vidlat.train.dataset import Batch, LatentDataset
from vidlat.train.objective import masked_squared_error, target
from vidlat.train.recorder import Recorder, StepRecord
from vidlat.train.run import BuildModel, Run, hold_run, read_run, resume_run, start_run, write_run
from vidlat.train.scheduler import NoiseScheduler
from vidlat.train.seeding import Draw, generator, normal
from vidlat.train.unet import build_unet
from vidlat.train.windows import Window, training_windows, validation_windows

NUM_VALIDATION_WINDOWS = 64
"""Windows of one validation, each at its own fixed timestep: the cost of some three training steps of 8."""


def train(
    config: TrainConfig, cache: LatentCache, run_dir: Path, *, resume: bool = False
) -> Iterator[StepRecord]:
    """Train into a run's folder, one record a step; raises TrainError as `Trainer` does."""
    return Trainer(config, cache, run_dir, resume=resume).steps()


class Trainer:
    """A run made ready: refused here, before anything is trained, or good to go.

    It holds its folder until it is closed or dropped. Raises TrainError for a folder that another trainer
    holds, for one that holds a run (without `resume`) or none (with it), for a run whose settings or videos
    differ from those it was started with, and for a cache that cannot be trained on.
    notes: what the user should know before the first step, one line each.
    """

    def __init__(
        self,
        config: TrainConfig,
        cache: LatentCache,
        run_dir: Path,
        *,
        resume: bool = False,
        build_model: BuildModel = build_unet,
    ) -> None:
        keep_freed_memory()
        self.device = torch.device(resolve_device(config.device))
        if resume:
            self.run = resume_run(config, cache, run_dir)
        else:
            precision = resolve_precision(config.precision, self.device.type)
            resolved = TrainConfig.from_mapping(config.to_dict() | {"precision": precision})
            self.run = Run.plan(resolved, cache)
        self.config, self.run_dir = self.run.config, run_dir
        self._lock = hold_run(run_dir)
        try:
            self._make_ready(cache, build_model, resume)
        except BaseException:  # a traceback may keep this object alive: the folder is free all the same
            self.close()
            raise

    def _make_ready(self, cache: LatentCache, build_model: BuildModel, resume: bool) -> None:
        if not resume:
            start_run(self.run_dir, self.run)
        self._scheduler = NoiseScheduler(self.config.objective)
        records, self._shape = cache.records(), self.run.window_shape()
        self._training = [records[video_id] for video_id in self.run.training]
        self._validation = [records[video_id] for video_id in self.run.validation]
        self._dataset = LatentDataset(
            cache,
            self._training + self._validation,
            self._shape,
            self.run.whitening,
            self.config.latents_as,
        )
        self.state = self._initial_state(build_model)
        if checkpoints := list_checkpoints(self._checkpoint_dir):
            load_checkpoint(checkpoints[-1], self.state)
        self.notes = self._notes()
        if resume and self.state.step < self.config.steps:
            self.notes += self._note_new_end(read_run(self.run_dir).config.steps)
            write_run(self.run_dir, self.run)

    def close(self) -> None:
        """Let other trainers into the run's folder."""
        self._lock.close()

    def estimate_seconds_per_step(self) -> float:
        """Time forward and backward passes of the next step, twice, without changing anything."""
        batch = next(self._dataset.batches([self._windows(self.state.step)])).to(self.device)
        seconds = 0.0
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            self._training_loss(batch).backward()  # type: ignore[no-untyped-call]
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - began
            self.state.optimiser.zero_grad()
        return seconds

    def steps(self) -> Iterator[StepRecord]:
        """Train from where the state is to the configured number of steps.

        Raises TrainError when the loss or its gradient is not finite, before that step changes a weight.
        """
        recorder = Recorder(self.run_dir, self.state.step)
        try:
            plans = (self._windows(step) for step in range(self.state.step, self.config.steps))
            began = time.perf_counter()
            for batch in self._dataset.batches(plans):
                record = self._update(batch.to(self.device))
                seconds = time.perf_counter() - began
                record = dataclasses.replace(record, steps_per_second=1 / seconds)
                if self._is_due(self.config.validate_every):
                    record = dataclasses.replace(record, validation_loss=self._validate())
                recorder.write(record)
                if self._is_due(self.config.checkpoint_every):
                    recorder.sync()
                    save_checkpoint(self._checkpoint_dir, self.state)
                yield record
                began = time.perf_counter()
        finally:
            recorder.close()

    def _update(self, batch: Batch) -> StepRecord:
        """One optimiser step."""
        state, rate = self.state, learning_rate(self.config, self.state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        loss = self._training_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), self.config.clip_norm)
        record = StepRecord(
            step=state.step + 1,
            loss=loss.item(),
            learning_rate=rate,
            grad_norm=norm.item(),
            steps_per_second=0.0,
        )
        self._require_finite(record, batch)
        state.optimiser.step()
        state.optimiser.zero_grad()
        update_average(state.ema, state.model, self.config.ema_decay, state.step)
        state.step += 1
        return record

    def _training_loss(self, batch: Batch) -> torch.Tensor:
        timesteps = [generator(key, Draw.TIMESTEP).random() for key in batch.keys]
        error, count = self._squared_error(self.state.model, batch, timesteps)
        return error / count

    @torch.no_grad()
    def _validate(self) -> float | None:
        """The averaged weights' loss, always on the same windows, noise and timesteps."""
        if not self._validation:
            return None
        windows = validation_windows(
            self._validation, self._shape, seed=self.config.seed, num_windows=NUM_VALIDATION_WINDOWS
        )
        size = self.config.batch
        plans = [windows[start : start + size] for start in range(0, len(windows), size)]
        evenly = [(index + 0.5) / len(windows) for index in range(len(windows))]
        errors, counts = 0.0, 0.0
        for start, batch in zip(range(0, len(windows), size), self._dataset.batches(plans), strict=True):
            timesteps = evenly[start : start + size]
            error, count = self._squared_error(self.state.ema, batch.to(self.device), timesteps)
            errors, counts = errors + error.item(), counts + count.item()
        return errors / counts

    def _squared_error(
        self, model: nn.Module, batch: Batch, timesteps: list[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise the batch and compare the prediction with its target, over the frames that count."""
        x0 = batch.latents
        drawn = np.stack([normal(key, Draw.NOISE, tuple(x0.shape[1:])) for key in batch.keys])
        noise = torch.from_numpy(drawn).to(self.device)
        timestep = torch.tensor(timesteps, dtype=torch.float32, device=self.device)
        alpha, sigma = self._scheduler.levels(timestep)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            prediction = model(alpha * x0 + sigma * noise, timestep)
        wanted = target(self.config.objective, x0, noise, alpha, sigma)
        return masked_squared_error(prediction, wanted, batch.mask)

    def _windows(self, step: int) -> list[Window]:
        config = self.config
        return training_windows(self._training, self._shape, seed=config.seed, step=step, batch=config.batch)

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.config.steps

    @property
    def _checkpoint_dir(self) -> Path:
        return self.run_dir / "checkpoints"

    def _initial_state(self, build_model: BuildModel) -> TrainState:
        # The networks' own initialisation draws from torch's global generator: lend it one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = build_model(self.config.preset, self.run.schema.latent_dim)
        model.to(self.device)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        ema = copy.deepcopy(model).requires_grad_(False).eval()
        return TrainState(model=model, ema=ema, optimiser=optimiser)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if not self._validation:
            notes.append("no video is held out: there will be no validation loss")
        length = self._shape.num_latent_frames
        short = sum(self._shape.num_valid(record) < length for record in self._training)
        if short:
            notes.append(
                f"{short} of {len(self._training)} training videos are shorter than {self.config.frames} "
                "frames: their last frame is repeated and carries no loss"
            )
        return tuple(notes)

    def _note_new_end(self, planned: int) -> tuple[str, ...]:
        steps = self.config.steps
        if steps == planned:
            return ()
        return (
            f"the run was to end at step {planned} and now ends at {steps}: from step {self.state.step + 1} "
            f"its learning rate follows the cosine that falls to 0 at {steps}, not the one it began with",
        )

    def _require_finite(self, record: StepRecord, batch: Batch) -> None:
        if math.isfinite(record.loss) and math.isfinite(record.grad_norm):
            return
        checkpoints = list_checkpoints(self._checkpoint_dir)
        raise TrainError(
            f"step {record.step}: the loss is {record.loss}, its gradient's norm {record.grad_norm}; "
            f"last good checkpoint: {checkpoints[-1] if checkpoints else 'none yet'}; "
            f"videos of the batch: {', '.join(batch.video_ids)}; "
            "look at these videos, or start a new run with a lower --learning-rate or --precision float32"
        )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step counted from 0: linear warm-up, then a half cosine down to 0 at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the running average towards the model; a young one moves faster, else it would keep its start."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)
