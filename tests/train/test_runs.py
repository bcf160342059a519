"""`vidlat runs` reads runs in any state, side by side, without torch."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.report.html import Page
from tests.test_cli import is_one_line, vidlat
from vidlat.config import TrainConfig
from vidlat.train.runs.metrics import Metrics
from vidlat.train.runs.run_folder import hold_run
from vidlat.train.runs.summary import find_runs, summarise_run

ESTIMATE = {"value": 0.0125, "low": 0.008, "high": 0.02}


def make_run(folder, *, steps=10, losses=(), validations=None, saved=None, evaluation=None, **settings):
    """The folder of a run as a training leaves it. losses: of the steps; validations: by step."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "lock").touch()
    document = {
        "config": TrainConfig(steps=steps, **settings).to_dict(),
        "cache": {"settings": {"size": 64, "encoder_config": {"deep": 1}}, "vae_name": "tiny"},
        "training": ["a", "b"],
        "validation": ["c"],
    }
    (folder / "config.json").write_text(json.dumps(document))
    lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    for step, loss in (validations or {}).items():
        lines[step - 1]["validation_loss"] = loss
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if saved:
        (folder / "checkpoints" / f"step_{saved:08d}").mkdir()
    if evaluation:
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def evaluation_of(kids, **copies):
    """The figures of samples by name; copies: the share of suspects in those of a name."""
    share = {
        name: {"share": {"value": each, "low": 0, "high": 1, "doubt": ""}} for name, each in copies.items()
    }
    return {
        "samples": {name: {"drawn": {"step": 7}} for name in kids},
        "rows": {
            name: {"distances": {"latents": {"kernel_distance": ESTIMATE | {"value": value}}}}
            for name, value in kids.items()
        },
        "copies": share,
    }


def rows_of(*arguments):
    code, out, _ = vidlat("runs", *arguments, "--json")
    assert code == 0
    return {Path(row["run"]).name: row for row in json.loads(out)}


def test_a_row_has_how_far_a_run_came_and_how_well(tmp_path):
    make_run(tmp_path / "one", losses=[4, None, 2, 3], validations={2: 0.5, 3: 0.25, 4: 0.25}, saved=4)
    row = rows_of(tmp_path)["one"]
    assert (row["step"], row["steps"], row["loss"]) == (4, 10, 3)
    assert (row["validation_loss"], row["validation_step"]) == (0.25, 3)
    assert row["settings"] == {}
    assert row["evaluation"] == []
    assert row["problems"] == []


def test_a_share_of_copies_that_cannot_be_told_is_no_dash(tmp_path):
    figures = evaluation_of({"4 steps": 0.1}, **{"4 steps": 0.5})
    figures["copies"]["4 steps"]["share"] = dict.fromkeys(("value", "low", "high")) | {
        "doubt": "cannot be told"
    }
    make_run(tmp_path / "one", evaluation=figures)
    copies = rows_of(tmp_path)["one"]["evaluation"][0]["copies"]
    assert copies == {"value": None, "low": None, "high": None, "doubt": "cannot be told"}
    code, out, _ = vidlat("runs", tmp_path)
    assert code == 0
    assert "cannot be told" in " ".join(out.split())


@pytest.mark.parametrize(
    ("num_steps", "saved", "state"),
    [(10, 10, "done"), (6, 6, "stopped"), (5, 6, "stopped"), (6, 4, "failed"), (6, None, "failed"),
     (0, None, "failed"), (9, 10, "stopped")],
)  # fmt: skip
def test_the_state_follows_from_the_last_step_and_the_last_checkpoint(tmp_path, num_steps, saved, state):
    run = summarise_run(make_run(tmp_path / "run", losses=[1.0] * num_steps, saved=saved))
    assert run.state == state
    assert run.step == max(num_steps, saved or 0)


def test_a_run_is_running_while_its_folder_is_held(tmp_path):
    run = make_run(tmp_path / "run", losses=[1.0], saved=1)
    with hold_run(run):
        assert summarise_run(run).state == "running"
    assert summarise_run(run).state == "stopped"


def test_only_settings_in_which_runs_differ_are_shown(tmp_path):
    make_run(tmp_path / "a", learning_rate=1e-3, batch=4, channels=(8, 16), device="cpu")
    make_run(tmp_path / "b", learning_rate=2e-3, batch=4, steps=20)
    rows = rows_of(tmp_path)
    assert rows["a"]["settings"] == {"learning_rate": 1e-3, "channels": [8, 16]}
    assert rows["b"]["settings"] == {"learning_rate": 2e-3, "channels": []}
    table = vidlat("runs", tmp_path)[1]
    assert "0.002" in table
    assert "8,16" in table
    assert "batch" not in table
    assert "device" not in table


def test_a_setting_that_an_older_run_does_not_know_is_its_default(tmp_path):
    for name in "ab":
        make_run(tmp_path / name)
    document = json.loads((tmp_path / "a" / "config.json").read_text())
    del document["config"]["min_snr"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(document))
    assert rows_of(tmp_path)["a"]["settings"] == {}


def test_caches_and_held_out_videos_that_differ_are_shown(tmp_path):
    for name in "ab":
        make_run(tmp_path / name)
    document = json.loads((tmp_path / "a" / "config.json").read_text())
    document["cache"]["settings"] |= {"size": 128, "encoder_hash": "other"}
    document["validation"] = ["d"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(document))
    shown = ["held-out videos", "cache.size", "cache.encoder_hash"]
    assert list(rows_of(tmp_path)["a"]["settings"]) == shown
    document["cache"]["vae_name"] = "tiny-16"
    (tmp_path / "a" / "config.json").write_text(json.dumps(document))
    assert list(rows_of(tmp_path)["a"]["settings"]) == ["held-out videos", "cache.size", "cache.vae"]


def test_figures_are_of_the_samples_nearest_to_held_out_clips(tmp_path):
    make_run(
        tmp_path / "a", evaluation=evaluation_of({"10 steps": 0.03, "50 steps": 0.0125}, **{"50 steps": 0.5})
    )
    make_run(tmp_path / "b")
    nearest, other = rows_of(tmp_path)["a"]["evaluation"]
    assert (nearest["samples"], nearest["step"], nearest["kernel_distance"]["value"]) == (
        "50 steps",
        7,
        0.0125,
    )
    assert nearest["copies"]["value"] == 0.5
    assert other["copies"] is None
    assert "12.5 (8 to 20)" in vidlat("runs", tmp_path)[1]
    assert vidlat("runs", tmp_path / "b")[1].count("KID") == 0


@pytest.mark.parametrize(
    ("column", "order"),
    [("validation", ["b", "a", "c"]), ("run", ["a", "b", "c"]), ("learning_rate", ["c", "b", "a"]),
     ("steps", ["c", "a", "b"]), ("state", ["a", "b", "c"])],
)  # fmt: skip
def test_rows_are_sorted_by_a_column_with_the_unknown_last(tmp_path, column, order):
    make_run(tmp_path / "a", losses=[1, 1], validations={1: 0.4}, saved=2, steps=2, learning_rate=3e-3)
    make_run(tmp_path / "b", losses=[1, 1, 1], validations={2: 0.1}, saved=2, learning_rate=2e-3)
    make_run(tmp_path / "c", losses=[1], saved=1, learning_rate=1e-3)
    assert list(rows_of(tmp_path, "--sort", column)) == order


def test_an_unknown_column_is_refused_with_those_there_are(tmp_path):
    make_run(tmp_path / "a")
    code, _, err = vidlat("runs", tmp_path, "--sort", "colour")
    assert code == 2
    assert is_one_line(err)
    assert "--sort: got 'colour'; expected one of run, state, steps, loss, validation, best" in err


def test_runs_are_found_below_a_folder_and_each_once(tmp_path):
    runs = [make_run(tmp_path / "a" / "x"), make_run(tmp_path / "a" / "y"), make_run(tmp_path / "b")]
    make_run(tmp_path / "cache" / "inside")
    (tmp_path / "cache" / "zarr.json").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()  # of another tool
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert find_runs([tmp_path, tmp_path / "b"], print) == runs
    assert find_runs([runs[0]], print) == runs[:1]


def test_a_folder_without_runs_is_refused(tmp_path):
    code, _, err = vidlat("runs", tmp_path)
    assert code == 1
    assert is_one_line(err)
    assert "holds no run; give what `vidlat train --out` named" in err


def test_trainings_of_a_vae_are_counted_and_left_out(tmp_path):
    make_run(tmp_path / "a")
    vae = make_run(tmp_path / "vae")
    (vae / "config.json").write_text(json.dumps({"trains": "VAE", "config": {"steps": 5}}))
    assert list(rows_of(tmp_path)) == ["a"]
    assert "1 training of a VAE left out; `vidlat compare --training`" in vidlat("runs", tmp_path)[1]


CONFIG = b'{"config": {"steps": 5}, "cache": {"settings": {}, "vae_name": "a"}, "training": 1}'
HOSTILE = [
    *(b"", b"{", b"[" * 100_000, b"[]", b"null", b'"x"', b"\xff\xfe"),
    *(
        b'{"config": %b}' % each
        for each in (b"{}", b'{"steps": 1e999}', b'{"steps": "many"}', b'{"steps": 0}')
    ),
    CONFIG,
    CONFIG.replace(b'"a"', b"1"),
    CONFIG.replace(b'"settings": {}', b'"settings": []'),
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_damaged_run_is_a_row_and_a_sentence_beside_others(tmp_path, content):
    make_run(tmp_path / "good", losses=[1.0], saved=1)
    damaged = make_run(tmp_path / "bad", losses=[2.0], saved=1)
    (damaged / "config.json").write_bytes(content)
    rows = rows_of(tmp_path)
    assert rows["good"]["state"] == "stopped"
    assert (rows["bad"]["state"], rows["bad"]["loss"], rows["bad"]["steps"]) == ("damaged", 2.0, None)
    (problem,) = rows["bad"]["problems"]
    assert problem.startswith(f"{damaged / 'config.json'} cannot be read: ")
    assert "\n" not in problem
    assert problem[:60] in vidlat("runs", tmp_path)[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"samples": {"a": 5}}', b'{"samples": []}'])
def test_a_damaged_evaluation_is_told_and_the_run_is_shown(tmp_path, content):
    run = make_run(tmp_path / "run", losses=[1.0], saved=1, evaluation=evaluation_of({"a": 0.1}))
    (run / "evaluation" / "evaluation.json").write_bytes(content)
    row = rows_of(tmp_path)["run"]
    assert row["state"] == "stopped"
    assert row["evaluation"] == []
    assert "evaluation.json cannot be read" in row["problems"][0]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_told(tmp_path, name):
    for kind, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
        run = make_run(tmp_path / kind, losses=[1.0], saved=1)
        (run / name).unlink()
        make(run / name)
        assert f"{name} cannot be read" in summarise_run(run).problems[0]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "lock", "checkpoints"])
def test_a_run_that_lost_a_file_is_still_a_run(tmp_path, name):
    run = make_run(tmp_path / "run", losses=[1.0])
    path = run / name
    path.rmdir() if path.is_dir() else path.unlink()
    assert find_runs([tmp_path], print) == [run]
    summarise_run(run)


def test_lines_that_are_none_of_a_step_are_left_out():
    lines = [
        b'{"step": 1, "loss": 2.0}',
        b"\0",
        b'{"step": "x", "loss": 1}',
        b"[" * 100_000,
        b'{"step": 2, "loss"',
    ]
    metrics = Metrics(lines)
    assert metrics.loss == 2.0
    assert metrics.curve(10) == [(1, 2.0)]
    assert metrics.best is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(6, 70))
def test_a_curve_has_few_points_and_the_mean_of_all_losses(losses, most_points):
    lines = [json.dumps({"step": step, "loss": loss}).encode() for step, loss in enumerate(losses, 1)]
    points = Metrics(lines).curve(most_points)
    assert len(points) <= most_points
    stride = -(-len(losses) // most_points)
    weights = [len(losses[start : start + stride]) for start in range(0, len(losses), stride)]
    total = math.fsum(weight * loss for weight, (_, loss) in zip(weights, points, strict=True))
    assert total == pytest.approx(math.fsum(losses))


def test_a_point_of_a_long_curve_is_the_mean_of_some_steps_of_its_stretch():
    lines = [json.dumps({"step": step, "loss": step // 1000}).encode() for step in range(5000)]
    points = Metrics(lines).curve(5)
    assert [loss for _, loss in points] == [0, 1, 2, 3, 4]
    assert [step // 1000 for step, _ in points] == [0, 1, 2, 3, 4]


def test_runs_are_read_without_torch(tmp_path):
    make_run(tmp_path / "run", losses=[1.0], saved=1)
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom vidlat.cli import commands\n"
        f"arguments = ['runs', {str(tmp_path)!r}, '--report', {str(tmp_path / 'r.html')!r}]\n"
        "answer = CliRunner().invoke(commands, arguments)\n"
        "assert answer.exit_code == 0, answer.output\n"
        "print([name for name in ('torch', 'monai', 'pyarrow', 'zarr') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_page_shows_each_run_its_curves_and_its_samples(tmp_path):
    from numpy.random import default_rng

    from vidlat.video.writer import write_gif

    noise = default_rng(0).integers(0, 256, (4, 32, 32)).astype("uint8")
    for name, rate in (("a", 1e-3), ("<b>", 2e-3)):
        run = make_run(
            tmp_path / name, losses=[2.0, 1.5], validations={1: 0.5, 2: 0.4}, saved=2, learning_rate=rate
        )
        (run / "samples").mkdir()
        write_gif(run / "samples" / "step_00000002.gif", noise, 10)
    (tmp_path / "a" / "samples" / "step_00000003.gif").write_bytes(b"GIF89a")  # being written
    make_run(tmp_path / "c", losses=[1.0])
    assert vidlat("runs", tmp_path, "--report", tmp_path / "r.html")[0] == 0
    page = Page(tmp_path / "r.html")
    rows = page.rows("How far and how well")
    assert rows[str(tmp_path / "<b>")]["validation"] == "0.4"
    assert page.rows("Settings in which they differ")[str(tmp_path / "a")] == {"learning_rate": "0.001"}
    assert page.count("video") == 2
    looks = [attributes["class"] for name, attributes in page.tags if name == "path"]
    for curve in ("line s0", "line s0 faint", "line s1", "line s1 faint", "line s2 faint"):
        assert curve in looks
    assert f"No samples from during the training, which --sample-every draws: {tmp_path / 'c'}." in page.text
