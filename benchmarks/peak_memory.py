"""Peak memory of `vidlat encode`: it must not grow with the number of frames, in one video or in many.

    python benchmarks/peak_memory.py [--frames 3000 30000] [--size 64] [--json memory.json]

The videos are a phantom's frames again and again; every encode is a process of its own. Of the driver and of
the largest worker: `peak` is what the system counts (VmHWM), mapped files among it; `anonymous` the part
that no file backs, as sampled. Linux only.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from phantom import make_phantom

from vidlat.video.writer import write_video

FRAMES_A_SHORT_VIDEO = 100
SAMPLE_SECONDS = 0.02
FIELDS = {"peak": "VmHWM", "anonymous": "RssAnon", "mapped": "RssFile"}
COLUMNS = [(role, name) for role in ("driver", "worker") for name in ("peak", "anonymous")]
VIDLAT = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with the benchmark
from vidlat.cli import main
main()
"""


def make_videos(folder: Path, phantom: np.ndarray, num_frames: int, frames_a_video: int) -> Path:
    folder.mkdir()
    for first in range(0, num_frames, frames_a_video):
        length = min(frames_a_video, num_frames - first)
        write_video(folder / f"{first:06d}.mp4", islice(cycle(phantom), length), 25)
    return folder


def processes_of(session: int) -> dict[int, str]:
    """What each living process of a session is: driver, worker or helper."""
    roles = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            _, parent, _, own_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own_session) == session:
                is_forked = b"multiprocessing.forkserver" in (folder / "cmdline").read_bytes()
                is_worker = is_forked and int(parent) != session  # the fork server is the driver's child
                roles[int(folder.name)] = "worker" if is_worker else "helper"
    return roles | {session: "driver"}


def measure(command: list[str]) -> dict:
    """Exit code, seconds, and the peaks of the driver and of the largest worker, in bytes."""
    began = time.perf_counter()
    encode = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    peaks = {role: dict.fromkeys(FIELDS, 0) for role in ("driver", "worker", "helper")}
    try:
        while encode.poll() is None:
            for pid, role in processes_of(encode.pid).items():
                with suppress(OSError):
                    add_peaks(peaks[role], Path(f"/proc/{pid}/status").read_text())
            time.sleep(SAMPLE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(encode.pid, signal.SIGKILL)
        encode.wait()
    seconds = time.perf_counter() - began
    peaks = {role: peaks[role] for role in ("driver", "worker")}
    return {"exit_code": encode.returncode, "seconds": seconds, **peaks}


def add_peaks(peaks: dict[str, int], status: str) -> None:
    for name, field in FIELDS.items():
        if found := re.search(rf"{field}:\s+(\d+) kB", status):
            peaks[name] = max(peaks[name], int(found[1]) * 1024)


def encode_and_measure(phantom: np.ndarray, num_frames: int, frames_a_video: int) -> dict:
    size = phantom.shape[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_videos(Path(temporary, "videos"), phantom, num_frames, frames_a_video)
        paths = ["--input", str(folder), "--out", str(Path(temporary, "latents.zarr"))]
        flags = f"--vae tiny --size {size} --workers 2 --device cpu".split()
        figures = measure([sys.executable, "-c", VIDLAT, "encode", *paths, *flags])
    if figures["exit_code"]:
        raise RuntimeError(f"the encode ended with {figures['exit_code']}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[3_000, 30_000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    phantom = make_phantom("heart", 0, 60, options.size, options.size, 25)
    report = []
    print(f"{'':>7} {'frames':>8} {'':>5}  {'driver MB':>20}  {'largest worker MB':>20}")
    print(
        f"{'frames':>7} {'a video':>8} {'s':>5}  {'peak':>9} {'anonymous':>10}  {'peak':>9} {'anonymous':>10}"
    )
    for num_frames in options.frames:
        for frames_a_video in (num_frames, FRAMES_A_SHORT_VIDEO):
            figures = encode_and_measure(phantom, num_frames, frames_a_video)
            cells = [f"{figures[role][name] / 1e6:>10.0f}" for role, name in COLUMNS]
            print(
                f"{num_frames:>7} {frames_a_video:>8} {figures['seconds']:>5.0f} {' '.join(cells)}",
                flush=True,
            )
            report.append({"frames": num_frames, "frames_a_video": frames_a_video, **figures})
    if options.json:
        options.json.write_text(json.dumps({"size": options.size, "encodes": report}, indent=2) + "\n")


if __name__ == "__main__":
    main()
