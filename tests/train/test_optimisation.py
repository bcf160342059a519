"""One step: AdamW's arithmetic, the average, and what a step that is not finite leaves as it was."""

import copy
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.test_trainer import assert_same_state
from tests.train.toys import SmallNetwork, build_failing
from vidlat.config import TrainConfig
from vidlat.train.networks.unet import build_unet
from vidlat.train.objectives.noising import NoisedBatch
from vidlat.train.optimisation import Optimisation, update_average
from vidlat.train.ranks import Ranks
from vidlat.train.runs.checkpoint import TrainState, load_checkpoint, save_checkpoint

SHAPES = [(3,), (5, 7), (2, 3, 1, 3, 3), (1,), (129,)]


def optimise(network, **settings):
    values = {"precision": "float32", "device": "cpu", "warmup_steps": 0} | settings
    return Optimisation(network, TrainConfig(**values), Ranks("cpu"), pytest.fail)


def noised(step, latent_dim=2, size=2):
    random = torch.Generator().manual_seed(step)
    inputs, target = torch.randn(2, size, latent_dim, 2, 4, 4, generator=random)
    return NoisedBatch(
        inputs=inputs,
        timestep=torch.rand(size, generator=random),
        features=None,
        target=target,
        mask=torch.ones(size, 1, 2, 1, 1),
        weight=torch.ones(size, 1, 1, 1, 1),
    )


def take_steps(optimisation, steps):
    for step in steps:
        optimisation.apply_gradients(optimisation.compute_gradients(noised(step)))


def test_the_average_equals_that_of_a_loop_to_the_last_bit():
    torch.manual_seed(0)
    average, weights = ([torch.randn(shape) for shape in SHAPES] for _ in range(2))
    looped = [mean.clone() for mean in average]
    for step in (0, 3, 5000):
        update_average(average, weights, 0.999, step)
        for mean, weight in zip(looped, weights, strict=True):
            mean.lerp_(weight, 1 - min(0.999, (1 + step) / (10 + step)))
    assert all(map(torch.equal, average, looped))


def test_adamw_is_that_of_float64_within_the_rounding_of_float32():
    """The truth: PyTorch's loop over the parameters, in float64, from the same gradients."""
    torch.manual_seed(0)
    network = SmallNetwork(2)
    truth = copy.deepcopy(network).double()
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "steps": 20, "clip_norm": 1e6}
    optimisation = optimise(network, **settings)
    oracle = torch.optim.AdamW(truth.parameters(), lr=0.01, weight_decay=0.1, foreach=False, fused=False)
    for step in range(20):
        figures = optimisation.compute_gradients(noised(step))
        for exact, weight in zip(truth.parameters(), network.parameters(), strict=True):
            exact.grad = weight.grad.double()
        oracle.param_groups[0]["lr"] = optimisation.apply_gradients(figures)
        oracle.step()
    for exact, weight in zip(truth.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("failing", [1, 3])
def test_a_step_that_is_not_finite_changes_nothing_but_the_number_of_the_step(where, failing):
    torch.manual_seed(0)
    optimisation = optimise(build_failing(failing, where=where)("", "", 2))
    take_steps(optimisation, range(failing - 1))
    state = optimisation.state
    before = copy.deepcopy((state.model.state_dict(), state.optimiser.state_dict()["state"]))
    figures = optimisation.compute_gradients(noised(failing))
    assert not math.isfinite(figures[1])
    assert math.isfinite(figures[0]) == (where == "gradient")
    optimisation.apply_gradients(figures)
    weights, moments = before
    for name, parameter in state.model.named_parameters():
        assert torch.equal(parameter, weights[name])
    for index, values in moments.items():
        for name, value in values.items():
            assert torch.equal(state.optimiser.state_dict()["state"][index][name], value)
    assert all(values["step"] == failing - 1 for values in state.optimiser.state.values())
    assert all(mean.isfinite().all() for mean in state.ema.parameters())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert (state.step, state.num_skipped) == (failing, 1)


def test_after_a_skipped_step_adamw_goes_on_as_if_it_had_not_been():
    """Its correction of the first moments' bias too, which depends on its own count of steps."""
    torch.manual_seed(0)
    skipping = optimise(build_failing(3)("", "", 2), learning_rate=0.01, steps=10**9)
    torch.manual_seed(0)
    plain = optimise(build_failing()("", "", 2), learning_rate=0.01, steps=10**9)
    take_steps(skipping, [0, 1, 2, 3, 4])
    take_steps(plain, [0, 1, 3, 4])
    for ours, theirs in zip(skipping.state.model.parameters(), plain.state.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)  # the rates of the cosine differ by 1e-17


class ReadsNothing(TorchDispatchMode):
    """Fails where a number of a tensor is asked for, which makes the host wait for a GPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.is_nonzero.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}], ids=str)
def test_a_step_of_the_real_network_reads_nothing_from_the_device(settings):
    optimisation = optimise(build_unet("space-time", "tiny", 2), **settings)
    batch = noised(0)
    with ReadsNothing():
        optimisation.apply_gradients(optimisation.compute_gradients(batch))
    with pytest.raises(AssertionError), ReadsNothing():
        optimisation.state.model.last[2].bias.sum().item()


def test_a_checkpoint_of_the_former_optimiser_continues(tmp_path):
    """Of runs that were started before AdamW was fused: the same moments."""
    torch.manual_seed(0)
    network = SmallNetwork(2)
    now = optimise(copy.deepcopy(network), steps=10**9)
    former = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.01)
    for step in range(3):
        now.compute_gradients(noised(step))
        for theirs, ours in zip(network.parameters(), now.state.model.parameters(), strict=True):
            theirs.grad = ours.grad.clone()
        former.step()
        now.apply_gradients(torch.zeros(3))
    state = TrainState(model=network, ema=copy.deepcopy(network), optimiser=former, step=3)
    path = save_checkpoint(tmp_path, state)
    (path / "state.json").write_text('{"step": 3, "validation_loss": null}')  # as it was written then
    loaded = optimise(SmallNetwork(2), steps=10**9)
    load_checkpoint(path, loaded.state)
    assert loaded.state.num_skipped == 0
    for optimisation in (loaded, now):
        take_steps(optimisation, [3, 4])
    for ours, theirs in zip(loaded.state.model.parameters(), now.state.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_state_with_skipped_steps_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    saved = optimise(build_failing(2)("", "", 2))
    take_steps(saved, range(3))
    loaded = optimise(build_failing()("", "", 2))
    load_checkpoint(save_checkpoint(tmp_path, saved.state), loaded.state)
    assert (loaded.state.step, loaded.state.num_skipped) == (3, 1)
    assert_same_state(saved.state, loaded.state)
