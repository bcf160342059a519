"""Time: how the frames of a video become VAE calls and latent frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidlat.errors import TimingError

StretchBy = Literal["repeat", "linear"]
"""What is shown between two frames of a stretched video: the earlier one again, or a blend of both."""

Blend = Literal["average", "center"]
"""Which latents are kept of frames that several calls share: their mean, or those nearest a call's middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How many frames a VAE call takes, how many it shares with the next, and how slowly a video is shown.

    stack: frames of a call. compression: of those frames, per latent frame. overlap: of those frames, shared
    with the next call. stretch: of those frames, per frame of the video; with 4, and a compression of 4,
    every frame of the video has a latent frame of its own.

    An overlap of whole latent frames leaves one latent frame for all calls that share its frames, chosen by
    `blend`. Any other overlap keeps the latent frames of every call.
    Raises TimingError, with what would work, for values that do not fit each other.
    """

    stack: int
    compression: int
    overlap: int = 0
    blend: Blend = "average"
    stretch: int = 1
    stretch_by: StretchBy = "repeat"

    def __post_init__(self) -> None:
        stack, compression, overlap, stretch = self.stack, self.compression, self.overlap, self.stretch
        if stack < compression or stack % compression:
            below, above = stack // compression * compression, (stack // compression + 1) * compression
            nearest = f"{below} and {above}" if below else str(above)
            raise TimingError(
                f"stack: got {stack}; expected a multiple of {compression}, by which this VAE compresses "
                f"time; nearest that works: {nearest}"
            )
        if stack % stretch:
            raise TimingError(
                f"stretch: got {stretch}; expected a divisor of the stack of {stack} frames, so that a call "
                "holds whole frames of the video"
            )
        if overlap >= stack:
            raise TimingError(
                f"overlap: got {overlap}; expected less than the stack of {stack} frames: {stack - stretch} "
                "at most"
            )
        if overlap % stretch:
            raise TimingError(
                f"overlap: got {overlap}; expected a multiple of the stretch of {stretch}, so that calls "
                "share whole frames of the video"
            )
        if self.blend != "average" and not (overlap and self._shares_latents):
            raise TimingError(
                f"blend: got {self.blend}; it needs calls that share latent frames: an overlap of a multiple "
                f"of {compression} frames, less than the stack of {stack}"
            )

    @property
    def frames_per_call(self) -> int:
        """Frames of the video in a VAE call."""
        return self.stack // self.stretch

    @property
    def latents_per_call(self) -> int:
        """Latent frames of a VAE call."""
        return self.stack // self.compression

    @property
    def frame_step(self) -> int:
        """Frames of the video from the start of a call to the start of the next."""
        return (self.stack - self.overlap) // self.stretch

    @property
    def latent_step(self) -> int:
        """Stored latent frames from the start of a call to the start of the next."""
        return self.latents_per_call - (self.overlap // self.compression if self._shares_latents else 0)

    @property
    def frames_per_latent(self) -> int:
        """Frames of the video per latent frame, rounded down; 1 where there are more latent frames."""
        return max(1, self.frame_step // self.latent_step)

    @property
    def frames_per_stored_latent(self) -> float:
        """Frames of the video per stored latent frame, of many calls; below 1 where there are more."""
        return self.frame_step / self.latent_step

    @property
    def _shares_latents(self) -> bool:
        return self.overlap % self.compression == 0

    def num_calls(self, num_frames: int) -> int:
        """Calls for a video of `num_frames` frames; the last one may be padded with its last frame."""
        return 1 + max(0, -(-(num_frames - self.frames_per_call) // self.frame_step))

    def num_whole_calls(self, num_frames: int) -> int:
        """Those of the calls that are not padded."""
        return max(0, (num_frames - self.frames_per_call) // self.frame_step + 1)

    def num_latent_frames(self, num_frames: int) -> int:
        """Latent frames of a video of `num_frames` frames, padding included."""
        return self.latents_of(self.num_calls(num_frames))

    def num_valid(self, num_frames: int) -> int:
        """Leading latent frames of such a video that hold a frame of it; the others hold padding alone."""
        num_before = self.num_calls(num_frames) - 1
        in_last = num_frames - num_before * self.frame_step
        return num_before * self.latent_step - (-in_last * self.stretch // self.compression)

    def num_unpadded(self, num_frames: int) -> int:
        """Leading latent frames of calls without any padding; those with a frame, if no call is without."""
        num_whole = self.num_whole_calls(num_frames)
        return self.latents_of(num_whole) if num_whole else self.num_valid(num_frames)

    def frame_at(self, latent_frame: int) -> int:
        """The frame of the video at which a call starts, by the latent frame at which it starts."""
        return latent_frame // self.latent_step * self.frame_step

    def frames_of(self, num_calls: int) -> int:
        """Frames of the video in so many calls that follow each other, none of them padded."""
        return (num_calls - 1) * self.frame_step + self.frames_per_call

    def latents_of(self, num_calls: int) -> int:
        """Stored latent frames of so many calls that follow each other."""
        return (num_calls - 1) * self.latent_step + self.latents_per_call

    def num_calls_with(self, num_latent_frames: int) -> int:
        """The fewest calls that have so many latent frames."""
        return 1 + max(0, -(-(num_latent_frames - self.latents_per_call) // self.latent_step))
