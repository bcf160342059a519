"""Features of latents against loops over cells, and what they see."""

import numpy as np
import pytest

from vidlat.evaluate.samples.latent_features import FLOOR, latent_features


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 1, 9, 6), (1, 4, 3, 2)])
def test_features_are_those_of_each_cell(shape):
    latents = np.random.default_rng(0).normal(1, 2, shape).astype(np.float32)
    channels, length, height, width = shape
    rows, columns = min(4, height), min(4, width)
    found = latent_features(latents).reshape(3 if length > 1 else 2, channels, rows, columns)
    for row in range(rows):
        for column in range(columns):
            down = slice(row * height // rows, (row + 1) * height // rows)
            right = slice(column * width // columns, (column + 1) * width // columns)
            cell = latents[:, :, down, right].astype(np.float64)
            np.testing.assert_allclose(found[0, :, row, column], cell.mean((1, 2, 3)))
            spread = np.sqrt(cell.var((2, 3)).mean(1))
            np.testing.assert_allclose(found[1, :, row, column], np.log(FLOOR + spread), atol=1e-6)
            if length > 1:
                change = np.sqrt(np.square(np.diff(cell, axis=1)).mean((1, 2, 3)))
                np.testing.assert_allclose(found[2, :, row, column], np.log(FLOOR + change))


def test_a_still_clip_differs_in_the_features_of_change_alone():
    frame = np.random.default_rng(1).normal(size=(4, 1, 8, 8))
    still = latent_features(np.repeat(frame, 4, axis=1)).reshape(3, -1)
    moving = latent_features(np.concatenate([frame, frame[..., ::-1]] * 2, axis=1)).reshape(3, -1)
    np.testing.assert_allclose(still[2], np.log(FLOOR))
    assert (moving[2] > still[2] + 1).all()


def test_the_order_of_frames_counts():
    latents = np.random.default_rng(2).normal(size=(2, 4, 4, 4)).cumsum(axis=1)
    assert not np.allclose(latent_features(latents), latent_features(latents[:, [0, 2, 1, 3]]))
