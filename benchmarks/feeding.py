"""How fast videos are read for a VAE: by threads of one process, and by processes that feed it.

    python benchmarks/feeding.py [--most N] [--rounds 3] [--size 128] [--frames 192] [--json FILE]

Frames of 640 x 480 in H.264 (x264's default quality), decoded, prepared and folded into stacks, for a VAE
that takes them at once. 1, 2, 4 ... readers, up to the number of cores or N, take turns; the best round
counts. CPU ms: of this process, which in the one case reads and in the other takes what is sent.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
from phantom import make_phantom

from vidlat.config import LatentSettings
from vidlat.encode.memory import keep_freed_memory
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.read_video import Stack, read_in_time
from vidlat.pipeline.reader_process import read_apart
from vidlat.resources import num_cores
from vidlat.types import InputVideo

NUM_DRAWN = 24
HEIGHT, WIDTH = 480, 640
VIDEOS_PER_READER = 2

Read = Callable[[InputVideo, LatentSettings], Iterator[object]]


def make_video(path: Path, num_frames: int) -> None:
    """A heart that beats forth and back: drawing a frame takes a hundred times as long as decoding it."""
    drawn = make_phantom("heart", 0, min(NUM_DRAWN, num_frames), HEIGHT, WIDTH, 25)
    there_and_back = np.concatenate([drawn, drawn[-2:0:-1]])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(num_frames):
            pixels = there_and_back[index % len(there_and_back)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "gray")))
        container.mux(stream.encode())


def in_thread(video: InputVideo, settings: LatentSettings) -> Iterator[object]:
    return read_in_time(video, settings, settings.timing(4), 0.0, lambda: False, lambda _: None)


def in_process(video: InputVideo, settings: LatentSettings) -> Iterator[object]:
    return read_apart(video, settings, settings.timing(4), 0.0, lambda: False)


def frames_per_second(
    read: Read, video: InputVideo, settings: LatentSettings, num: int
) -> tuple[float, float]:
    """Frames a second of `num` readers, and CPU milliseconds a frame of this process."""

    def take(_: int) -> int:
        return sum(item.num_frames for item in read(video, settings) if isinstance(item, Stack))

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(num) as pool:
        num_frames = sum(pool.map(take, range(VIDEOS_PER_READER * num)))
    return num_frames / (time.perf_counter() - began), 1e3 * (time.process_time() - cpu) / num_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=num_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=192)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = [2**power for power in range(options.most.bit_length()) if 2**power <= options.most]
    keep_freed_memory()  # as loading a VAE does
    settings = LatentSettings(size=options.size)
    cases = [
        (name, read, n) for n in counts for name, read in (("threads", in_thread), ("processes", in_process))
    ]
    best: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_video(Path(folder) / "a.mp4", options.frames)
        (video,) = discover_videos([folder]).videos
        for number in range(options.rounds + 1):
            for name, read, n in cases:
                found = frames_per_second(read, video, settings, n)
                if number:  # the first starts the processes
                    best[f"{n} {name}"] = max(found, best.get(f"{n} {name}", found))
    print(f"{'readers':<16}{'frames/s':>10}{'CPU ms a frame, here':>22}")
    for title, (rate, cpu) in best.items():
        print(f"{title:<16}{rate:>10.0f}{cpu:>22.2f}")
    if options.json:
        options.json.write_text(json.dumps(best, indent=2) + "\n")


if __name__ == "__main__":
    main()
