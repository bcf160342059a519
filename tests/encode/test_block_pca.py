"""PCA of blocks: cutting out every block in a loop and a plain SVD are the oracles."""

import numpy as np
from hypothesis import given, strategies as st

from tests.encode.blocks import blocks_of, smooth_frames
from vidlat.encode.block_pca import BlockMoments, from_blocks, to_blocks

BLOCK = (4, 4, 4)


def moments_of(frames):
    moments = BlockMoments(BLOCK)
    moments.update(frames)
    return moments


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    block=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
def test_blocks_and_back_give_the_frames_and_the_first_block_is_their_corner(shape, block):
    frames = np.random.default_rng(0).random(shape, np.float32)
    blocks = to_blocks(frames, block)
    np.testing.assert_array_equal(from_blocks(blocks, shape, block), frames)
    t, h, w = (min(size, side) for size, side in zip(block, shape, strict=True))
    np.testing.assert_array_equal(blocks[0].reshape(block)[:t, :h, :w], frames[:t, :h, :w])


def test_moments_add_up_to_the_pca_of_all_blocks():
    clips = [smooth_frames(seed=seed) for seed in range(3)]
    first, second, third = (moments_of(clip) for clip in clips)
    pca = (first + second + third).pca(4, constant_mean=True)
    blocks = np.concatenate([blocks_of(clip) for clip in clips])
    _, singular, rows = np.linalg.svd(blocks - blocks.mean(), full_matrices=False)
    np.testing.assert_allclose(pca.mean, np.full(64, blocks.mean()))
    np.testing.assert_allclose(pca.scales, singular[:4] / np.sqrt(len(blocks)), rtol=1e-6)
    np.testing.assert_allclose(np.abs((pca.components * rows[:4]).sum(axis=1)), 1, rtol=1e-6)


def test_last_frame_and_edges_are_repeated_to_complete_the_last_blocks():
    ragged = np.pad(smooth_frames(), ((0, 3), (0, 1), (0, 2)), mode="reflect")
    moments = moments_of(ragged)
    blocks = blocks_of(np.pad(ragged, ((0, 1), (0, 3), (0, 2)), mode="edge"))
    assert moments.count == len(blocks) == 3 * 5 * 5
    np.testing.assert_allclose(moments.sums, blocks.sum(0))
    np.testing.assert_allclose(moments.products, blocks.T @ blocks)
