"""Calls of a network while sampling: what they compute in, and what happens where memory runs out."""

import copy
import weakref

import pytest
import torch
from torch import nn

from tests.thorough import some_of
from tests.train.test_space_time_unet import awake
from vidlat.errors import DeviceError, NotEnoughMemoryError
from vidlat.sample.clips import sampling_precision
from vidlat.sample.guidance import GuidedDenoiser
from vidlat.sample.network_calls import NetworkCalls
from vidlat.train.networks.unet import build_unet

LATENTS, TIMESTEP = (
    torch.randn(4, 4, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.full((4,), 0.4),
)


@pytest.fixture(scope="module")
def network():
    """The network of a run with three features."""
    return awake(build_unet("space-time", "tiny", 4, num_features=3))


@pytest.fixture(scope="module")
def exact(network):
    """The same in float64, but for the angles of its timesteps, which are float32 by design."""
    exact = copy.deepcopy(network).double()
    exact.embedding.timestep.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return lambda *inputs: exact(*(values.double() for values in inputs))


class Limited(nn.Module):
    """A network that lacks memory for a call where `fails` says so of its number of items."""

    def __init__(self, network, fails, error=torch.OutOfMemoryError("CUDA out of memory")):  # noqa: B008
        super().__init__()
        self.network, self.fails, self.error, self.sizes = network, fails, error, []

    def forward(self, inputs, timestep, features):
        self.sizes.append(len(inputs))
        if self.fails(len(inputs)):
            raise self.error
        return self.network(inputs, timestep, features)


def test_guidance_in_one_call_is_that_of_two(network, exact):
    watched = Limited(network, lambda _: False)
    features, guidance = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), 3.0
    denoiser = GuidedDenoiser(
        network=NetworkCalls(watched), window=4, stride=2, features=features, guidance=guidance
    )
    guided = denoiser(LATENTS, TIMESTEP)
    conditional, unconditional = (exact(LATENTS, TIMESTEP, f) for f in (features, torch.zeros(4, 3)))
    expected = unconditional + guidance * (conditional - unconditional)
    torch.testing.assert_close(guided.double(), expected, rtol=1e-4, atol=1e-4)
    assert (conditional - unconditional).abs().max() > 0.01
    assert watched.sizes == [8]


@pytest.mark.parametrize(
    "error",
    some_of(
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            MemoryError(),
        ]
    ),
    ids=lambda error: type(error).__name__,
)
def test_a_call_that_does_not_fit_is_halved_until_it_does_and_stays_so(network, error):
    limited = Limited(network, lambda size: size > 2, error)
    calls, features = NetworkCalls(limited), torch.eye(5, 3)
    inputs, timestep = LATENTS[[0, 1, 2, 3, 0]], torch.linspace(0.1, 0.9, 5)
    expected = NetworkCalls(network)(inputs, timestep, features)
    torch.testing.assert_close(calls(inputs, timestep, features), expected, rtol=1e-5, atol=1e-5)
    assert limited.sizes == [5, 3, 2, 2, 1]
    limited.sizes.clear()
    torch.testing.assert_close(calls(inputs, timestep, features), expected, rtol=1e-5, atol=1e-5)
    assert limited.sizes == [2, 2, 1]


def test_a_sample_that_does_not_fit_alone_ends_in_one_line(network):
    limited = Limited(network, lambda _: True)
    with pytest.raises(
        NotEnoughMemoryError, match="on cpu for the U-Net and one sample of 4x8x8 latents"
    ) as caught:
        NetworkCalls(limited)(LATENTS, TIMESTEP, None)
    assert "\n" not in str(caught.value)
    assert limited.sizes == [4, 2, 1]
    # The traceback of the first error would keep the memory of the call alive.
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_failed_call_keeps_no_memory_while_the_smaller_one_runs():
    activations = weakref.WeakSet()

    def network(inputs, timestep, features):
        assert not list(activations)
        activation = torch.zeros(7)
        activations.add(activation)
        if len(inputs) > 1:
            raise torch.OutOfMemoryError  # its traceback holds this frame, and so the activation
        return inputs

    assert torch.equal(NetworkCalls(network)(LATENTS, TIMESTEP, None), LATENTS)


def test_other_errors_are_not_mistaken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="size of tensor"):
        NetworkCalls(lambda *_: torch.zeros(2) + torch.zeros(3))(LATENTS, TIMESTEP, None)


@pytest.mark.slow
def test_in_bfloat16_products_are_rounded_and_all_else_is_float32(network, exact):
    seen = []

    def watched(inputs, timestep, features):
        product = torch.mm(torch.eye(2), torch.eye(2))
        seen.append((inputs.dtype, timestep.dtype, product.dtype))
        return network(inputs, timestep, features)

    features = torch.eye(4, 3)
    rounded = NetworkCalls(watched, "bfloat16")(LATENTS, TIMESTEP, features)
    plain = NetworkCalls(watched, "float32")(LATENTS, TIMESTEP, features)
    truth = exact(LATENTS, TIMESTEP, features)
    assert seen == [(torch.float32, torch.float32, dtype) for dtype in (torch.bfloat16, torch.float32)]
    assert rounded.dtype == plain.dtype == torch.float32
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    error, floor = ((values - truth).norm() / truth.norm() for values in (rounded, plain))
    assert 100 * floor < error < 2**-5


def test_samples_are_drawn_in_the_precision_of_the_training(cpu_with_bfloat16):
    assert sampling_precision("auto", "bfloat16", "cpu") == "bfloat16"
    assert sampling_precision("auto", "float32", "cpu") == "float32"
    assert sampling_precision("float32", "bfloat16", "cpu") == "float32"
    assert sampling_precision("bfloat16", "float32", "cpu") == "bfloat16"


def test_samples_are_drawn_in_float32_where_a_cpu_lacks_bfloat16(cpu_without_bfloat16):
    assert sampling_precision("auto", "bfloat16", "cpu") == "float32"
    with pytest.raises(DeviceError, match="precision bfloat16: this CPU"):
        sampling_precision("bfloat16", "float32", "cpu")
