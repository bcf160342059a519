"""Caches from a stranger: what no vidlat writes is refused in one line, in bounded time and memory."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.store.caches import add_videos, random_posterior, record_of, writer_of
from tests.store.damage import LENGTHS, RECORD_B, commit_as_it_is, edit_json, found, rewrite
from tests.thorough import some_of
from vidlat.errors import StoreError
from vidlat.store.layout import LEASE, LOCK, MANIFEST, READERS
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.pruning.prune import prune
from vidlat.store.reader import open_cache
from vidlat.store.records.log import LAST_COMMIT
from vidlat.store.records.manifest import read_manifest, write_manifest
from vidlat.store.storage.opening import local_cache
from vidlat.store.summary import summarise
from vidlat.store.verify.cache import verify_cache
from vidlat.store.verify.repair_files import remove_leftovers, repair_description
from vidlat.store.writing.opening import open_writer


def outcome_of(operation, path):
    """What a refusal says, in one line; empty if there is none."""
    try:
        operation(path)
    except StoreError as error:
        return str(error)
    return ""


def read_latents(path):
    cache = open_cache(path)
    return [cache.read_latents(video_id) for video_id in LENGTHS]


def read_windows(path):
    return open_cache(path).read_windows(np.array([0, 8, 32]), 4)


def verify(path):
    return list(verify_cache(path))


def add_one(path):
    add_videos(path, {"new.mp4": random_posterior(3)})


def prune_all(path):
    with open_writer(path, "test") as writer:
        return prune(writer, plan_prune(path, LENGTHS))


OPERATIONS = summarise, read_latents, read_windows, verify, add_one, prune_all, repair_description
IN_PLACE = ["zarr.json", "mean/zarr.json", MANIFEST, RECORD_B, LEASE, LOCK, READERS, "mean/c/0/2/0/0"]


@pytest.mark.parametrize("where", some_of(IN_PLACE))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_named_pipe_in_place_of_a_file_stops_nothing_for_ever(path, where, operation):
    (path / where).unlink(missing_ok=True)
    os.mkfifo(path / where)
    refusal = outcome_of(operation, path)
    assert "\n" not in refusal
    assert not refusal or str(path) in refusal


@pytest.mark.parametrize("where", ["zarr.json", MANIFEST])
def test_endless_device_is_not_read(path, where):
    (path / where).unlink()
    (path / where).symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="is a device; expected a regular file"):
        open_cache(path)
    assert (where, "description" if where == "zarr.json" else "record") in found(path)


@pytest.mark.parametrize("where", ["mean", "std/c", "mean/c/0", "videos", "videos/records", "failures"])
def test_link_to_a_folder_elsewhere_is_not_written_through(path, tmp_path, where):
    elsewhere = tmp_path / "elsewhere"
    (path / where).rename(elsewhere)
    (path / where).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    for write in (repair_description, remove_leftovers, prune_all):
        with pytest.raises(StoreError, match=f"{where} is a link; expected a folder"):
            write(path)
    assert sorted(elsewhere.rglob("*")) == before
    assert (where, "foreign") in found(path)


@pytest.mark.parametrize("where", ["mean/c/0/4", "mean/c/0/4/0"])
def test_shard_that_is_a_link_is_neither_deleted_nor_written(path, tmp_path, where):
    elsewhere = tmp_path / "elsewhere"
    (path / where).rename(elsewhere)
    (path / where).symlink_to(elsewhere)
    prune_all(path)
    assert [file for file in elsewhere.rglob("*") if file.is_file()]
    assert found(path) == [(where, "foreign")]


def test_shard_to_come_that_is_a_link_is_not_written_through(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (path / "mean/c/0/5").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="mean/c/0/5/0/0 is a link, or lies in one"):
        add_one(path)
    assert not list((tmp_path / "elsewhere").iterdir())


IMPOSSIBLE = {
    "fps": [float("nan"), float("inf"), -1.0, 1e308, 1e-320],
    "height": [0, -3],
    "batch": [0],
    "source_num_bytes": [-1],
    "pts_seconds": [[0.0, 1.0], [0.0] * 79 + [float("nan")], [0.0] * 79 + [None]],
    "value_range": [[0.0], [0.0, float("inf")], [0.0, None]],
    "box": [[1, 2, 3], [1, 2, 3, None]],
    "warnings": [["a", None]],
    "annotation_labels": [[("a", "1"), ("a", "2")], [("a", None)]],
    "source_selection": [
        "[" * 100_000,
        "{",
        '{"part":3}',
        '{"files":[1]}',
        '{"start_seconds":"1"}',
        '{"part": "a"}',
    ],
}


@pytest.mark.parametrize(
    ("column", "value"),
    some_of([(column, value) for column, values in IMPOSSIBLE.items() for value in values]),
)
def test_value_that_no_video_has_is_refused_by_its_column(path, column, value):
    rewrite(path / RECORD_B, **{column: [value]})
    with pytest.raises(StoreError, match=r"lacks|missing|damaged|expected") as refusal:
        everything_recorded(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000
    assert found(path) == [(RECORD_B, "record")]


def everything_recorded(path):
    cache = open_cache(path)
    return cache.records(), cache.annotations(), cache.sources(), cache.warnings()


def test_two_rows_of_a_commit_for_one_video_are_reported(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    pq.write_table(pa.concat_tables([table, table]), path / RECORD_B, use_dictionary=False)
    commit_as_it_is(path / RECORD_B)
    assert found(path) == [(RECORD_B, "record")]


@pytest.mark.parametrize("change", [{"num_rows": 7}, {"num_bytes": 3}])
def test_file_that_is_not_as_the_manifest_says_is_reported(path, change):
    manifest = read_manifest(local_cache(path))
    files = tuple(replace(file, **change) if file.where == RECORD_B else file for file in manifest.files)
    write_manifest(path, replace(manifest, files=files))
    assert found(path) == [(RECORD_B, "record")]


def test_file_named_twice_by_the_manifest_is_refused(path):
    manifest = read_manifest(local_cache(path))
    write_manifest(path, replace(manifest, files=(*manifest.files, manifest.files[0])))
    with pytest.raises(StoreError, match="it names a record file twice"):
        open_cache(path)


def test_copy_of_the_description_that_does_not_parse_is_reported_and_restored(path):
    manifest = read_manifest(local_cache(path))
    write_manifest(path, replace(manifest, description={"format_version": 7}))
    assert (MANIFEST, "description") in found(path)
    assert [outcome.where for outcome in repair_description(path)] == [MANIFEST]
    assert read_manifest(local_cache(path)).description == manifest.description
    assert found(path) == []


@pytest.mark.parametrize(("lost", "gaps"), [((2,), "2"), ((2, 3), "2 to 3"), ((1, 3), "1, 3")])
def test_commits_that_no_file_holds_are_told(path, lost, gaps):
    for where in (MANIFEST, *(f"videos/records/{number:012d}-{number:012d}.parquet" for number in lost)):
        (path / where).unlink()
    told = {outcome.where: outcome.what for outcome in repair_description(path)}
    assert f"the {4 - len(lost)} record files that are there: commits {gaps} are in none" in told[MANIFEST]


def test_lost_document_of_an_array_names_the_repair(path):
    (path / "mean/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"mean/zarr\.json: .*; `vidlat verify --repair` rewrites it"):
        open_cache(path)


def test_great_numbers_in_names_are_neither_counted_nor_allocated(path):
    (path / MANIFEST).unlink()
    shutil.copy(path / RECORD_B, path / f"videos/records/000000000001-{LAST_COMMIT}.parquet")
    (path / "mean/c/0" / ("9" * 80)).mkdir()
    (path / f"videos/records/{'1' * 80}-{'2' * 80}.parquet").touch()
    repair_description(path)
    with pytest.raises(StoreError, match="no commit can follow"):
        writer_of(path).commit([record_of("new.mp4", 32, random_posterior(3))])
    assert plan_prune(path).dead_shards == ()


def test_arrays_longer_than_any_disk_are_damage(path):
    for name in ("mean", "std"):
        edit_json(path / name / "zarr.json", lambda document: document["shape"].__setitem__(1, 2**62))
    with pytest.raises(StoreError, match="shape contradicts the description"):
        open_cache(path)
    repair_description(path)
    assert found(path) == []


def test_digits_of_other_scripts_are_no_numbers(path):
    (path / "videos/records/٠٠٠٠٠٠٠٠٠٠٠٩-٠٠٠٠٠٠٠٠٠٠٠٩.parquet").touch()
    (path / "mean/c/0/٧").mkdir()
    (path / "mean/c/0/٧/x").touch()
    assert {kind for _, kind in found(path)} == {"foreign"}
    summarise(path)
