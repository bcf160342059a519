"""Windows a second of the data for training, by number of threads, against the code without threads.

    python benchmarks/data.py [--sides 16 32 64] [--threads 1 2] [--rounds 5] [--json FILE]

A window is (4, 4, side, side), from float16 means and standard deviations in memory: drawn from the
posterior, whitened, with the noise of a step. `before` is the code that one thread ran before there were
several; its batches are the same bit for bit, which is checked. `NumPy's fill` fills as many normals and does
nothing else. The ways take turns; the best round of each counts. CPU time is that of all threads together: on
a machine that other work shares, it says more than the time that passed.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from random_cache import make_random_cache

from vidlat.encode.memory import keep_freed_memory
from vidlat.store.reader import LatentCache
from vidlat.train.data.dataset import Batch, LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.seeding import Draw, SeedKey, generator
from vidlat.train.data.windows import Window, WindowShape, training_windows

BATCH, FRAMES, NUM_VIDEOS, LENGTH = 8, 16, 8, 128
Plans = list[list[Window]]


def normal(key: SeedKey, draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    return generator(key, draw).standard_normal(shape, dtype=np.float32)


def before(dataset: LatentDataset, plans: Plans) -> Iterator[Batch]:
    """As one thread computed them."""
    mean, std = (np.ascontiguousarray(frames) for frames in dataset._held)
    for windows in plans:
        starts = np.array([window.start for window in windows])
        rows = np.searchsorted(dataset._held_frames, starts)[:, None] + np.arange(FRAMES // 4)
        latents = mean[rows].swapaxes(1, 2).astype(np.float32, order="C")
        shape = latents.shape[1:]
        noise = np.stack([normal(window.key, Draw.POSTERIOR, shape) for window in windows])
        latents += std[rows].swapaxes(1, 2) * noise
        for item, window in enumerate(windows):
            latents[item, :, window.num_valid :] = latents[item, :, window.num_valid - 1, None]
        latents = dataset.whitening.whiten(latents)
        noise = np.stack([normal(window.key, Draw.NOISE, shape) for window in windows])
        yield dataset._batch(windows, torch.from_numpy(latents), torch.from_numpy(noise))


def now(dataset: LatentDataset, plans: Plans, num_threads: int) -> Iterator[Batch]:
    dataset.num_threads = num_threads
    return dataset.batches(plans)


def fill(shape: tuple[int, ...], plans: Plans, num_threads: int) -> Iterator[None]:
    """As many normals as `now` draws, by NumPy, in threads that share nothing."""

    def fill_part(part: Plans) -> None:
        out = np.empty(shape, np.float32)
        for window in (window for windows in part for window in windows):
            for draw in (Draw.POSTERIOR, Draw.NOISE):
                generator(window.key, draw).standard_normal(out=out, dtype=np.float32)

    with ThreadPoolExecutor(num_threads) as pool:
        yield from pool.map(fill_part, [plans[n::num_threads] for n in range(num_threads)])


def time_of(way: Callable[[Plans], Iterator], plans: Plans) -> tuple[float, float]:
    """Seconds, and CPU seconds, per window."""
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in way(plans):
        pass
    num_windows = BATCH * len(plans)
    return (time.perf_counter() - began) / num_windows, (time.process_time() - cpu_began) / num_windows


def measure(cache: LatentCache, side: int, threads: list[int], rounds: int) -> dict[str, tuple[float, float]]:
    records, shape = list(cache.records().values()), WindowShape.of_clip(FRAMES, cache.schema.timing)
    whitening = Whitening.from_records(records, "sample")
    dataset = LatentDataset(cache, records, shape, whitening, "sample", with_noise=True)
    num_steps = max(16, 256 * 32**2 // (BATCH * side**2))
    plans = [training_windows(records, shape, seed=0, step=n, batch=BATCH) for n in range(num_steps)]
    for one, other in zip(before(dataset, plans[:4]), now(dataset, plans[:4], max(threads)), strict=True):
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.noise, other.noise)
    ways: dict[str, Callable] = {"before": lambda plans: before(dataset, plans)}
    for num in threads:
        ways[f"now, {num} threads"] = lambda plans, num=num: now(dataset, plans, num)
    for num in threads:
        ways[f"NumPy's fill, {num} threads"] = lambda plans, num=num: fill((4, 4, side, side), plans, num)
    times = [{name: time_of(way, plans) for name, way in ways.items()} for _ in range(rounds)]
    return {
        name: tuple(min(column) for column in zip(*(t[name] for t in times), strict=True)) for name in ways
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=list(range(1, (os.cpu_count() or 1) + 1)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # as a training does
    report = {}
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            cache = make_random_cache(
                Path(folder) / "l.zarr", num_videos=NUM_VIDEOS, length=LENGTH, side=side
            )
            report[side] = measure(cache, side, options.threads, options.rounds)
        print(f"{f'{side} x {side}':<28}{'windows/s':>10}{'ratio':>8}{'CPU ms a window':>18}{'ratio':>8}")
        wall, cpu = report[side]["before"]
        for name, (seconds, cpu_seconds) in report[side].items():
            print(
                f"{name:<28}{1 / seconds:>10,.0f}{wall / seconds:>8.2f}"
                f"{1e3 * cpu_seconds:>18.3f}{cpu / cpu_seconds:>8.2f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
