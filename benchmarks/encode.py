"""`vidlat encode` against the sum of its parts, and against two ways it replaces, on the same clips.

    python benchmarks/encode.py [--input FOLDER] [--videos 20] [--seconds 0.5] [--vae maisi|tiny]
                                [--size 128] [--precision float32] [--json FILE]

maisi: the published network with random weights, which cost the same. Without --input the clips are made.
The loop: frames decoded, one stack of four at a time through MAISI's stock network (num_splits=4), one
`torch.save` a video. NVIDIA's way, as MONAI's tutorial makes the training data of MAISI's diffusion model: a
whole clip at once through the same network, one draw from the posterior, float32, in a `.nii.gz` (there after
enlarging clips to multiples of 128 in time too, which is left out here). The parts: decoding and preparing
the frames, and the VAE calls, each alone, in the same processes as the encode. The start of the processes
stands apart.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from phantom import write_demo_videos

from vidlat.config import EncodeConfig
from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import load_strictly, read_weights, write_weights
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import prepare_encode
from vidlat.pipeline.job import EncodeJob, vae_of_this_process
from vidlat.pipeline.measure import time_vae
from vidlat.store.reader import open_cache
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared

STACK = 4
Encode = Callable[[AutoencoderKlMaisi, torch.Tensor, Path], None]
"""A stock network and a clip to a file."""


def choose_clips(folder: Path, inputs: Path | None, num_videos: int, seconds: float) -> Path:
    """A manifest of the first seconds of so many clips, spread over what is there."""
    if inputs is None:
        write_demo_videos(folder / "made")
        inputs = folder / "made"
    sources = [s for s in discover_videos([str(inputs)]).videos if s.path.suffix != ".npy"]
    picked = [sources[len(sources) * n // num_videos] for n in range(min(num_videos, len(sources)))]
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "id", "stop_seconds"))
        rows.writerows((source.path, source.video_id, seconds) for source in picked)
    return folder / "clips.csv"


def find_vae(name: str, folder: Path) -> tuple[Path, dict]:
    if name != "maisi":
        return resolve_weights(name), TINY_NETWORK
    torch.manual_seed(0)
    write_weights(folder / "maisi.safetensors", build_network(MAISI_NETWORK).state_dict(), {})
    return folder / "maisi.safetensors", MAISI_NETWORK


def stock_network(job: EncodeJob, network: dict) -> AutoencoderKlMaisi:
    stock = AutoencoderKlMaisi(**network, num_splits=4, dim_split=1, norm_float16=False).eval()
    load_strictly(stock, read_weights(job.vae_path)[0], job.vae_path)
    return stock


def read_clip(source: InputVideo, job: EncodeJob) -> torch.Tensor:
    """(1, 1, T, H, W), the last frame repeated to whole stacks."""
    frames = [f.pixels for f in read_prepared(source.path, source.selection, job.settings)]
    frames += [frames[-1]] * (-len(frames) % STACK)
    return torch.from_numpy(np.stack(frames))[None, None]


@torch.inference_mode()
def time_all(sources: list[InputVideo], job: EncodeJob, network: dict, out: Path, encode: Encode) -> float:
    """Seconds to read, encode and write the clips one after another."""
    out.mkdir()
    stock = stock_network(job, network)
    began = time.perf_counter()
    for number, source in enumerate(sources):
        encode(stock, read_clip(source, job), out / str(number))
    return time.perf_counter() - began


def loop(stock: AutoencoderKlMaisi, clip: torch.Tensor, out: Path) -> None:
    """The way without a tool."""
    means = [stock.encode(stack)[0] for stack in clip.split(STACK, dim=2)]
    torch.save(torch.cat(means, dim=2), f"{out}.pt")


def nvidias_way(stock: AutoencoderKlMaisi, clip: torch.Tensor, out: Path) -> None:
    volume = stock.encode_stage_2_inputs(clip)[0].permute(1, 2, 3, 0).float().numpy()
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), f"{out}.nii.gz")


def decode(batch: tuple[InputVideo, ...], job: EncodeJob) -> list[int]:
    """Frames of each video, in a process that encodes."""
    return [sum(1 for _ in read_prepared(s.path, s.selection, job.settings)) for s in batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--vae", default="maisi", choices=("maisi", "tiny"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = choose_clips(folder, options.input, options.videos, options.seconds)
        path, network = find_vae(options.vae, folder)
        config = EncodeConfig(vae=str(path), size=options.size, precision=options.precision, device="cpu")
        prepared = prepare_encode([str(clips)], config, folder / "l.zarr")
        job, plan = prepared.job, prepared.plan
        began = time.perf_counter()
        with connect(None, prepared.num_workers) as client, prepared.open_writer() as writer:
            client.run(lambda: vae_of_this_process(job) and None)
            starting = time.perf_counter() - began
            list(client.gather(client.map(decode, plan.batches, job=job, pure=False)))  # warms up
            began = time.perf_counter()
            lengths = client.gather(client.map(decode, plan.batches, job=job, pure=False))
            decoding = time.perf_counter() - began
            # All processes at once, as in the encode.
            call_seconds = np.mean(
                list(client.run(lambda: time_vae(vae_of_this_process(job), job.settings)).values())
            )
            stacks = [sum(-(-length // STACK) for length in batch) for batch in lengths]
            num_calls = sum(-(-count // job.batch) for count in stacks)
            encoding = num_calls * call_seconds / prepared.num_workers
            began = time.perf_counter()
            with DaskExecutor(client) as executor:
                list(run_encode(plan, job, writer, executor))
            both = time.perf_counter() - began
        num_videos, num_frames = len(open_cache(prepared.out)), sum(map(sum, lengths))
        sources = [source for batch in plan.batches for source in batch]
        looped = time_all(sources, job, network, folder / "pt", loop)
        as_nvidia = time_all(sources, job, network, folder / "nii", nvidias_way)
        sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                 for path in (folder / "l.zarr", folder / "pt", folder / "nii")}  # fmt: skip
    figures = {
        "videos": num_videos,
        "frames": num_frames,
        "start of the processes, s": starting,
        "decoding alone, s": decoding,
        "VAE alone, s": encoding,
        "vidlat encode, s": both,
        "vidlat encode / sum of its parts": both / (decoding + encoding),
        "the loop, s": looped,
        "the loop / vidlat encode": looped / both,
        "NVIDIA's way, s": as_nvidia,
        "NVIDIA's way / vidlat encode": as_nvidia / both,
        "cache (means, stds), bytes a frame": sizes[folder / "l.zarr"] / num_frames,
        "the loop (means), bytes a frame": sizes[folder / "pt"] / num_frames,
        "NVIDIA's way (a draw), bytes a frame": sizes[folder / "nii"] / num_frames,
    }
    print(f"{options.vae}, {options.precision}, {options.size} x {options.size}")
    for title, value in figures.items():
        print(f"{title:<36}{value:>10.2f}" if isinstance(value, float) else f"{title:<36}{value:>10}")
    if options.json:
        options.json.write_text(json.dumps(vars(options) | figures, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
