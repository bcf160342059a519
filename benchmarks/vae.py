"""The project's VAE against MONAI's stock network as NVIDIA configures it, same weights, encode and decode.

    python benchmarks/vae.py [--network maisi|tiny] [--size 128] [--rounds 5] [--json FILE]

Stock: num_splits=4, dim_split=1, float32 norms (float16 ones fail on a CPU). The networks alternate, so that
a machine that slows down slows all of them; a ratio is the median of the rounds' ratios. For MAISI it also
prints the stock convolutions' operations per second, and those of a large matrix product on this machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

from vidlat.encode.device import has_bfloat16
from vidlat.encode.maisi import MaisiAutoencoder
from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK
from vidlat.encode.vae import FrozenVAE

NETWORKS = {"maisi": MAISI_NETWORK, "tiny": TINY_NETWORK}
GFLOP = {"encode": 99.2, "decode": 212.0}
"""Operations of MAISI's convolutions on one stack of 4 frames of 128 x 128 pixels, padding included."""

PRECISIONS = ("float32", "bfloat16") if has_bfloat16("cpu") else ("float32",)
Run = Callable[[torch.Tensor], torch.Tensor]


def build(network: dict) -> tuple[dict[str, Run], dict[str, Run]]:
    """Encoders and decoders by name, all with the same weights."""
    stock = AutoencoderKlMaisi(**network, num_splits=4, dim_split=1, norm_float16=False).eval()
    encoders: dict[str, Run] = {"stock": lambda stack: stock.encode(stack)[0]}
    decoders: dict[str, Run] = {"stock": stock.decode}
    for precision in PRECISIONS:
        copy = AutoencoderKlMaisi(**network, num_splits=1, norm_float16=False)
        copy.load_state_dict(stock.state_dict())
        vae = FrozenVAE(MaisiAutoencoder(copy, network), batch=1, precision=precision)
        encoders[precision] = lambda stack, vae=vae: vae.encode(stack)[0]
        decoders[precision] = lambda latent, vae=vae: vae.decode(latent, 4)
    return encoders, decoders


def compare(runs: dict[str, Run], given: torch.Tensor, num_rounds: int) -> list[dict]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    outputs = {}
    for number in range(num_rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            with torch.inference_mode():
                outputs[name] = run(given)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    return [
        {
            "name": name,
            "seconds": statistics.median(measured),
            "fastest": min(measured),
            "slowest": max(measured),
            "ratio": statistics.median(a / b for a, b in zip(times["stock"], measured, strict=True)),
            "difference": float((outputs[name] - outputs["stock"]).abs().max() / outputs["stock"].std()),
        }
        for name, measured in times.items()
    ]


def matrix_product(dtype: torch.dtype, side: int = 4096) -> float:
    """GFLOP/s of a matrix product, the best of four."""
    matrix, times = torch.rand(side, side).to(dtype), []
    for _ in range(4):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="maisi")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # helps all of them: the ratio does not include it
    torch.manual_seed(0)
    encoders, decoders = build(NETWORKS[options.network])
    side = options.size
    given = {"encode": torch.rand(1, 1, 4, side, side), "decode": torch.randn(1, 4, 1, side // 4, side // 4)}
    if "bfloat16" not in PRECISIONS:
        print("this CPU does not compute with bfloat16, which is left out: one call would take minutes")
    print(f"{options.network}, 4 frames of {side} x {side}, {torch.get_num_threads()} threads")
    print("way     network    median s   min s   max s  stock/this  difference / std  stock GFLOP/s")
    report: dict = {"network": options.network, "size": side, "threads": torch.get_num_threads()}
    for way, runs in (("encode", encoders), ("decode", decoders)):
        report[way] = compare(runs, given[way], options.rounds)
        for row in report[way]:
            rate = GFLOP[way] * (side / 128) ** 2 / row["seconds"]
            print(
                f"{way:<7} {row['name']:<10} {row['seconds']:>8.3f} {row['fastest']:>7.3f} "
                f"{row['slowest']:>7.3f} {row['ratio']:>10.2f}x {row['difference']:>17.1e} "
                + (f"{rate:>14.0f}" if options.network == "maisi" else ""),
                flush=True,
            )
    report["matrix_gflops"] = {name: matrix_product(getattr(torch, name)) for name in PRECISIONS}
    for name, rate in report["matrix_gflops"].items():
        print(f"a matrix product in {name} on this machine: {rate:.0f} GFLOP/s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
