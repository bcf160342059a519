"""diffusers' AutoencoderKL behind the interface of all: every frame is an image of its own.

Shape letters: N stacks, S frames per stack, C channels of an image, H height, W width; L latent channels,
h, w latent height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

DECODER_SETTINGS = {"out_channels", "up_block_types", "use_post_quant_conv"}
"""Those of the settings that change the decoder alone."""


class ImageAutoencoder:
    """An AutoencoderKL of gray or RGB images in [-1, 1]; see `Autoencoder`.

    Latents are scaled as in the pipelines of diffusers: (z - shift) * scale. network: with slicing and tiling
    off, as it is by default. settings: the arguments of its class, as `read_settings` returns them.
    """

    library = "diffusers"
    time_compression = 1

    def __init__(self, network: nn.Module, settings: dict[str, Any]) -> None:
        self.network: Any = network
        self.space_compression = 2 ** (len(settings["block_out_channels"]) - 1)
        self.latent_dim: int = settings["latent_channels"]
        self.encoder_config = {"class": "AutoencoderKL"} | {
            name: value
            for name, value in settings.items()
            if name not in DECODER_SETTINGS and value is not None
        }
        # Buffers of the network go where it goes; those that are not persistent are not among its tensors.
        for name, values in _shift_and_scale(settings).items():
            network.register_buffer(name, values, persistent=False)

    def memory_format(self, device_type: str) -> torch.memory_format:  # noqa: ARG002
        """The default; channels last is hardly faster on a CPU, and its norms are less exact there."""
        return torch.contiguous_format

    def hold_in_bfloat16(self, device_type: str) -> None:  # noqa: ARG002
        """All but the layers that take or give pixels or latents, as for MAISI's network."""
        encoder, decoder = self.network.encoder, self.network.decoder
        for module in (encoder.down_blocks, encoder.mid_block, decoder.mid_block, decoder.up_blocks):
            module.bfloat16()
        for module in (encoder.down_blocks[0], decoder.mid_block):
            module.register_forward_pre_hook(_input_to_bfloat16)
        for module in (encoder.conv_norm_out, decoder.conv_norm_out):
            module.register_forward_pre_hook(_input_to_float32)

    def encode(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled mean and standard deviation; a network of three channels sees the gray frame in each."""
        num_channels: int = self.encoder_config["in_channels"]
        images = stacks.transpose(1, 2).flatten(0, 1).expand(-1, num_channels, -1, -1)  # (N * S, C, H, W)
        posterior = self.network.encode(2 * images - 1).latent_dist
        mean = (posterior.mean - self.network.latent_shift) * self.network.latent_scale
        std = posterior.std * self.network.latent_scale
        return _to_stacks(mean, len(stacks)), _to_stacks(std, len(stacks))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames: the mean of the channels of each image."""
        flat = latents.transpose(1, 2).flatten(0, 1)  # (N * S, L, h, w)
        unscaled = flat / self.network.latent_scale + self.network.latent_shift
        images = self.network.decode(unscaled).sample
        return _to_stacks((images.mean(1, keepdim=True) + 1) / 2, len(latents))


def _shift_and_scale(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The two by their names as buffers, each (L, 1, 1): diffusers states one number for all, or one each."""
    num_channels = settings["latent_channels"]
    shift = settings["latents_mean"] or [settings["shift_factor"] or 0.0] * num_channels
    spread = settings["latents_std"] or [1.0] * num_channels
    scale = [settings["scaling_factor"] / std for std in spread]
    return {
        name: torch.tensor(values)[:, None, None]
        for name, values in (("latent_shift", shift), ("latent_scale", scale))
    }


def _to_stacks(images: torch.Tensor, num_stacks: int) -> torch.Tensor:
    """(N * S, C, H, W) to (N, C, S, H, W)."""
    return images.reshape(num_stacks, -1, *images.shape[1:]).transpose(1, 2)


def _input_to_bfloat16(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0].bfloat16(), *inputs[1:]


def _input_to_float32(_: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].float()
