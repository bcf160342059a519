"""Damage to records: to their files, their values, and the ranges they name."""

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from tests.store.caches import random_posterior, record_of, writer_of
from tests.store.damage import LENGTHS, MEAN_B, RECORD_B, commit_as_it_is, flip, found, rewrite
from vidlat.errors import StoreError
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import measure_unused_space, verify_cache


def test_changed_checksum_of_a_record_is_reported(path):
    rewrite(path / RECORD_B, latents_frame_crc32c=[bytes(8 * 20)])
    assert found(path) == [("b.mp4", "checksum"), ("b.mp4", "checksum")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("latents_count", 299),
        ("latents_sum_mean", [1.0, 2.0]),
        ("latents_sum_mean", [1.0]),
        ("latents_sum_mean_squared", [None, 3.0]),
        ("latents_sum_std_squared", [float("nan"), float("inf")]),
    ],
)
def test_changed_statistics_of_a_record_are_reported(path, column, value):
    rewrite(path / RECORD_B, **{column: [value]})
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", "statistics")
    assert f"recorded {column} {value}" in problem.what


def test_sums_may_differ_in_their_last_bits(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    for name, factor, kinds in (
        ("latents_sum_mean_squared", 1 + 1e-14, 0),
        ("latents_sum_mean_squared", 1 + 1e-6, 1),
    ):
        rewrite(path / RECORD_B, **{name: [[factor * value for value in table[name][0].as_py()]]})
        assert len(found(path)) == kinds


@pytest.mark.parametrize(
    ("start", "stop", "num_frames", "what"),
    [
        (40, 60, 80, "the arrays end at 40"),
        (9, 29, 80, "inside a chunk of 4"),
        (8, 8, 80, "is no range"),
        (-4, 16, 80, "is no range"),
        (2**62, 2**62 + 20, 80, "the arrays end at 40"),
        (8, 28, 81, "81 frames in stacks of 4 give 21"),
        (8, 28, -5, "give"),
    ],
)
def test_range_that_cannot_be_the_videos_is_reported(path, start, stop, num_frames, what):
    rewrite(path / RECORD_B, start=[start], stop=[stop], num_frames=[num_frames])
    problems = [problem for problem in verify_cache(path) if problem.kind == "range"]
    assert {problem.where for problem in problems} == {"b.mp4"}
    assert any(what in problem.what for problem in problems)


def test_overlapping_videos_are_both_reported(path):
    writer = writer_of(path)
    writer.commit([record_of("copy.mp4", 8, random_posterior(20, 1))])
    problems = list(verify_cache(path))
    assert [(problem.where, problem.kind) for problem in problems] == [
        ("copy.mp4", "overlap"),
        ("b.mp4", "overlap"),
    ]
    assert all("8-28" in problem.what for problem in problems)
    assert measure_unused_space(path).num_hole_frames == 40 - sum(LENGTHS.values())


def test_every_video_under_a_long_one_overlaps_it(path):
    rewrite(path / RECORD_B, start=[0], stop=[40], num_frames=[160])
    overlaps = {problem.where for problem in verify_cache(path) if problem.kind == "overlap"}
    assert overlaps == set(LENGTHS)


@pytest.mark.parametrize("log", ["videos", "failures"])
@pytest.mark.parametrize("keep", [0, 3, 100, -8, -1])
def test_truncated_record_file_is_reported_and_the_other_videos_are_still_read(path, log, keep):
    file = max((path / log / "records").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:keep])
    read = []
    problems = list(verify_cache(path, lambda *video: read.append(video)))
    assert [(problem.where, problem.kind) for problem in problems] == [
        (f"{log}/records/{file.name}", "record")
    ]
    assert [video_id for video_id, _ in read] == list(LENGTHS)[: 2 if log == "videos" else 3]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_flipped_bit_in_a_record_file_stops_nothing(pristine, position, bit):
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(pristine, Path(folder) / "l.zarr")
        flip(path / RECORD_B, position % (path / RECORD_B).stat().st_size, bit)
        problems = found(path)
        measure_unused_space(path)
    assert all(where not in ("a.mp4", "c/[b].mp4") or kind == "overlap" for where, kind in problems)


@pytest.mark.parametrize("column", ["start", "latents_frame_crc32c", "warnings", "video_id", "sequence"])
def test_record_without_a_value_is_reported_and_refused(path, column):
    rewrite(path / RECORD_B, **{column: [None]})
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (RECORD_B, "record")
    assert f"a row has no {column}" in problem.what
    with pytest.raises(StoreError, match=f"a row has no {column}"):
        open_cache(path).records()


def test_removed_video_is_no_problem_and_not_read(path):
    flip(path / MEAN_B, 0)
    writer_of(path).remove(["b.mp4"])
    read = []
    assert list(verify_cache(path, lambda *video: read.append(video[0]))) == []
    assert read == ["a.mp4", "c/[b].mp4"]
    assert measure_unused_space(path).num_hole_frames == 40 - 5 - 3


def test_record_file_without_a_column_is_reported(path):
    rewrite(path / RECORD_B, fps=None)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (RECORD_B, "record")
    assert "fps" in problem.what


def test_record_file_with_a_column_of_another_type_is_reported(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    index = table.schema.get_field_index("start")
    pq.write_table(table.set_column(index, "start", pa.array(["8"])), path / RECORD_B, use_dictionary=False)
    commit_as_it_is(path / RECORD_B)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (RECORD_B, "record")
    assert "start: expected int64, found string" in problem.what


def test_record_file_with_a_further_column_is_read(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    pq.write_table(table.append_column("note", pa.array(["new"])), path / RECORD_B, use_dictionary=False)
    commit_as_it_is(path / RECORD_B)
    assert found(path) == []
