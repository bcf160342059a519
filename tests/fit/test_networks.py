"""Which network is trained, from scratch or from a file, and what cannot be."""

import pytest
import torch

from tests.fit.small import config
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network
from vidlat.errors import ConfigError, TimingError
from vidlat.fit.networks import likeness_of, load_start, network_from_scratch, require_suited
from vidlat.fit.plan import plan_network


def test_without_settings_the_networks_are_those_of_their_names():
    assert network_from_scratch(config()) == TINY_NETWORK
    assert network_from_scratch(config(network="tiny", start="random")) == TINY_NETWORK
    assert network_from_scratch(config(network="maisi")) == MAISI_NETWORK


@pytest.mark.parametrize(
    ("settings", "num_groups"),
    [
        ({"network": "maisi", "start": "pca"}, 16),  # of the 4 channels of the last norm, two hold constants
        ({"latent_dim": 16}, 1),
        ({"channels": (64, 128, 256), "latent_dim": 7}, 4),
        ({"network": "maisi", "channels": (48, 96, 192)}, 16),  # 32 do not divide 48
        ({"channels": (12, 24, 36), "start": "random"}, 4),
    ],
)
def test_groups_divide_every_width_and_hold_the_linear_start(settings, num_groups):
    network = network_from_scratch(config(**settings))
    assert network["norm_num_groups"] == num_groups
    assert all(width % num_groups == 0 for width in network["num_channels"])
    with torch.device("meta"):
        build_network(network)


def test_a_linear_start_has_transposed_convolutions():
    assert network_from_scratch(config(network="maisi", start="pca"))["use_convtranspose"]
    assert not network_from_scratch(config(network="maisi"))["use_convtranspose"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (16, 32)}, "res_blocks: got 3 levels; expected 2"),
        ({"channels": (16, 32), "res_blocks": (1, 1)}, "channels: got 16,32; expected for --start pca three"),
        (
            {"channels": (16, 16, 32)},
            "channels: got 16,16,32; expected for --start pca three widths that grow",
        ),
        ({"channels": (4, 16, 32)}, "of at least 8 and 4 and more; or take --start random"),
        ({"latent_dim": 32}, "latent_dim: got 32; expected for --start pca at most 31"),
        ({"latent_dim": 40}, "channels: got 16,32,64; expected for --start pca .* of at least 8 and 40"),
    ],
)
def test_networks_that_cannot_start_linearly_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        network_from_scratch(config(**settings))


def test_a_random_start_takes_other_widths():
    network = network_from_scratch(config(channels=(8, 8), res_blocks=(1, 2), start="random", latent_dim=40))
    assert network["num_channels"] == [8, 8]
    assert network["attention_levels"] == [False, False]
    build_network(network)


@pytest.mark.parametrize("name", ["network", "channels", "res_blocks", "start"])
def test_a_network_from_scratch_and_one_to_fine_tune_exclude_each_other(name):
    value = {"network": "tiny", "channels": (8, 8), "res_blocks": (1, 1), "start": "pca"}[name]
    with pytest.raises(ConfigError, match=f"{name}: is for a network from scratch, and --init gives one"):
        config(init="tiny", **{name: value})


def test_an_encoder_is_kept_of_given_weights_alone():
    with pytest.raises(ConfigError, match="freeze_encoder: keeps the encoder of --init; give such weights"):
        config(freeze_encoder=True)


def test_weights_of_another_number_of_latent_channels_are_refused(small_vae):
    with pytest.raises(ConfigError, match="latent_dim: got 5, but the weights of --init have 4"):
        load_start(config(init=str(small_vae), latent_dim=5), small_vae)
    _, network = load_start(config(init=str(small_vae), latent_dim=4), small_vae)
    assert likeness_of(network) == "tiny"
    assert likeness_of(MAISI_NETWORK) == "maisi"


def test_an_autoencoder_of_diffusers_is_not_trained():
    with pytest.raises(ConfigError, match="init: got diffusers:x; expected weights of MAISI's class"):
        plan_network(config(init="diffusers:x"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"stack": 6}, TimingError, "nearest that works: 4 and 8"),
        ({"size": 18}, ConfigError, "size: got 18; expected a multiple of 4"),
        ({"patch": 6}, ConfigError, "patch: got 6; expected a multiple of 4"),
    ],
)
def test_calls_that_the_network_cannot_take_are_refused(settings, error, message):
    with torch.device("meta"):
        network = build_network(TINY_NETWORK)
    with pytest.raises(error, match=message):
        require_suited(network, config(**settings))


def test_shorter_calls_are_the_stack_halved():
    assert config(stack=24, shortest_stack=6).call_lengths == (24, 12, 6)
    assert config(stack=12).call_lengths == (12,)
    for shortest in (1, 8, 24):
        with pytest.raises(
            ConfigError, match="expected --stack 12 halved any number of times, one of 12, 6, 3"
        ):
            config(stack=12, shortest_stack=shortest)


def test_settings_that_are_not_given_are_those_of_the_recipe():
    tiny, maisi = config().chosen("tiny"), config(network="maisi", size=128).chosen("maisi")
    assert (tiny.loss, tiny.stack, tiny.patch, tiny.learning_rate, tiny.start) == (
        "log-mse",
        4,
        None,
        1e-3,
        "pca",
    )
    assert (maisi.loss, maisi.stack, maisi.patch, maisi.batch, maisi.start) == ("l1", 64, 64, 2, "random")
    assert (maisi.perceptual_weight, maisi.adversarial_weight, maisi.learning_rate) == (0.3, 0.1, 1e-4)
    mixed = config(network="maisi", recipe="tiny", kl_weight=0.0, size=128).chosen("maisi")
    assert (mixed.loss, mixed.kl_weight, mixed.network) == ("log-mse", 0.0, "maisi")
    assert config(network="maisi").chosen("maisi").patch is None  # a frame is smaller


def test_a_patch_larger_than_the_frames_is_refused():
    with pytest.raises(ConfigError, match="patch: got 20; expected at most --size, 16"):
        config(patch=20)


def test_epochs_are_another_way_to_say_steps():
    with pytest.raises(ConfigError, match="epochs: another way to say --steps; give one of them"):
        config(epochs=2.0)
