"""Frames whose blocks have structure, and those blocks cut out one by one."""

import numpy as np
import torch


def smooth_frames(num_frames=8, side=16, seed=0):
    """Correlated noise in [0, 1], so that some components matter more than others."""
    noise = torch.rand(
        1, 1, num_frames // 2, side // 4, side // 4, generator=torch.Generator().manual_seed(seed)
    )
    fine = torch.rand(num_frames, side, side, generator=torch.Generator().manual_seed(seed + 1))
    coarse = torch.nn.functional.interpolate(noise, size=(num_frames, side, side), mode="trilinear")[0, 0]
    return (0.8 * coarse + 0.2 * fine).numpy()


def blocks_of(frames):
    """Brute force: every 4x4x4 block as a row."""
    t, h, w = frames.shape
    rows = [
        frames[a : a + 4, b : b + 4, c : c + 4].ravel()
        for a in range(0, t, 4)
        for b in range(0, h, 4)
        for c in range(0, w, 4)
    ]
    return np.stack(rows).astype(np.float64)
