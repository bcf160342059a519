"""The best figures of a column, as they are printed."""

import pytest

from vidlat.report.tables import are_best


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        (["0.90", "1.30", "-", "1.10"], [True, False, False, True]),
        (["2.00", "2.00"], [False, False]),
        (["-", "-"], [False, False]),
        (["3.00"], [False]),
        (["0.50", "0.50", "4.00"], [True, True, False]),
    ],
)
def test_the_best_of_a_column_is_known_unless_all_are_alike(cells, best):
    assert are_best(cells, lambda value: round(abs(value - 1), 6)) == best
