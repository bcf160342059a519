"""What matters for a fit on a GPU: memory, precision, and a host that does not wait; shown on a CPU."""

from itertools import islice

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.fit.small import collection, config
from tests.fit.test_fitting import needs_bfloat16
from tests.fit.test_unfinished import fit, hash_of
from tests.train.test_optimisation import ReadsNothing
from vidlat.encode.network import TINY_NETWORK, build_network, bypass_wrappers
from vidlat.errors import TrainError
from vidlat.fit import fitting
from vidlat.fit.fitting import _checkpoint_activations, _loss, _start, _take_step
from vidlat.fit.unfinished import UnfinishedFit
from vidlat.train.unread_steps import NUM_BEHIND

CLIPS = torch.rand(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def gradients(checkpointed, dtype, is_half):
    """The gradients of the tiny network, and the bytes that were kept for them beside the weights."""
    torch.manual_seed(0)
    network = bypass_wrappers(build_network(TINY_NETWORK)).train().to(dtype)
    if checkpointed:
        _checkpoint_activations(network)
    weights, kept = {weight.data_ptr() for weight in network.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    clips = CLIPS.to(dtype)
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, is_half):
        mean, std = network.encode(clips)
        loss = (network.decode(mean) - clips).square().mean() + std.mean()
    loss.backward()
    return {name: weight.grad for name, weight in network.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize(
    ("dtype", "is_half"),
    [(torch.float64, False), pytest.param(torch.float32, True, marks=needs_bfloat16)],
    ids=["float64", "bfloat16"],
)
def test_activations_computed_again_give_the_same_gradients_with_less_memory(dtype, is_half):
    (expected, all_kept), (found, kept) = (gradients(way, dtype, is_half) for way in (False, True))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
        assert gradient.abs().max() > 0
    assert kept < 0.4 * all_kept


def test_a_fit_continues_with_activations_computed_again_to_the_last_bit(tmp_path):
    settings = {"steps": 4, "save_every": 2}
    list(fit(tmp_path / "whole.safetensors", config(**settings)))
    events = fit(tmp_path / "v.safetensors", config(**settings))
    list(islice(events, 2))
    events.close()
    saving = UnfinishedFit(tmp_path / "v.safetensors").continued_with(
        config(checkpoint_activations=True, **settings)
    )
    assert len(list(fit(tmp_path / "v.safetensors", saving, resume=True))) == 2
    assert hash_of(tmp_path / "v.safetensors") == hash_of(tmp_path / "whole.safetensors")


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_weights_moments_average_and_loss_are_float32(precision):
    settings = config(precision=precision)
    stacks = collection(settings)
    state, _ = _start(stacks, settings, None, "cpu")
    assert _loss(state.model, stacks.draw(1), settings, 0)[0].dtype == torch.float32
    _take_step(state, stacks.draw(1), settings)
    moments = [values for moment in state.optimiser.state.values() for values in moment.values()]
    tensors = [*state.model.parameters(), *state.ema.parameters(), *moments]
    tensors += [weight.grad for weight in state.model.parameters()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_a_step_reads_nothing_from_the_device(checkpoint_activations, monkeypatch):
    settings = config(checkpoint_activations=checkpoint_activations, change_weight=0.1)
    stacks = collection(settings)
    state, _ = _start(stacks, settings, None, "cpu")
    # AdamW counts its steps in the host's memory.
    monkeypatch.setattr(fitting, "_step_smoothly", lambda _: None)
    target = stacks.draw(1)
    with ReadsNothing():
        _take_step(state, target, settings)


@pytest.fixture
def behind(monkeypatch):
    """As on a GPU: figures are read some steps late."""
    monkeypatch.setattr(fitting, "_num_behind", lambda _: NUM_BEHIND)


def test_figures_that_are_read_late_are_the_same(tmp_path, monkeypatch):
    settings, taken = config(steps=8, save_every=5), []
    at_once = list(fit(tmp_path / "at_once.safetensors", settings))
    take_step = fitting._take_step
    monkeypatch.setattr(fitting, "_take_step", lambda *a: taken.append(1) or take_step(*a))
    monkeypatch.setattr(fitting, "_num_behind", lambda _: NUM_BEHIND)
    known = [(record, len(taken)) for record in fit(tmp_path / "late.safetensors", settings)]
    assert [record for record, _ in known] == at_once
    assert [number for _, number in known] == [3, 4, 5, 5, 5, 8, 8, 8]
    assert hash_of(tmp_path / "late.safetensors") == hash_of(tmp_path / "at_once.safetensors")


@pytest.mark.usefixtures("behind")
def test_a_fit_behind_is_saved_with_all_steps_that_were_taken(tmp_path):
    settings, out = config(steps=8, save_every=100), tmp_path / "v.safetensors"
    whole = list(fit(tmp_path / "whole.safetensors", settings))
    events = fit(out, settings)
    assert list(islice(events, 2)) == whole[:2]
    events.close()
    assert UnfinishedFit(out).last_step() == 4
    assert list(fit(out, settings, resume=True)) == whole[4:]
    assert UnfinishedFit(out).last_step() is None
    assert hash_of(out) == hash_of(tmp_path / "whole.safetensors")


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize(
    ("save_every", "last", "go_on"), [(3, 3, list), (100, None, lambda events: events.close())]
)
def test_no_state_is_saved_that_is_not_finite(tmp_path, monkeypatch, save_every, last, go_on):
    loss = fitting._loss

    def failing(network, target, settings, step):
        total, log_mse = loss(network, target, settings, step)
        return (total * torch.nan, log_mse) if step == 4 else (total, log_mse)

    monkeypatch.setattr(fitting, "_loss", failing)
    out = tmp_path / "v.safetensors"
    events = fit(out, config(steps=50, save_every=save_every))
    assert [record.step for record in islice(events, 3)] == [1, 2, 3]  # step 5 has been taken, or is next
    with pytest.raises(TrainError, match=r"step 5: the loss is nan, .*; try a lower --learning-rate"):
        go_on(events)
    assert UnfinishedFit(out).last_step() == last


@pytest.mark.parametrize("gradient", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_stops_a_fit(tmp_path, monkeypatch, gradient):
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *arguments: clip(*arguments) * gradient)
    with pytest.raises(TrainError, match=r"step 1: the loss is -?\d.*, its gradient's norm (nan|inf)"):
        list(fit(tmp_path / "v.safetensors"))
