"""Kernel launches of a training step, what a small network on a GPU mostly waits for; and its time on a CPU.

    python benchmarks/launches.py [--presets tiny small base] [--size 16] [--device cpu]
                                  [--checkout BEFORE --checkout AFTER [--rounds 3]]

On a GPU the launches are the profiler's. On a CPU they are the ATen operations that are no view and no
allocation. PyTorch has at least one kernel for each; some are several on a GPU (a group norm, the gradient of
a convolution), which are not counted. The profiler of a CPU would mix them with the inner steps that CPU
kernels happen to have. The optimiser is counted as it runs on a GPU, on lists of tensors or fused.

The time is that of both passes of the network: CPU seconds, or on a GPU seconds; the least of three. With
checkouts, each is run in turn, in processes of its own, and the least time of all rounds counts.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from vidlat.config import TrainConfig
from vidlat.train.networks.unet import build_unet
from vidlat.train.objectives.noising import NoisedBatch
from vidlat.train.optimisation import Optimisation
from vidlat.train.ranks import Ranks

BATCH, LATENT_DIM, LENGTH = 8, 4, 4

NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "detach",
    "lift_fresh", "_local_scalar_dense",
}  # fmt: skip
"""Allocations, views that are not declared as such, and reading a number on the host."""

TWO_KERNELS = {"slice_backward", "select_backward"}
"""Zeros, and a copy into them."""


class CountingOperations(TorchDispatchMode):
    """Counts the operations of this thread for which a GPU would launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if func.namespace == "aten" and not func.is_view and name not in NO_KERNEL:
            self.count += 2 if name in TWO_KERNELS else 1
        return func(*args, **(kwargs or {}))


def count_launches(work: Callable[[], object], device: str) -> int:
    """Kernels (and graphs) that a piece of work launches."""
    if not device.startswith("cuda"):
        with CountingOperations() as operations:
            work()
        return operations.count
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    # cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch and others.
    return sum(e.count for e in profiler.key_averages() if e.key.startswith("cu") and "Launch" in e.key)


def noised_batch(size: int, device: torch.device) -> NoisedBatch:
    latents = torch.randn(BATCH, LATENT_DIM, LENGTH, size, size, device=device)
    ones = torch.ones(BATCH, 1, LENGTH, 1, 1, device=device)
    return NoisedBatch(
        inputs=latents, timestep=torch.rand(BATCH, device=device), features=None,
        target=latents, mask=ones, weight=ones[:, :, :1],
    )  # fmt: skip


def measure(preset: str, precision: str, size: int, device: str) -> tuple[int, int, float]:
    """Launches of the network's two passes and of the whole step, and seconds of the two passes."""
    settings = TrainConfig(preset=preset, precision=precision, device=device)
    more = {"show_notice": print} if "show_notice" in inspect.signature(Optimisation).parameters else {}
    optimisation = Optimisation(build_unet("space-time", preset, LATENT_DIM), settings, Ranks(device), **more)
    noised = noised_batch(size, torch.device(device))
    for group in optimisation.state.optimiser.param_groups:
        group["foreach"] = not group["fused"]

    def passes() -> None:
        optimisation.state.optimiser.zero_grad()
        prediction = optimisation.predict(optimisation.state.model, noised)
        prediction.backward(torch.ones_like(prediction))

    def step() -> None:
        figures = optimisation.compute_gradients(noised)
        optimisation.apply_gradients(*([figures] if isinstance(figures, torch.Tensor) else []))

    step()  # the first one makes the optimiser's moments
    seconds = min(seconds_of(passes, device) for _ in range(3))
    num_launches = count_launches(passes, device)
    optimisation.state.optimiser.zero_grad()
    return num_launches, count_launches(step, device), seconds


def seconds_of(work: Callable[[], object], device: str) -> float:
    now = time.process_time if device == "cpu" else time.perf_counter
    began = now()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return now() - began


def run_checkout(checkout: str, arguments: list[str]) -> dict[str, list[float]]:
    """The figures of this file run with the package of a checkout."""
    environment = os.environ | {"PYTHONPATH": checkout}
    command = [sys.executable, __file__, *arguments, "--json"]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, list[float]] = json.loads(output)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presets", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkout", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, list[float]]]] = {checkout: [] for checkout in options.checkout}
    for _ in range(options.rounds):
        for checkout, figures in runs.items():
            arguments = [
                "--presets",
                *options.presets,
                "--size",
                str(options.size),
                "--device",
                options.device,
            ]
            figures.append(run_checkout(checkout, arguments))
    if not runs:
        names = [(preset, precision) for preset in options.presets for precision in ("float32", "bfloat16")]
        runs["here"] = [{" ".join(n): list(measure(*n, options.size, options.device)) for n in names}]
    if options.json:
        print(json.dumps(runs["here"][0]))
        return
    print(f"{'network':<16} {'launches':>9} {'whole step':>11} {'ms':>7}  checkout")
    for name in runs[next(iter(runs))][0]:
        for checkout, figures in runs.items():
            passes, step, _ = figures[0][name]
            seconds = min(figure[name][2] for figure in figures)
            print(f"{name:<16} {passes:>9,} {step:>11,} {1000 * seconds:>7,.0f}  {checkout}")


if __name__ == "__main__":
    main()
