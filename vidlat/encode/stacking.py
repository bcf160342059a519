"""Folding frames into VAE stacks, of whole videos or of a stream, and back.

Shape letters: B videos, C channels, T frames, H height, W width, n stacks of a video, S frames of a stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch


def fold_frames(frames: Iterable[npt.NDArray[np.float32]], stack: int) -> Iterator[npt.NDArray[np.float32]]:
    """Fold a stream of frames (H, W) into stacks (S, H, W), the last one filled with its last frame.

    Holds one stack in memory; an error of `frames` is raised without yielding a part of one.
    """
    frames = iter(frames)
    while some := list(islice(frames, stack)):
        yield np.stack(some + [some[-1]] * (stack - len(some)))


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
