"""The names of Dask schedulers."""

from __future__ import annotations

import re

from vidlat.errors import ConfigError

FILE_SUFFIX = ".json"
"""Of a scheduler file."""

_ADDRESS = re.compile(r"\w+://.+:\d+")


def require_scheduler_name(scheduler: str) -> None:
    """Raise ConfigError for what is neither the address of a scheduler nor a scheduler file."""
    if not _ADDRESS.fullmatch(scheduler) and not scheduler.endswith(FILE_SUFFIX):
        raise ConfigError(
            f"scheduler: got {scheduler}; expected an address, which looks like tcp://host:8786, or a "
            f"scheduler file, which ends in {FILE_SUFFIX}"
        )
