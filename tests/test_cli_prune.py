"""`vidlat prune` as a user types it: a preview first, done with --yes, refused if it would empty a cache."""

import fcntl
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.store.caches import SCHEMA, failure_of, random_posterior, record_of
from vidlat.cli import commands
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.pruning import prune as prune_module
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import Annotation, InputVideo, Source


def prune(*arguments):
    """Exit code, standard output, standard error."""
    answer = CliRunner().invoke(commands, ["prune", *map(str, arguments)])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def files_of(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"}


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.fixture
def cache(tmp_path):
    """Four videos in three batches, all of their sources in `videos/`, and one that failed."""
    path, videos = tmp_path / "l.zarr", tmp_path / "videos"
    create_cache(path, SCHEMA)
    videos.mkdir()
    with open_writer(path, "test") as writer:
        for names in (("a.mp4", "b.mp4"), ("c.mp4",), ("d [left].mp4",)):
            latents = [random_posterior(3, seed=ord(name[0])) for name in names]
            ranges = write_shards(path, writer.reserve(1), latents)
            records = [
                record_of(name, start, posterior, source_path=str(videos / name))
                for name, posterior, (start, _) in zip(names, latents, ranges, strict=True)
            ]
            writer.commit(records)
            for name in names:
                (videos / name).touch()
        (videos / "failed.mp4").touch()
        writer.record_failures([failure_of("failed.mp4", path=str(videos / "failed.mp4"))])
    return path


@pytest.fixture
def videos(cache):
    return cache.parent / "videos"


def test_nothing_to_prune_is_reported_and_no_error(cache):
    before = files_of(cache)
    for flags in ((), ("--yes",)):
        code, out, err = prune(cache, *flags)
        assert (code, err) == (0, "")
        assert out.startswith("Nothing to prune: ")
    assert files_of(cache) == before


def test_without_yes_nothing_is_changed(cache, videos):
    (videos / "a.mp4").unlink()
    (cache / "mean/c/0/1/0/0.__lock").touch()
    before = files_of(cache)
    code, out, err = prune(cache, "--drop", "d [left].mp4")
    assert (code, err) == (0, "")
    assert files_of(cache) == before
    rows = [" ".join(line.replace("│", " ").split()) for line in out.splitlines()]
    assert {"a.mp4 vanished", "d [left].mp4 requested", "videos dropped 2 -"} <= set(rows)
    assert {"shards without a video deleted 1 -", "leftovers of kills and repairs deleted 1 -"} <= set(rows)
    assert any(row.startswith("videos moved 1 ") for row in rows)
    assert rows[-1] == "nothing was changed; --yes does it"


def test_with_yes_videos_are_removed_and_the_freed_size_is_printed(cache, videos):
    (videos / "a.mp4").unlink()
    before, latents = size_of(cache), open_cache(cache).read_latents("b.mp4").mean
    code, out, err = prune(cache, "--yes", "--drop", "d [left].mp4")
    assert (code, err) == (0, "")
    freed = before - size_of(cache)
    promised = re.search(r"freed on disk +│ +- +│ ([\d.]+) kB", out)
    assert abs(1000 * float(promised[1]) - freed) < 600  # a block, and rounded to 0.1 kB
    assert f"freed {freed / 1000:.1f} kB of {cache}" in " ".join(out.split())
    assert set(open_cache(cache).records()) == {"b.mp4", "c.mp4"}
    assert (open_cache(cache).read_latents("b.mp4").mean == latents).all()
    assert "nothing was changed" not in out
    assert prune(cache, "--yes")[1].startswith("Nothing to prune")


def test_labels_that_go_with_a_video_are_announced(cache, videos):
    assert "labels" not in prune(cache, "--drop", "a.mp4")[1]
    source = Source(str(videos / "a.mp4"), 0, 0)
    annotated = InputVideo(video_id="a.mp4", source=source, annotation=Annotation("p1", {}))
    with open_writer(cache, "test") as writer:
        writer.commit_sources([annotated])
    assert "The labels of 1 video go with them" in prune(cache, "--drop", "a.mp4")[1]


def test_vanished_failures_are_dropped_too(cache, videos):
    (videos / "failed.mp4").unlink()
    assert prune(cache, "--yes")[0] == 0
    assert not open_cache(cache).failures()
    assert len(open_cache(cache)) == 4


def test_vanished_videos_can_be_kept(cache, videos):
    (videos / "a.mp4").unlink()
    code, out, _ = prune(cache, "--yes", "--keep-vanished")
    assert code == 0
    assert out.startswith("Nothing to prune")
    assert "a.mp4" in open_cache(cache).records()


def test_unmounted_disk_does_not_empty_a_cache(cache, videos):
    videos.rename(videos.with_name("unmounted"))
    before = files_of(cache)
    code, out, err = prune(cache, "--yes")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "none of the 5 sources exists: is their disk mounted?" in err
    assert "--keep-vanished" in err
    code, out, err = prune(cache)
    assert code == 0
    assert "is their disk mounted?" in err
    assert files_of(cache) == before
    assert prune(cache, "--yes", "--drop", "c.mp4")[0] == 0
    assert set(open_cache(cache).records()) == {"a.mp4", "b.mp4", "d [left].mp4"}


@pytest.mark.parametrize("flags", [(), ("--yes",)])
def test_unknown_video_is_refused_by_name(cache, flags):
    before = files_of(cache)
    code, _, err = prune(cache, "--drop", "nobody.mp4", "--drop", "a.mp4", *flags)
    assert (code, err.count("\n")) == (1, 1)
    assert "'nobody.mp4'" in err
    assert files_of(cache) == before


@pytest.mark.parametrize("flags", [(), ("--yes",)])
def test_cache_that_is_being_written_to_is_refused_with_the_name_of_the_writer(cache, flags):
    with open_writer(cache, "vidlat encode --out here"):
        code, _, err = prune(cache, "--drop", "a.mp4", *flags)
    assert (code, err.count("\n")) == (1, 1)
    assert "vidlat encode --out here" in err


def test_cache_that_a_training_reads_is_refused(cache):
    with (cache / "videos/records/readers").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        code, _, err = prune(cache, "--yes", "--drop", "a.mp4")
    assert (code, err.count("\n")) == (1, 1)
    assert "is being read" in err
    assert "a.mp4" in open_cache(cache).records()


def test_interruption_says_how_to_continue(cache, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prune_module, "write_shards", interrupted)
        code, _, err = prune(cache, "--yes", "--drop", "a.mp4")
    assert code == 130
    assert "run it again" in err
    assert prune(cache, "--yes", "--drop", "a.mp4")[0] == 0
    assert prune(cache)[1].startswith("Nothing to prune")


def test_damaged_video_is_named_and_gives_an_exit_code(cache):
    shard = cache / "std/c/0/0/0/0"
    damaged = bytearray(shard.read_bytes())
    damaged[-70] ^= 1
    shard.write_bytes(damaged)
    code, out, _ = prune(cache, "--yes", "--drop", "a.mp4")
    assert code == 1
    assert "b.mp4: damaged and left where it is" in out
    assert "a.mp4" not in open_cache(cache).records()


def test_folder_that_is_not_a_cache_is_refused(tmp_path):
    code, _, err = prune(tmp_path / "nowhere")
    assert code == 1
    assert "no such folder" in err


def test_prune_loads_no_torch(cache):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom vidlat.cli import commands\n"
        f"answer = CliRunner().invoke(commands, ['prune', {str(cache)!r}, '--drop', 'a.mp4'])\n"
        "assert '--yes does it' in answer.output, answer.output\n"
        "print([name for name in ('torch', 'monai', 'zarr') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
