"""Training from an object store gives the weights of training from the folder, through any outage."""

from functools import partial
from uuid import uuid4

import pytest

from tests.store.object_store import be_patient, bucket_behind_proxy
from tests.store.remote import put
from tests.thorough import is_thorough
from tests.train.test_trainer import assert_same_state, read_metrics
from vidlat.paths import CACHE_DIR
from vidlat.store.reader import open_cache
from vidlat.store.storage.interface import Unreachable
from vidlat.store.storage.objects import ObjectStorage
from vidlat.train import trainer as trainer_module
from vidlat.train.data.dataset import LatentDataset
from vidlat.train.runs.checkpoint_list import last_step

pytestmark = pytest.mark.usefixtures("few_validation_windows")

SETTINGS = {"steps": 5, "validate_every": 2, "validation_fraction": 0.3, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def proxy():
    with bucket_behind_proxy() as proxy:
        yield proxy


@pytest.fixture
def remote(cache, proxy, monkeypatch):
    monkeypatch.delenv(CACHE_DIR, raising=False)
    proxy.set()
    address = f"{proxy.bucket}/{uuid4().hex}"
    put(cache.path, ObjectStorage.at(address))
    return open_cache(address)


@pytest.fixture
def never_held(monkeypatch):
    """Latents are read window by window, as those of a cache are that does not fit into memory."""
    monkeypatch.setattr(trainer_module, "LatentDataset", partial(LatentDataset, memory_limit_bytes=0))


def test_training_from_an_object_store_is_training_from_a_folder(make_trainer, remote, proxy, never_held):
    here, there = make_trainer("here", **SETTINGS), make_trainer("there", cache=remote, **SETTINGS)
    assert list(map(vars_of, here.steps())) == list(map(vars_of, there.steps()))
    assert_same_state(here.state, there.state)


def vars_of(record):
    return record.step, record.loss, record.validation_loss


def test_latents_that_fit_into_memory_are_read_once(make_trainer, remote, proxy):
    trainer = make_trainer(cache=remote, **SETTINGS)
    before = proxy.num_gets
    list(trainer.steps())
    assert proxy.num_gets == before


def test_a_second_epoch_from_disk_asks_for_nothing(
    make_trainer, remote, proxy, never_held, tmp_path, monkeypatch
):
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "kept"))
    remote = open_cache(remote.where)
    list(make_trainer("one", cache=remote, **SETTINGS | {"steps": 20}).steps())
    before = proxy.num_gets
    list(make_trainer("two", cache=remote, **SETTINGS | {"steps": 40}).steps())
    assert proxy.num_gets == before


def test_an_outage_at_any_request_ends_with_a_checkpoint_from_which_the_run_goes_on(
    make_trainer, remote, proxy, never_held, tmp_path, monkeypatch
):
    be_patient(monkeypatch, 0.02, request_seconds=5)
    monkeypatch.setattr(trainer_module, "NUM_PREFETCHED", 1)
    whole = make_trainer("whole", **SETTINGS)
    list(whole.steps())
    trainer = make_trainer("count", cache=open_cache(remote.where), **SETTINGS)
    proxy.set()
    list(trainer.steps())
    numbers = list(range(proxy.num_gets - 2))  # threads that are ahead may ask for some that are not needed
    stopped_at = set()
    for number in numbers[:: len(numbers) // (12 if is_thorough() else 3)]:
        cache = open_cache(remote.where)  # with no index in memory
        trainer = make_trainer(f"run-{number}", cache=cache, **SETTINGS)
        proxy.set(*[("GET", None)] * number, ("GET", "503"), stays=True)
        with pytest.raises(Unreachable, match=r"cannot be reached: got 503") as caught:
            list(trainer.steps())
        trainer.close()
        step = last_step(tmp_path / f"run-{number}" / "checkpoints")
        stopped_at.add(step)
        is_told = f"the run is saved after step {step}: the same command with --resume" in str(caught.value)
        assert is_told == (step > 0)
        proxy.set()
        resumed = make_trainer(f"run-{number}", cache=open_cache(remote.where), resume=True, **SETTINGS)
        list(resumed.steps())
        assert_same_state(whole.state, resumed.state)
        assert read_metrics(whole.run_dir) == read_metrics(resumed.run_dir)
    assert len(stopped_at) > 2


def test_a_process_that_saves_nothing_does_not_say_that_the_run_is_saved(
    make_trainer, remote, proxy, never_held, tmp_path, monkeypatch
):
    be_patient(monkeypatch, 0.02, request_seconds=5)
    trainer = make_trainer(cache=remote, **SETTINGS)
    monkeypatch.setattr(type(trainer.ranks), "is_first", property(lambda _: False))
    validation_loss = trainer.validation_loss

    def fails(**named):
        proxy.set(("GET", "503"), stays=True)
        return validation_loss(**named)

    monkeypatch.setattr(trainer, "validation_loss", fails)
    with pytest.raises(Unreachable, match="cannot be reached: got 503") as caught:
        list(trainer.steps())
    proxy.set()
    assert "is saved" not in str(caught.value)
    assert not list(tmp_path.rglob("checkpoints/*"))
