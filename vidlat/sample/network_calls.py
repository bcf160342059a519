"""Calls of a trained network: in the precision of the sampling, of as many items as memory suffices for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidlat.encode.memory import ShrinkingCalls, within_memory


class NetworkCalls:
    """A network to sample with, called as in training.

    precision: float32 or bfloat16, in which case autocast chooses what is computed in it. Where the memory of
    the device does not suffice for all items, they are computed in calls of half as many, and so are those of
    all later calls. That changes predictions by rounding at most.
    """

    def __init__(self, network: nn.Module, precision: str = "float32") -> None:
        self._network, self._is_half = network, precision == "bfloat16"
        self._calls = ShrinkingCalls()

    @torch.no_grad()
    def __call__(
        self, inputs: Tensor, timestep: Tensor, features: Tensor | None, span: Tensor | None = None
    ) -> Tensor:
        """The float32 prediction for inputs (B, C, t, h, w), timesteps (B,) and features (B, D) or None.

        span: (B,), for the network of a mean flow.

        Raises NotEnoughMemoryError if memory does not suffice for a single item.
        """
        shape = "x".join(map(str, inputs.shape[2:]))
        refusal = (
            f"not enough memory on {inputs.device} for the U-Net and one sample of {shape} latents; free "
            "some, sample fewer --frames, or use another --device"
        )

        def call(rows: slice) -> Tensor:
            others = [timestep[rows], _rows_of(features, rows)]
            if span is not None:
                others.append(span[rows])
            return within_memory(lambda: self._call(inputs[rows], *others), inputs.device, refusal)

        return torch.cat(self._calls(call, len(inputs)))

    def _call(self, inputs: Tensor, *others: Tensor | None) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._is_half):
            prediction: Tensor = self._network(inputs, *others)
        return prediction.float()


def _rows_of(features: Tensor | None, rows: slice) -> Tensor | None:
    return None if features is None else features[rows]
