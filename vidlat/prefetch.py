"""Computing the next items in threads while the current one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")
Item = TypeVar("Item")

_END = object()


@contextmanager
def prefetch(items: Generator[T], num_items: int) -> Iterator[Iterator[T]]:
    """The same items in the same order, computed in a thread of its own up to `num_items` in advance.

    An error of the generator is raised where its next item is taken. When the block ends, the generator is
    closed and its thread has ended.
    """
    waiting: deque[Future[object]] = deque()

    def taken() -> Iterator[T]:
        waiting.extend(pool.submit(next, items, _END) for _ in range(num_items))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, items, _END))
            yield cast(T, item)

    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        try:
            yield taken()
        finally:
            # Not in the thread: it is gone already where this generator was found to be garbage.
            pool.shutdown(cancel_futures=True)
            items.close()


def map_ahead(
    function: Callable[[Item], T], items: Iterable[Item], num_threads: int, num_ahead: int
) -> Iterator[T]:
    """What a function returns for each item, in order, computed up to `num_ahead` items in advance.

    Items are taken in the thread of the caller. An error is raised where its result is taken. After Ctrl-C
    those that are being computed are not waited for.
    """
    waiting: deque[Future[T]] = deque()
    pool, is_waited_for = ThreadPoolExecutor(num_threads, thread_name_prefix="ahead"), True
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:
        is_waited_for = False  # a store that gives no answer takes minutes
        raise
    finally:
        pool.shutdown(wait=is_waited_for, cancel_futures=True)
