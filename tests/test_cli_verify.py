"""`vidlat verify` on the command line: what it prints, how it ends, and one repair by real processes."""

import json
import shutil

import pytest
from click.testing import CliRunner

from tests.store.caches import writer_of
from vidlat.cli import commands
from vidlat.pipeline import repair_cache
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache

LENGTHS = {"a.mp4": 9, "b.mp4": 20, "c/[b].mp4": 3}


@pytest.fixture(scope="module")
def pristine(make_videos, encode_here, tmp_path_factory):
    """Three videos, each in a shard of its own; no test writes to it."""
    folder = make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)
    return encode_here(folder, tmp_path_factory.mktemp("verify") / "l.zarr", workers=1)


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "l.zarr")


def vidlat_verify(*arguments):
    answer = CliRunner().invoke(commands, ["verify", *map(str, arguments)])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def shard_of(path, video_id):
    cache = open_cache(path, hold=False)
    return path / f"mean/c/0/{cache.records()[video_id].start // cache.schema.shard_frames}/0/0"


def flip(file):
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)


def num_hole_frames(path):
    return open_cache(path, hold=False).num_hole_frames


def test_sound_cache_is_reported_as_sound(path):
    code, out, err = vidlat_verify(path)
    assert (code, err) == (0, "")
    assert "3 videos read: no problem\n" in out


def test_shards_without_a_record_are_told_apart_from_reserved_holes(path):
    assert num_hole_frames(path) > 0
    writer_of(path).remove(["b.mp4"])
    code, out, _ = vidlat_verify(path)
    assert code == 0
    assert "kB in 2 shard files are of no recorded video: `vidlat prune` frees them" in out


def test_shards_of_lost_records_are_not_advised_to_be_freed(path):
    sorted((path / "videos/records").glob("*.parquet"))[-1].unlink()
    code, out, _ = vidlat_verify(path)
    assert code == 1
    assert "are of no recorded video, perhaps of a lost record" in out
    assert "frees them" not in out


def test_every_problem_is_printed_and_gives_exit_code_1(path):
    flip(shard_of(path, "b.mp4"))
    shard_of(path, "c/[b].mp4").unlink()
    code, out, _ = vidlat_verify(path)
    assert code == 1
    assert "3 videos read: 2 problems" in out
    for text in ("b.mp4", "damaged", "c/[b].mp4", "missing"):
        assert text in out


def test_json_is_the_whole_output(path):
    code, out, _ = vidlat_verify(path, "--json")
    counts = {"num_videos": 3, "num_hole_frames": num_hole_frames(path)}
    counts |= {"num_dead_shards": 0, "num_dead_bytes": 0}
    assert (code, json.loads(out)) == (0, counts | {"problems": []})
    (path / "notes.txt").write_text("?")
    code, out, _ = vidlat_verify("--json", path)
    assert code == 1
    foreign = {
        "where": "notes.txt",
        "kind": "foreign",
        "what": "does not belong in a cache",
        "is_video": False,
    }
    assert json.loads(out)["problems"] == [foreign]


@pytest.mark.parametrize("flags", [[], ["--repair"]])
def test_path_without_a_cache_is_refused_in_one_line_and_left_as_it_is(tmp_path, flags):
    for name in ("no.zarr", "empty.zarr"):
        if name == "empty.zarr":
            (tmp_path / name).mkdir()
        code, out, err = vidlat_verify(tmp_path / name, *flags)
        assert (code, out.strip().count("\n")) == (1, 0)
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
    assert [file.name for file in tmp_path.rglob("*")] == ["empty.zarr"]


def test_repair_of_files_starts_no_processes_and_prints_the_outcomes(path, monkeypatch):
    monkeypatch.setattr(repair_cache, "open_dask_executor", None)
    (path / "std/zarr.json").unlink()
    (path / "zarr.json.partial").write_text("")
    code, out, err = vidlat_verify(path, "--repair")
    assert (code, err) == (0, "")
    for text in ("2 problems", "std/zarr.json", "rewritten", "zarr.json.partial", "removed"):
        assert text in out
    assert out.strip().endswith("no problem left")
    assert "0/0" not in out  # nothing is to be encoded


@pytest.mark.slow
def test_repair_by_worker_processes_leaves_no_problem(path):
    flip(shard_of(path, "b.mp4"))
    shard_of(path, "a.mp4").unlink()
    code, out, err = vidlat_verify(path, "--repair", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "encoded again from" in out
    assert out.strip().endswith("no problem left")
    assert list(verify_cache(path)) == []
    code, out, _ = vidlat_verify(path)
    assert (code, "no problem" in out) == (0, True)
