"""Threads compute the batches: the bits are those of one after the other, and no thread is left behind."""

import gc
import subprocess
import sys
import threading
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.thorough import some_of
from tests.train.toys import CacheMaker, random_posterior
from vidlat import LatentBatches
from vidlat.config import TrainConfig
from vidlat.errors import StoreError
from vidlat.train import ranks
from vidlat.train.data import batches as batches_module, dataset as dataset_module
from vidlat.train.data.dataset import MEMORY_LIMIT_BYTES, LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.seeding import Draw, generator
from vidlat.train.data.windows import WindowShape, training_windows
from vidlat.train.objectives.conditioning import Conditions
from vidlat.train.objectives.noising import Noising
from vidlat.train.objectives.timesteps import timestep_at

LENGTHS = {"a.mp4": 16, "b.mp4": 23, "c.mp4": 41, "d.mp4": 5, "e.mp4": 12}
FEATURES = {video_id: np.full(3, number, np.float32) for number, video_id in enumerate(LENGTHS)}
CONDITIONS = Conditions.plan(["view", "ef:float"], [{"view": "a", "ef": "1"}, {"view": "b", "ef": "2"}])


@pytest.fixture
def cache(tmp_path):
    """Latents of 6 x 5, so that no part of a batch is as long as another."""
    maker = CacheMaker(tmp_path / "l.zarr", stack=8, latent_height=6, latent_width=5)
    return maker.add(LENGTHS, partial(random_posterior, height=6, width=5))


def make_dataset(cache, latents_as="sample", limit=MEMORY_LIMIT_BYTES, **options):
    records = list(cache.records().values())
    shape = WindowShape.of_clip(16, cache.schema.timing)
    whitening = Whitening.from_records(records, latents_as)
    return LatentDataset(cache, records, shape, whitening, latents_as, limit, **options)


def make_plans(cache, dataset, num_steps=7, batch=4):
    records = list(cache.records().values())
    return [training_windows(records, dataset.shape, seed=3, step=n, batch=batch) for n in range(num_steps)]


def normal(key, draw, shape):
    return generator(key, draw).standard_normal(shape, dtype=np.float32)


def one_by_one(cache, windows, whitening, latents_as):
    """Latents, mask and noise of a batch: the code before there were threads."""
    mean, std = cache.read_windows(np.array([window.start for window in windows]), 4)
    latents = mean.astype(np.float32, order="C")
    if latents_as == "sample":
        latents += std * np.stack([normal(w.key, Draw.POSTERIOR, latents.shape[1:]) for w in windows])
    mask = np.ones((len(windows), 1, latents.shape[2], 1, 1), np.float32)
    for item, window in enumerate(windows):
        latents[item, :, window.num_valid :] = latents[item, :, window.num_valid - 1, None]
        mask[item, :, window.num_valid :] = 0
    whitened = whitening.whiten(latents)
    return whitened, mask, np.stack([normal(w.key, Draw.NOISE, latents.shape[1:]) for w in windows])


def assert_same_bits(tensor, expected):
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy().view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    ("num_threads", "latents_as", "limit", "piece_size"),
    some_of(product([1, 2, 5], ["sample", "mean"], [MEMORY_LIMIT_BYTES, 0], [32_768, 500, 130, 1])),
)
def test_batches_are_those_of_one_thread_bit_for_bit(
    cache, monkeypatch, num_threads, latents_as, limit, piece_size
):
    """With padding and features, whatever a thread takes at once: several windows, one, or a frame of it."""
    monkeypatch.setattr(dataset_module, "PIECE_SIZE", piece_size)
    dataset = make_dataset(
        cache, latents_as, limit, features=FEATURES, with_noise=True, num_threads=num_threads
    )
    plans, num_padded = make_plans(cache, dataset), 0
    for windows, batch in zip(plans, dataset.batches(plans), strict=True):
        latents, mask, noise = one_by_one(cache, windows, dataset.whitening, latents_as)
        assert_same_bits(batch.latents, latents)
        assert_same_bits(batch.mask, mask)
        assert_same_bits(batch.noise, noise)
        assert_same_bits(batch.features, np.stack([FEATURES[window.video_id] for window in windows]))
        assert batch.keys == tuple(window.key for window in windows)
        num_padded += int((mask == 0).sum())
    assert num_padded


def test_other_draws_of_a_step_are_those_of_numpy_bit_for_bit(cache):
    dataset = make_dataset(cache, features=FEATURES, with_noise=True, num_threads=2)
    values = {"first_frame": 0.5, "condition_dropout": 0.3, "timesteps": "logit-normal", "shift": 3.0}
    settings = TrainConfig(**values, batch=16)
    noising = Noising(settings, CONDITIONS)
    for batch in dataset.batches(make_plans(cache, dataset)):
        draws = noising.draws(batch)
        places = [(key[-1] + generator(key, Draw.TIMESTEP).random()) / 16 for key in batch.keys]
        timesteps = [timestep_at(place, "logit-normal", 3.0) for place in places]
        assert_same_bits(draws.timestep, np.array(timesteps, np.float32))
        given = [generator(key, Draw.FIRST_FRAME).random() < 0.5 for key in batch.keys]
        assert draws.first_frame_mask.tolist() == given
        masks = [CONDITIONS.draw_mask(generator(key, Draw.CONDITION), 0.3) for key in batch.keys]
        assert_same_bits(draws.condition_mask, np.stack(masks))


def test_a_batch_without_noise_is_not_noised(cache):
    dataset = make_dataset(cache)
    (batch,) = dataset.batches(make_plans(cache, dataset, 1))
    noising = Noising(TrainConfig(), Conditions())
    with pytest.raises(ValueError, match="with_noise=True"):
        noising.noised(batch, noising.draws(batch))


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("windows", "prefetch"))]


def take_one(cache):
    dataset = make_dataset(cache, num_threads=3)
    batches = dataset.batches(make_plans(cache, dataset, 20))
    next(batches)
    assert 1 <= len(data_threads()) <= 3
    return batches


def test_threads_end_with_the_last_batch(cache):
    assert len(list(take_one(cache))) == 19
    assert not data_threads()


def test_threads_end_where_the_batches_are_closed_or_dropped(cache):
    take_one(cache).close()
    assert not data_threads()
    batches = take_one(cache)
    del batches
    gc.collect()
    assert not data_threads()


def test_threads_end_with_an_interrupt(cache, make_trainer):
    with pytest.raises(KeyboardInterrupt):
        take_one(cache).throw(KeyboardInterrupt)
    assert not data_threads()
    trainer = make_trainer(steps=20)
    steps = trainer.steps()
    next(steps)
    assert data_threads()
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert not data_threads()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_of_a_read_is_raised_and_ends_the_threads(cache, monkeypatch, num_threads):
    def fail_to_read(*args):
        def wait():
            raise StoreError("a shard is gone")

        return wait

    dataset = make_dataset(cache, limit=0, num_threads=num_threads)
    monkeypatch.setattr(cache, "read_windows_async", fail_to_read)
    with pytest.raises(StoreError, match="a shard is gone"):
        next(dataset.batches(make_plans(cache, dataset, 20)))
    assert not data_threads()


FORK_WITH_OPEN_BATCHES = """
import os, sys, threading, warnings
from vidlat import LatentBatches
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which is what is tested
batches = iter(LatentBatches(sys.argv[1], frames=8, batch=2))
next(batches)
child = os.fork()
if not child:
    assert threading.active_count() == 1
    del batches
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(list(zip(range(9), batches))) == 9
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_fork_takes_no_thread_along_and_ends(cache):
    subprocess.run([sys.executable, "-c", FORK_WITH_OPEN_BATCHES, str(cache.path)], check=True)


@pytest.mark.parametrize(
    ("local_ranks", "expected"), [(None, 12), ("1", 12), ("5", 2), ("64", 1), ("0", 12), ("many", 12)]
)
def test_ranks_of_a_machine_share_the_cores_that_they_may_run_on(monkeypatch, local_ranks, expected):
    monkeypatch.setattr(ranks, "num_cores", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local_ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local_ranks)
    assert ranks.cores_of_rank() == expected


def test_a_worker_of_a_loader_has_one_thread(cache, monkeypatch):
    made = []

    class Recorded(LatentDataset):
        def __init__(self, *args, **options):
            made.append(options["num_threads"])
            super().__init__(*args, **options)

    monkeypatch.setattr(batches_module, "LatentDataset", Recorded)
    monkeypatch.setattr(batches_module, "cores_of_rank", lambda: 6)
    batches = LatentBatches(cache.path, frames=8, steps=2)
    list(batches)
    monkeypatch.setattr(batches_module, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=2))
    list(batches)
    assert made == [6, 1]
