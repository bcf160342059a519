"""How far a run's samples are from held-out videos, with white noise and real against real beside them.

    python benchmarks/sample_quality.py RUN CACHE [--samples 128] [--steps 50] [--sampler ddim]
                                        [--checkpoint last] [--pictures FOLDER] [--json FILE]

Fréchet distances in the latents' means and standard deviations, pooled 4 x 4, after decoding and encoding
again (`frechet.py`). Held-out: windows of the validation videos, spread evenly over them. White
noise: of the training latents' mean and covariance of channels, at every position on its own. Real against
real: as many windows of training videos. Pictures: contact sheets of samples, held-out windows and noise.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from frechet import clip_features, frechet_distance

from vidlat.config import SampleConfig
from vidlat.encode.vae import FrozenVAE
from vidlat.pipeline.decode_videos import decode_latents, load_vae_of
from vidlat.sample.clips import ClipSampler
from vidlat.store.reader import LatentCache, open_cache
from vidlat.train.frozen_run import Run
from vidlat.train.run_folder import load_run
from vidlat.video.contact_sheet import contact_sheet


def windows_of(cache: LatentCache, run: Run, video_ids: tuple[str, ...], most: int) -> np.ndarray:
    """Posterior means (N, L, t, h, w) of whole windows of real frames, spread evenly."""
    shape, records = run.window_shape(), cache.records()
    length = shape.num_latent_frames
    starts = [
        start
        for record in (records[video_id] for video_id in video_ids)
        for start in range(
            record.start,
            record.start + shape.timing.num_valid(record.num_frames) - length + 1,
            shape.stack_length,
        )
    ]
    if not starts:
        raise SystemExit("no video of this side is as long as a training clip")
    picked = np.unique(np.linspace(0, len(starts) - 1, most).round().astype(int))
    mean, _ = cache.read_windows(np.array(starts)[picked], length, with_std=False)
    return mean.astype(np.float32)


def white_noise(real: np.ndarray, num: int) -> np.ndarray:
    """(N, L, t, h, w) of the mean and the covariance of channels of `real`."""
    by_channel = np.moveaxis(real, 1, 0).reshape(real.shape[1], -1).astype(np.float64)
    root = np.linalg.cholesky(np.cov(by_channel) + 1e-9 * np.eye(len(by_channel)))
    drawn = np.random.default_rng(0).standard_normal((num, *real.shape[1:]))
    mixed = np.einsum("ij,njthw->nithw", root, drawn) + by_channel.mean(1)[:, None, None, None]
    return mixed.astype(np.float32)


def features_of(vae: FrozenVAE, clips: np.ndarray) -> np.ndarray:
    return np.stack([clip_features(vae, clip) for clip in clips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    trained, cache = load_run(options.run, best=options.checkpoint == "best"), open_cache(options.cache)
    run = trained.run
    vae = load_vae_of(run.schema, batch=2)
    config = SampleConfig(steps=options.steps, sampler=options.sampler, batch=8)
    samples = ClipSampler(trained, config, vae.device).sample(range(options.samples), run.config.frames)
    held_out = windows_of(cache, run, run.validation, options.samples)
    training = windows_of(cache, run, run.training, 4 * options.samples)
    sets = {
        "held-out videos": held_out,
        "samples": np.stack([run.whitening.unwhiten(latents).numpy() for latents in samples]),
        "white noise": white_noise(training, options.samples),
        "training videos": training[:: max(len(training) // options.samples, 1)][: options.samples],
    }
    features = {name: features_of(vae, clips) for name, clips in sets.items()}
    real = features["held-out videos"]
    distances = {
        name: {"N": len(features[name]), "distance": frechet_distance(features[name], real)}
        for name in ("samples", "white noise", "training videos")
    }
    ratio = distances["samples"]["distance"] / distances["white noise"]["distance"]
    print(f"step {trained.step}; {len(run.training)} training videos, {len(run.validation)} held out")
    print(f"{'against held-out windows, N = ' + str(len(real)):<40}{'N':>5}{'distance':>11}")
    for name, row in distances.items():
        print(f"{name:<40}{row['N']:>5}{row['distance']:>11.3f}")
    print(f"samples / white noise: {ratio:.3f}")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for name in ("samples", "held-out videos", "white noise"):
            clips = sets[name][:: max(len(sets[name]) // 8, 1)][:8]
            rows = [
                (f"{name} {n}", decode_latents(vae, clip, run.config.frames)) for n, clip in enumerate(clips)
            ]
            contact_sheet(rows, options.pictures / f"{name.replace(' ', '_')}.png")
    if options.json:
        options.json.write_text(json.dumps({"step": trained.step, **distances}, indent=2) + "\n")


if __name__ == "__main__":
    main()
