"""Durations keep two figures, whatever their size."""

import re

import pytest
from hypothesis import given, strategies as st

from vidlat.wording import format_seconds

SECONDS = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00432, "0.0043 s"),
        (0.48, "0.48 s"),
        (1.234, "1.2 s"),
        (9.96, "10 s"),
        (45, "45 s"),
        (60, "1 min"),
        (98, "1.6 min"),
        (12.4 * 60, "12 min"),
        (98 * 60, "1.6 h"),
        (1234 * 3600, "1,234 h"),
    ],
)
def test_a_duration_has_a_unit_of_its_size(seconds, text):
    assert format_seconds(seconds) == text


@given(seconds=st.floats(0.01, 1e9))
def test_a_duration_is_read_back_to_two_figures(seconds):
    number, unit = re.fullmatch(r"([\d.,]+) (s|min|h)", format_seconds(seconds)).groups()
    assert float(number.replace(",", "")) * SECONDS[unit] == pytest.approx(seconds, rel=0.051)
