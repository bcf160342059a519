"""`vidlat compare --training`: trainings beside one another, on clips that none of them saw."""

import json

import numpy as np
import pytest

from tests.fit.small import config, make_clips, train
from tests.test_cli import vidlat
from vidlat.config import CompareConfig
from vidlat.evaluate.candidates import load_candidates
from vidlat.evaluate.comparison import Comparison, compare_videos
from vidlat.fit.learning import Learning
from vidlat.fit.run import read_fit
from vidlat.fit.trainings import Trainings


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Clips of six subjects, and two trainings on them."""
    folder = tmp_path_factory.mktemp("trainings")
    clips = make_clips(folder / "clips", num_clips=6)
    usual = {"size": 16, "validation_fraction": 0.4, "validate_every": 1, "steps": 3}
    train(clips, folder / "scratch", config(**usual, start="random"))
    train(clips, folder / "linear", config(**usual, start="pca", seed=1))
    train(clips, folder / "larger", config(**usual | {"size": 20, "steps": 1}))
    train(
        clips,
        folder / "alone",
        config(**usual | {"validation_fraction": 0.0, "validate_every": None, "steps": 1}),
    )
    return folder


@pytest.fixture
def compare(runs, tmp_path):
    def run(*names, more=()):
        given = ["--input", runs / "clips", "--out", tmp_path / "out", "--device", "cpu"]
        return vidlat(
            "compare", *given, *(part for name in names for part in ("--training", runs / name)), *more
        )

    return run


def test_final_figures_are_those_of_the_weights_on_the_clips_that_both_hold_out(compare, runs, tmp_path):
    code, out, _ = compare(
        "scratch", "linear", more=["--json", tmp_path / "c.json", "--report", tmp_path / "c.html"]
    )
    figures = json.loads((tmp_path / "c.json").read_text())
    of_runs = {name: read_fit(runs / name) for name in ("scratch", "linear")}
    assert code == 0
    assert figures["clips"] == list(of_runs["scratch"].validation) == list(of_runs["linear"].validation)
    for candidate in figures["candidates"]:
        last = of_runs[candidate["called"]].records[-1].validation
        assert candidate["overall"]["mse"] == pytest.approx(last["mse"], rel=1e-4)
        assert candidate["overall"]["ssim"] == pytest.approx(last["ssim"], rel=1e-4)
    for curve in figures["learning"]["curves"]:
        records = [record for record in of_runs[curve["name"]].records if record.validation]
        assert [point["mse"] for point in curve["points"]] == [record.validation["mse"] for record in records]
        assert [point["step"] for point in curve["points"]] == [0, 1, 2, 3]
    lowest = [min(point["mse"] for point in curve["points"]) for curve in figures["learning"]["curves"]]
    assert figures["learning"]["target_mse"] == max(lowest)
    assert "Which criteria hold" in out
    assert "Error, held out" in (tmp_path / "c.html").read_text()


def test_a_vae_that_was_not_trained_stands_beside_them(compare, tmp_path):
    code, _, _ = compare(
        "scratch", more=["--vae", "tiny", "--json", tmp_path / "c.json", "--target-mse", "0.2"]
    )
    figures = json.loads((tmp_path / "c.json").read_text())
    assert code == 0
    assert [candidate["called"] for candidate in figures["candidates"]] == ["scratch", "tiny"]
    assert [curve["name"] for curve in figures["learning"]["curves"]] == ["scratch"]
    assert figures["learning"]["target_mse"] == 0.2


def test_a_training_that_is_called_as_a_vae_is_told_apart(runs, tmp_path):
    (tmp_path / "tiny").symlink_to(runs / "linear")
    trainings = Trainings.read([tmp_path / "tiny"])
    settings = CompareConfig(vae=("tiny",), device="cpu", **trainings.settings())
    found = load_candidates(settings, trainings.weights)
    assert {candidate.called: candidate.vae for candidate in found.vaes} == {
        "tiny": str(tmp_path / "tiny" / "vae.safetensors"),
        "VAE tiny": "tiny",
    }


@pytest.mark.parametrize(
    ("names", "more", "code", "message"),
    [
        (["scratch", "larger"], [], 2, "prepared in different ways (size: 16 and 20); compare trainings of"),
        (["scratch", "alone"], [], 1, "no video is held out by every training (scratch "),
        (["clips"], [], 1, "is no training of a VAE: it has no config.json; start one with"),
        (["missing"], [], 1, "missing is no training of a VAE"),
        ([], ["--target-mse", "0.1"], 2, "--target-mse: counts epochs of trainings; give them by --training"),
        (["scratch"], ["--target-mse", "0"], 2, "'--target-mse': 0.0 is not in the range x>0"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_has_one_line(compare, names, more, code, message):
    ended, _, err = compare(*names, more=more)
    assert ended == code
    assert message in " ".join(err.split())


def test_other_videos_are_not_taken_for_held_out_ones(runs, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((4, 16, 16), np.uint8))
    code, _, err = vidlat(
        "compare", "--input", tmp_path / "z.npy", "--out", tmp_path / "out", "--training", runs / "scratch"
    )
    assert code == 1
    assert "none of the 1 videos is held out by every training; give the --input" in err


def test_a_run_without_weights_is_named(runs, tmp_path, compare):
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / "config.json").write_bytes((runs / "scratch" / "config.json").read_bytes())
    code, _, err = compare("scratch", more=["--training", folder])
    assert code == 1
    assert f"{folder} has no weights yet" in err


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scratch").symlink_to(runs / "scratch")
    trainings = Trainings.read([runs / "scratch", tmp_path / "other" / "scratch", runs / "linear"])
    assert list(trainings.runs) == [str(runs / "scratch"), str(tmp_path / "other" / "scratch"), "linear"]


def test_a_run_is_called_as_its_folder_from_within_too(runs, monkeypatch):
    monkeypatch.chdir(runs / "scratch")
    assert list(Trainings.read([".", runs / "linear"]).runs) == ["scratch", "linear"]
    assert list(Trainings.read(["checkpoints/.."]).runs) == ["scratch"]


def test_from_python(runs, tmp_path):
    trainings = Trainings.read([str(runs / "linear")])
    settings = CompareConfig(vae=(), device="cpu", **trainings.settings())
    steps = compare_videos(
        [runs / "clips"], tmp_path / "out", settings, named=trainings.weights, among=trainings.held_out()
    )
    learning = Learning.of(trainings.curves, Comparison.of(steps))
    assert list(learning.criteria) == ["linear stack 4"]
