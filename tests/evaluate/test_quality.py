"""Quality figures: scikit-image and brute force are the oracles."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity as skimage_ssim

from vidlat.errors import ShapeError, VidlatError
from vidlat.evaluate.motion import Changes
from vidlat.evaluate.quality import PSNR_CAP, QualityMeter, VideoQuality, summarise
from vidlat.evaluate.source import SourceFrames


def pair(num_frames=5, height=24, width=31, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.random((num_frames, height, width), np.float32)
    return reference, (reference + noise * rng.standard_normal(reference.shape)).astype(np.float32)


def measure(reference, reconstruction, sizes=None):
    meter = QualityMeter("a.mp4", stack=4)
    start = 0
    for size in sizes or [len(reference)]:
        meter.update(SourceFrames(reference[start : start + size]), reconstruction[start : start + size])
        start += size
    return meter.result()


def quality(mse=0.01, psnr=40.0, ssim=0.9, num_frames=4):
    changes = {"inside": Changes(), "at_borders": Changes()}
    figures = {"mse": mse, "psnr": psnr, "ssim": ssim, "sharpness": 0.5}
    return VideoQuality(video_id="a.mp4", num_frames=num_frames, **figures, **changes)


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_figures_equal_scikit_images(noise):
    reference, reconstruction = pair(noise=noise)
    clamped = np.clip(reconstruction, 0, 1).astype(float)
    wanted_ssim = np.mean(
        [
            skimage_ssim(
                source, copy, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for source, copy in zip(reference.astype(float), clamped, strict=True)
        ]
    )
    result = measure(reference, reconstruction)
    assert result.num_frames == 5
    assert result.mse == pytest.approx(mean_squared_error(reference, clamped), rel=1e-6)
    assert result.psnr == pytest.approx(peak_signal_noise_ratio(reference, clamped, data_range=1), abs=1e-4)
    assert result.ssim == pytest.approx(wanted_ssim, abs=1e-9)


def test_sharpness_is_the_share_of_detail_that_is_left():
    reference, _ = pair(noise=0)
    rows = np.arange(24)
    fine, coarse = np.cos(np.pi * (rows + 0.5) * 18 / 24), np.cos(np.pi * (rows + 0.5) * 6 / 24)
    detailed = np.broadcast_to(0.5 + 0.2 * fine[:, None] + 0.2 * coarse[:, None], reference.shape)
    halved = np.broadcast_to(0.5 + 0.1 * fine[:, None] + 0.2 * coarse[:, None], reference.shape)
    assert measure(detailed, halved).sharpness == pytest.approx(0.25)
    assert measure(detailed, detailed).sharpness == pytest.approx(1)
    blurred = np.stack([gaussian_filter(frame, 1.5) for frame in reference])
    assert measure(reference, blurred).sharpness < 0.05
    coarse_only = np.broadcast_to(0.5 + 0.2 * coarse[:, None], reference.shape)
    assert summarise([measure(detailed, halved), quality()]).sharpness == pytest.approx((0.25 + 0.5) / 2)
    assert measure(np.zeros_like(coarse_only), coarse_only).sharpness is None


def test_ssim_equals_brute_force_over_every_window():
    source, copy = (video[0, :14, :13].astype(float) for video in pair(noise=0.2))
    distance = np.arange(-5, 6)
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(14 - 10):
        for left in range(13 - 10):
            x, y = (frame[top : top + 11, left : left + 11] for frame in (source, copy))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            values.append(
                (2 * mean_x * mean_y + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_x**2 + mean_y**2 + 1e-4) * (variance_x + variance_y + 9e-4))
            )
    assert SourceFrames(source[None]).similarity_of(copy[None]) == pytest.approx([np.mean(values)], abs=1e-12)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_stacks_of_any_length_give_the_figures_of_the_whole_video(sizes):
    reference, reconstruction = pair(num_frames=sum(sizes), height=12, width=12)
    pieces, whole = measure(reference, reconstruction, sizes), measure(reference, reconstruction)
    assert pieces.num_frames == whole.num_frames
    for name in ("mse", "psnr", "ssim", "sharpness"):
        assert getattr(pieces, name) == pytest.approx(getattr(whole, name))
    assert pieces.motion.to_dict() == pytest.approx(whole.motion.to_dict())


def test_reconstruction_is_clipped_to_the_unit_range_and_not_rounded():
    reference = np.ones((1, 12, 12), np.float32)
    assert measure(reference, reference + 0.5).mse == 0
    assert measure(reference, reference - 1e-3).psnr == pytest.approx(60, abs=1e-3)  # under one level of 255


def test_exact_reconstruction_is_infinite_but_valid_json_and_a_finite_mean():
    reference, _ = pair()
    exact = measure(reference, reference)
    assert exact.mse == 0
    assert exact.psnr == math.inf
    assert exact.ssim == pytest.approx(1)
    assert json.loads(json.dumps(exact.to_dict(), allow_nan=False))["psnr"] is None
    summary = summarise([exact, quality(psnr=40.0)])
    assert summary.psnr == pytest.approx((PSNR_CAP + 40) / 2)
    json.dumps(summary.to_dict(), allow_nan=False)


def test_overall_psnr_is_the_mean_of_psnrs_and_every_video_counts_the_same():
    videos = [quality(mse=0.1, psnr=10.0, ssim=0.5, num_frames=100), quality(1e-3, 30.0, 0.9, num_frames=1)]
    summary = summarise(videos)
    assert (summary.num_videos, summary.num_frames) == (2, 101)
    assert summary.mse == pytest.approx(0.0505)
    assert summary.psnr == pytest.approx(20)  # the PSNR of the mean error would be 12.97
    assert summary.ssim == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("figures", "holds"),
    [
        ({"mse": 0.049, "psnr": 38.1, "ssim": 0.881}, [True, True, True]),
        ({"mse": 0.05, "psnr": 38.1, "ssim": 0.881}, [False, True, True]),
        ({"mse": 0.049, "psnr": 38.0, "ssim": 0.881}, [True, False, True]),
        ({"mse": 0.049, "psnr": 38.1, "ssim": 0.88}, [True, True, False]),
    ],
)
def test_each_criterion_holds_strictly_beyond_its_threshold(figures, holds):
    criteria = summarise([quality(**figures)]).criteria
    assert list(criteria) == ["MSE < 0.05", "PSNR > 38 dB", "SSIM > 0.88"]
    assert list(criteria.values()) == holds
    assert summarise([quality(**figures)]).to_dict()["criteria"] == criteria


@pytest.mark.parametrize("shape", [(4, 12, 12), (5, 12, 13), (12, 12)])
def test_videos_of_other_shapes_are_refused(shape):
    source = SourceFrames(np.zeros((5, 12, 12), np.float32))
    with pytest.raises(ShapeError, match=r"a\.mp4.*must be equal"):
        QualityMeter("a.mp4", 4).update(source, np.zeros(shape, np.float32))


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ShapeError, match="11x11"):
        measure(*pair(height=10))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_frame(value):
    reference, reconstruction = pair()
    reconstruction[2, 3, 4] = value
    with pytest.raises(VidlatError, match=r"a\.mp4: frame 2 .* not finite"):
        measure(reference, reconstruction)


def test_comparing_nothing_is_an_error():
    with pytest.raises(VidlatError, match="no frames"):
        QualityMeter("a.mp4", 4).result()
    with pytest.raises(VidlatError, match="no videos"):
        summarise([])
