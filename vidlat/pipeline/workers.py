"""How many processes, batches and threads suit this machine, and which GPU a process takes."""

from __future__ import annotations

import os

import torch

BATCHES_WAITING_PER_WORKER = 1
"""Besides those it works on; more would only lose more when a worker is killed."""

MAX_BATCHES_PER_GPU = 8
"""More decoding threads than this mostly wait for Python's global lock."""


def choose_num_workers(device: str) -> int:
    """One process per GPU; on a CPU one per four cores, but two where there are two: decoding overlaps."""
    if device.startswith("cuda"):
        return 1 if ":" in device else torch.cuda.device_count()
    cores = os.cpu_count() or 1
    return max(min(2, cores), cores // 4)


def num_batches_of_worker(device: str) -> int:
    """Number of batches a process works on at once, each in a thread of its own.

    On a GPU one batch is in the VAE while others are decoded and one is written. On a CPU the cores are
    divided among the processes, and each process decodes in a thread of its own anyway.
    """
    if not device.startswith("cuda"):
        return 1
    cores = (os.cpu_count() or 1) // max(1, choose_num_workers(device))
    return max(3, min(MAX_BATCHES_PER_GPU, cores))


def num_threads_of_worker() -> int:
    """Threads of the VAE in each process.

    Their number decides the last bit of a float32 sum. It follows from this machine and not from --workers,
    so that an encode can be resumed with another number of workers.
    """
    return max(1, (os.cpu_count() or 1) // choose_num_workers("cpu"))


def device_of_worker(device: str, worker_name: object, num_gpus: int) -> str:
    """The device of one worker: numbered workers are spread over the GPUs unless `device` names one."""
    if device in ("auto", "cuda") and num_gpus and isinstance(worker_name, int):
        return f"cuda:{worker_name % num_gpus}"
    return device
