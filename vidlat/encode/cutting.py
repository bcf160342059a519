"""From whole videos to VAE calls, and from what calls return to videos again: as tensors.

Shape letters: B videos, C channels, T frames, H height, W width, n calls of a video, S frames of a call, R
frames shown for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vidlat.timing import Timing


def stretch_video(video: torch.Tensor, timing: Timing) -> torch.Tensor:
    """(B, C, T, H, W) to (B, C, R*T, H, W), as the VAE is shown it."""
    if timing.stretch == 1 or timing.stretch_by == "repeat":
        return video.repeat_interleave(timing.stretch, dim=2)
    after = torch.cat([video[:, :, 1:], video[:, :, -1:]], dim=2)
    shares = torch.arange(timing.stretch, dtype=video.dtype, device=video.device) / timing.stretch
    shown = torch.stack([video * (1 - share) + after * share for share in shares], dim=3)
    return shown.flatten(2, 3)


def cut_calls(video: torch.Tensor, length: int, step: int) -> torch.Tensor:
    """Cut (B, C, T, H, W) into calls (B*n, C, length, H, W) that start `step` apart, any T >= 1.

    Calls of one video lie side by side: video 0's n calls first. The last frame fills the last call.
    """
    num_frames = video.shape[2]
    if num_frames < 1:
        raise ValueError(f"a video needs at least one frame: got shape {tuple(video.shape)}")
    missing = -(num_frames - length) % step if num_frames > length else length - num_frames
    if missing:
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
    # A plain reshape to (B*n, C, length, H, W) would mix channels and time: the n axis has to pass C first.
    return video.unfold(2, length, step).permute(0, 2, 1, 5, 3, 4).flatten(0, 1)


def split_calls(calls: torch.Tensor, num_videos: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Calls (B*n, C, S, H, W), as `cut_calls` orders them, to n calls of all videos, S times (B, C, H, W)."""
    if len(calls) % num_videos:
        raise ValueError(f"{len(calls)} calls cannot belong to {num_videos} videos of equal length")
    for call in calls.reshape(num_videos, -1, *calls.shape[1:]).unbind(1):
        yield call.unbind(2)
