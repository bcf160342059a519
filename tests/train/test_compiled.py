"""A compiled network computes the same; where it cannot be compiled, a line says so, and it computes too."""

import copy

import pytest
import torch
import torch._inductor.config
from torch._dynamo.utils import counters

from tests.train.toys import SmallNetwork
from vidlat.train.networks.compiled import compile_network, is_compiled
from vidlat.train.networks.unet import build_unet

# PyTorch's compiler imports what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [(None, "cpu", False), (None, "cuda", True), (True, "cpu", True), (False, "cuda", False)],
)
def test_a_network_is_compiled_on_a_gpu_unless_told_otherwise(setting, device, expected):
    assert is_compiled(setting, torch.device(device)) is expected


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_compiled_training_is_the_same_within_rounding(make_trainer):
    """Both are float32 in another order: losses, norms and validations differ by little."""
    torch.compiler.reset()
    counters.clear()
    ends = []
    for compile_it in (False, True):
        settings = {"batch": 4, "accumulate": 2, "steps": 4, "validate_every": 2, "validation_fraction": 0.3}
        trainer = make_trainer(f"run_{compile_it}", compile=compile_it, **settings)
        ends.append([(r.loss, r.grad_norm, r.validation_loss or 0.0) for r in trainer.steps()])
        assert not any("compiled" in note for note in trainer.notes)
    assert counters["stats"]["unique_graphs"] >= 2  # the network in training, and its average
    for plain, compiled in zip(*ends, strict=True):
        assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
def test_the_space_time_network_compiles_to_the_same_gradients_within_rounding():
    """With activations that are computed again in the backward pass."""
    torch.compiler.reset()
    torch.manual_seed(0)
    plain = build_unet("space-time", "tiny", 2, channels=(8,))
    with torch.no_grad():  # layers that begin at zero would hide what is behind them
        for parameter in plain.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    network = copy.deepcopy(plain)
    network.checkpoints_activations = True
    compile_network(network, pytest.fail)
    latents, timestep = torch.randn(2, 2, 4, 4, 4), torch.rand(2)
    expected, prediction = (each(latents, timestep, None) for each in (plain, network))
    assert (prediction - expected).norm() < 1e-3 * expected.norm()
    for output in (expected, prediction):
        output.square().mean().backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm() + 1e-7, name
