"""What a GPU computes is what a CPU computes, and full memory of a GPU ends nothing (docs/how-to/gpu.md)."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.phantom import make_phantom
from tests.train.toys import CacheMaker
from vidlat.config import EncodeConfig, LatentSettings, SampleConfig, TrainConfig
from vidlat.encode.vae import load_vae
from vidlat.encode.weights import resolve_weights
from vidlat.errors import NotEnoughMemoryError
from vidlat.pipeline.device_calls import DeviceCaller
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import encode_videos, prepare_encode
from vidlat.pipeline.executor import InProcessExecutor
from vidlat.sample.clips import ClipSampler
from vidlat.store.reader import open_cache
from vidlat.train.runs.run_folder import load_run
from vidlat.train.trainer import Trainer
from vidlat.video.writer import write_video

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")

ALLOWED = {"float32": 1e-4, "bfloat16": 0.03}
"""Root mean square error over the spread of the exact values. TF32, with 10 bits, would miss the first."""


def error(found, exact):
    return float((found.cpu() - exact).square().mean().sqrt() / exact.std())


@pytest.mark.parametrize("precision", ALLOWED)
@pytest.mark.parametrize("stack", [4, 16])
@pytest.mark.parametrize("name", ["tiny", "tiny-16"])
def test_latents_and_frames_are_those_of_a_cpu_in_float32(name, stack, precision):
    frames = make_phantom("heart", 0, 5 * stack, 64, 64, 25)
    stacks = torch.from_numpy(frames).float().div(255).unflatten(0, (5, stack))[:, None]
    vae, exact = (
        load_vae(
            resolve_weights(name), LatentSettings(stack=stack, precision=chosen), batch=2, device=str(device)
        )
        for chosen, device in ((precision, GPU), ("float32", "cpu"))
    )
    mean, std = exact.encode_stacks(stacks)
    found_mean, found_std = vae.encode_stacks(stacks)
    assert found_mean.device.type == GPU.type
    assert error(found_mean, mean) < ALLOWED[precision]
    assert float((found_std.cpu() - std).square().mean().sqrt() / mean.std()) < ALLOWED[precision]
    assert error(vae.decode_stacks(mean), exact.decode_stacks(mean)) < ALLOWED[precision]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def cache(tmp_path):
    return CacheMaker(tmp_path / "l.zarr").add({f"{n}.mp4": 24 for n in range(4)})


def train(cache, run, stop_after=None, resume=False, **settings):
    values = {"frames": 8, "batch": 4, "steps": 6, "warmup_steps": 2, "device": GPU.type, "compile": False}
    trainer = Trainer(TrainConfig(**values | settings), cache, run, resume=resume)
    records = []
    for record in trainer.steps():
        records.append(record)
        if record.step == stop_after:
            trainer.stop()
    trainer.close()
    return [record.loss for record in records], trainer.state.model.state_dict()


@pytest.mark.usefixtures("deterministic")
def test_training_that_was_resumed_is_one_that_was_not_bit_for_bit(cache, tmp_path):
    losses, weights = train(cache, tmp_path / "whole")
    first, _ = train(cache, tmp_path / "resumed", stop_after=2)
    rest, resumed = train(cache, tmp_path / "resumed", resume=True)
    assert 2 <= len(first) < 6
    assert first + rest == losses
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_losses_of_a_training_are_those_of_a_cpu(cache, tmp_path):
    losses, _ = train(cache, tmp_path / "gpu")
    exact, _ = train(cache, tmp_path / "cpu", device="cpu", precision="float32")
    np.testing.assert_allclose(losses, exact, rtol=0.02)


def test_samples_are_those_of_a_cpu(cache, tmp_path):
    train(cache, tmp_path / "run", learning_rate=1e-2)
    settings = SampleConfig(steps=5, batch=2, precision="float32")
    found, exact = (
        torch.stack(list(ClipSampler(load_run(tmp_path / "run"), settings, device).sample([1, 2, 3], 8)))
        for device in (GPU, torch.device("cpu"))
    )
    assert found.shape == exact.shape == (3, 2, 2, 4, 4)
    assert error(found, exact) < 0.01


@contextmanager
def memory(num_bytes):
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(num_bytes / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


SETTINGS = {"vae": "tiny", "size": 256, "stack": 4, "stretch": 1, "device": GPU.type, "workers": 1}


@pytest.fixture
def encode(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/a.mp4", make_phantom("lung", 0, 128, 64, 64, 25), 25)

    def encode(batch):
        out = tmp_path / f"{batch}.zarr"
        settings = EncodeConfig(batch=batch, **SETTINGS)
        list(encode_videos([tmp_path / "videos"], out, settings, executor=InProcessExecutor()))
        return open_cache(out)

    return encode


def test_encode_that_does_not_fit_goes_on_with_smaller_calls(encode):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    few = encode(2)
    with memory(1.5 * torch.cuda.max_memory_reserved()):
        cache = encode(32)
    record = cache.records()["a.mp4"]
    assert record.batch < 32
    assert record.warnings[0].startswith("out of memory: encoded in batches of")
    mean, exact = (torch.from_numpy(c.read_latents("a.mp4").mean[:]).float() for c in (cache, few))
    assert error(mean, exact) < ALLOWED["bfloat16"]


def test_threads_that_call_at_once_get_their_own_latents():
    vae = load_vae(resolve_weights("tiny"), LatentSettings(stack=4), batch=4, device=GPU.type)
    stacks = np.random.default_rng(0).random((16, 4, 4, 128, 128), np.float32)
    expected = [vae.encode_stacks(torch.from_numpy(part)[:, None])[0].cpu() for part in stacks]

    def call(number):
        caller = DeviceCaller(vae.device)
        return [caller.call(vae.encode_stacks, list(stacks[index]))[0] for index in (number, 15 - number)]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(call, range(16))):
            for index, mean in zip((number, 15 - number), found, strict=True):
                assert error(torch.from_numpy(mean), expected[index]) < 1e-3


def test_videos_read_in_processes_give_the_cache_of_those_read_here(encode, tmp_path):
    mean = encode(8).read_latents("a.mp4").mean[:]
    settings = EncodeConfig(batch=8, **SETTINGS)
    prepared = prepare_encode([str(tmp_path / "videos")], settings, tmp_path / "here.zarr")
    job = replace(prepared.job, reads_apart=False)
    with InProcessExecutor() as executor, prepared.open_writer() as writer:
        list(run_encode(prepared.plan, job, writer, executor))
    here = open_cache(tmp_path / "here.zarr").read_latents("a.mp4").mean[:]
    assert error(torch.from_numpy(mean).float(), torch.from_numpy(here).float()) < 1e-3


def test_a_call_that_does_not_fit_is_refused_and_leaves_the_memory_usable():
    vae = load_vae(resolve_weights("tiny"), LatentSettings(stack=4), batch=64, device=GPU.type)
    with memory(2e8), pytest.raises(NotEnoughMemoryError, match="not enough memory on cuda"):
        vae.encode_stacks(torch.rand(64, 1, 4, 256, 256))
    mean, _ = vae.with_batch(2).encode_stacks(torch.rand(2, 1, 4, 64, 64))
    assert torch.isfinite(mean).all()
