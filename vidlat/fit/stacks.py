"""Training stacks drawn evenly from any number of videos, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from vidlat.config import FitVAEConfig
from vidlat.encode.block_pca import BlockMoments, BlockPca
from vidlat.fit.linear_start import BLOCK


class TrainingStacks:
    """A uniform sample of the stacks of all videos added, and the block moments of all of them.

    num_videos: how many videos were long enough for a stack.
    """

    def __init__(self, settings: FitVAEConfig) -> None:
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)
        self._stacks: list[npt.NDArray[np.uint8]] = []
        self._num_seen = 0
        self.num_videos = 0
        self._moments = BlockMoments(BLOCK)

    def __len__(self) -> int:
        return len(self._stacks)

    def add_video(self, frames: Iterable[npt.NDArray[np.float32]]) -> None:
        """Add a video's frames, each (size, size) in [0, 1]; those after the last whole stack are unused."""
        frames, num_seen_before = iter(frames), self._num_seen
        while len(stack := list(islice(frames, self._settings.stack))) == self._settings.stack:
            self.num_videos += self._num_seen == num_seen_before
            self._add_stack(np.stack(stack))

    def _add_stack(self, stack: npt.NDArray[np.float32]) -> None:
        self._moments.update(stack)
        # Reservoir sampling (Vitter 1985, algorithm R): every stack seen is kept with the same probability.
        quantised = (stack * 255).round().astype(np.uint8)
        if len(self._stacks) < self._settings.max_stacks:
            self._stacks.append(quantised)
        elif (place := self._random.integers(self._num_seen + 1)) < len(self._stacks):
            self._stacks[place] = quantised
        self._num_seen += 1

    def hash(self) -> str:
        """SHA-256 of the stacks held, in their order."""
        digest = hashlib.sha256()
        for stack in self._stacks:
            digest.update(stack.tobytes())
        return digest.hexdigest()

    def pca(self, num_components: int) -> BlockPca:
        """The PCA of all blocks added, about one mean value."""
        return self._moments.pca(num_components, constant_mean=True)

    def draw(self, step: int) -> torch.Tensor:
        """The stacks of one step, (batch, 1, S, H, W) float32 in [0, 1], flipped and dimmed at random.

        H = W: the patch where one is set, else the size. Depends on the seed and the step alone.
        """
        random = np.random.default_rng((self._settings.seed, step))
        batch, side = [], self._settings.patch or self._settings.size
        for index in random.integers(len(self._stacks), size=self._settings.batch):
            top, left = random.integers(self._settings.size - side + 1, size=2)
            stack = self._stacks[index][:, top : top + side, left : left + side].astype(np.float32) / 255
            for axis in range(3):
                if random.random() < 0.5:
                    stack = np.flip(stack, axis)
            batch.append(stack * random.uniform(0.6, 1.2))
        return torch.from_numpy(np.stack(batch)).clamp(0, 1)[:, None]
