"""Plots are well-formed, place what they are given, and tell series apart not by colour alone."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vidlat.report.plots import (
    HEIGHT,
    WIDTH,
    Point,
    Series,
    histogram,
    interval_plot,
    line_plot,
    scatter_plot,
    strip_plot,
)

EVIL = '<script>alert("1")</script>\x1b'


def parsed(plot):
    return ElementTree.fromstring(str(plot))


def of_class(root, name):
    return [element for element in root.iter() if name in element.get("class", "").split()]


def places(path):
    """The points of a path of M and L."""
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path.get("d"))[1:]])


def translation(dot):
    return tuple(float(x) for x in re.findall(r"-?[\d.]+", dot.get("transform")))


def test_a_curve_goes_where_its_values_are():
    root = parsed(line_plot([Series("loss", [0, 5, 10], [4.0, 2.0, 0.0])], "step", "loss"))
    line = places(of_class(root.find("svg"), "line")[0])
    assert np.diff(line, axis=0)[0] == pytest.approx(np.diff(line, axis=0)[1], abs=0.2)  # equal steps
    assert (np.diff(line, axis=0) > 0).all()  # to the right and down
    assert (line > 0).all()
    assert (line < [WIDTH, HEIGHT]).all()


def test_on_logarithmic_axes_equal_factors_are_equal_distances():
    series = [Series("loss", [1, 10, 100], [1.0, 0.1, 0.01])]
    line = places(of_class(parsed(line_plot(series, "step", "loss", log_x=True, log_y=True)), "line")[0])
    assert np.diff(line, axis=0)[0] == pytest.approx(np.diff(line, axis=0)[1], abs=0.2)


def test_what_has_no_place_is_a_gap():
    series = [Series("loss", [0, 1, 2, 3, 4], [1.0, math.nan, 3.0, 0.0, 2.0])]
    (line, _) = of_class(parsed(line_plot(series, "step", "loss", log_y=True)), "line")
    assert re.sub("[^ML]", "", line.get("d")) == "MMM"
    (line, _) = of_class(parsed(line_plot(series, "step", "loss")), "line")
    assert re.sub("[^ML]", "", line.get("d")) == "MMLL"


def test_a_legend_names_thirty_curves_that_all_look_different():
    series = [Series(f"run {number}", [0, 1], [number, number + 1]) for number in range(30)]
    root = parsed(line_plot(series, "step", "loss"))
    legend = [item.find("span").text for item in root.iter("li")]
    assert legend == [each.name for each in series]
    lines = of_class(root.find("svg"), "line")
    assert len({(line.get("class"), line.get("stroke-dasharray")) for line in lines}) == 30
    assert len({line.get("stroke-dasharray") for line in lines}) == 5


def test_dots_are_where_their_values_are_and_groups_have_forms_of_their_own():
    points = [Point(1, 10, "1", "a", "one"), Point(2, 20, "2", "b", "two"), Point(3, 30, "3", "a", "three")]
    root = parsed(scatter_plot(points, "rate", "PSNR"))
    dots = of_class(root.find("svg"), "dot")
    x, y = np.array([translation(dot) for dot in dots]).T
    assert np.diff(x) == pytest.approx(np.diff(x)[::-1], abs=0.2)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) < 0).all()
    assert [dot.find("title").text for dot in dots] == ["one", "two", "three"]
    assert dots[0].get("d") == dots[2].get("d") != dots[1].get("d")
    assert [item.find("span").text for item in root.iter("li")] == ["a", "b"]


def test_labels_overlap_neither_each_other_nor_dots():
    rng = np.random.default_rng(0)
    points = [Point(x, y, str(number), "a", "") for number, (x, y) in enumerate(rng.random((60, 2)) ** 2)]
    svg = parsed(scatter_plot(points, "x", "y")).find("svg")
    labels = [
        (float(t.get("x")), float(t.get("y")), t.text) for t in of_class(svg, "label") if t.text.isdigit()
    ]
    assert len(labels) > 30
    boxes = [(x - 3.2 * len(text), y - 10, x + 3.2 * len(text), y + 2) for x, y, text in labels]
    dots = [(x - 4, y - 4, x + 4, y + 4) for x, y in map(translation, of_class(svg, "dot"))]
    for number, a in enumerate(boxes):
        for b in boxes[:number] + dots:
            assert a[0] >= b[2] - 0.2 or b[0] >= a[2] - 0.2 or a[1] >= b[3] - 0.2 or b[1] >= a[3] - 0.2


def test_a_distribution_shows_every_value_its_quartiles_and_median():
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    svg = parsed(strip_plot({"tiny": values, "none": []}, "PSNR")).find("svg")
    (dots,) = of_class(svg, "dots")
    x = np.array([float(place) for place in re.findall(r"M([\d.]+)", dots.get("d"))])
    assert np.interp(values, [1, 100], [x[0], x[-1]]) == pytest.approx(x, abs=0.2)
    (box,) = of_class(svg, "box")
    assert float(box.get("x")) == pytest.approx(x[1], abs=0.2)
    assert float(box.get("width")) == pytest.approx(x[3] - x[1], abs=0.2)
    (median,) = of_class(svg, "median")
    assert float(re.match(r"M([\d.]+)", median.get("d"))[1]) == pytest.approx(x[2], abs=0.2)
    texts = [text.text for text in svg.iter("text")]
    assert "median 3" in texts
    assert "no values" in texts


def test_bars_stand_on_zero_and_are_as_high_as_their_counts():
    normal = Series("normal", [0.0, 2.0], [1.0, 1.0])
    svg = parsed(histogram([0.0, 1.0, 2.0, 4.0], [2, 0, 4], "frames", "videos", curve=normal)).find("svg")
    (bars,) = of_class(svg, "bars")
    first, second = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)", bars.get("d"))
    heights = [float(bar[1]) - float(bar[2]) for bar in (first, second)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.3)
    widths = [float(bar[3]) - float(bar[0]) for bar in (first, second)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.3)
    (curve,) = of_class(svg, "line")
    assert float(first[1]) - places(curve)[0, 1] == pytest.approx(heights[0] / 2, abs=0.3)


def test_an_interval_reaches_one_standard_deviation_to_both_sides():
    svg = parsed(interval_plot({"a": (0.0, 1.0), "b": (2.0, 0.5)}, "latent")).find("svg")
    (band,) = of_class(svg, "band")
    ends = [
        [float(x) for x in re.match(r"M([\d.]+) [\d.]+H([\d.]+)", line.get("d")).groups()]
        for line in of_class(svg, "line")
    ]
    left, right = float(band.get("x")), float(band.get("x")) + float(band.get("width"))
    assert ends[0] == pytest.approx([left, right], abs=0.2)
    assert ends[1][1] - ends[1][0] == pytest.approx((right - left) / 2, abs=0.2)


@pytest.mark.parametrize(
    "plot",
    [
        line_plot([Series(EVIL, [0, 1], [0, 1])], EVIL, EVIL),
        scatter_plot([Point(1, 1, EVIL, EVIL, EVIL), Point(2, 1, "", "b", "")], EVIL, EVIL),
        strip_plot({EVIL: [1, 2]}, EVIL),
        histogram([0, 1], [1], EVIL, EVIL),
        interval_plot({EVIL: (0, 1)}, EVIL),
    ],
)
def test_no_text_becomes_an_element_or_a_control_code(plot):
    assert "<script" not in plot
    assert "\x1b" not in plot
    assert parsed(plot).find("svg") is not None


@pytest.mark.parametrize(
    "plot",
    [
        line_plot([], "x", "y", log_x=True),
        line_plot([Series("a", [], [])], "x", "y"),
        scatter_plot([], "x", "y"),
        strip_plot({}, "x"),
        histogram([0, 1], [0], "x", "y"),
        interval_plot({}, "x"),
    ],
)
def test_nothing_to_plot_is_an_empty_plot(plot):
    assert parsed(plot).find("svg").get("aria-label")
