"""The settings that are texts with a grammar of their own: --crop, --intensity and --axes."""

from __future__ import annotations

import math
from typing import Literal

from vidlat.errors import ConfigError
from vidlat.types import Box, Range

INTENSITIES = ("auto", "uint8", "ct", "percentile", "minmax")
"""Named ways to choose the values that become black and white; LOW,HIGH is one more."""


def parse_crop(text: str) -> Literal["none", "auto"] | Box:
    """The meaning of --crop: a word, or a box of pixels; raises ConfigError."""
    if text == "none":
        return "none"
    if text == "auto":
        return "auto"
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        left, top, width, height = -1, -1, 0, 0
    if min(left, top) < 0 or min(width, height) < 1:
        raise ConfigError(
            f"crop: got {text!r}; expected none, auto, or X,Y,W,H in pixels: left, top, width, height"
        )
    return left, top, width, height


def parse_intensity(text: str) -> str | Range:
    """What --intensity means: one of INTENSITIES, or the values of black and white. Raises ConfigError."""
    if text in INTENSITIES:
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"intensity: got {text!r}; expected {', '.join(INTENSITIES)}, or LOW,HIGH")
    return low, high


def parse_axes(text: str) -> str:
    """What --axes means: auto, or each axis of an array by its letter, in upper case. Raises ConfigError."""
    axes = text.upper()
    if axes == "AUTO":
        return "auto"
    if not set("HW") <= set(axes) <= set("THWC") or len(set(axes)) < len(axes):
        raise ConfigError(
            f"axes: got {text!r}; expected auto, or each axis of the array once, such as HWT: "
            "T time, H height, W width, C channels"
        )
    return axes
