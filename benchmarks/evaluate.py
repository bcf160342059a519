"""`vidlat evaluate` in frames per CPU second and per second, beside the VAE's decoding alone on one thread.

    python benchmarks/evaluate.py CACHE --input FOLDER [--checkout DIR]... [--rounds 3] [--json FILE]

Checkouts of vidlat (this one by default) take turns, so that a machine that slows down slows all of them;
shown are the best of the rounds, and how far the quality figures are from those of the first checkout.
For a CPU without AVX-512: ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[1]

RUN = """
import json, sys, time
import torch
from vidlat import evaluate_videos
from vidlat.pipeline.decode_videos import decode_video, load_vae_of
from vidlat.store.reader import open_cache

def clock():
    return time.process_time(), time.perf_counter()

def used(began):
    return [now - then for now, then in zip(clock(), began)]

cache_path, folder = sys.argv[1:]
cache = open_cache(cache_path)
vae = load_vae_of(cache.schema, device="cpu")
videos, began = [], clock()
for event in evaluate_videos(cache_path, [folder], device="cpu"):
    if event.comparison:
        videos.append(event.comparison)
evaluating = used(began)
torch.set_num_threads(1)
began = clock()
num_frames = sum(1 for video in videos for _ in decode_video(cache, vae, video.vae.video_id))
decoding = used(began)
figures = [[quality.to_dict() for quality in (video.vae, video.averaging, video.pca)] for video in videos]
print(json.dumps([num_frames, evaluating, decoding, figures]))
"""


def run(checkout: Path, cache: Path, folder: Path) -> list:
    """Number of frames, CPU and wall seconds of an evaluation and of decoding alone, and the figures."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", RUN, str(cache), str(folder)]
    answer = subprocess.run(
        command, env=environment, cwd=checkout, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)


def differences(one: object, other: object) -> Iterator[float]:
    """Of all numbers in two documents of the same shape, relative above 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list) and isinstance(other, list):
        for first, second in zip(one, other, strict=True):
            yield from differences(first, second)
    elif isinstance(one, float) and isinstance(other, float):
        yield abs(one - other) / max(1.0, abs(one))
    else:
        assert one == other, (one, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--checkout", type=Path, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkout or [HERE]]
    rounds: dict[Path, list] = {checkout: [] for checkout in checkouts}
    for _ in range(options.rounds):
        for checkout in checkouts:
            rounds[checkout].append(run(checkout, options.cache.resolve(), options.input.resolve()))
    results = []
    print("checkout              frames   frames/CPU s   frames/s   CPU ms/frame   decode alone   difference")
    for checkout, measured in rounds.items():
        num_frames, *_, figures = measured[0]
        cpu, wall = (min(evaluating[clock] for _, evaluating, _, _ in measured) for clock in (0, 1))
        decoding = min(decoding[0] for _, _, decoding, _ in measured)
        difference = max(differences(rounds[checkouts[0]][0][3], figures))
        results.append({"checkout": str(checkout), "frames": num_frames, "cpu": cpu, "wall": wall})
        results[-1] |= {"decode_cpu": decoding, "difference": difference}
        print(
            f"{str(checkout)[-20:]:<20}{num_frames:>8}{num_frames / cpu:>15.1f}{num_frames / wall:>11.1f}"
            f"{1e3 * cpu / num_frames:>15.1f}{1e3 * decoding / num_frames:>15.1f}{difference:>13.1e}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
