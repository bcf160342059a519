"""The space-time network: what it does with time and space, and what it must not do."""

import copy
import hashlib
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.thorough import some_of
from vidlat.train.networks import space_time_unet
from vidlat.train.networks.space_time_unet import _Attention, attend, rotary_table, rotate
from vidlat.train.networks.unet import build_unet

SHAPES = "c9a578cba98e1ef6ced4060ca681de0792fc4948c6b40a5d7f4292aedd4e5ed8"
"""Of the names and shapes of the weights of `tiny`."""


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
        layer, table = awake(_Attention(32, 1, axis)), rotary_table(5, 32, torch.device("cpu"))
        x = torch.randn(1, 32, 5, 2, 3)
        values = layer.to_queries_keys_values(layer.norm(x).permute(0, 2, 3, 4, 1))
        query, key, value = values.chunk(3, dim=-1)
        expected = torch.empty_like(query)
        for row in range(2):
            for column in range(3):
                if axis == "time":
                    q, k, v = (part[0, :, row, column] for part in (query, key, value))
                    q, k = rotate_by_pairs(q), rotate_by_pairs(k)
                    expected[0, :, row, column] = torch.softmax(q @ k.T / 32**0.5, dim=-1) @ v
        for frame in range(5):
            if axis == "space":
                q, k, v = (part[0, frame].flatten(0, 1) for part in (query, key, value))
                expected[0, frame] = (torch.softmax(q @ k.T / 32**0.5, dim=-1) @ v).view(2, 3, 32)
        expected = layer.to_output(expected).permute(0, 4, 1, 2, 3)
        torch.testing.assert_close(layer(x, table), expected)


def rotate_by_pairs(x):
    """The rotary embedding of (..., t, C) as it is defined, one channel of each pair at a time."""
    length, channels = x.shape[-2:]
    exponents = torch.arange(channels // 2, dtype=torch.float32) / (channels // 2)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * torch.exp(-math.log(1e4) * exponents)
    sine, cosine = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_by_a_table_is_that_of_pairs_to_the_last_bit(dtype):
    for length, num_heads, channels in ((1, 1, 2), (4, 5, 32), (16, 2, 40), (70, 3, 6)):
        x = torch.randn(3, length, 2, num_heads, channels).to(dtype)
        table = rotary_table(length, channels, x.device).to(dtype)
        expected = rotate_by_pairs(x.movedim(1, 3)).movedim(3, 1)
        assert torch.equal(rotate(x, table), expected)


def attention_written_out(layer, x):
    """Of (B, C, t, h, w), with `nn.MultiheadAttention`'s function along an axis that is moved next to C."""
    across = x.shape[:1] + (x.shape[3:] if layer.axis == "time" else x.shape[2:3])
    order = (0, 3, 4, 2, 1) if layer.axis == "time" else (0, 2, 3, 4, 1)
    sequences = layer.norm(x).permute(order).reshape(math.prod(across), -1, x.shape[1])
    projected = layer.to_queries_keys_values(sequences)
    heads = projected.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = heads.unbind(0)
    if layer.axis == "time":
        queries, keys = rotate_by_pairs(queries), rotate_by_pairs(keys)
    shares = torch.softmax(queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5, dim=-1)
    output = layer.to_output((shares @ values).transpose(1, 2).flatten(2))
    return output.reshape([x.shape[axis] for axis in order]).permute([order.index(a) for a in range(5)])


def block_written_out(block, x, embedded):
    def conv(layer, x):
        return functional.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)

    hidden = conv(block.conv_in, functional.silu(block.norm_in(x)))
    scale, shift = block.scale_and_shift(embedded)[..., None, None, None].chunk(2, dim=1)
    norm = block.norm_out
    hidden = functional.group_norm(hidden, 8, norm.weight, norm.bias) * (1 + scale) + shift
    x = conv(block.skip, x) if hasattr(block.skip, "weight") else x
    x = x + conv(block.conv_out, functional.silu(hidden))
    x = x + conv(block.conv_time, functional.silu(block.norm_time(x)))
    for attention in block.attention:
        x = x + attention_written_out(attention, x)
    return x


def network_written_out(network, latents, timestep):
    """Block by block, each with its own projection of the embedding and its own sines and cosines."""

    def run(layer, x):
        return block_written_out(layer, x, embedded) if hasattr(layer, "norm_in") else layer(x)

    embedded = network.embedding(timestep, None)
    skipped = [x := network.first(latents)]
    for layer in network.down:
        skipped.append(x := run(layer, x))
    x = run(network.middle, x)
    for layer in network.up:
        x = run(layer, torch.cat([x, skipped.pop()], dim=1) if hasattr(layer, "norm_in") else x)
    return network.last(x)


def test_what_is_computed_once_for_all_blocks_changes_no_prediction_and_no_gradient(network):
    """In float64 both ways agree; in float32 the network is as close to that as rounding allows."""
    exact = copy.deepcopy(network).double().requires_grad_(True)
    exact.embedding.timestep.register_forward_pre_hook(lambda layer, inputs: (inputs[0].double(),))
    latents, timestep = torch.randn(2, 4, 3, 8, 12), torch.tensor([0.2, 0.9])
    expected = network_written_out(exact, latents.double(), timestep)
    prediction = exact(latents.double(), timestep)
    torch.testing.assert_close(prediction, expected, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), exact.parameters()) for y in (prediction, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-7)
    assert (network(latents, timestep) - expected).abs().max() < 1e-5 * expected.std()


def test_more_sequences_than_a_call_takes_give_the_same(monkeypatch):
    queries, keys, values = torch.randn(3, 7, 4, 2, 8)
    whole = attend(queries, keys, values)
    monkeypatch.setattr(space_time_unet, "MAX_SEQUENCES", 3)
    torch.testing.assert_close(attend(queries, keys, values), whole)


def test_names_and_shapes_of_the_weights_are_those_of_the_first_release(network):
    """Checkpoints name them: another formulation must not."""
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    assert dict(shapes)["down.0.conv_time.weight"] == (40, 40, 3, 1, 1)
    assert dict(shapes)["down.0.conv_in.weight"] == (40, 40, 1, 3, 3)
    assert hashlib.sha256(repr(shapes).encode()).hexdigest() == SHAPES


@pytest.mark.slow
def test_it_compiles_to_a_single_graph(network):
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    latents, timestep = torch.randn(2, 4, 4, 8, 8), torch.rand(2)
    torch.testing.assert_close(compiled(latents, timestep), network(latents, timestep))


def test_products_of_rotated_channels_depend_on_the_distance_in_time():
    same_at_all_times = torch.randn(1, 1, 2, 1, 16).expand(1, 9, 2, 1, 16)
    queries, keys = rotate(same_at_all_times, rotary_table(9, 16, torch.device("cpu")))[0, :, :, 0].unbind(1)
    products = queries @ keys.T
    for offset in range(-8, 9):
        along = products.diagonal(offset)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert (products[0] - products[0, 0]).abs()[1:].max() > 0.1
    torch.testing.assert_close(queries.norm(dim=-1), same_at_all_times[0, :, 0, 0].norm(dim=-1))


@pytest.mark.parametrize("name", ["space-time", "monai"])
def test_recomputed_activations_give_the_same_gradients(name):
    torch.manual_seed(0)
    network = build_unet(name, "tiny", 4, channels=(16, 32))
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


@pytest.mark.parametrize("preset", some_of(["tiny", "small", "base", "large"]))
def test_it_costs_what_monais_network_of_the_same_preset_does(preset):
    costs = []
    for name in ("space-time", "monai"):
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            network = build_unet(name, preset, 4)
            network(torch.randn(1, 4, 4, 32, 32), torch.tensor([0.5]))
        costs.append(counter.get_total_flops())
    assert costs[0] == pytest.approx(costs[1], rel=0.15)
