"""Averages of any length from snapshots of two: against an average that was kept at that length."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.integrate import quad
from torch import nn

from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import ConfigError, TrainError
from vidlat.train.runs.power_averages import (
    LENGTHS,
    PowerAverages,
    average_of_length,
    coefficients,
    list_snapshots,
    power_of,
)
from vidlat.train.runs.run_folder import load_run


def profile(times, step, power):
    """The weight function of an average after a step: over (0, step], of integral 1."""
    return np.where(times <= step, (power + 1) * (times / step) ** power / step, 0.0)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_a_length_is_the_standard_deviation_of_the_weights_over_time(length):
    """By numerical integration of the weight function over a training of length 1."""
    power = power_of(length)
    mean = quad(lambda t: t * profile(t, 1.0, power), 0, 1)[0]
    square = quad(lambda t: t**2 * profile(t, 1.0, power), 0, 1)[0]
    assert np.sqrt(square - mean**2) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_an_average_weighs_each_step_by_its_power(length):
    """Weights that are 1 at a single step show how much that step counts: the integral of s^gamma over it."""
    num_steps, power = 200, power_of(length)
    network = nn.Linear(num_steps, 1, bias=False).double()
    averages = PowerAverages(network)
    for step in range(1, num_steps + 1):
        network.weight.data = torch.eye(num_steps, dtype=torch.float64)[[step - 1]]
        averages.update(step)
    shares = averages.tensors()[f"{LENGTHS.index(length)}.weight"][0].numpy()
    edges = (np.arange(num_steps + 1) / num_steps) ** (power + 1)
    np.testing.assert_allclose(shares, np.diff(edges), atol=1e-9)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.075, 0.1, 0.15, 0.2])
def test_a_combination_has_nearly_the_weight_function_of_that_length(length):
    steps = [step for step in range(100, 3201, 100) for _ in LENGTHS]
    powers = [power_of(each) for each in LENGTHS] * 32
    times = np.arange(3200) + 0.5
    shares = coefficients(steps, powers, 3200, power_of(length))
    combined = sum(
        share * profile(times, step, power) for share, step, power in zip(shares, steps, powers, strict=True)
    )
    assert np.abs(combined - profile(times, 3200, power_of(length))).sum() < 0.02


class Walk:
    """Weights that drift and jitter as in a training."""

    def __init__(self):
        self.network = nn.Linear(50, 4).double()
        self._random = torch.Generator().manual_seed(0)

    def step(self):
        for weight in self.network.parameters():
            noise = torch.randn(weight.shape, generator=self._random, dtype=torch.float64)
            weight.data += 0.05 * noise + 0.01


@pytest.mark.parametrize("length", [0.04, 0.075, 0.13])
def test_an_average_made_afterwards_is_the_one_that_was_kept(length, tmp_path):
    walk, num_steps, power = Walk(), 640, power_of(length)
    averages, kept = PowerAverages(walk.network), copy.deepcopy(walk.network)
    for step in range(1, num_steps + 1):
        walk.step()
        averages.update(step)
        for average, weight in zip(kept.parameters(), walk.network.parameters(), strict=True):
            average.data.lerp_(weight.data, 1 - (1 - 1 / step) ** (power + 1))
        if step % 20 == 0:
            averages.write_snapshot(tmp_path, step)
    made, last = average_of_length(tmp_path, length, num_steps, averages.written)
    assert last == num_steps
    apart = (walk.network.weight - kept.weight).square().mean().sqrt()  # how far the last weights are
    for name, expected in kept.state_dict().items():
        error = (made[name].double() - expected).square().mean().sqrt()
        assert error < 0.02 * apart


def test_a_run_gives_averages_of_any_length_and_resumes_exactly(make_trainer, tmp_path):
    settings = {"steps": 12, "average_snapshots": 2, "checkpoint_every": 5, "learning_rate": 0.05}
    list(make_trainer(run="whole", **settings).steps())
    trainer = make_trainer(run="parts", **settings)
    for record in trainer.steps():
        if record.step == 7:
            break  # as if killed: the checkpoint is of step 5, a snapshot of step 6
    trainer.close()
    list(make_trainer(run="parts", resume=True, **settings).steps())
    whole, parts = (
        [load_file(path) for _, path in list_snapshots(tmp_path / name / "averages", 99)]
        for name in ("whole", "parts")
    )
    assert len(whole) == len(parts) == 6
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    last, long, short = (
        load_run(tmp_path / "whole", average_length=length, build_model=build_small).model.state_dict()
        for length in (0, 0.2, 0.05)
    )
    assert not torch.equal(long["mix.weight"], short["mix.weight"])
    assert not torch.equal(long["mix.weight"], last["mix.weight"])


def test_a_run_without_snapshots_says_so(make_trainer, tmp_path):
    list(make_trainer(steps=2).steps())
    with pytest.raises(TrainError, match="has no snapshots of averages up to step 2; train with"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)


def test_a_damaged_snapshot_is_named(make_trainer, tmp_path):
    list(make_trainer(steps=2, average_snapshots=1).steps())
    path = tmp_path / "run" / "averages" / "step_00000001.safetensors"
    tensors = load_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainError, match=r"step_00000001.safetensors is damaged \(.*\); restore what"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    for wrong in ({name: torch.zeros(3) for name in tensors}, tensors):  # of others, or without a hash
        save_file(wrong, path)
        with pytest.raises(TrainError, match="not what was written after step 1"):
            load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    path.write_bytes(path.with_name("step_00000002.safetensors").read_bytes())
    with pytest.raises(TrainError, match="not what was written after step 1"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)


@pytest.mark.parametrize("lost", [(2,), (4,), (2, 4, 5)], ids=str)
def test_a_snapshot_that_is_gone_is_noticed(make_trainer, tmp_path, lost):
    list(make_trainer(steps=5, average_snapshots=2, checkpoint_every=3).steps())
    folder = tmp_path / "run" / "averages"
    for step in lost:
        (folder / f"step_{step:08d}.safetensors").unlink()
    message = (
        rf"averages has lost {len(lost)} of the 3 snapshots .*: step_0+{lost[0]}\.safetensors.*; restore"
    )
    with pytest.raises(TrainError, match=message):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    load_run(tmp_path / "run", build_model=build_small)


def test_a_snapshot_of_another_run_is_noticed(make_trainer, tmp_path):
    for name, seed in (("run", 0), ("other", 1)):
        list(make_trainer(name, steps=4, average_snapshots=2, seed=seed).steps())
    list(make_trainer("odd", steps=3, average_snapshots=3).steps())
    folder = tmp_path / "run" / "averages"
    own = (folder / "step_00000002.safetensors").read_bytes()
    shutil.copy(tmp_path / "other" / "averages" / "step_00000002.safetensors", folder)
    with pytest.raises(
        TrainError, match=r"step_00000002.safetensors is of another run: .* hash \w{64}, those"
    ):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    (folder / "step_00000002.safetensors").write_bytes(own)
    stranger = folder / "step_00000003.safetensors"
    shutil.copy(tmp_path / "odd" / "averages" / stranger.name, folder)
    with pytest.raises(TrainError, match=f"this run has not written: {stranger.name}; remove them"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    stranger.unlink()
    load_run(tmp_path / "run", average_length=0.1, build_model=build_small)


def test_a_resumed_run_tells_all_its_snapshots(make_trainer, tmp_path):
    settings = {"average_snapshots": 2, "checkpoint_every": 3, "keep": 9}
    list(make_trainer(steps=5, **settings).steps())
    list(make_trainer(steps=8, resume=True, **settings).steps())
    state = json.loads((tmp_path / "run" / "checkpoints" / "step_00000008" / "state.json").read_text())
    assert list(state["snapshots"]) == [f"step_{step:08d}.safetensors" for step in (2, 4, 5, 6, 8)]
    (tmp_path / "run" / "averages" / "step_00000005.safetensors").unlink()  # the end of the first part
    with pytest.raises(TrainError, match=r"has lost 1 of the 5 snapshots"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    # That of step 3 tells of the one before it alone.
    assert load_run(tmp_path / "run", step=3, average_length=0.1, build_model=build_small).step == 2


def test_snapshots_that_no_checkpoint_tells_of_are_taken_as_they_are(make_trainer, tmp_path):
    """Of a run that was started before checkpoints did; its later checkpoints tell of none either."""
    settings = {"average_snapshots": 1}
    list(make_trainer(steps=3, **settings).steps())
    for step in (3, 5):
        state = tmp_path / "run" / "checkpoints" / f"step_{step:08d}" / "state.json"
        values = json.loads(state.read_text())
        if step == 3:
            del values["snapshots"]
            state.write_text(json.dumps(values))
            list(make_trainer(steps=5, resume=True, **settings).steps())
        assert "snapshots" not in json.loads(state.read_text())
    (tmp_path / "run" / "averages" / "step_00000002.safetensors").unlink()
    load_run(tmp_path / "run", average_length=0.1, build_model=build_small)


def test_averages_of_another_network_are_refused(make_trainer, tmp_path):
    list(make_trainer(steps=2, average_snapshots=2).steps())
    averages = PowerAverages(nn.Linear(3, 3))
    averages.write_snapshot(tmp_path / "run" / "averages", 2)
    state = tmp_path / "run" / "checkpoints" / "step_00000002" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"snapshots": averages.written}))
    with pytest.raises(TrainError, match="holds averages of another network"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)
    state.write_text(json.dumps(json.loads(state.read_text()) | {"snapshots": {"step": 2}}))
    with pytest.raises(TrainError, match=r"state\.json is damaged \(step: got 2; expected a text\)"):
        load_run(tmp_path / "run", average_length=0.1, build_model=build_small)


def test_a_length_that_no_average_has_is_refused():
    for length in (0.001, 0.3):
        with pytest.raises(ConfigError, match="average_length: got 0"):
            SampleConfig(average_length=length)
