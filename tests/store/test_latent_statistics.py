import struct

import google_crc32c.python
import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.store.caches import random_posterior
from vidlat.errors import EncodeError
from vidlat.store.latents.statistics import BLOCK_FRAMES, latent_statistics, to_stored


@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_sums_of_videos_give_the_statistics_of_all_their_latents(lengths, padding, seed):
    videos = [random_posterior(length, seed + i) for i, length in enumerate(lengths)]
    valid = [max(length - padding, 1) for length in lengths]
    parts = [latent_statistics(v.mean, v.std, n) for v, n in zip(videos, valid, strict=True)]
    mean = np.concatenate([v.mean[:, :n] for v, n in zip(videos, valid, strict=True)], axis=1)
    std = np.concatenate([v.std[:, :n] for v, n in zip(videos, valid, strict=True)], axis=1)
    mean, std = (values.astype(np.float16).astype(np.float64).reshape(2, -1) for values in (mean, std))

    count = sum(part.count for part in parts)
    average = np.sum([part.sum_mean for part in parts], axis=0) / count
    squares = np.sum([part.sum_mean_squared for part in parts], axis=0) / count
    assert count == mean.shape[1]
    np.testing.assert_allclose(average, mean.mean(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squares - average**2, mean.var(axis=1), rtol=1e-9, atol=1e-12)
    noise = np.sum([part.sum_std_squared for part in parts], axis=0) / count
    np.testing.assert_allclose(noise, np.square(std).mean(axis=1), rtol=1e-12)


def test_checksums_cover_each_frame_of_mean_then_of_std_as_stored_padding_too():
    video = random_posterior(2 * BLOCK_FRAMES + 3)
    expected = [
        google_crc32c.value(values[:, frame].astype("<f2").tobytes())
        for values in (video.mean, video.std)
        for frame in range(2 * BLOCK_FRAMES + 3)
    ]
    statistics = latent_statistics(video.mean, video.std, 5)
    assert statistics.frame_crc32c == struct.pack(f"<{len(expected)}I", *expected)
    assert statistics.crc32c == google_crc32c.value(statistics.frame_crc32c)


def test_checksums_are_the_same_without_the_c_extension(monkeypatch):
    video = random_posterior(3)
    expected = latent_statistics(video.mean, video.std, 3)
    monkeypatch.setattr(google_crc32c, "value", google_crc32c.python.value)
    assert latent_statistics(video.mean, video.std, 3) == expected
    assert latent_statistics(video.mean, video.std, 3).crc32c == expected.crc32c


def test_memmap_gives_the_same_statistics_as_an_array(tmp_path):
    video = random_posterior(3 * BLOCK_FRAMES)
    on_disk = []
    for name in ("mean", "std"):
        np.save(tmp_path / f"{name}.npy", getattr(video, name))
        on_disk.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    assert latent_statistics(*on_disk, 100) == latent_statistics(video.mean, video.std, 100)


@pytest.mark.parametrize("valid", [0, 6])
def test_number_of_valid_frames_must_lie_within_the_video(valid):
    video = random_posterior(5)
    with pytest.raises(ValueError, match="expected 1 to 5"):
        latent_statistics(video.mean, video.std, valid)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.nan, "nan is not a number"),
        (np.inf, "inf is not a number"),
        (-np.inf, "-inf is not a number"),
        (65520.0, "65520.0 is beyond float16"),
        (-1e9, "-1000000000.0 is beyond float16"),
    ],
)
def test_what_float16_cannot_hold_is_refused_by_name(name, value, why):
    video = random_posterior(5)
    getattr(video, name)[1, 3, 2, 4] = value
    with pytest.raises(EncodeError, match=f"latent {name}: {why}"):
        to_stored(name, getattr(video, name))


def test_largest_float16_is_stored_as_it_is():
    assert to_stored("mean", np.array([65504.0, -65504.0, 65519.0])).tolist() == [65504, -65504, 65504]


EVERY_FLOAT16 = np.arange(2**16, dtype="<u2").view("<f2")
FINITE = EVERY_FLOAT16[np.isfinite(EVERY_FLOAT16)]


@pytest.mark.parametrize("keepbits", range(1, 11))
def test_fewer_bits_are_the_nearest_of_those_that_have_so_many(keepbits):
    """Brute force over every float16, among all numbers of `keepbits` bits."""
    coarse = np.unique(FINITE[FINITE.view("<u2") % 2 ** (10 - keepbits) == 0].astype(np.float64))
    values = FINITE[np.abs(FINITE) <= coarse[-1]]
    stored = to_stored("std", values, keepbits)
    assert np.isin(stored, coarse).all()
    above = np.searchsorted(coarse, values).clip(1, len(coarse) - 1)
    exact = values.astype(np.float64)
    nearest = np.minimum(np.abs(coarse[above] - exact), np.abs(coarse[above - 1] - exact))
    assert np.array_equal(np.abs(stored.astype(np.float64) - exact), nearest)
    assert np.array_equal(to_stored("std", stored, keepbits), stored)


@pytest.mark.parametrize("keepbits", range(1, 10))
def test_what_fewer_bits_would_round_to_infinity_is_refused(keepbits):
    with pytest.raises(EncodeError, match=f"latent mean: 65504.0 is beyond what --keepbits {keepbits} can"):
        to_stored("mean", np.array([1.0, 65504.0]), keepbits)


@pytest.mark.parametrize("bits", range(0x7C00, 0x8000, 37))
def test_no_nan_becomes_a_number_by_rounding(bits):
    with pytest.raises(EncodeError, match="is not a number"):
        to_stored("mean", np.array([bits], "<u2").view("<f2"), 3)
