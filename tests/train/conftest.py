import pytest

from tests.train.toys import CacheMaker, build_small
from vidlat.config import TrainConfig
from vidlat.train.trainer import Trainer


@pytest.fixture
def make_cache(tmp_path):
    """A cache of the given videos, with its maker: make_cache({"a.mp4": 20}) -> (cache, maker)."""

    def make(videos, stack=4, name="latents.zarr", times=None, **options):
        maker = CacheMaker(tmp_path / name, stack=stack, **times or {})
        return maker.add(videos, **options), maker

    return make


VIDEOS = {"a.mp4": 16, "b.mp4": 23, "c.mp4": 40, "d.mp4": 5, "e.mp4": 12}


@pytest.fixture
def cache(make_cache):
    return make_cache(VIDEOS)[0]


@pytest.fixture
def make_trainer(cache, tmp_path):
    """A trainer of the small network; settings are TrainConfig's."""

    def make(run="run", *, resume=False, cache=cache, labels=None, build_model=build_small, **settings):
        values = {"frames": 8, "batch": 2, "steps": 6, "warmup_steps": 2, "device": "cpu"} | settings
        config = TrainConfig(**values)
        return Trainer(
            config, cache, tmp_path / run, resume=resume, labels=labels or {}, build_model=build_model
        )

    return make
