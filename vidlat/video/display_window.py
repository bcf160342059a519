"""The window of gray levels that a picture shows as black to white, so that dark clips can be seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]

WHITE = 255

PERCENTILE = 99.5
"""Of the pixels: a few that are brighter, such as letters, do not keep a clip dark."""

LEAST, MOST = 64, 204
"""Levels of 0..255: noise is not shown as white, and a clip that is bright enough is shown as it is."""


def window_of(pixels: Frames) -> int:
    """The gray level to show as white, of pixels of any shape: WHITE itself where they are bright enough."""
    level = np.percentile(pixels, PERCENTILE)
    return WHITE if level > MOST else max(LEAST, int(np.ceil(level)))


def shown_in(window: int, pixels: Frames) -> Frames:
    """Pixels of any shape as they are shown in a window: 0 to `window` become 0 to 255."""
    if window == WHITE:
        return pixels
    return np.rint(pixels.clip(0, window) * (WHITE / window)).astype(np.uint8)
