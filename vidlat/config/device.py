"""The device of a command, by its name."""

from __future__ import annotations

import re
from typing import Any

from vidlat.checked_settings import setting
from vidlat.errors import ConfigError

_NAME = re.compile(r"auto|cpu|cuda(?::(0|[1-9][0-9]*))?")


def device_setting() -> Any:
    return setting(
        "auto", "cpu, cuda, or auto: a GPU where there is one", group="Performance", names="device"
    )


def require_device_name(device: str) -> None:
    """Raise ConfigError for what names no device, on whatever machine."""
    if not _NAME.fullmatch(device):
        raise ConfigError(f"device: got {device!r}; expected cpu, cuda, cuda:N or auto")
