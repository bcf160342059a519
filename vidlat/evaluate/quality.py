"""How close a reconstruction is to its source: MSE, PSNR and SSIM per video, and over all videos.

Frames are float32 (T, H, W) in [0, 1], as after preprocessing; nothing is rounded to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from vidlat.errors import ShapeError, VidlatError

Array = npt.NDArray[np.floating]

MSE_BELOW, PSNR_ABOVE, SSIM_ABOVE = 0.05, 38.0, 0.88
"""The criteria of a good reconstruction."""

PSNR_CAP = 100.0
"""A mean counts any higher PSNR as this many dB; that of an exact reconstruction is infinite."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr_of(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1]; infinite for 0."""
    return -10 * math.log10(mse) if mse else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoQuality:
    """One video's figures. psnr is that of the MSE over the whole video, in dB."""

    video_id: str
    num_frames: int
    mse: float
    psnr: float
    ssim: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity: an infinite psnr is None."""
        return {**asdict(self), "psnr": self.psnr if math.isfinite(self.psnr) else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Means of the videos' figures, each video with the same weight; psnr is the mean of capped PSNRs."""

    num_videos: int
    num_frames: int
    mse: float
    psnr: float
    ssim: float

    @property
    def criteria(self) -> dict[str, bool]:
        """Each criterion in words, and whether it holds."""
        return {
            f"MSE < {MSE_BELOW:g}": self.mse < MSE_BELOW,
            f"PSNR > {PSNR_ABOVE:g} dB": self.psnr > PSNR_ABOVE,
            f"SSIM > {SSIM_ABOVE:g}": self.ssim > SSIM_ABOVE,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the criteria among them."""
        return {**asdict(self), "criteria": self.criteria}


class QualityMeter:
    """Measures one video's quality piece by piece; memory does not grow with its length."""

    def __init__(self, video_id: str) -> None:
        self.video_id = video_id
        self._num_frames = 0
        self._num_pixels = 0
        self._squared_error = 0.0
        self._ssim = 0.0

    def update(self, reference: Array, reconstruction: Array) -> None:
        """Add frames, both (T, H, W); the reconstruction is clipped to [0, 1] first.

        Raises ShapeError for unequal shapes or frames under 11 pixels, VidlatError for values not finite.
        """
        if reference.ndim != 3 or reference.shape != reconstruction.shape:
            raise ShapeError(
                f"{self.video_id}: source {reference.shape} and reconstruction {reconstruction.shape} "
                "must be equal (T, H, W)"
            )
        for source, copy in zip(reference.astype(np.float64), reconstruction.astype(np.float64), strict=True):
            if not np.isfinite(copy).all():
                raise VidlatError(
                    f"{self.video_id}: frame {self._num_frames} of the reconstruction is not finite"
                )
            clipped = np.clip(copy, 0, 1)
            self._squared_error += float(np.square(source - clipped).sum())
            self._ssim += structural_similarity(source, clipped)
            self._num_pixels += source.size
            self._num_frames += 1

    def result(self) -> VideoQuality:
        """The figures of all frames so far; raises VidlatError if there were none."""
        if not self._num_frames:
            raise VidlatError(f"{self.video_id}: no frames were compared")
        mse = self._squared_error / self._num_pixels
        return VideoQuality(
            video_id=self.video_id,
            num_frames=self._num_frames,
            mse=mse,
            psnr=psnr_of(mse),
            ssim=self._ssim / self._num_frames,
        )


def structural_similarity(source: Array, copy: Array) -> float:
    """SSIM of two frames (H, W) of range 1: Gaussian window of 11 pixels, sigma 1.5, population covariance.

    Averaged over the windows that lie within the frame. Wang et al. 2004, doi 10.1109/TIP.2003.819861.
    """
    if min(source.shape) < _WINDOW:
        raise ShapeError(f"SSIM needs frames of at least {_WINDOW}x{_WINDOW} pixels: got {source.shape}")
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        _windowed_mean(values) for values in (source, copy, source * source, copy * copy, source * copy)
    )
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    denominator = (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return float((numerator / denominator).mean())


def summarise(videos: Sequence[VideoQuality]) -> Summary:
    """The means over videos; raises VidlatError if there are none."""
    if not videos:
        raise VidlatError("no videos were compared")
    return Summary(
        num_videos=len(videos),
        num_frames=sum(video.num_frames for video in videos),
        mse=float(np.mean([video.mse for video in videos])),
        psnr=float(np.mean([min(video.psnr, PSNR_CAP) for video in videos])),
        ssim=float(np.mean([video.ssim for video in videos])),
    )


def _windowed_mean(values: Array) -> Array:
    half = _WINDOW // 2
    return np.asarray(gaussian_filter(values, _SIGMA, radius=half)[half:-half, half:-half])
