"""Where the time goes in one VAE call of an encode and in one training step: the kernels that take most.

The whole traces lie beside the results, for https://ui.perfetto.dev. On a CPU: operations.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from gpu_parts.measuring import Row, Setting, synchronize
from gpu_parts.training import WARM_UP, make_cache, make_trainer
from gpu_parts.vaes import vae_file
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vidlat.config import LatentSettings
from vidlat.encode.device import resolve_batch
from vidlat.encode.vae import load_vae

NUM_ROWS, NAME_LENGTH = 12, 80


def measure(setting: Setting) -> Iterator[Row]:
    size, side = (64, 8) if setting.quick else (256, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, _ = vae_file(setting, folder)
        batch = resolve_batch(0, setting.device)
        vae = load_vae(path, LatentSettings(stack=4), device=setting.device, batch=batch)
        stacks = torch.rand(batch, 1, 4, size, size)
        for _ in range(WARM_UP):
            vae.encode_stacks(stacks)
        yield from profiled("encode", lambda: vae.encode_stacks(stacks), setting)
        trainer = make_trainer(make_cache(folder, side), folder, setting)
        with closing(trainer), closing(trainer.steps()) as records:
            list(islice(records, WARM_UP))
            yield from profiled("training", lambda: next(records), setting)


def profiled(title: str, call: Callable[[], object], setting: Setting) -> Iterator[Row]:
    synchronize(setting.device)
    gpu = [ProfilerActivity.CUDA] if setting.on_gpu else []
    with profile(activities=[ProfilerActivity.CPU, *gpu]) as profiler:
        call()
        synchronize(setting.device)
    profiler.export_chrome_trace(str(setting.out / f"{title}.trace.json.gz"))
    # On a GPU the kernels and copies themselves, not the operations that launched them.
    device = DeviceType.CUDA if setting.on_gpu else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == device]
    times = {id(e): e.self_device_time_total if setting.on_gpu else e.self_cpu_time_total for e in events}
    total = sum(times.values())
    for event in sorted(events, key=lambda event: -times[id(event)])[:NUM_ROWS]:
        yield {
            "of": title,
            "calls": event.count,
            "ms": times[id(event)] / 1e3,
            "share": times[id(event)] / total,
            "kernel": event.key[:NAME_LENGTH],
        }
