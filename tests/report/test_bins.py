"""Bars add up to the number of values, whatever the values; each bar holds those between its edges."""

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from vidlat.report.bins import NUM_BINS, count_in_bins, spread_bins

LOWEST = 9.999999999999991
"""A rate as a file states it, below the edge that `linspace` computes for it."""


@given(values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=30))
@example(values=[LOWEST, LOWEST, 10.0, 25.0, 29.97, 30.0, 50.0, 60.0])
@example(values=[LOWEST, 10.0])
@example(values=[0.1, 5.1, 1e9])
def test_bars_add_up_to_the_number_of_values(values):
    edges, _ = spread_bins(values)
    assert len(edges) == NUM_BINS + 1
    assert (np.diff(edges) > 0).all()
    assert count_in_bins(values, edges).sum() == len(values)


@given(values=st.lists(st.floats(-9, 9), max_size=30))
def test_a_bar_holds_the_values_between_its_edges_and_the_outermost_those_beyond(values):
    inner = [-2.0, 0.0, 2.0]
    edges = np.array([-6.0, *inner, 6.0])
    below = [sum(value < edge for value in values) for edge in inner]
    assert count_in_bins(values, edges).tolist() == np.diff([0, *below, len(values)]).tolist()


@pytest.mark.parametrize(
    ("values", "is_log"), [([1, 50], False), ([1, 51], True), ([30], False), ([30, 30.0000001], False)]
)
def test_the_axis_is_logarithmic_where_values_differ_by_more_than_50_times(values, is_log):
    edges, got = spread_bins(values)
    assert got is is_log
    ratios = edges[1:] / edges[:-1]
    assert (ratios == pytest.approx(ratios[0])) == is_log


def test_values_that_differ_in_their_last_digits_are_one_bar():
    values = [30 - 1e-9, 30, 30 + 1e-9]
    edges, _ = spread_bins(values)
    assert sorted(count_in_bins(values, edges))[-1] == len(values)
