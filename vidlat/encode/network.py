"""AutoencoderKlMaisi as published, and the same network without its memory-saving wrappers.

Shape letters: B stacks, C channels, S frames, H height, W width, G groups.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import torch
from monai.apps.generation.maisi.networks import autoencoderkl_maisi as maisi
from torch import nn
from torch.nn.functional import interpolate, silu

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

DECODER_SETTINGS = {"out_channels", "with_decoder_nonlocal_attn", "use_convtranspose"}
"""Those of the settings that change the decoder alone."""

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
    """Replace MAISI's norms, convolutions and blocks by plain layers with the same tensors, in place.

    The wrappers loop over groups and splits in Python, and the blocks return to the default memory format at
    their end. Mathematics and state dict stay the same.
    """
    for name, child in list(network.named_children()):
        setattr(network, name, _plain(bypass_wrappers(child)))
    return network


def hold_in_bfloat16(network: nn.Module, device_type: str) -> None:
    """Make a network without wrappers compute in bfloat16, in place, but for the layers at its ends.

    Those that take or give pixels or latents keep their float32 weights and compute in float32: what they
    give is not rounded to the 8 bits of bfloat16, and rounding the first costs as much as many others. The
    weights of norms stay float32 on a CPU; the kernel for a GPU takes no other type than its input's.
    """
    parts: Any = network
    inner = *parts.encoder.blocks[1:], *parts.decoder.blocks[:-1]
    for module in (module for block in inner for module in block.modules()):
        if not (isinstance(module, _PlainGroupNorm) and device_type == "cpu"):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    if device_type == "cpu":
        parts.decoder.blocks[-1] = _OneChannelConvolution(parts.decoder.blocks[-1])
    for block in (parts.encoder.blocks[1], parts.decoder.blocks[0]):
        block.register_forward_pre_hook(_input_to_bfloat16)
    for layer in (parts.quant_conv_mu, parts.quant_conv_log_sigma, parts.decoder.blocks[-1]):
        layer.register_forward_pre_hook(_input_to_float32)


def _input_to_bfloat16(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].bfloat16()


def _input_to_float32(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].float()


def _plain(module: nn.Module) -> nn.Module:
    if isinstance(module, maisi.MaisiGroupNorm3D):
        return _PlainGroupNorm(module)
    if isinstance(module, maisi.MaisiConvolution):
        return _PlainConvolution(module.conv)
    if isinstance(module, maisi.MaisiResBlock):
        return _PlainResBlock(module)
    if isinstance(module, maisi.MaisiUpsample):
        return _PlainUpsample(module)
    return module


class _PlainGroupNorm(nn.GroupNorm):
    """Group norm whose statistics are exact to float32 in channels-last memory too, also of bfloat16.

    There PyTorch's CPU kernel adds up all pixels of a group one by one: off by 4e-4 in a stack of 256 x 256.
    """

    def __init__(self, norm: maisi.MaisiGroupNorm3D) -> None:
        # On "meta": takes no memory and no random numbers, and its tensors are replaced at once.
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._normed(x).to(x.dtype) if self._is_computed_here(x) else super().forward(x)

    def then_silu(self, x: torch.Tensor) -> torch.Tensor:
        """SiLU of the norm; where it is computed here, bfloat16 is rounded once and not after each."""
        if not self._is_computed_here(x):
            return silu(super().forward(x))
        return silu(self._normed(x), inplace=True).to(x.dtype)

    def _is_computed_here(self, x: torch.Tensor) -> bool:
        is_channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
        return x.device.type == "cpu" and is_channels_last and not torch.is_grad_enabled()

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """The norm in float32, or in float64 where x is, whatever is rounded afterwards."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        pixels = x.to(dtype).permute(0, 2, 3, 4, 1).flatten(1, 3)  # (B, S * H * W, C)
        means = pixels.mean(1, keepdim=True)
        centred = pixels - means
        groups = len(x), self.num_groups, -1
        means, variances = means.reshape(groups), centred.square().mean(1).reshape(groups)
        offsets = means - means.mean(2, keepdim=True)
        variance = (variances + offsets.square()).mean(2, keepdim=True)
        scale = self.weight.to(dtype).reshape(groups[1:]) * torch.rsqrt(variance + self.eps)
        shift = self.bias.to(dtype).reshape(groups[1:]) + offsets * scale
        normed = torch.addcmul(shift.flatten(1)[:, None], centred, scale.flatten(1)[:, None], out=centred)
        return normed.reshape(len(x), *x.shape[2:], -1).permute(0, 4, 1, 2, 3)


class _PlainResBlock(nn.Module):
    def __init__(self, block: maisi.MaisiResBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.nin_shortcut = block.nin_shortcut  # the identity where the number of channels stays

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(self.norm1.then_silu(x))
        output: torch.Tensor = self.nin_shortcut(x) + self.conv2(self.norm2.then_silu(inner))
        return output


class _PlainUpsample(nn.Module):
    def __init__(self, upsample: maisi.MaisiUpsample) -> None:
        super().__init__()
        self.conv, self.use_convtranspose = upsample.conv, upsample.use_convtranspose

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = x if self.use_convtranspose else interpolate(x, scale_factor=2.0, mode="trilinear")
        output: torch.Tensor = self.conv(larger)
        return output


class _PlainConvolution(nn.Module):
    """MONAI's convolution without its wrapper, run by oneDNN on a CPU.

    For one small float32 input PyTorch would choose a slow kernel of its own, which took half of a call.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: nn.Module = self.conv.conv  # type: ignore[assignment]
        is_cpu = x.device.type == "cpu"
        exact = is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if isinstance(layer, nn.Conv3d) and exact and _has_onednn():
            padding: Any = layer.padding
            return torch.mkldnn_convolution(
                x, layer.weight, layer.bias, padding, layer.stride, layer.dilation, layer.groups
            )
        if isinstance(layer, nn.Conv3d) and is_cpu and x.shape[2] == 2 and layer.training:
            # For two frames oneDNN never writes the gradient of bfloat16 weights (seen in PyTorch 2.13). A
            # frame of zeros, which is what lies beyond the edge anyway, makes them three.
            deeper: torch.Tensor = layer(nn.functional.pad(x, (0, 0, 0, 0, 0, 1)))
            return deeper[:, :, :2]
        output: torch.Tensor = layer(x)
        return output


class _OneChannelConvolution(nn.Module):
    """A 3x3x3 convolution to one channel in float32: a product with all 27 taps, shifted and added up.

    oneDNN computes 16 channels in place of one, and takes four times as long.
    """

    def __init__(self, convolution: _PlainConvolution) -> None:
        super().__init__()
        self.conv = convolution.conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: Any = self.conv.conv
        num, channels, *sides = x.shape
        pixels = x.permute(0, 2, 3, 4, 1).reshape(num, -1, channels)
        by_tap = (layer.weight[0].flatten(1).T @ pixels.mT).reshape(num, 27, *sides)
        total = x.new_zeros(num, *(side + 2 for side in sides))
        for values, tap in zip(by_tap.unbind(1), product(range(3), repeat=3), strict=True):
            # A tap reads at an offset of -1 to 1: what it gives belongs as far to the other side.
            place = (slice(2 - at, 2 - at + side) for at, side in zip(tap, sides, strict=True))
            total[(slice(None), *place)] += values
        output: torch.Tensor = total[:, None, 1:-1, 1:-1, 1:-1] + layer.bias
        return output


@cache
def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def compression_of(network: nn.Module) -> int:
    """Pixels per latent position along each axis; every down-sampling halves all three axes."""
    num_halvings = sum(isinstance(module, maisi.MaisiDownsample) for module in network.modules())
    return int(2**num_halvings)
