"""Windows a second from a cache on disk, against memory maps, one file a window, and zarr-python.

    python benchmarks/reading.py [--windows 4096] [--videos 64] [--json FILE]

Windows are (4, 4, 32, 32) float16 that begin at any latent frame, drawn in random order, 32 a batch, the page
cache warm. The cache is one that `write_shards` made of random latents: sharded, compressed, with checksums.
A video is 1 MiB of means; a reader keeps 32 MiB of what it has read, and holds up to 2 GiB where it may.
Every way reads the same numbers, which is checked.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch
import zarr
from random_cache import make_random_cache

from vidlat.store.reader import LatentCache
from vidlat.timing import Timing
from vidlat.train.data.dataset import LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.windows import WindowShape

LENGTH, SIDE, BATCH, WINDOW, AHEAD = 128, 32, 32, 4, 4
Starts = np.ndarray
Read = Callable[[list[Starts]], Iterator[np.ndarray]]


def with_vidlat(cache: LatentCache, with_std: bool) -> Read:
    def read(batches: list[Starts]) -> Iterator[np.ndarray]:
        waiting = [cache.read_windows_async(starts, WINDOW, with_std) for starts in batches[:AHEAD]]
        for starts in [*batches[AHEAD:], *[None] * min(AHEAD, len(batches))]:
            yield waiting.pop(0)()[0]
            if starts is not None:
                waiting.append(cache.read_windows_async(starts, WINDOW, with_std))

    return read


def with_memmap(path: Path, frames: np.ndarray) -> Read:
    np.save(path, np.ascontiguousarray(frames.swapaxes(0, 1)))
    mapped = np.load(path, mmap_mode="r")

    def read(batches: list[Starts]) -> Iterator[np.ndarray]:
        for starts in batches:
            yield mapped[starts[:, None] + np.arange(WINDOW)].swapaxes(1, 2)

    return read


def in_memory(cache: LatentCache) -> Read:
    """What the trainer does where the latents fit: the gather, before it whitens them."""
    records = list(cache.records().values())
    shape = WindowShape(num_stacks=WINDOW, timing=Timing(stack=4, compression=4))
    dataset = LatentDataset(cache, records, shape, Whitening.from_records(records, "mean"), "mean")

    def read(batches: list[Starts]) -> Iterator[np.ndarray]:
        for starts in batches:
            (mean,) = dataset._read(starts, None)(slice(None), slice(None))
            yield mean.swapaxes(1, 2)

    return read


def with_zarr(path: Path) -> Read:
    array = zarr.open_group(path, mode="r")["mean"]

    def read(batches: list[Starts]) -> Iterator[np.ndarray]:
        for starts in batches:
            yield np.stack([array[:, start : start + WINDOW] for start in starts])

    return read


def a_file_each(folder: Path, frames: np.ndarray, starts: Starts, save: Callable, load: Callable) -> Read:
    folder.mkdir()
    for start in starts:
        save(frames[:, start : start + WINDOW], folder / str(start))

    def read(batches: list[Starts]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.stack([load(folder / str(start)) for start in batch])

    return read


def save_nifti(window: np.ndarray, path: Path) -> None:
    volume = window.astype(np.float32).transpose(3, 2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), f"{path}.nii.gz")


def load_nifti(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(f"{path}.nii.gz").dataobj).transpose(3, 2, 1, 0).astype(np.float16)


def time_of(read: Read, starts: Starts, frames: np.ndarray) -> float:
    batches = np.split(starts, range(BATCH, len(starts), BATCH))
    for got, wanted in zip(read(batches[:2]), batches[:2], strict=True):
        assert all(np.array_equal(g, frames[:, s : s + WINDOW]) for g, s in zip(got, wanted, strict=True))
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        for _ in read(batches):
            pass
        best = max(best, len(starts) / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, default=4096)
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = make_random_cache(folder / "l.zarr", num_videos=options.videos, length=LENGTH, side=SIDE)
        frames = np.concatenate([cache.read_latents(v).mean for v in sorted(cache.records())], axis=1)
        first = min(record.start for record in cache.records().values())
        assert first == 0
        rng = np.random.default_rng(1)
        every = [n * LENGTH + k for n in range(options.videos) for k in range(LENGTH - WINDOW + 1)]
        starts = rng.choice(every, options.windows)
        few = starts[: max(BATCH * 8, options.windows // 8)]
        ways = {
            "vidlat, mean": (with_vidlat(cache, False), starts),
            "vidlat, mean and std": (with_vidlat(cache, True), starts),
            "held in memory": (in_memory(cache), starts),
            "np.memmap of one .npy": (with_memmap(folder / "a.npy", frames), starts),
            "zarr-python, one by one": (with_zarr(folder / "l.zarr"), few),
            ".pt a window": (
                a_file_each(
                    folder / "pt", frames, few,
                    lambda window, path: torch.save(torch.from_numpy(window.copy()), path),
                    lambda path: torch.load(path).numpy(),
                ),
                few,
            ),
            ".nii.gz a window": (a_file_each(folder / "nii", frames, few, save_nifti, load_nifti), few),
        }  # fmt: skip
        print(f"{'way':<26}{'windows/s':>10}")
        for way, (read, which) in ways.items():
            rates[way] = time_of(read, which, frames)
            print(f"{way:<26}{rates[way]:>10,.0f}", flush=True)
    ratio = rates["vidlat, mean"] / rates["zarr-python, one by one"]
    print(f"vidlat over zarr-python: {ratio:.0f}x; memory map over held in memory: "
          f"{rates['np.memmap of one .npy'] / rates['held in memory']:.2f}x")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
