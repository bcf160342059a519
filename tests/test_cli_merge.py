"""`vidlat merge` as a user types it: parts of an encode become what one encode gives."""

import errno
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.store.caches import SCHEMA
from tests.store.test_merge import A, B, latents_as_bytes, make, refuse_links
from tests.store.test_prune import content_of
from vidlat.cli import commands
from vidlat.commands import display
from vidlat.store.copying import merge as merge_module
from vidlat.store.reader import open_cache
from vidlat.store.records.log import last_sequence
from vidlat.store.storage.opening import local_cache
from vidlat.store.writing.writer import CacheWriter

LENGTHS = {"a/1.mp4": 5, "a/2.mp4": 30, "b/1.mp4": 9, "b/2.mp4": 4, "c/1.mp4": 13}


def vidlat(*arguments):
    """Exit code, standard output, standard error."""
    answer = CliRunner().invoke(commands, [*map(str, arguments)])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


@pytest.fixture
def parts(tmp_path):
    return make(tmp_path / "one.zarr", A, failed=["x.mp4"]), make(tmp_path / "two.zarr", B)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "all.zarr"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal on which no cell is folded."""
    monkeypatch.setattr(display.console, "width", 300)


def cells(text):
    """The rows of the table, its head left out."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_parts_of_an_encode_become_the_cache_of_one_encode(make_videos, encode_here, tmp_path, out):
    videos = make_videos(tmp_path / "videos", LENGTHS)
    (videos / "b" / "broken.mp4").write_text("no video")
    at_once = encode_here(videos, tmp_path / "at once.zarr")
    parts = [encode_here(videos, tmp_path / f"{number}.zarr", part=f"{number}/4") for number in range(1, 5)]
    code, text, err = vidlat("merge", *parts, "--out", out)
    assert (code, err) == (0, "")
    numbers = [[int(cell) for cell in row[1:]] for row in cells(text)]
    assert [sum(column) for column in zip(*numbers, strict=True)][:3] == [5, 0, 1]
    assert content_of(out) == content_of(at_once)
    assert list(content_of(out)) == list(LENGTHS)
    assert set(open_cache(out).failures()) == {"b/broken.mp4"}
    assert vidlat("verify", out)[0] == 0
    before = last_sequence(local_cache(out))
    encode_here(videos, out)  # knows every video, and what failed
    assert last_sequence(local_cache(out)) == before


def test_table_says_what_each_cache_gave(parts, out):
    make(out, {"a.mp4": A["a.mp4"]})
    code, text, err = vidlat("merge", *parts, "--out", out)
    assert (code, err) == (0, "")
    assert f"Merged into {out}\n" in text
    # long.mp4 begins in the shard of a.mp4, which therefore comes along.
    assert cells(text) == [[str(parts[0]), "2", "1", "1", "8", "0"], [str(parts[1]), "2", "0", "0", "6", "0"]]
    assert content_of(out) == latents_as_bytes(A | B)


def test_copies_are_told_with_their_reason(parts, out, monkeypatch):
    refuse_links(monkeypatch, errno.EXDEV)
    text = vidlat("merge", *parts, "--out", out)[1]
    assert f"shards were copied, since they could not be linked ({os.strerror(errno.EXDEV)})\n" in text
    assert [row[4] for row in cells(text)] == ["0", "0"]


def test_same_content_under_two_ids_is_listed(parts, tmp_path, out):
    copies = make(tmp_path / "copies.zarr", {f"copy of {video_id}": number for video_id, number in A.items()})
    more = make(tmp_path / "more.zarr", {f"more {number}": B["d.mp4"] for number in range(3)})
    text = vidlat("merge", *parts, copies, more, "--out", out)[1]
    assert (
        "4 contents under several ids, all of which stay: a.mp4, copy of a.mp4; b.mp4, copy of b.mp4; "
        "long.mp4, copy of long.mp4; ...\n"
    ) in text


def test_vae_that_is_not_kept_is_told(parts, tmp_path, out):
    moved = make(tmp_path / "moved.zarr", schema=replace(SCHEMA, vae_path="/elsewhere.safetensors"))
    text = vidlat("merge", *parts, moved, "--out", out)[1]
    assert f"vae_path: 'tiny.safetensors' is kept, of {parts[0]}; another in {moved}\n" in text


def test_refusal_is_one_line(parts, out):
    code, text, err = vidlat("merge", *parts, "--out", parts[0])
    assert (code, text) == (1, "")
    assert err == f"Error: {parts[0]}: is one of the caches to merge; give another --out\n"
    assert vidlat("merge", *parts)[0] == 2
    assert vidlat("merge", "--out", out)[0] == 2
    assert not out.exists()


@pytest.mark.parametrize(("name", "number"), [("append_rows", 0), ("reserve", 1)])
def test_interrupted_merge_says_what_is_safe_and_continues(parts, out, monkeypatch, name, number):
    real, calls = getattr(CacheWriter, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > number:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, name, interrupted)
        code, _, err = vidlat("merge", *parts, "--out", out)
    assert code == 130
    assert err == (
        f"Interrupted: {number} of 2 caches merged and safe in {out}; the same command continues.\n"
    )
    assert content_of(out) == latents_as_bytes(A if number else {})
    assert vidlat("merge", *parts, "--out", out)[0] == 0
    assert content_of(out) == latents_as_bytes(A | B)


def test_merge_that_is_interrupted_while_it_reads_has_written_nothing(parts, out, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(merge_module, "plan_merge", interrupted)
    assert vidlat("merge", *parts, "--out", out)[0] == 130
    assert not out.exists()
