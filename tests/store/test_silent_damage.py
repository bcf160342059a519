"""Damage that the checksums inside shards do not show: windows must not read it as latents."""

import pickle
import shutil

import numpy as np
import pytest

from tests.store.caches import SCHEMA, add_videos, random_posterior, record_of, writer_of
from tests.store.damage import LENGTHS, RECORD_B, edit_json, flip, rewrite
from tests.thorough import some_of
from vidlat.errors import StoreError
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import create_cache


def read_everything(path):
    cache = open_cache(path)
    for record in cache.records().values():
        cache.read_windows(np.arange(record.start, record.stop), 2)


def damage_of_a_bit(path):
    content = (path / "mean/zarr.json").read_bytes()
    flip(path / "mean/zarr.json", content.index(b"3,", content.index(b'"shape"')))


DAMAGES = {
    "a shard over another": (
        lambda path: shutil.copy(path / "mean/c/0/1/0/0", path / "mean/c/0/0/0/0"),
        r"a\.mp4: latent frame 0 of mean is not as recorded",
    ),
    "shards of mean and std exchanged": (
        lambda path: shutil.copy(path / "std/c/0/4/0/0", path / "mean/c/0/4/0/0"),
        r"c/\[b\]\.mp4: latent frame 32 of mean is not as recorded",
    ),
    "another data type": (
        lambda path: [
            edit_json(path / name / "zarr.json", lambda document: document.update(data_type="int16"))
            for name in ("mean", "std")
        ],
        "data_type contradicts the description",
    ),
    "one bit of the metadata": (damage_of_a_bit, "mean/zarr.json: shape contradicts the description"),
    "a range of another video": (
        lambda path: writer_of(path).commit([record_of("copy.mp4", 8, random_posterior(20, 1))]),
        "name the same latent frames",
    ),
    "2^31 frames": (
        lambda path: rewrite(path / RECORD_B, stop=[8 + 2**31], num_frames=[2**33]),
        "the arrays end at 40",
    ),
    "sums of no channel": (
        lambda path: rewrite(path / RECORD_B, latents_sum_mean=[[]]),
        r"b\.mp4: expected sums of 2 channels in its record, found 300 values with the sums \[\[\], ",
    ),
    "sums that are no numbers": (
        lambda path: rewrite(path / RECORD_B, latents_sum_std_squared=[[1.0, float("nan")]]),
        "expected sums of 2 channels",
    ),
    "a sum without a value": (
        lambda path: rewrite(path / RECORD_B, latents_sum_mean_squared=[[None, 3.0]]),
        "expected sums of 2 channels",
    ),
    "no valid latent": (lambda path: rewrite(path / RECORD_B, latents_count=[0]), "found 0 values"),
    "2^40 latent frames everywhere": (
        lambda path: (
            [
                edit_json(path / name / "zarr.json", lambda document: document["shape"].__setitem__(1, 2**40))
                for name in ("mean", "std")
            ]
            + [rewrite(path / RECORD_B, stop=[8 + 2**39], num_frames=[2**41])]
        ),
        r"b\.mp4: its record names latent frames .*, but holds checksums of 20",
    ),
}


@pytest.mark.parametrize(("plant", "why"), some_of(DAMAGES.values()), ids=some_of(DAMAGES))
def test_windows_of_damaged_latents_are_refused_and_verify_names_them(path, plant, why):
    read_everything(path)
    plant(path)
    with pytest.raises(StoreError, match=why):
        read_everything(path)
    assert list(verify_cache(path))


def test_frame_is_compared_the_first_time_that_it_is_read(path):
    cache = open_cache(path)
    cache.read_windows(np.array([0]), 4)
    shutil.copy(path / "mean/c/0/1/0/0", path / "mean/c/0/0/0/0")
    with pytest.raises(StoreError, match="latent frame 4 of mean is not as recorded"):
        cache.read_windows(np.array([4]), 1)
    with pytest.raises(StoreError, match="not those recorded"):
        cache.read_latents("a.mp4")


@pytest.fixture
def other(tmp_path):
    """A cache of the same settings and videos, with other latents."""
    create_cache(tmp_path / "other.zarr", SCHEMA)
    for seed, (video_id, length) in enumerate(LENGTHS.items()):
        add_videos(tmp_path / "other.zarr", {video_id: random_posterior(length, seed + 100)})
    return tmp_path / "other.zarr"


def test_cache_that_takes_the_place_of_one_that_is_read_is_noticed(path, other):
    cache = open_cache(path)
    cache.read_windows(np.array([0]), 4)
    copy = pickle.dumps(cache)
    path.rename(path.with_name("before.zarr"))
    other.rename(path)
    for read in (lambda: cache.read_windows(np.array([0]), 4), lambda: cache.read_latents("b.mp4")):
        with pytest.raises(StoreError, match="was removed or replaced while it was read"):
            read()
    with pytest.raises(StoreError, match="has been replaced by another cache"):
        pickle.loads(copy)


def test_cache_that_was_moved_away_is_noticed(path):
    cache = open_cache(path)
    path.rename(path.with_name("moved.zarr"))
    with pytest.raises(StoreError, match="was removed or replaced"):
        cache.read_windows(np.array([0]), 4)
