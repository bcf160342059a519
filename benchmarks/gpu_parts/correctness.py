"""Whether the device computes what a CPU does in float32, and what else must hold on it.

Errors are root mean squares, of latents over the spread (standard deviation) of the CPU's posterior means, of
decoded frames over that of the CPU's frames.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from gpu_parts.measuring import Row, Setting, attempted
from gpu_parts.training import make_cache, make_trainer
from gpu_parts.vaes import vae_file
from phantom import make_phantom

from vidlat.config import EncodeConfig, LatentSettings, SampleConfig, TrainConfig
from vidlat.encode.device import has_bfloat16
from vidlat.encode.vae import load_vae
from vidlat.encode.weights import resolve_weights
from vidlat.pipeline.encode_videos import encode_videos
from vidlat.pipeline.executor import InProcessExecutor
from vidlat.sample.clips import ClipSampler
from vidlat.store.reader import LatentCache, open_cache
from vidlat.train.recorder import StepRecord
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.train.trainer import Trainer
from vidlat.video.writer import write_video

ALLOWED = {"float32": 1e-4, "bfloat16": 0.04}
"""Of a VAE. bfloat16 has 0.014 on a CPU with trained weights, 0.023 with random ones; no TF32."""

ALLOWED_LOSS = 0.01
"""Relative difference of losses in the precision of `auto`, where kernels add up in another order."""


def measure(setting: Setting) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {4: 32} if setting.quick else {4: 128, 16: 64}
        maisi, _ = vae_file(setting, folder)
        cache = make_cache(folder, 8 if setting.quick else 32)
        checks = {
            f"{title}, stack {stack}": partial(check_vae, path, stack, size, setting)
            for title, path in (("maisi", maisi), ("tiny-16", resolve_weights("tiny-16")))
            for stack, size in sizes.items()
        }
        if setting.on_gpu:  # tests do it on a CPU
            checks["encode, out of memory"] = partial(check_memory_of_encode, maisi, folder, setting)
            checks["samples, out of memory"] = partial(check_memory_of_samples, cache, folder, setting)
        checks["training"] = partial(check_training, cache, folder, setting)
        for title, check in checks.items():
            yield from attempted({"of": title}, check)


def row(check: str, error: float, allowed: float) -> Row:
    return {"check": check, "error": error, "allowed": allowed, "right": error <= allowed}


def check_vae(path: Path, stack: int, size: int, setting: Setting) -> Iterator[Row]:
    num_stacks, batches = (4, (2, 4)) if setting.quick else (8, (2, 8))
    frames = make_phantom("heart", 0, num_stacks * stack, size, size, 25)
    stacks = torch.from_numpy(frames).float().div(255).unflatten(0, (num_stacks, stack))[:, None]
    exact = load_vae(path, LatentSettings(stack=stack, precision="float32"), device="cpu", batch=2)
    mean, std = exact.encode_stacks(stacks)
    decoded = exact.decode_stacks(mean)
    for precision in ("float32", "bfloat16"):
        if precision == "bfloat16" and not has_bfloat16(setting.device):
            continue
        settings = LatentSettings(stack=stack, precision=precision)
        vae = load_vae(path, settings, device=setting.device, batch=max(batches))
        for batch in batches:
            of_this_batch = vae.with_batch(batch)
            found_mean, found_std = of_this_batch.encode_stacks(stacks)
            found = of_this_batch.decode_stacks(mean.to(setting.device))
            for what, got, expected, spread in (
                ("means", found_mean, mean, mean.std()),
                ("stds", found_std, std, mean.std()),
                ("decoded", found, decoded, decoded.std()),
            ):
                error = (got.float().cpu() - expected).square().mean().sqrt() / spread
                yield row(f"{what}, {precision}, batch {batch}", float(error), ALLOWED[precision])


def check_memory_of_encode(vae_path: Path, folder: Path, setting: Setting) -> Iterator[Row]:
    """An encode whose calls do not fit must go on with smaller ones, and find the same latents."""
    size, batch = (64, 16) if setting.quick else (256, 64)
    (folder / "videos").mkdir()
    write_video(folder / "videos/a.mp4", make_phantom("lung", 0, 4 * batch, 64, 64, 25), 25)

    def encode(name: str, batch: int) -> LatentCache:
        settings = EncodeConfig(
            vae=str(vae_path), size=size, stack=4, batch=batch, device=setting.device, workers=1
        )
        list(encode_videos([folder / "videos"], folder / name, settings, executor=InProcessExecutor()))
        return open_cache(folder / name)

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    few = encode("few.zarr", batch // 8).read_latents("a.mp4").mean[:].astype("f4")
    with memory_limit(1.5 * torch.cuda.max_memory_reserved(setting.device), setting):
        cache = encode("limited.zarr", batch)
    yield row(f"stacks in a call, not {batch}", cache.records()["a.mp4"].batch, batch // 2)
    error = (cache.read_latents("a.mp4").mean[:] - few).std() / few.std()
    yield row("means", float(error), ALLOWED[setting.precision])


def check_memory_of_samples(cache: LatentCache, folder: Path, setting: Setting) -> Iterator[Row]:
    """Samples whose calls do not fit must come all the same."""
    few, many = (2, 16) if setting.quick else (8, 128)
    trainer = make_trainer(cache, folder, setting)
    trained = TrainedRun(run=trainer.run, model=trainer.state.ema, step=0)
    trainer.close()
    for weights in trained.model.parameters():  # as initialised, it predicts zeros
        weights.add_(0.02 * torch.randn_like(weights))

    def sample(batch: int) -> torch.Tensor:
        sampler = ClipSampler(trained, SampleConfig(batch=batch, steps=2), torch.device(setting.device))
        return torch.stack(list(sampler.sample(range(many), 16)))

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    expected = sample(few)
    with memory_limit(1.5 * torch.cuda.max_memory_reserved(setting.device), setting):
        found = sample(many)
    error = (found - expected).square().mean().sqrt() / expected.std()
    yield row(f"{many} samples", float(error), ALLOWED[setting.precision])


@contextmanager
def memory_limit(num_bytes: float, setting: Setting) -> Iterator[None]:
    """Of this process on the GPU."""
    device = torch.device(setting.device).index or 0  # this setting takes no name
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(num_bytes / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def check_training(cache: LatentCache, folder: Path, setting: Setting) -> Iterator[Row]:
    steps = 4 if setting.quick else 20

    def trainer(name: str, *, resume: bool = False, compiled: bool = False) -> Trainer:
        settings = TrainConfig(
            steps=steps, warmup_steps=2, validate_every=steps, checkpoint_every=steps // 2,
            device=setting.device, compile=compiled,
        )  # fmt: skip
        return Trainer(settings, cache, folder / name, resume=resume)

    eager = list(trainer("eager").steps())
    stopped, resumed = trainer("resumed"), []
    for record in stopped.steps():
        resumed.append(record)
        if record.step == steps // 2:
            stopped.stop()  # after the next step
    stopped.close()
    resumed += trainer("resumed", resume=True).steps()
    allowed = ALLOWED_LOSS if setting.on_gpu else 0.0
    yield row(f"losses of {steps} steps, resumed", largest_difference(eager, resumed), allowed)
    if not setting.quick:  # the compiler takes a minute
        compiled = list(trainer("compiled", compiled=True).steps())
        yield row(f"losses of {steps} steps, compiled", largest_difference(eager, compiled), ALLOWED_LOSS)


def largest_difference(expected: Sequence[StepRecord], found: Sequence[StepRecord]) -> float:
    """Of the losses, relative; infinite where steps are missing."""
    if [record.step for record in expected] != [record.step for record in found]:
        return math.inf
    return max(abs(f.loss - e.loss) / e.loss for e, f in zip(expected, found, strict=True))
