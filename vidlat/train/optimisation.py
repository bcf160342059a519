"""One optimiser step: gradients of the global batch, in parts and over several processes, and the update."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from vidlat.config import TrainConfig
from vidlat.train.averaging import start_average, update_average
from vidlat.train.checkpoint import TrainState
from vidlat.train.learning_rate import learning_rate, set_learning_rate
from vidlat.train.noising import NoisedBatch
from vidlat.train.ranks import Ranks


class Optimisation:
    """A network in training: its state, and the steps that change it.

    config: its precision is never `auto`.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
        self._config, self._ranks = config, ranks
        if config.checkpoint_activations:
            network.checkpoints_activations = True  # type: ignore[assignment]
        network.to(ranks.device)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.state = TrainState(model=network, ema=start_average(network), optimiser=optimiser)
        if config.compile:
            network.compile()  # in place: names of weights stay
        self._network = ranks.wrap(network)

    def compute_gradients(self, noised: NoisedBatch) -> tuple[float, float]:
        """Compute the clipped gradients of the global batch; returns its loss and the unclipped norm."""
        loss = self._backward(noised)
        norm = nn.utils.clip_grad_norm_(self.state.model.parameters(), self._config.clip_norm)
        return loss, norm.item()

    def _backward(self, noised: NoisedBatch) -> float:
        """The loss: the sum of squared errors over the number of values that count, in all processes.

        The number is known before the first part, so no part and no process weighs more than its values do.
        """
        count = self._ranks.total(noised.num_counted)
        parts = list(noised.split(self._config.accumulate))
        error = torch.zeros((), device=self._ranks.device)
        for number, part in enumerate(parts, 1):
            with self._ranks.without_sync(self._network) if number < len(parts) else nullcontext():
                part_error = part.squared_error(self.predict(self._network, part))
                # The processes' gradients are averaged, not summed.
                (part_error * (self._ranks.count / count)).backward()  # type: ignore[no-untyped-call]
            error += part_error.detach()
        return (self._ranks.total(error) / count).item()

    def apply_gradients(self) -> float:
        """Update the weights and their average; returns the learning rate."""
        state, rate = self.state, learning_rate(self._config, self.state.step)
        set_learning_rate(state.optimiser, rate)
        state.optimiser.step()
        self.clear_gradients()
        update_average(state.ema, state.model, self._config.ema_decay, state.step)
        state.step += 1
        return rate

    def clear_gradients(self) -> None:
        """Forget the computed gradients."""
        self.state.optimiser.zero_grad()

    def predict(self, network: nn.Module, noised: NoisedBatch) -> torch.Tensor:
        """A network's prediction for a noised batch, in the precision of the settings."""
        is_half = self._config.precision == "bfloat16"
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=is_half):
            prediction: torch.Tensor = network(noised.inputs, noised.timestep, noised.features)
        return prediction
