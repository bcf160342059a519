"""A run that starts from weights that were trained before."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.train.conftest import VIDEOS, trainer_on
from tests.train.test_trainer import assert_same_state
from tests.train.toys import CacheMaker, build_small
from vidlat.config import TrainConfig
from vidlat.encode.weights_file import hash_weights
from vidlat.errors import ConfigError, TrainError
from vidlat.export.run import export_run
from vidlat.train.networks.unet import build_unet
from vidlat.train.objectives.noising import join_first_frames
from vidlat.train.runs.run_folder import load_run, read_run
from vidlat.types import Annotation

pytestmark = pytest.mark.usefixtures("few_validation_windows")

LABELS = {
    f"{name}.mp4": Annotation(labels={"view": view}) for name, view in zip("abcde", "xyxyx", strict=True)
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Latents that all runs of this file are trained on."""
    return CacheMaker(tmp_path_factory.mktemp("cache") / "latents.zarr").add(VIDEOS)


UNET = {"build_model": build_unet, "channels": (8, 16), "steps": 1, "warmup_steps": 0}
"""The real network, a narrow one, and one step."""


@pytest.fixture
def make_unet_trainer(make_trainer):
    """A trainer of `UNET`."""

    def make(run, **settings):
        return make_trainer(run, **UNET | settings)

    return make


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A finished run of objective flow, of which `flow` is a copy."""
    run = tmp_path_factory.mktemp("finished") / "flow"
    list(trainer_on(cache, run, **UNET, learning_rate=0.01).steps())
    return run


@pytest.fixture
def flow(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "flow")


def test_a_run_starts_from_the_averages_of_another_and_records_it(make_trainer, tmp_path):
    list(make_trainer("first").steps())
    first = load_run(tmp_path / "first", build_model=build_small)
    trainer = make_trainer("second", init=str(tmp_path / "first"), frames=4)
    for network in (trainer.state.model, trainer.state.ema):
        for name, value in first.model.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    assert trainer.state.step == 0
    (note,) = (note for note in trainer.notes if note.startswith("starts from"))
    assert (
        note
        == f"starts from {tmp_path / 'first'} at step 6: 5 tensors taken; other than there: frames 8 -> 4"
    )
    written = json.loads((tmp_path / "second" / "config.json").read_text())["origin"]
    weights_hash = hash_weights(first.model.state_dict())
    assert written == {"source": str(tmp_path / "first"), "step": 6, "weights_hash": weights_hash}
    assert read_run(tmp_path / "second").origin == trainer.run.origin


def test_a_warm_started_run_resumes_without_its_origin_once_it_has_a_checkpoint(make_trainer, tmp_path):
    list(make_trainer("first").steps())
    settings = {"init": str(tmp_path / "first"), "checkpoint_every": 2}
    whole = make_trainer("whole", **settings)
    list(whole.steps())
    steps = make_trainer("killed", **settings).steps()
    [next(steps) for _ in range(3)]
    steps.close()
    make_trainer("empty", **settings).close()
    shutil.rmtree(tmp_path / "first")
    resumed = make_trainer("killed", resume=True, **settings)
    list(resumed.steps())
    assert_same_state(whole.state, resumed.state)
    with pytest.raises(
        TrainError, match=r"first is not a run.*; this run started from .*first at step 6.*; restore"
    ):
        make_trainer("empty", resume=True, **settings)


def test_a_file_of_weights_is_taken_by_name_and_shape(make_unet_trainer, flow, tmp_path):
    (checkpoint,) = (flow / "checkpoints").iterdir()
    trainer = make_unet_trainer("second", init=str(checkpoint / "ema.safetensors"))
    theirs = load_run(flow).model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in trainer.state.model.state_dict().items())
    save_file({"a": torch.full((2,), torch.nan)}, tmp_path / "nan.safetensors")
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "float8.safetensors")
    (tmp_path / "none.safetensors").write_text("{")
    for name in ("nan.safetensors", "float8.safetensors"):
        with pytest.raises(TrainError, match="a holds something else than finite numbers"):
            make_unet_trainer("third", init=str(tmp_path / name))
    with pytest.raises(TrainError, match="cannot be read as weights to start from"):
        make_unet_trainer("third", init=str(tmp_path / "none.safetensors"))


def test_other_conditions_and_spans_start_anew_and_all_else_is_taken(make_unet_trainer, flow):
    trainer = make_unet_trainer(
        "second", init=str(flow), objective="mean-flow", labels=LABELS, condition=("view",)
    )
    note = next(note for note in trainer.notes if note.startswith("starts from"))
    assert "anew: embedding.features, embedding.span;" in note
    assert "objective flow -> mean-flow; conditions none -> view (x, y)" in note
    theirs = load_run(flow).model.state_dict()
    new = {name for name in trainer.state.model.state_dict() if name not in theirs}
    assert all(name.startswith(("embedding.features.", "embedding.span.")) for name in new)
    ours = trainer.state.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    list(trainer.steps())
    # With the same conditions, and back to flow.
    again = make_unet_trainer("third", init=str(trainer.run_dir), labels=LABELS, condition=("view",))
    note = next(note for note in again.notes if note.startswith("starts from"))
    assert "anew" not in note


def test_a_network_that_learns_to_take_a_first_frame_starts_as_one_that_is_given_none(
    make_unet_trainer, flow
):
    network = make_unet_trainer("second", init=str(flow), first_frame=0.5).state.ema
    x, first, t = torch.randn(2, 2, 2, 4, 4), torch.randn(2, 2, 1, 4, 4), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        before = load_run(flow).model(x, t)
        after = network(join_first_frames(x, first, torch.zeros(2)), t)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_weights_of_another_vae_or_network_are_refused(make_unet_trainer, flow, tmp_path):
    other = CacheMaker(tmp_path / "other.zarr", encoder_hash="b" * 64).add({"a.mp4": 16, "b.mp4": 16})
    with pytest.raises(TrainError, match=r"flow was trained on latents of another VAE"):
        make_unet_trainer("second", init=str(flow), cache=other)
    for settings in ({"channels": (8, 24)}, {"network": "monai"}):
        with pytest.raises(
            TrainError, match=r"flow holds the weights of another network \(\d+ of \d+ tensors"
        ):
            make_unet_trainer("third", init=str(flow), **settings)
    with pytest.raises(TrainError, match=r"nothing is not a run"):
        make_unet_trainer("fourth", init=str(tmp_path / "nothing"))


def test_a_distilled_run_learns_the_velocity_of_its_teacher(make_unet_trainer, flow):
    settings = {"objective": "mean-flow", "distil": str(flow), "plain_flow": 1.0}
    trainer = make_unet_trainer("student", **settings)
    teacher = load_run(flow)
    assert trainer.run.whitening == teacher.run.whitening
    ((batch, draws),) = trainer.batches([0])
    noised = trainer.noised(batch, draws)
    with torch.no_grad():
        velocity = teacher.model(noised.inputs, noised.timestep)
        prediction = trainer.state.model(*noised.arguments)
    mask = noised.mask.expand_as(velocity)
    expected = ((prediction - velocity).square() * mask).sum() / mask.sum()
    (record,) = trainer.steps()
    assert record.loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_distilled_run_needs_its_teacher_to_resume(make_unet_trainer, flow, tmp_path):
    settings = {"objective": "mean-flow", "distil": str(flow), "steps": 4, "checkpoint_every": 2}
    whole = make_unet_trainer("whole", **settings)
    list(whole.steps())
    steps = make_unet_trainer("killed", **settings).steps()
    [next(steps) for _ in range(3)]
    steps.close()
    # A teacher that has gone on is known by its step.
    list(make_unet_trainer("flow", resume=True, learning_rate=0.01, steps=2).steps())
    resumed = make_unet_trainer("killed", resume=True, **settings)
    assert resumed.state.step == 2
    list(resumed.steps())
    resumed.close()
    assert_same_state(whole.state, resumed.state)
    shutil.rmtree(flow / "checkpoints" / "step_00000001")
    with pytest.raises(TrainError, match=r"its checkpoint of step 1 is gone\); say by --distil where"):
        make_unet_trainer("killed", resume=True, **settings)


@pytest.fixture
def flow_of_small(make_trainer, tmp_path):
    list(make_trainer("flow", steps=1, learning_rate=0.01).steps())
    return tmp_path / "flow"


@pytest.fixture
def make_student(make_trainer, flow_of_small):
    """A trainer that distils `flow_of_small` in 4 steps, with a checkpoint of step 2."""

    def make(run, distil=flow_of_small, **settings):
        usual = {"objective": "mean-flow", "distil": str(distil), "steps": 4, "checkpoint_every": 2}
        return make_trainer(run, **usual | settings)

    return make


def take_three_steps(trainer):
    steps = trainer.steps()
    [next(steps) for _ in range(3)]
    steps.close()
    trainer.close()


def test_a_teacher_that_has_moved_is_known_by_its_weights(make_student, flow_of_small, tmp_path):
    whole = make_student("whole")
    list(whole.steps())
    take_three_steps(make_student("moved"))
    flow_of_small.rename(tmp_path / "elsewhere")
    weights_hash = read_run(tmp_path / "moved").origin.weights_hash
    with pytest.raises(TrainError, match=f"flow is not a run.*the hash {weights_hash}.*; say by --distil"):
        make_student("moved", resume=True)
    resumed = make_student("moved", distil=tmp_path / "elsewhere", resume=True)
    list(resumed.steps())
    resumed.close()
    assert_same_state(whole.state, resumed.state)
    written = json.loads((tmp_path / "moved" / "config.json").read_text())
    assert written["origin"]["source"] == written["config"]["distil"] == str(tmp_path / "elsewhere")


def test_a_teacher_may_be_named_as_before_from_where_all_has_moved(
    make_student, flow_of_small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    take_three_steps(make_student("student", distil="flow"))
    (tmp_path / "new").mkdir()
    for name in ("flow", "student"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    monkeypatch.chdir(tmp_path / "new")
    resumed = make_student("new/student", distil="flow", resume=True)
    assert resumed.run.origin.source == str(tmp_path / "new" / "flow")


def test_another_teacher_is_refused_with_both_hashes(make_student, make_trainer, flow_of_small, tmp_path):
    take_three_steps(make_student("student"))
    list(make_trainer("other", steps=2, seed=1).steps())
    mine, theirs = (
        hash_weights(load_run(folder, build_model=build_small).model.state_dict())
        for folder in (flow_of_small, tmp_path / "other")
    )
    before = (tmp_path / "student" / "config.json").read_bytes()
    with pytest.raises(TrainError, match=f"other: its weights have the hash {theirs}, .* have {mine} "):
        make_student("student", distil=tmp_path / "other", resume=True)
    (checkpoint,) = (flow_of_small / "checkpoints").iterdir()
    with pytest.raises(TrainError, match=r"distil: got .*ema\.safetensors, weights alone"):
        make_student("student", distil=checkpoint / "ema.safetensors", resume=True)
    assert (tmp_path / "student" / "config.json").read_bytes() == before


def test_a_run_without_a_teacher_gets_none_when_it_is_resumed(make_trainer, flow_of_small):
    settings = {"objective": "mean-flow", "steps": 2}
    make_trainer("alone", **settings).close()
    with pytest.raises(TrainError, match=r"cannot be resumed with other settings \(distil: got "):
        make_trainer("alone", resume=True, distil=str(flow_of_small), **settings)


def test_a_teacher_that_predicts_no_velocity_of_the_same_inputs_is_refused(make_unet_trainer, flow, tmp_path):
    list(make_unet_trainer("v", objective="v").steps())
    settings = {"objective": "mean-flow"}
    with pytest.raises(TrainError, match=r"distil: objective of .*v is v; expected flow"):
        make_unet_trainer("student", distil=str(tmp_path / "v"), **settings)
    with pytest.raises(TrainError, match=r"distil: first_frame of .*flow is False; expected True"):
        make_unet_trainer("student", distil=str(flow), first_frame=0.5, **settings)
    with pytest.raises(
        TrainError, match=r"flow has the conditions none, this training .*; give no --condition$"
    ):
        make_unet_trainer("student", distil=str(flow), labels=LABELS, condition=("view",), **settings)
    (checkpoint,) = (flow / "checkpoints").iterdir()
    with pytest.raises(TrainError, match=r"distil: got .*safetensors, weights alone; expected a run"):
        make_unet_trainer("student", distil=str(checkpoint / "ema.safetensors"), **settings)
    with pytest.raises(ConfigError, match="distil: it needs --objective mean-flow"):
        TrainConfig(distil="runs/flow")


def test_an_export_does_not_tell_where_its_run_started(make_unet_trainer, flow, tmp_path):
    list(make_unet_trainer("second", init=str(flow)).steps())
    export_run(tmp_path / "second", tmp_path / "exported")
    assert str(flow) not in (tmp_path / "exported" / "config.json").read_text()
    make_unet_trainer("third", init=str(tmp_path / "exported"))
