"""What a signature ignores, and what it keeps."""

import numpy as np
import torch

from vidlat.copies.signatures import pool, signatures


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_pooling_is_the_mean_of_equal_squares_and_leaves_small_latents_as_they_are():
    latents = normal(3, 2, 5, 16, 24)
    expected = latents.double().numpy().reshape(3, 2, 5, 8, 2, 8, 3).mean((4, 6))
    np.testing.assert_allclose(pool(latents), expected, atol=1e-6)
    small = normal(3, 2, 5, 7)
    assert torch.equal(pool(small), small)


def test_brightness_and_contrast_do_not_change_a_signature():
    """Contrast scales what differs from the mean video; brightness shifts each channel."""
    mean, windows = normal(2, 8, 8, seed=1), normal(5, 4, 2, 8, 8)
    shift = normal(5, 1, 2, 1, 1, seed=2)
    changed = mean + 0.9 * (windows - mean) + shift
    torch.testing.assert_close(signatures(changed, mean), signatures(windows, mean), atol=1e-6, rtol=0)


def test_a_signature_has_unit_norm_and_unlike_windows_are_the_square_root_of_two_apart():
    mean = normal(4, 8, 8, seed=1)
    windows = mean + normal(40, 4, 4, 8, 8)
    rows = signatures(windows, mean).double()
    np.testing.assert_allclose((rows**2).sum(1), 1, atol=1e-6)
    distances = torch.pdist(rows)
    assert abs(distances.mean() - 2**0.5) < 0.01
    assert distances.std() < 0.05


def test_what_all_videos_show_does_not_make_them_alike():
    """With the mean video left in, any two windows would be near each other."""
    mean, windows = 10 * normal(4, 8, 8, seed=1), normal(20, 4, 4, 8, 8)
    apart = torch.pdist(signatures(windows + mean, mean)).mean()
    without = torch.pdist(signatures(windows + mean, torch.zeros_like(mean))).mean()
    assert apart > 1.4 > 0.5 > without


def test_a_window_without_any_structure_has_a_signature_of_zeros():
    mean = normal(2, 4, 4)
    assert torch.equal(signatures(mean.expand(1, 3, -1, -1, -1), mean), torch.zeros(1, 3 * 2 * 16))
