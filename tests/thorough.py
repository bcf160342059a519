"""How much of a long row of cases is tested: all of it by `make test-all`, a part of it by default."""

from itertools import count

from hypothesis import settings

EVERY = 3


def is_thorough():
    """Whether the hypothesis profile is that of `make test-all`."""
    return settings.default.max_examples >= settings.get_profile("thorough").max_examples


def some_of(cases):
    """All of some cases, or by default every third."""
    return list(cases)[:: 1 if is_thorough() else EVERY]


def steps():
    """Numbers of steps from 0 on without end; by default every third."""
    return count(0, 1 if is_thorough() else EVERY)
