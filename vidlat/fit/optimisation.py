"""One step of a VAE's training: gradients of the global batch, over several processes, and the update."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vidlat.config import ChosenFit
from vidlat.encode.weights_file import makes_latents
from vidlat.fit.adversary import Adversary
from vidlat.fit.losses import loss_terms, weights_of_terms
from vidlat.fit.perceptual import Distance
from vidlat.train.optimisation import learning_rate, set_learning_rate, start_average, update_average
from vidlat.train.ranks import Ranks
from vidlat.train.runs.checkpoint import Discriminator, TrainState

MEAN_SHARE = 0.05
"""The part of a step that the mean of a kernel makes after a linear start."""


class Reconstruction(nn.Module):
    """A VAE's way from frames to frames as one call, as several processes that train together need it."""

    def __init__(self, network: Any, settings: ChosenFit) -> None:
        super().__init__()
        self.network = network
        self._learns_encoder = not settings.freeze_encoder

    def forward(self, calls: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Frames (N, 1, S, H, W) decoded from a draw of the posterior; its mean and std (N, L, t, h, w)."""
        with torch.set_grad_enabled(self._learns_encoder and torch.is_grad_enabled()):
            mean, std = (values.float() for values in self.network.encode(calls))
        return self.network.decode(mean + std * noise).float(), mean, std


class FitOptimisation:
    """A VAE in training: its state, and the steps that change it.

    network: without MAISI's wrappers. settings: with a precision other than `auto`. perceptual: the distance
    that they name. Raises ConfigError for a discriminator that cannot be. Nothing here lets the host wait for
    a GPU.
    """

    def __init__(self, network: nn.Module, settings: ChosenFit, ranks: Ranks, perceptual: Distance) -> None:
        self._settings, self._ranks = settings, ranks
        # Channels last: a seventh faster to train on a CPU, the layout of tensor cores on a GPU.
        network = network.to(ranks.device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
        if settings.freeze_encoder:
            for name, weight in network.named_parameters():
                weight.requires_grad_(not makes_latents(name))
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(self._weights, lr=settings.learning_rate, weight_decay=0.0, fused=True)
        average = start_average(network)
        # Those that do not learn stay as they are: an average would turn their -0.0 into 0.0.
        pairs = zip(average.parameters(), network.parameters(), strict=True)
        self._average = [mean for mean, weight in pairs if weight.requires_grad]
        kernels = [it for it in self._weights if it.ndim == 5 and it.shape[-1] > 1]
        self._smoothed = kernels if settings.start == "pca" else []
        if settings.checkpoint_activations:
            checkpoint_activations(network)
        self._adversary: Adversary | None = None
        if settings.adversarial_weight:
            side = settings.patch or settings.size
            self._adversary = Adversary(settings.stack, side, settings.learning_rate, ranks)
        self.state = TrainState(model=network, ema=average, optimiser=optimiser)
        if self._adversary:
            self.state.discriminator = Discriminator(self._adversary.model, self._adversary.optimiser)
        self._perceptual = perceptual
        self._weight_of = weights_of_terms(settings)
        self._reconstruct = ranks.wrap(Reconstruction(network, settings))
        self.term_names = self._names()

    def _names(self) -> tuple[str, ...]:
        weighted = [name for name, weight in self._weight_of.items() if weight or name == "kl"]
        if self._settings.stack == 1:
            weighted = [name for name in weighted if name != "change"]
        return (*weighted, "discriminator") if self._adversary else tuple(weighted)

    def compute_gradients(
        self, target: torch.Tensor, noise: torch.Tensor, should_stop: bool = False
    ) -> torch.Tensor:
        """Compute the clipped gradients of the VAE, and of a discriminator, for this process's stacks.

        target: (N, 1, S, H, W) in [0, 1]. noise: standard normal, of the shape of the latents. Returns
        figures on the device: loss, norm of the gradient before clipping, mean squared error and the terms
        as `term_names`, all of the global batch; and how many processes should stop.
        """
        decoded, terms = self._terms(target, noise)
        loss = torch.stack([self._weight_of[name] * term for name, term in terms.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        norm = nn.utils.clip_grad_norm_(self._weights, self._settings.clip_norm)
        if self._adversary:
            discriminated = self._adversary.loss(decoded, target)
            discriminated.backward()  # type: ignore[no-untyped-call]
            other = nn.utils.clip_grad_norm_(self._adversary.weights, self._settings.clip_norm)
            # NaN where that gradient is not finite: the step is then skipped as a whole.
            terms["discriminator"] = discriminated + 0 * other
        mse = (decoded.detach() - target).square().mean()
        own = torch.stack([loss, norm, mse, *(terms[name] for name in self.term_names)]).detach()
        stop = own.new_tensor([float(should_stop)])
        if self._ranks.count == 1:
            return torch.cat([own, stop])
        totals = self._ranks.total(torch.cat([own / self._ranks.count, stop]))
        totals[1] = norm  # the same in each: gradients are averaged before
        return totals

    def _terms(
        self, target: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        lengths = self._settings.call_lengths
        # One channel: frames that follow each other are side by side in memory, and so are the parts.
        calls = target.reshape(-1, 1, lengths[self.state.step % len(lengths)], *target.shape[-2:])
        is_half = self._settings.precision == "bfloat16"
        with torch.autocast(target.device.type, torch.bfloat16, enabled=is_half):
            decoded, mean, std = self._reconstruct(calls, noise)
            decoded = decoded.reshape(target.shape)
            terms = loss_terms(decoded, target, (mean, std), self._settings, self._perceptual)
            if self._adversary:
                terms["adversarial"] = self._adversary.term(decoded)
        return decoded, terms

    def apply_gradients(self, figures: torch.Tensor) -> float:
        """Update the weights and their average; returns the learning rate.

        figures: of `compute_gradients`. If they are not all finite, the step is skipped: weights, moments and
        AdamW's count of steps stay as they are to the last bit, and the average takes the weights once more.
        """
        state, rate = self.state, learning_rate(self._settings, self.state.step)
        skips = (~figures.isfinite().all()).float()
        optimisers = [state.optimiser, *([state.discriminator.optimiser] if state.discriminator else [])]
        before = [kernel.detach().clone() for kernel in self._smoothed]
        for optimiser in optimisers:
            set_learning_rate(optimiser, rate)
            # Read on the device by the fused AdamW, for which torch.amp.GradScaler sets it in the same way.
            optimiser.found_inf = skips  # type: ignore[attr-defined]
            optimiser.step()
            optimiser.zero_grad()
        smooth(self._smoothed, before)
        update_average(self._average, self._weights, self._settings.ema_decay, state.step)
        state.step += 1
        return rate


@torch.no_grad()
def smooth(kernels: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> None:
    """Let the mean of each kernel make a twentieth of the step that it has made since `before`.

    Pictures are smooth, so that all taps of a kernel see nearly the same, and AdamW, which moves each weight
    equally far, moves their sum much too far: 300 steps that begin at a PCA of 16 components end 1.2 dB
    higher with this than without.
    """
    for kernel, old in zip(kernels, before, strict=True):
        kernel.sub_((kernel - old).mean(dim=(2, 3, 4), keepdim=True), alpha=1 - MEAN_SHARE)


def checkpoint_activations(network: Any) -> None:
    """Let each block keep its input alone, and compute what is inside again in the backward pass."""
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
