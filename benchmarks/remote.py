"""Windows a second from an object store, by latency and by how shards are kept, against a folder.

    python benchmarks/remote.py [--latency-ms 20] [--videos 400] [--seconds 8] [--json FILE]

A window is (4, 4, 32, 32), means only, at a random place of 2 MB shards; batches of 128 windows are asked
for, one ahead, so that 128 requests are in flight. The store is `bucket.py` in a process of its own: S3's
protocol, each answer sent after the latency. `ranges` asks for every window; `first epoch` fetches whole
shards into --cache-dir, `second epoch` reads these. `folder` is the same cache on disk.
The ways take turns, three rounds; the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from random_cache import make_random_cache

from vidlat.paths import CACHE_DIR
from vidlat.store.reader import LatentCache, open_cache

BATCH, LENGTH, VIDEO_FRAMES = 128, 4, 128
NUM_PAIRS = 5


def windows_per_second(cache: LatentCache, seconds: float, seed: int) -> float:
    """Random windows, one batch asked for ahead."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate(
        [np.arange(video.start, video.stop - LENGTH + 1, LENGTH) for video in cache.records().values()]
    )
    ahead = cache.read_windows_async(rng.choice(starts, BATCH), LENGTH, with_std=False)
    ahead()  # the first connections
    began, num_windows = time.perf_counter(), 0
    ahead = cache.read_windows_async(rng.choice(starts, BATCH), LENGTH, with_std=False)
    while time.perf_counter() - began < seconds:
        following = cache.read_windows_async(rng.choice(starts, BATCH), LENGTH, with_std=False)
        ahead()
        ahead = following
        num_windows += BATCH
    return num_windows / (time.perf_counter() - began)


def epoch_rate(cache: LatentCache) -> float:
    """Windows a second, every window once, in random order."""
    starts = np.concatenate(
        [np.arange(video.start, video.stop - LENGTH + 1, LENGTH) for video in cache.records().values()]
    )
    starts = np.random.default_rng(0).permutation(starts)
    batches = [starts[first : first + BATCH] for first in range(0, len(starts), BATCH)]
    began = time.perf_counter()
    ahead = cache.read_windows_async(batches[0], LENGTH, with_std=False)
    for batch in batches[1:]:
        following = cache.read_windows_async(batch, LENGTH, with_std=False)
        ahead()
        ahead = following
    ahead()
    return len(starts) / (time.perf_counter() - began)


def measure(path: Path, address: str, kept: Path, seconds: float, seed: int) -> dict[str, float]:
    """Windows a second of each way."""
    rates = {"folder": windows_per_second(open_cache(path), seconds, seed)}
    os.environ.pop(CACHE_DIR, None)
    rates["ranges"] = windows_per_second(open_cache(address), seconds, seed)
    os.environ[CACHE_DIR] = str(kept)
    rates["first epoch"] = epoch_rate(open_cache(address))
    pairs = [(epoch_rate(open_cache(address)), epoch_rate(open_cache(path))) for _ in range(NUM_PAIRS)]
    os.environ.pop(CACHE_DIR)
    shutil.rmtree(kept)
    rates["second epoch"], rates["epoch of the folder"] = map(statistics.median, zip(*pairs, strict=True))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bucket" / "l.zarr"
        path.parent.mkdir()
        make_random_cache(path, num_videos=options.videos, length=VIDEO_FRAMES, side=32)
        command = [sys.executable, str(Path(__file__).with_name("bucket.py")), str(path.parent)]
        server = subprocess.Popen(
            [*command, "--latency-ms", str(options.latency_ms)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout
        try:
            os.environ |= {
                "AWS_ENDPOINT_URL": server.stdout.readline().strip(),
                "AWS_SKIP_SIGNATURE": "true",
                "AWS_REGION": "us-east-1",
            }
            rounds = [
                measure(path, "s3://bucket/l.zarr", Path(folder) / "kept", options.seconds, seed)
                for seed in range(3)
            ]
        finally:
            server.terminate()
            server.wait()
    rates = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    print(f"windows/s at {options.latency_ms:g} ms, {options.videos} videos, median of 3 rounds")
    for name, rate in rates.items():
        least, most = min(each[name] for each in rounds), max(each[name] for each in rounds)
        print(f"{name:>20} {rate:8.0f}   ({least:.0f} to {most:.0f})")
    ratio = statistics.median(each["second epoch"] / each["epoch of the folder"] for each in rounds)
    print(f"second epoch from --cache-dir / epoch of the folder: {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"latency_ms": options.latency_ms, "rounds": rounds}, indent=2))


if __name__ == "__main__":
    main()
