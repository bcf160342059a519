"""The space-time network: what it does with time and space, and what it must not do."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vidlat.train.space_time_unet import _Attention, rotate
from vidlat.train.unet import build_unet


@pytest.fixture(scope="module")
def network():
    return awake(build_unet("space-time", "tiny", 4))


def awake(network):
    """Zero-initialised branches would hide everything."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.requires_grad_(False).parameters():
        parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


SIZE = st.integers(1, 9)


@settings(max_examples=12)
@given(length=SIZE, height=SIZE, width=SIZE)
def test_any_size_gives_the_cropped_prediction_of_its_edge_padded_latents(network, length, height, width):
    latents, timestep = torch.randn(1, 4, length, height, width), torch.tensor([0.3])
    padded = functional.pad(latents, (0, -width % 4, 0, -height % 4, 0, 0), mode="replicate")
    prediction = network(latents, timestep)
    assert prediction.shape == latents.shape
    torch.testing.assert_close(prediction, network(padded, timestep)[..., :height, :width])


def test_every_frame_sees_every_other(network):
    """By gradients: the prediction for the first frame depends on all positions of the last."""
    latents = torch.randn(1, 4, 6, 8, 8, requires_grad=True)
    network(latents, torch.tensor([0.5]))[:, :, 0, 3, 3].sum().backward()
    assert (latents.grad.abs().sum((0, 1)) > 0).all()


def test_items_of_a_batch_do_not_see_each_other(network):
    latents, timesteps = torch.randn(3, 4, 4, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    together = network(latents, timesteps)
    for item in range(3):
        alone = network(latents[item : item + 1], timesteps[item : item + 1])
        torch.testing.assert_close(together[item], alone[0], atol=1e-5, rtol=1e-4)


def test_the_timestep_and_the_order_of_frames_matter(network):
    latents = torch.randn(1, 4, 4, 4, 4)
    early, late = network(latents, torch.tensor([0.1])), network(latents, torch.tensor([0.9]))
    assert (early - late).abs().max() > 1e-3
    mixed = latents[:, :, [2, 0, 3, 1]]
    assert (network(mixed, torch.tensor([0.1]))[:, :, [1, 3, 0, 2]] - early).abs().max() > 1e-3


def test_attention_is_what_softmax_says():
    """Written out for one head: softmax of scaled products, of rotated queries and keys along time."""
    torch.manual_seed(0)
    for axis in ("time", "space"):
        layer = awake(_Attention(32, axis))
        x = torch.randn(1, 32, 5, 2, 3)
        values = layer.to_queries_keys_values(layer.norm(x).permute(0, 2, 3, 4, 1))
        query, key, value = values.chunk(3, dim=-1)
        expected = torch.empty_like(query)
        for row in range(2):
            for column in range(3):
                if axis == "time":
                    q, k, v = (part[0, :, row, column] for part in (query, key, value))
                    q, k = rotate(q[None, None])[0, 0], rotate(k[None, None])[0, 0]
                    expected[0, :, row, column] = torch.softmax(q @ k.T / 32**0.5, dim=-1) @ v
        for frame in range(5):
            if axis == "space":
                q, k, v = (part[0, frame].flatten(0, 1) for part in (query, key, value))
                expected[0, frame] = (torch.softmax(q @ k.T / 32**0.5, dim=-1) @ v).view(2, 3, 32)
        expected = layer.to_output(expected).permute(0, 4, 1, 2, 3)
        torch.testing.assert_close(layer(x), expected)


def test_products_of_rotated_channels_depend_on_the_distance_in_time():
    queries, keys = torch.randn(1, 1, 1, 16).expand(1, 1, 9, 16), torch.randn(1, 1, 1, 16).expand(1, 1, 9, 16)
    products = rotate(queries)[0, 0] @ rotate(keys)[0, 0].T
    for offset in range(-8, 9):
        along = products.diagonal(offset)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert (products[0] - products[0, 0]).abs()[1:].max() > 0.1
    torch.testing.assert_close(rotate(queries).norm(dim=-1), queries.norm(dim=-1))


def test_recomputed_activations_give_the_same_gradients():
    torch.manual_seed(0)
    network = build_unet("space-time", "tiny", 4)
    for parameter in network.parameters():
        parameter.data.add_(0.03 * torch.randn_like(parameter))
    latents, timestep = torch.randn(2, 4, 4, 8, 8), torch.tensor([0.2, 0.7])
    gradients = []
    for again in (False, True):
        network.checkpoints_activations = again
        network.zero_grad()
        network.train()(latents, timestep).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for kept, computed in zip(*gradients, strict=True):
        torch.testing.assert_close(computed, kept, rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_it_costs_what_monais_network_of_the_same_preset_does(preset):
    costs = []
    for name in ("space-time", "monai"):
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            network = build_unet(name, preset, 4)
            network(torch.randn(1, 4, 4, 32, 32), torch.tensor([0.5]))
        costs.append(counter.get_total_flops())
    assert costs[0] == pytest.approx(costs[1], rel=0.15)
