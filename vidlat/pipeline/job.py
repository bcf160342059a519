"""What the driver tells every worker, and the VAE that a worker process loads once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from vidlat.config import LatentSettings
from vidlat.encode.device import resolve_device
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.errors import WeightsError
from vidlat.pipeline.workers import num_batches_of_worker

_LOADING = Lock()
"""Several tasks may start at once in a process, which holds the VAE once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """How a worker encodes: the VAE, verified by its hash, and every setting that changes a latent.

    time_limit_seconds: longest time to decode one video, 0 for no limit. num_threads: of the VAE, in each
    process.
    """

    vae_path: Path
    vae_hash: str
    settings: LatentSettings
    batch: int
    device: str
    num_threads: int
    time_limit_seconds: float = 0.0

    @property
    def num_batches_per_worker(self) -> int:
        """Number of batches that a process on this machine works on at once."""
        return num_batches_of_worker(resolve_device(self.device))

    def load_vae(self) -> FrozenVAE:
        """The VAE on this machine; raises WeightsError if its weights are not those the driver has."""
        vae = load_vae(
            self.vae_path,
            stack=self.settings.stack,
            batch=self.batch,
            device=self.device,
            precision=self.settings.precision,
        )
        if vae.weights_hash != self.vae_hash:
            raise WeightsError(f"{self.vae_path}: holds other weights here than where the encode was started")
        return vae


def vae_of_this_process(job: EncodeJob) -> FrozenVAE:
    """The VAE of a job, loaded once per process and shared by all of its tasks."""
    with _LOADING:
        return _load_once(job)


@lru_cache(maxsize=1)
def _load_once(job: EncodeJob) -> FrozenVAE:
    return job.load_vae()
