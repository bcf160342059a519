"""The network that is trained: one from scratch, of the width and with the start asked for, or a file's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from vidlat.config import ChosenFit, FitVAEConfig, VAENetwork, VAEStart
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network, compression_of
from vidlat.encode.vae_spec import require_size
from vidlat.encode.weights_file import load_network
from vidlat.errors import ConfigError
from vidlat.fit.adversary import require_side
from vidlat.fit.linear_start import NUM_CORNERS
from vidlat.timing import Timing

NETWORKS: dict[VAENetwork, dict[str, Any]] = {"tiny": TINY_NETWORK, "maisi": MAISI_NETWORK}


def network_from_scratch(settings: FitVAEConfig) -> dict[str, Any]:
    """The settings of the AutoencoderKlMaisi asked for; raises ConfigError if there is none.

    With a linear start it has transposed convolutions, because interpolation cannot write a block of pixels,
    and groups that hold the signals, their negatives and two constants; see `linear_start`.
    """
    name = settings.network or "tiny"
    usual = NETWORKS[name]
    channels = list(settings.channels) or usual["num_channels"]
    res_blocks = list(settings.res_blocks) or usual["num_res_blocks"]
    if len(channels) != len(res_blocks):
        raise ConfigError(
            f"res_blocks: got {len(res_blocks)} levels; expected {len(channels)}, one number for each width "
            "of --channels"
        )
    network = {
        **usual,
        "num_channels": channels,
        "num_res_blocks": res_blocks,
        "attention_levels": [False] * len(channels),
        "latent_channels": settings.latent_dim or usual["latent_channels"],
    }
    start: VAEStart = settings.start or ("pca" if name == "tiny" else "random")
    if start == "pca":
        _require_linear_start(channels, network["latent_channels"])
        network["use_convtranspose"] = True
    return {**network, "norm_num_groups": _num_groups(network, start)}


def _require_linear_start(channels: list[int], latent_dim: int) -> None:
    expected = f"three widths that grow, of at least {NUM_CORNERS} and {latent_dim} and more"
    grows = all(narrow < wide for narrow, wide in pairwise(channels))
    if len(channels) != 3 or not grows or channels[0] < NUM_CORNERS or channels[1] < latent_dim:
        got = ",".join(map(str, channels))
        raise ConfigError(f"channels: got {got}; expected for --start pca {expected}; or take --start random")


def _num_groups(network: dict[str, Any], start: VAEStart) -> int:
    """The usual number of groups, or fewer: a divisor of each width that leaves groups wide enough."""
    channels, latent_dim = network["num_channels"], network["latent_channels"]
    num_groups: int = network["norm_num_groups"]
    while num_groups:
        first, last = channels[0] // num_groups, channels[-1] // num_groups
        is_wide_enough = start == "random" or (first >= 2 * 1 + 2 and last >= 2 * latent_dim + 2)
        if is_wide_enough and not any(width % num_groups for width in channels):
            return num_groups
        num_groups //= 2
    raise ConfigError(
        f"latent_dim: got {latent_dim}; expected for --start pca at most {channels[-1] // 2 - 1}, half the "
        "last of --channels less one; or take --start random"
    )


def load_start(settings: FitVAEConfig, init: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The network to train, whose weights are random from scratch, and its settings.

    Raises ConfigError or WeightsError where there is none of that kind.
    """
    if init is None:
        network_settings = network_from_scratch(settings)
        return build_network(network_settings), network_settings
    network, network_settings = load_network(init)
    latent_dim = network_settings["latent_channels"]
    if settings.latent_dim not in (None, latent_dim):
        raise ConfigError(
            f"latent_dim: got {settings.latent_dim}, but the weights of --init have {latent_dim}; "
            "leave out one of the two"
        )
    return network, network_settings


def likeness_of(network_settings: dict[str, Any]) -> VAENetwork:
    """Which of the named networks one is like, by its width."""
    return "maisi" if network_settings["num_channels"] == MAISI_NETWORK["num_channels"] else "tiny"


def require_suited(network: nn.Module, settings: ChosenFit) -> None:
    """Raise ConfigError, TimingError among them, for VAE calls that network or discriminator cannot take."""
    compression = compression_of(network)
    for length in settings.call_lengths:
        Timing(stack=length, compression=compression)  # raises TimingError
    require_size(settings.size, compression)
    if settings.patch:
        require_size(settings.patch, compression, "patch")
    if settings.adversarial_weight:
        require_side(settings.patch or settings.size)
