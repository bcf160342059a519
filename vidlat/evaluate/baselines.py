"""Reconstructions without a network, as baselines of the VAE's quality: block averages and PCA of blocks.

Both cut a video into blocks as `encode.block_pca` does. Frames are float32 (T, H, W) in [0, 1] and arrive in
pieces; every piece of a video except the last is a whole number of blocks long.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import chain, pairwise

import numpy as np
import torch

from vidlat.encode.block_pca import Array, Block, BlockMoments, BlockPca, pad_to_blocks
from vidlat.errors import ShapeError


def with_block_averages(pieces: Iterable[Array], block: Block) -> Generator[tuple[Array, Array]]:
    """Each piece of a video with what one number per block, its average, reconstructs of it.

    Averages are interpolated trilinearly between block centres and constant beyond the outermost ones. A
    piece is held back until the next one is known. Raises ShapeError after one that ended within a block.
    """
    depth = block[0]
    before: Array | None = None
    ends: Iterable[Array | None] = chain(pieces, [None])
    for piece, following in pairwise(ends):
        assert piece is not None
        if following is not None and len(piece) % depth:
            raise ShapeError(f"every piece of a video but the last must be a multiple of {depth} frames")
        averages = _averages(piece, block)
        first = averages[:1] if before is None else before
        last = averages[-1:] if following is None else _averages(following[:depth], block)
        around = np.concatenate([first, averages, last])
        yield piece, _interpolate_in_time(around, depth)[: len(piece)]
        before = averages[-1:]


class PcaBaseline:
    """PCA of blocks, fitted on other videos than the one to reconstruct, in bounded memory.

    Add the moments of every video, then call `fit_without` for each. Videos share num_folds sums by index,
    and a whole fold is left out at a time: up to num_folds videos this is exactly leave-one-out.
    """

    def __init__(self, block: Block, num_components: int, num_folds: int = 16) -> None:
        self._num_components = num_components
        self._folds = [BlockMoments(block) for _ in range(num_folds)]

    def add(self, video_index: int, moments: BlockMoments) -> None:
        """Add the moments of all blocks of one video."""
        self._folds[video_index % len(self._folds)] += moments

    def fit_without(self, video_index: int) -> BlockPca | None:
        """The PCA of all other folds; None if they are empty, as for a single video."""
        left_out = self._folds[video_index % len(self._folds)]
        others = sum((fold for fold in self._folds if fold is not left_out), BlockMoments(left_out.block))
        return others.pca(self._num_components) if others.count else None


def _averages(frames: Array, block: Block) -> Array:
    """(n, H, W): the averages of blocks, of n in time, interpolated between block centres in space."""
    height, width = frames.shape[1:]
    padded = pad_to_blocks(frames, block)
    depth, rows, columns = (side // size for side, size in zip(padded.shape, block, strict=True))
    split = padded.reshape(depth, block[0], rows, block[1], columns, block[2])
    averages = torch.from_numpy(split.mean((1, 3, 5), dtype=np.float64))
    smooth = _interpolation(rows, block[1]) @ averages @ _interpolation(columns, block[2]).T
    return smooth.numpy()[:, :height, :width]


def _interpolate_in_time(averages: Array, depth: int) -> Array:
    """(n + 2, H, W), one number per block and one on either side, to (n * depth, H, W)."""
    offsets = ((np.arange(depth) + 0.5) / depth - 0.5)[:, None, None]  # from the centre of a block, in blocks
    current = averages[1:-1, None]
    neighbours = np.where(offsets < 0, averages[:-2, None], averages[2:, None])
    return (current + np.abs(offsets) * (neighbours - current)).reshape(-1, *averages.shape[1:])


def _interpolation(num_blocks: int, size: int) -> torch.Tensor:
    """(num_blocks * size, num_blocks): weights from block centres to pixel centres, constant at the ends."""
    centres = np.clip((np.arange(num_blocks * size) + 0.5) / size - 0.5, 0, num_blocks - 1)
    return torch.from_numpy(np.clip(1 - np.abs(centres[:, None] - np.arange(num_blocks)), 0, 1))
