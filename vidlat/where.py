"""Conditions on videos, such as `view == "A4C" and num_frames > 20`, and the videos for which they hold."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from vidlat.errors import ConfigError, shown

MOST_LETTERS = 2000


class KnownVideo(NamedTuple):
    """What is known of a video, and a condition may ask. fps: 0 where it is unknown."""

    video_id: str
    subject: str
    num_frames: int
    fps: float
    labels: Mapping[str, str]


FACTS = ("subject", "video_id", "num_frames", "fps")
"""Names that are no labels. labels["fps"] is the label of that name, and so is labels["any other text"]."""

Holds = Callable[[KnownVideo], bool]
_Value = Callable[[KnownVideo], str | float]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_EXPECTED = (
    "expected comparisons of labels, subject, video_id, num_frames or fps with texts in quotes or numbers, "
    "joined by and, or, not: view == 'A4C' and EF >= 50"
)


def parse_where(text: str) -> tuple[Holds, frozenset[str]]:
    """The condition that a text states, and the labels that it names; nothing in the text is ever run.

    Comparisons are those of Python, with `in` and `not in` for a list of texts or numbers, which may be one
    without a comma, and for a text in a name. A label that a video lacks is an empty text, and an empty text
    is part of no other. Compared with a number, a label is read as one; a label that is none differs from
    every number and is neither less nor more. Raises ConfigError.
    """
    labels: set[str] = set()
    try:
        if len(text) > MOST_LETTERS:
            raise ValueError("too long")
        return _condition(ast.parse(text.strip(), mode="eval").body, labels), frozenset(labels)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"where: got {shown(text)}; {_EXPECTED}") from error


def videos_where(text: str, videos: Iterable[KnownVideo]) -> list[str]:
    """Ids of the videos for which a condition holds, in their order.

    Raises ConfigError for a label that no video has, and where it holds for none.
    """
    holds, labels = parse_where(text)
    videos = list(videos)
    known = {name for video in videos for name in video.labels}
    if unknown := sorted(labels - known):
        raise ConfigError(
            f"where: no video has a label {unknown[0]!r}{_with_quotes(text, {*FACTS, *known})}; "
            f"known are {', '.join([*FACTS, *sorted(known)])}"
        )
    found = [video.video_id for video in videos if holds(video)]
    if not found:
        raise ConfigError(f"where: {text} holds for none of {len(videos)} videos")
    return found


def _with_quotes(text: str, known: Collection[str]) -> str:
    """The first comparison of a known name with unknown ones, these as texts; empty where there is none."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
        unknown = [name for name in names if name.id not in known]
        if isinstance(node, ast.Compare) and 0 < len(unknown) < len(names):
            for name in unknown:
                name.id = repr(name.id)
            return f"; texts go in quotes: {ast.unparse(node)}"
    return ""


def _condition(node: ast.expr, labels: set[str]) -> Holds:
    """What a node of the syntax tree states; adds the labels that it names. Raises ValueError."""
    match node:
        case ast.BoolOp(op=op, values=nodes):
            parts, join = (
                [_condition(part, labels) for part in nodes],
                all if isinstance(op, ast.And) else any,
            )
            return lambda video: join(part(video) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            holds = _condition(part, labels)
            return lambda video: not holds(video)
        case ast.Compare(left=first, ops=ops, comparators=others):
            sides = [first, *others]
            links = [_comparison(*link, labels) for link in zip(sides, ops, others, strict=False)]
            return lambda video: all(link(video) for link in links)
    raise ValueError("no condition")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, labels: set[str]) -> Holds:
    one = _value(left, labels)
    if isinstance(op, ast.In | ast.NotIn):
        found = _membership(one, right, labels)
        return found if isinstance(op, ast.In) else lambda video: not found(video)
    if type(op) not in _COMPARISONS:
        raise ValueError("a comparison of another kind")
    other, compare = _value(right, labels), _COMPARISONS[type(op)]
    return lambda video: _compared(compare, one(video), other(video))


def _membership(one: _Value, right: ast.expr, labels: set[str]) -> Holds:
    match right:
        case ast.Tuple(elts=listed) | ast.List(elts=listed) | ast.Set(elts=listed):
            items = [_value(item, labels) for item in listed]
        case ast.Constant() | ast.UnaryOp():  # ('A4C'), to Python no list, but 'A4C'
            items = [_value(right, labels)]
        case _:
            whole = _value(right, labels)
            return lambda video: _is_part(str(one(video)), str(whole(video)))
    return lambda video: any(_compared(operator.eq, one(video), item(video)) for item in items)


def _is_part(text: str, whole: str) -> bool:
    """Whether a text is part of another; an empty one, which a video lacks, is not, as it is to Python."""
    return bool(text) and text in whole


def _value(node: ast.expr, labels: set[str]) -> _Value:
    """What a name or constant means for a video."""
    match node:
        case ast.Constant(value=str() | int() | float() as constant) if not isinstance(constant, bool):
            return lambda _: constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda _: -number
        case ast.Name(id=name) if name in FACTS:
            return operator.attrgetter(name)
        case (
            ast.Name(id=name)
            | ast.Subscript(value=ast.Name(id="labels"), slice=ast.Constant(value=str(name)))
        ):
            labels.add(name)
            return lambda video: video.labels.get(name, "")
    raise ValueError("neither a name nor a constant")


def _compared(compare: Callable[[Any, Any], bool], one: str | float, other: str | float) -> bool:
    if isinstance(one, str) == isinstance(other, str):
        return compare(one, other)
    with suppress(ValueError, OverflowError):
        if "_" not in f"{one}{other}":  # Python reads 1_2 as 12
            return compare(float(one), float(other))
    return compare is operator.ne
