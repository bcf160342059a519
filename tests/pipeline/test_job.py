"""How many processes, batches and threads suit a machine, and where it finds the VAE."""

import shutil
from dataclasses import replace

import pytest
import torch

from vidlat.encode.weights import resolve_weights
from vidlat.errors import WeightsError
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


@pytest.fixture
def job(prepare_only, make_videos, tmp_path):
    folder = make_videos(tmp_path / "videos", {"a.mp4": 2})
    return lambda **settings: prepare_only(folder, tmp_path / "l.zarr", **settings).job


def elsewhere(job, tmp_path):
    """The job of a driver whose files are on a disk that this machine does not see."""
    return replace(job, vae_path=tmp_path / "disk of the driver" / job.vae_path.name)


def test_a_worker_finds_an_embedded_vae_in_its_own_package(job, tmp_path):
    tiny = job(vae="tiny", size=64)
    assert tiny.vae_path == resolve_weights("tiny")
    assert elsewhere(tiny, tmp_path).load_vae().weights_hash == tiny.vae_hash


def test_a_relative_path_of_weights_is_absolute_for_workers(job, small_vae, tmp_path, monkeypatch):
    monkeypatch.chdir(small_vae.parent)
    given = job(vae=small_vae.name)
    assert given.vae_path == small_vae
    monkeypatch.chdir(tmp_path)
    assert given.load_vae().weights_hash == given.vae_hash


def test_a_worker_finds_weights_below_its_own_folder(job, small_vae, other_decoder, tmp_path, monkeypatch):
    monkeypatch.chdir(small_vae.parent)
    lost = elsewhere(job(vae=small_vae.name), tmp_path)
    (tmp_path / "worker").mkdir()
    monkeypatch.chdir(tmp_path / "worker")
    with pytest.raises(WeightsError, match=r"no weights file at small\.safe.*; copy those to /.* on every m"):
        lost.load_vae()
    shutil.copy(other_decoder, small_vae.name)
    with pytest.raises(
        WeightsError, match=r"^small\.safetensors: holds other weights here than.*; copy those"
    ):
        lost.load_vae()
    shutil.copy(small_vae, small_vae.name)
    assert lost.load_vae().weights_hash == lost.vae_hash


def test_other_weights_at_the_path_of_the_driver_are_passed_over(job, other_decoder, tmp_path):
    lost = elsewhere(job(vae="tiny", size=64), tmp_path)
    lost.vae_path.parent.mkdir()
    shutil.copy(other_decoder, lost.vae_path)
    assert lost.load_vae().weights_hash == lost.vae_hash
