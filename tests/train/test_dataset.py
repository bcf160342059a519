import numpy as np
import pytest
import torch

from vidlat.timing import Timing
from vidlat.train.data.dataset import MEMORY_LIMIT_BYTES, NUM_PREFETCHED, LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.seeding import Draw, normal
from vidlat.train.data.windows import WindowShape, training_windows

IDENTITY = Whitening(mean=(0.0, 0.0), scale=(1.0, 1.0))
IN_MEMORY_AND_NOT = pytest.mark.parametrize("memory_limit_bytes", [MEMORY_LIMIT_BYTES, 0])


def make_dataset(cache, frames=8, latents_as="mean", whitening=IDENTITY, limit=MEMORY_LIMIT_BYTES):
    stack = cache.schema.settings.stack
    shape = WindowShape.of_clip(frames, Timing(stack=stack, compression=4))
    records = list(cache.records().values())
    return LatentDataset(cache, records, shape, whitening, latents_as, limit)


def plans(cache, dataset, num_steps=6, batch=3):
    records = list(cache.records().values())
    return [
        training_windows(records, dataset.shape, seed=0, step=step, batch=batch) for step in range(num_steps)
    ]


@IN_MEMORY_AND_NOT
@pytest.mark.parametrize("stack", [4, 8])
def test_a_batch_holds_the_latents_of_its_videos(make_cache, stack, memory_limit_bytes):
    """Against each video read on its own, frame by frame."""
    cache, _ = make_cache({"a.mp4": 16, "b.mp4": 23, "c.mp4": 41, "d.mp4": 5}, stack=stack)
    dataset = make_dataset(cache, 16, limit=memory_limit_bytes)
    windows = plans(cache, dataset)
    for planned, batch in zip(windows, dataset.batches(windows), strict=True):
        assert batch.latents.shape == (3, 2, 4, 4, 4)
        for window, latents in zip(planned, batch.latents.numpy(), strict=True):
            record = cache.records()[window.video_id]
            first, last = window.start - record.start, -(-record.num_frames // 4) - 1
            frames = [min(first + i, last) for i in range(4)]
            expected = cache.read_latents(window.video_id).mean[:, frames]
            np.testing.assert_array_equal(latents, expected.astype(np.float32))


@IN_MEMORY_AND_NOT
def test_a_short_video_repeats_its_last_real_frame_which_does_not_count(make_cache, memory_limit_bytes):
    cache, _ = make_cache({"short.mp4": 5}, stack=8)  # two latent frames; a window has four
    for latents_as in ("mean", "sample"):
        dataset = make_dataset(cache, 16, latents_as, limit=memory_limit_bytes)
        (batch,) = dataset.batches(plans(cache, dataset, 1, 1))
        assert batch.mask.flatten().tolist() == [1, 1, 0, 0]
        torch.testing.assert_close(batch.latents[:, :, 2], batch.latents[:, :, 1], rtol=0, atol=0)
        torch.testing.assert_close(batch.latents[:, :, 3], batch.latents[:, :, 1], rtol=0, atol=0)


def test_stack_padding_does_not_count(make_cache):
    cache, _ = make_cache({"one.mp4": 1}, stack=16)
    dataset = make_dataset(cache, 16)
    (batch,) = dataset.batches(plans(cache, dataset, 1, 1))
    assert batch.mask.flatten().tolist() == [1, 0, 0, 0]


@IN_MEMORY_AND_NOT
def test_sample_draws_from_the_posterior_by_the_items_own_key(make_cache, memory_limit_bytes):
    cache, _ = make_cache({"a.mp4": 8, "b.mp4": 8})
    whitening = Whitening(mean=(1.0, -3.0), scale=(2.0, 4.0))
    dataset = make_dataset(cache, 8, "sample", whitening, memory_limit_bytes)
    windows = plans(cache, dataset, 2, 2)
    for planned, batch in zip(windows, dataset.batches(windows), strict=True):
        for window, latents in zip(planned, batch.latents.numpy(), strict=True):
            posterior = cache.read_latents(window.video_id)
            noise = normal(window.key, Draw.POSTERIOR, posterior.mean.shape)
            drawn = posterior.mean.astype(np.float64) + posterior.std.astype(np.float64) * noise
            whitened = (drawn - np.reshape([1, -3], (2, 1, 1, 1))) / np.reshape([2, 4], (2, 1, 1, 1))
            np.testing.assert_allclose(latents, whitened, atol=1e-5)


def test_a_batch_does_not_depend_on_the_ones_before(cache):
    dataset = make_dataset(cache, 8, "sample")
    windows = plans(cache, dataset, 6)
    later = list(dataset.batches(windows))[4:]
    for one, other in zip(later, dataset.batches(windows[4:]), strict=True):
        torch.testing.assert_close(one.latents, other.latents, rtol=0, atol=0)
        assert one.keys == other.keys


def test_reads_start_before_their_batch_is_requested(cache, monkeypatch):
    begun = []
    read = cache.read_windows_async
    monkeypatch.setattr(
        cache, "read_windows_async", lambda *args, **options: begun.append(1) or read(*args, **options)
    )
    dataset = make_dataset(cache, 8, limit=0)
    next(dataset.batches(plans(cache, dataset, 20)))
    assert len(begun) == 1 + NUM_PREFETCHED
