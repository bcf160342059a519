"""`vidlat worker`."""

from __future__ import annotations

from typing import Any

from vidlat.commands.display import console, format_bytes
from vidlat.config import WorkerConfig
from vidlat.pipeline.dask_cluster import is_awaited
from vidlat.pipeline.dask_worker import WorkerProcesses, plan_processes, run_processes
from vidlat.wording import format_seconds


def worker(settings: dict[str, Any]) -> None:
    """Run the processes, and say when they are ready and when the scheduler has ended."""
    config = WorkerConfig.from_mapping(settings)
    tell_of_waiting(config.scheduler, config.patience_seconds)
    processes = plan_processes(config)
    run_processes(processes, config.patience_seconds, on_start=lambda: _report(processes))
    console.print("Ended.")


def tell_of_waiting(scheduler: str | None, seconds: float) -> None:
    """Say that a scheduler file is waited for, if it is not there yet."""
    if is_awaited(scheduler):
        text = f"Waiting for the scheduler file {scheduler}, {format_seconds(seconds)} at most"
        console.print(text, soft_wrap=True)


def _report(processes: WorkerProcesses) -> None:
    count = processes.num_processes
    each = f"{processes.num_batches} batch{'es' * (processes.num_batches > 1)} at once"
    console.print(
        f"{count} process{'es' * (count > 1)} for {processes.scheduler}: {each}, "
        f"{format_bytes(processes.limit_bytes)} of memory {'each' if count > 1 else ''}".rstrip()
        + (f"; GPUs {', '.join(processes.gpus)}" if processes.gpus else "; no GPU")
        + f"; scratch in {processes.scratch}",
        soft_wrap=True,
    )
