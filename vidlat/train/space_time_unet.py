"""A U-Net for short clips of latents: it down-samples space only, and attends over time at every level.

Shape letters: B items, C channels, t latent frames, h and w height and width at a level, N sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vidlat.train.unet import feature_embedding

HEAD_CHANNELS = 32
NUM_GROUPS = 8
LEVELS_IN_SPACE = 2
"""Number of smallest levels that attend within a frame too; at the others a frame has too many positions."""

MAX_SEQUENCES = 2**15
"""Sequences per attention call: GPU kernels refuse more than 65535."""

_LONGEST_PERIOD = 10_000.0


class SpaceTimeUNet(nn.Module):
    """Noised latents (B, in_channels, t, h, w), timesteps (B,) and features to (B, out_channels, t, h, w).

    Every axis may have any length >= 1. Time, 4 to 16 latent frames as a rule, is never down-sampled; height
    and width are edge-padded to a multiple and the output is cropped. timestep: in [0, 1]. features: (B,
    num_features), a condition; zeros mean unknown, see `feature_embedding`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int],
        num_blocks: int,
        num_features: int = 0,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.embedding = _Embedding(channels[0], num_features)
        width = self.embedding.width
        self.first = _in_space(in_channels, channels[0])
        attends = [level >= len(channels) - LEVELS_IN_SPACE for level in range(len(channels))]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        now, skipped = channels[0], [channels[0]]
        for level, size in enumerate(channels):
            for _ in range(num_blocks):
                self.down.append(_Block(now, size, width, attends[level]))
                skipped.append(now := size)
            if level + 1 < len(channels):
                self.down.append(_Halve(now))
                skipped.append(now)
        self.middle = _Block(now, now, width, attends_in_space=True)
        for level, size in reversed(list(enumerate(channels))):
            for _ in range(num_blocks + 1):
                self.up.append(_Block(now + skipped.pop(), size, width, attends[level]))
                now = size
            if level:
                self.up.append(_Double(now))
        self.last = nn.Sequential(_norm(now), nn.SiLU(), _zero_initialised(_in_space(now, out_channels)))
        self.checkpoints_activations = False

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The prediction, of the latents' length, height and width."""
        height, width = latents.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            latents = functional.pad(latents, (0, right, 0, below, 0, 0), mode="replicate")
        embedded = self.embedding(timestep, features)
        x = self.first(latents)
        skipped = [x]
        for block in self.down:
            x = self._run(block, x, embedded)
            skipped.append(x)
        x = self._run(self.middle, x, embedded)
        for block in self.up:
            if isinstance(block, _Block):
                x = torch.cat([x, skipped.pop()], dim=1)
            x = self._run(block, x, embedded)
        prediction: torch.Tensor = self.last(x)
        return prediction[..., :height, :width]

    def _run(self, block: nn.Module, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        if self.checkpoints_activations and self.training:
            recomputed: torch.Tensor = checkpoint(block, x, embedded, use_reentrant=False)
            return recomputed
        output: torch.Tensor = block(x, embedded)
        return output


class _Embedding(nn.Module):
    """Timesteps (B,) and features (B, num_features) to the input (B, width) of every adaptive norm."""

    def __init__(self, channels: int, num_features: int) -> None:
        super().__init__()
        self.num_waves, self.width = channels, 4 * channels
        self.timestep = nn.Linear(channels, self.width)
        self.features = feature_embedding(num_features, self.width) if num_features else None
        self.mixed = nn.Linear(self.width, self.width)

    def forward(self, timestep: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        half = self.num_waves // 2
        exponents = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
        # Timesteps up to 1000, as the sinusoids of Vaswani et al. expect them.
        angles = 1000 * timestep.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
        hidden = self.timestep(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.features is not None and features is not None:
            hidden = hidden + self.features(features)
        mixed: torch.Tensor = self.mixed(functional.silu(hidden))
        return functional.silu(mixed)


class _Block(nn.Module):
    """Two convolutions in space with an adaptive norm between them, one along time, then attention."""

    def __init__(self, in_channels: int, out_channels: int, width: int, attends_in_space: bool) -> None:
        super().__init__()
        self.norm_in, self.conv_in = _norm(in_channels), _in_space(in_channels, out_channels)
        self.scale_and_shift = nn.Linear(width, 2 * out_channels)
        self.norm_out = _norm(out_channels)
        self.conv_out = _zero_initialised(_in_space(out_channels, out_channels))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)
        self.norm_time = _norm(out_channels)
        self.conv_time = _zero_initialised(
            nn.Conv3d(out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))
        )
        self.attention = nn.ModuleList([_Attention(out_channels, "time")])
        if attends_in_space:
            self.attention.append(_Attention(out_channels, "space"))

    def forward(self, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.scale_and_shift(embedded)[..., None, None, None].chunk(2, dim=1)
        hidden = self.norm_out(hidden) * (1 + scale) + shift
        x = self.skip(x) + self.conv_out(functional.silu(hidden))
        x = x + self.conv_time(functional.silu(self.norm_time(x)))
        for attention in self.attention:
            x = x + attention(x)
        return x


class _Attention(nn.Module):
    """Self-attention along time at each position, or among all positions of each frame."""

    def __init__(self, channels: int, axis: Literal["time", "space"]) -> None:
        super().__init__()
        self.axis, self.num_heads = axis, max(channels // HEAD_CHANNELS, 1)
        self.norm = _norm(channels)
        self.to_queries_keys_values = nn.Linear(channels, 3 * channels)
        self.to_output = _zero_initialised(nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, channels, length, height, width = x.shape
        normed = self.norm(x)
        if self.axis == "time":
            sequences = normed.permute(0, 3, 4, 2, 1).reshape(size * height * width, length, channels)
        else:
            sequences = normed.permute(0, 2, 3, 4, 1).reshape(size * length, height * width, channels)
        projected = self.to_queries_keys_values(sequences)
        heads = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        if self.axis == "time":
            queries, keys = rotate(queries), rotate(keys)
        mixed = torch.cat(
            [
                functional.scaled_dot_product_attention(*parts)
                for parts in zip(*(x.split(MAX_SEQUENCES) for x in (queries, keys, values)), strict=True)
            ]
        )
        output = self.to_output(mixed.transpose(1, 2).flatten(2))
        if self.axis == "time":
            back: torch.Tensor = output.view(size, height, width, length, channels).permute(0, 4, 3, 1, 2)
        else:
            back = output.view(size, length, height, width, channels).permute(0, 4, 1, 2, 3)
        return back


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (N, heads, t, C): products depend on the distance in time.

    Su et al. (https://arxiv.org/abs/2104.09864). It sets no limit to the length.
    """
    length, channels = x.shape[-2:]
    exponents = torch.arange(channels // 2, device=x.device, dtype=torch.float32) / (channels // 2)
    times = torch.arange(length, device=x.device, dtype=torch.float32)
    angles = times[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    sine, cosine = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class _Halve(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        halved: torch.Tensor = self.conv(x)
        return halved


class _Double(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _in_space(channels, channels)

    def forward(self, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        doubled: torch.Tensor = self.conv(functional.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))
        return doubled


def _in_space(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, channels)


def _zero_initialised(layer: nn.Module) -> nn.Module:
    """The same layer with zero weights, so that its residual branch starts without effect."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
