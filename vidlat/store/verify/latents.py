"""Comparison of the latents of a video with its record, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.errors import one_line
from vidlat.store.latents.opening import open_arrays
from vidlat.store.latents.statistics import LatentDigest
from vidlat.store.layout import ARRAYS, shard_file
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import Storage

Finding = tuple[str, str]
"""A kind of problem, and what was found."""

Frames = tuple[int, int]
"""A half-open range of latent frames."""

TOLERANCE = 1e-9
"""Tolerance of sums, relative to their terms: the order of additions may differ between numpy versions."""

INDEX_CACHE_BYTES = 2**20
"""Memory per array for shard indexes; no chunk is read twice."""


class LatentChecker:
    """Both arrays of a cache, opened by its description, even if their own zarr.json is damaged."""

    def __init__(self, storage: Storage, schema: CacheSchema, num_frames: int) -> None:
        self.schema = schema
        self._arrays = open_arrays(storage, schema, num_frames, cache_bytes=INDEX_CACHE_BYTES)

    def findings(self, row: Mapping[str, Any]) -> Iterator[Finding]:
        """The problems of the latents of the video that `row` of the records describes.

        row: start, stop (within the arrays), num_frames and the statistics of a record. Checksum and
        statistics are compared only if every latent could be read.
        """
        num_summed = self.schema.timing.num_unpadded(row["num_frames"])
        digests = {name: LatentDigest(self.schema.latent_dim) for name in ARRAYS}
        is_whole = True
        for name in ARRAYS:
            for first, stop in self._shard_parts(row["start"], row["stop"]):
                block, faults = self._read(name, first, stop)
                is_whole = is_whole and block is not None and not faults
                if is_whole and block is not None:
                    digests[name].add(block, row["start"] + num_summed - first)
                yield from faults
        if is_whole:
            count = num_summed * self.schema.latent_height * self.schema.latent_width
            yield from _compare(row, digests["mean"], digests["std"], count)

    def _shard_parts(self, start: int, stop: int) -> Iterator[Frames]:
        """The range cut at shard boundaries into the parts that are in memory at once."""
        length = self.schema.shard_frames
        for shard in range(start - start % length, stop, length):
            yield max(start, shard), min(stop, shard + length)

    def _read(self, name: str, first: int, stop: int) -> tuple[npt.NDArray[np.float16] | None, list[Finding]]:
        """A part of one shard, None if it cannot be read as a whole, and its problems."""
        shard = first // self.schema.shard_frames
        faults: dict[tuple[str, str], list[Frames]] = {}
        if what := self._arrays.wrong_shard(name, shard):
            file = shard_file(name, shard)
            return None, [("damaged", f"{name}, latent frames {first}-{stop}: {file} {what}")]
        block: npt.NDArray[np.float16] | None = None
        with suppress(ValueError):
            block = self._values(name, first, stop)
        if block is None or not np.isfinite(block).all():
            step = self.schema.chunk_frames
            for chunk in range(first, stop, step):
                frames = chunk, min(chunk + step, stop)
                if fault := self._chunk_fault(name, shard, frames):
                    faults.setdefault(fault, []).append(frames)
        return block, [
            (kind, f"{name}, latent frames {_ranges(frames)}: {what}")
            for (kind, what), frames in faults.items()
        ]

    def _values(self, name: str, first: int, stop: int) -> npt.NDArray[np.float16]:
        """Latent frames, (L, n, h, w)."""
        return self._arrays.start_reading(name, slice(first, stop))().swapaxes(0, 1)

    def _chunk_fault(self, name: str, shard: int, frames: Frames) -> Finding | None:
        file = shard_file(name, shard)
        try:
            chunk = self._values(name, *frames)
        except ValueError as error:
            return "damaged", f"{file} cannot be read: {_reason(error)}"
        if np.isnan(chunk).all():
            is_there = self._arrays.has_shard(name, shard)
            return "missing", f"{file} lacks them" if is_there else f"{file} does not exist"
        return None if np.isfinite(chunk).all() else ("not-finite", f"{file} holds NaN or infinity")


def _compare(row: Mapping[str, Any], mean: LatentDigest, std: LatentDigest, count: int) -> Iterator[Finding]:
    recorded = np.frombuffer(row["latents_frame_crc32c"], "<u4").reshape(2, -1)
    for name, digest, expected in (("mean", mean, recorded[0]), ("std", std, recorded[1])):
        (wrong,) = np.nonzero(np.frombuffer(digest.checksums, "<u4") != expected)
        if len(wrong):
            frames = _ranges([(row["start"] + index, row["start"] + index + 1) for index in wrong.tolist()])
            yield "checksum", f"{name}, latent frames {frames}: not what was recorded"
    if row["latents_count"] != count:
        yield "statistics", f"recorded latents_count {row['latents_count']}, the latents give {count}"
    terms = np.sqrt(count * mean.squares)  # the sum of |mean| is this at most
    for name, sums, scale in (
        ("latents_sum_mean", mean.sums, terms),
        ("latents_sum_mean_squared", mean.squares, mean.squares),
        ("latents_sum_std_squared", std.squares, std.squares),
    ):
        given = np.array(row[name], np.float64)
        if given.shape != sums.shape or not (abs(given - sums) <= TOLERANCE * scale).all():
            yield "statistics", f"recorded {name} {row[name]}, the latents give {sums.tolist()}"


def _ranges(frames: list[Frames]) -> str:
    """Sorted ranges as text, with adjacent ones joined: 0-8, 12-16."""
    joined: list[Frames] = []
    for first, stop in frames:
        if joined and joined[-1][1] == first:
            first = joined.pop()[0]
        joined.append((first, stop))
    return ", ".join(f"{first}-{stop}" for first, stop in joined)


def _reason(error: ValueError) -> str:
    """The end of tensorstore's message, after the path of the file; of one index it is now this, now that."""
    return one_line(error).rsplit('": ', 1)[-1].removeprefix("Error decoding shard index: ")
