"""The job of every worker process, the VAE that it loads once, and how many processes suit this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import torch

from vidlat.config import LatentSettings
from vidlat.encode.device import resolve_device
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.weights import resolve_weights
from vidlat.errors import WeightsError
from vidlat.resources import num_cores

BATCHES_WAITING_PER_WORKER = 1
"""Besides those it works on; more would only lose more when a worker is killed."""

MAX_BATCHES_PER_GPU = 16
"""Each decodes in a process of its own: about as many as keep up with a GPU, and 130 MB each."""

_LOADING = Lock()
"""Several tasks may start at once in a process, which holds the VAE once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """How a worker encodes: the VAE, verified by its hash, and every setting that changes a latent.

    vae: what --vae said, by which a worker finds the weights if it has others at vae_path, or none.
    time_limit_seconds: longest time to decode one video, 0 for no limit. num_threads: of the VAE, in each
    process. reads_apart: whether videos are read in processes of their own; None where that depends on the
    device. cudnn_benchmark: as for `load_vae`.
    """

    vae: str
    vae_path: Path
    vae_hash: str
    settings: LatentSettings
    batch: int
    device: str
    num_threads: int
    time_limit_seconds: float = 0.0
    reads_apart: bool | None = None
    cudnn_benchmark: bool = False

    @property
    def num_batches_per_worker(self) -> int:
        """Number of batches that a process on this machine works on at once."""
        return num_batches_of_worker(resolve_device(self.device))

    def needs_readers(self, device: torch.device) -> bool:
        """Whether videos are read in processes of their own beside a VAE on this device.

        A CPU is the VAE's, and a thread beside it decodes fast enough.
        """
        return device.type != "cpu" if self.reads_apart is None else self.reads_apart

    def load_vae(self) -> FrozenVAE:
        """The VAE on this machine, at the path that the driver has or found by its name.

        Raises WeightsError if these are not the weights that the driver has.
        """
        if self.vae_path.exists() and (found := self._load(self.vae_path)).weights_hash == self.vae_hash:
            return found
        advice = f"; copy those to {self.vae_path} on every machine"
        try:
            path = resolve_weights(self.vae)
        except WeightsError as error:
            raise WeightsError(f"{error}{advice}") from error
        if path == self.vae_path or (found := self._load(path)).weights_hash != self.vae_hash:
            raise WeightsError(f"{path}: holds other weights here than where the encode was started{advice}")
        return found

    def _load(self, path: Path) -> FrozenVAE:
        return load_vae(
            path,
            self.settings,
            batch=self.batch,
            device=self.device,
            cudnn_benchmark=self.cudnn_benchmark,
        )


def vae_of_this_process(job: EncodeJob) -> FrozenVAE:
    """The VAE of a job, loaded once per process and shared by all of its tasks."""
    with _LOADING:
        return _load_once(job)


@lru_cache(maxsize=1)
def _load_once(job: EncodeJob) -> FrozenVAE:
    return job.load_vae()


def choose_num_workers(device: str) -> int:
    """One process per GPU; on a CPU one per four cores, but two where there are two: decoding overlaps."""
    if device.startswith("cuda"):
        return 1 if ":" in device else torch.cuda.device_count()
    cores = num_cores()
    return max(min(2, cores), cores // 4)


def num_batches_of_worker(device: str) -> int:
    """Number of batches a process works on at once, each in a thread of its own.

    On a GPU one batch is in the VAE while others are decoded, by a process each, and one is written. On a CPU
    the cores are divided among the processes, and each process decodes in a thread of its own anyway.
    """
    if not device.startswith("cuda"):
        return 1
    cores = num_cores() // max(1, choose_num_workers(device))
    return max(3, min(MAX_BATCHES_PER_GPU, cores))


def num_threads_of_worker() -> int:
    """Threads of the VAE in each process.

    Their number decides the last bit of a float32 sum. It follows from the cores and not from --workers, so
    that an encode can be resumed with another number of workers.
    """
    return max(1, num_cores() // choose_num_workers("cpu"))


def device_of_worker(device: str, worker_name: object, num_gpus: int) -> str:
    """The device of one worker: numbered workers are spread over the GPUs unless `device` names one."""
    if device in ("auto", "cuda") and num_gpus and isinstance(worker_name, int):
        return f"cuda:{worker_name % num_gpus}"
    return device
