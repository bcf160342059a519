"""`vidlat compare` as a user types it: a table, pictures, one line for whatever is left out."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.test_cli import is_one_line, vidlat
from vidlat.commands import compare as command, display

LENGTHS = {"a.mp4": 9, "b.mp4": 6, "c.mp4": 5}


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture
def compare(videos, small_vae, tmp_path):
    def run(*more, vae=small_vae):
        given = ("--input", videos, "--out", tmp_path / "out", "--size", 16, "--device", "cpu", "--vae", vae)
        return vidlat("compare", *given, *more)

    return run


def test_prints_and_writes_the_same_figures(compare, tmp_path):
    lists = ("--stack", "4,8", "--stretch", "1,4", "--videos", 2)
    results = ("--json", tmp_path / "c.json", "--report", tmp_path / "c.html")
    code, out, err = compare(*lists, *results)
    assert (code, err) == (0, "")
    assert f"report -> {tmp_path}/c.html" in out
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["clips"] == ["a.mp4", "c.mp4"]
    names = [candidate["name"] for candidate in figures["candidates"]]
    assert names == ["small stack 4", "small stack 4 stretch 4", "small stack 8", "small stack 8 stretch 4"]
    for candidate in figures["candidates"]:
        (row,) = re.findall(rf"│ {candidate['name']} +│(.*)│", out)
        cells = [cell.strip(" *") for cell in row.split("│")]
        assert cells[1] == f"{candidate['overall']['psnr']:.2f}"
        assert cells[7] == f"{candidate['values_per_pixel']:.4f}"
        inside = candidate["overall"]["motion"]["energy_inside"]
        assert cells[4] == ("-" if inside is None else f"{inside:.2f}")
        assert [clip["video_id"] for clip in candidate["clips"]] == figures["clips"]
    assert figures["candidates"][1]["timing"]["stretch"] == 4
    assert f"2 clips to look at -> {tmp_path}/out" in out
    assert (tmp_path / "out" / "c.mp4").is_file()


def test_figures_are_whole_in_a_narrow_terminal(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(display.console, "width", 80)
    code, out, _ = compare(
        "--stretch", "1,2", "--overlap", "0,2", "--videos", 1, "--json", tmp_path / "c.json"
    )
    assert code == 0
    for candidate in json.loads((tmp_path / "c.json").read_text())["candidates"]:
        assert f"{candidate['overall']['mse']:.1e}" in out
        assert f"{candidate['bytes_per_1000_frames'] / 1e6:.2f}" in out
    assert max(len(line) for line in out.splitlines() if line.startswith("│")) == 80


def test_whatever_is_left_out_has_a_line(compare, videos, small_vae, make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", LENGTHS)
    (folder / "b.mp4").write_bytes(b"")
    (tmp_path / "broken.pt").write_bytes(b"")
    code, out, err = vidlat(
        *("compare", "--input", folder, "--out", tmp_path / "out", "--size", 16, "--stack", "4,6"),
        *("--vae", small_vae, "--vae", tmp_path / "broken.pt", "--device", "cpu"),
    )
    assert (code, err) == (3, "")
    lines = [line for line in out.splitlines() if line.endswith("; left out")]
    assert [line.split(": ")[0] for line in lines] == ["small stack 6", "broken", "b.mp4"]
    assert "Means of 2 clips, 14 frames" in out


def test_clips_without_motion_are_told(small_vae, tmp_path):
    still = np.random.default_rng(0).integers(0, 256, (1, 20, 20), np.uint8).repeat(5, 0)
    np.save(tmp_path / "still.npy", still)
    code, out, err = vidlat(
        *("compare", "--input", tmp_path / "still.npy", "--out", tmp_path / "out", "--size", 16),
        *("--vae", small_vae, "--device", "cpu", "--json", tmp_path / "c.json"),
    )
    assert (code, err) == (0, "")
    assert "1 clip without motion (a single frame, or all equal): of them the motion has no figures." in out
    assert "nan" not in (tmp_path / "c.json").read_text().lower()


def test_figures_that_cannot_be_written_are_named_and_leave_nothing(compare, tmp_path, monkeypatch):
    def full(self, _):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = compare("--videos", 1, "--json", tmp_path / "c.json")
    assert (code, err) == (1, f"Error: {tmp_path}/c.json: cannot be written (No space left on device)\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_combinations_that_fail_for_one_reason_share_a_line(compare, tmp_path):
    lists = ("--stack", "4,6", "--stretch", "1,2", "--overlap", "0,1", "--videos", 1)
    code, out, _ = compare(*lists, "--json", tmp_path / "c.json")
    assert code == 0
    lines = [line for line in out.splitlines() if line.endswith("; left out")]
    assert [line.partition(": ")[0] for line in lines] == [
        "small stack 4 stretch 2 overlap 1",
        "small stack 6, small stack 6 overlap 1, small stack 6 stretch 2 and 1 more",
    ]
    impossible = json.loads((tmp_path / "c.json").read_text())["impossible"]
    assert len(impossible) == 5
    assert impossible["small stack 6 stretch 2 overlap 1"].startswith(
        "stack: got 6; expected a multiple of 4"
    )


def test_senseless_combinations_alone_are_no_failure(compare):
    assert compare("--stack", "4,6")[0] == 0


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--stack", "6"], 2, "Error: --stack: got 6; expected a multiple of 4"),
        (["--stack", "6,7"], 2, "Error: nothing is left to compare: small stack 6: stack: got 6"),
        (["--stack", "4,four"], 2, "Error: --stack: got 'four'; expected a whole number"),
        (["--stack", "0,4"], 2, "Error: --stack: got 0; expected at least 1"),
        (["--blend", "mean"], 2, "Error: --blend: got 'mean'; expected one of average, center"),
        (["--size", "18"], 2, "Error: --size: got 18; expected a multiple of 4"),
        (["--size", "8"], 2, "Error: --size: got 8; expected at least 11"),
        (["--vae", "missing.pt"], 1, "Error: no weights file at missing.pt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_says_why_nothing_is_compared(videos, small_vae, tmp_path, more, code, message):
    given = {"--size": 16, "--vae": small_vae} | dict(zip(more[::2], more[1::2], strict=True))
    arguments = [text for pair in given.items() for text in pair]
    ended, out, err = vidlat(
        "compare", "--input", videos, "--out", tmp_path / "out", "--device", "cpu", *arguments
    )
    assert (ended, out) == (code, "")
    assert is_one_line(err)
    assert err.startswith(message)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_the_figures_of_the_clips_that_are_done(compare, tmp_path, monkeypatch):
    def interrupted(*arguments, **more):
        for number, event in enumerate(real(*arguments, **more)):
            if number == 4:  # two settings on one clip, its pictures, and one setting on the next
                raise KeyboardInterrupt
            yield event

    real = command.compare_videos
    monkeypatch.setattr(command, "compare_videos", interrupted)
    results = ("--json", tmp_path / "c.json", "--report", tmp_path / "c.html")
    code, out, err = compare("--stretch", "1,2", *results)
    assert (code, err) == (130, "Interrupted.\n")
    assert "Cut short: 2 of 2 settings are compared, on 1 of 3 clips; the rest is left out." in out
    assert "1 clip to look at" in out
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["clips"] == ["a.mp4"]
    assert [len(candidate["clips"]) for candidate in figures["candidates"]] == [1, 1]
    assert "1 of 3 clips compared" in (tmp_path / "c.html").read_text()


def test_ctrl_c_before_anything_is_measured_prints_no_table(compare, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(command, "compare_videos", interrupted)
    assert compare() == (130, "", "Interrupted.\n")


def test_lists_may_stand_in_a_file(compare, tmp_path):
    (tmp_path / "c.yaml").write_text("compare: {stack: [4, 8], stretch: 4, blend: average}")
    code, out, _ = compare("--config", tmp_path / "c.yaml", "--videos", 1)
    assert code == 0
    assert re.findall(r"│ (small stack \d+ stretch \d)", out) == [
        "small stack 4 stretch 4",
        "small stack 8 stretch 4",
    ]
