"""Plots as SVG in HTML, without a script: curves, dots, distributions, histograms.

Series differ in colour, and also in the form of their dots or the dashes of their lines; the colours
themselves are those of page.css, for light and dark. Elements are built as a tree, which escapes every text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from markupsafe import Markup

from vidlat.errors import printable
from vidlat.report.scales import Scale, tick_text

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 24, 38
"""Pixels around the plotted area, for the texts of its axes."""

LETTER = 6.4
"""About the width of a letter, in pixels."""

NUM_COLOURS, NUM_DASHES = 6, 5
"""Without a common divisor: thirty series are all unlike. The colours are Okabe and Ito's, in page.css."""

_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4")
_FORMS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-4-4h8v8h-8z",
    "M0-5L5 4H-5z",
    "M0-6L6 0L0 6L-6 0z",
    "M0 5L-5-4H5z",
)


class Series(NamedTuple):
    """A named curve: y over x. Values that are not finite are gaps."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Point(NamedTuple):
    """A dot with a short label; dots of one group look alike. name: what a pointer on the dot shows."""

    x: float
    y: float
    label: str
    group: str
    name: str


def line_plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    faint: Sequence[Series] = (),
    log_x: bool = False,
    log_y: bool = False,
) -> Markup:
    """Curves with a legend, such as the losses of trainings over their steps.

    faint: a curve for each, behind them and in the same colour.
    """
    xs = [value for each in (*faint, *series) for value in each.x]
    ys = [value for each in (*faint, *series) for value in each.y]
    figure, svg = _figure(f"{y_label} over {x_label}: {', '.join(each.name for each in series)}")
    x_scale, y_scale = _axes(svg, xs, ys, x_label, y_label, log_x=log_x, log_y=log_y)
    for curves, look in ((faint, " faint"), (series, "")):
        for number, each in enumerate(curves):
            path = _path(each, x_scale, y_scale)
            _add(svg, "path", _look(number, "line") + look, d=path, stroke_dasharray=_dash(number))
    _legend(figure, {each.name: number for number, each in enumerate(series)}, lines=True)
    return _markup(figure)


def _path(series: Series, x_scale: Scale, y_scale: Scale) -> str:
    """The curve as SVG writes it."""
    places, pen = [], "M"
    for x, y in zip(series.x, series.y, strict=True):
        if not (_has_place(x, x_scale) and _has_place(y, y_scale)):
            pen = "M"  # a gap
            continue
        places.append(f"{pen}{x_scale.place(x):.1f} {y_scale.place(y):.1f}")
        pen = "L"
    return "".join(places)


def scatter_plot(
    points: Sequence[Point], x_label: str, y_label: str, *, groups: Sequence[str] = (), log_x: bool = False
) -> Markup:
    """Dots with labels, and a legend of the groups where there are several.

    groups: all that other plots show too, in the order of their looks; by default those of the points.
    """
    figure, svg = _figure(f"{y_label} over {x_label} of {len(points)} items")
    x_scale, y_scale = _axes(
        svg, [point.x for point in points], [point.y for point in points], x_label, y_label, log_x=log_x
    )
    groups = list(dict.fromkeys([*groups, *(point.group for point in points)]))
    places = [(x_scale.place(point.x), y_scale.place(point.y)) for point in points]
    labels = _free_places(places, [point.label for point in points])
    for point, (x, y), label in zip(points, places, labels, strict=True):
        dot = _dot(svg, groups.index(point.group), x, y)
        _text(dot, "title", point.name)
        if label:
            _text(
                svg,
                "text",
                point.label,
                "label",
                x=f"{label[0]:.1f}",
                y=f"{label[1]:.1f}",
                text_anchor="middle",
            )
    if len(shown := {point.group for point in points}) > 1:
        _legend(figure, {group: number for number, group in enumerate(groups) if group in shown})
    return _markup(figure)


def strip_plot(
    rows: Mapping[str, Sequence[float]], x_label: str, *, colours: Mapping[str, int] | None = None
) -> Markup:
    """A row of dots per name, over a box of their middle half with the median as its line.

    colours: by name, the number of the colour; by default another one for each.
    """
    step = 48
    figure, svg = _figure(f"{x_label}: distributions of {', '.join(rows)}", TOP + step * len(rows) + BOTTOM)
    known = {name: np.asarray([v for v in values if math.isfinite(v)]) for name, values in rows.items()}
    x_scale = Scale.over(
        [value for values in known.values() for value in values.tolist()], RIGHT, WIDTH - RIGHT
    )
    bottom = TOP + step * len(rows)
    _x_axis(svg, x_scale, x_label, TOP, bottom)
    for number, (name, values) in enumerate(known.items()):
        top, colour = TOP + step * number, colours[name] if colours else number
        label = _text(svg, "text", _shorten(name, 40), "label", x=str(RIGHT), y=str(top + 12))
        _text(label, "title", name)
        if not len(values):
            _text(svg, "text", "no values", "tick", x=str(WIDTH - RIGHT), y=str(top + 12), text_anchor="end")
            continue
        low, median, high = (
            x_scale.place(value) for value in np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        )
        text = f"median {np.median(values):.4g}"
        _text(svg, "text", text, "tick", x=str(WIDTH - RIGHT), y=str(top + 12), text_anchor="end")
        _add(
            svg,
            "rect",
            _look(colour, "box"),
            x=f"{low:.1f}",
            y=f"{top + 18}",
            width=f"{high - low:.1f}",
            height="24",
        )
        # Each dot a little higher or lower, always alike, so that equal values can be told apart.
        heights = top + 22 + 16 * ((np.arange(len(values)) * 0.618) % 1)
        dots = (
            f"M{x_scale.place(v):.1f} {y:.1f}h0"
            for v, y in zip(values.tolist(), heights.tolist(), strict=True)
        )
        _add(svg, "path", _look(colour, "dots"), d="".join(dots))
        _add(svg, "path", _look(colour, "median"), d=f"M{median:.1f} {top + 16}v28")
    return _markup(figure)


def interval_plot(rows: Mapping[str, tuple[float, float]], x_label: str) -> Markup:
    """A dot per name at the mean, and a line of one standard deviation to both sides: {name: (mean, std)}.

    A band from -1 to 1 shows where a standard normal would be.
    """
    step, left = 20, 30 + LETTER * max(map(len, rows), default=0)
    bottom = 8 + step * len(rows)
    figure, svg = _figure(f"{x_label} of {', '.join(rows)}", bottom + BOTTOM)
    ends = [mean + side * std for mean, std in rows.values() for side in (-1, 1)]
    x_scale = Scale.over([*ends, -1.0, 1.0], left, WIDTH - RIGHT)
    band = {"x": f"{x_scale.place(-1):.1f}", "width": f"{x_scale.place(1) - x_scale.place(-1):.1f}"}
    _add(svg, "rect", "band", y="8", height=str(bottom - 8), **band)
    _x_axis(svg, x_scale, x_label, 8, bottom)
    for number, (name, (mean, std)) in enumerate(rows.items()):
        y = 8 + step * (number + 0.5)
        _text(svg, "text", name, "tick", x=f"{left - 8:.1f}", y=f"{y + 4:.1f}", text_anchor="end")
        _add(
            svg, "path", "line s0", d=f"M{x_scale.place(mean - std):.1f} {y}H{x_scale.place(mean + std):.1f}"
        )
        _dot(svg, 0, x_scale.place(mean), y)
    return _markup(figure)


def histogram(
    edges: Sequence[float],
    heights: Sequence[float],
    x_label: str,
    y_label: str,
    *,
    curve: Series | None = None,
    log_x: bool = False,
) -> Markup:
    """Bars between `edges`, and a dashed curve over them with its name in a legend."""
    figure, svg = _figure(f"histogram of {x_label}")
    tops = [*heights, *(curve.y if curve else ()), 0.0]
    x_scale, y_scale = _axes(svg, edges, tops, x_label, y_label, log_x=log_x, from_zero=True)
    bars, bottom = [], y_scale.place(0)
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        if height:
            x, y = x_scale.place(left), y_scale.place(height)
            bars.append(f"M{x:.1f} {bottom:.1f}V{y:.1f}H{x_scale.place(right):.1f}V{bottom:.1f}z")
    _add(svg, "path", "bars s0", d="".join(bars))
    if curve:
        line = (
            f"{x_scale.place(x):.1f} {y_scale.place(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True)
        )
        _add(svg, "path", "line text", d=f"M{'L'.join(line)}", stroke_dasharray=_DASHES[1])
    return _markup(figure)


def _figure(description: str, height: int = HEIGHT) -> tuple[Element, Element]:
    """A figure, and the picture in it, with what a screen reader says of it."""
    figure = Element("figure", {"class": "plot"})
    label = printable(_shorten(description, 200))
    svg = SubElement(figure, "svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": label})
    return figure, svg


def _axes(
    svg: Element,
    xs: Iterable[float],
    ys: Iterable[float],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    from_zero: bool = False,
) -> tuple[Scale, Scale]:
    """Draw axes, ticks and their texts. from_zero: the bottom of the picture is 0."""
    bottom = HEIGHT - BOTTOM
    x_scale = Scale.over(xs, LEFT, WIDTH - RIGHT, is_log=log_x)
    y_scale = Scale.over(ys, bottom, TOP, is_log=log_y)
    if from_zero:
        y_scale = Scale(low=0, high=y_scale.high, start=bottom, stop=TOP)
    _x_axis(svg, x_scale, x_label, TOP, bottom)
    for tick in y_scale.ticks():
        y = y_scale.place(tick)
        _add(svg, "path", "grid", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}")
        _text(svg, "text", tick_text(tick), "tick", x=str(LEFT - 5), y=f"{y + 4:.1f}", text_anchor="end")
    _add(svg, "path", "axis", d=f"M{LEFT} {TOP}V{bottom}")
    _text(svg, "text", y_label, "label", x="4", y="13")
    return x_scale, y_scale


def _x_axis(svg: Element, scale: Scale, label: str, top: float, bottom: float) -> None:
    for tick in scale.ticks():
        x = scale.place(tick)
        _add(svg, "path", "grid", d=f"M{x:.1f} {top}V{bottom}")
        _text(svg, "text", tick_text(tick), "tick", x=f"{x:.1f}", y=str(bottom + 15), text_anchor="middle")
    _add(svg, "path", "axis", d=f"M{scale.start} {bottom}H{scale.stop}")
    middle = f"{(scale.start + scale.stop) / 2:.1f}"
    _text(svg, "text", label, "label", x=middle, y=str(bottom + 32), text_anchor="middle")


def _free_places(
    dots: Sequence[tuple[float, float]], labels: Sequence[str]
) -> list[tuple[float, float] | None]:
    """Where the middle of the base line of each label can be beside its dot; None where there is no room."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    found: list[tuple[float, float] | None] = []
    for (x, y), label in zip(dots, labels, strict=True):
        half = LETTER * len(label) / 2
        around = [(x + half + 7, y + 4), (x - half - 7, y + 4), (x, y - 8), (x, y + 17)]
        around += [
            (x + half + 5, y - 6),
            (x + half + 5, y + 14),
            (x - half - 5, y - 6),
            (x - half - 5, y + 14),
        ]
        boxes = {place: (place[0] - half, place[1] - 10, place[0] + half, place[1] + 2) for place in around}
        free = (
            place
            for place, box in boxes.items()
            if box[0] >= LEFT and box[2] <= WIDTH and not any(_overlap(box, other) for other in taken)
        )
        place = next(free, None)
        found.append(place)
        if place:
            taken.append(boxes[place])
    return found


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(figure: Element, looks: Mapping[str, int], *, lines: bool = False) -> None:
    """looks: by name, the number of a series."""
    items = SubElement(figure, "ul", {"class": "legend"})
    for name, number in looks.items():
        item = SubElement(items, "li")
        sample = SubElement(item, "svg", {"viewBox": "0 0 30 12", "class": "sample", "aria-hidden": "true"})
        if lines:
            _add(sample, "path", _look(number, "line"), d="M1 6H29", stroke_dasharray=_dash(number))
        else:
            _dot(sample, number, 15, 6)
        _text(item, "span", name)


def _dot(parent: Element, number: int, x: float, y: float) -> Element:
    form = _FORMS[number % len(_FORMS)]
    return _add(parent, "path", _look(number, "dot"), d=form, transform=f"translate({x:.1f} {y:.1f})")


def _look(number: int, kind: str) -> str:
    return f"{kind} s{number % NUM_COLOURS}"


def _dash(number: int) -> str:
    return _DASHES[number % NUM_DASHES]


def _has_place(value: float, scale: Scale) -> bool:
    return math.isfinite(value) and (value > 0 or not scale.is_log)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _add(parent: Element, tag: str, look: str, **attributes: str) -> Element:
    given = {name.replace("_", "-"): value for name, value in attributes.items() if value}
    return SubElement(parent, tag, {"class": look, **given})


def _text(parent: Element, tag: str, text: str, look: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, {name.replace("_", "-"): value for name, value in attributes.items()})
    if look:
        element.set("class", look)
    element.text = printable(text)
    return element


def _markup(figure: Element) -> Markup:
    # As XML with an end tag each, which HTML reads too: as HTML it would leave a < in an attribute as it is.
    return Markup(tostring(figure, encoding="unicode", short_empty_elements=False))
