"""What `--vae` names, without loading it."""

from __future__ import annotations

from pathlib import Path

from vidlat.errors import ConfigError, InputError, WeightsError, one_line, shown
from vidlat.paths import local_path

PREFIX = "diffusers:"
"""What tells such a VAE from the name or path of MAISI's."""


def name_without_path(spec: str) -> str:
    """What `--vae SPEC` is called where no folder may be named: of a path its last part."""
    is_hub_id = spec.startswith(PREFIX) and local_folder(spec) is None
    return spec if is_hub_id else Path(spec).name


def local_folder(spec: str) -> Path | None:
    """The folder on this machine that a spec means; None where there is none; raises WeightsError."""
    text = spec.removeprefix(PREFIX)
    if not text:
        raise WeightsError(f"{PREFIX} names no VAE; expected a folder, or OWNER/NAME[/FOLDER] of a hub")
    try:
        folder = local_path(text)
        return folder if folder.is_dir() else None
    except InputError as error:
        raise WeightsError(f"{PREFIX}{error}, or give OWNER/NAME[/FOLDER] of a hub") from error
    except OSError as error:  # a name too long, a folder that may not be searched
        raise WeightsError(f"{PREFIX}{shown(text)}: cannot be looked up ({one_line(error)})") from error


def require_size(size: int, compression: int, setting: str = "size") -> None:
    """Raise ConfigError for the value of a setting that a VAE of this compression of space cannot take."""
    if size % compression:
        raise ConfigError(f"{setting}: got {size}; expected a multiple of {compression} for this VAE")
