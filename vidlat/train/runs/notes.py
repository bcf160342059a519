"""Notes to the user about a run, before its first step; one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vidlat.labels.split import describe_split
from vidlat.labels.subjects import subject_notes
from vidlat.store.reader import LatentCache
from vidlat.train.data.chosen_videos import annotations_with
from vidlat.train.runs.changes import Change
from vidlat.train.runs.frozen_run import Run
from vidlat.types import Annotation, VideoRecord
from vidlat.wording import format_count

FAR = 2.01
"""The share of the held-out videos is far from the one asked for if it is so many times larger or smaller."""


def run_notes(run: Run, training: Sequence[VideoRecord], *, num_videos: int) -> Iterator[str]:
    """What is unusual about a run; training: the records of its training videos; num_videos: of the cache."""
    num_added = num_videos - len(run.checksums)
    if run.config.where is None and num_added > 0:
        yield (
            f"{format_count(num_added, 'video')} of the cache came after the run was "
            "started, and it does not use them; a new run with another --out does"
        )
    if run.config.steps < run.config.warmup_steps:
        yield (
            f"{run.config.steps} steps end within the warm-up of {run.config.warmup_steps}: the learning "
            "rate stays below the one asked for; give more --steps or fewer --warmup-steps"
        )
    if not run.validation:
        yield "no video is held out, so there is no validation loss"
    if not run.stated_by:
        yield from notes_on_share(len(run.validation), len(run.labels), run.config.validation_fraction)
    if run.duplicates:
        pairs = [" resembles ".join(pair) for pair in run.duplicates[:5]]
        num, verb = len(run.duplicated), "is" if len(run.duplicated) == 1 else "are"
        yield (
            f"{num} of {len(run.validation)} validation videos {verb} nearly the same as a training video, "
            f"which makes the validation loss too low ({'; '.join(pairs)}); put such pairs on one side with "
            "--split-by"
        )
    shape = run.window_shape()
    short = sum(shape.timing.num_valid(record.num_frames) < shape.num_latent_frames for record in training)
    if short:
        yield (
            f"{short} of {len(training)} training videos are shorter than {run.config.frames} frames: their "
            "last frame is repeated, and the repetitions carry no loss"
        )
    for condition in run.conditions.conditions:
        missing = sum(condition.name not in labels for labels in run.labels.values())
        if missing:
            yield (
                f"{missing} of {len(run.labels)} videos have no label {condition.name!r}; they are trained "
                "on without it"
            )


def notes_on_subjects(run: Run, cache: LatentCache, labels: Mapping[str, Annotation]) -> Iterator[str]:
    """A line where a split by recorded subject has videos without one. labels: as for `choose_videos`."""
    if run.stated_by or run.config.split_by or run.config.split_by_pattern:
        return
    yield from subject_notes(run.sources(cache), annotations_with(cache, labels))


def chosen_in_words(run: Run, num_videos: int) -> str:
    """How many of the `num_videos` of the cache a run uses; empty without a condition."""
    if run.config.where is None:
        return ""
    return f"--where keeps {len(run.checksums)} of {num_videos} videos: {run.config.where}"


def split_in_words(run: Run) -> str:
    """One line with the numbers of videos and subjects of each part."""
    num_videos = len(run.training), len(run.validation), len(run.test)
    return describe_split(num_videos, run.num_subjects, run.stated_by)


def notes_on_share(num_held_out: int, num_videos: int, asked: float) -> Iterator[str]:
    """What is unusual about the share of held-out videos. asked: what it should be."""
    achieved = num_held_out / num_videos
    is_more = achieved >= asked * FAR and num_held_out > 1  # of few videos one is the least
    if is_more or (num_held_out and achieved <= asked / FAR):
        yield (
            f"{num_held_out} of {num_videos} videos are held out, {achieved:.0%}, where "
            f"--validation-fraction asks for {asked:.0%}: all videos of a subject, and copies of a "
            "video, are on one side; check --split-by if that is not what you want"
        )


def change_note(change: Change) -> str:
    """What a resumed run changes."""
    if change.setting == "steps":
        return (
            f"the run was planned for {change.before} steps and now has {change.after}: from step "
            f"{change.from_step} on, its learning rate follows the cosine that falls to 0 at step "
            f"{change.after}, not the one it started with"
        )
    name = f"--{change.setting.replace('_', '-')}"
    return f"from step {change.from_step} on, {name} is {change.after}, no longer {change.before}"
