"""Merging the caches of an array job: time and peak memory of `vidlat merge`, and of `verify` after it.

    python benchmarks/merge.py [--parts 16] [--videos 10000] [--folder FOLDER] [--no-verify] [--json FILE]

Each part is written with the store's own writer, eight videos a shard and a commit, latents of 16 frames of
4 x 8 x 8 random values; no VAE runs. Every figure is of a process of its own; the peak memory counts the
interpreter and its libraries. The parts are kept if a folder is given, and used again. Merging syncs all
disks of the machine: what other jobs are writing counts.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vidlat.config import PREPROCESS_VERSION
from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.schema import CacheSchema, CacheSettings, default_shard_frames
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import LatentPosterior, Source, VideoRecord

MEMORY = Path("/dev/shm")
VIDEOS_A_SHARD = 8
LENGTH, CHANNELS, SIDE = 16, 4, 8
SCHEMA = CacheSchema(
    settings=CacheSettings(
        encoder_hash="none", encoder_config={}, stack=4, size=4 * SIDE, fit="crop",
        precision="float32", preprocess_version=PREPROCESS_VERSION,
    ),
    vae_name="none", vae_hash="none", vae_licence="none", vae_path="",
    time_compression=4, space_compression=4, latent_dim=CHANNELS, latent_height=SIDE, latent_width=SIDE,
    shard_frames=min(default_shard_frames(CHANNELS, SIDE, SIDE), LENGTH * VIDEOS_A_SHARD),
)  # fmt: skip

PROCESS = """
import re, sys, time
from pathlib import Path
from vidlat.cli import main
sys.argv[0] = "vidlat"
began = time.perf_counter()
try:
    main()
finally:
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print("measured", time.perf_counter() - began, time.process_time(), peak, file=sys.stderr)
"""


def make_part(path: Path, number: int, num_videos: int) -> None:
    """A part as an encode leaves it."""
    # In memory where that can be, since each of its 4,000 writes waits for the disk; then copied.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else path.parent) as temporary:
        building = Path(temporary) / path.name
        write_part(building, number, num_videos)
        copy = shutil.copytree(building, path.with_suffix(".partial"), dirs_exist_ok=True)
        copy.rename(path)  # so that a part that is there is whole


def write_part(path: Path, number: int, num_videos: int) -> None:
    create_cache(path, SCHEMA)
    rng, shape = np.random.default_rng(number), (CHANNELS, LENGTH, SIDE, SIDE)
    with open_writer(path, "benchmark") as writer:
        for first in range(0, num_videos, VIDEOS_A_SHARD):
            ids = [f"{number:03}/{n:06}.mp4" for n in range(first, min(first + VIDEOS_A_SHARD, num_videos))]
            videos = [
                LatentPosterior(
                    mean=rng.standard_normal(shape).astype(np.float16),
                    std=rng.random(shape).astype(np.float16),
                )
                for _ in ids
            ]
            ranges = write_shards(path, writer.reserve(SCHEMA.num_shards([LENGTH] * len(ids))), videos)
            writer.commit([record_of(*each) for each in zip(ids, ranges, videos, strict=True)])


def record_of(video_id: str, frames: tuple[int, int], latents: LatentPosterior) -> VideoRecord:
    sha256 = hashlib.sha256(video_id.encode()).hexdigest()
    return VideoRecord(
        video_id=video_id, start=frames[0], stop=frames[1], num_frames=4 * LENGTH, fps=25.0, pts_seconds=None,
        source=Source(f"/videos/{video_id}", 0, 0, sha256), height=480, width=640,
        latents=latent_statistics(latents.mean, latents.std, LENGTH),
        warnings=(), versions={"vidlat": "0.1.0"}, device="cpu", batch=8,
    )  # fmt: skip


def measure(*arguments: object) -> dict:
    """Seconds of `vidlat ...` once Python has imported its command line, its CPU time and peak memory."""
    command = [sys.executable, "-c", PROCESS, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    seconds, cpu_seconds, peak = re.search(r"measured (\S+) (\S+) (\S+)", answer.stderr).groups()
    return {"seconds": float(seconds), "cpu_seconds": float(cpu_seconds), "peak_bytes": int(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--videos", type=int, default=10_000, help="of each part")
    parser.add_argument("--folder", type=Path, help="where the parts are kept; default: a temporary folder")
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        parts = [folder / f"part-{options.videos}-{number:03}.zarr" for number in range(options.parts)]
        began = time.perf_counter()
        for number, path in enumerate(parts):
            if not path.exists():
                make_part(path, number, options.videos)
        os.sync()  # what is still to be written is no work of the merge
        print(f"{options.parts} parts of {options.videos} videos made in {time.perf_counter() - began:.0f} s")
        out = folder / "merged.zarr"
        shutil.rmtree(out, ignore_errors=True)
        commands = {"merge": ("merge", *parts, "--out", out)}
        commands["merge again"] = commands["merge"]
        if not options.no_verify:
            commands["verify"] = "verify", out
        print(f"{'':<12} {'s':>7} {'CPU s':>7} {'peak MB':>8}")
        figures = {}
        for name, arguments in commands.items():
            figures[name] = figure = measure(*arguments)
            times = f"{figure['seconds']:>7.1f} {figure['cpu_seconds']:>7.1f}"
            print(f"{name:<12} {times} {figure['peak_bytes'] / 1e6:>8.0f}", flush=True)
        num_files = sum(1 for _ in out.glob("*/c/0/*/0/0"))
        print(f"{num_files} shard files")
    if options.json:
        answer = {"parts": options.parts, "videos": options.videos, "files": num_files, "figures": figures}
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
