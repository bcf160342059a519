import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from tests.store.caches import SCHEMA, failure_of, random_posterior, record_of, writer_of
from tests.store.faults import meet
from tests.thorough import steps
from vidlat.errors import StoreError
from vidlat.store.reader import open_cache
from vidlat.store.records.log import read_records
from vidlat.store.records.tables import (
    FAILURE_COLUMNS,
    VIDEO_COLUMNS,
    to_failure_records,
    to_table,
    to_tombstones,
    to_video_records,
)
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import measure_unused_space
from vidlat.store.writing.writer import CacheWriter
from vidlat.types import Annotation, FailureRecord, LatentStatistics, Selection, Source, VideoRecord

VIDEO = random_posterior(4)
TIMES = (*tuple(0.04 * index for index in range(15)), 0.7)
MANY = CacheWriter.max_small_files

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
big = st.integers(0, 2**63 - 1)
floats = st.floats(allow_nan=False)
sums = st.lists(floats, max_size=4).map(tuple)
selections = st.builds(
    Selection,
    files=st.lists(text, max_size=3).map(tuple),
    part=st.none() | text.filter(bool),
    start_seconds=st.none() | st.floats(0, 1e9),
    stop_seconds=st.none() | st.floats(0, 1e9),
)
sources = st.builds(Source, text, big, big, text, selections)
video_records = st.builds(
    VideoRecord,
    video_id=text,
    start=big,
    stop=big,
    num_frames=big,
    fps=floats,
    pts_seconds=st.none() | sums,
    source=sources,
    height=big,
    width=big,
    latents=st.builds(
        LatentStatistics,
        frame_crc32c=st.binary(max_size=16),
        count=big,
        sum_mean=sums,
        sum_mean_squared=sums,
        sum_std_squared=sums,
    ),
    warnings=st.lists(text, max_size=2).map(tuple),
    versions=st.dictionaries(text, text, max_size=3),
    device=text,
    batch=big,
    value_range=sums,
    box=st.lists(big, max_size=4).map(tuple),
    annotation=st.builds(Annotation, text, st.dictionaries(text, text, max_size=3)),
    sequence=st.just(7),
)
failure_records = st.builds(
    FailureRecord,
    video_id=text,
    source=sources,
    kind=text,
    reason=text,
    traceback=text,
    sequence=st.just(7),
)


@given(st.lists(video_records, max_size=4, unique_by=lambda record: record.video_id))
def test_video_records_survive_the_table(records):
    table = to_table(records, VIDEO_COLUMNS, sequence=7)
    assert list(to_video_records(table).values()) == records


@given(st.lists(failure_records, max_size=4, unique_by=lambda record: record.video_id))
def test_failure_records_survive_the_table(records):
    table = to_table(records, FAILURE_COLUMNS, sequence=7)
    assert list(to_failure_records(table).values()) == records


@pytest.fixture
def cache_path(cache_path):
    """With 200 shards reserved, so that the ranges of the records below lie within the arrays."""
    writer_of(cache_path).reserve(200)
    return cache_path


def test_committed_records_come_back_sorted_by_video_id(cache_path):
    writer = writer_of(cache_path)
    varied = record_of("b.mp4", 8, VIDEO, pts_seconds=TIMES, warnings=("rotated", "cut short"))
    writer.commit([varied, record_of("ä.mp4", 16, VIDEO)])
    writer.commit([record_of("a.mp4", 0, VIDEO)])
    records = open_cache(cache_path).records()
    assert list(records) == ["a.mp4", "b.mp4", "ä.mp4"]
    assert records["b.mp4"] == record_of(
        "b.mp4", 8, VIDEO, pts_seconds=TIMES, warnings=("rotated", "cut short"), sequence=1
    )
    assert records["a.mp4"].sequence == 2


def test_path_that_is_no_unicode_can_be_recorded(cache_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    writer_of(cache_path).commit([record_of("a.mp4", 0, VIDEO, source_path=name, warnings=(name,))])
    assert open_cache(cache_path).records()["a.mp4"].source.path == name


def test_latest_record_of_a_video_wins(cache_path):
    writer = writer_of(cache_path)
    for number in range(12):  # more than nine: numbers must not sort as text
        writer.commit([record_of("a.mp4", 8 * number, VIDEO)])
    assert open_cache(cache_path).records()["a.mp4"].start == 88
    assert len(open_cache(cache_path)) == 1


def test_failure_is_superseded_by_a_later_record_only(cache_path):
    writer = writer_of(cache_path)
    writer.record_failures([failure_of("first.mp4", "an attempt")])
    writer.record_failures([failure_of("first.mp4", "another"), failure_of("other.mp4", "old reason")])
    writer.commit([record_of("first.mp4", 0, VIDEO), record_of("later.mp4", 8, VIDEO)])
    writer.record_failures([failure_of("later.mp4"), failure_of("other.mp4", "new reason")])
    cache = open_cache(cache_path)
    assert {id: failure.reason for id, failure in cache.failures().items()} == {
        "later.mp4": "no frame decodes",
        "other.mp4": "new reason",
    }
    assert set(cache.records()) == {"first.mp4", "later.mp4"}


def test_tombstone_is_a_row_of_nothing_but_an_id():
    (row,) = to_tombstones(["a.mp4"], sequence=7).to_pylist(maps_as_pydicts="strict")
    assert (row.pop("video_id"), row.pop("num_frames"), row.pop("sequence")) == ("a.mp4", 0, 7)
    assert set(row.values()) == {None}


def test_removed_video_is_in_the_cache_no_more(cache_path):
    writer = writer_of(cache_path)
    writer.commit([record_of("a.mp4", 0, VIDEO), record_of("b.mp4", 4, VIDEO)])
    writer.remove(["a.mp4"])
    cache = open_cache(cache_path)
    assert list(cache.records()) == list(cache.sources()) == cache.columns("fps")["video_id"] == ["b.mp4"]
    assert cache.columns("start") == {"video_id": ["b.mp4"], "start": [4]}
    assert len(cache) == 1
    assert (
        open_cache(cache_path).num_hole_frames
        == measure_unused_space(cache_path).num_hole_frames
        == 8 * 200 - 4
    )
    with pytest.raises(StoreError, match="no video is recorded at latent frame 0"):
        open_cache(cache_path).read_windows(np.array([0]), 2)
    writer.commit([record_of("a.mp4", 0, VIDEO)])
    assert list(open_cache(cache_path).records()) == ["a.mp4", "b.mp4"]


def test_merge_keeps_the_tombstones_of_videos_that_stand_in_larger_files(cache_path):
    commit_many(cache_path, MANY + 1)
    (large,) = (cache_path / "videos/records").glob("*.parquet")
    writer = writer_of(cache_path, small_bytes=large.stat().st_size, max_small_files=2)
    writer.remove(["00.mp4", "01.mp4"])
    writer.commit([record_of("01.mp4", 0, VIDEO)])
    writer.remove(["02.mp4"])
    assert len(list((cache_path / "videos/records").glob("*.parquet"))) == 2
    assert set(open_cache(cache_path).records()) == {f"{n:02d}.mp4" for n in range(40)} - {"00.mp4", "02.mp4"}


def test_failure_of_a_removed_video_counts_only_when_it_came_later(cache_path):
    writer = writer_of(cache_path)
    writer.commit([record_of("a.mp4", 0, VIDEO)])
    writer.record_failures([failure_of("a.mp4"), failure_of("never.mp4"), failure_of("other.mp4")])
    writer.remove(["a.mp4", "never.mp4"])
    assert set(open_cache(cache_path).failures()) == {"other.mp4"}
    writer.record_failures([failure_of("a.mp4", "again")])
    assert set(open_cache(cache_path).failures()) == {"a.mp4", "other.mp4"}


def test_compaction_keeps_the_rows_that_hold_and_the_count_of_commits(cache_path):
    commit_many(cache_path, 45)
    writer = writer_of(cache_path)
    writer.record_failures([failure_of("00.mp4"), failure_of("new.mp4", "old reason")])
    writer.record_failures([failure_of("new.mp4")])
    writer.commit([record_of("00.mp4", 0, VIDEO)])
    writer.remove(["01.mp4"])
    cache = open_cache(cache_path)
    before, failures, sequence = cache.records(), cache.failures(), writer.last_sequence()
    writer.compact_records()
    after = open_cache(cache_path)
    assert (after.records(), after.failures()) == (before, failures)
    assert writer.last_sequence() > sequence
    for log, num_rows in (("videos", 39), ("failures", 1)):
        (file,) = (cache_path / log / "records").glob("*.parquet")
        assert pq.read_metadata(file).num_rows == num_rows


def test_compaction_killed_at_any_step_brings_no_removed_video_back(cache_path, tmp_path, monkeypatch):
    writer = writer_of(cache_path)
    writer.commit([record_of("first.mp4", 0, VIDEO)])
    writer.commit([record_of(f"{number:03d}.mp4", 4 * number, VIDEO) for number in range(1, 200)])
    large = cache_path / "videos/records/000000000002-000000000002.parquet"
    limits = {"small_bytes": large.stat().st_size, "max_small_files": 1}
    writer_of(cache_path, **limits).remove(
        ["100.mp4"]
    )  # merged into a file that is named before that of the row it hides
    merged = large.with_name("000000000001-000000000003.parquet")
    assert sorted(large.parent.glob("*.parquet")) == [merged, large]
    before = open_cache(cache_path).records()
    assert "100.mp4" not in before
    for step in steps():
        path = tmp_path / f"{step}.zarr"
        shutil.copytree(cache_path, path)
        hit, _ = meet(writer_of(path).compact_records, step, monkeypatch)
        assert open_cache(path).records() == before
        shutil.rmtree(path)
        if hit is None:
            assert step > 10
            return


def test_compaction_writes_no_damage_under_a_fresh_checksum(cache_path):
    commit_many(cache_path, 2)
    file = sorted((cache_path / "videos/records").glob("*.parquet"))[0]
    content = bytearray(file.read_bytes())
    content[content.index(b"00.mp4")] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{file.name} is not what was committed"):
        writer_of(cache_path).compact_records()
    assert file.read_bytes() == content


def test_commit_of_nothing_leaves_no_file(cache_path):
    writer_of(cache_path).commit([])
    writer_of(cache_path).record_failures([])
    assert not list(cache_path.rglob("*.parquet"))


def test_single_columns_equal_the_records(cache_path):
    writer_of(cache_path).commit([record_of("b.mp4", 8, VIDEO), record_of("a.mp4", 0, VIDEO)])
    cache = open_cache(cache_path)
    assert cache.columns("start", "latents_sum_mean", "sequence") == {
        "video_id": ["a.mp4", "b.mp4"],
        "start": [0, 8],
        "latents_sum_mean": [list(record.latents.sum_mean) for record in cache.records().values()],
        "sequence": [1, 1],
    }


def commit_many(path, count, **limits):
    writer = writer_of(path, **limits)
    for number in range(count):
        writer.commit([record_of(f"{number % 40:02d}.mp4", 8 * number, VIDEO)])


def test_many_small_record_files_are_merged_and_the_latest_kept(cache_path):
    commit_many(cache_path, MANY)
    files = list((cache_path / "videos/records").glob("*.parquet"))
    before = open_cache(cache_path).records()
    assert len(files) == MANY
    commit_many(cache_path, 1)
    (merged,) = (cache_path / "videos/records").glob("*.parquet")
    assert pq.read_metadata(merged).num_rows == 40
    records = open_cache(cache_path).records()
    assert records.pop("00.mp4").sequence == MANY + 1
    assert records == {id: record for id, record in before.items() if id != "00.mp4"}


def test_large_record_files_are_not_merged_again(cache_path):
    commit_many(cache_path, MANY + 1)
    (merged,) = (cache_path / "videos/records").glob("*.parquet")
    written = merged.stat().st_mtime_ns
    commit_many(cache_path, 3, small_bytes=merged.stat().st_size, max_small_files=2)
    assert merged.stat().st_mtime_ns == written
    assert len(list((cache_path / "videos/records").glob("*.parquet"))) == 2
    assert len(open_cache(cache_path)) == 40


def test_reader_lists_again_when_a_file_vanishes_under_it(cache_path, monkeypatch):
    commit_many(cache_path, MANY)
    open_input, others = filesystem.open_input, []

    def open_while_another_merges(file):
        if not others:
            others.append("merges")
            writer_of(cache_path).commit([record_of("new.mp4", 0, VIDEO)])
            assert not file.exists()
        return open_input(file)

    monkeypatch.setattr(filesystem, "open_input", open_while_another_merges)
    assert len(open_cache(cache_path)) == 41


def test_record_file_that_is_gone_is_named(cache_path):
    commit_many(cache_path, 2)
    file = sorted((cache_path / "videos/records").glob("*.parquet"))[1]
    file.unlink()
    with pytest.raises(StoreError, match=rf"{file.name} is missing"):
        open_cache(cache_path)


def test_reader_gives_up_on_files_that_always_vanish(cache_path, monkeypatch):
    commit_many(cache_path, 1)
    writer = writer_of(cache_path, max_small_files=1000)

    def vanish(file):
        writer.record_failures([failure_of("a.mp4")])
        raise FileNotFoundError(2, "vanished", str(file))

    monkeypatch.setattr(filesystem, "open_input", vanish)
    with pytest.raises(StoreError, match="vanish"):
        read_records(local_cache(cache_path), attempts=3)


def test_damaged_record_file_is_named(cache_path):
    commit_many(cache_path, 2)
    file = sorted((cache_path / "videos/records").glob("*.parquet"))[1]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StoreError, match=rf"{file.name} is not what was committed"):
        open_cache(cache_path).records()


def test_drivers_at_once_get_ranges_of_their_own_and_lose_no_record(cache_path):
    def drive(driver):
        writer = writer_of(cache_path)
        starts = []
        for number in range(5):
            starts.append(writer.reserve(2))
            writer.commit([record_of(f"{driver}-{number}.mp4", starts[-1], VIDEO)])
        return starts

    with ThreadPoolExecutor(4) as drivers:
        starts = sorted(start for starts in drivers.map(drive, range(4)) for start in starts)
    assert starts == list(range(1600, 1600 + 20 * 2 * SCHEMA.shard_frames, 2 * SCHEMA.shard_frames))
    records = open_cache(cache_path).records()
    assert len(records) == 20
    assert len({record.sequence for record in records.values()}) == 20


def test_writer_does_without_folders_that_a_copy_dropped(cache_path):
    shutil.rmtree(cache_path / "failures/records")
    writer_of(cache_path).record_failures([failure_of("a.mp4")])
    assert set(open_cache(cache_path).failures()) == {"a.mp4"}


def test_cache_that_cannot_be_written_is_one_clear_error(cache_path):
    shutil.rmtree(cache_path / "videos/records")
    (cache_path / "videos/records").write_bytes(b"a file where a folder belongs")
    with pytest.raises(StoreError, match="cannot be written"):
        writer_of(cache_path).reserve(1)


@pytest.mark.parametrize("num_shards", [0, -1])
def test_arrays_never_shrink(cache_path, num_shards):
    with pytest.raises(ValueError, match="expected 1 or more"):
        writer_of(cache_path).reserve(num_shards)
