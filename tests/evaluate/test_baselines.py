"""Baselines: PyTorch's pooling and interpolation, and a plain SVD of all blocks, are the oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.ndimage import gaussian_filter

from vidlat.encode.block_pca import BlockMoments, to_blocks
from vidlat.errors import ShapeError
from vidlat.evaluate.baselines import PcaBaseline, with_block_averages
from vidlat.evaluate.quality import QualityMeter
from vidlat.evaluate.source import SourceFrames

BLOCK = (4, 4, 4)


def clip(num_frames, height=16, width=20, seed=0, smoothness=1.0):
    noise = np.random.default_rng(seed).random((num_frames, height, width))
    return np.clip(0.5 + 3 * (gaussian_filter(noise, smoothness) - 0.5), 0, 1).astype(np.float32)


def measure(reference, reconstruction):
    meter = QualityMeter("a.mp4", stack=4)
    meter.update(SourceFrames(reference), reconstruction)
    return meter.result()


def averaging_baseline(frames, block=BLOCK, num_frames=None):
    """The whole video, from pieces of num_frames."""
    size = num_frames or len(frames)
    pieces = [frames[start : start + size] for start in range(0, len(frames), size)]
    given, averaged = zip(*with_block_averages(pieces, block), strict=True)
    np.testing.assert_array_equal(np.concatenate(given), frames)
    return np.concatenate(averaged)


@settings(deadline=None, max_examples=40)
@given(
    num_frames=st.integers(1, 19),
    sides=st.tuples(st.integers(11, 21), st.integers(11, 21)),
    block=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 4, 3])),
    blocks_per_piece=st.integers(1, 4),
)
def test_averaging_baseline_equals_pooling_and_trilinear_interpolation_of_the_whole_video(
    num_frames, sides, block, blocks_per_piece
):
    frames = clip(num_frames, *sides)
    padding = [(0, -side % size) for side, size in zip(frames.shape, block, strict=True)]
    padded = torch.from_numpy(np.pad(frames, padding, mode="edge"))[None, None].double()
    pooled = torch.nn.functional.avg_pool3d(padded, block)
    smooth = torch.nn.functional.interpolate(
        pooled, scale_factor=[float(size) for size in block], mode="trilinear", align_corners=False
    )
    expected = smooth[0, 0, :num_frames, : sides[0], : sides[1]].numpy()
    averaged = averaging_baseline(frames, block, blocks_per_piece * block[0])
    np.testing.assert_allclose(averaged, expected, atol=1e-12)


def test_averaging_baseline_refuses_frames_after_a_broken_block():
    with pytest.raises(ShapeError, match="multiple of 4"):
        list(with_block_averages([clip(6), clip(4)], BLOCK))


def pca_baseline(clips, num_components=4, num_folds=16):
    baseline = PcaBaseline(BLOCK, num_components, num_folds)
    for index, frames in enumerate(clips):
        moments = BlockMoments(BLOCK)
        for start in range(0, len(frames), 8):
            moments.update(frames[start : start + 8])
        baseline.add(index, moments)
    return baseline


def reconstruct_by_svd(others, frames, num_components=4):
    """All blocks of the other clips at once, by singular values."""

    def cut(video):
        padded = np.pad(video, [(0, -side % 4) for side in video.shape], mode="edge").astype(float)
        t, h, w = padded.shape
        return np.array(
            [
                padded[k : k + 4, i : i + 4, j : j + 4].ravel()
                for k in range(0, t, 4)
                for i in range(0, h, 4)
                for j in range(0, w, 4)
            ]
        )

    blocks = np.concatenate([cut(video) for video in others])
    mean = blocks.mean(0)
    components = np.linalg.svd(blocks - mean, full_matrices=False)[2][:num_components]
    mine = cut(frames)
    return mine, mean + (mine - mean) @ components.T @ components


@pytest.mark.parametrize("index", [0, 1, 2])
def test_pca_baseline_equals_an_svd_of_the_other_clips_blocks(index):
    clips = [clip(9, seed=0), clip(16, seed=1, smoothness=1.5), clip(23, 13, 18, seed=2)]
    others = [frames for other, frames in enumerate(clips) if other != index]
    mine, expected = reconstruct_by_svd(others, clips[index])
    pca = pca_baseline(clips).fit_without(index)
    np.testing.assert_allclose(to_blocks(clips[index], BLOCK), mine)
    padded = np.pad(clips[index], [(0, -side % 4) for side in clips[index].shape], mode="edge")
    np.testing.assert_allclose(to_blocks(pca.reconstruct(padded), BLOCK), expected, atol=1e-6)
    np.testing.assert_array_equal(
        pca.reconstruct(clips[index]),
        pca.reconstruct(padded)[tuple(slice(side) for side in clips[index].shape)],
    )


def test_a_clips_own_pixels_do_not_reach_its_pca():
    clips = [clip(8, seed=seed) for seed in range(3)]
    one = pca_baseline(clips).fit_without(1)
    clips[1] = np.zeros_like(clips[1])
    other = pca_baseline(clips).fit_without(1)
    np.testing.assert_array_equal(one.components, other.components)
    np.testing.assert_array_equal(one.mean, other.mean)


def test_beyond_the_number_of_folds_a_whole_fold_is_left_out():
    clips = [clip(8, seed=seed) for seed in range(5)]
    pca = pca_baseline(clips, num_folds=2).fit_without(2)
    expected = pca_baseline([clips[1], clips[3], clip(4)]).fit_without(2)
    np.testing.assert_allclose(pca.mean, expected.mean)
    np.testing.assert_allclose(
        pca.components.T @ pca.components, expected.components.T @ expected.components, atol=1e-9
    )


def test_a_single_video_has_no_pca_baseline():
    assert pca_baseline([clip(8)]).fit_without(0) is None


def test_as_many_components_as_pixels_reconstruct_exactly():
    clips = [clip(8, seed=seed, smoothness=0.0) for seed in range(2)]
    pca = pca_baseline(clips, num_components=math.prod(BLOCK)).fit_without(0)
    np.testing.assert_allclose(pca.reconstruct(clips[0]), clips[0], atol=1e-5)


def test_four_components_beat_the_average_on_smooth_clips():
    clips = [clip(16, 32, 32, seed=seed, smoothness=2.0) for seed in range(4)]
    baseline = pca_baseline(clips)
    for index, frames in enumerate(clips):
        pca = measure(frames, baseline.fit_without(index).reconstruct(frames))
        assert pca.psnr > measure(frames, averaging_baseline(frames)).psnr + 1
