"""How different two pictures look: by their gradients at several scales, or by the features of a network.

The published perceptual losses need weights that cannot be had everywhere, and were trained on photographs.
Gradients need none: they weigh edges and texture, which a pixel error blurs, but know nothing of content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, normalize

from vidlat.config import ChosenFit
from vidlat.encode.torchscript import read_network
from vidlat.errors import ConfigError, WeightsError, is_out_of_memory, one_line

NUM_SCALES = 3
"""Of the gradients: frames as they are, and averaged over 2 x 2 and 4 x 4 pixels."""

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of two batches of frames (N, 1, H, W), as a tensor of no dimension."""


def gradient_distance(frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference of image gradients, over both directions and all scales that there are.

    frames, others: (N, 1, H, W). A gradient is the difference of neighbouring pixels of a scale.
    """
    error = frames - others  # differences and averages are linear
    parts = []
    for _ in range(NUM_SCALES):
        parts += [error.diff(dim=axis).abs().mean() for axis in (2, 3) if error.shape[axis] > 1]
        if min(error.shape[-2:]) < 2:
            break
        error = avg_pool2d(error, 2)
    return torch.stack(parts).mean()


class FeatureDistance:
    """The distance of a network's features, normalised over channels: LPIPS without learned weights.

    network: takes (N, 3, H, W) in [0, 1], gray repeated, and returns features (N, C, h, w) or a list of them;
    decoded frames may leave [0, 1] a little. Zhang et al. 2018, arXiv 1801.03924.
    """

    def __init__(self, network: Callable[[torch.Tensor], Any]) -> None:
        self._network = network

    def __call__(self, frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            expected = self._features(others)
        pairs = zip(self._features(frames), expected, strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in pairs]).sum()

    def _features(self, frames: torch.Tensor) -> list[torch.Tensor]:
        features = self._network(frames.expand(-1, 3, -1, -1))
        maps = list(features) if isinstance(features, Sequence) else [features]
        if not maps or not all(isinstance(each, torch.Tensor) and each.ndim == 4 for each in maps):
            raise WeightsError("its output is no tensor (N, C, h, w) and no list of such")
        return [normalize(each.float(), dim=1, eps=1e-10) for each in maps]


def load_perceptual(settings: ChosenFit, device: torch.device) -> Distance:
    """The distance that the settings name; raises WeightsError for a network that is not as stated.

    Raises ConfigError for a network without a weight, or one on the hub that is not named in full.
    """
    if settings.perceptual == "gradients":
        return gradient_distance
    if not settings.perceptual_weight:
        raise ConfigError(
            f"perceptual: got {settings.perceptual}, which counts nothing with a --perceptual-weight of 0; "
            "give a weight, such as the 0.3 of recipe maisi"
        )
    file = read_network(settings.perceptual, "perceptual", settings.perceptual_hash)
    if file.sha256 != settings.perceptual_hash:
        raise WeightsError(
            f"{file.path}: its SHA-256 is {file.sha256}, and --perceptual-hash {settings.perceptual_hash}; "
            "give the file that was meant, or its hash"
        )
    side = settings.patch or settings.size
    try:
        distance = FeatureDistance(file.load(device))
        _require_gradient(distance, side, device)
    except (RuntimeError, ValueError, TypeError, torch.jit.Error, WeightsError) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"{file.path}: cannot be used as a perceptual network ({one_line(error)[:300]}); expected a "
            f"TorchScript file that takes (N, 3, {side}, {side}) and returns features"
        ) from error
    return distance


def _require_gradient(distance: Distance, side: int, device: torch.device) -> None:
    """Raise WeightsError or RuntimeError for a distance that says nothing of how a picture should change."""
    generator = torch.Generator(device).manual_seed(0)  # the global generator's state stays as it is
    one, other = torch.rand(2, 1, 1, side, side, device=device, generator=generator)
    (gradient,) = torch.autograd.grad(distance(one.requires_grad_(), other), one)
    if not gradient.isfinite().all():
        raise WeightsError("the gradient of its features is not finite")
    if not gradient.any():
        raise WeightsError("its features, normalised over channels, do not depend on the picture")
