"""Bytes that a VAE call of the full MAISI network reads and writes on a GPU, counted and not measured.

    python benchmarks/vae_traffic.py [--size 256] [--batch 8]

On PyTorch's meta device, which computes shapes alone: every operation but a view reads its inputs and writes
its outputs once, a norm reads its input twice. Workspaces of cuDNN and what stays in a cache are left out.
Autocast is imitated as CUDA does it: convolutions cast to bfloat16, group norm to float32.
"""

import argparse
from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidlat.encode.network import MAISI_NETWORK, build_network, bypass_wrappers, hold_in_bfloat16


class Traffic(TorchDispatchMode):
    """Bytes by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in function.__name__:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
            if "group_norm" in function.__name__:
                tensors.append(args[0])
            self.bytes[function.__name__] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def imitate_autocast(network: nn.Module) -> None:
    """Cast as CUDA's autocast does, weights included, in place."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x, norm=module: type(norm).forward(norm, x.float())
            module.then_silu = lambda x, norm=module: nn.functional.silu(norm(x))
        elif isinstance(module, nn.Conv3d):
            module.forward = lambda x, conv=module: nn.functional.conv3d(
                x.bfloat16(), conv.weight.bfloat16(), conv.bias.bfloat16(), conv.stride, conv.padding
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    side = options.size
    print(f"GB per call of {options.batch} stacks of 4 frames of {side} x {side}")
    for name in ("float32", "autocast", "bfloat16"):
        with torch.device("meta"):
            network = bypass_wrappers(build_network(MAISI_NETWORK)).eval()
            given = {
                "encode": torch.empty(options.batch, 1, 4, side, side),
                "decode": torch.empty(options.batch, 4, 1, side // 4, side // 4),
            }
        if name == "autocast":
            imitate_autocast(network)
        elif name == "bfloat16":
            hold_in_bfloat16(network, "cuda")
        for way, tensor in given.items():
            with torch.no_grad(), Traffic() as traffic:
                getattr(network, way)(tensor)
            largest = ", ".join(f"{op} {count / 1e9:.1f}" for op, count in traffic.bytes.most_common(5))
            print(f"{way} {name:<9} {traffic.bytes.total() / 1e9:6.1f}   of which {largest}")


if __name__ == "__main__":
    main()
