"""What `vidlat encode` spends on a file beside decoding it and the network, on thousands of tiny ones.

    python benchmarks/tiny_files.py [--videos 2000] [--json FILE]

The videos have 4 frames of 32 x 32 pixels; the VAE is the embedded one. One process encodes, on the same core
as all else, so that everything is done one after another: from the time of all of it, that of finding the
videos included, is taken what decoding and preparing the same files and as many VAE calls take by themselves.
What is left is the price of a file: discovery, plan, tasks, scratch, shards, records, and the start of the
cluster apart.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from phantom import make_phantom

from vidlat.config import EncodeConfig
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import prepare_encode
from vidlat.pipeline.job import vae_of_this_process
from vidlat.pipeline.measure import time_vae
from vidlat.store.reader import open_cache
from vidlat.video.reader import read_prepared
from vidlat.video.writer import write_video

NUM_FRAMES, SIDE, BATCH = 4, 32, 8


def make_videos(folder: Path, num_videos: int) -> None:
    folder.mkdir()
    write_video(folder / "0.mp4", make_phantom("heart", 0, NUM_FRAMES, SIDE, SIDE, 25), 25)
    content = (folder / "0.mp4").read_bytes()
    for number in range(1, num_videos):
        (folder / f"{number}.mp4").write_bytes(content)


def measure(num_videos: int, folder: Path) -> dict[str, float]:
    make_videos(folder / "v", num_videos)
    config = EncodeConfig(vae="tiny", size=SIDE, batch=BATCH, workers=1, device="cpu")
    began = time.perf_counter()
    prepared = prepare_encode([str(folder / "v")], config, folder / "l.zarr")
    planned = time.perf_counter() - began
    job = replace(prepared.job, num_threads=1)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # what is started from here on inherits it
    with connect(None, 1) as client, DaskExecutor(client) as executor, prepared.open_writer() as writer:
        client.run(lambda: vae_of_this_process(job) and None)  # its import and the weights, once a process
        began = time.perf_counter()
        list(run_encode(prepared.plan, job, writer, executor))
        encoded = time.perf_counter() - began
    assert len(open_cache(folder / "l.zarr")) == num_videos
    sources = [source for batch in prepared.plan.batches for source in batch]
    began = time.perf_counter()
    for source in sources:
        for _ in read_prepared(source.path, source.selection, job.settings):
            pass
    decoding = time.perf_counter() - began
    num_calls = sum(-(-len(batch) // BATCH) for batch in prepared.plan.batches)
    network = num_calls * time_vae(job.load_vae(), job.settings)
    rest = planned + encoded - decoding - network
    return {
        "videos": num_videos,
        "batches": len(prepared.plan.batches),
        "finding and planning, ms a file": 1000 * planned / num_videos,
        "encoding, ms a file": 1000 * encoded / num_videos,
        "of it decoding, ms a file": 1000 * decoding / num_videos,
        "of it network, ms a file": 1000 * network / num_videos,
        "beside decoding and network, ms a file": 1000 * rest / num_videos,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.videos, Path(folder))
    for name, value in figures.items():
        print(f"{name:<42} {value:10.2f}" if isinstance(value, float) else f"{name:<42} {value:10}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
