"""The project's encoder against MONAI's stock network as NVIDIA configures it, on the same weights.

    python benchmarks/encoder.py [--size 128] [--rounds 5] [--json encoder.json]

Stock: num_splits=4, dim_split=1, float32 norms (float16 ones fail on a CPU). The two take turns, so that a
machine that slows down slows both; the ratio is the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

from vidlat.encode.memory import keep_freed_memory
from vidlat.encode.network import MAISI_NETWORK
from vidlat.encode.vae import FrozenVAE


def seconds(function, stack):
    began = time.perf_counter()
    with torch.inference_mode():
        answer = function(stack)
    return time.perf_counter() - began, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    keep_freed_memory()  # helps both: the ratio is the networks' own
    torch.manual_seed(0)
    stock = AutoencoderKlMaisi(**MAISI_NETWORK, num_splits=4, dim_split=1, norm_float16=False).eval()
    copy = AutoencoderKlMaisi(**MAISI_NETWORK, num_splits=1, norm_float16=False)
    copy.load_state_dict(stock.state_dict())
    encoders = {
        "stock": lambda stack: stock.encode(stack)[0],
        "float32": FrozenVAE(copy, MAISI_NETWORK, batch=1).encode,
    }
    copy = AutoencoderKlMaisi(**MAISI_NETWORK, num_splits=1, norm_float16=False)
    copy.load_state_dict(stock.state_dict())
    encoders["bfloat16"] = FrozenVAE(copy, MAISI_NETWORK, batch=1, precision="bfloat16").encode

    stack = torch.rand(1, 1, 4, options.size, options.size)
    times = {name: [] for name in encoders}
    means = {}
    for round_number in range(options.rounds + 1):
        for name, encode in encoders.items():
            elapsed, answer = seconds(encode, stack)
            means[name] = answer if name == "stock" else answer[0]
            if round_number:  # the first round warms up
                times[name].append(elapsed)

    shape = tuple(stack.shape)
    print(f"encode {shape}, full MAISI, {torch.get_num_threads()} threads, {options.rounds} rounds")
    print("encoder     median s   min s   max s  stock / it  difference / std")
    report = []
    for name, measured in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["stock"], measured, strict=True))
        difference = float((means[name] - means["stock"]).abs().max() / means["stock"].std())
        median = statistics.median(measured)
        print(
            f"{name:<10} {median:>9.3f} {min(measured):>7.3f} {max(measured):>7.3f} {ratio:>10.2f}x "
            f"{difference:>17.1e}"
        )
        report.append({"encoder": name, "seconds": measured, "ratio": ratio, "difference": difference})
    if options.json:
        options.json.write_text(json.dumps({"shape": shape, "encoders": report}, indent=2) + "\n")


if __name__ == "__main__":
    main()
