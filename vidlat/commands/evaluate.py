"""`vidlat evaluate`: prints what a VAE keeps of the videos."""

from __future__ import annotations

import json
from pathlib import Path

from vidlat.commands.display import console, format_count, print_table, progress_bar
from vidlat.errors import ExitCode
from vidlat.evaluate.quality import VideoQuality
from vidlat.evaluate.reconstruction import Evaluation, evaluate_videos
from vidlat.store.reader import open_cache
from vidlat.video.writer import prepare_file


def evaluate(
    latents: Path, inputs: tuple[str, ...], json_file: Path | None, vae: str | None, device: str
) -> ExitCode:
    """Compare decoded latents with their sources, and print the figures."""
    steps, events = evaluate_videos(latents, inputs, vae=vae, device=device), []
    if json_file:
        prepare_file(json_file, "--json")
    with progress_bar("{task.fields[name]}") as progress:
        num_readings = 2 * len(open_cache(latents))
        task = progress.add_task("comparing", total=num_readings, name="")
        for event in steps:
            events.append(event)
            progress.update(task, advance=1, name=event.video_id)
        progress.update(task, completed=num_readings)  # what cannot be compared is not read twice
    evaluation = Evaluation.of(events)
    _print(evaluation)
    if json_file:
        json_file.write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n")
        console.print(f"all figures -> {json_file}")
    if evaluation.failed or evaluation.without_source:
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _print(evaluation: Evaluation) -> None:
    columns = ("video", "frames", "MSE", "PSNR dB", "SSIM", "average dB", "PCA dB")
    rows = [
        (
            video.vae.video_id,
            str(video.vae.num_frames),
            f"{video.vae.mse:.5f}",
            f"{video.vae.psnr:.2f}",
            f"{video.vae.ssim:.3f}",
            f"{video.averaging.psnr:.2f}",
            _psnr(video.pca),
        )
        for video in evaluation.videos
    ]
    print_table("Reconstruction after preprocessing, and of two baselines", columns, rows)
    names = {"vae": "this VAE", "averaging": "baseline: block averages", "pca": "baseline: PCA of blocks"}
    overall = [
        (names[name], str(s.num_videos), f"{s.mse:.5f}", f"{s.psnr:.2f}", f"{s.ssim:.3f}")
        for name, s in evaluation.summaries.items()
    ]
    print_table("Overall, mean of the videos", ("", "videos", "MSE", "PSNR dB", "SSIM"), overall)
    for criterion, holds in evaluation.summaries["vae"].criteria.items():
        console.print(f"{criterion}: {'holds' if holds else 'does not hold'}")
    reasons = evaluation.failed | dict.fromkeys(evaluation.without_source, "its source is not among --input")
    if reasons:
        title = f"{format_count(len(reasons), 'video')} not compared"
        print_table(title, ("video", "reason"), reasons.items())


def _psnr(quality: VideoQuality | None) -> str:
    return f"{quality.psnr:.2f}" if quality else "-"
