"""Where fitting a VAE starts: weights that already are the best linear code, so training only adds to it.

A 4x4x4 block holds 64 numbers and the latent keeps 4 of them. The best linear choice is a principal
component analysis (PCA) of the blocks, and AutoencoderKlMaisi can compute it exactly: stride-2 convolutions
gather the block, transposed convolutions spread it out again, residual branches start at zero, and the last
norm of encoder and decoder sees two large constant channels a group, which pin its statistics and let
brightness through.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

BLOCK = 4
"""Side of the block one latent position covers, in frames and in pixels: two halvings."""

_CONSTANT = 30.0
"""Far above any signal (|x| < 10), so that a group's variance is the constants' to within 1 %."""

_CORNERS = list(product((0, 1), repeat=3))


Network = Any
"""An AutoencoderKlMaisi, whose parts MONAI does not annotate."""

Blocks = Any
"""The list of layers of its encoder or decoder."""


@dataclass(frozen=True, slots=True)
class Components:
    """A linear code of blocks: mean value, orthonormal directions (n, 64), deviation along each (n,)."""

    mean: float
    directions: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlockMoments:
    """Of many 4x4x4 blocks, as rows of 64 values: their number, sums (64,) and outer products (64, 64)."""

    count: int
    sums: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]

    @classmethod
    def of_frames(cls, frames: npt.NDArray[np.float32]) -> Self:
        """The moments of the whole blocks in (T, H, W)."""
        num_frames, height, width = (side - side % BLOCK for side in frames.shape)
        split = (num_frames // BLOCK, BLOCK, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        blocks = frames[:num_frames, :height, :width].reshape(split).transpose(0, 2, 4, 1, 3, 5)
        blocks = blocks.reshape(-1, BLOCK**3).astype(np.float64)
        return cls(len(blocks), blocks.sum(axis=0), blocks.T @ blocks)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.count + other.count, self.sums + other.sums, self.products + other.products)

    def principal_components(self, num_components: int) -> Components:
        """The directions in which blocks vary most about their mean, which is one number, not one a position.

        Blocks may lie anywhere in a frame, and only a constant survives as a bias of transposed convolutions.
        """
        mean = self.sums.sum() / (self.count * BLOCK**3)
        shift = mean * self.sums / self.count
        second_moment = self.products / self.count - shift[:, None] - shift[None, :] + mean**2
        values, vectors = np.linalg.eigh(second_moment)  # eigenvalues ascend
        scales = np.sqrt(np.maximum(values[::-1][:num_components], 1e-12))
        return Components(float(mean), vectors[:, ::-1][:, :num_components].T, scales)


@torch.no_grad()
def start_from_components(network: Network, code: Components) -> None:
    """Write the PCA code into an AutoencoderKlMaisi with two down-samplings and transposed convolutions.

    Latent channel j becomes component j over its standard deviation: mean about 0, variance about 1.
    """
    latent_dim = len(code.directions)
    shape = (latent_dim, BLOCK, BLOCK, BLOCK)
    analysis = torch.tensor(code.directions / code.scales[:, None], dtype=torch.float32).reshape(shape)
    synthesis = torch.tensor(code.directions * code.scales[:, None], dtype=torch.float32).reshape(shape)
    _silence_residuals(network)
    _write_encoder(network.encoder.blocks, analysis, code.mean)
    _write_decoder(network.decoder.blocks, synthesis, code.mean)
    eye = torch.eye(latent_dim)[:, :, None, None, None]
    for convolution in (_layer(network.quant_conv_mu), _layer(network.post_quant_conv)):
        convolution.weight.copy_(eye)
        convolution.bias.zero_()
    # The posterior starts narrow: a spread near 1 would drown the signal in noise.
    _layer(network.quant_conv_log_sigma).weight.zero_()
    _layer(network.quant_conv_log_sigma).bias.fill_(-6.0)


def _silence_residuals(network: Network) -> None:
    for module in network.modules():
        if hasattr(module, "conv2") and hasattr(module, "nin_shortcut"):
            _layer(module.conv2).weight.zero_()
            _layer(module.conv2).bias.zero_()
            if not isinstance(module.nin_shortcut, nn.Identity):
                shortcut = _layer(module.nin_shortcut)
                _carry(shortcut, range(min(8, *shortcut.weight.shape[:2])))


def _layer(wrapper: nn.Module) -> Any:
    """The convolution inside MONAI's containers."""
    return next(m for m in wrapper.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d))


def _carry(convolution: Any, channels: range) -> None:
    """Let the first channels pass unchanged and unmixed."""
    centre = convolution.weight.shape[-1] // 2
    for channel in channels:
        convolution.weight[channel] = 0
        convolution.weight[channel, channel, centre, centre, centre] = 1
        convolution.bias[channel] = 0


def _write_encoder(blocks: Blocks, analysis: torch.Tensor, mean: float) -> None:
    latent_dim = len(analysis)
    _carry(_layer(blocks[0]), range(1))
    first, second = (_layer(block.conv) for block in blocks if hasattr(block, "pad"))
    for channel, (z, y, x) in enumerate(_CORNERS):  # eight voxels of one channel become eight channels
        first.weight[channel] = 0
        first.weight[channel, 0, z, y, x] = 1
        first.bias[channel] = 0
    second.weight[:latent_dim] = 0
    for (channel, inner), (z, y, x) in product(enumerate(_CORNERS), _CORNERS):
        voxel = analysis[:, 2 * z + inner[0], 2 * y + inner[1], 2 * x + inner[2]]
        second.weight[:latent_dim, channel, z, y, x] = voxel
    second.bias[:latent_dim] = -mean * analysis.sum(dim=(1, 2, 3))
    _let_through(blocks, latent_dim)


def _write_decoder(blocks: Blocks, synthesis: torch.Tensor, mean: float) -> None:
    latent_dim = len(synthesis)
    _carry(_layer(blocks[0]), range(latent_dim))
    first, second = (_layer(block.conv) for block in blocks if hasattr(block, "use_convtranspose"))
    # A transposed convolution of stride 2 and padding 1 writes position 2i + d of input i with tap 1 + d.
    first.weight[:, :8] = 0
    first.bias[:8] = mean
    for (channel, inner), (z, y, x) in product(enumerate(_CORNERS), _CORNERS):
        voxel = synthesis[:, 2 * z + inner[0], 2 * y + inner[1], 2 * x + inner[2]]
        first.weight[:latent_dim, channel, 1 + z, 1 + y, 1 + x] = voxel
    second.weight[:, 0] = 0
    second.bias[0] = 0
    for channel, (z, y, x) in enumerate(_CORNERS):
        second.weight[channel, 0, 1 + z, 1 + y, 1 + x] = 1
    _let_through(blocks, 1)


def _let_through(blocks: Blocks, num_carried: int) -> None:
    """Make the last norm an identity for the carried channels and the last convolution read only those.

    The carried channels fill the start of the first group. Their negatives beside them keep the group's
    mean at zero, two constants of opposite sign keep its variance; nothing else may enter the group.
    """
    norm, convolution = blocks[-2], _layer(blocks[-1])
    widening = [b for b in blocks if not isinstance(getattr(b, "nin_shortcut", nn.Identity()), nn.Identity)]
    shortcut = _layer(widening[-1].nin_shortcut)
    size = norm.num_channels // norm.num_groups
    if size < 2 * num_carried + 2:
        raise ValueError(
            f"groups of {size} channels cannot hold {num_carried} signals, their negatives and two constants"
        )
    shortcut.weight[num_carried:size] = 0
    shortcut.bias[num_carried:size] = 0
    shortcut.weight[num_carried : 2 * num_carried] = -shortcut.weight[:num_carried]
    norm.weight.fill_(_CONSTANT * (2 / size) ** 0.5)
    for group in range(norm.num_groups):
        for channel, sign in ((group * size + size - 2, 1.0), (group * size + size - 1, -1.0)):
            shortcut.weight[channel] = 0
            shortcut.bias[channel] = sign * _CONSTANT
            # The constants end here: as inputs 30 times a signal's size they would magnify every later step.
            norm.weight[channel] = 0
    norm.bias.zero_()
    convolution.weight.zero_()
    convolution.bias.zero_()
    _carry(convolution, range(num_carried))
