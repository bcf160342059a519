"""What averaging and linear algebra reach with numbers as few as a latent's: a network below has learnt less.

Both floors cut a video into blocks of the VAE's (time, height, width) compression, the last frame and the
edges repeated to fill the last ones. Frames are float32 (T, H, W) in [0, 1] and arrive piece by piece, every
piece but a video's last a whole number of blocks long. Shape letters: N blocks, P pixels of one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidlat.errors import ShapeError
from vidlat.evaluate.quality import QualityMeter, VideoQuality

Array = npt.NDArray[np.floating]
Block = tuple[int, int, int]


class AveragingFloor:
    """Quality of one video from block averages, one number a block, interpolated between block centres.

    Trilinear over the whole video and constant beyond the outermost centres; one block of frames waits until
    its successor is known.
    """

    def __init__(self, video_id: str, block: Block) -> None:
        self._block = block
        self._meter = QualityMeter(video_id)
        self._before: Array | None = None
        self._waiting: tuple[Array, Array] | None = None

    def update(self, frames: Array) -> None:
        """Add frames (T, H, W); raises ShapeError after a piece that was no whole number of blocks long."""
        depth = self._block[0]
        for start in range(0, len(frames), depth):
            if self._waiting is not None and len(self._waiting[0]) < depth:
                raise ShapeError(f"only the last piece of a video may be no multiple of {depth} frames long")
            piece = frames[start : start + depth]
            average = _interpolated_average(piece, self._block)
            self._measure_waiting(average)
            self._waiting = piece, average

    def result(self) -> VideoQuality:
        """The floor of the whole video, to be asked once, after its last piece."""
        if self._waiting is not None:
            self._measure_waiting(self._waiting[1])
            self._waiting = None
        return self._meter.result()

    def _measure_waiting(self, after: Array) -> None:
        if self._waiting is None:
            return
        frames, current = self._waiting
        before = current if self._before is None else self._before
        # Where each frame lies, in blocks from the centre of its own.
        offset = ((np.arange(len(frames)) + 0.5) / self._block[0] - 0.5)[:, None, None]
        neighbour = np.where(offset < 0, before, after)
        self._meter.update(frames, current + np.abs(offset) * (neighbour - current))
        self._before = current


@dataclass(frozen=True, slots=True)
class BlockPca:
    """A mean block (P,) and orthonormal components (L, P): L numbers a block."""

    block: Block
    mean: Array
    components: Array

    def reconstruct(self, frames: Array) -> npt.NDArray[np.float32]:
        """(T, H, W) from its blocks' components alone; may leave [0, 1] a little."""
        blocks = _to_blocks(frames, self.block)
        codes = (blocks - self.mean) @ self.components.T
        return _from_blocks(codes @ self.components + self.mean, frames.shape, self.block)


class PcaFloor:
    """Fits PCA of blocks on other videos than the one to reconstruct, in two passes and bounded memory.

    First pass: `update` with every piece of every video. Second: `fit_without` a video, then `reconstruct`
    its pieces. Videos share num_folds accumulators by index, and all of a fold are left out together: up to
    num_folds videos that is leave-one-out exactly.
    """

    def __init__(self, block: Block, num_components: int, num_folds: int = 16) -> None:
        self._block, self._num_components, self._num_folds = block, num_components, num_folds
        num_pixels = math.prod(block)
        self._counts = np.zeros(num_folds)
        self._sums = np.zeros((num_folds, num_pixels))
        self._products = np.zeros((num_folds, num_pixels, num_pixels))

    def update(self, video_index: int, frames: Array) -> None:
        """Add frames (T, H, W) of one video."""
        blocks = _to_blocks(frames, self._block)
        fold = video_index % self._num_folds
        self._counts[fold] += len(blocks)
        self._sums[fold] += blocks.sum(0)
        self._products[fold] += blocks.T @ blocks

    def fit_without(self, video_index: int) -> BlockPca | None:
        """The PCA of all other folds; None where they hold nothing, as with a single video."""
        others = np.arange(self._num_folds) != video_index % self._num_folds
        count = self._counts[others].sum()
        if not count:
            return None
        mean = self._sums[others].sum(0) / count
        covariance = self._products[others].sum(0) / count - np.outer(mean, mean)
        _, vectors = np.linalg.eigh(covariance)  # eigenvalues ascend
        return BlockPca(self._block, mean, vectors[:, ::-1][:, : self._num_components].T)


def _interpolated_average(frames: Array, block: Block) -> Array:
    """(H, W): the average of each block of up to block[0] frames, interpolated between block centres."""
    height, width = frames.shape[1:]
    padded = _pad(frames, block)
    rows, columns = padded.shape[1] // block[1], padded.shape[2] // block[2]
    averages = padded.reshape(block[0], rows, block[1], columns, block[2]).mean((0, 2, 4), dtype=np.float64)
    smooth = _interpolation(rows, block[1]) @ averages @ _interpolation(columns, block[2]).T
    return np.asarray(smooth[:height, :width])


def _interpolation(num_blocks: int, size: int) -> Array:
    """(num_blocks * size, num_blocks): weights from block centres to pixel centres, ends held constant."""
    centres = np.clip((np.arange(num_blocks * size) + 0.5) / size - 0.5, 0, num_blocks - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(num_blocks)), 0, 1))


def _pad(frames: Array, block: Block) -> Array:
    missing = [(0, -side % size) for side, size in zip(frames.shape, block, strict=True)]
    return np.pad(frames, missing, mode="edge")


def _to_blocks(frames: Array, block: Block) -> Array:
    """(T, H, W), padded, to (N, P) float64."""
    padded = _pad(frames, block).astype(np.float64)
    t, h, w = (side // size for side, size in zip(padded.shape, block, strict=True))
    split = padded.reshape(t, block[0], h, block[1], w, block[2])
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(t * h * w, math.prod(block))


def _from_blocks(blocks: Array, shape: tuple[int, ...], block: Block) -> npt.NDArray[np.float32]:
    """The inverse of `_to_blocks`: (N, P) to (T, H, W) of the given shape, padding cropped."""
    t, h, w = (-(-side // size) for side, size in zip(shape, block, strict=True))
    split = blocks.reshape(t, h, w, *block).transpose(0, 3, 1, 4, 2, 5)
    whole = split.reshape(t * block[0], h * block[1], w * block[2])
    return whole[: shape[0], : shape[1], : shape[2]].astype(np.float32)
