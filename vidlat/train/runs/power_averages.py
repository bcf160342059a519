"""Averages of the weights whose length is chosen after the training (EDM2).

The power-function average after step t weighs those of step s by s^gamma, so that it covers the same share
of the training at any time. Its length is the standard deviation of that weight function, as a share of the
training. Two such averages are kept, and snapshots of them on the way; a combination of the snapshots comes
near the average of any other length. Karras et al. 2024 (https://arxiv.org/abs/2312.02696, section 3 and
appendix C).

    averages/step_00000200.safetensors   both averages after a step, "<which>.<weight>", float16; the metadata
                                         have the step and the hash of the weights

The state of a checkpoint tells the snapshots so far with their hashes, so a lost one and one of another run
are noticed; checkpoints of before do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from vidlat.encode.weights_file import hash_weights
from vidlat.errors import TrainError, one_line
from vidlat.files import replace_file, require_regular_file
from vidlat.wording import shorten

LENGTHS = 0.05, 0.10
"""Of the averages that are kept (Karras et al. 2024, section 3.2)."""

_WITHOUT = "restore what was written, or leave --average-length out"

Array = npt.NDArray[np.float64]

_NAME = re.compile(r"step_(\d{8,15})\.safetensors")


def power_of(length: float) -> float:
    """gamma of an average of a length in (0, 0.289); equation 123 of the paper, solved."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class PowerAverages:
    """Power-function averages of a network's weights, one for each of LENGTHS.

    written: the hash of each snapshot so far, by file name; None where a checkpoint of before does not tell.
    """

    def __init__(self, network: nn.Module) -> None:
        self.written: dict[str, str] | None = {}
        self._weights: list[torch.Tensor] = list(network.parameters())
        self._powers = [power_of(length) for length in LENGTHS]
        self._averages = [
            {name: weight.detach().clone() for name, weight in network.state_dict().items()} for _ in LENGTHS
        ]
        names = [name for name, _ in network.named_parameters()]
        self._averaged = [[average[name] for name in names] for average in self._averages]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        for power, averaged in zip(self._powers, self._averaged, strict=True):
            torch._foreach_lerp_(averaged, self._weights, 1 - (1 - 1 / step) ** (power + 1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Both averages, by `<which>.<weight>`; they are not copies."""
        return {
            f"{which}.{name}": weight
            for which, average in enumerate(self._averages)
            for name, weight in average.items()
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for name, weight in self.tensors().items():
            weight.copy_(tensors[name])

    def write_snapshot(self, folder: Path, step: int) -> None:
        """Write both as they are after a step; raises TrainError if that cannot be done."""
        path = folder / f"step_{step:08d}.safetensors"
        halves = {name: weight.half().cpu().contiguous() for name, weight in self.tensors().items()}
        described = _described(halves, step)
        try:
            folder.mkdir(exist_ok=True)
            replace_file(path, save(halves, described))
        except OSError as error:
            raise TrainError(f"{path}: the averages cannot be written: {error}") from error
        if self.written is not None:
            self.written[path.name] = described["weights_hash"]


def average_of_length(
    folder: Path, length: float, until: int, written: Mapping[str, str] | None
) -> tuple[dict[str, torch.Tensor], int]:
    """An average of some length from the snapshots up to a step, by name of the weight, and its last step.

    written: as `PowerAverages.written` was after that step. Raises TrainError where there are no snapshots,
    one cannot be read, one of those written is gone, or another is there.
    """
    snapshots = list_snapshots(folder, until)
    if written is not None:
        _require_written(folder, [path.name for _, path in snapshots], written)
    if not snapshots:
        raise TrainError(
            f"{folder.parent} has no snapshots of averages up to step {until}; train with "
            "--average-snapshots, or leave --average-length out"
        )
    last = snapshots[-1][0]
    shares = coefficients(
        [step for step, _ in snapshots for _ in LENGTHS],
        [power_of(each) for _ in snapshots for each in LENGTHS],
        last,
        power_of(length),
    ).reshape(-1, len(LENGTHS))
    weights: dict[str, torch.Tensor] = {}
    for (step, path), of_snapshot in zip(snapshots, shares, strict=True):
        for name, average in _read(path, step, (written or {}).get(path.name)).items():
            which, _, weight = name.partition(".")
            weights[weight] = weights.get(weight, 0) + float(of_snapshot[int(which)]) * average.float()
    return weights, last


def _require_written(folder: Path, found: Sequence[str], written: Mapping[str, str]) -> None:
    """Raise TrainError unless the snapshots that were found are those that the run has written."""
    if lost := [name for name in written if name not in found]:
        raise TrainError(
            f"{folder} has lost {len(lost)} of the {len(written)} snapshots that this run has written: "
            f"{shorten(lost)}; {_WITHOUT}"
        )
    if strange := [name for name in found if name not in written]:
        raise TrainError(
            f"{folder} holds snapshots that this run has not written: {shorten(strange)}; remove them"
        )


def _read(path: Path, step: int, expected_hash: str | None) -> dict[str, torch.Tensor]:
    try:
        require_regular_file(path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            described = _described(tensors, step)
            if file.metadata() != described:
                raise ValueError(f"its content is not what was written after step {step}")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise TrainError(f"{path} is damaged ({one_line(error)}); {_WITHOUT}") from error
    found_hash = described["weights_hash"]
    if expected_hash not in (None, found_hash):
        raise TrainError(
            f"{path} is of another run: its averages have the hash {found_hash}, those of this run "
            f"{expected_hash}; {_WITHOUT}"
        )
    return tensors


def _described(tensors: dict[str, torch.Tensor], step: int) -> dict[str, str]:
    """The metadata of a snapshot, by which another one or a damaged one is noticed."""
    return {"step": str(step), "weights_hash": hash_weights(tensors)}


def list_snapshots(folder: Path, until: int) -> list[tuple[int, Path]]:
    """The snapshots up to a step, with their steps, in order."""
    found = folder.iterdir() if folder.is_dir() else iter(())
    steps = [(int(match[1]), path) for path in found if (match := _NAME.fullmatch(path.name))]
    return sorted((step, path) for step, path in steps if step <= until)


def remove_snapshots_after(folder: Path, step: int) -> None:
    """Remove the snapshots of steps that a resumed training takes again."""
    for later, path in list_snapshots(folder, until=10**15):
        if later > step:
            path.unlink()


def coefficients(steps: Sequence[int], powers: Sequence[float], step: int, power: float) -> Array:
    """By which averages, each after a step and of a power, are multiplied to come nearest to another one.

    The least squares of the weight functions over time; algorithm 3 of the paper.
    """
    times, gammas = np.array(steps, np.float64), np.array(powers, np.float64)
    products = _product(times[:, None], gammas[:, None], times[None], gammas[None])
    wanted = _product(times, gammas, np.array(step, np.float64), np.array(power))
    return np.asarray(np.linalg.lstsq(products, wanted, rcond=None)[0], np.float64)


def _product(t: Array, gamma: Array, other_t: Array, other_gamma: Array) -> Array:
    """The integral over time of the product of two weight functions (gamma + 1) s^gamma / t^(gamma + 1)."""
    first, shorter = np.maximum(t, other_t), np.minimum(t, other_t)
    of_longer = np.where(t >= other_t, gamma, other_gamma)
    # Of ratios of times alone, so that no power of a large number of steps overflows.
    share = (shorter / first) ** of_longer
    return np.asarray((gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1) * share / first)
