"""What is made ahead: the same items, no more than asked for, errors and the end of the thread."""

import gc
import threading
from itertools import count

import pytest
from hypothesis import given, strategies as st

from vidlat.prefetch import map_ahead, prefetch


@given(st.lists(st.integers()), st.integers(1, 5))
def test_items_come_in_their_order(items, most):
    with prefetch((item for item in items), most) as taken:
        assert list(taken) == items


def test_items_are_made_in_another_thread_and_no_further_than_asked_for():
    made, threads, at_work = [], set(), threading.Semaphore(0)

    def make():
        for number in count():
            made.append(number)
            threads.add(threading.current_thread())
            at_work.release()
            yield number

    with prefetch(make(), 3) as taken:
        assert next(taken) == 0
        for _ in range(3):
            assert at_work.acquire(timeout=60)
        assert next(taken) == 1
    assert len(made) <= 5  # two taken, three ahead
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_error_is_raised_in_its_place_and_ends_the_items():
    def make():
        yield 1
        raise ValueError("broken")

    with prefetch(make(), 4) as taken:
        assert next(taken) == 1
        with pytest.raises(ValueError, match="broken"):
            next(taken)


def count_until_closed(closed):
    try:
        yield from count()
    finally:
        closed.append(True)


def test_generator_is_closed_where_the_block_is_left():
    closed = []

    def leave():
        with prefetch(count_until_closed(closed), 2) as taken:
            next(taken)
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert closed


@pytest.mark.timeout(60)
def test_what_is_left_in_a_cycle_of_references_is_closed_as_garbage():
    """As in the traceback of an error: the thread may end before the generator does."""
    closed = []

    def use():
        with prefetch(count_until_closed(closed), 2) as taken:
            yield from taken

    cycle = [use()]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    assert closed == [True]


def test_ctrl_c_does_not_wait_for_what_is_computed():
    is_over = threading.Event()

    def items():
        yield 1
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            list(map_ahead(lambda _: is_over.wait(60), items(), 2, 4))
        assert not is_over.is_set()
    finally:
        is_over.set()
