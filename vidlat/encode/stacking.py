"""Stretching frames and folding them into VAE stacks, of whole videos or of a stream, and back.

Shape letters: B videos, C channels, T frames, H height, W width, n stacks of a video, S frames of a stack, R
frames shown for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise

import numpy as np
import numpy.typing as npt
import torch

from vidlat.timing import Timing

Frame = npt.NDArray[np.float32]


def fold_frames(frames: Iterable[Frame], timing: Timing) -> Iterator[Frame]:
    """Fold a stream of frames (H, W) into stacks (S, H, W), the last one filled with its last frame.

    Holds one stack in memory; an error of `frames` is raised without yielding a part of one.
    """
    shown = _stretched(frames, timing)
    while some := list(islice(shown, timing.stack)):
        yield np.stack(some + [some[-1]] * (timing.stack - len(some)))


def _stretched(frames: Iterable[Frame], timing: Timing) -> Iterator[Frame]:
    """Each frame R times, or with R - 1 blends of it and the next one; the last frame R times."""
    if timing.stretch == 1 or timing.stretch_by == "repeat":
        for frame in frames:
            yield from [frame] * timing.stretch
        return
    shares = [np.float32(part / timing.stretch) for part in range(timing.stretch)]
    ends: Iterable[Frame | None] = chain(frames, [None])
    for before, following in pairwise(ends):
        assert before is not None
        after = before if following is None else following
        yield from (before * (1 - share) + after * share for share in shares)


def stretch_video(video: torch.Tensor, timing: Timing) -> torch.Tensor:
    """(B, C, T, H, W) to (B, C, R*T, H, W), as the VAE is shown it."""
    if timing.stretch == 1 or timing.stretch_by == "repeat":
        return video.repeat_interleave(timing.stretch, dim=2)
    after = torch.cat([video[:, :, 1:], video[:, :, -1:]], dim=2)
    shares = torch.arange(timing.stretch, dtype=video.dtype, device=video.device) / timing.stretch
    shown = torch.stack([video * (1 - share) + after * share for share in shares], dim=3)
    return shown.flatten(2, 3)


def shrink_video(shown: torch.Tensor, timing: Timing) -> torch.Tensor:
    """(B, C, R*T, H, W) to (B, C, T, H, W): the mean of what stands for a frame, without blends."""
    batch, channels, _, height, width = shown.shape
    each = shown.reshape(batch, channels, -1, timing.stretch, height, width)
    return each.mean(dim=3) if timing.stretch_by == "repeat" else each[:, :, :, 0]


def stack_frames(video: torch.Tensor, stack: int) -> torch.Tensor:
    """Fold (B, C, T, H, W) into (B*n, C, S, H, W), n = ceil(T / S); the last frame fills the last stack.

    Stacks of one video lie side by side: video 0's n stacks first. Any T >= 1 works.
    """
    batch, channels, num_frames, height, width = video.shape
    if num_frames < 1:
        raise ValueError(f"a video needs at least one frame: got shape {tuple(video.shape)}")
    missing = -num_frames % stack
    if missing:
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
    num_stacks = video.shape[2] // stack
    # A plain reshape to (B*n, C, S, H, W) would mix channels and time: the n axis has to pass C first.
    folded = video.reshape(batch, channels, num_stacks, stack, height, width)
    return folded.transpose(1, 2).reshape(batch * num_stacks, channels, stack, height, width)


def unstack_frames(stacks: torch.Tensor, num_videos: int) -> torch.Tensor:
    """Unfold (B*n, C, S, H, W) into (B, C, n*S, H, W): the inverse of `stack_frames`, padding kept.

    S may differ from the stack length that went in: latents come back with S / time compression.
    """
    total, channels, depth, height, width = stacks.shape
    if total % num_videos:
        raise ValueError(f"{total} stacks cannot belong to {num_videos} videos of equal length")
    num_stacks = total // num_videos
    unfolded = stacks.reshape(num_videos, num_stacks, channels, depth, height, width)
    return unfolded.transpose(1, 2).reshape(num_videos, channels, num_stacks * depth, height, width)
