"""How many processes, batches and threads suit a machine."""

import pytest
import torch

from vidlat.pipeline.job import choose_num_workers, device_of_worker, num_batches_of_worker


def test_batches_that_a_worker_has_at_once_follow_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for cores, expected in {1: 3, 8: 4, 64: 16}.items():
        monkeypatch.setattr("vidlat.pipeline.job.num_cores", lambda cores=cores: cores)
        assert num_batches_of_worker("cuda") == expected
        assert num_batches_of_worker("cpu") == 1


def test_number_of_workers_follows_the_machine(monkeypatch):
    for cores, expected in {1: 1, 2: 2, 4: 2, 16: 4, 64: 16}.items():
        monkeypatch.setattr("vidlat.pipeline.job.num_cores", lambda cores=cores: cores)
        assert choose_num_workers("cpu") == expected


@pytest.mark.parametrize(
    ("device", "name", "num_gpus", "expected"),
    [
        ("auto", 5, 4, "cuda:1"),
        ("cuda", 3, 4, "cuda:3"),
        ("cuda:2", 3, 4, "cuda:2"),
        ("auto", 1, 0, "auto"),
        ("cpu", 1, 4, "cpu"),
        ("auto", "tcp://10.0.0.1:1", 4, "auto"),
    ],
)
def test_workers_spread_over_the_gpus(device, name, num_gpus, expected):
    assert device_of_worker(device, name, num_gpus) == expected
