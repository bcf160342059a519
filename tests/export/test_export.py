"""An exported model draws what its run draws, names nobody, and is refused where it is damaged."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from tests.export.conftest import SECRETS
from vidlat.cli import commands
from vidlat.config import SampleConfig
from vidlat.documents import read_json
from vidlat.errors import ConfigError, InputError, TrainError
from vidlat.export.run import NOT_STATED, export_run
from vidlat.sample.videos import sample_videos
from vidlat.train.runs.exported import load_model, read_exported
from vidlat.train.runs.run_folder import read_run

SETTINGS = SampleConfig(num=2, steps=2, format="npy", device="cpu", condition=("view=a4c", "age=45"))


def drawn(source, out, made):
    paths = list(sample_videos(source, out, SETTINGS, vae=str(made / "vae.safetensors")))
    return np.stack([np.load(path) for path in paths])


def refusal(source, **options):
    with pytest.raises(TrainError) as caught:
        load_model(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the exported folder, to damage."""
    return Path(shutil.copytree(exported, tmp_path / "copied"))


def test_it_draws_what_its_run_draws(made, exported, tmp_path):
    expected = drawn(made / "run", tmp_path / "of-run", made)
    assert np.array_equal(drawn(exported, tmp_path / "of-model", made), expected)


def test_it_can_be_exported_from_the_best_checkpoint_too(made, tmp_path):
    with pytest.raises(TrainError, match="no checkpoint with a validation loss"):
        export_run(made / "run", tmp_path / "model", best=True)
    assert list(tmp_path.iterdir()) == []


def test_it_names_no_video_no_subject_and_no_path(exported):
    content = b"".join(path.read_bytes() for path in exported.iterdir()).lower()
    for secret in (*SECRETS, str(exported.parent), "/tmp", "/home"):
        assert secret.encode() not in content, secret
    assert b"vae.safetensors" in content  # the name alone
    assert {path.name for path in exported.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_everybody_may_read_it(exported):
    os.umask(mask := os.umask(0))
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~mask for path in exported.iterdir())


def test_it_is_taken_from_a_hub(made, exported, hub, use_hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    for path in exported.iterdir():
        hub.files["owner/echo", path.name] = path.read_bytes()
    expected = drawn(exported, tmp_path / "here", made)
    assert np.array_equal(drawn("hf://owner/echo", tmp_path / "there", made), expected)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("hf://owner/echo").step == 1


def test_the_command_line_takes_it_from_a_hub_too(made, exported, hub, use_hub, tmp_path):
    for path in exported.iterdir():
        hub.files["owner/echo", path.name] = path.read_bytes()
    command = ["sample", "--run", "hf://owner/echo", "--out", tmp_path, "-n", 1, "--steps", 1]
    answer = CliRunner().invoke(commands, [*map(str, command), "--vae", str(made / "vae.safetensors")])
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "sample-0000.mp4").is_file()


@pytest.mark.parametrize("below", [".", "deep/er"])
def test_nothing_is_written_into_a_cache(made, below):
    cache, run = made / "l.zarr", made / "run"
    before, out = sorted(cache.rglob("*")), cache / below
    for command in (
        ["sample", "--run", run, "--out", out],
        ["train", "--latents", cache, "--out", out],
        ["export", run, "--out", out / "model"],
        ["preview", cache, "--out", out / "preview.png"],
        ["decode", "--latents", cache, "--out", out],
    ):
        answer = CliRunner().invoke(commands, [str(argument) for argument in command])
        assert answer.exit_code == 1, command
        assert re.fullmatch(
            r"Error: .*: (is a cache|lies in the cache .*l\.zarr); give another --out\n", answer.stderr
        )
    assert sorted(cache.rglob("*")) == before


def test_what_needs_the_videos_of_a_run_takes_no_exported_model(exported):
    with pytest.raises(TrainError, match=r"was exported, and does not tell which videos .*; give its run$"):
        read_run(exported)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://owner", "hf://../x", "hf://a/b/c", "hf://a/b@", "hf://a/b\n"]
)
def test_a_name_that_no_hub_has_is_refused(name):
    assert "expected hf://OWNER/NAME" in refusal(name)


def test_the_card_is_one_that_a_hub_reads(exported):
    card = ModelCard.load(exported / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "vidlat")
    assert "| view | a2c, a4c |" in card.text
    assert "Not measured." in card.text


def test_the_code_of_the_card_runs(made, exported, tmp_path, monkeypatch):
    code = re.search("```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 15
    monkeypatch.chdir(exported.parent)
    shutil.copy(made / "vae.safetensors", exported.parent)
    exec(code.replace("num=8", "num=1, steps=1, device='cpu'"), {})
    assert (exported.parent / "samples" / "sample-0000.mp4").is_file()


def test_a_licence_may_be_any_text(made, tmp_path):
    export_run(made / "run", tmp_path / "some", licence="Ask: the hospital's board", name="ward/echo")
    card = ModelCard.load(tmp_path / "some" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "Ask: the hospital's board")
    assert card.text.lstrip().startswith("# ward/echo")
    export_run(made / "run", tmp_path / "none")
    assert read_exported(tmp_path / "none").licence == NOT_STATED


COPIES = (
    "samples: 3 of 4 samples (75.0 %; uncertain: only 9 held-out subjects set the threshold) are nearer to a "
    "training clip."
)


def evaluation(weights_hash):
    distances = {
        "kernel_distance": {"value": 0.0123, "low": 0.01, "high": 0.02},
        "frechet_distance": {"value": None, "low": None, "high": None},
        "neighbourhoods": {
            "precision": {"value": 0.9, "low": 0.81, "high": 1.0},
            **{name: {"value": 0.5, "low": None, "high": None} for name in ("recall", "density", "coverage")},
        },
    }
    return {
        "settings": {"held_out": "val"},
        "held_out": {"num_clips": 24, "num_groups": 9},
        "rows": {"samples, 50 steps": {"num_clips": 64, "distances": {"latents": distances}}},
        "samples": {"samples, 50 steps": {"drawn": {"weights_hash": weights_hash}, "seconds_per_clip": 1.5}},
        "conclusions": ["Only 9 held-out subjects.", "Left out, being nearly equal: smith.mp4.", COPIES],
    }


@pytest.fixture
def run_with(made, tmp_path):
    """A copy of the run with an evaluation.json."""

    def make(content):
        run = Path(shutil.copytree(made / "run", tmp_path / "run"))
        (run / "evaluation").mkdir()
        (run / "evaluation" / "evaluation.json").write_text(content)
        return run

    return make


def test_the_card_has_the_figures_of_these_weights(exported, run_with, tmp_path):
    weights_hash = read_exported(exported).weights_hash
    _, is_evaluated = export_run(run_with(json.dumps(evaluation(weights_hash))), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert is_evaluated
    assert (
        "| samples, 50 steps | 64 | 12.3 (10 to 20) | - | 0.9 (0.81 to 1) | 0.5 | 0.5 | 0.5 | 1.50 |" in card
    )
    assert "- Only 9 held-out subjects." in card
    assert f"- {COPIES}" in card
    assert "smith" not in card


def test_figures_of_other_weights_are_not_those_of_these(run_with, tmp_path):
    _, is_evaluated = export_run(run_with(json.dumps(evaluation("0" * 64))), tmp_path / "model")
    assert not is_evaluated
    assert "Not measured." in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"samples": 1}', '{"samples": {"a": {}}}'])
def test_an_evaluation_that_cannot_be_read_is_named(content, run_with, tmp_path):
    with pytest.raises(TrainError, match=r"evaluation.json cannot be read \(.*\); evaluate again"):
        export_run(run_with(content), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_settings_of_a_run_are_read_once(made, tmp_path, monkeypatch):
    read = []

    def read_counted(path, at_most):
        read.append(path)
        return read_json(path, at_most)

    monkeypatch.setattr("vidlat.train.runs.run_folder.read_json", read_counted)
    export_run(made / "run", tmp_path / "model")
    assert read == [made / "run" / "config.json"]


def test_a_folder_that_exists_is_left_alone(made, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine exists; give the name of a new folder"):
        export_run(made / "run", tmp_path / "mine")


def test_a_folder_that_cannot_be_written_leaves_nothing(made, tmp_path, monkeypatch):
    def fails(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidlat.export.run.sync", fails)
    with pytest.raises(InputError, match=r"model: cannot be written \(No space left on device\)"):
        export_run(made / "run", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_told_in_the_words_of_the_project(made, tmp_path, monkeypatch):
    def fails(path):
        raise OSError(30, "Read-only file system", str(path))

    for name in ("sync", "delete_tree"):
        monkeypatch.setattr(f"vidlat.export.run.{name}", fails)
    with pytest.raises(InputError, match=r"model: cannot be written \(Read-only file system\); give another"):
        export_run(made / "run", tmp_path / "model")


def test_damaged_weights_are_refused(copied):
    path = copied / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "is damaged: its hash is" in refusal(copied)
    path.write_bytes(content[:-1])
    assert "model.safetensors is damaged (" in refusal(copied)


def test_other_weights_are_refused(copied):
    path = copied / "model.safetensors"
    tensors = load_file(path)
    tensors["more"] = next(iter(tensors.values())).clone()
    save_file(tensors, path)
    assert "is damaged: its hash is" in refusal(copied)


def test_a_description_of_another_network_is_refused(copied):
    path = copied / "config.json"
    document = json.loads(path.read_text())
    document["model"]["config"]["preset"] = "small"
    path.write_text(json.dumps(document))
    assert "holds the weights of another network than config.json describes" in refusal(copied)


def test_no_memory_is_taken_for_a_network_that_the_weights_are_not_of(copied):
    path = copied / "config.json"
    document = json.loads(path.read_text())
    document["model"]["config"]["channels"] = [4096] * 8  # 100 GB
    path.write_text(json.dumps(document))

    def require_meta(_parent, _name, module):
        assert all(weight.is_meta for weight in module.parameters())

    with torch.nn.modules.module.register_module_module_registration_hook(require_meta):
        assert "holds the weights of another network than config.json describes" in refusal(copied)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', "\0"])
def test_a_damaged_description_is_refused(content, copied):
    (copied / "config.json").write_text(content)
    assert "config.json cannot be read as that of a model" in refusal(copied)


def test_it_has_one_set_of_weights(exported):
    assert "holds a single set of weights" in refusal(exported, best=True)


def test_it_cannot_tell_copies(exported, made, tmp_path):
    settings = SampleConfig(num=1, reject_copies=0.01, device="cpu", condition=SETTINGS.condition)
    samples = sample_videos(
        exported, tmp_path / "s", settings, vae=str(made / "vae.safetensors"), latents=made / "l.zarr"
    )
    with pytest.raises(ConfigError, match=r"reject_copies: .* was exported, and does not tell"):
        next(samples)
