"""The search for copies of training clips: what it takes with many clips, and which planted copies it finds.

    python benchmarks/copies.py [--clips 10000 100000] [--samples 256] [--json FILE]
    python benchmarks/copies.py --planted RUN CACHE [--num 200] [--side 8] [--json FILE]

The first searches a cache of random latents, (4, 16, 8, 8) each, for samples of noise and for 1,000 held-out
windows at once, in a process of its own. `again` is a second search for the samples alone, from memory where
the pooled latents fit, in CPU seconds. CPU time, of all threads, says more than the time that passed on a
machine that other work shares. Clips with more values take as many times the time.

The second plants windows of a run's training videos: with noise added to the whitened latents, in shares of
their standard deviation; with the gray values of their decoded frames changed, and encoded again; and, as
what a search of windows as they are need not find, shifted by a part of a stack's step, played backwards,
mirrored, enlarged or at half the speed. The threshold leaves 1 % of the held-out windows below. To measure
false alarms, it is set by one half of the held-out subjects and applied to the other half, 200 times.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_cache import make_random_cache
from torch import Tensor
from torch.nn import functional

from vidlat.config import TrainConfig
from vidlat.copies import signatures
from vidlat.copies.held_out import HeldOut, thresholds
from vidlat.copies.result import QUANTILE
from vidlat.copies.search import CopySearch
from vidlat.encode.vae import FrozenVAE
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.store.reader import open_cache
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.run_folder import read_run

LENGTH, SIDE, FRAMES = 16, 8, 16
NOISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NUM_HALVES = 200
BATCH = 8

Change = Callable[[Tensor], Tensor]
"""Of frames (N, 1, T, H, W) in [0, 1]."""


def search_cache(path: Path, num_samples: int) -> dict[str, float]:
    """Seconds and memory of this process."""
    cache = open_cache(path)
    cache.records()
    run = Run.plan(TrainConfig(frames=FRAMES, latents_as="mean"), cache, {})
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(run.latent_shape(), generator=generator) for _ in range(num_samples)]
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = memory_mb("VmRSS")
    began, cpu_began = time.perf_counter(), time.process_time()
    search = CopySearch(run, cache)
    _, held_out = search.nearest_and_held_out(samples)
    searched, cpu_searched = time.perf_counter(), time.process_time()
    search.nearest(samples)
    return {
        "training windows": len(search.windows),
        "held-out windows": len(held_out.distances),
        "seconds": searched - began,
        "CPU seconds": cpu_searched - cpu_began,
        "CPU seconds again": time.process_time() - cpu_searched,
        "peak MB": memory_mb("VmHWM"),
        "MB before": before,
    }


def memory_mb(name: str) -> float:
    """Of this process, as /proc names it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1e3


def measure_scaling(all_num_clips: list[int], num_samples: int) -> list[dict[str, float]]:
    print(f"{'clips':>8}{'windows':>10}{'seconds':>9}{'CPU s':>8}{'again':>8}{'peak MB':>9}{'before':>8}")
    rows = []
    for num_clips in all_num_clips:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "l.zarr"
            make_random_cache(path, num_videos=num_clips, length=LENGTH, side=SIDE)
            command = [sys.executable, __file__, "--search", str(path), "--samples", str(num_samples)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append({"clips": num_clips, **row})
        print(
            f"{num_clips:>8}{row['training windows']:>10}{row['seconds']:>9.1f}{row['CPU seconds']:>8.1f}"
            f"{row['CPU seconds again']:>8.1f}{row['peak MB']:>9.0f}{row['MB before']:>8.0f}",
            flush=True,
        )
    return rows


class Planted:
    """Training windows and what becomes of them, as whitened latents (N, L, t, h, w)."""

    def __init__(self, run: Run, search: CopySearch, vae: FrozenVAE, num: int, cache: Any) -> None:
        self.run, self.vae, self.num_frames = run, vae, run.config.frames
        timing, windows = cache.schema.timing, search.windows
        numbers = np.random.default_rng(0).choice(len(windows), min(num, len(windows)), replace=False)
        length = windows.shape.num_latent_frames + timing.latent_step
        places = [windows.place(number) for number in sorted(numbers.tolist())]
        places = [
            place for place in places if place.start + length <= timing.num_valid(place.record.num_frames)
        ]
        starts = np.array([record.start + start for record, start in places])
        mean, _ = cache.read_windows(starts, length, with_std=False)
        latents = run.whitening.whiten(torch.from_numpy(mean).float())
        self.windows = latents[:, :, : windows.shape.num_latent_frames]
        self.frame_step = timing.frame_step
        # One stack more than a window, to be shifted in.
        self.frames = torch.cat([self._decode(part) for part in latents.split(BATCH)])

    def _decode(self, latents: Tensor) -> Tensor:
        num_frames = self.num_frames + self.frame_step
        return self.vae.decode(self.run.whitening.unwhiten(latents), num_frames).clamp(0, 1)

    def encoded(self, change: Change) -> Tensor:
        parts = [change(part)[:, :, : self.num_frames].clamp(0, 1) for part in self.frames.split(BATCH)]
        return torch.cat([self.run.whitening.whiten(self.vae.encode(part)[0]) for part in parts])


def noised(latents: Tensor, share: float) -> Tensor:
    return latents + share * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))


def enlarged(frames: Tensor) -> Tensor:
    """The middle nine tenths of each side."""
    margin = frames.shape[-1] // 20
    middle = frames[:, 0, :, margin:-margin, margin:-margin]
    return functional.interpolate(middle, frames.shape[-2:], mode="bilinear")[:, None]


def planted_sets(planted: Planted) -> dict[str, Tensor]:
    half_step, num_frames = planted.frame_step // 2, planted.num_frames
    sets = {f"noise of {share:.0%}": noised(planted.windows, share) for share in NOISES}
    for factor in (0.9, 1.1):
        darker = planted.encoded(lambda frames, factor=factor: factor * frames)
        sets[f"brightness x {factor}"] = darker
        for share in (0.05, 0.2):
            sets[f"brightness x {factor}, noise of {share:.0%}"] = noised(darker, share)
    changes: dict[str, Change] = {
        "decoded and encoded": lambda frames: frames,
        "shifted by 1 frame": lambda frames: frames[:, :, 1:],
        f"shifted by {half_step} frames": lambda frames: frames[:, :, half_step:],
        "backwards": lambda frames: frames[:, :, :num_frames].flip(2),
        "half the speed": lambda frames: frames[:, :, : num_frames // 2].repeat_interleave(2, 2),
        "enlarged by a ninth": enlarged,
        "mirrored": lambda frames: frames.flip(-1),
    }
    return sets | {name: planted.encoded(change) for name, change in changes.items()}


def false_alarms(held_out: HeldOut) -> float:
    """The share of held-out windows below the threshold of the other half of the subjects."""
    subjects, generator = np.array(held_out.subjects), np.random.default_rng(0)
    names, shares = np.unique(subjects), []
    for _ in range(NUM_HALVES):
        is_scale = np.isin(subjects, generator.choice(names, len(names) // 2, replace=False))
        scale, others = held_out.distances[is_scale], held_out.distances[~is_scale]
        shares.append((others < thresholds(scale, np.ones((1, len(scale))), QUANTILE)).mean())
    return float(np.mean(shares))


def measure_planted(run_dir: Path, cache_path: Path, num: int) -> dict[str, Any]:
    run, cache = read_run(run_dir), open_cache(cache_path)
    search, vae = CopySearch(run, cache), load_vae_of(run.schema, batch=BATCH)
    held_out, planted = search.calibrate(), Planted(run, search, vae, num, cache)
    threshold = held_out.threshold(QUANTILE)
    alarms = false_alarms(held_out)
    print(
        f"{len(search.windows)} training windows of {len(run.training)} videos; {len(held_out.distances)} "
        f"held-out windows of {held_out.num_subjects} subjects: distances {held_out.distances.min():.2f} to "
        f"{held_out.distances.max():.2f}, 1 % below {threshold:.3f}; {alarms:.1%} of one half of the "
        f"subjects below the threshold of the other\n{len(planted.windows)} planted\n\n"
        f"{'':<36}{'found':>8}{'median':>9}{'largest':>9}"
    )
    rows = {}
    for name, latents in planted_sets(planted).items():
        distances = np.array([match.distance for match in search.nearest(list(latents))])
        rows[name] = {
            "found": float((distances < threshold).mean()),
            "median": float(np.median(distances)),
            "largest": float(distances.max()),
        }
        found, median, largest = rows[name].values()
        print(f"{name:<36}{found:>8.1%}{median:>9.3f}{largest:>9.3f}", flush=True)
    return {"threshold": threshold, "false alarms": alarms, "planted": len(planted.windows), "sets": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--planted", type=Path, nargs=2, metavar=("RUN", "CACHE"))
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--side", type=int, default=signatures.SIDE, help="rows and columns after pooling")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(search_cache(options.search, options.samples)))
        return
    if options.planted:
        signatures.SIDE = options.side
        report: Any = measure_planted(*options.planted, options.num)
    else:
        report = measure_scaling(options.clips, options.samples)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
