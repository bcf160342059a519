"""How threads that wait for each other fare beside other processes: forward passes of the `tiny` U-Net.

    python benchmarks/waiting_threads.py [--seconds 15] [--rounds 2] [--busy 6]

One thread, as many as there are cores, and as many whose waiting is passive, in turn, each in a process of
its own, beside `--busy` processes that do nothing but compute.
"""

import argparse
import os
import subprocess
import sys
import time

WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all cores": {"OMP_NUM_THREADS": str(os.cpu_count())},
    "all, passive": {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "passive"},
}


def measure(seconds: float) -> None:
    import torch

    from vidlat.train.networks.unet import build_unet

    network = build_unet("space-time", "tiny", 4).requires_grad_(False).eval()
    latents, timestep = torch.randn(1, 4, 4, 16, 16), torch.full((1,), 0.5)
    network(latents, timestep)
    began, computed, passes = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        network(latents, timestep)
        passes += 1
    rate = passes / (time.perf_counter() - began)
    print(
        f"{rate:8.2f} passes/s {1000 * (time.process_time() - computed) / passes:8.0f} CPU ms each",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--busy", type=int, default=6)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.seconds)
        return
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        for _ in range(options.rounds):
            for way, environment in WAYS.items():
                print(f"{way:<14}", end="", flush=True)
                command = [sys.executable, __file__, "--measure", "--seconds", str(options.seconds)]
                subprocess.run(command, env=os.environ | environment, check=True)
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
