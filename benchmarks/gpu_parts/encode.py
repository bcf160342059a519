"""`vidlat encode` of H.264 clips from end to end, against the slower of its parts: reading, and the network.

Clips are 640 x 480, of a few phantoms that move forth and back, with the grain of a recording. Reading alone:
every frame decoded and prepared as for the VAE, in a process per core. The network alone: calls as the
command makes them, from the host's memory. The command's start is that of an encode of one short clip; the
rest of its time is compared. With --quick, or on a busy machine, two starts may differ by more than that:
then nothing is left to compare.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from gpu_parts.measuring import Row, Setting, seconds_per_call
from gpu_parts.vaes import vae_file
from phantom import make_phantom

from vidlat.config import LatentSettings
from vidlat.encode.device import resolve_batch
from vidlat.encode.vae import load_vae
from vidlat.pipeline.discover import discover_videos
from vidlat.resources import num_cores
from vidlat.store.reader import open_cache
from vidlat.types import InputVideo
from vidlat.video.reader import read_prepared

STACK, FPS = 4, 25
GRAIN = 6.0
"""Standard deviation, in gray levels."""


def measure(setting: Setting) -> Iterator[Row]:
    num_clips, num_frames, size = (4, 24, 64) if setting.quick else (96, 240, 256)
    frames = num_clips * num_frames
    settings = LatentSettings(size=size, stack=STACK, precision=setting.precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vae_path, _ = vae_file(setting, folder)
        with ProcessPoolExecutor(num_cores(), get_context("spawn")) as processes:
            make_clips(folder, num_clips, num_frames, processes, quick=setting.quick)
            sources = discover_videos([str(folder / "clips")]).videos
            list(processes.map(partial(read, settings=settings), sources[: 2 * num_cores()]))
            began = time.perf_counter()
            assert sum(processes.map(partial(read, settings=settings), sources)) == frames
            reading = time.perf_counter() - began
        yield {"what": "reading alone", "seconds": reading, "frames/s": frames / reading}
        network = network_seconds(vae_path, settings, frames // STACK, setting)
        yield {"what": "network alone", "seconds": network, "frames/s": frames / network}
        start = encode(folder / "short", folder / "short.zarr", vae_path, size, setting)
        yield {"what": "vidlat encode, start", "seconds": start}
        whole = encode(folder / "clips", folder / "clips.zarr", vae_path, size, setting)
        assert len(open_cache(folder / "clips.zarr")) == num_clips
    yield from rest_rows(whole - start, max(reading, network), frames)


def rest_rows(rest: float, slower: float, frames: int) -> Iterator[Row]:
    """What is told of the seconds after the start, and of those of the slower part; nothing of none."""
    is_known = rest > 0
    row = {"seconds": rest, "frames/s": frames / rest} if is_known else {}
    yield {"what": "vidlat encode, after its start"} | row
    yield {"what": "that over the slower part"} | ({"ratio": rest / slower} if is_known else {})


def make_clips(
    folder: Path, num_clips: int, num_frames: int, processes: ProcessPoolExecutor, *, quick: bool
) -> None:
    """`clips/` of as many clips, eight of them different, and `short/` of one stack."""
    (folder / "clips").mkdir()
    (folder / "short").mkdir()
    height, width, num_drawn = (120, 160, 4) if quick else (480, 640, 12)
    write = partial(write_phantom, height=height, width=width, num_drawn=num_drawn)
    different = min(num_clips, 8)
    made = [folder / f"clips/{number:03}.mp4" for number in range(different)]
    jobs = [processes.submit(write, path, seed, num_frames) for seed, path in enumerate(made)]
    jobs.append(processes.submit(write, folder / "short/a.mp4", 0, STACK))
    for job in jobs:
        job.result()
    for number in range(different, num_clips):
        shutil.copyfile(made[number % different], folder / f"clips/{number:03}.mp4")


def write_phantom(path: Path, seed: int, num_frames: int, *, height: int, width: int, num_drawn: int) -> None:
    """x264 at its default quality, as clips from a clinic have, and not as `write_video` has it."""
    drawn = make_phantom("lung" if seed % 2 else "heart", seed, num_drawn, height, width, FPS)
    forth_and_back, rng = np.concatenate([drawn, drawn[-2:0:-1]]), np.random.default_rng(seed)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
        for number in range(num_frames):
            grainy = forth_and_back[number % len(forth_and_back)] + rng.normal(0, GRAIN, (height, width))
            frame = av.VideoFrame.from_ndarray(grainy.clip(0, 255).astype(np.uint8), "gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def read(source: InputVideo, settings: LatentSettings) -> int:
    """The number of frames."""
    return sum(1 for _ in read_prepared(source.path, source.selection, settings))


def network_seconds(path: Path, settings: LatentSettings, num_stacks: int, setting: Setting) -> float:
    batch = resolve_batch(0, setting.device)
    vae = load_vae(path, settings, batch=batch, device=setting.device)
    stacks = torch.rand(batch, 1, STACK, settings.size, settings.size)
    seconds = seconds_per_call(lambda: [part.cpu() for part in vae.encode_stacks(stacks)], setting)
    return seconds * num_stacks / batch


def encode(clips: Path, out: Path, vae: Path, size: int, setting: Setting) -> float:
    """Seconds of the command."""
    command = [
        sys.executable, "-m", "vidlat", "encode", "--input", clips, "--out", out, "--vae", vae,
        "--size", size, "--stack", STACK, "--stretch", 1, "--overlap", 0, "--device", setting.device,
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True)
    return time.perf_counter() - began
