import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import DiffusionModelUNet
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vidlat.train.unet import build_unet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_unet("tiny", 4).eval().requires_grad_(False)
    for parameter in network.parameters():  # the last layer starts at zero and would hide everything
        parameter.add_(0.03 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def monais_own(network):
    """MONAI's network, built here from its documentation, with the same weights."""
    own = DiffusionModelUNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=4,
        channels=(32, 64, 128),
        num_res_blocks=1,
        attention_levels=(False, True, True),
        num_head_channels=32,
        norm_num_groups=8,
    )
    weights = {name.removeprefix("network."): value for name, value in network.state_dict().items()}
    own.load_state_dict(weights)
    return own.eval().requires_grad_(False)


SIZE = st.integers(1, 9)


@settings(max_examples=12)
@given(length=SIZE, height=SIZE, width=SIZE)
def test_any_size_equals_monais_network_on_edge_padded_latents(network, monais_own, length, height, width):
    latents, timestep = torch.randn(1, 4, length, height, width), torch.tensor([0.3])
    above = [(0, -size % 4) for size in (width, height, length)]
    padded = functional.pad(latents, sum(above, ()), mode="replicate")
    expected = monais_own(padded, torch.tensor([300.0]))[:, :, :length, :height, :width]
    prediction = network(latents, timestep)
    assert prediction.shape == latents.shape
    assert prediction.abs().sum() > 0
    torch.testing.assert_close(prediction, expected)


def test_multiples_of_4_equal_monais_own_network_to_the_last_bit(network, monais_own):
    latents, timestep = torch.randn(2, 4, 4, 8, 8), torch.tensor([0.1, 0.9])
    torch.testing.assert_close(
        network(latents, timestep), monais_own(latents, 1000 * timestep), rtol=0, atol=0
    )


def test_the_timestep_matters(network):
    latents = torch.randn(1, 4, 4, 4, 4)
    early, late = network(latents, torch.tensor([0.1])), network(latents, torch.tensor([0.9]))
    assert (early - late).abs().max() > 1e-3


def test_tiny_costs_5_gflop_and_has_7_million_weights(network):
    assert 7.0e6 < sum(p.numel() for p in network.parameters()) < 7.5e6
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 4, 4, 32, 32), torch.tensor([0.5]))
    assert 4.5e9 < counter.get_total_flops() < 5.5e9


def test_presets_grow():
    counts = [sum(p.numel() for p in build_unet(p, 4).parameters()) for p in ("tiny", "small", "base")]
    assert counts == sorted(counts)
