"""The latent frames of each video of a cache, and checks that they are its own and as they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidlat.errors import StoreError
from vidlat.store.latents.statistics import frame_checksums
from vidlat.store.layout import ARRAYS
from vidlat.store.schema import CacheSchema

Integers = npt.NDArray[np.int64]

RANGE_COLUMNS = ("start", "stop", "num_frames")
CHECKSUMS = "latents_frame_crc32c"
CHECKSUM_SIZES = "checksum_sizes"
"""The bytes of the checksums of each video, which are not read before its latents are."""

CHECKSUM_BYTES = 4 * len(ARRAYS)
"""Of each latent frame, in its record."""

REPAIR = "`vidlat verify --repair` encodes it again"


class VideoRanges:
    """The range of every video, in the order of the time axis, and the checksums of its latent frames.

    starts, stops: (N,). video_ids: N.
    """

    def __init__(self, table: pa.Table, read_checksums: Callable[[], pa.ChunkedArray]) -> None:
        """table: video_id and RANGE_COLUMNS, sorted by start. read_checksums: gives them in that order."""
        self.video_ids = table["video_id"]
        self.starts: Integers = table["start"].to_numpy()
        self.stops: Integers = table["stop"].to_numpy()
        # The last one is that of index -1: of frames before the first video.
        self._stops_and_none = np.append(self.stops, -1)
        self._read_checksums = read_checksums
        # The frames of all videos one after another, without the holes between them.
        lengths = self.stops - self.starts
        self._offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) - self.starts
        self._is_checked = {name: np.zeros(int(lengths.sum()), bool) for name in ARRAYS}
        self._checksums: dict[str, npt.NDArray[np.uint32]] = {}

    @classmethod
    def from_records(
        cls,
        where: str,
        records: pa.Table,
        schema: CacheSchema,
        num_frames: int,
        read_checksums: Callable[[], pa.ChunkedArray],
    ) -> Self:
        """The ranges of the videos in `records`, in arrays of `num_frames` latent frames.

        records: with CHECKSUM_SIZES. Raises StoreError like `require_possible_ranges`.
        """
        table = records.select(["video_id", *RANGE_COLUMNS, CHECKSUM_SIZES])
        return cls(require_possible_ranges(where, table, schema, num_frames), read_checksums)

    def index_of(self, starts: npt.NDArray[np.integer]) -> Integers:
        """The index of the video that each of the latent frames `starts` (B,) lies in, -1 for none."""
        index = np.searchsorted(self.starts, starts, side="right") - 1
        return np.where(starts < self._stops_and_none[index], index, -1)

    def require_as_written(
        self, name: str, videos: Integers, frames: Integers, latents: npt.NDArray[np.float16]
    ) -> None:
        """Compare latent frames with their recorded checksums, each the first time that it is read.

        videos: (B,) indices. frames: (B, t) on the time axis. latents: (B, t, L, h, w) of the array `name`.
        Raises StoreError, naming the video, for a frame that is missing or not what was recorded.
        """
        # A missing chunk reads as NaN, so that one value per latent frame shows it, every time.
        (missing,) = np.nonzero(np.isnan(latents[:, :, 0, 0, 0]).any(axis=1))
        if len(missing):
            video_id = self.video_ids[int(videos[missing[0]])].as_py()
            raise StoreError(f"{video_id}: latents of {name} are missing; {REPAIR}")
        places = (frames + self._offsets[videos][:, None]).ravel()
        (new,) = np.nonzero(~self._is_checked[name][places])
        if not len(new):
            return
        found = frame_checksums(latents.reshape(-1, *latents.shape[2:]), new.tolist())
        (wrong,) = np.nonzero(found != self._recorded(name)[places[new]])
        if len(wrong):
            item, column = divmod(int(new[wrong[0]]), frames.shape[1])
            video_id = self.video_ids[int(videos[item])].as_py()
            frame = frames[item, column]
            raise StoreError(f"{video_id}: latent frame {frame} of {name} is not as recorded; {REPAIR}")
        self._is_checked[name][places[new]] = True

    def _recorded(self, name: str) -> npt.NDArray[np.uint32]:
        """The checksums of all frames of the array `name`."""
        if not self._checksums:
            values = np.frombuffer(b"".join(self._read_checksums().to_pylist()), "<u4")
            # Of each video those of mean, then as many of std.
            lengths = np.repeat(self.stops - self.starts, len(ARRAYS))
            of_array = np.repeat(np.arange(len(lengths)) % len(ARRAYS), lengths)
            self._checksums = {name: values[of_array == index] for index, name in enumerate(ARRAYS)}
        return self._checksums[name]


def require_possible_ranges(where: str, records: pa.Table, schema: CacheSchema, num_frames: int) -> pa.Table:
    """The records in the order of the time axis.

    records: RANGE_COLUMNS and CHECKSUM_SIZES. Raises StoreError if a range cannot belong to its video in
    arrays of `num_frames` latent frames, or if two overlap.
    """
    table = records.sort_by("start")
    faulty = np.flatnonzero(_is_faulty(table, schema, num_frames))
    if len(faulty):
        row = table.slice(int(faulty[0]), 1).to_pylist()[0]
        fault = next(range_faults(row, row[CHECKSUM_SIZES], schema, num_frames))
        raise StoreError(f"{where}: damaged: {row['video_id']}: {fault}; {REPAIR}")
    starts, stops = table["start"].to_numpy(), table["stop"].to_numpy()
    (overlapping,) = np.nonzero(starts[1:] < stops[:-1])
    if len(overlapping):
        one, two = table["video_id"].slice(int(overlapping[0]), 2).to_pylist()
        raise StoreError(f"{where}: damaged: {one} and {two} name the same latent frames; {REPAIR}")
    return table


def shards_of(starts: Integers, stops: Integers, shard_frames: int) -> Integers:
    """The numbers of the shards that hold the ranges starts, stops (N,), sorted, each once."""
    first = starts // shard_frames
    counts = -(-stops // shard_frames) - first
    # Of each video first, first + 1, ... A flag for each shard up to the last would let a stranger's number
    # exhaust memory.
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.unique(np.repeat(first, counts) + within)


def range_faults(
    row: Mapping[str, Any], checksum_size: int, schema: CacheSchema, num_frames: int
) -> Iterator[str]:
    """Why the range of a record is impossible in arrays of `num_frames` latent frames.

    row: RANGE_COLUMNS. checksum_size: bytes of its checksums.
    """
    start, stop = row["start"], row["stop"]
    named = f"its record names latent frames {start}-{stop}"
    if not 0 <= start < stop:
        yield f"{named}, which is no range"
    if stop > num_frames:
        yield f"{named}, but the arrays end at {num_frames}"
    if start % schema.chunk_frames:
        yield f"{named}, which starts inside a chunk of {schema.chunk_frames}"
    expected, stack = schema.timing.num_latent_frames(row["num_frames"]), schema.timing.frames_per_call
    if stop - start != expected:
        yield f"{named}, but {row['num_frames']} frames in stacks of {stack} give {expected}"
    if checksum_size != CHECKSUM_BYTES * (stop - start):
        yield f"{named}, but holds checksums of {checksum_size / CHECKSUM_BYTES:g}"


def _is_faulty(table: pa.Table, schema: CacheSchema, num_frames: int) -> npt.NDArray[np.bool_]:
    """Whether each row has a fault, as `range_faults` says which."""
    start, stop, num_video_frames = (table[name].to_numpy() for name in ("start", "stop", "num_frames"))
    num_bytes = table[CHECKSUM_SIZES].to_numpy().astype(np.int64)
    # Not stop - start, which overflows for numbers that make no sense.
    timing = schema.timing
    num_latent_frames = num_bytes // CHECKSUM_BYTES
    after_first = num_latent_frames - timing.latents_per_call
    most = after_first // timing.latent_step * timing.frame_step + timing.frames_per_call
    faulty: npt.NDArray[np.bool_] = (
        (start < 0)
        | (stop <= start)
        | (stop > num_frames)
        | (start % schema.chunk_frames != 0)
        | (num_bytes != CHECKSUM_BYTES * (stop - start))
        | (after_first < 0)
        | (after_first % timing.latent_step != 0)
        | (num_video_frames < 1)
        | (num_video_frames > most)
        | ((after_first > 0) & (num_video_frames <= most - timing.frame_step))
    )
    return faulty
