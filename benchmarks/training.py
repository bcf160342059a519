"""What data costs a training: windows a second against what a network eats, and a cache against no cache.

    python benchmarks/training.py CACHE [--steps 30] [--json FILE]

First windows a second of the trainer's own batches (drawn from the posterior, whitened, with noise) from
memory and from disk, beside what the `tiny` preset takes on this machine, and the share of its time the
trainer waited. Then an epoch from the cache against one that decodes and encodes its clips anew, as a
training without a cache would each epoch: the same videos, the same network, the same number of windows.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from vidlat.config import TrainConfig
from vidlat.pipeline.cached_sources import find_cached_source
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.store.reader import LatentCache, open_cache
from vidlat.train.data.dataset import MEMORY_LIMIT_BYTES, LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.windows import WindowShape, training_windows
from vidlat.train.objectives.conditioning import Conditions
from vidlat.train.objectives.noising import Noising
from vidlat.train.trainer import Trainer
from vidlat.video.reader import read_prepared

BATCH, FRAMES = 8, 16


def windows_a_second(cache: LatentCache, memory_limit_bytes: int, num_steps: int) -> dict[str, float]:
    """Of batches as they come, and with the noise that a step adds to them."""
    records = list(cache.records().values())
    schema = cache.schema
    shape = WindowShape.of_clip(FRAMES, schema.timing)
    whitening = Whitening.from_records(records, "sample")
    noising = Noising(TrainConfig(), Conditions())
    rates = {}
    for name, with_noise in (("batches", False), ("drawn", True)):
        dataset = LatentDataset(
            cache, records, shape, whitening, "sample", memory_limit_bytes, with_noise=with_noise
        )
        plans = (training_windows(records, shape, seed=0, step=n, batch=BATCH) for n in range(num_steps))
        began = time.perf_counter()
        for batch in dataset.batches(plans):
            if with_noise:
                noising.draws(batch)
        rates[name] = BATCH * num_steps / (time.perf_counter() - began)
    return rates


def train(cache: LatentCache, num_steps: int) -> tuple[float, float]:
    """Seconds a step of the tiny preset, and the share of them it waited for data."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            steps=num_steps, batch=BATCH, frames=FRAMES, checkpoint_every=10**6, validation_fraction=0.0,
        )  # fmt: skip
        records = list(Trainer(config, cache, Path(folder) / "run").steps())[2:]
    seconds = float(np.median([1 / record.steps_per_second for record in records]))
    return seconds, float(np.median([record.data_wait for record in records]))


def encode_anew(cache: LatentCache) -> tuple[float, int]:
    """Seconds to decode a window of every clip and to encode it, and how many clips that were."""
    vae = load_vae_of(cache.schema, device="cpu", batch=2)
    sources = cache.sources()
    began, num_clips = time.perf_counter(), 0
    for video_id in cache.records():
        source = find_cached_source(video_id, sources[video_id])
        frames = []
        for frame in read_prepared(source.path, source.selection, cache.schema.settings):
            frames.append(frame.pixels)
            if len(frames) == FRAMES:
                break
        with torch.inference_mode():
            vae.encode(torch.from_numpy(np.stack(frames))[None, None])
        num_clips += 1
    return time.perf_counter() - began, num_clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cache = open_cache(options.cache)
    memory = windows_a_second(cache, MEMORY_LIMIT_BYTES, 200)
    disk = windows_a_second(cache, 0, 200)
    seconds, waited = train(cache, options.steps)
    encoding, num_clips = encode_anew(cache)
    training = num_clips / BATCH * seconds
    figures = {
        "windows/s from memory, drawn and whitened": memory["batches"],
        "windows/s from disk, drawn and whitened": disk["batches"],
        "windows/s from memory, with noise": memory["drawn"],
        "windows/s that tiny eats": BATCH / seconds,
        "share of a step waited for data, %": 100 * waited,
        "an epoch from the cache, s": training,
        "encoding its windows anew, s": encoding,
        "an epoch without a cache / with": (training + encoding) / training,
    }
    for title, value in figures.items():
        print(f"{title:<44}{value:>12,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
