"""The processes that encode on one machine of a cluster, for a Dask scheduler that runs elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from distributed import Nanny

from vidlat.config import WorkerConfig
from vidlat.encode.device import resolve_device
from vidlat.errors import InputError
from vidlat.paths import local_path
from vidlat.pipeline.dask_cluster import (
    WORKER_SETTINGS,
    address_of,
    prepared_processes,
    require_scheduler,
    scratch_folder,
    silenced_dask,
    without_interrupts,
)
from vidlat.pipeline.job import choose_num_workers, num_batches_of_worker
from vidlat.resources import memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcesses:
    """The processes of one machine.

    scheduler: its address. num_batches: that each process works on at once. limit_bytes: memory of each; one
    that needs more is ended and replaced. scratch: the folder of latents that are not yet written. gpus: as
    CUDA_VISIBLE_DEVICES names them, one for each process; none on a machine without.
    """

    scheduler: str
    num_processes: int
    num_batches: int
    limit_bytes: int
    scratch: Path
    gpus: tuple[str, ...]


def plan_processes(settings: WorkerConfig) -> WorkerProcesses:
    """What suits this machine, as a local cluster would have it. Raises InputError for a wrong scheduler."""
    device = resolve_device("auto")
    num_processes = settings.workers or choose_num_workers(device)
    scratch = settings.local_directory
    return WorkerProcesses(
        scheduler=address_of(settings.scheduler, settings.patience_seconds),
        num_processes=num_processes,
        num_batches=num_batches_of_worker(device),
        limit_bytes=memory_bytes() // num_processes,
        scratch=local_path(scratch) if scratch else scratch_folder(),
        gpus=_visible_gpus() if device.startswith("cuda") else (),
    )


START_SECONDS = 120.0
"""How long a process, or one in its place, may take to reach the scheduler, which may have gone."""


def run_processes(
    processes: WorkerProcesses, patience_seconds: float, on_start: Callable[[], None] = lambda: None
) -> None:
    """Encode for the scheduler until it ends, or until SIGTERM.

    patience_seconds: how long to wait for the scheduler. on_start: called when the processes are there.
    Raises InputError where no scheduler answers or the scratch folder cannot be used, and KeyboardInterrupt
    after a Ctrl-C, when the processes have ended.
    """
    try:
        processes.scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--local-directory {processes.scratch}: cannot be used: {error}") from error
    with prepared_processes(WORKER_SETTINGS), silenced_dask(), _silenced_processes():
        # Dask says which process it ended and replaced because of its memory, and nothing else.
        logging.getLogger("distributed.nanny.memory").setLevel(logging.WARNING)
        asyncio.run(_run(processes, patience_seconds, on_start))


@contextmanager
def _silenced_processes() -> Iterator[None]:
    """Dask logs only what is critical in processes started in this block, unless the environment tells it."""
    name = "DASK_LOGGING__DISTRIBUTED"  # read when they import Dask, which sets up its logging then
    if name in os.environ:
        yield
        return
    os.environ[name] = "critical"
    try:
        yield
    finally:
        del os.environ[name]


async def _run(processes: WorkerProcesses, patience_seconds: float, on_start: Callable[[], None]) -> None:
    await require_scheduler(processes.scheduler, patience_seconds, "worker")  # it would try for ever
    async with AsyncExitStack() as running:
        with without_interrupts():
            nannies = [
                await running.enter_async_context(_nanny(processes, index))
                for index in range(processes.num_processes)
            ]
        signalled = _first_signal()  # before anybody is told that there is a process to end
        on_start()
        finished: asyncio.Future[Any] = asyncio.gather(*(nanny.finished() for nanny in nannies))
        await asyncio.wait([signalled, finished], return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        with suppress(asyncio.CancelledError):
            await finished
    if signalled.done() and signalled.result() == signal.SIGINT:
        raise KeyboardInterrupt


def _first_signal() -> asyncio.Future[signal.Signals]:
    """The first SIGINT or SIGTERM from now on."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def receive(number: signal.Signals) -> None:
        if not received.done():
            received.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receive, number)
    return received


def _nanny(processes: WorkerProcesses, index: int) -> Nanny:
    """The process number `index`, and the one that watches it."""
    gpus = processes.gpus
    return Nanny(
        processes.scheduler,
        nthreads=processes.num_batches,
        memory_limit=processes.limit_bytes,
        local_directory=str(processes.scratch),
        name=f"vidlat-{uuid4().hex[:12]}",  # the scheduler refuses a second worker of the same name
        silence_logs=logging.CRITICAL,
        death_timeout=START_SECONDS,
        env={"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {},
    )


def _visible_gpus() -> tuple[str, ...]:
    """The GPUs of this process as CUDA_VISIBLE_DEVICES names them."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named or map(str, range(torch.cuda.device_count())))
