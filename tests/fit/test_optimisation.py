"""One step of a VAE's training: its gradients, its update, and that it waits for no device."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from tests.fit.small import ALL_TERMS, chosen, needs_bfloat16
from tests.train.test_optimisation import ReadsNothing
from vidlat.encode.network import TINY_NETWORK, build_network, bypass_wrappers
from vidlat.fit.optimisation import FitOptimisation, checkpoint_activations, smooth
from vidlat.fit.perceptual import gradient_distance
from vidlat.train.ranks import Ranks


def tiny_network():
    torch.manual_seed(0)
    return bypass_wrappers(build_network(TINY_NETWORK))


def optimisation(**settings):
    torch.manual_seed(0)
    return FitOptimisation(tiny_network(), chosen(**settings), Ranks("cpu"), gradient_distance)


def batch(settings, num_stacks=2, length=None):
    """Stacks and the noise of their latents."""
    length = length or settings.stack
    random = torch.Generator().manual_seed(1)
    target = torch.rand(num_stacks, 1, settings.stack, settings.size, settings.size, generator=random)
    side, calls = settings.size // 4, num_stacks * settings.stack // length
    return target, torch.randn(calls, 4, length // 4, side, side, generator=random)


def figures_by_name(optimised, figures):
    return dict(
        zip(("loss", "norm", "mse", *optimised.term_names, "stopping"), figures.tolist(), strict=True)
    )


def test_the_loss_is_the_weighted_sum_of_its_terms():
    settings = chosen(loss="l1", **ALL_TERMS)
    optimised = optimisation(loss="l1", **ALL_TERMS)
    target, noise = batch(settings)
    with torch.no_grad():
        mean, std = optimised.state.model.encode(target)
        decoded = optimised.state.model.decode(mean + std * noise)
    found = figures_by_name(optimised, optimised.compute_gradients(target, noise, should_stop=True))
    assert found["mse"] == pytest.approx((decoded - target).square().mean().item(), rel=1e-3)
    assert found["l1"] == pytest.approx((decoded - target).abs().mean().item(), rel=1e-3)
    weights = {"l1": 1, "kl": 1e-4, "change": 0.1, "perceptual": 0.1, "adversarial": 0.1}
    assert set(optimised.term_names) == {*weights, "discriminator"}
    expected = sum(weight * found[name] for name, weight in weights.items())
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["stopping"] == 1


def test_a_step_is_one_of_adamw():
    """Whatever the strides of weights, gradients and moments: the fused AdamW takes them for equal."""
    optimised, settings = optimisation(start="random"), chosen(start="random")
    plain = tiny_network()
    other = torch.optim.AdamW(plain.parameters(), weight_decay=0.0, fused=False)
    for _ in range(2):
        figures = optimised.compute_gradients(*batch(settings))
        for weight, trained in zip(plain.parameters(), optimised.state.model.parameters(), strict=True):
            weight.grad = trained.grad.clone(memory_format=torch.contiguous_format)
        other.param_groups[0]["lr"] = optimised.apply_gradients(figures)
        other.step()
    for weight, trained in zip(plain.parameters(), optimised.state.model.parameters(), strict=True):
        torch.testing.assert_close(trained, weight, rtol=1e-5, atol=1e-7)


class Echo(nn.Module):
    """A VAE that decodes what it is shown, and notes how it was called."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    def encode(self, calls):
        self.calls.append(calls.detach())
        return calls * self.scale, torch.ones_like(calls)

    def decode(self, latent):
        return latent


def test_steps_take_turns_in_the_length_of_calls_and_keep_the_order_of_frames():
    settings = chosen(stack=16, shortest_stack=4, start="random")
    network = Echo()
    optimised = FitOptimisation(network, settings, Ranks("cpu"), gradient_distance)
    numbered = torch.arange(32.0).reshape(2, 1, 16, 1, 1).expand(2, 1, 16, 16, 16)
    for length in (16, 8, 4, 16):
        noise = torch.zeros(32 // length, 1, length, 16, 16)
        optimised.apply_gradients(optimised.compute_gradients(numbered, noise))
        shown = optimised.state.model.calls[-1]
        assert shown.shape == (32 // length, 1, length, 16, 16)
        assert shown[:, 0, :, 0, 0].flatten().tolist() == list(range(32))


@pytest.mark.parametrize("all_terms", [False, True])
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_weights_moments_average_and_figures_are_float32(precision, all_terms):
    more = ALL_TERMS if all_terms else {}
    settings = chosen(precision=precision, **more)
    optimised = optimisation(precision=precision, **more)
    figures = optimised.compute_gradients(*batch(settings))
    optimised.apply_gradients(figures)
    state = optimised.state
    modules, optimisers = [state.model, state.ema], [state.optimiser]
    if state.discriminator:
        modules.append(state.discriminator.model)
        optimisers.append(state.discriminator.optimiser)
    tensors = [weight for module in modules for weight in module.parameters()]
    tensors += [value for it in optimisers for moments in it.state.values() for value in moments.values()]
    assert {tensor.dtype for tensor in [*tensors, figures]} == {torch.float32}
    assert figures.isfinite().all()


@needs_bfloat16
@pytest.mark.parametrize("stack", [4, 8, 16])  # the deeper levels of the network see two frames, or one
def test_gradients_in_bfloat16_are_those_of_float32(stack):
    gradients = {}
    for precision in ("float32", "bfloat16"):
        settings = chosen(stack=stack, precision=precision)
        optimised = optimisation(stack=stack, precision=precision, clip_norm=1e6)
        optimised.compute_gradients(*batch(settings, num_stacks=1))
        gradients[precision] = dict(optimised.state.model.named_parameters())
    for name, parameter in gradients["float32"].items():
        expected, got = parameter.grad, gradients["bfloat16"][name].grad
        assert (got - expected).norm() <= 0.2 * expected.norm() + 1e-3, name


@pytest.mark.parametrize("more", [{}, {"checkpoint_activations": True}, ALL_TERMS], ids=str)
def test_a_step_reads_nothing_from_the_device(more):
    optimised, stacks = optimisation(**more), batch(chosen(**more))
    with ReadsNothing():
        optimised.apply_gradients(optimised.compute_gradients(*stacks))


def test_a_step_that_is_not_finite_changes_nothing_but_the_average():
    optimised = optimisation(**ALL_TERMS)
    settings = chosen(**ALL_TERMS)
    for _ in range(2):
        optimised.apply_gradients(optimised.compute_gradients(*batch(settings)))
    state = optimised.state
    kept = [state.model, state.optimiser, *state.discriminator]
    before = copy.deepcopy([it.state_dict() for it in kept])
    for which in ("loss", "discriminator"):
        figures = optimised.compute_gradients(*batch(settings))
        figures[["loss", "norm", "mse", *optimised.term_names].index(which)] = torch.nan
        optimised.apply_gradients(figures)
    assert state.step == 4
    assert state.num_skipped == 2
    for was, now in zip(before, [it.state_dict() for it in kept], strict=True):
        for group in now.get("param_groups", []):
            group["lr"] = was["param_groups"][0]["lr"]  # follows the step
        torch.testing.assert_close(now, was, rtol=0, atol=0)


def test_a_discriminators_gradient_that_is_not_finite_skips_the_step(monkeypatch):
    optimised = optimisation(**ALL_TERMS)
    loss = optimised._adversary.loss
    monkeypatch.setattr(optimised._adversary, "loss", lambda *frames: (loss(*frames) * 1e-45).sqrt() * 1e30)
    found = figures_by_name(optimised, optimised.compute_gradients(*batch(chosen(**ALL_TERMS))))
    assert found["discriminator"] != found["discriminator"]


def test_a_frozen_encoder_stays_and_its_decoder_learns():
    optimised = optimisation(init="tiny", freeze_encoder=True)
    before = copy.deepcopy(optimised.state.model.state_dict())
    settings = chosen()
    for _ in range(3):
        optimised.apply_gradients(optimised.compute_gradients(*batch(settings)))
    for module in (optimised.state.model, optimised.state.ema):
        for name, tensor in module.state_dict().items():
            is_kept = name.startswith(("encoder.", "quant_conv_mu.", "quant_conv_log_sigma."))
            assert torch.equal(tensor, before[name]) == is_kept, name


def test_a_step_moves_the_mean_of_a_kernel_by_a_twentieth_of_what_adamw_would():
    torch.manual_seed(0)
    network = nn.Conv3d(2, 2, 3)
    before = network.weight.detach().clone()
    network(torch.ones(1, 2, 4, 4, 4)).square().sum().backward()
    torch.optim.AdamW(network.parameters(), 0.1).step()
    whole = network.weight.detach() - before
    smooth([network.weight], [before])
    got, taps = network.weight.detach() - before, (2, 3, 4)
    assert torch.allclose(got.mean(taps), whole.mean(taps) / 20, atol=1e-6)
    assert torch.allclose(
        got - got.mean(taps, keepdim=True), whole - whole.mean(taps, keepdim=True), atol=1e-6
    )


def test_means_of_kernels_are_held_back_after_a_linear_start_alone():
    assert optimisation()._smoothed
    assert not optimisation(start="random")._smoothed
    assert not optimisation(init="tiny")._smoothed


CLIPS = torch.rand(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def gradients(checkpointed, dtype, is_half):
    """The gradients of the tiny network, and the bytes that were kept for them beside the weights."""
    network = tiny_network().train().to(dtype)
    if checkpointed:
        checkpoint_activations(network)
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
