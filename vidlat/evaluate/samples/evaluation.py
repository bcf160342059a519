"""Are samples as good as real clips? Draws them, measures them beside real clips and noise, and compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vidlat.config import EvaluateConfig, TrainConfig
from vidlat.copies.intact import on_intact
from vidlat.copies.pictures import write_pairs
from vidlat.copies.result import Copies, find_copies
from vidlat.encode.device import resolve_batch, resolve_device
from vidlat.errors import ConfigError, InputError
from vidlat.evaluate.samples.adherence import Adherence, LabelReader
from vidlat.evaluate.samples.clips import Clip, moving_and_still, num_frames_of, videos_in
from vidlat.evaluate.samples.compared import ComparedWindows, conditions_for
from vidlat.evaluate.samples.comparison import Reference
from vidlat.evaluate.samples.frame_figures import bands_in_words
from vidlat.evaluate.samples.measuring import LATENTS, Latents, MeasuredClips, Meter
from vidlat.evaluate.samples.network_features import NetworkFeatures
from vidlat.evaluate.samples.pictures import write_pictures
from vidlat.evaluate.samples.real_clips import RealClips
from vidlat.evaluate.samples.result import HELD_OUT, NOISE, REAL, STILL, SampleEvaluation, UsedFeatures
from vidlat.evaluate.samples.sample_sets import SampleSet, draw_samples
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import load_vae_of, prepare_decoded_folder
from vidlat.sample.sampler import num_steps_for
from vidlat.store.reader import LatentCache, open_cache
from vidlat.train.objectives.objective import OBJECTIVES
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.resuming import require_same_videos
from vidlat.train.runs.run_folder import read_run
from vidlat.video.contact_sheet import evenly_spaced
from vidlat.wording import format_count

Progress = Callable[[str, float, int], None]
"""Called with a stage, how much of it was done since, and how much it is in all."""


def evaluate_samples(
    latents: str | Path,
    out: str | Path,
    settings: EvaluateConfig,
    *,
    run: str | Path | None = None,
    samples: str | Path | None = None,
    vae: str | None = None,
    on_progress: Progress = lambda *_: None,
) -> SampleEvaluation:
    """Compare samples with clips of held-out videos of the cache `latents`, and write pictures to `out`.

    run: draws samples from this run into `out/samples`, a folder for each number of steps, where they are not
    there already. samples: measures the videos of this folder instead; without a run, the cache is split as a
    training would split it, and clips are as long as the first video. vae: where the VAE of the latents is,
    if it has moved. docs/how-to/evaluation.md says what the figures mean.

    Raises StoreError, TrainError, WeightsError, ConfigError or InputError for a cache, run, VAE, settings or
    folder that cannot be used; before anything is drawn, but for the samples themselves. Damaged videos are
    left out.
    """
    out = local_path(out)
    run_dir, folder = (local_path(path) if path else None for path in (run, samples))
    if folder and out.absolute() == folder.absolute():
        raise InputError(f"--out {out} is the folder of the samples; give one of its own for the pictures")
    plan = _Plan(latents, run_dir, folder, settings, vae)
    prepare_decoded_folder(out)
    if run_dir and not folder:
        given = list(plan.draw(run_dir, out / "samples", on_progress))
    else:
        given = [SampleSet.of_files("samples", plan.paths, plan.run)]
    return plan.compare(given, out, on_progress)


class _Plan:
    """What samples are compared with and measured by; all that can be refused is refused here.

    paths: the videos to measure, where they are given. num: how many samples there will be. is_run_known:
    whether the run is that of the samples, and not what a training might freeze. intact: the run without
    damaged videos, as far as these were met. damaged: what is wrong with each, by id.
    """

    def __init__(
        self,
        latents: str | Path,
        run_dir: Path | None,
        folder: Path | None,
        settings: EvaluateConfig,
        vae: str | None,
    ) -> None:
        self.settings, self._vae_path = settings, vae
        self.cache, device = open_cache(latents), resolve_device(settings.device)
        self.run, self.is_run_known = _frozen_run(self.cache, run_dir, folder), run_dir is not None
        if settings.held_out == "test":
            self.run = self.run.tested(self.cache)
        self.paths = _chosen(videos_in(folder), settings.num) if folder else []
        if not folder and self.run.config.first_frame == 1:
            raise ConfigError(
                f"run: samples of {run_dir} continue pictures (--first-frame 1); draw them by `vidlat "
                "sample`, and give their folder by --samples"
            )
        self.num = len(self.paths) or settings.num_on(device)
        (self.intact, self.windows), self.damaged = on_intact(self.run, self.cache, self._readable_windows)
        self.vae = load_vae_of(self.run.schema, vae=vae, device=device, batch=resolve_batch(0, device))
        size = self.run.schema.settings.size
        clip_shape = self.run.config.frames, size, size
        self.networks = [
            NetworkFeatures(name, self.vae.device, clip_shape) for name in dict.fromkeys(settings.features)
        ]

    def _readable_windows(self, run: Run) -> tuple[Run, ComparedWindows]:
        """The windows to compare with, all of which were read once: later, hours of work would be lost."""
        windows = ComparedWindows.of(run, self.cache, self.num)
        length = run.window_shape().num_latent_frames
        for record, start in (*windows.held_out, *windows.training):
            self.cache.read_windows(np.array([record.start + start]), length, with_std=False)
        return run, windows

    def draw(self, run_dir: Path, out: Path, on_progress: Progress) -> Iterator[SampleSet]:
        """The samples of each number of steps, drawn where they are not there already."""
        conditions = conditions_for(self.run, self.num, self.settings.seed)
        usual = num_steps_for(OBJECTIVES[self.run.config.objective], None)
        for num_steps in dict.fromkeys(self.settings.steps or (usual,)):
            name = format_count(num_steps, "step")
            paths = draw_samples(
                run_dir, out / f"steps-{num_steps}", self.settings, num_steps,
                conditions=conditions, vae=self._vae_path,
                on_progress=partial(_drawn, on_progress, name, self.num),
            )  # fmt: skip
            yield SampleSet.of_files(f"samples, {name}", paths, self.run)

    def compare(self, given: Sequence[SampleSet], out: Path, on_progress: Progress) -> SampleEvaluation:
        """Measure the samples, real clips and noise, compare them, and write pictures."""
        run = self.run
        source = RealClips(self.cache, self.vae, run.window_shape(), run.config.frames)
        held_out, training = (
            source.clips(side, self.windows.subjects, run.labels)
            for side in (self.windows.held_out, self.windows.training)
        )
        moving, still = moving_and_still(training)
        sets: dict[str, Sequence[Clip]] = {
            **{each.name: each.clips for each in given},
            REAL: moving,
            STILL: still,
            NOISE: source.noise(self.windows.training, self.num, self.settings.seed),
        }
        meter = Meter(self.vae, run.whitening, self.networks)
        latents: dict[str, list[Latents]] = {each.name: [] for each in given}

        def measure(name: str, clips: Sequence[Clip]) -> MeasuredClips:
            def on_clip(of_clip: Latents) -> None:
                if name in latents:
                    latents[name].append(of_clip)
                on_progress(f"measuring {name}", 1, len(clips))

            return meter.measure(clips, on_clip)

        real, *others = (measure(name, clips) for name, clips in {HELD_OUT: held_out, **sets}.items())
        measured = dict(zip(sets, others, strict=True))
        reference = Reference(real, measured[REAL], min(map(len, (real, *others))))
        shown = _most_steps(given)
        frame_step = run.schema.timing.frame_step
        write_pictures(shown.name, shown.clips, held_out, out, run.median_fps, frame_step)
        return SampleEvaluation(
            settings=self.settings.to_dict(),
            run={"cache_id": run.schema.cache_id, "frames": run.config.frames, "fps": run.median_fps},
            features=[
                UsedFeatures(name=LATENTS),
                *(
                    UsedFeatures(name=each.name, sha256=each.sha256, takes=each.takes)
                    for each in self.networks
                ),
            ],
            held_out=(len(real), real.num_groups),
            num_videos=len({window.record.video_id for window in self.windows.held_out}),
            rows={name: reference.compare(clips) for name, clips in measured.items()},
            bands=bands_in_words(run.config.frames, run.median_fps),
            adherence=_adherence(run, reference, measured, [each.name for each in given]),
            drawn={each.name: each.drawn for each in given},
            seconds={each.name: each.seconds for each in given},
            left_out=self.windows.left_out,
            copies=self._copies(given, latents, out, on_progress),
            damaged=self.damaged,
            differing=given[0].differing if self.paths else "",
        )

    def _copies(
        self,
        given: Sequence[SampleSet],
        latents: Mapping[str, Sequence[Latents]],
        out: Path,
        on_progress: Progress,
    ) -> dict[str, Copies]:
        """Which samples are suspect copies, by set; writes the nearest pairs of the set of the most steps.

        Empty where it is not known what was trained on. latents: whitened, of each sample of a set.
        """
        if not self.is_run_known:
            return {}
        clips = {
            each.name: {
                clip.name: torch.from_numpy(of_clip)
                for clip, of_clip in zip(each.clips, latents[each.name], strict=True)
            }
            for each in given
        }

        def search(run: Run) -> dict[str, Copies]:
            stage = "searching for copies" + ", without what is damaged" * (run is not self.intact)
            return find_copies(
                clips,
                run,
                self.cache,
                device=str(self.vae.device),
                on_progress=lambda share: on_progress(stage, 100 * share, 100),
            )

        found, damaged = on_intact(self.intact, self.cache, search)
        self.damaged |= damaged
        shown = _most_steps(given)
        frames_of = {clip.name: clip.frames for clip in shown.clips}
        write_pairs(
            shown.name, found[shown.name], lambda name: frames_of[name](), self.cache, self.vae, out,
            self.run.median_fps,
        )  # fmt: skip
        return found


def _most_steps(given: Sequence[SampleSet]) -> SampleSet:
    return max(given, key=lambda each: each.drawn.get("steps", 0))


def _chosen(paths: Sequence[Path], num: int | None) -> list[Path]:
    return [paths[place] for place in evenly_spaced(len(paths), num or len(paths))]


def _frozen_run(cache: LatentCache, run_dir: Path | None, folder: Path | None) -> Run:
    """The run, or what a training on the cache would freeze, on clips as long as the first video."""
    if run_dir:
        run = read_run(run_dir)
        require_same_videos(run, cache, run_dir)
        return run
    if not folder:
        raise ConfigError("run: is missing; expected a run to draw samples from, or a folder of samples")
    first = videos_in(folder)[0]
    timing, num_frames = cache.schema.timing, num_frames_of(first)
    num_calls = timing.num_whole_calls(num_frames)
    if not num_calls:
        raise InputError(
            f"{first}: has {num_frames} frames; expected at least the {timing.frames_per_call} of a VAE call"
        )
    run = Run.plan(TrainConfig(frames=timing.frames_of(num_calls), latents_as="mean"), cache, {})
    _require_as_long(run, cache, first, num_frames)
    return run


def _require_as_long(run: Run, cache: LatentCache, first: Path, num_frames: int) -> None:
    """Raise InputError where a side of the cache has no clip as long as the first video of a folder."""
    records, timing = cache.records(), cache.schema.timing
    sides = {"held-out": run.held_out, "training": run.training}
    num_calls = {
        side: max(timing.num_whole_calls(records[video_id].num_frames) for video_id in ids)
        for side, ids in sides.items()
        if ids
    }
    side = min(num_calls, key=num_calls.__getitem__)
    longest = timing.frames_of(num_calls[side]) if num_calls[side] else 0
    if longest < run.config.frames:
        todo = (
            f"cut your videos to {longest} frames, or encode longer ones" if longest else "encode longer ones"
        )
        raise InputError(
            f"{first}: has {num_frames} frames, and the longest of {len(sides[side])} {side} clips of "
            f"{cache.where} has {longest} in whole VAE calls; {todo}"
        )


def _drawn(on_progress: Progress, name: str, num: int, share: float) -> None:
    on_progress(f"drawing, {name}", share, num)


def _adherence(
    run: Run, reference: Reference, measured: Mapping[str, MeasuredClips], names: Sequence[str]
) -> dict[str, dict[str, Adherence]]:
    """By condition of the run, how well it is read from held-out clips and from each set of samples."""
    training = measured[REAL]
    clips = {HELD_OUT: reference.held_out, **{name: measured[name] for name in names}}
    found: dict[str, dict[str, Adherence]] = {}
    for condition in run.conditions.conditions:
        reader = LabelReader(condition, reference.standardised(training), training.labels)
        read = {name: reader.read(reference.standardised(each), each.labels) for name, each in clips.items()}
        found[condition.name] = {name: each for name, each in read.items() if each}
    return found
