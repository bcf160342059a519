"""Caches of latents of 16 x 16, and the plans of runs on them."""

import pytest

from tests.train.conftest import make_cache
from tests.train.toys import random_posterior
from vidlat.config import TrainConfig
from vidlat.train.runs.frozen_run import Run

__all__ = ["make_cache"]

SIDE = 16


def wide_posterior(video_id, num_latent_frames):
    return random_posterior(video_id, num_latent_frames, SIDE, SIDE)


@pytest.fixture
def make_run(make_cache):
    """A planned run and its cache, of {video_id: number of frames}; settings are TrainConfig's."""

    def make(videos, stack=4, overlap=0, posterior=wide_posterior, **settings):
        times = {"latent_height": SIDE, "latent_width": SIDE, "overlap": overlap}
        cache, _ = make_cache(videos, stack, "copies.zarr", times, posterior=posterior)
        return Run.plan(TrainConfig(**{"frames": 8} | settings), cache, {}), cache

    return make
