"""Files that do not belong in a cache are reported; those of a running encode are not."""

import os
import shutil

import pytest

from tests.store.caches import add_videos, random_posterior
from tests.store.damage import MEAN_B, RECORD_B, found
from vidlat.store.layout import LEASE
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import hold_lease


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".DS_Store",
        "mean/c/0/1/0/1",
        "mean/c/0/01/0/0",
        "videos/records/1-2.parquet",
        "videos/deep/er/file",
        "failures/records/lock",
    ],
)
def test_foreign_file_is_reported(path, name):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("?")
    assert found(path) == [(name, "foreign")]


def test_foreign_file_whose_name_is_no_text_is_reported(path):
    (path / "caf\udce9").write_text("?")
    assert found(path) == [(r"caf\xe9", "foreign")]


def test_shard_past_the_end_of_the_array_is_reported(path):
    (path / "mean/c/0/5/0").mkdir(parents=True)
    shutil.copy(path / MEAN_B, path / "mean/c/0/5/0/0")
    assert found(path) == [("mean/c/0/5/0/0", "foreign")]


@pytest.mark.parametrize(
    "name", ["videos/records/.0af0.partial", "mean/c/0/1/0/0.__lock", "zarr.json.partial", "std/c/0/1/0/0#1"]
)
def test_leftover_of_a_kill_is_reported(path, name):
    (path / name).write_text("")
    assert found(path) == [(name, "leftover")]


def test_cache_that_was_never_finished_is_reported_beside_the_one_that_was(path):
    for name in (f".l.zarr.{'0af' * 10}0a.partial", ".l.zarr.partial", ".other.zarr.partial"):
        path.with_name(name).mkdir()
    expected = {f"../.l.zarr.{'0af' * 10}0a.partial", "../.l.zarr.partial"}
    assert set(found(path)) == {(name, "leftover") for name in expected}


def test_lease_of_a_dead_writer_is_a_leftover_and_that_of_a_living_one_is_none(path):
    with hold_lease(path, "test"):
        assert found(path) == []
    (path / LEASE).write_text("{}")  # damaged: nobody knows whose
    assert found(path) == []
    os.utime(path / LEASE, (0, 0))  # no heartbeat for years
    assert found(path) == [(LEASE, "leftover")]


def test_record_file_that_was_set_aside_is_no_problem(path):
    (path / f"{RECORD_B}.0123abcd.damaged").write_text("?")
    assert found(path) == []
    (path / f"{RECORD_B}.damaged").write_text("?")
    assert found(path) == [(f"{RECORD_B}.damaged", "foreign")]


def test_file_of_a_running_encode_is_no_leftover(path):
    (path / "videos/records/.0af0.partial").write_text("being written")

    def encode_goes_on(*_):
        (path / "videos/records/.0af0.partial").unlink(missing_ok=True)
        (path / "videos/records/.0af1.partial").write_text("another commit")

    assert list(verify_cache(path, encode_goes_on)) == []


def test_shards_that_a_running_encode_adds_are_not_past_the_end(path, monkeypatch):
    from vidlat.store.verify import cache as verify

    list_files = verify.find_suspects

    def grown_meanwhile(*arguments):
        add_videos(path, {"new.mp4": random_posterior(9)})
        return list_files(*arguments)

    monkeypatch.setattr(verify, "find_suspects", grown_meanwhile)
    assert found(path) == []
