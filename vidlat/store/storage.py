"""Where the bytes of a cache are: one small interface over folders and object stores.

Nothing is ever changed in place. A key is created once, or replaced whole if it still holds what its writer
has read. So two writers cannot overwrite each other, and one that is killed leaves a key as it was before or
as it is afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vidlat.errors import StoreError, shown

Range = tuple[int, int | None]
"""A start and a stop, as in content[start:stop]. A negative start counts from the end and has stop None."""


class Missing(StoreError):  # noqa: N818  (as FileNotFoundError is no failure, but an answer)
    """Nothing is stored under a key."""


class Exists(StoreError):  # noqa: N818
    """Other bytes than those to create stand under a key."""


class Changed(StoreError):  # noqa: N818
    """A key no longer holds the version that was to be replaced: read it again."""


class Unreachable(StoreError):  # noqa: N818
    """A storage that gave no answer, or refused one: nothing is known of what it holds, least of all damage.

    A write that ends so may have happened, or may still happen: read the key before doing anything else.
    """


@dataclass(frozen=True, slots=True)
class Version:
    """What stood under a key when it was read or written. Equal content may have an equal version.

    tag: a file's inode and time, an object's ETag. generation: what some object stores count besides.
    """

    tag: str | None
    generation: str | None = None


class Storage(Protocol):
    """Contents under keys, which are names joined by "/". A key must not be the folder of another one.

    where: its path or address, for messages. is_listed: whether `list` is possible, as it is not on the web.
    Every verb raises Unreachable if the storage gives no answer. No verb waits without end.
    """

    @property
    def where(self) -> str: ...

    @property
    def is_listed(self) -> bool: ...

    def read(self, key: str, range: Range | None = None) -> tuple[bytes, Version]:
        """The content of a key, or the part of it that lies in `range`, and its version.

        A range may end beyond the content. Raises Missing, and StoreError for a range that begins beyond it.
        """

    def create(self, key: str, content: bytes) -> Version:
        """Store the content of a new key; it is durable once this returns.

        Raises Exists, unless what stands there are these very bytes: a creation may be repeated.
        """

    def replace(self, key: str, content: bytes, version: Version) -> Version:
        """Store other content if the key is still of this version; it is durable once this returns.

        Raises Changed otherwise, even if there is nothing, unless what stands there are these very bytes: so
        whoever must be told from another writer puts a token of its own into the content.
        """

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Each key in the folder `prefix` and in the folders below, and its size in bytes, in no order."""

    def delete(self, *keys: str) -> None:
        """Delete keys; those that are missing are no error. Not for a key that another writer may replace."""


def checked_key(key: str, where: str) -> str:
    """A key, if it is one; raises StoreError if not, for it may come from elsewhere and lead anywhere."""
    names = key.split("/")
    if key.isprintable() and "\\" not in key and not {"", ".", ".."} & set(names):
        return key
    raise StoreError(f"{where}: got the key {shown(key)}; expected names joined by '/'")


def checked_range(range: Range) -> Range:
    """A range that selects something, wherever a content ends; raises ValueError for another."""
    start, stop = range
    if stop is not None and not 0 <= start < stop:
        raise ValueError(f"range: got {range}; expected 0 <= start < stop, or stop None")
    return range


def beyond(where: str, start: int) -> StoreError:
    """The error of a range that begins where its content has ended."""
    return StoreError(
        f"{where}: ends before byte {start}; expected more: it was cut short, or is of another cache"
    )
