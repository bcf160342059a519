"""The start of fitting a VAE: weights that compute the best linear code, so that training improves on it.

A 4x4x4 block holds 64 numbers and the latent keeps a few of them, MAISI's 4. The best linear choice is the
principal component analysis (PCA) of the blocks, and AutoencoderKlMaisi can compute it: stride-2 convolutions
gather a block, transposed convolutions spread it out again, and residual branches are zero-initialised. The
last norm of encoder and decoder would rescale the signal; two large constant channels in each group dominate
its statistics, so that the signal passes almost unchanged.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from vidlat.encode.block_pca import BlockPca

BLOCK = (4, 4, 4)
"""What one latent position covers in (time, height, width): two halvings of each."""

_CONSTANT = 30.0
"""Far above any signal (|x| < 10), so that a group's variance is that of the constants to within 1 %."""

_SMALLEST_SCALE = 1e-3
"""A quarter of a gray level: where videos vary by less, dividing by it would leave the range of float16."""

_LOG_VARIANCE = -10.0
"""Of the posterior, whose standard deviation of 0.007 is noise of about 57 dB. Training hardly changes it:
with 0.05, noise of 40 dB, it saw little else in clips that 16 channels bring back with 45 dB."""

_CORNERS = list(product((0, 1), repeat=3))

NUM_CORNERS = len(_CORNERS)
"""Channels that hold a block of two halvings less: the fewest of a network's first level."""

Network = Any
"""An AutoencoderKlMaisi, whose parts MONAI does not annotate."""

Layers = Any
"""The layers of its encoder or decoder."""


@torch.no_grad()
def start_from_pca(network: Network, pca: BlockPca) -> None:
    """Write a PCA of 4x4x4 blocks into an AutoencoderKlMaisi of two halvings and transposed convolutions.

    pca: with a constant mean, because the bias of a transposed convolution is one value per channel.
    Latent channel j becomes component j over its standard deviation: mean about 0, variance about 1, or less
    where the videos hardly vary.
    Raises ValueError if the groups of the last norm are too small for the code.
    """
    latent_dim, mean = len(pca.components), float(pca.mean[0])
    shape, scales = (latent_dim, *BLOCK), np.maximum(pca.scales, _SMALLEST_SCALE)[:, None]
    analysis = torch.tensor(pca.components / scales, dtype=torch.float32).reshape(shape)
    synthesis = torch.tensor(pca.components * scales, dtype=torch.float32).reshape(shape)
    _zero_residual_branches(network, num_signals=max(len(_CORNERS), latent_dim))
    _write_encoder(network.encoder.blocks, analysis, mean)
    _write_decoder(network.decoder.blocks, synthesis, mean)
    eye = torch.eye(latent_dim)[:, :, None, None, None]
    for convolution in (_convolution(network.quant_conv_mu), _convolution(network.post_quant_conv)):
        convolution.weight.copy_(eye)
        convolution.bias.zero_()
    _convolution(network.quant_conv_log_sigma).weight.zero_()
    _convolution(network.quant_conv_log_sigma).bias.fill_(_LOG_VARIANCE)


def _zero_residual_branches(network: Network, num_signals: int) -> None:
    """Let every residual block pass its first channels unchanged, as many of them as carry a signal."""
    for module in network.modules():
        if hasattr(module, "conv2") and hasattr(module, "nin_shortcut"):
            _convolution(module.conv2).weight.zero_()
            _convolution(module.conv2).bias.zero_()
            if not isinstance(module.nin_shortcut, nn.Identity):
                shortcut = _convolution(module.nin_shortcut)
                _pass_unchanged(shortcut, range(min(num_signals, *shortcut.weight.shape[:2])))


def _convolution(wrapper: nn.Module) -> Any:
    """The convolution inside MONAI's wrappers."""
    return next(m for m in wrapper.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d))


def _pass_unchanged(convolution: Any, channels: range) -> None:
    """Make a convolution the identity for these channels."""
    centre = convolution.weight.shape[-1] // 2
    for channel in channels:
        convolution.weight[channel] = 0
        convolution.weight[channel, channel, centre, centre, centre] = 1
        convolution.bias[channel] = 0


def _write_encoder(layers: Layers, analysis: torch.Tensor, mean: float) -> None:
    latent_dim = len(analysis)
    _pass_unchanged(_convolution(layers[0]), range(1))
    first, second = (_convolution(layer.conv) for layer in layers if hasattr(layer, "pad"))
    for channel, (z, y, x) in enumerate(_CORNERS):  # the eight voxels of a channel become eight channels
        first.weight[channel] = 0
        first.weight[channel, 0, z, y, x] = 1
        first.bias[channel] = 0
    second.weight[:latent_dim] = 0
    for (channel, inner), (z, y, x) in product(enumerate(_CORNERS), _CORNERS):
        voxel = analysis[:, 2 * z + inner[0], 2 * y + inner[1], 2 * x + inner[2]]
        second.weight[:latent_dim, channel, z, y, x] = voxel
    second.bias[:latent_dim] = -mean * analysis.sum(dim=(1, 2, 3))
    _linearise_output(layers, latent_dim)


def _write_decoder(layers: Layers, synthesis: torch.Tensor, mean: float) -> None:
    latent_dim = len(synthesis)
    _pass_unchanged(_convolution(layers[0]), range(latent_dim))
    first, second = (_convolution(layer.conv) for layer in layers if hasattr(layer, "use_convtranspose"))
    # Transposed convolution of stride 2 and padding 1: tap 1 + d of input i writes position 2i + d.
    first.weight[:, :8] = 0
    first.bias[:8] = mean
    for (channel, inner), (z, y, x) in product(enumerate(_CORNERS), _CORNERS):
        voxel = synthesis[:, 2 * z + inner[0], 2 * y + inner[1], 2 * x + inner[2]]
        first.weight[:latent_dim, channel, 1 + z, 1 + y, 1 + x] = voxel
    second.weight[:, 0] = 0
    second.bias[0] = 0
    for channel, (z, y, x) in enumerate(_CORNERS):
        second.weight[channel, 0, 1 + z, 1 + y, 1 + x] = 1
    _linearise_output(layers, 1)


def _linearise_output(layers: Layers, num_signals: int) -> None:
    """Make the last norm the identity for the signal channels, and the last convolution read only those.

    The signals are the first channels of the first group. Their negatives, beside them, keep the group's mean
    at zero, and two constants of opposite sign keep its variance. The group holds nothing else.
    """
    norm, convolution = layers[-2], _convolution(layers[-1])
    shortcuts = (getattr(layer, "nin_shortcut", nn.Identity()) for layer in layers)
    shortcut = _convolution([module for module in shortcuts if not isinstance(module, nn.Identity)][-1])
    size = norm.num_channels // norm.num_groups
    if size < 2 * num_signals + 2:
        raise ValueError(
            f"groups of {size} channels cannot hold {num_signals} signals, their negatives and two constants"
        )
    shortcut.weight[num_signals:size] = 0
    shortcut.bias[num_signals:size] = 0
    shortcut.weight[num_signals : 2 * num_signals] = -shortcut.weight[:num_signals]
    norm.weight.fill_(_CONSTANT * (2 / size) ** 0.5)
    for group in range(norm.num_groups):
        for channel, sign in ((group * size + size - 2, 1.0), (group * size + size - 1, -1.0)):
            shortcut.weight[channel] = 0
            shortcut.bias[channel] = sign * _CONSTANT
            # The constants end here: as inputs 30 times as large as a signal they would magnify later steps.
            norm.weight[channel] = 0
    norm.bias.zero_()
    convolution.weight.zero_()
    convolution.bias.zero_()
    _pass_unchanged(convolution, range(num_signals))
