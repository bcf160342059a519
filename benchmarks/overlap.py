"""`vidlat encode` against the slower of its parts, with an encoder that sleeps, as a GPU would have it.

    python benchmarks/overlap.py [--videos 40] [--rounds 3] [--apart] [--json FILE]

The VAE of the one process takes no core: it sleeps, altogether half longer than all else takes, as long, or
a third less. All but the encoder: the same encode with one that does not sleep. A perfect pipeline takes as
long as the slower of the two. Decoding alone, by as many threads, stands beside it. --apart: videos are read
in processes of their own, as for a GPU.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from distributed import Client, WorkerPlugin
from phantom import make_phantom

from vidlat.config import EncodeConfig
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import PreparedEncode, prepare_encode
from vidlat.pipeline.job import EncodeJob
from vidlat.store.reader import open_cache
from vidlat.timing import Timing
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared
from vidlat.video.writer import write_video

NUM_LENGTHS, SIDE, BATCH = 5, 256, 8


class SleepingVAE:
    """As `FrozenVAE`: so many seconds of sleep a stack, and latents of nothing."""

    def __init__(self, job: EncodeJob, stack_seconds: float) -> None:
        self.stack_seconds = stack_seconds
        self.timing, self.batch = job.settings.timing(4), job.batch
        self.weights_hash, self.device = job.vae_hash, torch.device("cpu")
        self.library = "monai"

    def with_batch(self, batch: int) -> "SleepingVAE":
        other = copy(self)
        other.batch = batch
        return other

    def encode_stacks(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self.stack_seconds * self.batch)  # a call is filled up
        num_stacks, _, depth, height, width = stacks.shape
        shape = num_stacks, 4, depth // 4, height // 4, width // 4
        return torch.rand(shape), torch.rand(shape)


class FallAsleep(WorkerPlugin):
    """In the process that encodes, the VAE is one that sleeps."""

    def __init__(self, stack_seconds: float) -> None:
        self.stack_seconds = stack_seconds

    def setup(self, worker: object) -> None:  # noqa: ARG002
        from vidlat.encode.memory import keep_freed_memory
        from vidlat.pipeline import job as job_module

        keep_freed_memory()  # as loading a VAE does
        job_module._load_once = lambda job: SleepingVAE(job, self.stack_seconds)


def make_videos(folder: Path, num_videos: int) -> None:
    """Few different ones, many times: what matters here is how long they take."""
    folder.mkdir()
    frames = make_phantom("heart", 0, max(map(length_of, range(num_videos))), SIDE, SIDE, 25)
    for number in range(num_videos):
        path = folder / f"{number}.mp4"
        if number < NUM_LENGTHS:
            write_video(path, frames[: length_of(number)], 25)
        else:
            path.write_bytes((folder / f"{number % NUM_LENGTHS}.mp4").read_bytes())


def length_of(number: int) -> int:
    """Frames of a video: they differ, as real ones do."""
    return 24 + 24 * (number % NUM_LENGTHS)


def decode(sources: list[InputVideo], job: EncodeJob, num_threads: int) -> float:
    def read(source: InputVideo) -> None:
        for _ in read_prepared(source.path, source.selection, job.settings):
            pass

    began = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(read, sources))
    return time.perf_counter() - began


def encode(prepared: PreparedEncode, client: Client, stack_seconds: float, *, apart: bool) -> float:
    client.register_plugin(FallAsleep(stack_seconds), name="asleep")
    job = replace(prepared.job, num_threads=1, reads_apart=apart)
    with DaskExecutor(client) as executor, prepared.open_writer() as writer:
        began = time.perf_counter()
        list(run_encode(prepared.plan, job, writer, executor))
        return time.perf_counter() - began


def measure(folder: Path, num_videos: int, num_rounds: int, *, apart: bool) -> Iterator[dict[str, float]]:
    make_videos(folder / "v", num_videos)
    config = EncodeConfig(vae="tiny", size=128, batch=BATCH, workers=1, device="cpu")
    num_threads = max(3, os.cpu_count() or 1)  # as a process with a GPU has
    names = ("decoding", "all but encoder", "encoder", "both")
    with connect(None, 1, num_threads) as client:
        for share in (1.5, 1.0, 0.67):
            rounds = []
            for number in range(num_rounds + 1):
                out = folder / f"{round(100 * share)}-{number}"
                prepared = prepare_encode([str(folder / "v")], config, out.with_suffix(".none.zarr"))
                sources = [source for batch in prepared.plan.batches for source in batch]
                decoding = decode(sources, prepared.job, num_threads)
                rest = encode(prepared, client, 0.0, apart=apart)
                if not number:
                    timing = prepared.job.settings.timing(4)
                    num_stacks = sum(num_stacks_of(batch, timing) for batch in prepared.plan.batches)
                    stack_seconds = share * rest / num_stacks
                prepared = prepare_encode([str(folder / "v")], config, out.with_suffix(".zarr"))
                both = encode(prepared, client, stack_seconds, apart=apart)
                assert len(open_cache(prepared.out)) == num_videos
                if number:  # the first warms up
                    rounds.append((decoding, rest, num_stacks * stack_seconds, both))
            ratios = [both / max(rest, encoder) for _, rest, encoder, both in rounds]
            row = dict(zip(names, map(statistics.median, zip(*rounds, strict=True)), strict=True))
            yield row | {"ratio": statistics.median(ratios)}


def num_stacks_of(batch: tuple[InputVideo, ...], timing: Timing) -> int:
    """As many as its calls take, the last one filled up."""
    num_stacks = sum(timing.num_calls(length_of(int(source.path.stem))) for source in batch)
    return -(-num_stacks // BATCH) * BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print(f"{'decoding':>10}{'all but encoder':>17}{'encoder':>9}{'both, s':>9}{'both / slower part':>20}")
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(folder), options.videos, options.rounds, apart=options.apart):
            results.append(row)
            parts = f"{row['decoding']:>10.2f}{row['all but encoder']:>17.2f}{row['encoder']:>9.2f}"
            print(f"{parts}{row['both']:>9.2f}{row['ratio']:>19.2f}x", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
