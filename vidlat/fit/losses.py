"""The terms of a VAE's loss, but for that of a discriminator."""

from __future__ import annotations

import torch

from vidlat.config import ChosenFit, VAELoss
from vidlat.fit.perceptual import Distance

SMALL_MSE = 1e-5
"""Added to each stack's mean squared error: black stacks, far above 50 dB, must not dominate the loss."""


def size_of_error(error: torch.Tensor, loss: VAELoss) -> torch.Tensor:
    """How large the error of stacks (N, 1, S, H, W) is: l1 and mse as mean over values.

    log-mse is the mean log of each stack's mean square, so that every stack counts by its PSNR.
    """
    if loss == "l1":
        return error.abs().mean()
    squares = error.square()
    return squares.mean() if loss == "mse" else squares.mean((1, 2, 3, 4)).add(SMALL_MSE).log().mean()


def divergence(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Of the posterior from a standard normal, per latent value.

    Kingma and Welling 2014, appendix B; NVIDIA's training of MAISI takes the sum over a patch's latents.
    """
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()


def loss_terms(
    decoded: torch.Tensor,
    target: torch.Tensor,
    posterior: tuple[torch.Tensor, torch.Tensor],
    settings: ChosenFit,
    perceptual: Distance,
) -> dict[str, torch.Tensor]:
    """The terms of decoded stacks (N, 1, S, H, W) by name, not weighted; only those that have a weight.

    Changes from frame to frame are also those between the VAE calls that a stack is cut into. The divergence
    is always among them.
    """
    error = decoded - target
    terms = {settings.loss: size_of_error(error, settings.loss), "kl": divergence(*posterior)}
    if settings.change_weight and target.shape[2] > 1:
        terms["change"] = size_of_error(error.diff(dim=2), settings.loss)
    if settings.perceptual_weight:
        frames = [stacks.flatten(0, 2)[:, None] for stacks in (decoded, target)]
        terms["perceptual"] = perceptual(*frames)
    return terms


def weights_of_terms(settings: ChosenFit) -> dict[str, float]:
    """The weight of each term in the loss, by name."""
    return {
        settings.loss: 1.0,
        "kl": settings.kl_weight,
        "change": settings.change_weight,
        "perceptual": settings.perceptual_weight,
        "adversarial": settings.adversarial_weight,
    }
