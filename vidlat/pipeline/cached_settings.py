"""The settings that an encode takes from the cache that it adds to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidlat.config import EncodeConfig, LatentSettings
from vidlat.store.metadata import read_schema
from vidlat.store.storage.opening import cache_storage
from vidlat.store.writing.opening import is_taken


def settings_for(out: str | Path, given: Mapping[str, Any]) -> EncodeConfig:
    """The settings of an encode into `out`: those given, and all others as the cache there has them.

    given: by field name, as for `EncodeConfig.from_mapping`. Those that the cache does not determine, and all
    where there is no cache yet, are as declared. Raises ConfigError, or StoreError where `out` is no cache.
    """
    return EncodeConfig.from_mapping(settings_in(out) | dict(given))


def settings_in(out: str | Path) -> dict[str, Any]:
    """The settings of the cache at `out` by field name of EncodeConfig; none where there is no cache yet.

    Two are left to what an EncodeConfig does without them: `precision` auto accepts that of the cache, and
    the VAE is found where it is now. Raises StoreError where `out` is no cache.
    """
    if not is_taken(out):
        return {}
    schema = read_schema(cache_storage(out))
    settings = schema.settings.select(LatentSettings).to_dict()
    return {name: value for name, value in settings.items() if name != "precision"} | {"ids": schema.ids}
