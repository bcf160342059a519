"""Principal component analysis (PCA) of the blocks of a video: the best linear code of a given size.

A block has the size of what one latent position covers in (time, height, width). Frames are (T, H, W); the
last frame and the edges are repeated to complete the last blocks. Shape letters: N blocks, P pixels of a
block, K components. Products of many blocks are PyTorch's, whose threads a caller in a thread can limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.floating]
Block = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class BlockPca:
    """Mean block (P,), orthonormal components (K, P), and the standard deviation along each, (K,)."""

    block: Block
    mean: Array
    components: Array
    scales: Array

    def reconstruct(self, frames: Array) -> npt.NDArray[np.float32]:
        """(T, H, W) from K numbers per block; values may leave [0, 1] a little."""
        components = torch.from_numpy(np.ascontiguousarray(self.components))
        codes = torch.from_numpy(to_blocks(frames, self.block) - self.mean) @ components.T
        return from_blocks((codes @ components).numpy() + self.mean, frames.shape, self.block)


class BlockMoments:
    """Number, sum (P,) and sum of outer products (P, P) of all blocks seen, in constant memory."""

    def __init__(self, block: Block) -> None:
        num_pixels = math.prod(block)
        self.block = block
        self.count = 0
        self.sums = np.zeros(num_pixels)
        self.products = np.zeros((num_pixels, num_pixels))

    def update(self, frames: Array) -> None:
        """Add the blocks of frames (T, H, W)."""
        blocks = to_blocks(frames, self.block)
        self.count += len(blocks)
        self.sums += blocks.sum(0)
        tensor = torch.from_numpy(blocks)
        self.products += (tensor.T @ tensor).numpy()

    def __add__(self, other: BlockMoments) -> BlockMoments:
        total = BlockMoments(self.block)
        total.count = self.count + other.count
        total.sums, total.products = self.sums + other.sums, self.products + other.products
        return total

    def pca(self, num_components: int, *, constant_mean: bool = False) -> BlockPca:
        """The directions of largest variance about the mean block, or about one value for all its pixels."""
        average = self.sums / self.count
        mean = np.full_like(average, average.mean()) if constant_mean else average
        shift = np.outer(mean, average)
        covariance = self.products / self.count - shift - shift.T + np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)  # eigenvalues ascend
        scales = np.sqrt(np.maximum(values[::-1][:num_components], 1e-12))
        return BlockPca(self.block, mean, vectors[:, ::-1][:, :num_components].T, scales)


def pad_to_blocks(frames: Array, block: Block) -> Array:
    """(T, H, W) extended to whole blocks by repeating the last frame and the edges."""
    missing = [(0, -side % size) for side, size in zip(frames.shape, block, strict=True)]
    return np.pad(frames, missing, mode="edge")


def to_blocks(frames: Array, block: Block) -> Array:
    """(T, H, W), padded, to (N, P) float64."""
    padded = pad_to_blocks(frames, block).astype(np.float64)
    t, h, w = (side // size for side, size in zip(padded.shape, block, strict=True))
    split = padded.reshape(t, block[0], h, block[1], w, block[2])
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(t * h * w, math.prod(block))


def from_blocks(blocks: Array, shape: tuple[int, ...], block: Block) -> npt.NDArray[np.float32]:
    """The inverse of `to_blocks`: (N, P) to (T, H, W) of the given shape, padding cropped."""
    t, h, w = (-(-side // size) for side, size in zip(shape, block, strict=True))
    split = blocks.reshape(t, h, w, *block).transpose(0, 3, 1, 4, 2, 5)
    whole = split.reshape(t * block[0], h * block[1], w * block[2])
    return whole[: shape[0], : shape[1], : shape[2]].astype(np.float32)
