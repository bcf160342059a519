"""How close a reconstruction is to its source: MSE, PSNR, SSIM, sharpness and motion, per video and over all.

Frames are float32 (T, H, W) in [0, 1], as after preprocessing; nothing is rounded to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.errors import ShapeError, VidlatError
from vidlat.evaluate.motion import Changes, Motion, MotionMeter
from vidlat.evaluate.source import SourceFrames, detail_energy

Array = npt.NDArray[np.floating]

MSE_BELOW, PSNR_ABOVE, SSIM_ABOVE = 0.05, 38.0, 0.88
"""The criteria of a good reconstruction."""

PSNR_CAP = 100.0
"""A mean counts any higher PSNR as this many dB; that of an exact reconstruction is infinite."""

DETAIL_ABOVE = 1e-12
"""A source with less fine detail than this mean square has none: it is the rounding of float32."""


def psnr_of(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1]; infinite for 0."""
    return -10 * math.log10(mse) if mse else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoQuality:
    """One video's figures. psnr is that of the MSE over the whole video, in dB.

    sharpness: energy of fine detail over that of the source, None where that has none. inside, at_borders:
    its changes from frame to frame inside stacks and at their borders.
    """

    video_id: str
    num_frames: int
    mse: float
    psnr: float
    ssim: float
    sharpness: float | None
    inside: Changes
    at_borders: Changes

    @property
    def motion(self) -> Motion:
        """How much of the motion is kept."""
        return Motion.of(self.inside, self.at_borders)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity: an infinite psnr is None."""
        values = {
            name: getattr(self, name) for name in ("video_id", "num_frames", "mse", "ssim", "sharpness")
        }
        psnr = self.psnr if math.isfinite(self.psnr) else None
        return {**values, "psnr": psnr, "motion": self.motion.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Means of the videos' figures, each video with the same weight; psnr is the mean of capped PSNRs.

    sharpness: over the videos that have one. motion: of all changes together, so that videos which hardly
    move, and whose ratios mean little, weigh little.
    """

    num_videos: int
    num_frames: int
    mse: float
    psnr: float
    ssim: float
    sharpness: float | None
    motion: Motion

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
    """Measures one video's quality piece by piece; memory does not grow with its length.

    stack: frames per VAE call, at whose borders motion is measured apart.
    """

    def __init__(self, video_id: str, stack: int) -> None:
        self.video_id = video_id
        self._motion = MotionMeter(stack)
        self._num_frames = 0
        self._num_pixels = 0
        self._squared_error = 0.0
        self._ssim = 0.0
        self._detail = np.zeros(2)  # of source and reconstruction

    def update(self, source: SourceFrames, reconstruction: Array) -> None:
        """Add frames (T, H, W) of both; the reconstruction is clipped to [0, 1] first.

        Raises ShapeError for unequal shapes, VidlatError for values that are not finite.
        """
        if source.pixels.shape != reconstruction.shape:
            raise ShapeError(
                f"{self.video_id}: source {source.pixels.shape} and reconstruction {reconstruction.shape} "
                "must be equal (T, H, W)"
            )
        is_finite = np.isfinite(reconstruction).all(axis=(1, 2))
        if not is_finite.all():
            number = self._num_frames + int(np.argmin(is_finite))
            raise VidlatError(f"{self.video_id}: frame {number} of the reconstruction is not finite")
        copy = np.clip(reconstruction, 0, 1, dtype=np.float64)
        self._squared_error += float(np.square(source.pixels - copy).sum())
        self._ssim += float(source.similarity_of(copy).sum())
        self._detail += source.detail_energy, detail_energy(copy)
        self._motion.update(source.pixels, copy)
        self._num_pixels += copy.size
        self._num_frames += len(copy)

    def result(self) -> VideoQuality:
        """The figures of all frames so far; raises VidlatError if there were none."""
        if not self._num_frames:
            raise VidlatError(f"{self.video_id}: no frames were compared")
        mse = self._squared_error / self._num_pixels
        of_source, of_copy = self._detail
        return VideoQuality(
            video_id=self.video_id,
            num_frames=self._num_frames,
            mse=mse,
            psnr=psnr_of(mse),
            ssim=self._ssim / self._num_frames,
            sharpness=float(of_copy / of_source) if of_source > DETAIL_ABOVE * self._num_pixels else None,
            inside=self._motion.inside,
            at_borders=self._motion.at_borders,
        )


def summarise(videos: Sequence[VideoQuality]) -> Summary:
    """The means over videos; raises VidlatError if there are none."""
    if not videos:
        raise VidlatError("no videos were compared")
    sharp = [video.sharpness for video in videos if video.sharpness is not None]
    return Summary(
        num_videos=len(videos),
        num_frames=sum(video.num_frames for video in videos),
        mse=float(np.mean([video.mse for video in videos])),
        psnr=float(np.mean([min(video.psnr, PSNR_CAP) for video in videos])),
        ssim=float(np.mean([video.ssim for video in videos])),
        sharpness=float(np.mean(sharp)) if sharp else None,
        motion=Motion.of(
            sum((video.inside for video in videos), Changes()),
            sum((video.at_borders for video in videos), Changes()),
        ),
    )
