"""Calls of the VAE on a device; stand-ins take the place of a GPU (on a real one: tests/test_gpu.py)."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from vidlat.errors import NotEnoughMemoryError
from vidlat.pipeline import device_calls
from vidlat.pipeline.device_calls import DeviceCaller

STACKS = [np.full((4, 8, 8), value, np.float32) for value in (1, 2, 3)]


def encode(stacks):
    """Means and spreads over the frames."""
    with torch.inference_mode():
        return stacks.mean(2, keepdim=True), stacks.std(2, keepdim=True)


def test_a_call_gives_what_the_function_gives_for_the_stacks():
    mean, std = DeviceCaller(torch.device("cpu")).call(encode, STACKS)
    np.testing.assert_array_equal(mean, np.array([1, 2, 3], np.float32).repeat(64).reshape(3, 1, 1, 8, 8))
    np.testing.assert_array_equal(std, np.zeros((3, 1, 1, 8, 8)))


def test_results_of_a_call_outlive_the_next():
    caller = DeviceCaller(torch.device("cpu"))
    first = caller.call(encode, STACKS)[0]
    kept = first.copy()
    caller.call(encode, [10 * stack for stack in STACKS])
    np.testing.assert_array_equal(first, kept)


@pytest.fixture
def gpu(monkeypatch):
    """What a GPU would be told, in order, and whether the lock was held then."""
    told, current = [], ["network"]

    def tell(what):
        told.append((what, current[-1], device_calls._NETWORK.locked()))

    class Stream:
        def __init__(self, name="copies"):
            self.name = name

        def wait_stream(self, other):
            tell(f"{self.name} wait for {other.name}")

    class Event:
        def __init__(self, blocking):
            assert blocking

        def record(self, stream):
            tell(f"event after {stream.name}")

        def synchronize(self):
            tell("wait for event")

    @contextmanager
    def stream(entered):
        current.append(entered.name)
        yield
        current.pop()

    empty, copy = torch.empty, torch.Tensor.copy_

    def to(tensor, device, non_blocking):
        tell(f"to {device}")
        assert non_blocking
        return tensor

    def copy_(tensor, source, non_blocking):
        tell("copy back")
        assert non_blocking
        return copy(tensor, source)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("network"))
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory, **how: empty(*size, **how))
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, other: tell(f"kept for {other.name}"))
    return told


def test_the_lock_of_a_gpu_is_held_while_a_call_is_queued_and_not_while_it_is_waited_for(gpu):
    mean, _ = DeviceCaller(torch.device("cuda:1")).call(encode, STACKS)
    np.testing.assert_array_equal(mean[:, 0, 0, 0, 0], [1, 2, 3])
    assert gpu == [
        ("to cuda:1", "copies", False),
        ("network wait for copies", "network", True),
        ("kept for network", "network", True),
        ("copy back", "network", True),
        ("copy back", "network", True),
        ("event after network", "network", True),
        ("wait for event", "network", False),
    ]


def test_a_call_that_fails_frees_the_lock(gpu):
    def fails(stacks):
        raise MemoryError

    with pytest.raises(NotEnoughMemoryError):
        DeviceCaller(torch.device("cuda")).call(fails, STACKS)
    assert not device_calls._NETWORK.locked()
    assert gpu[-1][0] == "kept for network"


@pytest.mark.parametrize("num_given", [0, 1, 2], ids=["stacks", "means", "deviations"])
def test_a_lack_of_pinned_memory_asks_for_a_smaller_call(gpu, monkeypatch, num_given):
    """It comes as a plain RuntimeError, wherever it is allocated."""
    empty, sizes = torch.empty, []

    def allocate(*size, **how):
        sizes.append(size)
        if len(sizes) > num_given:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*size, **how)

    monkeypatch.setattr(torch, "empty", allocate)
    with pytest.raises(NotEnoughMemoryError, match="to bring 3 stacks of 4x8x8 to cuda and") as refusal:
        DeviceCaller(torch.device("cuda")).call(encode, STACKS)
    assert len(sizes) == num_given + 1
    # The traceback of the first error would keep the memory of the call alive.
    assert refusal.value.__cause__ is refusal.value.__context__ is None
