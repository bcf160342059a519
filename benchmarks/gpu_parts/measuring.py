"""What parts of benchmarks/gpu.py share: the machine, times, memory, and its peak."""

import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.resources import num_cores

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where to measure, how much, and the folder for files besides the results."""

    device: str
    quick: bool
    out: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def precision(self) -> str:
        """What `--precision auto` is there."""
        return resolve_precision("auto", self.device)

    @property
    def seconds(self) -> float:
        """How long one thing is measured."""
        return 0.2 if self.quick else 1.0


def describe_machine(setting: Setting) -> Row:
    """Raises DeviceError where the device does not exist."""
    resolve_device(setting.device)
    found = {
        "device": torch.cuda.get_device_name(setting.device) if setting.on_gpu else "CPU",
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if setting.on_gpu:
        found["cuDNN"] = torch.backends.cudnn.version()
    return found


def attempted(what: Row, measure: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of one measurement, of which `what` tells; where it fails, a row with the reason."""
    try:
        for row in measure():
            yield what | row
    except Exception as error:
        traceback.print_exc()
        yield what | {"right": False, "failed": f"{type(error).__name__}: {error}"[:200]}


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_per_call(call: Callable[[], object], setting: Setting) -> float:
    """The median over calls of about `setting.seconds`, each waited for; two calls warm up."""
    for _ in range(2):
        call()
    synchronize(setting.device)
    times: list[float] = []
    while sum(times) < setting.seconds:
        began = time.perf_counter()
        call()
        synchronize(setting.device)
        times.append(time.perf_counter() - began)
    return median(times)


def reset_peak_memory(setting: Setting) -> None:
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)


def peak_memory_gb(setting: Setting) -> float | None:
    """Of the device's memory, what tensors took at most since `reset_peak_memory`; None on a CPU."""
    return torch.cuda.max_memory_allocated(setting.device) / 1e9 if setting.on_gpu else None


def matrix_flops_per_second(setting: Setting) -> float:
    """Operations a second of a large matrix product of random numbers in `setting.precision`."""
    side, num_products = (8192, 8) if setting.on_gpu else (1024, 1)
    matrix = torch.randn(side, side, device=setting.device, dtype=getattr(torch, setting.precision))
    seconds = seconds_per_call(lambda: [matrix @ matrix for _ in range(num_products)], setting)
    return num_products * 2 * side**3 / seconds
