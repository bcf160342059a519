import dataclasses
import errno
import fcntl
import gc
import itertools
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.store.caches import (
    SCHEMA,
    SETTINGS,
    add_videos,
    failure_of,
    random_posterior,
    record_of,
    writer_of,
)
from vidlat.errors import StoreError
from vidlat.store.layout import READERS
from vidlat.store.reader import open_cache
from vidlat.store.storage import filesystem
from vidlat.store.storage.filesystem import locked
from vidlat.store.writing.opening import create_cache

VIDEOS = {f"{length}.mp4": random_posterior(length) for length in (3, 4, 11, 30)}


@pytest.fixture
def filled(cache_path):
    add_videos(cache_path, dict(list(VIDEOS.items())[:2]))
    add_videos(cache_path, dict(list(VIDEOS.items())[2:]))
    return cache_path


@pytest.mark.parametrize("video_id", VIDEOS)
def test_video_reads_back_as_it_was_written_also_across_shards(filled, video_id):
    read = open_cache(filled).read_latents(video_id)
    assert read.mean.dtype == read.std.dtype == np.float16
    np.testing.assert_array_equal(read.mean, VIDEOS[video_id].mean.astype(np.float16))
    np.testing.assert_array_equal(read.std, VIDEOS[video_id].std.astype(np.float16))


@pytest.mark.parametrize("detour", ["..", "link/.."])
def test_path_may_go_up_and_through_links(tmp_path, monkeypatch, detour):
    for folder in ("here/below", "there/below"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/link").symlink_to(tmp_path / "there/below")
    monkeypatch.chdir(tmp_path / "here")
    path = Path(detour, "cache.zarr")
    create_cache(path, SCHEMA)
    add_videos(path, {"3.mp4": VIDEOS["3.mp4"]})
    parent = tmp_path if detour == ".." else tmp_path / "there"
    read = open_cache(parent / "cache.zarr").read_latents("3.mp4")
    np.testing.assert_array_equal(read.mean, VIDEOS["3.mp4"].mean.astype(np.float16))
    np.testing.assert_array_equal(open_cache(path).read_latents("3.mp4").std, read.std)


@pytest.mark.parametrize("num_latent_frames", [1, 4, 7, 50])
def test_windows_equal_slices_of_their_videos_with_the_last_frame_repeated(filled, num_latent_frames):
    cache = open_cache(filled)
    rng = np.random.default_rng(0)
    videos = rng.choice(list(VIDEOS), 20)
    offsets = [int(rng.integers(VIDEOS[video].mean.shape[1])) for video in videos]
    starts = np.array([cache.records()[v].start + o for v, o in zip(videos, offsets, strict=True)])
    mean, std = cache.read_windows(starts, num_latent_frames)
    assert mean.shape == std.shape == (20, 2, num_latent_frames, 3, 5)
    for row, (video, offset) in enumerate(zip(videos, offsets, strict=True)):
        for name, windows in (("mean", mean), ("std", std)):
            frames = list(getattr(VIDEOS[video], name).astype(np.float16).swapaxes(0, 1))[offset:]
            frames = (frames + [frames[-1]] * num_latent_frames)[:num_latent_frames]
            np.testing.assert_array_equal(windows[row], np.stack(frames, axis=1))


def test_windows_without_std_read_the_mean_alone(filled):
    cache = open_cache(filled)
    starts = np.array([record.start for record in cache.records().values()])
    mean, std = cache.read_windows(starts, 3, with_std=False)
    assert std is None
    np.testing.assert_array_equal(mean, cache.read_windows(starts, 3)[0])


def test_windows_asked_for_ahead_are_the_same(filled):
    cache = open_cache(filled)
    starts = [np.array([record.start]) for record in cache.records().values()]
    pending = [cache.read_windows_async(start, 4) for start in starts]
    for start, later in zip(starts, pending, strict=True):
        np.testing.assert_array_equal(later(), cache.read_windows(start, 4))


def test_no_windows_are_an_empty_batch(filled):
    mean, std = open_cache(filled).read_windows(np.array([], dtype=np.int64), 4)
    assert mean.shape == std.shape == (0, 2, 4, 3, 5)


@pytest.mark.parametrize("start", [-1, 3, 19, 50, 10_000])
def test_window_that_starts_in_no_video_is_refused(filled, start):
    cache = open_cache(filled)
    ranges = [(record.start, record.stop) for record in cache.records().values()]
    assert sorted(ranges) == [(0, 3), (4, 8), (8, 19), (20, 50)]
    with pytest.raises(StoreError, match=f"no video is recorded at latent frame {start};"):
        cache.read_windows(np.array([0, start]), 4)


def test_empty_cache_has_no_windows(cache_path):
    with pytest.raises(StoreError, match="no video is recorded"):
        open_cache(cache_path).read_windows(np.array([0]), 4)


def test_unknown_video_is_refused_by_name(filled):
    with pytest.raises(StoreError, match=r"holds no video 'missing\.mp4'"):
        open_cache(filled).read_latents("missing.mp4")


def test_counts_tell_videos_holes_and_size(filled):
    cache = open_cache(filled)
    assert len(cache) == 4
    assert cache.num_latent_frames == 8 + 48
    assert cache.num_hole_frames == 8 + 48 - (3 + 4 + 11 + 30)
    files = [file for file in filled.rglob("*") if file.is_file()]
    assert cache.disk_usage().num_bytes == sum(len(file.read_bytes()) for file in files)


def everything(cache):
    starts = np.array([start for (start,) in cache.rows("start")])
    return (
        len(cache),
        cache.num_latent_frames,
        cache.num_hole_frames,
        cache.records(),
        cache.failures(),
        cache.sources(),
        cache.columns("num_frames", "latents_sum_mean"),
        [array.tolist() for array in cache.read_windows(starts, 4)],
    )


@pytest.mark.parametrize("looked", ["not yet", "at records", "at windows"])
def test_cache_stays_as_it_was_opened_whatever_is_added_replaced_and_merged(filled, looked):
    before = everything(open_cache(filled))
    cache = open_cache(filled)
    if looked == "at records":
        cache.records()
    elif looked == "at windows":
        cache.read_windows(np.array([0]), 2)
    add_videos(filled, {"new.mp4": random_posterior(5), "3.mp4": random_posterior(6, seed=3)})
    writer_of(filled).record_failures([failure_of("4.mp4"), failure_of("failed.mov")])
    for number in range(2):
        add_videos(filled, {f"{number}.mov": random_posterior(1)}, max_small_files=4)
    assert len(list((filled / "videos/records").glob("*.parquet"))) == 1  # those it began with are gone
    assert everything(cache) == before
    assert len(open_cache(filled)) == 4 + 1 + 2


def test_video_added_after_a_cache_was_opened_is_in_the_next(filled):
    early = open_cache(filled)
    early.read_windows(np.array([0]), 2)
    add_videos(filled, {"new.mp4": random_posterior(5, seed=9)})
    with pytest.raises(StoreError, match=r"holds no video 'new\.mp4'"):
        early.read_latents("new.mp4")
    read = open_cache(filled).read_latents("new.mp4")
    np.testing.assert_array_equal(read.mean, random_posterior(5, seed=9).mean.astype(np.float16))


def test_cache_opened_at_any_step_of_an_append_holds_all_of_a_commit_or_nothing(filled, monkeypatch):
    """The whole cache is read before and after every file that an encode writes."""
    seen = []

    def look(*_):
        cache = open_cache(filled)
        seen.append(list(cache.records()))
        for video_id in seen[-1]:
            cache.read_latents(video_id)

    for name in ("replace_file", "create_file"):
        write = getattr(filesystem, name)

        def looked_at(*arguments, write=write, **named):
            look()
            result = write(*arguments, **named)
            look()
            return result

        monkeypatch.setattr(filesystem, name, looked_at)
    # The commit ends in a merge.
    add_videos(filled, {"x.mp4": random_posterior(5), "y.mp4": random_posterior(2)}, max_small_files=2)
    old, new = sorted(VIDEOS), sorted([*VIDEOS, "x.mp4", "y.mp4"])
    assert [key for key, _ in itertools.groupby(seen)] == [old, new]
    # Three zarr.json, two shards of each array; the commit and the merge: a file and the manifest.
    assert len(seen) == 2 * (3 + 4 + 2 + 2)


def test_record_past_the_end_of_an_array_is_one_clear_error(filled):
    video = random_posterior(4)
    writer_of(filled).commit([record_of("beyond.mp4", 800, video)])
    cache = open_cache(filled)
    why = r"beyond\.mp4: its record names latent frames 800-804, but the arrays end at 56"
    with pytest.raises(StoreError, match=why):
        cache.read_latents("beyond.mp4")
    with pytest.raises(StoreError, match=why):
        cache.read_windows(np.array([800]), 4)


def test_array_that_is_gone_is_one_clear_error(filled):
    (filled / "std/zarr.json").unlink()
    with pytest.raises(StoreError, match="cannot be read as Zarr metadata"):
        open_cache(filled)


def test_array_metadata_without_a_shape_is_one_clear_error(filled):
    (filled / "std/zarr.json").write_text("{}")
    with pytest.raises(StoreError, match=r"std/zarr\.json: zarr_format contradicts the description: null"):
        open_cache(filled)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_flipped_byte_anywhere_in_a_shard_is_detected(filled, name):
    shard = filled / name / "c/0/0/0/0"
    content = shard.read_bytes()
    assert len(open_cache(filled).records()) == 4
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        shard.write_bytes(damaged)
        cache = open_cache(filled)
        first = [cache.records()[video].start for video in ("3.mp4", "4.mp4")]
        with pytest.raises(StoreError, match="damaged"):
            cache.read_windows(np.array(first), 4)
    with pytest.raises(StoreError, match=r"\.mp4: its latents are damaged"):
        [open_cache(filled).read_latents(video) for video in ("3.mp4", "4.mp4")]


@pytest.mark.parametrize("name", ["mean", "std"])
def test_shard_that_is_gone_is_detected(filled, name):
    (filled / name / "c/0/0/0/0").unlink()
    cache = open_cache(filled)
    with pytest.raises(StoreError, match=r"3\.mp4: its latents are not those recorded"):
        cache.read_latents("3.mp4")
    with pytest.raises(StoreError, match=rf"3\.mp4: latents of {name} are missing"):
        cache.read_windows(np.array([cache.records()["3.mp4"].start]), 4)


def test_latents_other_than_those_recorded_are_detected(filled):
    record = open_cache(filled).records()["4.mp4"]
    other = random_posterior(4, seed=5)
    writer_of(filled).commit([record_of("4.mp4", record.start, other)])
    with pytest.raises(StoreError, match=r"4\.mp4: its latents are not those recorded"):
        open_cache(filled).read_latents("4.mp4")


def test_cache_reads_in_a_spawned_process_after_reading_in_this_one(filled):
    cache = open_cache(filled)
    here = cache.read_latents("30.mp4")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(cache.read_latents, ("30.mp4",))
    np.testing.assert_array_equal(here.mean, there.mean)


def test_pickled_cache_carries_neither_handles_nor_records(filled):
    cache = open_cache(filled)
    fresh = len(pickle.dumps(cache))
    cache.read_latents("30.mp4")
    assert len(pickle.dumps(cache)) == fresh
    assert pickle.loads(pickle.dumps(cache)).schema == cache.schema


def prune_may_begin(path):
    try:
        with locked(path / READERS, wait=False):
            return True
    except BlockingIOError:
        return False


def test_open_cache_keeps_prune_away_as_long_as_it_lives(filled):
    assert prune_may_begin(filled)
    first, second = open_cache(filled), open_cache(filled)
    assert not prune_may_begin(filled)
    del first
    gc.collect()
    assert not prune_may_begin(filled)
    del second
    gc.collect()
    assert prune_may_begin(filled)


def test_cache_opened_to_look_at_its_records_keeps_nobody_away(filled):
    cache = open_cache(filled, hold=False)
    assert prune_may_begin(filled)
    with locked(filled / READERS):
        assert len(open_cache(filled, hold=False)) == len(cache) == 4


def test_cache_that_is_being_pruned_is_not_opened(filled):
    with locked(filled / READERS), pytest.raises(StoreError, match=r"is being pruned .*; try again"):
        open_cache(filled)
    assert len(open_cache(filled)) == 4


def hold_until_told(path, pipe):
    cache = open_cache(path)
    pipe.send(len(cache))
    pipe.recv()


def test_another_process_keeps_prune_away_until_it_is_killed(filled):
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=hold_until_told, args=(filled, there))
    process.start()
    assert here.recv() == 4
    assert not prune_may_begin(filled)
    process.kill()
    process.join()
    assert prune_may_begin(filled)


def test_copy_in_another_process_keeps_prune_away_by_itself(filled):
    cache = open_cache(filled)
    copy = pickle.loads(pickle.dumps(cache))
    del cache
    gc.collect()
    assert not prune_may_begin(filled)
    looking = pickle.loads(pickle.dumps(open_cache(filled, hold=False)))
    del copy
    gc.collect()
    assert prune_may_begin(filled)
    assert len(looking) == 4


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_that_ends_does_not_let_prune_in(filled):
    cache = open_cache(filled)
    child = os.fork()
    if child == 0:
        try:
            del cache
            gc.collect()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not prune_may_begin(filled)
    assert len(cache) == 4


def test_cache_without_a_file_for_readers_is_read_and_nothing_is_written(filled):
    (filled / READERS).unlink()
    before = sorted(filled.rglob("*"))
    open_cache(filled).read_latents("3.mp4")
    assert sorted(filled.rglob("*")) == before


def test_file_system_without_locks_is_read_from(filled, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert len(open_cache(filled)) == 4


def test_file_for_readers_is_opened_to_read_alone(filled, monkeypatch):
    """A cache on a read-only disk opens. File modes would prove nothing, since root may write anywhere."""
    opened, open_file = [], os.open

    def spied(path, flags, *more, **options):
        if str(path).endswith("readers"):
            opened.append(flags & (os.O_ACCMODE | os.O_CREAT))
        return open_file(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", spied)
    cache = open_cache(filled)
    assert opened == [os.O_RDONLY]
    assert len(cache) == 4


@pytest.mark.parametrize("kind", ["missing", "file", "empty folder", "other zarr", "no JSON", "a list"])
def test_path_that_is_no_cache_is_refused(tmp_path, kind):
    path = tmp_path / "latents.zarr"
    if kind == "file":
        path.write_bytes(b"")
    elif kind != "missing":
        path.mkdir()
    if kind in ("other zarr", "no JSON", "a list"):
        content = {"other zarr": json.dumps({"attributes": {}}), "no JSON": "{", "a list": "[]"}[kind]
        (path / "zarr.json").write_text(content)
    with pytest.raises(StoreError, match=r"is (a file, )?not a vidlat cache|cannot be read as Zarr metadata"):
        open_cache(path)
    with pytest.raises(StoreError, match=r"latents\.zarr"):
        writer_of(path)


@pytest.mark.parametrize("kind", ["a cache of other settings", "a folder with a file", "a file"])
def test_cache_is_never_made_over_something(tmp_path, kind):
    path = tmp_path / "latents.zarr"
    if kind == "a cache of other settings":
        create_cache(path, dataclasses.replace(SCHEMA, settings=dataclasses.replace(SETTINGS, size=24)))
        add_videos(path, {"a.mp4": random_posterior(3)})
    elif kind == "a file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="another --out"):
        create_cache(path, SCHEMA)
    assert sorted(tmp_path.rglob("*")) == before


def test_cache_of_the_same_settings_is_left_as_it_is(tmp_path):
    path = tmp_path / "latents.zarr"
    create_cache(path, SCHEMA)
    add_videos(path, {"a.mp4": random_posterior(3)})
    before = sorted(tmp_path.rglob("*"))
    create_cache(path, SCHEMA)
    assert sorted(tmp_path.rglob("*")) == before
    assert list(open_cache(path).records()) == ["a.mp4"]


@pytest.mark.parametrize("step", range(6))
def test_caches_made_at_once_are_one_whole_cache(tmp_path, monkeypatch, step):
    """A second driver creates the whole cache between any two files of the first."""
    path, written, replace = tmp_path / "latents.zarr", itertools.count(), filesystem.replace_file

    def overtaken(*arguments, **named):
        if next(written) == step:
            create_cache(path, SCHEMA)
        replace(*arguments, **named)

    monkeypatch.setattr(filesystem, "replace_file", overtaken)
    create_cache(path, SCHEMA)
    assert open_cache(path).schema == SCHEMA
    assert list(tmp_path.iterdir()) == [path]


def test_caches_made_by_many_threads_are_one_whole_cache(tmp_path):
    for attempt in range(5):
        path = tmp_path / f"{attempt}.zarr"
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _, path=path: create_cache(path, SCHEMA), range(8)))
        assert open_cache(path).schema == SCHEMA
        assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_a_cache_is_as_open_to_others_as_any_new_folder(cache_path, tmp_path):
    (tmp_path / "any").mkdir()
    assert cache_path.stat().st_mode == (tmp_path / "any").stat().st_mode
    assert (cache_path / "mean").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_file_is_called_a_file(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file, not a vidlat cache"):
        open_cache(tmp_path / "video.mp4")


def test_cache_is_made_in_folders_that_do_not_exist_yet_or_are_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new/and/deep.zarr"):
        create_cache(path, SCHEMA)
        assert open_cache(path).schema == SCHEMA
        assert len(open_cache(path)) == 0
