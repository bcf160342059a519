import shutil

import pytest

from tests.store.caches import SCHEMA
from tests.store.damage import make_three_videos
from vidlat.store.writing.opening import create_cache


@pytest.fixture
def cache_path(tmp_path):
    """An empty cache of two latent channels, 3 x 5, chunks of 4 and shards of 8 latent frames."""
    path = tmp_path / "latents.zarr"
    create_cache(path, SCHEMA)
    return path


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """The cache of `damage`, which tests must not change."""
    return make_three_videos(tmp_path_factory.mktemp("verify") / "l.zarr")


@pytest.fixture
def path(pristine, tmp_path):
    """A copy of `pristine`, to be damaged."""
    return shutil.copytree(pristine, tmp_path / "l.zarr")
