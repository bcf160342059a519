"""What a step of `fit-vae` keeps for its backward pass, with and without --checkpoint-activations.

    python benchmarks/fit_memory.py [--network tiny] [--size 128] [--stack 4] [--precision float32]
                                    [--rounds 8]

One stack; the weights are not counted. The two ways alternate; of the CPU times of each, on one thread, the
least is shown.
"""

import argparse
import time

import torch
from torch.autograd.graph import saved_tensors_hooks

from vidlat.config import FitVAEConfig
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network, bypass_wrappers
from vidlat.fit.optimisation import FitOptimisation
from vidlat.fit.perceptual import gradient_distance
from vidlat.train.ranks import Ranks

NETWORKS = {"tiny": TINY_NETWORK, "maisi": MAISI_NETWORK}


def kept_bytes(optimisation: FitOptimisation, *step: torch.Tensor) -> int:
    own = {weight.untyped_storage().data_ptr() for weight in optimisation.state.model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        optimisation.compute_gradients(*step)
    return sum(kept.values())


def step_seconds(optimisation: FitOptimisation, *step: torch.Tensor) -> float:
    began = time.process_time()
    optimisation.state.optimiser.zero_grad()
    optimisation.compute_gradients(*step)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="tiny", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--stack", type=int, default=4)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    side = options.size // 4
    step = (
        torch.rand(1, 1, options.stack, options.size, options.size),
        torch.randn(1, 4, options.stack // 4, side, side),
    )
    ways = {}
    for way in ("plain", "checkpointed"):
        settings = FitVAEConfig(
            size=options.size, stack=options.stack, precision=options.precision, recipe="tiny",
            checkpoint_activations=way == "checkpointed",
        )  # fmt: skip
        network = bypass_wrappers(build_network(NETWORKS[options.network]))
        ways[way] = FitOptimisation(network, settings.chosen("tiny"), Ranks("cpu"), gradient_distance)
    kept = {way: kept_bytes(optimisation, *step) for way, optimisation in ways.items()}
    seconds = {way: [] for way in ways}
    for _ in range(options.rounds + 1):  # the first one warms up
        for way, optimisation in ways.items():
            seconds[way].append(step_seconds(optimisation, *step))
    for way in ways:
        print(f"{way:<14}{kept[way] / 1e6:7.0f} MB kept {min(seconds[way][1:]):7.2f} CPU seconds a step")


if __name__ == "__main__":
    main()
