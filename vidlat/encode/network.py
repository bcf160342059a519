"""AutoencoderKlMaisi as published, and the same network without its memory-saving wrappers."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from monai.apps.generation.maisi.networks import autoencoderkl_maisi as maisi
from torch import nn

MAISI_NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 4,
    "num_channels": [64, 128, 256],
    "num_res_blocks": [2, 2, 2],
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
    "attention_levels": [False, False, False],
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "use_convtranspose": False,
}
"""The network of the published weights: 130 tensors, 20,944,897 parameters."""

TINY_NETWORK: dict[str, Any] = {
    **MAISI_NETWORK,
    "num_channels": [16, 32, 64],
    "num_res_blocks": [1, 2, 1],
    "norm_num_groups": 4,
    "use_convtranspose": True,
}
"""A small network of the same class: that of `vidlat fit-vae` from scratch and of the embedded `tiny`."""


def build_network(network: dict[str, Any]) -> nn.Module:
    """MONAI's AutoencoderKlMaisi with the settings that only save memory switched off.

    Split convolutions lose rows of sizes that do not divide evenly, and float16 norms fail in a float32 pass.
    Neither setting changes the mathematics or the names of the tensors.
    """
    autoencoder: nn.Module = maisi.AutoencoderKlMaisi(
        **network, num_splits=1, dim_split=0, norm_float16=False, save_mem=False
    )
    return autoencoder


def bypass_wrappers(network: nn.Module) -> nn.Module:
    """Replace MAISI's group norm and convolution wrappers by plain layers with the same tensors, in place.

    The wrappers loop over groups and splits in Python. Mathematics and state dict stay the same.
    """
    for name, child in list(network.named_children()):
        if isinstance(child, maisi.MaisiGroupNorm3D):
            # On "meta": takes no memory and no random numbers, and its tensors are replaced at once.
            plain = nn.GroupNorm(child.num_groups, child.num_channels, child.eps, child.affine, device="meta")
            plain.weight, plain.bias = child.weight, child.bias
            setattr(network, name, plain)
        elif isinstance(child, maisi.MaisiConvolution):
            setattr(network, name, _PlainConvolution(child.conv))
        else:
            bypass_wrappers(child)
    return network


class _PlainConvolution(nn.Module):
    """MONAI's convolution without its wrapper, run by oneDNN on a CPU.

    For one small float32 input PyTorch would choose a slow kernel of its own, which took half of a call.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: nn.Module = self.conv.conv  # type: ignore[assignment]
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
        if isinstance(layer, nn.Conv3d) and x.device.type == "cpu" and exact and _has_onednn():
            padding: Any = layer.padding
            return torch.mkldnn_convolution(
                x, layer.weight, layer.bias, padding, layer.stride, layer.dilation, layer.groups
            )
        output: torch.Tensor = layer(x)
        return output


@cache
def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def compression_of(network: nn.Module) -> int:
    """Pixels per latent position along each axis; every down-sampling halves all three axes."""
    num_halvings = sum(isinstance(module, maisi.MaisiDownsample) for module in network.modules())
    return int(2**num_halvings)
