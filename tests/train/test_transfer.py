"""What goes to a GPU goes there from pinned memory and without waiting; stand-ins take the place of one."""

from dataclasses import dataclass

import pytest
import torch

from tests.train.test_data_threads import make_dataset, make_plans
from vidlat.train.data.transfer import pin_memory, to_device


@dataclass(frozen=True, kw_only=True)
class Example:
    one: torch.Tensor
    other: torch.Tensor | None
    name: str


EXAMPLE = Example(one=torch.ones(2), other=None, name="example")


@pytest.fixture
def moves(monkeypatch):
    """What is done to tensors, instead of doing it."""
    done = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: done.append("pin") or tensor + 1)

    def to(tensor, device, non_blocking=False):
        done.append((tensor.tolist(), str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    return done


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_gpu_gets_pinned_values_without_waiting(moves, device):
    moved = to_device(EXAMPLE, device)
    assert moves == ["pin", ([2.0, 2.0], str(device), True)]
    assert (moved.one.tolist(), moved.other, moved.name) == ([2.0, 2.0], None, "example")


def test_nothing_is_pinned_or_copied_for_a_cpu(moves):
    moved = to_device(EXAMPLE, "cpu")
    assert "pin" not in moves
    assert moved.one is EXAMPLE.one


def test_everything_of_a_batch_goes_along(make_cache):
    cache, _ = make_cache({"a.mp4": 30, "b.mp4": 30}, stack=8)
    dataset = make_dataset(
        cache, features=dict.fromkeys(["a.mp4", "b.mp4"], torch.ones(3).numpy()), with_noise=True
    )
    (batch,) = dataset.batches(make_plans(cache, dataset, 1))
    moved = batch.to("meta")
    for name in ("latents", "mask", "features", "noise"):
        assert getattr(moved, name).is_meta
        assert getattr(moved, name).shape == getattr(batch, name).shape
    assert (moved.keys, moved.video_ids) == (batch.keys, batch.video_ids)


def test_only_tensors_are_pinned(moves):
    assert pin_memory(EXAMPLE).one.tolist() == [2.0, 2.0]
    assert moves == ["pin"]


@pytest.mark.parametrize("pinned", [False, True])
def test_a_pinned_dataset_computes_latents_and_noise_in_pinned_memory(make_cache, monkeypatch, pinned):
    cache, _ = make_cache({"a.mp4": 30}, stack=8)
    dataset = make_dataset(cache, with_noise=True, pinned=pinned)
    allocated, empty = [], torch.empty

    def record(size, pin_memory=False):
        if len(size) == 5:
            allocated.append(pin_memory)
        return empty(size)

    monkeypatch.setattr(torch, "empty", record)
    list(dataset.batches(make_plans(cache, dataset, 1)))
    assert allocated == [pinned, pinned]
