"""The commands of README.md and of the tutorial run one after the other as they stand there."""

import csv
import io

import pytest

from tests.pages import code_blocks, commands_of
from tests.test_cli import vidlat

TUTORIAL = "docs/tutorial/first-training.md"

SMALL = {"--size": "32", "--steps": "2", "-n": "4", "--sample-every": "0", "--batch": "2"}
"""Values that only make the commands of a page quick."""


def reduced(args):
    return [SMALL.get(flag, arg) for flag, arg in zip(["", *args], args, strict=False)]


def run_commands(blocks, scheduler):
    """All `vidlat` commands of some blocks, encoding on the cluster of the tests."""
    for args in (args for block in blocks for args in commands_of(block)):
        more = ("--scheduler", scheduler) if args[0] == "encode" else ()
        code, out, err = vidlat(*reduced(args), *more)
        assert code == 0, f"vidlat {' '.join(args)}\n{out}{err}"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_commands_of_the_readme(make_videos, scheduler, tmp_path):
    make_videos(tmp_path / "my_videos", {"a.mp4": 20, "p1/b.mp4": 17})
    (block,) = [each for each in code_blocks("README.md") if "--input my_videos/" in each]
    run_commands([block], scheduler)
    assert (tmp_path / "samples" / "sample-0000.mp4").exists()


@pytest.mark.slow
def test_the_commands_of_the_tutorial(make_videos, scheduler, tmp_path):
    (table,) = code_blocks(TUTORIAL, "csv")
    columns = next(csv.reader(io.StringIO(table)))
    findings = ("regular", "pneumonia") * 8
    rows = [(f"{number}.mp4", f"p{number // 2}", finding) for number, finding in enumerate(findings)]
    make_videos(tmp_path / "clips", {name: 20 for name, *_ in rows})
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    run_commands(code_blocks(TUTORIAL, "bash"), scheduler)
    assert (tmp_path / "samples" / "sweep" / "grid.mp4").exists()
