"""Ticks are round numbers within a scale; places follow the values, or their logarithms."""

import math

import pytest
from hypothesis import given, strategies as st

from vidlat.report.scales import Scale, tick_text

finite = st.floats(-1e9, 1e9, allow_subnormal=False)


@given(values=st.lists(finite, min_size=1, max_size=9))
def test_all_values_and_ticks_lie_within(values):
    scale = Scale.over(values, 10, 310)
    assert all(10 <= scale.place(value) <= 310 for value in [*values, *scale.ticks()])
    assert 1 <= len(scale.ticks()) <= 8


@given(values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=9))
def test_also_on_a_logarithmic_scale(values):
    scale = Scale.over(values, 310, 10, is_log=True)
    assert all(10 - 1e-6 <= scale.place(value) <= 310 + 1e-6 for value in [*values, *scale.ticks()])
    assert 1 <= len(scale.ticks()) <= 13


def test_ticks_of_known_ranges():
    assert Scale(low=0, high=1, start=0, stop=1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(low=-3, high=47, start=0, stop=1).ticks() == [0, 10, 20, 30, 40]
    assert Scale(low=0.9, high=1200, start=0, stop=1, is_log=True).ticks() == [1, 10, 100, 1000]
    assert Scale(low=0.06, high=1.1, start=0, stop=1, is_log=True).ticks() == pytest.approx([0.1, 0.3, 1])


def test_decades_are_equally_far_apart():
    scale = Scale(low=0.01, high=100, start=0, stop=400, is_log=True)
    assert [scale.place(value) for value in (0.01, 0.1, 1, 10, 100)] == pytest.approx([0, 100, 200, 300, 400])
    assert scale.place(0) == 0


@pytest.mark.parametrize("is_log", [False, True])
def test_what_is_no_number_has_no_say(is_log):
    scale = Scale.over([math.nan, math.inf, 2.0, 8.0], 0, 1, is_log=is_log)
    assert 1 < scale.low < 2 < 8 < scale.high < 9
    assert Scale.over([math.nan], 0, 1, is_log=is_log).ticks()


def test_texts_of_ticks():
    texts = {0.25: "0.25", 1e-17: "0", 0.30000000000000004: "0.3", 20_000: "20k", 3e6: "3M", 1500: "1500"}
    assert {value: tick_text(value) for value in texts} == texts
