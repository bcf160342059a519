import pytest
from caches import SCHEMA

from vidlat.store.writer import create_cache


@pytest.fixture
def cache_path(tmp_path):
    """An empty cache of two latent channels, 3 x 5, chunks of 4 and shards of 8 latent frames."""
    path = tmp_path / "latents.zarr"
    create_cache(path, SCHEMA)
    return path
