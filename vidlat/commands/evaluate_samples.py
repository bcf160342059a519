"""`vidlat evaluate --run` and `--samples`: prints how samples compare with held-out clips."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import Stages, console, print_table, progress_bar, quoted
from vidlat.commands.figures import write_figures
from vidlat.config import EvaluateConfig
from vidlat.copies.pictures import PAIRS, SHEET as COPIES_SHEET
from vidlat.encode.device import resolve_device
from vidlat.errors import ExitCode
from vidlat.evaluate.samples.evaluation import evaluate_samples
from vidlat.evaluate.samples.measuring import LATENTS
from vidlat.evaluate.samples.pictures import GRID, SHEET
from vidlat.evaluate.samples.result import SampleEvaluation
from vidlat.metrics.intervals import in_figures
from vidlat.report.spectrum import report_spectrum
from vidlat.wording import format_count

SPECTRUM = "spectrum.html"


def evaluate_sampled(
    latents: str | Path,
    run_dir: Path | None,
    samples: Path | None,
    out: Path,
    json_file: Path,
    vae: str | None,
    config: EvaluateConfig,
) -> ExitCode:
    """Draw samples, or read them, compare them with held-out clips, and print the figures."""
    with progress_bar() as progress:
        try:
            evaluation = evaluate_samples(
                latents,
                out,
                config,
                run=run_dir,
                samples=samples,
                vae=vae,
                on_progress=Stages(progress).advance,
            )
        except KeyboardInterrupt:
            progress.stop()
            if run_dir:
                console.print(f"Samples that were drawn are kept in {out}; the same command continues.")
            raise
    _print(evaluation)
    if not samples and config.num is None:
        device = resolve_device(config.device)
        num = config.num_on(device)
        console.print(f"{num} samples were drawn, as many as usual on {device}; --num gives another number.")
    console.print(f"samples above real clips -> {quoted(out / GRID)}, {quoted(out / SHEET)}", soft_wrap=True)
    if evaluation.copies:
        shown = f"{quoted(out / PAIRS)}, {quoted(out / COPIES_SHEET)}"
        console.print(f"samples beside the nearest training clips -> {shown}", soft_wrap=True)
    if report_spectrum(evaluation, out / SPECTRUM):
        console.print(f"motion spectrum -> {quoted(out / SPECTRUM)}", soft_wrap=True)
    write_figures(json_file, evaluation.to_dict())
    if evaluation.damaged:
        title = f"{format_count(len(evaluation.damaged), 'damaged video')} left out"
        print_table(title, ("video", "reason"), evaluation.damaged.items())
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _print(evaluation: SampleEvaluation) -> None:
    """What questions all figures, the tables, and the other conclusions."""
    doubts = evaluation.doubts()
    for sentence in doubts:
        console.print(sentence, soft_wrap=True)
    _print_distances(evaluation)
    energies = [
        (
            name,
            *(each.in_words() for each in (row.inside, row.at_borders, row.sharpness, row.diversity)),
        )
        for name, row in evaluation.rows.items()
    ]
    columns = ("", "motion inside", "at borders", "sharpness", "diversity")
    print_table("Over those of held-out clips: 1 is right", columns, energies)
    if evaluation.bands:
        bands = [(name, *(band.in_words() for band in row.bands)) for name, row in evaluation.rows.items()]
        print_table("Power of change over time, over that of held-out clips", ("", *evaluation.bands), bands)
    read = [
        (condition, name, f"{each.num_clips:,}", each.error.in_words(), in_figures(each.constant_error))
        for condition, rows in evaluation.adherence.items()
        for name, each in rows.items()
    ]
    if read:
        title = "Conditions as a linear probe reads them: error, and that of a constant"
        print_table(title, ("condition", "of", "clips", "error", "constant"), read)
    _print_copies(evaluation)
    for used in evaluation.features:
        if used.sha256:
            text = f"{used.name}: takes {used.takes}, SHA-256 {used.sha256}"
            console.print(text, soft_wrap=True)
    for sentence in evaluation.conclusions():
        if sentence not in doubts:
            console.print(sentence, soft_wrap=True)


def _print_distances(evaluation: SampleEvaluation) -> None:
    """Two tables per kind of features, with why figures are missing; seconds stand in the first.

    Without any figure the second is left out, and why is told.
    """
    held_out = evaluation.held_out_in_words
    for used in evaluation.features:
        what = "the VAE's latents" if used.name == LATENTS else used.name
        distances, shares = [], []
        for name, row in evaluation.rows.items():
            found = row.distances[used.name]
            near = found.neighbourhoods
            kernel, frechet = found.kernel.in_words(1000), found.frechet.in_words()
            distances.append(
                (name, f"{row.num_clips:,}", kernel, frechet, _seconds(evaluation.seconds.get(name)))
            )
            each = (near.precision, near.recall, near.density, near.coverage) if near else ()
            shares.append((name, *([share.in_words() for share in each] or ["-"] * 4)))
        columns = "", "clips", "KID x 1000", "Fréchet", "s/clip"
        print_table(f"Distances from {held_out}, in {what}, with 95 % intervals", columns, distances)
        _print_missing(evaluation.missing_distances(used.name))
        columns = "", "precision", "recall", "density", "coverage"
        if any(row.distances[used.name].neighbourhoods for row in evaluation.rows.values()):
            print_table(f"Neighbours among {held_out}, in {what}, with 95 % intervals", columns, shares)
        _print_missing(evaluation.missing_neighbours(used.name))


def _print_missing(reason: str) -> None:
    if reason:
        console.print(reason, soft_wrap=True)


def _print_copies(evaluation: SampleEvaluation) -> None:
    rows = []
    for name, copies in evaluation.copies.items():
        nearest = copies.matches[copies.nearest_first()[0]]
        where = f"{nearest.video_id} from frame {copies.frame_of(nearest.place.start)}"
        num = f"{len(copies.suspects):,} of {len(copies.matches):,}" if copies.can_be_told else "-"
        rows.append((name, num, copies.share_in_words(), f"{nearest.distance:.2f}", where))
    if rows:
        title = (
            f"Suspect copies: nearer to a training clip than {copies.threshold:.2f}, with 95 % intervals"
            if copies.can_be_told
            else "Training clips that are nearest to samples"
        )
        print_table(title, ("", "copies", "%", "nearest", "to"), rows)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.2f}"
