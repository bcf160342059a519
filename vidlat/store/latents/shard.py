"""The content of the file of a shard: its chunks, and at its end an index of where each of them lies.

Source: the Zarr v3 codecs sharding_indexed, crc32c, blosc and bytes, as metadata.py sets them.
"""

from __future__ import annotations

import google_crc32c
import numcodecs.blosc
import numpy as np
import numpy.typing as npt

ABSENT = 2**64 - 1
"""Offset and size of a chunk that was not written."""

CHECKSUM_SIZE = 4
BLOSC_HEADER_SIZE = 16


def index_size(num_chunks: int) -> int:
    """Bytes of the index of a shard of that many chunks."""
    return 16 * num_chunks + CHECKSUM_SIZE


def parse_index(content: bytes, num_chunks: int) -> npt.NDArray[np.uint64]:
    """The offset and size of each chunk (num_chunks, 2), ABSENT for one that was not written.

    Raises ValueError if the index is damaged.
    """
    if len(content) != index_size(num_chunks):
        raise ValueError(f"a shard index has {len(content)} bytes; expected {index_size(num_chunks)}")
    places = np.frombuffer(_checked(content, "a shard index"), "<u8").reshape(num_chunks, 2)
    found = places[(places != ABSENT).any(axis=1)]
    if (found >= 2**62).any() or (found[:, 1] <= CHECKSUM_SIZE + BLOSC_HEADER_SIZE).any():
        raise ValueError("a shard index names chunks that cannot be")
    return places


def decode_chunk(content: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    """The values of a chunk of that shape. Raises ValueError if its bytes are damaged."""
    packed, values = _checked(content, "a chunk"), np.empty(shape, "<f2")
    if len(packed) < BLOSC_HEADER_SIZE or int.from_bytes(packed[4:8], "little") != values.nbytes:
        raise ValueError(f"a chunk does not unpack to {values.nbytes} bytes")
    try:
        numcodecs.blosc.decompress(packed, values)
    except RuntimeError as error:
        raise ValueError(f"a chunk cannot be unpacked: {error}") from error
    return values


def require_sound_shard(content: bytes, num_chunks: int) -> None:
    """Compare the checksums of a whole shard. Raises ValueError if its bytes are damaged."""
    for offset, size in parse_index(content[-index_size(num_chunks) :], num_chunks).tolist():
        if ABSENT not in (offset, size):
            _checked(content[offset : offset + size], "a chunk")


def _checked(content: bytes, what: str) -> bytes:
    """Content without its checksum, which is compared."""
    payload = content[:-CHECKSUM_SIZE]
    if int.from_bytes(content[-CHECKSUM_SIZE:], "little") != google_crc32c.value(payload):
        raise ValueError(f"the checksum of {what} is wrong")
    return payload
