"""What can be wrong with a cache."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "description": "a zarr.json is damaged, edited, of a newer version, or contradicts another",
    "record": "a record file cannot be read, or a row lacks a value",
    "range": "a record names latent frames that cannot belong to its video",
    "overlap": "two records name the same latent frames",
    "missing": "a chunk or a whole shard does not exist",
    "damaged": "a chunk or a shard cannot be decoded, because its bytes have changed",
    "not-finite": "a chunk holds NaN or infinity",
    "checksum": "the latents are not those recorded",
    "statistics": "the recorded sums differ from those of the latents",
    "foreign": "a file that does not belong in a cache",
    "leftover": "a harmless file left by a killed process",
}
"""The kinds of problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a cache.

    where: a video_id, or a file's path relative to the cache. kind: one of KINDS. what: one line of text.
    is_video: whether `where` is a video_id.
    """

    where: str
    kind: str
    what: str
    is_video: bool = False
