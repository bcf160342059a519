"""MAISI's autoencoder behind the interface of all: 3-D, with one compression for time and space."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidlat.encode.network import DECODER_SETTINGS, bypass_wrappers, compression_of, hold_in_bfloat16


class MaisiAutoencoder:
    """An AutoencoderKlMaisi without its wrappers; see `Autoencoder`.

    network: as `build_network` makes it; its layers are replaced in place. settings: MAISI_NETWORK's fields.
    """

    library = "monai"

    def __init__(self, network: nn.Module, settings: dict[str, Any]) -> None:
        self.time_compression = self.space_compression = compression_of(network)
        self.latent_dim: int = settings["latent_channels"]
        self.network: Any = bypass_wrappers(network)
        self.encoder_config = {
            name: value for name, value in settings.items() if name not in DECODER_SETTINGS
        }

    def memory_format(self, device_type: str) -> torch.memory_format:
        """On a CPU channels last: oneDNN computes on it as it is, and would reorder the default."""
        return torch.channels_last_3d if device_type == "cpu" else torch.contiguous_format

    def hold_in_bfloat16(self, device_type: str) -> None:
        """All but the layers that take or give pixels or latents."""
        hold_in_bfloat16(self.network, device_type)

    def encode(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, as the network gives them."""
        mean, std = self.network.encode(self._laid_out(stacks))
        return mean, std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames, as the network gives them."""
        frames: torch.Tensor = self.network.decode(self._laid_out(latents))
        return frames

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous(memory_format=self.memory_format(tensor.device.type))
