"""What can be wrong with a cache."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "description": "a zarr.json is damaged, edited, of a newer version, or at odds with another",
    "record": "a record file cannot be read, or a row lacks a value",
    "range": "a record names latent frames that cannot be the video's",
    "overlap": "two records name the same latent frames",
    "missing": "a chunk or a whole shard is not there",
    "damaged": "a chunk or a shard cannot be decoded: its bytes have changed",
    "not-finite": "a chunk holds NaN or infinity",
    "checksum": "the latents are not those that were recorded",
    "statistics": "the recorded sums are not those of the latents",
    "foreign": "a file that is no part of a cache",
    "leftover": "what a killed encode has left behind; harmless",
}
"""Every kind of problem and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    where: a video_id, or a file's path inside the cache. kind: one of KINDS. what: one line for people.
    is_video: whether `where` is a video_id.
    """

    where: str
    kind: str
    what: str
    is_video: bool = False
