"""The names of devices."""

from __future__ import annotations

import re

from vidlat.errors import ConfigError

_NAME = re.compile(r"auto|cpu|cuda(?::(0|[1-9][0-9]*))?")


def require_device_name(device: str) -> None:
    """Raise ConfigError for what names no device, on whatever machine."""
    if not _NAME.fullmatch(device):
        raise ConfigError(f"device: got {device!r}; expected cpu, cuda, cuda:N or auto")
