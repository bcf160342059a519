"""Reconstructions without a network, as baselines of the VAE's quality: block averages and PCA of blocks.

Both cut a video into blocks as `encode.block_pca` does. Frames are float32 (T, H, W) in [0, 1] and arrive in
pieces; every piece of a video except the last is a whole number of blocks long.
"""

from __future__ import annotations

import numpy as np

from vidlat.encode.block_pca import Array, Block, BlockMoments, BlockPca, pad_to_blocks
from vidlat.errors import ShapeError
from vidlat.evaluate.quality import QualityMeter, VideoQuality


class AveragingBaseline:
    """Quality of one video from its block averages, one number per block.

    Averages are interpolated trilinearly between block centres and constant beyond the outermost ones. One
    block of frames is held back until the block after it is known. stack: as for `QualityMeter`.
    """

    def __init__(self, video_id: str, block: Block, stack: int) -> None:
        self._block = block
        self._meter = QualityMeter(video_id, stack)
        self._before: Array | None = None
        self._held: tuple[Array, Array] | None = None

    def update(self, frames: Array) -> None:
        """Add frames (T, H, W); raises ShapeError after a piece that ended within a block."""
        depth = self._block[0]
        for start in range(0, len(frames), depth):
            if self._held is not None and len(self._held[0]) < depth:
                raise ShapeError(f"every piece of a video but the last must be a multiple of {depth} frames")
            piece = frames[start : start + depth]
            average = _interpolated_average(piece, self._block)
            self._measure_held(average)
            self._held = piece, average

    def result(self) -> VideoQuality:
        """The quality of the whole video; call it once, after the last piece."""
        if self._held is not None:
            self._measure_held(self._held[1])
            self._held = None
        return self._meter.result()

    def _measure_held(self, after: Array) -> None:
        if self._held is None:
            return
        frames, current = self._held
        before = current if self._before is None else self._before
        # Distance of each frame from the centre of its block, in blocks.
        offset = ((np.arange(len(frames)) + 0.5) / self._block[0] - 0.5)[:, None, None]
        neighbour = np.where(offset < 0, before, after)
        self._meter.update(frames, current + np.abs(offset) * (neighbour - current))
        self._before = current


class PcaBaseline:
    """PCA of blocks, fitted on other videos than the one to reconstruct, in bounded memory.

    Call `update` with every piece of every video, then `fit_without` for each video. Videos share num_folds
    accumulators by index, and a whole fold is left out at a time: up to num_folds videos this is exactly
    leave-one-out.
    """

    def __init__(self, block: Block, num_components: int, num_folds: int = 16) -> None:
        self._num_components = num_components
        self._folds = [BlockMoments(block) for _ in range(num_folds)]

    def update(self, video_index: int, frames: Array) -> None:
        """Add frames (T, H, W) of one video."""
        self._folds[video_index % len(self._folds)].update(frames)

    def fit_without(self, video_index: int) -> BlockPca | None:
        """The PCA of all other folds; None if they are empty, as for a single video."""
        left_out = self._folds[video_index % len(self._folds)]
        others = sum((fold for fold in self._folds if fold is not left_out), BlockMoments(left_out.block))
        return others.pca(self._num_components) if others.count else None


def _interpolated_average(frames: Array, block: Block) -> Array:
    """(H, W): the average of each block of up to block[0] frames, interpolated between block centres."""
    height, width = frames.shape[1:]
    padded = pad_to_blocks(frames, block)
    rows, columns = padded.shape[1] // block[1], padded.shape[2] // block[2]
    averages = padded.reshape(block[0], rows, block[1], columns, block[2]).mean((0, 2, 4), dtype=np.float64)
    smooth = _interpolation(rows, block[1]) @ averages @ _interpolation(columns, block[2]).T
    return np.asarray(smooth[:height, :width])


def _interpolation(num_blocks: int, size: int) -> Array:
    """(num_blocks * size, num_blocks): weights from block centres to pixel centres, constant at the ends."""
    centres = np.clip((np.arange(num_blocks * size) + 0.5) / size - 0.5, 0, num_blocks - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(num_blocks)), 0, 1))
