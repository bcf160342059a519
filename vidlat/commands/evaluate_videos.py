"""`vidlat evaluate --input`: prints what a VAE keeps of videos."""

from __future__ import annotations

import statistics
from pathlib import Path

from vidlat.commands.display import Stages, console, print_table, progress_bar
from vidlat.commands.figures import tell_still, write_figures
from vidlat.errors import ExitCode
from vidlat.evaluate.figures import FIGURES, figures, number
from vidlat.evaluate.reconstruction import Evaluation, counted, evaluate_videos
from vidlat.store.reader import LatentCache, open_cache
from vidlat.video.writer import prepare_file
from vidlat.wording import format_count


def evaluate_reconstructions(
    latents: str | Path,
    inputs: tuple[str, ...],
    max_videos: int | None,
    json_file: Path | None,
    vae: str | None,
    device: str,
) -> ExitCode:
    """Decode latents, compare them with their sources, and print the figures."""
    steps = evaluate_videos(latents, inputs, max_videos=max_videos or 0, vae=vae, device=device)
    events = []
    if json_file:
        prepare_file(json_file, "--json")
    cache = open_cache(latents)
    with progress_bar("{task.fields[name]}") as progress:
        stages = Stages(progress)
        for event, count in counted(steps, len(cache), max_videos or 0):
            events.append(event)
            stages.show(*count, name=event.video_id)
    evaluation = Evaluation.of(events)
    _print(evaluation, cache)
    if json_file:
        write_figures(json_file, evaluation.to_dict())
    if evaluation.failed or evaluation.without_source:
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _print(evaluation: Evaluation, cache: LatentCache) -> None:
    rows = [
        (
            video.vae.video_id,
            f"{video.vae.num_frames:,}",
            *figures(video.vae, video.vae.motion),
            f"{video.averaging.psnr:.2f}",
            number(video.pca.psnr if video.pca else None),
        )
        for video in evaluation.videos
    ]
    columns = ("video", "frames", *FIGURES, "average dB", "PCA dB")
    print_table("Reconstruction after preprocessing, and of two baselines", columns, rows)
    names = {"vae": "this VAE", "averaging": "baseline: block averages", "pca": "baseline: PCA of blocks"}
    overall = [
        (names[name], f"{summary.num_videos:,}", *figures(summary, summary.motion))
        for name, summary in evaluation.summaries.items()
    ]
    print_table("Overall: means of the videos; motion of all together", ("", "videos", *FIGURES), overall)
    summary = evaluation.summaries["vae"]
    fps = statistics.median(cache.records()[video.vae.video_id].fps for video in evaluation.videos)
    console.print(summary.motion.describe(cache.schema.timing.frame_step, fps), soft_wrap=True)
    num_still = sum(video.vae.motion.energy is None for video in evaluation.videos)
    if 0 < num_still < len(evaluation.videos):
        tell_still(num_still, "video")
    for criterion, holds in summary.criteria.items():
        console.print(f"{criterion}: {'holds' if holds else 'does not hold'}")
    reasons = evaluation.failed | dict.fromkeys(evaluation.without_source, "its source is not among --input")
    if reasons:
        title = f"{format_count(len(reasons), 'video')} not compared"
        print_table(title, ("video", "reason"), reasons.items())
