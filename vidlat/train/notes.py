"""What the user should know of a run before its first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vidlat.train.run import Run
from vidlat.types import VideoRecord


def notes_on(run: Run, training: Sequence[VideoRecord]) -> tuple[str, ...]:
    """One line each; training: the records of the run's training videos."""
    return (*_on_validation(run), *_on_short_videos(run, training), *_on_labels(run))


def notes_on_new_end(planned: int, now: int, step: int) -> tuple[str, ...]:
    """For a run that goes on after `step` and was to end elsewhere."""
    if now == planned:
        return ()
    return (
        f"the run was to end at step {planned} and now ends at {now}: from step {step + 1} its learning rate "
        f"follows the cosine that falls to 0 at {now}, not the one it began with",
    )


def _on_validation(run: Run) -> Iterator[str]:
    if not run.validation:
        yield "no video is held out: there will be no validation loss"
    if run.duplicates:
        pairs = [" is like ".join(pair) for pair in run.duplicates[:5]]
        yield (
            f"{len(run.duplicates)} validation videos are as good as alike to a training video, so the "
            f"validation loss is too low ({'; '.join(pairs)}): split them together by --split-by"
        )


def _on_short_videos(run: Run, training: Sequence[VideoRecord]) -> Iterator[str]:
    shape = run.window_shape()
    short = sum(shape.num_valid(record) < shape.num_latent_frames for record in training)
    if short:
        yield (
            f"{short} of {len(training)} training videos are shorter than {run.config.frames} frames: their "
            "last frame is repeated and carries no loss"
        )


def _on_labels(run: Run) -> Iterator[str]:
    for condition in run.conditions.conditions:
        without = [video_id for video_id, labels in run.labels.items() if condition.name not in labels]
        if without:
            yield (
                f"{len(without)} of {len(run.labels)} videos have no label {condition.name!r}: they train "
                "the model without it"
            )
