"""The nearest rows against all distances in float64."""

import numpy as np
import pytest
import torch

from tests.thorough import some_of
from vidlat.train.data import nearest
from vidlat.train.data.nearest import NearestRows


def search(queries, rows, num_blocks=3):
    found = NearestRows(queries)
    for block in rows.tensor_split(num_blocks):
        found.add(block)
    return found.squared.numpy(), found.index.numpy()


def brute_force(queries, rows):
    """The squared distances (Q, N) in float64, as sums of squares of differences."""
    differences = queries.double().numpy()[:, None] - rows.double().numpy()[None]
    return (differences**2).sum(2)


@pytest.mark.parametrize("dimensions", some_of([1, 3, 200]))
@pytest.mark.parametrize("pairs_at_once", [1, 7, 2**21])
def test_the_nearest_row_is_that_of_all_distances(dimensions, pairs_at_once, monkeypatch):
    monkeypatch.setattr(nearest, "PAIRS_AT_ONCE", pairs_at_once)
    random = torch.Generator().manual_seed(dimensions)
    queries, rows = (torch.randn(n, dimensions, generator=random) for n in (17, 101))
    squared, index = search(queries, rows)
    expected = brute_force(queries, rows)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(squared, expected.min(1), rtol=1e-12)


def test_rounding_of_products_puts_no_other_row_in_the_place_of_the_nearest():
    """Rows that differ by less than what float32 products resolve, far from the origin."""
    random = torch.Generator().manual_seed(0)
    queries = 100 + torch.randn(20, 64, generator=random)
    steps = torch.arange(1, 41)[torch.randperm(40, generator=random)]
    rows = queries[:, None] + steps[None, :, None] * 2.0**-16 * torch.eye(64)[0]
    rows = rows.flatten(0, 1)
    by_products = (rows.square().sum(1) - 2 * queries @ rows.T).argmin(1)
    expected = brute_force(queries, rows)
    assert (by_products.numpy() != expected.argmin(1)).any()  # what the search has to avoid
    squared, index = search(queries, rows)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_allclose(squared, expected.min(1), rtol=1e-12)


def test_of_equally_near_rows_the_first_is_found_also_across_blocks():
    queries = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    rows = torch.tensor([[5.0, 5.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    squared, index = search(queries, rows)
    assert index.tolist() == [1, 3]
    assert squared.tolist() == [1, 0]


def test_before_the_first_block_nothing_is_near():
    found = NearestRows(torch.zeros(2, 3))
    assert found.squared.isinf().all()
    assert found.index.tolist() == [-1, -1]
    assert not NearestRows(torch.zeros(0, 3)).index.numel()
