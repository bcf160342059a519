"""What the layout of a cache and mantissa rounding cost and give, on the latents of a real cache.

    python benchmarks/storage.py CACHE [--windows 2048] [--videos 12] [--json FILE]

First the same latents (means) in other chunks, shards and codecs, one thing changed at a time: bytes a byte
of float16, megabytes written a second, windows of one training clip read a second from any latent frame, in
batches of 32, the page cache warm. They are repeated to eight times what a reader keeps in memory. Then fewer
bits of mantissa: bytes, error of the latents (root mean square, of their spread), and PSNR of the decoded
first frames of some videos, against what the unrounded latents decode to and against the source, where it is
still there.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tensorstore as ts

from vidlat.config import MANTISSA_BITS
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import InputError
from vidlat.evaluate.quality import psnr_of
from vidlat.pipeline.cached_sources import find_cached_source
from vidlat.pipeline.decode_videos import decode_latents, load_vae_of
from vidlat.store.latents.statistics import to_stored
from vidlat.store.latents.tensorstore_arrays import READ_CACHE_BYTES
from vidlat.store.reader import LatentCache, open_cache
from vidlat.video.reader import read_prepared

WINDOW, BATCH, ROUNDS, NUM_FRAMES = 4, 32, 2, 64
MB = 10**6


def blosc(cname: str, shuffle: str, clevel: int = 5) -> dict:
    settings = {"typesize": 2, "cname": cname, "clevel": clevel, "shuffle": shuffle, "blocksize": 0}
    return {"name": "blosc", "configuration": settings}


CRC = {"name": "crc32c"}
CHOSEN = {"chunk": 4, "shard_bytes": 2 << 20, "codecs": [blosc("lz4", "bitshuffle"), CRC]}
LAYOUTS = {
    "as vidlat writes": {},
    "chunks of 1 latent frame": {"chunk": 1},
    "chunks of 2": {"chunk": 2},
    "chunks of 8": {"chunk": 8},
    "chunks of 16": {"chunk": 16},
    "shards of 0.5 MiB": {"shard_bytes": 1 << 19},
    "shards of 8 MiB": {"shard_bytes": 8 << 20},
    "no shards, a file a chunk": {"shard_bytes": 0},
    "no compression": {"codecs": [CRC]},
    "lz4, no checksum": {"codecs": [blosc("lz4", "bitshuffle")]},
    "lz4, bytes shuffled": {"codecs": [blosc("lz4", "shuffle"), CRC]},
    "zstd 5, bits shuffled": {"codecs": [blosc("zstd", "bitshuffle"), CRC]},
    "zstd 5, bytes shuffled": {"codecs": [blosc("zstd", "shuffle"), CRC]},
    "zstd 3 without blosc": {"codecs": [{"name": "zstd", "configuration": {"level": 3}}, CRC]},
    "gzip 5": {"codecs": [{"name": "gzip", "configuration": {"level": 5}}, CRC]},
}


def spec_of(path: Path, shape: tuple[int, ...], layout: dict) -> dict:
    """A Zarr v3 array of the latents (L, F, h, w), F in whole shards."""
    latent_dim, num_frames, *sides = shape
    chunk = layout["chunk"]
    num_chunks = max(1, -(-layout["shard_bytes"] // (2 * latent_dim * chunk * sides[0] * sides[1])))
    shard = chunk * num_chunks
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner = [little, *layout["codecs"]]
    sharding = {
        "chunk_shape": [latent_dim, chunk, *sides], "codecs": inner, "index_codecs": [little, CRC],
    }  # fmt: skip
    sharded = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "context": {"cache_pool": {"total_bytes_limit": READ_CACHE_BYTES}},
        "recheck_cached_data": "open",
        "metadata": {
            "shape": [latent_dim, -(-num_frames // shard) * shard, *sides],
            "chunk_grid": {
                "name": "regular", "configuration": {"chunk_shape": [latent_dim, shard, *sides]},
            },
            "data_type": "float16",
            "fill_value": "NaN",
            "codecs": sharded if layout["shard_bytes"] else inner,
        },
    }  # fmt: skip


def write(spec: dict, latents: np.ndarray) -> float:
    """Seconds to write all, a shard at a time, as a worker does."""
    array = ts.open(spec, create=True).result()
    step = array.chunk_layout.write_chunk.shape[1]
    began = time.perf_counter()
    for first in range(0, latents.shape[1], step):
        block = latents[:, first : first + step]
        array[:, first : first + block.shape[1]].write(block).result()
    return time.perf_counter() - began


def windows_a_second(spec: dict, latents: np.ndarray, starts: np.ndarray) -> float:
    array = ts.open(spec, open=True).result()
    frames = starts[:, None] + np.arange(WINDOW)
    assert np.array_equal(array[:, frames[0]].read().result(), latents[:, frames[0]])
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        waiting = []
        for batch in np.split(frames, range(BATCH, len(frames), BATCH)):
            waiting.append(array[:, batch].transpose([1, 0, 2, 3, 4]).read())
            if len(waiting) > 4:
                waiting.pop(0).result()
        for future in waiting:
            future.result()
        best = max(best, len(starts) / (time.perf_counter() - began))
    return best


def measure_layout(folder: Path, latents: np.ndarray, layout: dict, starts: np.ndarray) -> dict[str, float]:
    path = folder / "a"
    seconds = np.inf
    for _ in range(ROUNDS):
        shutil.rmtree(path, ignore_errors=True)
        spec = spec_of(path, latents.shape, CHOSEN | layout)
        seconds = min(seconds, write(spec, latents))
    files = [file.stat().st_size for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"]
    row = {
        "bytes": sum(files) / latents.nbytes,
        "files": len(files),
        "written_mb_s": latents.nbytes / MB / seconds,
        "windows_s": windows_a_second(spec, latents, starts),
    }
    shutil.rmtree(path)
    return row


def measure_rounding(
    folder: Path, cache: LatentCache, vae: FrozenVAE, latents: np.ndarray, num_videos: int
) -> Iterator[dict[str, float]]:
    spread = latents.astype(np.float64).std()
    ids = list(cache.records())[:: max(1, len(cache.records()) // num_videos)][:num_videos]
    whole = {video_id: decoded(cache, vae, video_id, MANTISSA_BITS) for video_id in ids}
    sources = {video_id: frames_of(cache, video_id) for video_id in ids}
    for keepbits in (10, 9, 8, 7, 6, 5, 4, 3):
        rounded = to_stored("mean", latents, keepbits)
        shutil.rmtree(folder / "a", ignore_errors=True)
        write(spec_of(folder / "a", latents.shape, CHOSEN), rounded)
        num_bytes = sum(file.stat().st_size for file in (folder / "a" / "c").rglob("*") if file.is_file())
        error = np.sqrt(np.square(rounded.astype(np.float64) - latents).mean()) / spread
        frames = {video_id: decoded(cache, vae, video_id, keepbits) for video_id in ids}
        yield {
            "keepbits": keepbits,
            "bytes": num_bytes / latents.nbytes,
            "error": error,
            "psnr_unrounded": psnr(whole, frames) if keepbits < MANTISSA_BITS else np.inf,
            "psnr_source": psnr({k: v for k, v in sources.items() if v is not None}, frames),
        }


def decoded(cache: LatentCache, vae: FrozenVAE, video_id: str, keepbits: int) -> np.ndarray:
    """The first frames of a cached video, from latents of so many bits."""
    record = cache.records()[video_id]
    num_latent_frames = min(record.stop - record.start, NUM_FRAMES // vae.time_compression)
    mean, _ = cache.read_windows(np.array([record.start]), num_latent_frames, with_std=False)
    return decode_latents(vae, to_stored("mean", mean[0], keepbits), min(record.num_frames, NUM_FRAMES))


def frames_of(cache: LatentCache, video_id: str) -> np.ndarray | None:
    try:
        source = find_cached_source(video_id, cache.sources()[video_id])
    except InputError:
        return None
    frames = read_prepared(source.path, source.selection, cache.schema.settings)
    return np.stack([frame.pixels for frame in islice(frames, NUM_FRAMES)])


def psnr(wanted: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> float:
    """Mean over the videos, dB."""
    values = []
    for video_id, frames in wanted.items():
        error = frames.astype(np.float64) - np.clip(got[video_id], 0, 1)
        values.append(psnr_of(float(np.square(error).mean())))
    return float(np.mean(values)) if values else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--windows", type=int, default=4096)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cache = open_cache(options.cache)
    latents = np.concatenate([cache.read_latents(video_id).mean for video_id in cache.records()], axis=1)
    many = np.tile(latents, (1, -(-8 * READ_CACHE_BYTES // latents.nbytes), 1, 1))
    starts = np.random.default_rng(0).integers(many.shape[1] - WINDOW + 1, size=options.windows)
    print(f"{len(cache)} videos, latents {latents.shape}, {latents.nbytes / MB:.1f} MB of float16\n")
    layouts, rounding = {}, []
    with tempfile.TemporaryDirectory() as name:
        print(f"{'layout':<28}{'bytes':>7}{'files':>7}{'MB/s written':>14}{'windows/s':>11}")
        for what, layout in LAYOUTS.items():
            row = layouts[what] = measure_layout(Path(name), many, layout, starts)
            print(f"{what:<28}{row['bytes']:>7.3f}{row['files']:>7}{row['written_mb_s']:>14,.0f}"
                  f"{row['windows_s']:>11,.0f}", flush=True)  # fmt: skip
        print(f"\n{'keepbits':<10}{'bytes':>7}{'error':>10}{'dB to unrounded':>17}{'dB to source':>14}")
        vae = load_vae_of(cache.schema, device="cpu", batch=2)
        for row in measure_rounding(Path(name), cache, vae, latents, options.videos):
            rounding.append(row)
            print(f"{row['keepbits']:<10}{row['bytes']:>7.3f}{row['error']:>10.5f}"
                  f"{row['psnr_unrounded']:>17.2f}{row['psnr_source']:>14.3f}", flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps({"layouts": layouts, "rounding": rounding}, indent=2) + "\n")


if __name__ == "__main__":
    main()
