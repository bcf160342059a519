"""The motion spectrum of samples as a page with a plot: power of change over time in bands of frequencies."""

from __future__ import annotations

from pathlib import Path

from vidlat.evaluate.samples.frame_figures import band_middles
from vidlat.evaluate.samples.result import HELD_OUT, NOISE, SampleEvaluation
from vidlat.report.page import write_page
from vidlat.report.plots import Series, line_plot


def report_spectrum(evaluation: SampleEvaluation, out: Path) -> bool:
    """Write the page, unless clips are too short to have two bands; whether it was written.

    Raises InputError where it cannot be written.
    """
    fps = evaluation.run["fps"]
    middles = band_middles(evaluation.run["frames"], fps)
    if len(middles) < 2:
        return False
    curves = {HELD_OUT: [1.0] * len(middles)}
    for name, row in evaluation.rows.items():
        if name != NOISE:  # often so far above the others that these could not be told apart
            curves[name] = [band.value or 0.0 for band in row.bands]  # 0 has no place on a logarithmic scale
    series = [Series(name, middles, values) for name, values in curves.items() if any(values)]
    unit = "Hz" if fps else "periods per clip"
    plot = line_plot(
        series, f"frequency, {unit}", "power over that of held-out clips", log_x=True, log_y=True
    )
    write_page(out, "spectrum.html", plots={"Motion": plot}, held_out=evaluation.held_out_in_words)
    return True
