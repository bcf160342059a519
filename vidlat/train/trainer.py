"""The training loop: a generator of step records. Printing and progress bars stay outside.

Everything random follows from the seed, the step and the item's index (see seeding.py), so a checkpoint's
state is all that a resumed run needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import MappingProxyType

import torch

from vidlat.config import TrainConfig
from vidlat.encode.device import resolve_precision
from vidlat.encode.memory import keep_freed_memory
from vidlat.errors import TrainError
from vidlat.labels.matching import match_labels
from vidlat.prefetch import prefetch
from vidlat.resources import are_threads_given
from vidlat.store.reader import LatentCache
from vidlat.store.storage.interface import Unreachable
from vidlat.train.data.dataset import Batch, LatentDataset
from vidlat.train.data.windows import Window, training_windows, validation_windows
from vidlat.train.early_stopping import BestValidation
from vidlat.train.networks.compiled import is_compiled
from vidlat.train.networks.unet import build_unet
from vidlat.train.objectives.noising import Draws, NoisedBatch, Noising
from vidlat.train.objectives.timesteps import Times, validation_times, validation_times_as_trained
from vidlat.train.optimisation import Optimisation
from vidlat.train.ranks import Ranks, cores_of_rank
from vidlat.train.recorder import Recorder, StepRecord, finite
from vidlat.train.runs.checkpoint import (
    TrainState,
    add_validation_loss,
    best_checkpoint,
    how_to_go_on,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    unvalidated_of,
    validation_loss_of,
)
from vidlat.train.runs.checkpoint_list import last_step, list_checkpoints, step_of
from vidlat.train.runs.frozen_model import BuildModel
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.notes import change_note, notes_on_subjects, run_notes
from vidlat.train.runs.power_averages import remove_snapshots_after
from vidlat.train.runs.resuming import resume_run
from vidlat.train.runs.run_folder import (
    checkpoint_folder,
    hold_run,
    read_run,
    snapshot_folder,
    start_run,
    write_run,
)
from vidlat.train.runs.warm_start import planned_from, read_origin, read_source, take_weights
from vidlat.train.skipped import SkippedSteps
from vidlat.train.threads import (
    ENOUGH_SECONDS,
    FEWEST_STEPS,
    MOST_PASSES,
    fastest,
    in_words,
    seconds_by_threads,
)
from vidlat.train.trackers import Trackers, require_installed
from vidlat.train.unread_steps import NUM_BEHIND, ReadStep, UnreadSteps
from vidlat.types import Annotation

NUM_PREFETCHED = 2
"""Steps whose latents and noise are computed while the network works."""

NUM_VALIDATION_WINDOWS = 64
"""Windows per validation, each at a fixed timestep; costs as much as about three training steps of 8."""


ValidationPart = tuple[list[Window], list[Times]]
"""Windows and their times."""


class Trainer:
    """A run that is ready to train: whatever prevents it is raised here, before the first step.

    labels: rows of a table, see `match_labels`; they override those in the cache. notes: what the user should
    know, one line each.

    Holds the run's folder until it is closed or dropped. Raises TrainError for a folder that another trainer
    holds, that already holds a run (without `resume`) or none (with it), for a run whose settings or videos
    differ from those it was started with, and for a cache that cannot be trained on; InputError for labels of
    no video; ConfigError for a setting of a new run that has no effect.
    """

    def __init__(
        self,
        settings: TrainConfig,
        cache: LatentCache,
        run_dir: Path,
        *,
        resume: bool = False,
        labels: Mapping[str, Annotation] = MappingProxyType({}),
        build_model: BuildModel = build_unet,
    ) -> None:
        keep_freed_memory()
        if not resume:
            settings.require_effect()
        self._should_stop = False
        self._outage: Unreachable | None = None
        self.notes: tuple[str, ...] = ()
        self.cache, self.run_dir = cache, run_dir
        self._checkpoints = checkpoint_folder(run_dir)
        self.ranks = Ranks(settings.device)
        self.device = self.ranks.device
        self._num_behind = NUM_BEHIND if self.device.type == "cuda" else 0
        _require_divisible(settings, self.ranks.count)
        require_installed(settings.tracker)
        if labels:
            match = match_labels(labels, cache.sources())
            self.notes += tuple(match.lines())
            labels = match.rows
        if resume:
            self.run = resume_run(settings, cache, run_dir, labels)
        elif self.ranks.is_first:
            precision = resolve_precision(settings.precision, str(self.device))
            resolved = TrainConfig.from_mapping(settings.to_dict() | {"precision": precision})
            self.run = Run.plan(resolved, cache, labels)
            if name := resolved.init or resolved.distil:
                self.run = planned_from(self.run, read_source(name, build_model))
        if resume:
            resolve_precision(self.run.config.precision, str(self.device))  # perhaps on another machine
        # Only the first process writes into the folder.
        self._lock = hold_run(run_dir) if self.ranks.is_first else ExitStack()
        try:
            if not resume:
                self._start()
            elif self.ranks.is_first:
                remove_partial_checkpoints(self._checkpoints)
                remove_snapshots_after(snapshot_folder(run_dir), last_step(self._checkpoints))
            self.settings = self.run.config
            self._skipped = SkippedSteps(self.settings.max_skipped)
            self._prepare_data()
            self._prepare_network(build_model)
            if not resume:  # a table of labels may not be given again
                self.notes += tuple(notes_on_subjects(self.run, cache, labels))
            self.notes += tuple(run_notes(self.run, self._training, num_videos=len(cache.records())))
            if resume and self.state.step < self.settings.steps and not self.stopped_early:
                self._keep_changes()
        except BaseException:  # a traceback may keep this object alive, and with it the lock
            self.close()
            raise

    def _start(self) -> None:
        """Let all processes follow one plan, because the cache may grow while they start."""
        if self.ranks.is_first:
            start_run(self.run_dir, self.run)
        self.ranks.wait()
        if not self.ranks.is_first:
            self.run = read_run(self.run_dir)

    def _prepare_data(self) -> None:
        records, self._shape = self.cache.records(), self.run.window_shape()
        self._training = [records[video_id] for video_id in self.run.training]
        self._validation = [records[video_id] for video_id in self.run.validation]
        self._dataset = LatentDataset(
            self.cache,
            self._training + self._validation,
            self._shape,
            self.run.whitening,
            self.settings.latents_as,
            features=self.run.features(),
            with_noise=True,
            # On a CPU the cores are the network's, which takes less than one thread computes.
            num_threads=cores_of_rank() if self.device.type == "cuda" else 1,
            pinned=self.device.type == "cuda",
        )
        self._noising = Noising(self.settings, self.run.conditions)

    def _prepare_network(self, build_model: BuildModel) -> None:
        # Initialisation draws from torch's global generator, whose state is restored afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = self.run.build_network(build_model)
        checkpoints, teacher = list_checkpoints(self._checkpoints), None
        if self.run.origin and (self.settings.distil or not checkpoints):
            source = read_origin(self.run.origin, build_model, distils=self.settings.distil is not None)
            teacher = source.network if self.settings.distil else None
            if not checkpoints:
                self._add_note(take_weights(network, source, self.run))
        self._optimisation = Optimisation(network, self.settings, self.ranks, self._add_note, teacher)
        if checkpoints:
            load_checkpoint(checkpoints[-1], self.state)
        self._unvalidated = unvalidated_of(checkpoints[-1], StepRecord.from_fields) if checkpoints else None
        step, best = self.state.step, best_checkpoint(self._checkpoints)
        self.best = BestValidation(
            every=self.settings.validate_every,
            patience=self.settings.patience if self._validation else 0,
            step=step_of(best) if best else step,
            loss=validation_loss_of(best) if best else math.inf,
        )
        if self.ranks.total(torch.tensor(float(step), device=self.device)) != step * self.ranks.count:
            raise TrainError(
                f"{self.run_dir}: the processes see different checkpoints; they must share the folder"
            )

    def _add_note(self, note: str) -> None:
        if note not in self.notes:
            self.notes += (note,)

    def _keep_changes(self) -> None:
        """Write the settings that the run continues with, and note those that it had not before."""
        known = read_run(self.run_dir).changes
        self.notes += tuple(change_note(change) for change in self.run.changes if change not in known)
        if self.ranks.is_first:
            write_run(self.run_dir, self.run)

    @property
    def state(self) -> TrainState:
        """The weights, their average, the optimiser and the number of finished steps."""
        return self._optimisation.state

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken, or it was stopped early, and no validation was interrupted."""
        return self.stopped_early or (self.state.step >= self.settings.steps and self._unvalidated is None)

    @property
    def stopped_early(self) -> bool:
        """Whether there was no lower validation loss for as many validations as the settings bear."""
        return self._unvalidated is None and self._is_out_of_patience()

    def _is_out_of_patience(self) -> bool:
        return self.state.step < self.settings.steps and self.best.is_too_long_ago(self.state.step)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called, and `steps` has not ended yet."""
        return self._should_stop

    def close(self) -> None:
        """Release the run's folder."""
        self._lock.close()

    def choose_threads(self) -> None:
        """Let torch compute with the run's number of threads; a new run tries which is fastest, and keeps it.

        It is kept because sums of other numbers of threads differ in their last bits: a resumed run is to be
        as if it had not been interrupted. Only where one process trains on a CPU, and OMP_NUM_THREADS does
        not say it. The trial changes nothing else.
        """
        if self.device.type != "cpu" or self.ranks.count > 1 or are_threads_given():
            return
        is_new = self.state.step == 0 and self.settings.steps >= FEWEST_STEPS
        if not self.settings.threads and is_new and not is_compiled(self.settings.compile, self.device):
            self._try_threads()
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)

    def _try_threads(self) -> None:
        ((batch, draws),) = self.batches([0])
        noised = self.noised(batch, draws)
        tried = seconds_by_threads(lambda: self._optimisation.compute_gradients(noised))
        self.state.optimiser.zero_grad()
        self.settings = replace(self.settings, threads=fastest(tried))
        self.run = replace(self.run, config=self.settings)
        write_run(self.run_dir, self.run)
        self._add_note(
            f"{in_words(tried)}; the run keeps --threads {self.settings.threads} "
            "(OMP_NUM_THREADS overrules it)"
        )

    def estimate_seconds_per_step(self) -> float:
        """Measure the forward and backward pass of the next step; changes nothing."""
        ((batch, draws),) = self.batches([self.state.step])
        noised = self.noised(batch, draws)
        seconds = self._seconds_of(lambda: self._optimisation.compute_gradients(noised))
        self.state.optimiser.zero_grad()
        return seconds

    def estimate_seconds_per_validation(self) -> float:
        """Measure a part of a validation; changes nothing. 0 without validation videos."""
        parts = self._validation_parts()
        if not parts:
            return 0.0
        return (
            len(parts)
            * (1 if self._trains_evenly else 2)
            * self._seconds_of(lambda: self._validation_totals(parts[:1]))
        )

    def num_validations_left(self) -> int:
        """Number of validations until the configured number of steps, with one that was interrupted."""
        num_interrupted = 0 if self._unvalidated is None else 1
        if not self._validation or self.state.step >= self.settings.steps:
            return num_interrupted
        every, steps = self.settings.validate_every, self.settings.steps
        return num_interrupted + steps // every - self.state.step // every + (steps % every > 0)

    def _seconds_of(self, compute: Callable[[], object]) -> float:
        """The mean seconds of a few calls, after one that warms up."""
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) <= MOST_PASSES and sum(seconds[1:]) < ENOUGH_SECONDS):
            began = time.perf_counter()
            compute()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - began)
        return fmean(seconds[1:])

    def steps(self) -> Iterator[StepRecord]:
        """Train from the present state to the configured number of steps, an early stop, or until `stop`.

        Every process yields the same records; the first one writes them. A step whose loss or gradient is not
        finite is skipped; raises TrainError if more than `max_skipped` in a row are.

        A step whose validation is interrupted is saved, and neither recorded nor yielded: a resumed run
        begins with that validation. Raises Unreachable, after a checkpoint, if the store of the latents does
        not answer.
        """
        with ExitStack() as stack:
            recorder = None
            if self.ranks.is_first:
                settings = self.settings.to_dict()
                trackers = Trackers(self.settings.tracker, self.run_dir, settings)
                recorded = self.state.step if self._unvalidated is None else self.state.step - 1
                recorder = stack.enter_context(closing(Recorder(self.run_dir, recorded, settings, trackers)))
            if self._unvalidated:
                record = self._validate_again(recorder, self._unvalidated)
                if record is None:
                    return
                yield record
            if self.stopped_early:
                return
            unread = UnreadSteps()
            batches = self.batches(range(self.state.step, self.settings.steps))
            stack.enter_context(self._saving_in_an_outage(recorder, unread))
            for batch, draws in unread.waiting(stack.enter_context(prefetch(batches, NUM_PREFETCHED))):
                figures = self._optimisation.compute_gradients(self.noised(batch, draws), self._should_stop)
                learning_rate = self._optimisation.apply_gradients(figures)
                unread.add(self.state.step, learning_rate, figures)
                records = _records(unread.read(0 if self._is_interrupted() else self._num_behind))
                if self._is_due(self.settings.validate_every):
                    last = records.pop()
                    if validated := self._validated(last):
                        records.append(validated)
                    else:
                        self._unvalidated = last
                # What another process asks for comes with the figures.
                is_last = self._should_stop if self.ranks.count == 1 else unread.should_stop
                is_last = is_last or self._unvalidated is not None or self.stopped_early
                if is_last:
                    records += _records(unread.read(0))
                if recorder:
                    recorder.write(records)
                self._skipped.require_few(records, self._advise)
                if self.state.averages and recorder and self._is_due(self.settings.average_snapshots):
                    self.state.averages.write_snapshot(snapshot_folder(self.run_dir), self.state.step)
                if recorder:
                    self._save_if_due(recorder, records[-1].validation_loss if records else None, is_last)
                yield from records
                if is_last:
                    self._should_stop = False
                    if self._outage:
                        raise self._outage
                    return
                if not len(unread):
                    unread.restart_clock()

    def stop(self) -> None:
        """End `steps` after the current step, or batch of a validation, with a checkpoint.

        A signal handler may call this.
        """
        self._should_stop = True

    def batches(self, steps: Iterable[int]) -> Generator[tuple[Batch, Draws]]:
        """Yield this process's part of each step, and everything random about it.

        They are prefetched in other threads, and so computed without those of torch: on a CPU the two pools
        would wait for each other a third of the time.
        """
        ranks, seed, size = self.ranks, self.settings.seed, self.settings.batch // self.ranks.count
        plans = (
            training_windows(
                self._training, self._shape, seed=seed, step=step,
                batch=size, rank=ranks.index, num_ranks=ranks.count,
            )
            for step in steps
        )  # fmt: skip
        for batch in self._dataset.batches(plans):
            yield batch, self._noising.draws(batch)

    def noised(self, batch: Batch, draws: Draws) -> NoisedBatch:
        """The noised batch of a training step, on the device."""
        return self._noising.noised(batch.to(self.device), draws, min_snr=self.settings.min_snr)

    @torch.no_grad()
    def validation_loss(self, *, as_trained: bool = False) -> float | None:
        """The loss of the averaged weights on fixed windows, noise and timesteps, shared among the processes.

        as_trained: with timesteps, and min-SNR weights, as in training, in place of timesteps spread evenly.
        None without validation videos, and where `stop` interrupts it. Raises TrainError if it is not finite.
        """
        if not self._validation:
            return None
        min_snr = self.settings.min_snr if as_trained else 0.0
        totals = self._validation_totals(self._validation_parts(as_trained), min_snr)
        sum_of_errors, num_counted, num_interrupted = self.ranks.total(totals)
        if num_interrupted:
            return None
        loss = float(sum_of_errors / num_counted)
        if not math.isfinite(loss):
            raise TrainError(
                f"step {self.state.step}: the validation loss is {loss}; {how_to_go_on(self._checkpoints)}"
            )
        return loss

    @property
    def _trains_evenly(self) -> bool:
        settings = self.settings
        is_even = settings.timesteps == "uniform" and settings.shift == 1
        return is_even and not (settings.min_snr or settings.takes_span)

    def _validation_parts(self, as_trained: bool = False) -> list[ValidationPart]:
        """This process's share of a validation, in parts of as many windows as are trained on at once."""
        if not self._validation:
            return []
        windows = validation_windows(
            self._validation, self._shape, seed=self.settings.seed, num_windows=NUM_VALIDATION_WINDOWS
        )
        spread = validation_times_as_trained if as_trained else validation_times
        times = spread(len(windows), self.settings)
        size = max(self.settings.batch // (self.settings.accumulate * self.ranks.count), 1)
        parts = [slice(start, start + size) for start in range(0, len(windows), size)]
        return [(windows[part], times[part]) for part in parts[self.ranks.index :: self.ranks.count]]

    @torch.no_grad()
    def _validation_totals(self, parts: Sequence[ValidationPart], min_snr: float = 0.0) -> torch.Tensor:
        """The sum of squared errors, the number of values that count, and 1 if `stop` interrupted it.

        (3,) float64.
        """
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        batches = self._dataset.batches(windows for windows, _ in parts)
        for (_, times), batch in zip(parts, batches, strict=True):
            if self._should_stop:
                totals[2] = 1
                break
            draws = self._noising.draws(batch, times)
            noised = self._noising.noised(batch.to(self.device), draws, min_snr=min_snr)
            totals[:2] += torch.stack([self._optimisation.validation_error(noised), noised.num_counted])
        return totals

    @contextmanager
    def _saving_in_an_outage(self, recorder: Recorder | None, unread: UnreadSteps) -> Iterator[None]:
        """Save the steps so far if the latents of the next one cannot be read for want of an answer."""
        try:
            yield
        except Unreachable as error:
            if error is self._outage or not recorder or self.state.step == last_step(self._checkpoints):
                raise
            recorder.write(_records(unread.read(0)))
            self._save_if_due(recorder, None, is_last=True)
            raise self._told_of_the_checkpoint(error) from None

    def _told_of_the_checkpoint(self, error: Unreachable) -> Unreachable:
        if not self.ranks.is_first:  # which saves, unless it fails for want of this process
            return error
        saved = f"the run is saved after step {self.state.step}: the same command with --resume continues"
        return Unreachable(f"{error}; {saved}")

    def _validated(self, record: StepRecord) -> StepRecord | None:
        """The record of the present step with the losses of its validation; None if it is interrupted."""
        try:
            loss = self.validation_loss()
            as_trained = loss if self._trains_evenly else self.validation_loss(as_trained=True)
        except Unreachable as error:  # raised when the step is saved
            self._outage = self._told_of_the_checkpoint(error)
            return None
        if self._validation and None in (loss, as_trained):
            return None
        if loss is None:
            return record
        self.best.take(record.step, loss)
        return replace(
            record,
            validation_loss=loss,
            validation_loss_as_trained=as_trained,
            stopped_early=self._is_out_of_patience() or None,
        )

    def _validate_again(self, recorder: Recorder | None, record: StepRecord) -> StepRecord | None:
        """Record the present step, whose validation was interrupted; None if it is interrupted again."""
        validated = self._validated(record)
        if self._outage:
            raise self._outage
        if validated is None or validated.validation_loss is None:
            self._should_stop = False
            return None
        if recorder:
            recorder.write([validated])
            recorder.sync()
            add_validation_loss(list_checkpoints(self._checkpoints)[-1], validated.validation_loss)
        self._unvalidated = None
        return validated

    def _is_due(self, every: int) -> bool:
        """Whether something is due after the present step; every: 0 for never but at the end."""
        return self.state.step == self.settings.steps or (every > 0 and self.state.step % every == 0)

    def _is_interrupted(self) -> bool:
        """Whether a validation, a checkpoint or samples of the present weights come next."""
        settings = self.settings
        return any(
            map(self._is_due, (settings.validate_every, settings.checkpoint_every, settings.sample_every))
        )

    def _save_if_due(self, recorder: Recorder, loss: float | None, is_last: bool) -> None:
        is_best = loss is not None and self.best.step == self.state.step
        if not (is_last or is_best or self._is_due(self.settings.checkpoint_every)):
            return
        recorder.sync()
        save_checkpoint(
            self._checkpoints,
            self.state,
            keep=self.settings.keep,
            validation_loss=loss,
            unvalidated=finite(self._unvalidated.to_dict()) if self._unvalidated else None,
        )

    def _advise(self, record: StepRecord) -> str:
        windows = training_windows(
            self._training,
            self._shape,
            seed=self.settings.seed,
            step=record.step - 1,
            batch=self.settings.batch,
        )
        videos = ", ".join(window.video_id for window in windows)
        way_on = how_to_go_on(self._checkpoints)
        return f"videos of the batch: {videos}; look at these videos, or {way_on}"


def _records(steps: Iterable[ReadStep]) -> list[StepRecord]:
    """The metrics of steps from the figures of `Optimisation.compute_gradients`."""
    return [
        StepRecord(
            step=read.step,
            loss=read.figures[0],
            learning_rate=read.learning_rate,
            grad_norm=read.figures[1],
            steps_per_second=read.steps_per_second,
            data_wait=read.data_wait,
        )
        for read in steps
    ]


def _require_divisible(settings: TrainConfig, num_ranks: int) -> None:
    parts = num_ranks * settings.accumulate
    if settings.batch % parts:
        nearest = max(round(settings.batch / parts), 1) * parts
        raise TrainError(
            f"batch: got {settings.batch}; expected a multiple of {parts} ({num_ranks} processes of "
            f"{settings.accumulate} parts each): the nearest is {nearest}"
        )
