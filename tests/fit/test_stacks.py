"""Training stacks: an even sample of all videos, in an order that has each once an epoch."""

from collections import Counter

import numpy as np

from tests.fit.small import chosen, collection, frames
from vidlat.fit.stacks import TrainingStacks


def test_a_step_depends_on_seed_step_and_item_alone():
    stacks = collection(chosen())
    later = stacks.draw(7, range(2))
    stacks.draw(1, range(2))
    assert np.array_equal(stacks.draw(7, range(2)), later)
    assert not np.array_equal(stacks.draw(8, range(2)), later)
    assert np.array_equal(stacks.draw(7, [1]), later[1:])  # as another process draws its share
    assert later.shape == (2, 1, 4, 16, 16)
    assert 0 <= later.min() <= later.max() <= 1


def test_an_epoch_has_every_stack_once_in_an_order_of_its_own():
    num_stacks = 7
    stacks = collection(chosen(batch=3, max_stacks=num_stacks))  # epochs end within a step
    assert len(stacks) == num_stacks
    taken = []
    stacks._stacks = Recording(stacks._stacks, taken)
    for step in range(7):
        stacks.draw(step, range(3))
    epochs = [taken[start : start + num_stacks] for start in range(0, 21, num_stacks)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(num_stacks))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


class Recording(list):
    """A list that notes which of its items are taken."""

    def __init__(self, items, taken):
        super().__init__(items)
        self.taken = taken

    def __getitem__(self, index):
        self.taken.append(int(index))
        return super().__getitem__(index)


def test_the_stacks_held_are_bounded_and_every_stack_is_kept_with_the_same_probability():
    kept = np.zeros(40)
    for seed in range(200):
        stacks = TrainingStacks(chosen(max_stacks=10, seed=seed, start="random"))
        stacks.add_video(np.full((16, 16), value / 255, np.float32) for value in np.repeat(np.arange(40), 4))
        assert len(stacks) == 10
        kept[[stack[0, 0, 0] for stack in stacks._stacks]] += 1
    # Each of 40 stacks is held with probability 1/4: 50 of 200 times, give or take five standard deviations.
    assert abs(kept - 50).max() < 5 * np.sqrt(200 * 0.25 * 0.75)


def test_patches_are_squares_cut_from_the_frames():
    stacks = TrainingStacks(chosen(patch=8))
    stacks.add_video([np.arange(256, dtype=np.float32).reshape(16, 16) / 255] * 4)
    seen = set()
    for step in range(60):
        patch = stacks.draw(step, [0])[0, 0, 0]
        assert patch.shape == (8, 8)
        across, down = np.diff(patch, axis=1), np.diff(patch, axis=0)  # 1 and 16 levels, dimmed and flipped
        inner = (patch[:-1, :-1] < 1) & (patch[1:, :-1] < 1) & (patch[:-1, 1:] < 1)  # not clipped
        assert np.allclose(np.abs(16 * across[:-1])[inner], np.abs(down[:, :-1])[inner], atol=1e-4)
        seen.add(round(float(patch.min()), 4))
    assert len(seen) > 30


def test_flips_and_dimming_are_drawn_for_each_stack():
    stacks = TrainingStacks(chosen(batch=1, start="random"))
    stacks.add_video(frames(4))
    (stack,) = stacks._stacks
    flips = Counter()
    for step in range(200):
        drawn = stacks.draw(step, [0])[0, 0]
        for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
            source = np.flip(stack, axes).astype(np.float64)
            gain = drawn[source > 0].min() / source[source > 0].min() * 255
            if 0.59 < gain < 1.21 and np.allclose(drawn, np.minimum(source * gain / 255, 1), atol=1e-5):
                flips[axes] += 1
    assert flips.total() == 200
    assert min(flips.values()) > 8  # of 25, three standard deviations below
    assert len(flips) == 8


def test_the_hash_tells_stacks_apart():
    first, second = collection(chosen(), num_videos=2), collection(chosen(), num_videos=3)
    assert first.hash() == collection(chosen(), num_videos=2).hash() != second.hash()
