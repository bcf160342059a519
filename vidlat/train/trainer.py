"""The training loop: a generator of step records. Printing and progress bars stay outside.

Everything random follows from the seed, the step and the item's index (see seeding.py), so all that a
resumed run needs is the checkpoint's state.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from vidlat.config import TrainConfig
from vidlat.encode.device import resolve_precision
from vidlat.encode.memory import keep_freed_memory
from vidlat.errors import TrainError
from vidlat.prefetch import prefetch
from vidlat.store.reader import LatentCache
from vidlat.train.averaging import start_average, update_average
from vidlat.train.checkpoint import (
    TrainState,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    validation_loss_of,
)
from vidlat.train.dataset import Batch, LatentDataset
from vidlat.train.learning_rate import learning_rate, set_learning_rate
from vidlat.train.noising import Draws, NoisedBatch, Noising
from vidlat.train.notes import notes_on, notes_on_new_end
from vidlat.train.ranks import Ranks
from vidlat.train.recorder import Recorder, StepRecord
from vidlat.train.run import BuildModel, Run, hold_run, read_run, resume_run, start_run, write_run
from vidlat.train.unet import build_unet
from vidlat.train.windows import Window, training_windows, validation_windows
from vidlat.types import Annotation

NUM_AHEAD = 2
"""Steps whose latents and noise are made while the network is at work."""

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
        labels: Mapping[str, Annotation] = MappingProxyType({}),
        build_model: BuildModel = build_unet,
    ) -> None:
        keep_freed_memory()
        self._is_to_stop = False
        self.ranks = Ranks(config.device)
        self.device = self.ranks.device
        _require_divisible(config, self.ranks.count)
        if resume:
            self.run = resume_run(config, cache, run_dir, labels)
        elif self.ranks.is_first:
            precision = resolve_precision(config.precision, self.device.type)
            resolved = TrainConfig.from_mapping(config.to_dict() | {"precision": precision})
            self.run = Run.plan(resolved, cache, labels)
        self.run_dir, self.cache = run_dir, cache
        # The others change nothing in the folder.
        self._lock = hold_run(run_dir) if self.ranks.is_first else ExitStack()
        try:
            if not resume:
                self._start()
            elif self.ranks.is_first:
                remove_partial_checkpoints(self._checkpoint_dir)
            self.config = self.run.config
            self._make_ready(cache, build_model, resume)
        except BaseException:  # a traceback may keep this object alive: the folder is free all the same
            self.close()
            raise

    def _start(self) -> None:
        """One plan for all processes: the cache may be growing while they start."""
        if self.ranks.is_first:
            start_run(self.run_dir, self.run)
        self.ranks.wait()
        if not self.ranks.is_first:
            self.run = read_run(self.run_dir)

    def _make_ready(self, cache: LatentCache, build_model: BuildModel, resume: bool) -> None:
        self._noising = Noising(self.config, self.run.conditions)
        records, self._shape = cache.records(), self.run.window_shape()
        self._training = [records[video_id] for video_id in self.run.training]
        self._validation = [records[video_id] for video_id in self.run.validation]
        self._dataset = LatentDataset(
            cache,
            self._training + self._validation,
            self._shape,
            self.run.whitening,
            self.config.latents_as,
            features=self.run.features(),
        )
        self.state = self._initial_state(build_model)
        if checkpoints := list_checkpoints(self._checkpoint_dir):
            load_checkpoint(checkpoints[-1], self.state)
        best = best_checkpoint(self._checkpoint_dir)
        self._best_loss = validation_loss_of(best) if best else math.inf
        self._require_same_step()
        if self.config.compile:
            self.state.model.compile()  # in place: names of weights stay
        self._network = self.ranks.wrap(self.state.model)
        self.notes = notes_on(self.run, self._training)
        if resume and self.state.step < self.config.steps:
            planned = read_run(self.run_dir).config.steps
            self.notes += notes_on_new_end(planned, self.config.steps, self.state.step)
            if self.ranks.is_first:
                write_run(self.run_dir, self.run)

    def _require_same_step(self) -> None:
        step = self.state.step
        if self.ranks.total(torch.tensor(float(step), device=self.device)) != step * self.ranks.count:
            raise TrainError(f"{self.run_dir}: the processes see other checkpoints there; share one folder")

    def close(self) -> None:
        """Let other trainers into the run's folder."""
        self._lock.close()

    def estimate_seconds_per_step(self) -> float:
        """Time forward and backward passes of the next step, twice, without changing anything."""
        (drawn,) = self._drawn([self.state.step])
        noised = self._noised(*drawn)
        seconds = 0.0
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            self._backward(noised)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - began
            self.state.optimiser.zero_grad()
        return seconds

    def steps(self) -> Iterator[StepRecord]:
        """Train from where the state is to the configured number of steps, or until `stop`.

        Every process yields the same records; the first one writes them down. Raises TrainError when the loss
        or its gradient is not finite, before that step changes a weight.
        """
        with ExitStack() as stack:
            recorder = None
            if self.ranks.is_first:
                recorder = stack.enter_context(closing(Recorder(self.run_dir, self.state.step)))
            drawn = self._drawn(range(self.state.step, self.config.steps))
            began = time.perf_counter()
            for batch, draws in stack.enter_context(prefetch(drawn, NUM_AHEAD)):
                waited = time.perf_counter() - began
                record = self._update(self._noised(batch, draws))
                seconds = time.perf_counter() - began
                record = dataclasses.replace(record, steps_per_second=1 / seconds, data_wait=waited / seconds)
                if self._is_due(self.config.validate_every):
                    record = dataclasses.replace(record, validation_loss=self._validate())
                is_last = self._all_stop()
                if recorder:
                    recorder.write(record)
                    is_due = is_last or self._is_due(self.config.checkpoint_every)
                    if is_due or self._is_best(record.validation_loss):
                        recorder.sync()
                        self._save(record.validation_loss)
                yield record
                if is_last:
                    self._is_to_stop = False
                    return
                began = time.perf_counter()

    def stop(self) -> None:
        """End `steps` after the step under way, with a checkpoint; may be called by a signal's handler."""
        self._is_to_stop = True

    def _all_stop(self) -> bool:
        """Whether any process is to stop: then all do, after the same step."""
        if self.ranks.count == 1:
            return self._is_to_stop
        return bool(self.ranks.total(torch.tensor(float(self._is_to_stop), device=self.device)))

    def _drawn(self, steps: Iterable[int]) -> Generator[tuple[Batch, Draws]]:
        """This process's part of each step.

        Made in another thread, and so without torch: on a CPU its threads, in two teams, would wait for each
        other a third of the time.
        """
        for batch in self._dataset.batches(map(self._windows, steps)):
            yield batch, self._noising.training_draws(batch)

    def _noised(self, batch: Batch, draws: Draws) -> NoisedBatch:
        return self._noising.noised(batch.to(self.device), draws, min_snr=self.config.min_snr)

    def _is_best(self, validation_loss: float | None) -> bool:
        return validation_loss is not None and validation_loss < self._best_loss

    def _save(self, validation_loss: float | None) -> None:
        if validation_loss is not None:
            self._best_loss = min(self._best_loss, validation_loss)
        save_checkpoint(
            self._checkpoint_dir, self.state, keep=self.config.keep, validation_loss=validation_loss
        )

    def _update(self, noised: NoisedBatch) -> StepRecord:
        """One optimiser step."""
        state, rate = self.state, learning_rate(self.config, self.state.step)
        set_learning_rate(state.optimiser, rate)
        loss = self._backward(noised)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), self.config.clip_norm)
        record = StepRecord(
            step=state.step + 1,
            loss=loss.item(),
            learning_rate=rate,
            grad_norm=norm.item(),
            steps_per_second=0.0,
            data_wait=0.0,
        )
        self._require_finite(record)
        state.optimiser.step()
        state.optimiser.zero_grad()
        update_average(state.ema, state.model, self.config.ema_decay, state.step)
        state.step += 1
        return record

    def _backward(self, noised: NoisedBatch) -> torch.Tensor:
        """The gradients of the global batch's loss, in parts; returns that loss.

        A sum of squared errors over the number of values that count in all parts of all processes, which each
        of them knows before it begins: so no part and no process weighs more than its values do.
        """
        count = self.ranks.total(noised.num_counted)
        parts = list(noised.split(self.config.accumulate))
        error = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.ranks.apart(self._network) if number < len(parts) else nullcontext():
                part_error = part.squared_error(self._predict(self._network, part))
                # Gradients come as the mean over the processes.
                (part_error * (self.ranks.count / count)).backward()  # type: ignore[no-untyped-call]
            error += part_error.detach()
        return self.ranks.total(error) / count

    def _predict(self, network: nn.Module, noised: NoisedBatch) -> torch.Tensor:
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            prediction: torch.Tensor = network(noised.inputs, noised.timestep, noised.features)
        return prediction

    @torch.no_grad()
    def _validate(self) -> float | None:
        """The averaged weights' loss, always on the same windows, noise and timesteps; processes share it."""
        if not self._validation:
            return None
        windows = validation_windows(
            self._validation, self._shape, seed=self.config.seed, num_windows=NUM_VALIDATION_WINDOWS
        )
        evenly = [(index + 0.5) / len(windows) for index in range(len(windows))]
        size = max(self.config.batch // (self.config.accumulate * self.ranks.count), 1)
        mine = [slice(start, start + size) for start in range(0, len(windows), size)]
        mine = mine[self.ranks.index :: self.ranks.count]
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for part, batch in zip(mine, self._dataset.batches(windows[part] for part in mine), strict=True):
            draws = self._noising.validation_draws(batch, evenly[part])
            noised = self._noising.noised(batch.to(self.device), draws)
            error = noised.squared_error(self._predict(self.state.ema, noised))
            totals += torch.stack([error, noised.num_counted])
        sum_of_errors, num_counted = self.ranks.total(totals)
        loss = float(sum_of_errors / num_counted)
        if not math.isfinite(loss):
            raise TrainError(
                f"step {self.state.step}: the validation loss is {loss}; last good checkpoint: "
                f"{self._last_good()}; start a new run with a lower --learning-rate or --precision float32"
            )
        return loss

    def _windows(self, step: int) -> list[Window]:
        """This process's part of a step's windows."""
        config, size = self.config, self.config.batch // self.ranks.count
        return training_windows(
            self._training,
            self._shape,
            seed=config.seed,
            step=step,
            batch=config.batch,
            items=range(self.ranks.index * size, (self.ranks.index + 1) * size),
        )

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.config.steps

    @property
    def _checkpoint_dir(self) -> Path:
        return self.run_dir / "checkpoints"

    def _initial_state(self, build_model: BuildModel) -> TrainState:
        # The networks' own initialisation draws from torch's global generator: lend it one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = self.run.build_network(build_model)
        if self.config.checkpoint_activations:
            model.checkpoints_activations = True  # type: ignore[assignment]
        model.to(self.device)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        return TrainState(model=model, ema=start_average(model), optimiser=optimiser)

    def _require_finite(self, record: StepRecord) -> None:
        if math.isfinite(record.loss) and math.isfinite(record.grad_norm):
            return
        config = self.config
        windows = training_windows(
            self._training, self._shape, seed=config.seed, step=record.step - 1, batch=config.batch
        )
        raise TrainError(
            f"step {record.step}: the loss is {record.loss}, its gradient's norm {record.grad_norm}; "
            f"last good checkpoint: {self._last_good()}; "
            f"videos of the batch: {', '.join(window.video_id for window in windows)}; "
            "look at these videos, or start a new run with a lower --learning-rate or --precision float32"
        )

    def _last_good(self) -> str:
        checkpoints = list_checkpoints(self._checkpoint_dir)
        return str(checkpoints[-1]) if checkpoints else "none yet"


def _require_divisible(config: TrainConfig, num_ranks: int) -> None:
    parts = num_ranks * config.accumulate
    if config.batch % parts:
        raise TrainError(
            f"batch: got {config.batch}, which {num_ranks} processes of {config.accumulate} parts cannot "
            f"share; the nearest is {max(round(config.batch / parts), 1) * parts}"
        )
