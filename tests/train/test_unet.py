import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from monai.networks.nets import DiffusionModelUNet
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vidlat.config import TrainConfig
from vidlat.errors import ConfigError
from vidlat.train.networks.unet import build_unet, feature_embedding, usual_heads


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_unet("monai", "tiny", 4).eval().requires_grad_(False)
    for parameter in network.parameters():  # the last layer starts at zero and would hide everything
        parameter.add_(0.03 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def monais_own(network):
    """MONAI's network, built from its documentation, with the same weights."""
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


@pytest.mark.parametrize("network", ["monai", "space-time"])
def test_presets_grow(network):
    presets = ("tiny", "small", "base", "large")
    with torch.device("meta"):
        networks = [build_unet(network, preset, 4) for preset in presets]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == sorted(counts)


@pytest.mark.parametrize("name", ["monai", "space-time"])
def test_a_condition_has_an_effect_only_once_a_network_has_learnt_it(name):
    """Its last layer is zero-initialised: at first no condition changes a bit of the prediction."""
    torch.manual_seed(0)
    network = build_unet(name, "tiny", 4, num_features=3).eval()
    for parameter_name, parameter in network.named_parameters():
        if "features" not in parameter_name and "class_embedding" not in parameter_name:
            parameter.data.add_(0.03 * torch.randn_like(parameter))
    latents, timestep = torch.randn(1, 4, 2, 4, 4), torch.tensor([0.4])
    nothing, something = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, -0.7]])
    assert torch.equal(network(latents, timestep, something), network(latents, timestep, nothing))
    network(latents, timestep, something).square().sum().backward()
    learning = [p for n, p in network.named_parameters() if "features" in n or "class_embedding" in n]
    assert learning[0].shape[1] == 3
    learning[-1].data.sub_(learning[-1].grad)
    assert not torch.equal(network(latents, timestep, something), network(latents, timestep, nothing))


def test_an_unknown_condition_never_has_an_effect():
    embedding = feature_embedding(3, 8)
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    assert not embedding(torch.zeros(2, 3)).any()
    assert embedding(torch.eye(3)).any(1).all()


@pytest.mark.parametrize("name", ["monai", "space-time"])
def test_a_network_that_takes_a_first_frame_predicts_the_latents_alone(name):
    network = build_unet(name, "tiny", 4, takes_first_frame=True)
    assert network(torch.randn(1, 9, 2, 4, 4), torch.tensor([0.4])).shape == (1, 4, 2, 4, 4)


@pytest.mark.parametrize("name", ["monai", "space-time"])
def test_sizes_may_be_free(name):
    sizes = {"channels": (16, 24, 48), "num_blocks": 2, "num_attending": 1, "num_heads": 4}
    network = build_unet(name, "tiny", 4, **sizes)
    weights = network.state_dict()
    widths = {shape[0] for key, value in weights.items() if (shape := value.shape) and "norm" in key}
    assert {16, 24, 48} <= widths
    assert network(torch.randn(1, 4, 2, 8, 8), torch.tensor([0.5])).shape == (1, 4, 2, 8, 8)
    assert all(each.num_heads == 4 for each in network.modules() if hasattr(each, "num_heads"))


@pytest.mark.parametrize(("attending", "attentions"), [(0, 1), (1, 1 + 5), (3, 1 + 3 * 5)])
def test_the_smallest_levels_attend_within_a_frame(attending, attentions):
    """Two blocks of each level on the way down, three on the way up, and one between."""
    network = build_unet("space-time", "tiny", 4, num_blocks=2, num_attending=attending)
    axes = [each.axis for each in network.modules() if hasattr(each, "axis")]
    assert axes.count("space") == attentions
    assert axes.count("time") == 16


def test_heads_are_even_and_split_a_width(network):
    assert [usual_heads(width) for width in (8, 40, 80, 104, 128, 160)] == [1, 1, 2, 2, 4, 5]


@pytest.mark.parametrize("name", ["monai", "space-time"])
def test_recomputed_activations_take_less_memory(name):
    """Counted as what autograd keeps for the backward pass."""
    network = build_unet(name, "tiny", 4, channels=(16, 32)).train()

    def num_kept():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            network(torch.randn(1, 4, 2, 8, 8), torch.tensor([0.5]))
        return sum(sizes)

    all_of_them = num_kept()
    network.checkpoints_activations = True
    assert num_kept() < all_of_them / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (16, 20)}, "channels: got 20; expected multiples of 8"),
        ({"channels": (16, 24), "heads": 16}, "heads: got 16, and a level of 16 channels"),
        ({"heads": 4}, "heads: are those of --channels; give both"),
    ],
)
def test_sizes_that_no_network_has_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainConfig(**settings)
