"""The training of a VAE: a generator of what is read and then of steps. Printing stays outside.

Everything random follows from the seed, the step and the item (see train/data/seeding.py), so a checkpoint's
state is all that a resumed training needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vidlat.config import FitVAEConfig
from vidlat.encode.device import resolve_precision
from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import build_network, bypass_wrappers, compression_of
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import hash_weights, load_network, write_weights
from vidlat.errors import ConfigError, DecodeError, TrainError, one_line
from vidlat.fit.continuing import steps_of
from vidlat.fit.linear_start import start_from_pca
from vidlat.fit.optimisation import FitOptimisation
from vidlat.fit.perceptual import load_perceptual
from vidlat.fit.plan import NOT_VALIDATED, Split, plan_network, plan_split, split_notes
from vidlat.fit.resuming import resume_fit, videos_of
from vidlat.fit.run import WEIGHTS, FitRun, FitStep, read_plan
from vidlat.fit.stacks import TrainingStacks
from vidlat.fit.validation import MOST_FRAMES, HeldOutClips
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import prepare_decoded_folder
from vidlat.pipeline.discover import discover_videos
from vidlat.prefetch import prefetch
from vidlat.train.data.seeding import Draw, Stream, normal
from vidlat.train.data.transfer import tensor_to_device
from vidlat.train.ranks import Ranks
from vidlat.train.recorder import Recorder
from vidlat.train.runs.checkpoint import (
    TrainState,
    best_checkpoint,
    how_to_go_on,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    validation_loss_of,
)
from vidlat.train.runs.checkpoint_list import list_checkpoints
from vidlat.train.runs.notes import change_note
from vidlat.train.runs.run_folder import (
    checkpoint_folder,
    hold_run,
    require_no_checkpoint,
    start_run,
    write_run,
)
from vidlat.train.skipped import SkippedSteps
from vidlat.train.trackers import Trackers, require_installed
from vidlat.train.unread_steps import NUM_BEHIND, ReadStep, UnreadSteps
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared

NUM_PREFETCHED = 2
"""Steps whose stacks and noise are computed while the network works."""

LEAST_BETWEEN = 100
"""Steps between the validations at the ends of epochs, at least: those of a few clips are short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRead:
    """A video was read, to train on or to validate.

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
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: FitVAEConfig,
    *,
    resume: bool = False,
    labels: str | Path | None = None,
) -> Generator[VideoRead | FitStep]:
    """Train a VAE on videos into the run folder `out`, yielding each video read and then each step.

    See `VAETrainer`, whose arguments and errors these are; the first are raised when this is called.
    """
    trainer = VAETrainer(inputs, out, settings, resume=resume, labels=labels)
    return _read_and_train(trainer)


def _read_and_train(trainer: VAETrainer) -> Generator[VideoRead | FitStep]:
    with closing(trainer):
        yield from trainer.read()
        yield from trainer.steps()


class VAETrainer:
    """A VAE's training: `read` the videos, then take its `steps`.

    inputs: files, folders, glob patterns or manifests. resume: continue the training in the folder, bit for
    bit where machine and device are the same. labels: a table by video id, for the split; what a training
    was started with stays. notes: what the user should know, one line each; complete after `read`.

    Holds the folder until it is closed or dropped. Raises ConfigError, DeviceError, WeightsError
    or InputError for what cannot be trained, TrainError for a folder that another process holds, that already
    holds a run (without `resume`) or none (with it), or whose run had other settings or videos.
    """

    def __init__(
        self,
        inputs: Sequence[str | Path],
        out: str | Path,
        settings: FitVAEConfig,
        *,
        resume: bool = False,
        labels: str | Path | None = None,
    ) -> None:
        keep_freed_memory()
        if not resume:
            settings.require_effect()
        self.folder = local_path(out)
        if self.folder.suffix == ".safetensors":
            raise ConfigError(
                f"--out {out}: expected a folder, into which {WEIGHTS} is written with the run; give such as "
                f"{self.folder.with_suffix('')}"
            )
        self.notes: tuple[str, ...] = ()
        self._epochs = None if resume else settings.epochs
        self._should_stop = False
        self._checkpoints = checkpoint_folder(self.folder)
        self._plan: FitRun | None = resume_fit(settings, self.folder) if resume else None
        self.ranks = Ranks(settings.device)
        # Accelerate calls the CPU cpu:0.
        device = "cpu" if self.ranks.device.type == "cpu" else str(self.ranks.device)
        self._num_behind = NUM_BEHIND if self.ranks.device.type == "cuda" else 0
        discovery = discover_videos(
            [str(text) for text in inputs], labels=None if labels is None else local_path(labels)
        )
        found = discovery.videos
        if discovery.labels:
            self.notes += tuple(discovery.labels.lines())
        if self._plan:
            self.settings = self._plan.config
            resolve_precision(self.settings.precision, device)  # perhaps on another machine
            self._sources = videos_of(self._plan, {video.video_id: video for video in found}, self.folder)
            self._split = Split(
                training=self._plan.training, validation=self._plan.validation, clips=self._plan.clips
            )
        else:
            chosen, self._network_plan = plan_network(settings)
            precision = resolve_precision(settings.precision, device)
            self.settings = dataclasses.replace(chosen, precision=precision)
            self._split = plan_split(found, settings, self.settings)
            by_id = {video.video_id: video for video in found}
            self._sources = [by_id[name] for name in (*self._split.training, *self._split.clips)]
            self.notes += tuple(split_notes(self._split, len(found), self.settings))
        self._require_divisible()
        require_installed(self.settings.tracker)
        self._skipped = SkippedSteps(self.settings.max_skipped)
        self._perceptual = load_perceptual(self.settings, self.ranks.device)
        self.stacks = TrainingStacks(self.settings)
        self._clips = HeldOutClips(self.settings, device)
        # Only the first process writes into the folder.
        self._lock = hold_run(self.folder) if self.ranks.is_first else ExitStack()
        try:
            if self.ranks.is_first and not resume:
                self._require_new()
        except BaseException:  # a traceback may keep this object alive, and with it the lock
            self.close()
            raise

    def _require_divisible(self) -> None:
        count = self.ranks.count
        if self.settings.batch % count:
            nearest = max(round(self.settings.batch / count), 1) * count
            raise TrainError(
                f"batch: got {self.settings.batch}; expected a multiple of {count}, the number of processes: "
                f"the nearest is {nearest}"
            )

    def _require_new(self) -> None:
        require_no_checkpoint(self.folder)
        if (self.folder / WEIGHTS).exists() and not (self.folder / "config.json").exists():
            raise TrainError(
                f"{self.folder / WEIGHTS} is there already, and caches made with it need it; choose another "
                "--out, or remove it"
            )

    def close(self) -> None:
        """Release the folder."""
        self._lock.close()

    def stop(self) -> None:
        """End `steps` after the current step, with a checkpoint; a signal handler may call this."""
        self._should_stop = True

    @property
    def state(self) -> TrainState:
        """The weights, their average, the optimiser and the number of finished steps, once all is read."""
        return self._optimisation.state

    @property
    def run(self) -> FitRun:
        """What the training has frozen, once all is read."""
        if self._plan is None:
            raise RuntimeError("the videos of a training are read before it has a plan")
        return self._plan

    def read(self) -> Iterator[VideoRead]:
        """Read all videos, yielding each; then all is ready for `steps`.

        Raises TrainError where no video is long enough, or the videos of a resumed training have changed.
        """
        for number, source in enumerate(self._sources, 1):
            failure = None
            try:
                self._read_one(source, is_clip=number > len(self._split.training))
            except DecodeError as error:
                failure = str(error)
            yield VideoRead(
                video_id=source.video_id,
                number=number,
                num_sources=len(self._sources),
                num_stacks=len(self.stacks),
                num_videos=self.stacks.num_videos,
                failure=failure,
            )
        self._begin()
        if self.run.clips and not len(self._clips):
            self.notes += (NOT_VALIDATED,)

    def _read_one(self, source: InputVideo, *, is_clip: bool) -> None:
        frames = (frame.pixels for frame in read_prepared(source.path, source.selection, self.settings))
        if is_clip:
            self._clips.add(source.video_id, np.stack(list(islice(frames, MOST_FRAMES))))
        else:
            self.stacks.add_video(frames)

    def _begin(self) -> None:
        if not len(self.stacks):
            raise TrainError(
                f"no video with at least {self.settings.stack} frames to train on; lower --stack, or give "
                "longer videos"
            )
        resumes, stacks_hash = self._plan is not None, self.stacks.hash()
        if self._plan is None:
            self._plan = self._new_plan(stacks_hash)
        elif stacks_hash != self._plan.stacks_hash:
            raise TrainError(
                f"{self.folder} cannot be resumed: the videos give other training stacks than those it was "
                "started with; give the same --input, or start a new training with another --out"
            )
        if self.ranks.is_first and not resumes:
            start_run(self.folder, self._plan)
        elif self.ranks.is_first:
            remove_partial_checkpoints(self._checkpoints)
        if self.ranks.is_first:
            prepare_decoded_folder(self.folder / "reconstructions")
        self.ranks.wait()
        if not self.ranks.is_first and read_plan(self.folder).stacks_hash != stacks_hash:
            raise TrainError(f"{self.folder}: the processes have read different videos; give all the same")
        self.settings = self._plan.config
        self._prepare_network()
        if resumes and self.state.step < self.settings.steps:
            self._keep_changes()

    def _new_plan(self, stacks_hash: str) -> FitRun:
        settings, num_stacks = self.settings, len(self.stacks)
        if self._epochs:
            steps = steps_of(self._epochs, num_stacks, settings.batch)
            settings = dataclasses.replace(settings, steps=steps)
        return FitRun(
            config=settings,
            network=self._network_plan.settings,
            init_hash=self._network_plan.init_hash,
            training=self._split.training,
            validation=self._split.validation,
            clips=self._split.clips,
            num_stacks=num_stacks,
            stacks_hash=stacks_hash,
        )

    def _keep_changes(self) -> None:
        """Write the settings that the training continues with, and note those that it had not before."""
        known = read_plan(self.folder).changes
        self.notes += tuple(change_note(change) for change in self.run.changes if change not in known)
        if self.ranks.is_first:
            write_run(self.folder, self.run)

    def _prepare_network(self) -> None:
        settings, checkpoints = self.settings, list_checkpoints(self._checkpoints)
        # Initialisation draws from torch's global generator, whose state is restored afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = build_network(dict(self.run.network))
            if not checkpoints:
                network = self._started(network)
            self._compression = compression_of(network)
            plain = bypass_wrappers(network)
            self._optimisation = FitOptimisation(plain, settings, self.ranks, self._perceptual)
        if checkpoints:
            load_checkpoint(checkpoints[-1], self.state)
        best = best_checkpoint(self._checkpoints)
        self._best_mse = validation_loss_of(best) if best else math.inf
        step = self.state.step
        if self.ranks.total(torch.tensor(float(step), device=self.ranks.device)) != step * self.ranks.count:
            raise TrainError(
                f"{self.folder}: the processes see different checkpoints; they must share the folder"
            )

    def _started(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network with the weights of its start, where they are not random."""
        settings = self.settings
        if settings.init:
            path = resolve_weights(settings.init)
            network = load_network(path)[0]
            if hash_weights(network.state_dict()) != self.run.init_hash:
                raise TrainError(
                    f"{path}: holds other weights than when the training in {self.folder} was started; "
                    "restore them, or start a new training with another --out"
                )
            return network
        if settings.start == "pca":
            start_from_pca(network, self.stacks.pca(self.run.network["latent_channels"]))
        return network

    def steps(self) -> Iterator[FitStep]:
        """Train from the present state to the configured number of steps, or until `stop`.

        The first of them is step 0 where the start is validated. Every process yields the same records, but
        only the first validates; it writes them. A step whose loss or gradient is not finite is skipped;
        raises TrainError if more than `max_skipped` in a row are.
        """
        with ExitStack() as stack:
            recorder = None
            if self.ranks.is_first:
                step, settings = self.state.step, self.settings.to_dict()
                trackers = Trackers(self.settings.tracker, self.folder, settings)
                recorder = stack.enter_context(closing(Recorder(self.folder, step, settings, trackers)))
                if self.state.step == 0 and len(self._clips):
                    start = FitStep(step=0, epoch=0.0, validation=self._validate(recorder))
                    recorder.write([start])
                    yield start
            unread = UnreadSteps()
            batches = self._batches(range(self.state.step, self.settings.steps))
            for target, noise in unread.waiting(stack.enter_context(prefetch(batches, NUM_PREFETCHED))):
                device = self.ranks.device
                figures = self._optimisation.compute_gradients(
                    tensor_to_device(target, device), tensor_to_device(noise, device), self._should_stop
                )
                learning_rate = self._optimisation.apply_gradients(figures)
                unread.add(self.state.step, learning_rate, figures)
                is_validated = self._is_validated(self.state.step)
                is_saved = self._is_due(self.settings.checkpoint_every)
                records = self._records(unread.read(0 if is_validated or is_saved else self._num_behind))
                # What another process asks for comes with the figures.
                is_last = self._should_stop if self.ranks.count == 1 else unread.should_stop
                if is_last:
                    records += self._records(unread.read(0))
                if is_validated and recorder:
                    records[-1] = dataclasses.replace(records[-1], validation=self._validate(recorder))
                if recorder:
                    recorder.write(records)
                self._skipped.require_few(records, lambda _: how_to_go_on(self._checkpoints))
                if recorder and records:
                    self._save_if_due(recorder, records[-1], is_last or is_saved)
                yield from records
                if is_last:
                    self._should_stop = False
                    return
                if not len(unread):
                    unread.restart_clock()

    def _batches(self, steps: range) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        """This process's stacks of each step, and the noise of their latents."""
        settings, ranks = self.settings, self.ranks
        share = settings.batch // ranks.count
        items = range(ranks.index * share, (ranks.index + 1) * share)
        for step in steps:
            target = self.stacks.draw(step, items)
            length = settings.call_lengths[step % len(settings.call_lengths)]
            side = target.shape[-1] // self._compression
            calls = settings.stack // length, self.run.network["latent_channels"], length // self._compression
            noise = [
                normal((settings.seed, Stream.TRAINING, step, item), Draw.POSTERIOR, (*calls, side, side))
                for item in items
            ]
            yield torch.from_numpy(target), torch.from_numpy(np.concatenate(noise))

    def _records(self, steps: Sequence[ReadStep]) -> list[FitStep]:
        names = self._optimisation.term_names
        return [
            FitStep(
                step=read.step,
                epoch=read.step / self.run.steps_per_epoch,
                loss=read.figures[0],
                grad_norm=read.figures[1],
                mse=read.figures[2],
                terms=dict(zip(names, read.figures[3:], strict=False)),
                learning_rate=read.learning_rate,
                steps_per_second=read.steps_per_second,
            )
            for read in steps
        ]

    def _is_due(self, every: int) -> bool:
        """Whether something is due after the present step; every: 0 for never but at the end."""
        return self.state.step == self.settings.steps or (every > 0 and self.state.step % every == 0)

    def _is_validated(self, step: int) -> bool:
        if not self.run.clips:
            return False
        return self._is_due(self.settings.validate_every) or self._ends_epochs(step)

    def _ends_epochs(self, step: int) -> bool:
        """Whether a step ends so many epochs as are between validations."""
        epochs = self.settings.validate_epochs
        if not epochs:
            return False
        epochs *= max(math.ceil(LEAST_BETWEEN / (epochs * self.run.steps_per_epoch)), 1)
        seen, stacks = step * self.settings.batch, epochs * self.run.num_stacks
        return seen // stacks > (seen - self.settings.batch) // stacks

    def _validate(self, recorder: Recorder) -> dict[str, object] | None:
        """The figures of the averaged weights, which are written; None where no clip could be read."""
        if not len(self._clips):
            return None
        self._write_weights()
        step = self.state.step
        picture = self.folder / "reconstructions" / f"step_{step:08d}.gif"
        figures = self._clips.measure(self.folder / WEIGHTS, picture)
        recorder.show("reconstructions", picture, step)
        return figures.to_dict()

    def _write_weights(self) -> None:
        path, settings = self.folder / WEIGHTS, self.settings
        try:
            write_weights(
                path,
                self.state.ema.state_dict(),
                dict(self.run.network),
                sorted(settings.call_lengths),
                keeps_encoder=settings.freeze_encoder,
            )
        except OSError as error:
            raise TrainError(f"{path}: the weights cannot be written: {one_line(error)}") from error

    def _save_if_due(self, recorder: Recorder, record: FitStep, is_due: bool) -> None:
        mse = record.validation["mse"] if record.validation else None
        if not (is_due or (mse is not None and mse < self._best_mse)):
            return
        recorder.sync()
        if mse is not None:
            self._best_mse = min(self._best_mse, mse)
        if not record.validation:
            self._write_weights()
        save_checkpoint(self._checkpoints, self.state, keep=self.settings.keep, validation_loss=mse)
