"""A cache of a million videos: opening it, looking at it, finding its files again, planning, adding to it.

    python benchmarks/million_records.py [--videos 1000000] [--commits 200] [--no-files] [--json FILE]

The records are made up, eight videos a commit and a shard, and go through the store's own log: most in large
commits (125,000 small ones would take hours), the last `--commits` of them one by one. Beside them stand
one-byte shards and empty source files, a million files of each: --no-files leaves them out. Every figure is
of a process of its own; the peak memory counts the interpreter and its libraries.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from vidlat.store.layout import ARRAYS, RECORDS
from vidlat.store.metadata import zarr_documents
from vidlat.store.records.tables import VIDEO_COLUMNS
from vidlat.store.schema import CacheSchema, CacheSettings
from vidlat.store.writing.opening import create_cache, open_writer

VIDEOS_A_COMMIT = 8
VIDEOS_A_LARGE_COMMIT = 5_000
LATENT_FRAMES = 16
CHANNELS = 4
SCHEMA = CacheSchema(
    settings=CacheSettings(
        encoder_hash="00" * 32,
        encoder_config={"latent_channels": CHANNELS},
        stack=4,
        size=128,
        fit="crop",
        precision="bfloat16",
        preprocess_version=1,
    ),
    vae_name="none",
    vae_hash="00" * 32,
    vae_licence="none",
    vae_path="none",
    time_compression=4,
    space_compression=4,
    latent_dim=CHANNELS,
    latent_height=32,
    latent_width=32,
    shard_frames=LATENT_FRAMES * VIDEOS_A_COMMIT,
)
TARGETS = {
    "open": "< 2 s, < 500 MB",
    "find again": "500,000: < 120 s, < 2 GB",
    "info --json": "usable; < 1 s where some thousand",
    "ls --json": "usable",
    "ls | head": "usable",
}


def video_id(number: int) -> str:
    return f"study{number // 1000:05d}/clip_{number % 1000:06d}.mp4"


def records(folder: Path, numbers: np.ndarray, sequence: int) -> pa.Table:
    """Rows of made-up videos; what does not compress in a real cache is random here."""
    rng = np.random.default_rng(sequence)
    ids = [video_id(number) for number in numbers]
    starts = numbers * LATENT_FRAMES

    def sums() -> pa.Array:
        flat = pa.array(rng.standard_normal(len(ids) * CHANNELS))
        return pa.FixedSizeListArray.from_arrays(flat, CHANNELS).cast(pa.list_(pa.float64()))

    versions = [("torch", "2.13.0"), ("monai", "1.6.1"), ("vidlat", "0.2.0")]
    columns = {
        "video_id": ids,
        "start": starts,
        "stop": starts + LATENT_FRAMES,
        "num_frames": rng.integers(61, 65, len(ids)),
        "fps": np.full(len(ids), 25.0),
        "pts_seconds": [None] * len(ids),
        "source_path": [f"{folder}/videos/{name}" for name in ids],
        "source_num_bytes": np.zeros(len(ids), np.int64),
        "source_mtime_ns": np.zeros(len(ids), np.int64),
        "source_sha256": [rng.bytes(32).hex() for _ in ids],
        "height": np.full(len(ids), 480),
        "width": np.full(len(ids), 640),
        "latents_frame_crc32c": [rng.bytes(8 * LATENT_FRAMES) for _ in ids],
        "latents_count": np.full(len(ids), LATENT_FRAMES * 32 * 32),
        "latents_sum_mean": sums(),
        "latents_sum_mean_squared": sums(),
        "latents_sum_std_squared": sums(),
        "warnings": [["1 of 60 frames are damaged"] if number % 1000 == 0 else [] for number in numbers],
        "versions": [versions] * len(ids),
        "device": ["cpu"] * len(ids),
        "batch": np.full(len(ids), 8),
        "source_selection": [""] * len(ids),
        "value_range": [[0.0, 255.0]] * len(ids),
        "box": [[]] * len(ids),
        "annotation_subject": [f"subject{number // 10}" if number % 2 else "" for number in numbers],
        "annotation_labels": [[("EF", f"{number % 80}")] if number % 2 else [] for number in numbers],
        "sequence": np.full(len(ids), sequence, np.int64),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in VIDEO_COLUMNS]
    return pa.Table.from_arrays(arrays, schema=VIDEO_COLUMNS)


def make(folder: Path, num_videos: int, num_commits: int, with_files: bool) -> dict:
    """The cache and, if asked for, its files; returns what its growth cost."""
    cache = folder / "latents.zarr"
    create_cache(cache, SCHEMA)
    num_frames = -(-num_videos * LATENT_FRAMES // SCHEMA.shard_frames) * SCHEMA.shard_frames
    for name, document in zarr_documents({"vidlat": SCHEMA.to_attributes()}, SCHEMA, num_frames).items():
        (cache / name).write_text(json.dumps(document))
    # An encode starts with the largest files: in the order of names its commits are random.
    order = np.random.default_rng(0).permutation(num_videos)
    num_small = min(num_commits * VIDEOS_A_COMMIT, num_videos // 2)
    large, small = order[:-num_small], order[-num_small:]
    blocks = [large[i : i + VIDEOS_A_LARGE_COMMIT] for i in range(0, len(large), VIDEOS_A_LARGE_COMMIT)]
    blocks += [small[i : i + VIDEOS_A_COMMIT] for i in range(0, len(small), VIDEOS_A_COMMIT)]
    seconds, most_files = [], 0
    with open_writer(cache, "benchmark") as writer:
        for sequence, numbers in enumerate(blocks, start=1):
            table = records(folder, numbers, sequence)
            began = time.perf_counter()
            writer.append_rows({RECORDS: lambda _, table=table: table})
            if len(numbers) <= VIDEOS_A_COMMIT:
                seconds.append(time.perf_counter() - began)
            most_files = max(most_files, len(list((cache / RECORDS).glob("*.parquet"))))
    if with_files:
        make_files(folder, cache, num_videos)
    files = [file.stat().st_size for file in (cache / RECORDS).glob("*.parquet")]
    return {
        "commits": len(seconds),
        "commit_seconds_median": float(np.median(seconds)),
        "commit_seconds_max": max(seconds),
        "commit_seconds_mean": float(np.mean(seconds)),
        "record_files_most": most_files,
        "record_files": len(files),
        "record_bytes_per_video": sum(files) / num_videos,
    }


def make_files(folder: Path, cache: Path, num_videos: int) -> None:
    for number in range(num_videos):
        path = folder / "videos" / video_id(number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.utime(path, ns=(0, 0))
    for name in ARRAYS:
        for shard in range(-(-num_videos // VIDEOS_A_COMMIT)):
            inner = cache / name / "c" / "0" / str(shard) / "0"
            inner.mkdir(parents=True)
            (inner / "0").write_bytes(b"\0")


PROCESS = """
import re, sys, time
from pathlib import Path
from vidlat.store.reader import open_cache
folder = Path(sys.argv[1])
{prepare}
cache, began = folder / "latents.zarr", time.perf_counter()
{code}
seconds = time.perf_counter() - began
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(seconds, peak)
"""

MEASURES = {
    # What a training needs before its first batch.
    "open": "latents = open_cache(cache); len(latents); latents._ranges",
    "columns": "open_cache(cache).columns('start', 'num_frames', 'fps')",
    "sources": "open_cache(cache).sources()",
    # A re-run that finds 1000 new videos; its sources are there before the clock starts.
    "plan": """latents = open_cache(cache)
plan = plan_encode(
    sources, latents.sources(), latents.failures(), latents.annotations(), num_workers=8
)
assert plan.num_videos == 1000, plan.num_videos""",
    # What an encode does first where nothing is new; the names of the files are in memory from their making.
    "find again": """from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.known_files import KnownFiles
known = KnownFiles(open_cache(cache).sources().values())
found = discover_videos([str(folder / "videos")], known=known)
assert len(found.videos) == len(open_cache(cache)), found.ignored""",
}

SOURCES = """
from vidlat.pipeline.plan import plan_encode
from vidlat.types import InputVideo, Source
names = [f"study{{n // 1000:05d}}/clip_{{n % 1000:06d}}.mp4" for n in range(1000, {num_videos} + 1000)]
sources = [InputVideo(video_id=i, source=Source(f"{{folder}}/videos/{{i}}", 0, 0)) for i in names]
"""

COMMAND = """
import re, sys
from pathlib import Path
from vidlat.cli import main
sys.argv[0] = "vidlat"
try:
    main()
finally:
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(peak, file=sys.stderr)
"""


def in_a_process(name: str, folder: Path, num_videos: int) -> dict:
    """Time and peak memory of one of MEASURES. The parent's peak would show in the child's rusage."""
    prepare = SOURCES.format(num_videos=num_videos) if name == "plan" else ""
    command = [sys.executable, "-c", PROCESS.format(prepare=prepare, code=MEASURES[name]), str(folder)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return {"seconds": float(answer[0]), "peak_bytes": int(answer[1])}


def of_a_command(*arguments: str, head: bool = False) -> dict:
    """Wall time, with the interpreter's start, and peak memory of `vidlat ...`; head: into `head`."""
    began = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for _ in range(10):
            process.stdout.readline()
        while not head and process.stdout.read(1 << 20):
            pass
        process.stdout.close()
        peak = int(process.stderr.read())
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--commits", type=int, default=200, help="small commits at the end, timed one by one")
    parser.add_argument("--no-files", action="store_true", help="records alone: no shards, no sources")
    parser.add_argument("--folder", type=Path, help="an empty folder, kept; default: a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        began = time.perf_counter()
        growth = make(folder, options.videos, options.commits, not options.no_files)
        print(f"{options.videos} videos made in {time.perf_counter() - began:.0f} s")
        measures = [name for name in MEASURES if name != "find again" or not options.no_files]
        figures = {name: in_a_process(name, folder, options.videos) for name in measures}
        cache = str(folder / "latents.zarr")
        figures["info --json"] = of_a_command("info", cache, "--json")
        figures["ls --json"] = of_a_command("ls", cache, "--json")
        figures["ls | head"] = of_a_command("ls", cache, head=True)
        print(f"{'':<16} {'s':>7} {'peak MB':>8}  target")
        for name, figure in figures.items():
            peak = f"{figure['peak_bytes'] / 1e6:.0f}"
            print(f"{name:<16} {figure['seconds']:>7.2f} {peak:>8}  {TARGETS.get(name, '')}")
        for name, value in growth.items():
            print(f"{name:<24} {value:.4g}")
    if options.json:
        answer = {"videos": options.videos, "growth": growth, "figures": figures}
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
