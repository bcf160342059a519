"""Time: how the frames of a video become VAE calls and latent frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StretchBy = Literal["repeat", "linear"]
"""What is shown between two frames of a stretched video: the earlier one again, or a blend of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How many frames a VAE call takes, and how slowly a video is shown to it.

    stack: frames of a call, a multiple of both others. compression: of those frames, per latent frame.
    stretch: of those frames, per frame of the video; with 4, and a compression of 4, every frame of the video
    has a latent frame of its own.
    """

    stack: int
    compression: int
    stretch: int = 1
    stretch_by: StretchBy = "repeat"

    @property
    def frames_per_call(self) -> int:
        """Frames of the video in a VAE call."""
        return self.stack // self.stretch

    @property
    def latents_per_call(self) -> int:
        """Latent frames of a VAE call."""
        return self.stack // self.compression

    @property
    def frames_per_latent(self) -> int:
        """Frames of the video in a latent frame; 1 where it has several latent frames."""
        return max(1, self.compression // self.stretch)

    def num_calls(self, num_frames: int) -> int:
        """Calls for a video of `num_frames` frames; the last one may be padded with its last frame."""
        return -(-num_frames // self.frames_per_call)

    def num_latent_frames(self, num_frames: int) -> int:
        """Latent frames of a video of `num_frames` frames, padding included."""
        return self.num_calls(num_frames) * self.latents_per_call

    def num_valid(self, num_frames: int) -> int:
        """Leading latent frames of such a video that hold a frame of it; the others hold padding alone."""
        return -(-num_frames * self.stretch // self.compression)

    def num_unpadded(self, num_frames: int) -> int:
        """Leading latent frames of calls without any padding; those with a frame, if no call is without."""
        num_whole = num_frames // self.frames_per_call * self.latents_per_call
        return num_whole or self.num_valid(num_frames)
