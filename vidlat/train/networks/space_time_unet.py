"""A U-Net for short clips of latents: it down-samples space only, and attends over time at every level.

Shape letters: B items, C channels, t latent frames, h and w height and width at a level, N sequences.

On a GPU a small network waits for its kernels to be launched, so whatever is the same for all blocks is
computed once per forward pass: see `_Condition`. `benchmarks/launches.py` counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vidlat.train.networks.unet import NUM_GROUPS, feature_embedding

MAX_SEQUENCES = 2**15
"""Sequences per attention call: GPU kernels refuse more than 65535."""

_LONGEST_PERIOD = 10_000.0

TIMESTEP_BLUR = 0.03
"""Standard deviation of the Gaussian by which timesteps are blurred where the span is known.

What the fastest sinusoids contribute is jitter, which does no harm until a mean flow differentiates by the
timestep: then it is most of the derivative (docs/design/0014-mean-flow.md).
"""


class SpaceTimeUNet(nn.Module):
    """Noised latents (B, in_channels, t, h, w), timesteps (B,) and features to (B, out_channels, t, h, w).

    Every axis may have any length >= 1. Time, 4 to 16 latent frames as a rule, is never down-sampled; height
    and width are edge-padded to a multiple and the output is cropped. timestep: in [0, 1]. features: (B,
    num_features), a condition; zeros mean unknown, see `feature_embedding`. channels, attends, heads: of each
    level, its width, whether it attends within a frame, and into how many heads its attention is split.
    takes_span: whether it is told
    the span (B,) of an average velocity too, from the timestep down to an earlier one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int],
        num_blocks: int,
        attends: Sequence[bool],
        heads: Sequence[int],
        num_features: int = 0,
        takes_span: bool = False,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.embedding = _Embedding(channels[0], num_features, takes_span)
        width = self.embedding.width
        self.first = _in_space(in_channels, channels[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        now, skipped = channels[0], [channels[0]]
        for level, size in enumerate(channels):
            for _ in range(num_blocks):
                self.down.append(_Block(now, size, width, heads[level], attends[level]))
                skipped.append(now := size)
            if level + 1 < len(channels):
                self.down.append(_Halve(now))
                skipped.append(now)
        self.middle = _Block(now, now, width, heads[-1], attends_in_space=True)
        for level, size in reversed(list(enumerate(channels))):
            for _ in range(num_blocks + 1):
                self.up.append(_Block(now + skipped.pop(), size, width, heads[level], attends[level]))
                now = size
            if level:
                self.up.append(_Double(now))
        self.last = nn.Sequential(_norm(now), nn.SiLU(), _zero_initialised(_in_space(now, out_channels)))
        self.checkpoints_activations = False

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        features: torch.Tensor | None = None,
        span: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The prediction, of the latents' length, height and width."""
        height, width = latents.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            latents = functional.pad(latents, (0, right, 0, below, 0, 0), mode="replicate")
        x = self.first(latents)
        conditions = self._conditions(self.embedding(timestep, features, span), x)
        skipped = [x]
        for layer in self.down:
            x = self._run(layer, x, conditions)
            skipped.append(x)
        x = self._run(self.middle, x, conditions)
        for layer in self.up:
            if isinstance(layer, _Block):
                x = torch.cat([x, skipped.pop()], dim=1)
            x = self._run(layer, x, conditions)
        prediction: torch.Tensor = self.last(x)
        return prediction[..., :height, :width]

    def _conditions(self, embedded: torch.Tensor, x: torch.Tensor) -> Iterator[_Condition]:
        """The condition of every block, in the order in which they run, of x's length and number type."""
        blocks = [layer for layer in (*self.down, self.middle, *self.up) if isinstance(layer, _Block)]
        head_sizes = [block.head_size for block in blocks]
        tables = {size: rotary_table(x.shape[2], size, x.device).to(x.dtype) for size in set(head_sizes)}
        affines = _adaptive_affines(blocks, embedded)
        return iter([_Condition(*a, tables[size]) for a, size in zip(affines, head_sizes, strict=True)])

    def _run(self, layer: nn.Module, x: torch.Tensor, conditions: Iterator[_Condition]) -> torch.Tensor:
        inputs = (x, next(conditions)) if isinstance(layer, _Block) else (x,)
        if self.checkpoints_activations and self.training and torch.is_grad_enabled():
            recomputed: torch.Tensor = checkpoint(layer, *inputs, use_reentrant=False)
            return recomputed
        output: torch.Tensor = layer(*inputs)
        return output


class _Embedding(nn.Module):
    """Timesteps (B,), features (B, num_features) and spans (B,) to the input (B, width) of adaptive norms."""

    def __init__(self, channels: int, num_features: int, takes_span: bool) -> None:
        super().__init__()
        self.num_waves, self.width = channels, 4 * channels
        self.timestep = nn.Linear(channels, self.width)
        self.features = feature_embedding(num_features, self.width) if num_features else None
        self.mixed = nn.Linear(self.width, self.width)
        self.span = feature_embedding(channels, self.width) if takes_span else None

    def forward(
        self,
        timestep: torch.Tensor,
        features: torch.Tensor | None = None,
        span: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if (self.span is None) != (span is None):
            raise ValueError("span: expected for a network that was built with takes_span, and for no other")
        # Timesteps up to 1000, as the sinusoids of Vaswani et al. expect them.
        waves = _sinusoids(1000 * timestep, self.num_waves)
        if self.span is not None:
            waves = waves * _mean_of_blurred(1000 * TIMESTEP_BLUR, waves)
        hidden = self.timestep(waves)
        if self.features is not None and features is not None:
            hidden = hidden + self.features(features)
        if self.span is not None and span is not None:
            hidden = hidden + self.span(_sinusoids(span, self.num_waves))
        mixed: torch.Tensor = self.mixed(functional.silu(hidden))
        return functional.silu(mixed)


def _sinusoids(values: torch.Tensor, num_waves: int) -> torch.Tensor:
    """Sines and cosines (B, num_waves) of values (B,) at frequencies from 1 down to 1 / _LONGEST_PERIOD."""
    angles = values[:, None] * _frequencies(num_waves, values)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _mean_of_blurred(std: float, waves: torch.Tensor) -> torch.Tensor:
    """What `_sinusoids` (B, num_waves) are multiplied by where their values are blurred by a Gaussian."""
    damping = torch.exp(-((std * _frequencies(waves.shape[1], waves)) ** 2) / 2)
    return damping.repeat(2)


def _frequencies(num_waves: int, like: torch.Tensor) -> torch.Tensor:
    half = num_waves // 2
    exponents = torch.arange(half, device=like.device, dtype=like.dtype) / half
    return torch.exp(-math.log(_LONGEST_PERIOD) * exponents)


class _Condition(NamedTuple):
    """What a block is told besides its input.

    weight, bias: (B, C), of its adaptive norm. rotary: the table of its attention along time.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    rotary: torch.Tensor


class _Block(nn.Module):
    """Two convolutions in space with an adaptive norm between them, one along time, then attention."""

    def __init__(
        self, in_channels: int, out_channels: int, width: int, num_heads: int, attends_in_space: bool
    ) -> None:
        super().__init__()
        self.norm_in, self.conv_in = _norm(in_channels), _in_space(in_channels, out_channels)
        self.scale_and_shift = nn.Linear(width, 2 * out_channels)  # applied by _adaptive_affines
        self.norm_out = _AdaptiveNorm(NUM_GROUPS, out_channels)
        self.conv_out = _zero_initialised(_in_space(out_channels, out_channels))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else _AlongTime(in_channels, out_channels, 1)
        self.norm_time = _norm(out_channels)
        self.conv_time = _zero_initialised(_AlongTime(out_channels, out_channels, 3))
        self.attention = nn.ModuleList([_Attention(out_channels, num_heads, "time")])
        if attends_in_space:
            self.attention.append(_Attention(out_channels, num_heads, "space"))
        self.head_size = out_channels // num_heads

    def forward(self, x: torch.Tensor, condition: _Condition) -> torch.Tensor:
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = self.norm_out(hidden, condition.weight, condition.bias)
        x = self.skip(x) + self.conv_out(functional.silu(hidden))
        x = x + self.conv_time(functional.silu(self.norm_time(x)))
        for attention in self.attention:
            x = x + attention(x, condition.rotary)
        return x


def _adaptive_affines(
    blocks: Sequence[_Block], embedded: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias (B, C) of every block's adaptive norm, from the embedding (B, width).

    norm * (1 + scale) + shift is a norm whose weight and bias differ between items. Those of all blocks come
    from one product.
    """
    projections, norms = [b.scale_and_shift for b in blocks], [b.norm_out for b in blocks]
    sizes = [norm.num_channels for norm in norms]
    projected = functional.linear(
        embedded, torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])
    )
    parts = torch.split(projected, [size for size in sizes for _ in ("scale", "shift")], dim=1)
    scale, shift = 1 + torch.cat(parts[0::2], dim=1), torch.cat(parts[1::2], dim=1)
    weight = torch.cat([norm.weight for norm in norms]) * scale
    bias = torch.cat([norm.bias for norm in norms]) * scale + shift
    return zip(torch.split(weight, sizes, dim=1), torch.split(bias, sizes, dim=1), strict=True)


class _AdaptiveNorm(nn.GroupNorm):
    """Group norm of (B, C, ...) with a weight and a bias (B, C) of each item."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        channels, num_groups = x.flatten(0, 1)[None], len(x) * self.num_groups  # a group is of one item still
        normed = functional.group_norm(channels, num_groups, weight.flatten(), bias.flatten(), self.eps)
        return normed.view_as(x)


class _Attention(nn.Module):
    """Self-attention along time at each position, or among all positions of each frame."""

    def __init__(self, channels: int, num_heads: int, axis: Literal["time", "space"]) -> None:
        super().__init__()
        self.axis, self.num_heads = axis, num_heads
        self.norm = _norm(channels)
        self.to_queries_keys_values = nn.Linear(channels, 3 * channels)
        self.to_output = _zero_initialised(nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        size, channels, length, height, width = x.shape
        normed = self.norm(x)
        if self.axis == "time":
            sequences = normed.permute(0, 3, 4, 2, 1).reshape(size * height * width, length, channels)
        else:
            sequences = normed.permute(0, 2, 3, 4, 1).reshape(size * length, height * width, channels)
        heads = self.to_queries_keys_values(sequences).unflatten(-1, (3, self.num_heads, -1))
        if self.axis == "time":
            turned, values = heads.split([2, 1], dim=2)
            queries, keys = rotate(turned, rotary).unbind(2)
            values = values.squeeze(2)
        else:
            queries, keys, values = heads.unbind(2)
        output = self.to_output(attend(queries, keys, values).flatten(2))
        if self.axis == "time":
            back: torch.Tensor = output.view(size, height, width, length, channels).permute(0, 4, 3, 1, 2)
        else:
            back = output.view(size, length, height, width, channels).permute(0, 4, 1, 2, 3)
        return back


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention among the t members of N sequences; all (N, t, heads, C)."""
    inputs = queries, keys, values
    if len(queries) > MAX_SEQUENCES:
        parts = zip(*(torch.split(x, MAX_SEQUENCES) for x in inputs), strict=True)
        return torch.cat([attend(*part) for part in parts])
    query, key, value = (x.transpose(1, 2) for x in inputs)
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def rotary_table(length: int, channels: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines (2, t, 1, 1, C) float32 by which `rotate` turns heads of C channels, C even.

    A pair of channels has one angle; the sines of its two channels differ in sign.
    """
    exponents = torch.arange(channels // 2, device=device, dtype=torch.float32) / (channels // 2)
    frequencies = torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    times = torch.arange(length, device=device, dtype=torch.float32)
    angles = times[:, None] * torch.stack([-frequencies, frequencies], dim=1).flatten()
    return torch.stack([angles.cos(), angles.sin()])[:, :, None, None]


def rotate(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (N, t, 2, heads, C), queries and keys.

    Their products then depend on the distance in time. Su et al. (https://arxiv.org/abs/2104.09864). It sets
    no limit to the length. table: of `rotary_table`.
    """
    cosine, sine = table
    swapped = torch.unflatten(x, -1, (-1, 2)).flip(-1).flatten(-2)
    rotated: torch.Tensor = x * cosine + swapped * sine
    return rotated


class _Halve(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halved: torch.Tensor = self.conv(x)
        return halved


class _Double(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _in_space(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled: torch.Tensor = self.conv(functional.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))
        return doubled


class _AlongTime(nn.Conv3d):
    """A convolution along time, computed as a 2-D one over (t, h * w), a view.

    On a CPU PyTorch has a slow kernel of its own for the 3-D one.
    """

    def __init__(self, in_channels: int, out_channels: int, length: int) -> None:
        super().__init__(in_channels, out_channels, (length, 1, 1), padding=(length // 2, 0, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, padding = self.weight.squeeze(-1), (self.kernel_size[0] // 2, 0)
        output = functional.conv2d(x.flatten(3), weight, self.bias, padding=padding)
        return torch.unflatten(output, 3, x.shape[3:])


def _in_space(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, channels)


def _zero_initialised(layer: nn.Module) -> nn.Module:
    """The same layer with zero weights, so that its residual branch starts without effect."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
