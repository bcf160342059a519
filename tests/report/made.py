"""Results of comparisons and evaluations without a VAE: figures that are known."""

import numpy as np

from vidlat.config import LatentSettings
from vidlat.evaluate.candidates import Candidate
from vidlat.evaluate.comparison import CompareProgress, Measurement
from vidlat.evaluate.motion import Changes
from vidlat.evaluate.quality import VideoQuality
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_video

TIMING = LatentSettings(stack=4, overlap=0, stretch=1).timing(4)


def quality(video_id, psnr, num_frames=16):
    changes = Changes(source=4.0, copy=3.0, product=3.0, error=1.0, num_values=100)
    return VideoQuality(
        video_id=video_id,
        num_frames=num_frames,
        mse=10 ** (-psnr / 10),
        psnr=psnr,
        ssim=psnr / 50,
        sharpness=psnr / 60,
        inside=changes,
        at_borders=changes,
    )


def candidate(name, values_per_pixel=0.25):
    return Candidate(
        name=name,
        called=name.split()[0],
        vae=name.split()[0],
        timing=TIMING,
        values_per_pixel=values_per_pixel,
        bytes_per_1000_frames=4e6 * values_per_pixel,
    )


def noise(num_frames=16, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, side, side), np.uint8)


def comparison_events(out, psnrs, num_clips=None, num_frames=16):
    """Events of `compare_videos`, with pictures in the folder `out`. psnrs: {setting: {clip: PSNR}}."""
    clips = list(next(iter(psnrs.values())))
    settings = {name: candidate(name, 0.0625 * 4**number) for number, name in enumerate(psnrs)}
    shared = {"num_clips": num_clips or len(clips), "num_candidates": len(psnrs)}
    yield CompareProgress(**shared, impossible={"tiny stack 6": "stack: got 6; expected a multiple of 4"})
    out.mkdir(exist_ok=True)
    for number, clip in enumerate(clips):
        for name, setting in settings.items():
            measurement = Measurement(
                candidate=setting, quality=quality(clip, psnrs[name][clip]), seconds_per_stack=0.01
            )
            yield CompareProgress(**shared, video_id=clip, name=name, measurement=measurement)
        path = out / f"{number}.mp4"
        write_video(path, side_by_side({"source": noise(num_frames, seed=number)}), 25)
        yield CompareProgress(**shared, video_id=clip, pictures=(path, path.with_suffix(".png")))
