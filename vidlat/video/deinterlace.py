"""Deinterlacing by FFmpeg's filter: frames whose odd and even lines show two times become frames of one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

import av
from av.filter import Graph

from vidlat.config import Deinterlace
from vidlat.types import Warn

Facts = TypeVar("Facts")

_FILTER = "bwdif"
_FILTER_OPTIONS = "mode=send_frame:deint=interlaced"  # as many frames as before, and only flagged ones change
_SMALLEST_SIDE = 16
"""The filter refuses planes below 3 x 4 pixels, and chroma may have a quarter of the lines."""

_WARNINGS: dict[Deinterlace, str] = {
    "auto": f"interlaced: deinterlaced by FFmpeg's {_FILTER}; --deinterlace off keeps the frames as they are",
    "off": "interlaced: moving edges are combs; --deinterlace auto removes them",
}


def deinterlaced(
    decoded: Iterator[tuple[av.VideoFrame, Facts]], how: Deinterlace, warn: Warn
) -> Iterator[tuple[av.VideoFrame, Facts]]:
    """Yield the same frames, each with what came with it, in order; warns once if any is interlaced.

    auto: from the first interlaced frame on they pass the filter, which shows each at the time of its first
    field. off: none does.
    """
    is_told = False
    graph: _FilterGraph[Facts] | None = None
    for frame, facts in decoded:
        is_interlaced = frame.interlaced_frame and min(frame.width, frame.height) >= _SMALLEST_SIDE
        if is_interlaced and not is_told:
            warn(_WARNINGS[how])
            is_told = True
        if graph and not graph.takes(frame):
            yield from graph.finish()
            graph = None
        if is_interlaced and how == "auto":
            graph = graph or _FilterGraph(frame)
        if graph:
            yield from graph.push(frame, facts)
        else:
            yield frame, facts
        del frame  # see _Decoding.frames in container.py
    if graph:
        yield from graph.finish()


class _FilterGraph(Generic[Facts]):
    """The filter for frames like the first. It yields each when it has seen the next one, or the end."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._layout = _layout(first)
        self._waiting: deque[Facts] = deque()
        self._graph = Graph()
        self._graph.threads = 1
        # Times are among the facts: those of the filter, in this unit, are not used.
        source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=Fraction(1)
        )
        steps = self._graph.add(_FILTER, _FILTER_OPTIONS), self._graph.add("buffersink")
        self._graph.link_nodes(source, *steps).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        return _layout(frame) == self._layout

    def push(self, frame: av.VideoFrame, facts: Facts) -> Iterator[tuple[av.VideoFrame, Facts]]:
        self._waiting.append(facts)
        self._graph.vpush(frame)
        return self._filtered()

    def finish(self) -> Iterator[tuple[av.VideoFrame, Facts]]:
        self._graph.vpush(None)
        return self._filtered()

    def _filtered(self) -> Iterator[tuple[av.VideoFrame, Facts]]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield frame, self._waiting.popleft()


def _layout(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
