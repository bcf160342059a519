"""Training from a pruned cache: videos have moved, but latents and random draws stay the same."""

import gc

import numpy as np
import pytest

from tests.train.toys import CacheMaker, build_small
from vidlat.config import TrainConfig
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.pruning.prune import prune
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer
from vidlat.timing import Timing
from vidlat.train.data.dataset import LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.windows import WindowShape, training_windows
from vidlat.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_validation_windows")


@pytest.fixture
def path(tmp_path):
    """A cache of three videos that share shards with a removed one."""
    path = tmp_path / "l.zarr"
    CacheMaker(path).add({"a.mp4": 16, "removed.mp4": 21, "b.mp4": 40, "c.mp4": 5})
    with open_writer(path, "test") as writer:
        writer.remove(["removed.mp4"])
    return path


def pruned(path):
    starts = {video_id: record.start for video_id, record in open_cache(path).records().items()}
    gc.collect()  # a cache that is open keeps prune away
    with open_writer(path, "test") as writer:
        prune(writer, plan_prune(path))
    now = {video_id: record.start for video_id, record in open_cache(path).records().items()}
    assert [video_id for video_id in now if now[video_id] > starts[video_id]] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("memory_limit_bytes", [2**30, 0])
def test_windows_are_the_same_after_a_prune(path, memory_limit_bytes):
    def windows():
        cache = open_cache(path)
        records = list(cache.records().values())
        shape = WindowShape.of_clip(8, Timing(stack=cache.schema.settings.stack, compression=4))
        whitening = Whitening(mean=(0.0, 0.0), scale=(1.0, 1.0))
        dataset = LatentDataset(cache, records, shape, whitening, "sample", memory_limit_bytes)
        plans = [training_windows(records, shape, seed=0, step=step, batch=3) for step in range(6)]
        return [(batch.video_ids, batch.latents.numpy()) for batch in dataset.batches(plans)]

    before = windows()
    pruned(path)
    for (ids, latents), (ids_after, latents_after) in zip(before, windows(), strict=True):
        assert ids == ids_after
        np.testing.assert_array_equal(latents, latents_after)


def test_a_resumed_run_is_not_affected_by_a_prune(path, tmp_path):
    def losses(run, num_steps, *, resume=False):
        config = TrainConfig(frames=8, batch=2, steps=6, warmup_steps=2, checkpoint_every=3, device="cpu")
        trainer = Trainer(config, open_cache(path), tmp_path / run, resume=resume, build_model=build_small)
        steps = trainer.steps()
        found = [next(steps).loss for _ in range(num_steps)]
        steps.close()
        trainer.close()
        return found

    whole = losses("whole", 6)
    first = losses("halted", 3)
    pruned(path)
    assert first + losses("halted", 3, resume=True) == whole
