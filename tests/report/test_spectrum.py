"""The plot of the motion spectrum: a curve for each set that moves, where its power is."""

import re
from dataclasses import replace

import pytest

from tests.evaluate.samples.test_result import evaluation, row
from vidlat.evaluate.samples.result import HELD_OUT, NOISE, REAL, STILL
from vidlat.metrics.intervals import Estimate
from vidlat.report.spectrum import report_spectrum


def evaluated(frames=8, fps=16.0):
    bands = {"samples": (1, 10, 100), REAL: (1, None, 2), STILL: (0, 0, 0), NOISE: (90, 90, 90)}
    found = evaluation(row(Estimate(value=0.1)))
    rows = {
        name: replace(found.rows[name], bands=tuple(Estimate(value=power) for power in powers))
        for name, powers in bands.items()
    }
    return replace(found, rows=rows, run={"frames": frames, "fps": fps})


def test_sets_that_move_have_a_curve_in_logarithmic_axes_and_noise_has_none(tmp_path):
    assert report_spectrum(evaluated(), tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    legend = re.findall(r"<span>(.*?)</span></li>", page)
    assert legend == [HELD_OUT, "samples", REAL]
    svg = page[page.index("<svg viewBox=") :]
    curves = [
        [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
        for path in re.findall(r'class="line s\d" d="([^"]*)"', svg[: svg.index("</svg>")])
    ]
    level, samples, real = curves
    assert len({y for _, y in level}) == 1  # of held-out clips over themselves
    assert samples[0] == level[0] == real[0]
    heights = [y for _, y in samples]
    assert abs((heights[0] - heights[1]) - (heights[1] - heights[2])) < 0.3  # equal factors
    assert len(real) == 2  # its second band cannot be told
    assert "frequency, Hz" in page


@pytest.mark.parametrize("power", [0.5, 1e6])
def test_the_page_says_that_noise_is_left_out_and_not_where_it_lies(power, tmp_path):
    found = evaluated()
    noise = replace(found.rows[NOISE], bands=(Estimate(value=power),) * 3)
    report_spectrum(replace(found, rows={**found.rows, NOISE: noise}), tmp_path / "s.html")
    page = " ".join((tmp_path / "s.html").read_text().split())
    assert "Noise is left out" in page
    assert "far above" not in page


def test_the_unit_is_told_and_clips_without_a_spectrum_have_no_page(tmp_path):
    report_spectrum(evaluated(fps=0.0), tmp_path / "s.html")
    assert "frequency, periods per clip" in (tmp_path / "s.html").read_text()
    assert not report_spectrum(evaluated(frames=3), tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
