"""The window of gray levels that a picture shows as black to white, so that dark clips can be seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]

WHITE = 255

PERCENTILE = 99.5
"""Of the pixels: a few that are brighter, such as letters, do not keep a clip dark."""

LEAST, MOST = 64, 204
"""Levels of 0..255: noise is not shown as white, and a clip that is bright enough is shown as it is."""


def window_of(frames: Iterable[Frames]) -> int:
    """The gray level to show as white, of a video frame by frame: WHITE itself where it is bright enough."""
    counts = np.zeros(WHITE + 1, np.int64)
    for frame in frames:
        counts += np.bincount(frame.ravel(), minlength=WHITE + 1)
    level = int(np.searchsorted(counts.cumsum(), counts.sum() * PERCENTILE / 100))
    return WHITE if level > MOST else max(LEAST, level)


def window_of_all(videos: Iterable[Iterable[Frames]]) -> int:
    """The gray level to show as white in one picture of several videos: that of the brightest."""
    return max(map(window_of, videos))


def shown_in(window: int, pixels: Frames) -> Frames:
    """Pixels of any shape as they are shown in a window: 0 to `window` become 0 to 255."""
    if window == WHITE:
        return pixels
    return np.rint(pixels.clip(0, window) * (WHITE / window)).astype(np.uint8)


def window_in_words(window: int) -> str:
    """What a window does, as a picture says it."""
    return f"gray levels 0 to {window} shown as 0 to {WHITE}"
