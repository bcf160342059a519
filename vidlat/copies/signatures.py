"""What is compared of two windows of latents: their structure and motion, without brightness and contrast.

Shape letters: N windows, L latent channels, t latent frames, h and w latent height and width, h' and w' those
after pooling.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

SIDE = 8
"""Rows and columns, at most, that latents are pooled to.

With 8, 91 to 95 % of the copies at other times or another speed were found among real clips, with 4 73 to
88 %, with 16 94 to 97 % in four times the time (docs/how-to/evaluation.md).
"""


def pool(frames: Tensor) -> Tensor:
    """Latent frames (..., L, h, w) averaged over space to at most SIDE x SIDE, (..., L, h', w')."""
    *before, height, width = frames.shape
    sides = min(height, SIDE), min(width, SIDE)
    return functional.adaptive_avg_pool2d(frames.flatten(0, -3), sides).reshape(*before, *sides)


def signatures(windows: Tensor, mean: Tensor) -> Tensor:
    """The signatures (N, t * L * h' * w') of pooled windows (N, t, L, h', w'), of unit norm.

    mean: the mean pooled frame (L, h', w') of the training videos. It is taken off, since the outline of the
    sector, common to all videos, would dominate; then the mean of each channel, and the norm. A change of
    brightness and contrast in the frames, which changes the latents linearly or nearly so, is gone with them.
    The distance of two signatures is between 0 and 2, and the square root of 2 for windows without a
    likeness.
    """
    centred = windows - mean
    centred = centred - centred.mean((1, 3, 4), keepdim=True)
    return functional.normalize(centred.flatten(1))
