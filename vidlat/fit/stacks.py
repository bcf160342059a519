"""Training stacks drawn evenly from any number of videos, in bounded memory, and the order they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from vidlat.config import ChosenFit
from vidlat.encode.block_pca import BlockMoments, BlockPca
from vidlat.fit.linear_start import BLOCK
from vidlat.train.data.seeding import Draw, Stream, generator


class TrainingStacks:
    """A uniform sample of the stacks of all videos added, and the block moments of all of them.

    num_videos: how many videos were long enough for a stack.
    """

    def __init__(self, settings: ChosenFit) -> None:
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
        if self._settings.start == "pca":
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
        """The PCA of all blocks added, about one mean value; only for a start from it."""
        return self._moments.pca(num_components, constant_mean=True)

    def draw(self, step: int, items: Iterable[int]) -> npt.NDArray[np.float32]:
        """The stacks of some items of a step, (N, 1, S, H, W) in [0, 1], flipped and dimmed at random.

        step: counted from 0. items: of range(batch). H = W: the patch where one is set, else the size.
        Every epoch has every stack once, in an order of its own, and may end within a step. Depends on the
        seed, the step and the item alone.
        """
        return np.stack([self._draw_item(step, item) for item in items])[:, None]

    def _draw_item(self, step: int, item: int) -> npt.NDArray[np.float32]:
        settings = self._settings
        epoch, place = divmod(step * settings.batch + item, len(self._stacks))
        stack = self._stacks[_order(settings.seed, epoch, len(self._stacks))[place]]
        random = generator((settings.seed, Stream.TRAINING, step, item), Draw.WINDOW)
        side = settings.patch or settings.size
        top, left = random.integers(settings.size - side + 1, size=2)
        part = stack[:, top : top + side, left : left + side].astype(np.float32)
        flipped = np.flip(part, tuple(axis for axis in range(3) if random.random() < 0.5))
        gain = np.float32(random.uniform(0.6, 1.2) / 255)
        dimmed: npt.NDArray[np.float32] = np.minimum(flipped * gain, np.float32(1))
        return dimmed


@lru_cache(maxsize=2)  # the epochs of a step that one of them ends in
def _order(seed: int, epoch: int, num_stacks: int) -> npt.NDArray[np.intp]:
    """The numbers of the stacks in the order of an epoch."""
    return generator((seed, Stream.TRAINING, epoch, 0), Draw.ORDER).permutation(num_stacks)
