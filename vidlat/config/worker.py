"""Settings of `vidlat worker`."""

from __future__ import annotations

from dataclasses import dataclass

from vidlat.checked_settings import MANY, Config, setting
from vidlat.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(Config):
    """Settings of `vidlat worker`."""

    scheduler: str = setting(
        "",
        "address of the Dask scheduler, such as tcp://host:8786, or its scheduler file (.json)",
        group="Basic",
        names="scheduler",
    )
    workers: int = setting(
        0,
        "processes that encode; 0 chooses for this machine: one per GPU, or by the cores it may use",
        group="Basic",
        at_least=0,
        at_most=MANY,
    )
    local_directory: str | None = setting(
        None,
        "folder on a disk of this machine for latents that are encoded and not yet written; by default "
        "Dask's temporary-directory or the system's",
        group="Basic",
    )
    patience_seconds: float = setting(
        60.0,
        "how long to wait for the scheduler and its file when this starts",
        group="Basic",
        above=0,
        at_most=86_400,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scheduler:
            raise ConfigError("scheduler: expected an address, such as tcp://host:8786, or a scheduler file")
