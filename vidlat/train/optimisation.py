"""One optimiser step: gradients of the global batch, in parts and over several processes, and the update.

Also the learning-rate schedule and the moving average of the weights of every training here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from vidlat.config import ChosenFit, TrainConfig
from vidlat.train.networks.compiled import compile_network, is_compiled
from vidlat.train.objectives.mean_flow import with_adaptive_weight, with_average_target
from vidlat.train.objectives.noising import NoisedBatch
from vidlat.train.ranks import Ranks
from vidlat.train.runs.checkpoint import TrainState
from vidlat.train.runs.power_averages import PowerAverages

Network = TypeVar("Network", bound=nn.Module)


class Optimisation:
    """A network in training: its state, and the steps that change it.

    settings: its precision is never `auto`. show_notice: receives a line if the network cannot be compiled.
    teacher: a network of flow, whose velocity takes the place of noise - x0 in training. Nothing here lets
    the host wait for a GPU.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainConfig,
        ranks: Ranks,
        show_notice: Callable[[str], None],
        teacher: nn.Module | None = None,
    ) -> None:
        self._settings, self._ranks = settings, ranks
        self._teacher = teacher.to(ranks.device) if teacher else None
        if settings.checkpoint_activations:
            network.checkpoints_activations = True  # type: ignore[assignment]
        network.to(ranks.device)
        self._weights = list(network.parameters())  # walking through the modules takes a while
        optimiser = torch.optim.AdamW(
            self._weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        average = start_average(network)
        self._average = list(average.parameters())
        averages = PowerAverages(network) if settings.average_snapshots else None
        self.state = TrainState(model=network, ema=average, optimiser=optimiser, averages=averages)
        self._forward, self._average_forward = network.forward, average.forward  # as they are uncompiled
        if is_compiled(settings.compile, ranks.device):
            for each in (network, average):
                compile_network(each, show_notice)
        self._network = ranks.wrap(network)

    def compute_gradients(self, noised: NoisedBatch, should_stop: bool = False) -> torch.Tensor:
        """Compute the clipped gradients of the global batch.

        Returns (3,) on the device: the loss, which is the sum of squared errors over the number of values
        that count, in all processes; the norm before clipping; and how many processes should stop.
        """
        # Known before the first part, so no part and no process weighs more than its values do.
        count = self._ranks.total(noised.num_counted)
        parts = list(noised.split(self._settings.accumulate))
        error = torch.zeros((), device=self._ranks.device)
        for number, part in enumerate(parts, 1):
            part = self._with_target(part)
            with self._ranks.without_sync(self._network) if number < len(parts) else nullcontext():
                prediction = self.predict(self._network, part)
                part_error = part.squared_error(prediction)
                loss = part_error
                if part.span is not None:
                    loss = with_adaptive_weight(part, prediction).squared_error(prediction)
                # The processes' gradients are averaged, not summed.
                (loss * (self._ranks.count / count)).backward()  # type: ignore[no-untyped-call]
            error += part_error.detach()
        norm = nn.utils.clip_grad_norm_(self._weights, self._settings.clip_norm)
        error, num_stopping = self._ranks.total(torch.stack([error, torch.full_like(error, should_stop)]))
        return torch.stack([error / count, norm, num_stopping])

    def apply_gradients(self, figures: torch.Tensor) -> float:
        """Update the weights and their average; returns the learning rate.

        figures: of `compute_gradients`. If they are not all finite, the step is skipped: weights, moments
        and AdamW's count of steps stay as they are to the last bit, and the average takes the weights once
        more.
        """
        state, rate = self.state, learning_rate(self._settings, self.state.step)
        set_learning_rate(state.optimiser, rate)
        # Read on the device by the fused AdamW, for which torch.amp.GradScaler sets it in the same way.
        state.optimiser.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
        state.optimiser.step()
        state.optimiser.zero_grad()
        update_average(self._average, self._weights, self._settings.ema_decay, state.step)
        state.step += 1
        if state.averages:
            state.averages.update(state.step)
        return rate

    @torch.no_grad()
    def _with_target(self, noised: NoisedBatch) -> NoisedBatch:
        if self._teacher:
            velocity = self.predict(self._teacher, replace(noised, span=None))
            noised = replace(noised, target=velocity.float())
        return with_average_target(self._forward, noised)

    @torch.no_grad()
    def validation_error(self, noised: NoisedBatch) -> torch.Tensor:
        """The sum of squared errors of the averaged weights."""
        noised = with_average_target(self._average_forward, noised, own_tangent=True)
        return noised.squared_error(self.predict(self.state.ema, noised))

    def predict(self, network: nn.Module, noised: NoisedBatch) -> torch.Tensor:
        """A network's prediction for a noised batch, in the precision of the settings."""
        is_half = self._settings.precision == "bfloat16"
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=is_half):
            prediction: torch.Tensor = network(*noised.arguments)
        return prediction


def learning_rate(settings: TrainConfig | ChosenFit, step: int) -> float:
    """The rate of a step counted from 0: linear warm-up, then a half cosine down to 0 at the last step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the optimiser's next step use this rate for every parameter."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def start_average(network: Network) -> Network:
    """A copy of the network to average into: in evaluation mode, without gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(
    average: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], decay: float, step: int
) -> None:
    """Move an average towards the weights after a step counted from 0.

    The decay is min(decay, (1 + step) / (10 + step)): a constant one would keep the initial weights for long.
    Not `torch.optim.swa_utils.AveragedModel`, which has no such warm-up and counts its steps itself.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), list(weights), 1 - decay)
