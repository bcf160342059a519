"""A gray frame to the square that the VAE sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidlat.config import Fit


def to_square(
    pixels: npt.NDArray[np.float32], sample_aspect_ratio: float, size: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """(H, W) to (size, size), both in [0, 1], resized with antialiasing, pixels that are not square made so.

    `crop` cuts the longer side equally on both ends, `letterbox` adds black bars, `stretch` distorts.
    """
    height, width = pixels.shape
    shown_width = width * sample_aspect_ratio
    if fit == "letterbox":
        scale = size / max(height, shown_width)
        inner = (max(1, round(height * scale)), max(1, round(shown_width * scale)))
        square = np.zeros((size, size), np.float32)
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        square[top : top + inner[0], left : left + inner[1]] = _resize(pixels, inner, (0, 0, width, height))
        return square
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(height, shown_width)
        cut_x, cut_y = (width - side / sample_aspect_ratio) / 2, (height - side) / 2
        box = (cut_x, cut_y, width - cut_x, height - cut_y)
    return _resize(pixels, (size, size), box)


def _resize(
    pixels: npt.NDArray[np.float32], size: tuple[int, int], box: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)
