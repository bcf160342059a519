"""Steps a second of the trainer with every U-Net and size of latents, and of a plain loop over `.pt` files.

Batches of 8 windows of 16 frames. The plain loop is what one writes without a tool: a `.pt` file of posterior
means per clip, loaded again for each item by a DataLoader, the same network, AdamW, autocast, clipping, and
the loss as a number at each step; it has no average of the weights. Wait: the share of time spent waiting for
data. Launches: of kernels and graphs in a step on a GPU; on a CPU, operations that compute.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from gpu_parts.measuring import Row, Setting, attempted, peak_memory_gb, reset_peak_memory, synchronize
from launches import count_launches
from random_cache import make_random_cache
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vidlat.config import TrainConfig
from vidlat.store.reader import LatentCache
from vidlat.train.networks.unet import CHANNELS, build_unet
from vidlat.train.trainer import Trainer

LATENT_DIM, WINDOW, BATCH = 4, 4, 8
NEVER = 10**9
WARM_UP, COUNTED = 3, 3
"""Steps before anything is measured, and steps whose launches are counted."""


def measure(setting: Setting) -> Iterator[Row]:
    sides, networks = (32, 64, 16), sorted(CHANNELS, key=lambda named: named[0] != "space-time")
    if setting.quick:
        sides, networks = (8,), networks[:1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        caches = {side: make_cache(folder, side) for side in sides}
        for network, preset in networks:
            for side, cache in caches.items():
                yield from vidlat_rows(cache, folder, setting, network=network, preset=preset)
                if (network, preset) == networks[0]:
                    what = {"loop": "plain, .pt", "network": network, "preset": preset, "latents": side}
                    loop = partial(time_plain_loop, network, preset, cache, folder / f"pt-{side}", setting)
                    yield from attempted(what, loop)
        if not setting.quick:  # the compiler takes a minute
            network, preset = networks[0]
            yield from vidlat_rows(caches[32], folder, setting, network=network, preset=preset, compile=True)


def vidlat_rows(
    cache: LatentCache, folder: Path, setting: Setting, *, network: str, preset: str, compile: bool = False
) -> Iterator[Row]:
    loop = "vidlat, compiled" if compile else "vidlat"
    what = {"loop": loop, "network": network, "preset": preset, "latents": cache.schema.latent_height}

    def measure() -> Iterator[Row]:
        trainer = make_trainer(cache, folder, setting, network=network, preset=preset, compile=compile)
        yield time_trainer(trainer, setting)

    return attempted(what, measure)


def make_cache(folder: Path, side: int, classes: Sequence[str] = ()) -> LatentCache:
    return make_random_cache(
        folder / f"{side}.zarr", num_videos=32, length=2 * WINDOW, side=side, classes=classes
    )


def make_trainer(cache: LatentCache, folder: Path, setting: Setting, **settings: object) -> Trainer:
    """A trainer in a new folder, eager unless told otherwise, that neither validates nor saves."""
    values = {
        "frames": 4 * WINDOW, "batch": BATCH, "steps": NEVER, "checkpoint_every": NEVER,
        "validation_fraction": 0.0, "device": setting.device, "compile": False,
    }  # fmt: skip
    return Trainer(TrainConfig.from_mapping(values | settings), cache, Path(tempfile.mkdtemp(dir=folder)))


def time_trainer(trainer: Trainer, setting: Setting) -> Row:
    with closing(trainer), closing(trainer.steps()) as records:
        return time_steps((record.data_wait / record.steps_per_second for record in records), setting)


def time_steps(waits: Iterator[float], setting: Setting) -> Row:
    """Take steps until the time is over; waits: each step's seconds of waiting for its batch."""
    for _ in islice(waits, WARM_UP):
        pass
    synchronize(setting.device)
    reset_peak_memory(setting)
    began, waited = time.perf_counter(), []
    while time.perf_counter() - began < setting.seconds:
        waited.append(next(waits))
    synchronize(setting.device)
    seconds = time.perf_counter() - began
    launches = count_launches(lambda: list(islice(waits, COUNTED)), setting.device) / COUNTED
    return {
        "steps/s": len(waited) / seconds,
        "wait": sum(waited) / seconds,
        "launches": launches,
        "peak GB": peak_memory_gb(setting),
    }


def write_files(cache: LatentCache, folder: Path) -> list[Path]:
    folder.mkdir()
    for video_id in cache.records():
        means = torch.from_numpy(cache.read_latents(video_id).mean[:]).float()
        torch.save(means, folder / f"{video_id}.pt")
    return sorted(folder.iterdir())


class Clips(Dataset):
    """A random window of each file."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        latents = torch.load(self.files[index], weights_only=True)
        start = int(torch.randint(latents.shape[1] - WINDOW + 1, ()))
        return latents[:, start : start + WINDOW]


def plain_loop(network: nn.Module, files: list[Path], setting: Setting) -> Iterator[float]:
    """Yields the seconds that each step waited for its batch."""
    device, half = torch.device(setting.device), setting.precision == "bfloat16"
    network.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-4)
    workers = 0 if setting.quick else 4
    loader = DataLoader(
        Clips(files), BATCH, shuffle=True, num_workers=workers, pin_memory=setting.on_gpu,
        persistent_workers=workers > 0,
    )  # fmt: skip
    while True:
        asked = time.perf_counter()
        for latents in loader:
            waited = time.perf_counter() - asked
            clean = latents.to(device, non_blocking=True)
            noise, timestep = torch.randn_like(clean), torch.rand(len(clean), device=device)
            share = timestep[:, None, None, None, None]
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                predicted = network((1 - share) * clean + share * noise, timestep)
            loss = nn.functional.mse_loss(predicted.float(), noise - clean)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            loss.item()
            yield waited
            asked = time.perf_counter()


def time_plain_loop(
    network: str, preset: str, cache: LatentCache, folder: Path, setting: Setting
) -> Iterator[Row]:
    waits = plain_loop(build_unet(network, preset, LATENT_DIM), write_files(cache, folder), setting)
    yield time_steps(waits, setting)
