"""A compiled network computes the same; where it cannot be compiled, a line says so, and it computes too."""

import copy
import json

import pytest
import torch
from torch._dynamo.utils import counters

from tests.train.toys import SmallNetwork
from vidlat.config import TrainConfig
from vidlat.train.compiled import compile_network, is_compiled
from vidlat.train.space_time_unet import SpaceTimeUNet
from vidlat.train.trainer import Trainer

# PyTorch's compiler imports what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [(None, "cpu", False), (None, "cuda", True), (True, "cpu", True), (False, "cuda", False)],
)
def test_a_network_is_compiled_on_a_gpu_unless_told_otherwise(setting, device, expected):
    assert is_compiled(setting, torch.device(device)) is expected


def test_without_a_compiler_the_network_runs_and_one_line_says_why(make_trainer, monkeypatch, tmp_path):
    plain = [record.loss for record in make_trainer("plain").steps()]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.compiler.reset()
    trainer = make_trainer(compile=True, validate_every=2, validation_fraction=0.3)
    with torch._inductor.config.patch("cpp.cxx", ("/nonexistent/c++",)):
        trainer.estimate_seconds_per_step()
        (note,) = [note for note in trainer.notes if "cannot be compiled" in note]
        assert "No working C++ compiler" in note
        assert "\n" not in note
        assert [record.loss for record in trainer.steps()] == plain
    assert [note for note in trainer.notes if "cannot be compiled" in note] == [note]  # of the average too


def test_names_of_weights_stay():
    network = SmallNetwork(2)
    names = list(network.state_dict())
    compile_network(network, pytest.fail)
    assert list(network.state_dict()) == names


def build_narrow(network, preset, latent_dim, **_):
    return SpaceTimeUNet(latent_dim, latent_dim, channels=(8, 16), num_blocks=1)


@pytest.mark.slow
def test_a_compiled_training_is_the_same_within_rounding(cache, tmp_path):
    """Both are float32 of another order: losses, validations and weights differ by little."""
    counters.clear()
    torch.compiler.reset()
    ends = []
    for compile_it in (False, True):
        settings = {"frames": 16, "batch": 4, "accumulate": 2, "steps": 4, "validate_every": 2}
        config = TrainConfig(**settings, validation_fraction=0.3, device="cpu", compile=compile_it)
        trainer = Trainer(config, cache, tmp_path / f"run_{compile_it}", build_model=build_narrow)
        records = list(trainer.steps())
        assert not any("compiled" in note for note in trainer.notes)
        ends.append([(r.loss, r.grad_norm, r.validation_loss) for r in records])
    assert counters["stats"]["unique_graphs"] >= 2  # the network in training, and its average
    for plain, compiled in zip(*ends, strict=True):
        assert compiled == pytest.approx(plain, rel=1e-4)
    first, other = (
        json.loads((tmp_path / f"run_{it}" / "config.json").read_text())["config"] for it in (False, True)
    )
    assert (first["compile"], other["compile"]) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize("activations", [False, True])
def test_compiled_gradients_of_the_space_time_network_are_those_without(activations):
    torch.compiler.reset()
    torch.manual_seed(0)
    plain = build_narrow("space-time", "tiny", 4)
    with torch.no_grad():  # layers that begin at zero would hide what is behind them
        for parameter in plain.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    network = copy.deepcopy(plain)
    network.checkpoints_activations = activations
    compile_network(network, pytest.fail)
    latents, timestep = torch.randn(2, 4, 4, 8, 8), torch.rand(2)
    expected, prediction = (each(latents, timestep, None) for each in (plain, network))
    assert (prediction - expected).norm() < 1e-3 * expected.norm()
    for output in (expected, prediction):
        output.square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm() + 1e-7, name
