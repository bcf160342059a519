"""Making ahead: while one thread waits for a network, another makes what it will take next."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")

_END = object()


@contextmanager
def ahead(items: Generator[T], most: int) -> Iterator[Iterator[T]]:
    """The same items in the same order, made in a thread of its own, up to `most` before they are asked for.

    What the generator raises is raised where its next item is taken. It is closed, and its thread has ended,
    when the block ends.
    """
    waiting: deque[Future[object]] = deque()

    def taken() -> Iterator[T]:
        waiting.extend(pool.submit(next, items, _END) for _ in range(most))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, items, _END))
            yield cast(T, item)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        try:
            yield taken()
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close).result()
