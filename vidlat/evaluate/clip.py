"""A clip that is encoded and decoded at once, without a cache, and what that keeps of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.vae import FrozenVAE
from vidlat.evaluate.quality import QualityMeter, VideoQuality
from vidlat.evaluate.source import SourceFrames
from vidlat.pipeline.decode_videos import decode_latents
from vidlat.store.latents.statistics import to_stored

Frames = npt.NDArray[np.float32]

FRAMES_AT_ONCE = 16
"""Frames measured at once, which takes some hundred bytes per pixel."""


class MeasuredClip(NamedTuple):
    """The figures of a clip, its decoded frames (T, H, W) in [0, 1], and the seconds that encoding took."""

    quality: VideoQuality
    decoded: Frames
    encode_seconds: float


def measure_clip(vae: FrozenVAE, video_id: str, frames: Frames) -> MeasuredClip:
    """Encode and decode frames (T, H, W) in [0, 1], with latents as a cache would store them."""
    began = time.perf_counter()
    mean, _ = vae.encode(torch.from_numpy(frames)[None, None])
    stored = to_stored("mean", mean[0].cpu().numpy())
    seconds = time.perf_counter() - began
    decoded = decode_latents(vae, stored, len(frames))
    meter = QualityMeter(video_id, vae.timing.frame_step)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        piece = slice(start, start + FRAMES_AT_ONCE)
        meter.update(SourceFrames(frames[piece]), decoded[piece])
    return MeasuredClip(meter.result(), decoded, seconds)
