"""Where the bytes of a cache are: one small interface over folders and object stores.

Nothing is ever changed in place. A key is created once, or replaced whole if it still holds what its writer
has read. So two writers cannot overwrite each other, and one that is killed leaves a key as it was before or
as it is afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vidlat.errors import StoreError, shown

if TYPE_CHECKING:
    import pyarrow as pa

DOCUMENT_BYTES = 2**26
"""Of a document, at most: one that names 100,000 record files has a quarter."""

Range = tuple[int, int | None]
"""A start and a stop, as in content[start:stop]. A negative start counts from the end and has stop None."""


class Missing(StoreError):  # noqa: N818  (as FileNotFoundError is no failure, but an answer)
    """Nothing is stored under a key."""


class Exists(StoreError):  # noqa: N818
    """Other bytes than those to create stand under a key."""


class Changed(StoreError):  # noqa: N818
    """A key no longer holds the version that was to be replaced: read it again."""


class Beyond(StoreError):  # noqa: N818
    """A range begins where the content has ended."""


class TooLarge(StoreError):  # noqa: N818
    """A content has more bytes than it can have."""


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

    where: str
    is_listed: bool

    def read(self, key: str, range: Range | None = None) -> tuple[bytes, Version]:
        """The content of a key, or the part of it that lies in `range`, and its version.

        A range may end beyond the content. Raises Missing, and Beyond for a range that begins beyond it.
        """

    def open(self, key: str, at_most: int) -> pa.NativeFile:
        """The content of a key to read here and there, also after its deletion.

        Raises Missing, and TooLarge for more than `at_most` bytes.
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


def has_key(storage: Storage, key: str) -> bool:
    """Whether anything is stored under a key; its content is not read."""
    try:
        storage.read(key, (0, 1))
    except Missing:
        return False
    except Beyond:  # it is empty
        pass
    return True


def read_document(storage: Storage, key: str) -> tuple[bytes, Version]:
    """The content of a key and its version. Raises Missing, and TooLarge for more than DOCUMENT_BYTES."""
    try:
        content, version = storage.read(key, (0, DOCUMENT_BYTES + 1))
    except Beyond:
        return storage.read(key)
    if len(content) > DOCUMENT_BYTES:
        raise too_large(f"{storage.where}/{key}", DOCUMENT_BYTES)
    return content, version


def open_in_memory(storage: Storage, key: str, at_most: int) -> pa.NativeFile:
    """As Storage.open, of the content as a whole."""
    try:
        content, _ = storage.read(key, (0, at_most + 1))
    except Beyond:
        content = b""
    if len(content) > at_most:
        raise too_large(f"{storage.where}/{key}", at_most)
    import pyarrow as pa  # which a path that is no cache does not need

    return pa.BufferReader(content)


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


def beyond(where: str, start: int) -> Beyond:
    """The error of a range that begins where its content has ended."""
    return Beyond(
        f"{where}: ends before byte {start}; expected more: it was cut short, or is of another cache"
    )


def too_large(where: str, at_most: int) -> TooLarge:
    """The error of a content of more than `at_most` bytes."""
    return TooLarge(f"{where}: has more than {at_most} bytes; expected {at_most} at most")
