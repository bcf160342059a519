import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings, strategies as st

from tests.store.caches import SCHEMA, add_videos, frames_of, random_posterior, writer_of
from vidlat.errors import EncodeError, StoreError
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import create_cache
from vidlat.types import LatentPosterior


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=3))
def test_latents_written_in_batches_lie_where_their_ranges_say_and_nowhere_else(batches):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.zarr"
        create_cache(path, SCHEMA)
        writer, expected = writer_of(path), []
        for number, lengths in enumerate(batches):
            videos = [random_posterior(length, 10 * number + i) for i, length in enumerate(lengths)]
            start = writer.reserve(SCHEMA.num_shards(lengths))
            expected += zip(write_shards(path, start, videos), videos, strict=True)
        group = zarr.open_group(path, mode="r")
        for name in ("mean", "std"):
            whole = np.full(group[name].shape, np.nan, np.float16)
            for (first, last), video in expected:
                assert first % SCHEMA.chunk_frames == 0
                whole[:, first:last] = getattr(video, name)
            np.testing.assert_array_equal(group[name][:], whole)


def test_memmap_longer_than_a_shard_is_written_as_it_is(cache_path, tmp_path):
    video = random_posterior(45)
    on_disk = {}
    for name in ("mean", "std"):
        np.save(tmp_path / f"{name}.npy", getattr(video, name))
        on_disk[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    add_videos(cache_path, {"long.mp4": LatentPosterior(**on_disk)})
    read = open_cache(cache_path).read_latents("long.mp4")
    np.testing.assert_array_equal(read.mean, video.mean.astype(np.float16))
    np.testing.assert_array_equal(read.std, video.std.astype(np.float16))


def test_chunks_without_a_video_take_no_room(cache_path):
    wide = dataclasses.replace(SCHEMA, shard_frames=4000)
    path = cache_path.with_name("wide.zarr")
    create_cache(path, wide)
    add_videos(path, {"short.mp4": random_posterior(4)})
    chunk_bytes = 2 * 4 * 3 * 5 * 2
    index_bytes = 16 * 1000
    assert (path / "mean/c/0/0/0/0").stat().st_size < index_bytes + 2 * chunk_bytes


def test_shard_that_exists_is_never_written_again(cache_path):
    video = random_posterior(20)
    add_videos(cache_path, {"a.mp4": video})
    for start in (0, 8, 16):
        with pytest.raises(StoreError, match=r"already written.*reserve a fresh range"):
            write_shards(cache_path, start, [random_posterior(2, seed=1)])
    np.testing.assert_array_equal(
        open_cache(cache_path).read_latents("a.mp4").mean, video.mean.astype(np.float16)
    )


def test_shard_that_exists_in_one_array_alone_is_refused(cache_path):
    start = writer_of(cache_path).reserve(1)
    shard = cache_path / "std/c/0/0/0/0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"")
    with pytest.raises(StoreError, match="shard 0 of std"):
        write_shards(cache_path, start, [random_posterior(2)])


@pytest.mark.parametrize("start", [-8, 3, 4])
def test_start_inside_a_shard_is_refused(cache_path, start):
    writer_of(cache_path).reserve(3)
    with pytest.raises(StoreError, match=r"inside a shard of 8 and would destroy.*CacheWriter\.reserve"):
        write_shards(cache_path, start, [random_posterior(2)])


@pytest.mark.parametrize("start", [0, 8])
def test_write_past_the_end_of_the_arrays_is_refused(cache_path, start):
    writer_of(cache_path).reserve(1)
    with pytest.raises(StoreError, match="ends at latent frame 8"):
        write_shards(cache_path, start, [random_posterior(9)])
    assert not (cache_path / "mean/c").exists()


@pytest.mark.parametrize("shape", [(3, 4, 3, 5), (2, 4, 5, 3), (2, 0, 3, 5)])
def test_latents_of_another_shape_are_refused(cache_path, shape):
    writer_of(cache_path).reserve(1)
    latents = np.ones(shape, np.float32)
    with pytest.raises(StoreError, match="do not fit"):
        write_shards(cache_path, 0, [LatentPosterior(mean=latents, std=latents)])


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6])
def test_latents_that_cannot_be_stored_are_refused(cache_path, name, value):
    video = random_posterior(12)
    getattr(video, name)[1, 11, 2, 4] = value
    start = writer_of(cache_path).reserve(SCHEMA.num_shards(frames_of([video])))
    with pytest.raises(EncodeError, match=f"latent {name}"):
        write_shards(cache_path, start, [video])


def test_disk_that_takes_no_shard_is_one_clear_error(cache_path):
    start = writer_of(cache_path).reserve(1)
    (cache_path / "mean/c").write_bytes(b"a file where a folder belongs")
    with pytest.raises(StoreError, match="mean cannot be written"):
        write_shards(cache_path, start, [random_posterior(2)])


def test_batch_of_nothing_writes_nothing(cache_path):
    assert write_shards(cache_path, 0, []) == []
