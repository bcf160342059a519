"""A cache whose content is a function of video_id and version, to be appended to and checked continually.

python -m tests.survival.known_content append CACHE SEED         until it is killed
python -m tests.survival.known_content look CACHE SEED STOP      until the file STOP is there
"""

import ctypes
import random
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import zarr

from tests.store.caches import SCHEMA, failure_of, frames_of, random_posterior, record_of
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.store.writing.writer import CacheWriter
from vidlat.timing import Timing
from vidlat.types import LatentPosterior, VideoRecord

MAX_SMALL_FILES = 8
"""Low, so that records are merged often."""

NUM_COMPARED = 20


def posterior_of(video_id: str, version: int) -> LatentPosterior:
    """One to 30 latent frames."""
    seed = zlib.crc32(f"{video_id} {version}".encode())
    return random_posterior(1 + seed % 30, seed)


def known_record(video_id: str, version: int, start: int) -> VideoRecord:
    """The record of a version; source_num_bytes holds the version."""
    return record_of(video_id, start, posterior_of(video_id, version), source_num_bytes=version)


def make_empty_cache(path: Path) -> Path:
    create_cache(path, SCHEMA)
    return path


def append_for_ever(path: Path, seed: int) -> None:
    """Commit new videos and new versions of old ones; sometimes a failure, or a write without a commit."""
    rng = random.Random(seed)
    with open_writer(path, "test") as writer:
        writer.max_small_files = MAX_SMALL_FILES
        cache = open_cache(path)
        versions = {video_id: record.source.num_bytes for video_id, record in cache.records().items()}
        while True:
            if rng.random() < 0.1:
                writer.record_failures([failure_of(f"{rng.randrange(1000):04d}.mp4")])
            batch = _choose_batch(rng, versions)
            records = _write(writer, batch)
            if rng.random() < 0.9:
                writer.commit(records)
                versions |= batch


def _choose_batch(rng: random.Random, versions: dict[str, int]) -> dict[str, int]:
    new = [f"{len(versions) + number:04d}.mp4" for number in range(rng.randint(0, 1))]
    old = rng.sample(sorted(versions), min(len(versions), rng.randint(1, 3)))
    return {video_id: versions.get(video_id, 0) + 1 for video_id in new + old} or {"0000.mp4": 1}


def _write(writer: CacheWriter, batch: dict[str, int]) -> list[VideoRecord]:
    posteriors = [posterior_of(*video) for video in batch.items()]
    start = writer.reserve(writer.schema.num_shards(frames_of(posteriors)))
    ranges = write_shards(writer.path, start, posteriors)
    return [
        known_record(*video, start=first) for video, (first, _) in zip(batch.items(), ranges, strict=True)
    ]


class Reader:
    """Opens a cache repeatedly; what it has seen must stay, or appear in a newer version."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.rng = path, random.Random(seed)
        self.seen: dict[str, int] = {}

    def look(self, with_dataset: bool) -> None:
        cache = open_cache(self.path)
        records = cache.records()
        self._compare_records(records)
        self._compare_columns(cache)
        for video_id in self.rng.sample(sorted(records), min(NUM_COMPARED, len(records))):
            _require_equal(cache.read_latents(video_id), posterior_of(video_id, self.seen[video_id]))
        if records:
            self._compare_windows(cache)
            if with_dataset:
                self._compare_dataset(cache)
        self._compare_shapes(cache)

    def _compare_records(self, records: dict[str, VideoRecord]) -> None:
        assert records.keys() >= self.seen.keys()
        for video_id, record in records.items():
            version = record.source.num_bytes
            assert version >= self.seen.get(video_id, 1)
            if version != self.seen.get(video_id):
                known = known_record(video_id, version, record.start)
                assert (record.latents, record.stop) == (known.latents, known.stop)
            self.seen[video_id] = version

    def _compare_columns(self, cache: LatentCache) -> None:
        columns = cache.columns("source_num_bytes", "start")
        assert dict(zip(columns["video_id"], columns["source_num_bytes"], strict=True)) == self.seen
        assert len(cache) == len(set(columns["start"])) == len(self.seen)
        assert all(failure.kind == "unreadable" for failure in cache.failures().values())

    def _compare_windows(self, cache: LatentCache) -> None:
        records = cache.records()
        ids = self.rng.choices(sorted(records), k=8)
        offsets = [self.rng.randrange(records[i].stop - records[i].start) for i in ids]
        starts = np.array([records[i].start + offset for i, offset in zip(ids, offsets, strict=True)])
        mean, std = cache.read_windows(starts, 4)
        for video_id, offset, *window in zip(ids, offsets, mean, std, strict=True):
            known = posterior_of(video_id, self.seen[video_id])
            frames = np.minimum(offset + np.arange(4), known.mean.shape[1] - 1)
            expected = LatentPosterior(mean=known.mean[:, frames], std=known.std[:, frames])
            _require_equal(LatentPosterior(mean=window[0], std=window[1]), expected)

    def _compare_dataset(self, cache: LatentCache) -> None:
        from vidlat.train.data.dataset import LatentDataset
        from vidlat.train.data.latents import Whitening
        from vidlat.train.data.windows import WindowShape, training_windows

        records = list(cache.records().values())
        shape = WindowShape.of_clip(4, Timing(stack=4, compression=4))
        identity = Whitening(mean=(0.0, 0.0), scale=(1.0, 1.0))
        dataset = LatentDataset(cache, records, shape, identity, "mean", self.rng.choice([0, 1 << 30]))
        plans = [training_windows(records, shape, seed=0, step=step, batch=4) for step in range(8)]
        for windows, batch in zip(plans, dataset.batches(plans), strict=True):
            for window, latents in zip(windows, batch.latents.numpy(), strict=True):
                known = posterior_of(window.video_id, self.seen[window.video_id]).mean.astype(np.float16)
                first = window.start - cache.records()[window.video_id].start
                np.testing.assert_array_equal(latents[:, 0], known[:, first])

    def _compare_shapes(self, cache: LatentCache) -> None:
        group = zarr.open_group(self.path, mode="r")
        assert group["mean"].shape == group["std"].shape
        assert group["mean"].shape[1] >= max((r.stop for r in cache.records().values()), default=0)


def _require_equal(found: LatentPosterior, known: LatentPosterior) -> None:
    np.testing.assert_array_equal(found.mean, known.mean.astype(np.float16))
    np.testing.assert_array_equal(found.std, known.std.astype(np.float16))


def _look_until(path: Path, seed: int, stop: Path) -> None:
    reader = Reader(path, seed)
    num_looks = 0
    while not stop.exists():
        reader.look(with_dataset=True)
        num_looks += 1
    print(num_looks)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with whoever started it
    do, cache_path, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if do == "append":
        append_for_ever(cache_path, number)
    else:
        _look_until(cache_path, number, Path(sys.argv[4]))
