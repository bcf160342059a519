"""What `vidlat encode` costs a frame, from few videos to many and from short ones to long ones.

    python benchmarks/scaling.py [--most 10000] [--json FILE]

Videos of 32 x 32 pixels and the embedded VAE, so that what is not the network weighs most: 10 to 10,000
videos of 8 frames, and one video of 64 to 65,536 frames. Without the start of the processes. With one video
one process is at work, with many all; the rate of a process is what should stay the same. Peak memory is that
of the process that encodes, the largest of them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from phantom import make_phantom

from vidlat.config import EncodeConfig
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import prepare_encode
from vidlat.pipeline.job import vae_of_this_process
from vidlat.store.reader import open_cache
from vidlat.video.writer import write_video

SIDE, NUM_FRAMES = 32, 8
LENGTHS = (64, 512, 4096, 32768, 65536)


def make_videos(folder: Path, num_videos: int, num_frames: int) -> None:
    folder.mkdir()
    frames = make_phantom("heart", 0, min(num_frames, 512), SIDE, SIDE, 25)
    looped = (frames[index % len(frames)] for index in range(num_frames))
    write_video(folder / "0.mp4", looped, 25)
    content = (folder / "0.mp4").read_bytes()
    for number in range(1, num_videos):
        (folder / f"{number}.mp4").write_bytes(content)


def peak_mb() -> float:
    """Of this process, since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def encode(folder: Path, num_videos: int, num_frames: int) -> dict[str, float]:
    make_videos(folder / "v", num_videos, num_frames)
    config = EncodeConfig(vae="tiny", size=SIDE, device="cpu")
    began = time.perf_counter()
    prepared = prepare_encode([str(folder / "v")], config, folder / "l.zarr")
    seconds = time.perf_counter() - began
    with (
        connect(None, prepared.num_workers) as client,
        DaskExecutor(client) as executor,
        prepared.open_writer() as writer,
    ):
        client.run(lambda job: vae_of_this_process(job) and None, prepared.job)
        client.run(peak_mb)
        began = time.perf_counter()
        list(run_encode(prepared.plan, prepared.job, writer, executor))
        seconds += time.perf_counter() - began
        peak = max(client.run(peak_mb).values())
    assert len(open_cache(prepared.out)) == num_videos
    total = num_videos * num_frames
    return {
        "videos": num_videos, "frames each": num_frames, "seconds": seconds, "frames/s": total / seconds,
        "ms a frame and process": 1000 * seconds * min(num_videos, prepared.num_workers) / total,
        "peak MB": peak,
    }  # fmt: skip


def rows(most: int) -> Iterator[dict[str, float]]:
    shapes = [(count, NUM_FRAMES) for count in (10, 100, 1000, 10_000) if count <= most]
    for num_videos, num_frames in shapes + [(1, length) for length in LENGTHS]:
        with tempfile.TemporaryDirectory() as folder:
            yield encode(Path(folder), num_videos, num_frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print(f"{'videos':>8}{'frames each':>13}{'seconds':>10}{'frames/s':>10}{'ms a frame and process':>24}"
          f"{'peak MB':>9}")  # fmt: skip
    for row in rows(options.most):
        results.append(row)
        print(f"{row['videos']:>8}{row['frames each']:>13}{row['seconds']:>10.2f}{row['frames/s']:>10.0f}"
              f"{row['ms a frame and process']:>24.2f}{row['peak MB']:>9.0f}", flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
