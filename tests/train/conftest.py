import pytest
from tensorboard.summary.writer import event_file_writer

from tests.train.toys import CacheMaker, build_small
from vidlat.config import TrainConfig
from vidlat.train.trainer import Trainer

# TensorBoard reads event files of one second in the order of their names, in which a process counts them: a
# test that resumes within a second has them in order as long as all numbers have as many digits.
event_file_writer._global_uid = event_file_writer.AtomicCounter(1_000_000)


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


def trainer_on(cache, run, *, resume=False, labels=None, build_model=build_small, **settings):
    """A trainer of the small network, in the folder `run`; settings are TrainConfig's."""
    config = TrainConfig(
        **{"frames": 8, "batch": 2, "steps": 6, "warmup_steps": 2, "device": "cpu"} | settings
    )
    return Trainer(config, cache, run, resume=resume, labels=labels or {}, build_model=build_model)


@pytest.fixture
def make_trainer(cache, tmp_path):
    """`trainer_on` the cache of the test, or another, in a folder of that name."""

    def make(run="run", *, cache=cache, **settings):
        return trainer_on(cache, tmp_path / run, **settings)

    return make
