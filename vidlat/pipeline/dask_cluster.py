"""Connecting to the Dask cluster that encodes: one started on this machine, or one that runs elsewhere."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Literal, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm import connect as open_connection
from distributed.security import Security
from distributed.utils import LoopRunner, get_mp_context, json_load_robust

from vidlat.config.scheduler import FILE_SUFFIX, require_scheduler_name
from vidlat.errors import InputError, one_line
from vidlat.paths import local_path
from vidlat.resources import memory_bytes

Result = TypeVar("Result")

Role = Literal["client", "worker"]
"""What a process is to a scheduler."""

PATIENCE_SECONDS = 30.0
"""How long an encode waits for a scheduler, its file and its first worker."""

LOOPBACK, LOOPBACK_SECONDS = "127.0.0.1", 10.0
"""Where the processes of a local cluster meet, and how long a connection there may take."""

_PRELOADED = "vidlat.pipeline.task"
"""Imported once, in a process that forks each worker: torch and MONAI take seconds and hundreds of MB."""

_SOCKET_BYTES = 75
"""Longest path of the temporary folder below which the fork server's socket has a path that Linux allows."""

WORKER_SETTINGS = {
    "distributed.comm.timeouts.connect": "60s",
    # A worker keeps the memory it has freed (encode/memory.py), so a paused worker would never resume.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # The profiler keeps an hour of samples in memory, which nobody reads.
    "distributed.worker.profile.enabled": False,
}
"""Settings of Dask in every process that encodes."""

_LOCAL_SETTINGS = WORKER_SETTINGS | {"distributed.scheduler.allowed-failures": 0}


def scratch_folder() -> Path:
    """Where the processes of a local cluster keep latents that are encoded and not yet written."""
    return Path(dask.config.get("temporary-directory") or tempfile.gettempdir())


@contextmanager
def connect(
    scheduler: str | None,
    num_workers: int,
    num_batches: int = 1,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[Client]:
    """A client of a Dask scheduler elsewhere, or of a local cluster that lasts as long as the block.

    scheduler: its address, or its scheduler file; None for a local cluster, of num_workers processes.
    num_batches: batches that each of them works on at once. patience_seconds: how long to wait for the
    scheduler file, for the scheduler, 10 s at most, and for its first worker.
    Dask logs nothing to the terminal meanwhile: what it notices of lost processes is told in errors of ours.
    Raises InputError where no scheduler answers at the address, or no cluster can be started.
    """
    # A killed process leaves Dask coroutines with errors that nobody retrieves, and asyncio would print them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    cluster = _connect_to(scheduler, patience_seconds) if scheduler else _start(num_workers, num_batches)
    with silenced_dask(), cluster as client:
        yield client


def in_each_worker(client: Client, function: Callable[..., Result], *arguments: object) -> list[Result]:
    """What a function returns in every worker; it is called in all of them at once.

    Raises InputError where a process is killed meanwhile.
    """
    futures = [
        client.submit(function, *arguments, workers=[address], pure=False)
        for address in client.scheduler_info(n_workers=-1)["workers"]
    ]
    try:
        return list(client.gather(futures))
    except KilledWorker as error:
        raise InputError(
            "a process that tried to encode was killed: is there memory for it? Take fewer --workers"
        ) from error


@contextmanager
def silenced_dask() -> Iterator[None]:
    """Dask logs only what is critical, whoever prints it.

    Dask adds a handler of its own only where the program had none when it was imported.
    """
    dask_loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "distributed" and isinstance(logger, logging.Logger)
    ]
    before = [(logger, logger.level) for logger in dask_loggers if logger.level]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


@contextmanager
def _connect_to(scheduler: str, patience_seconds: float) -> Iterator[Client]:
    address, seconds = address_of(scheduler, patience_seconds), min(10, patience_seconds)
    # Beforehand, since a client that cannot be made leaves a thread behind, and may close for a long time.
    LoopRunner().run_sync(require_scheduler, address, seconds, "client")
    try:
        client = Client(address, timeout=seconds, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise _no_answer(address, error) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=patience_seconds)
        except TimeoutError as error:
            raise InputError(
                f"--scheduler {scheduler}: it has no workers; start some with `vidlat worker`"
            ) from error
        yield client


def is_awaited(scheduler: str | None) -> bool:
    """Whether a scheduler is given by a file that is not there yet."""
    is_file = scheduler is not None and scheduler.endswith(FILE_SUFFIX)
    return is_file and not local_path(str(scheduler)).exists()


async def require_scheduler(address: str, patience_seconds: float, role: Role) -> None:
    """Raise InputError unless a scheduler answers in time at an address.

    role: whose certificates are shown to it, where Dask's settings name some for tls://.
    """
    try:
        certificates = Security().get_connection_args(role)
        connection = await open_connection(address, timeout=patience_seconds, **certificates)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise _no_answer(address, error) from error
    await connection.close()


def _no_answer(address: str, error: Exception) -> InputError:
    return InputError(
        f"--scheduler: no Dask scheduler answers at {address}; is it running? ({one_line(error)})"
    )


def address_of(scheduler: str, patience_seconds: float) -> str:
    """The address of a scheduler that is given by its address or by its scheduler file.

    patience_seconds: how long to wait for the file. Raises ConfigError for any other text, and InputError
    for a file that does not come or holds no address.
    """
    require_scheduler_name(scheduler)
    if not scheduler.endswith(FILE_SUFFIX):
        return scheduler
    try:
        found = json_load_robust(local_path(scheduler), timeout=patience_seconds)
        return str(found["address"])
    except TimeoutError as error:
        raise InputError(
            f"--scheduler {scheduler}: no scheduler has written this file for {patience_seconds:.0f} s; "
            f"`dask scheduler --scheduler-file {scheduler}` does"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--scheduler {scheduler}: is no scheduler file ({one_line(error)}); "
            f"`dask scheduler --scheduler-file {scheduler}` writes one"
        ) from error


@contextmanager
def prepared_processes(settings: Mapping[str, object]) -> Iterator[None]:
    """Dask starts processes that encode with these settings, from a process that has imported torch."""
    method = "forkserver" if len(os.fsencode(tempfile.gettempdir())) <= _SOCKET_BYTES else "spawn"
    # For the whole block: a process that replaces one that died reads them again.
    with dask.config.set({**settings, "distributed.worker.multiprocessing-method": method}):
        if method == "forkserver":
            get_mp_context().set_forkserver_preload([_PRELOADED])
        yield


@contextmanager
def _start(num_workers: int, num_batches: int) -> Iterator[Client]:
    _require_loopback()
    with prepared_processes(_LOCAL_SETTINGS), ExitStack() as running:
        try:
            with without_interrupts():  # when it ends, a Ctrl-C may be raised: the cluster is closed then
                cluster = LocalCluster(
                    n_workers=num_workers,
                    memory_limit=memory_bytes() // num_workers,
                    threads_per_worker=num_batches,
                    host=LOOPBACK,
                    dashboard_address=f"{LOOPBACK}:0",  # any free port: another cluster may hold Dask's own
                    silence_logs=logging.CRITICAL,
                )
                running.enter_context(cluster)
            client = running.enter_context(Client(cluster, set_as_default=False))
        except (RuntimeError, TimeoutError, OSError) as error:
            raise InputError(
                f"the {num_workers} processes that encode could not be started ({_why(error)}"
            ) from error
        yield client


def _require_loopback() -> None:
    """Raise InputError where this machine does not reach itself; Dask would try for minutes."""
    try:
        with (
            socket.create_server((LOOPBACK, 0)) as server,
            socket.create_connection(server.getsockname(), timeout=LOOPBACK_SECONDS),
        ):
            return
    except OSError as error:
        raise InputError(
            f"this machine does not reach itself at {LOOPBACK} ({one_line(error)}), where the processes that "
            "encode talk to each other; is the loopback network device up?"
        ) from error


def _why(error: BaseException) -> str:
    """The cause of a failed start and what to do; Dask's own error is the last of several."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in causes):
        return "too many open files); allow more with `ulimit -n`, or take fewer --workers"
    if dask.config.get("distributed.comm.require-encryption", None):
        return "Dask's configuration requires encryption); turn it off for this, or give a --scheduler"
    return (
        f"{one_line(error)}); is there memory for them? Run the same command again, or with fewer --workers"
    )


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Threads and processes started in this block ignore Ctrl-C; the driver receives it and ends them.

    They inherit the blocked signal. The driver receives a signal that came meanwhile when the block
    ends. Older threads do not block it: Python would interrupt the main thread for one that they take.
    """
    # Started inside the block, it would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    taken: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # no other may set a handler
    handler = signal.signal(signal.SIGINT, lambda number, _: taken.append(number)) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if taken:
            signal.raise_signal(signal.SIGINT)
