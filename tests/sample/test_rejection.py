"""Samples that copy a training clip are drawn again, and each depends on its own seed alone."""

import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.sample.test_folder import GrayVAE
from tests.test_cli import vidlat
from tests.thorough import some_of
from vidlat.cli import commands
from vidlat.config import SampleConfig
from vidlat.copies.search import CopySearch
from vidlat.errors import ConfigError, CopyError, ExitCode, TrainError
from vidlat.sample import rejection, videos
from vidlat.sample.folder import read_samples
from vidlat.sample.rejection import MOST_ATTEMPTS, CopyRejection
from vidlat.sample.videos import sample_videos
from vidlat.train.runs.run_folder import TrainedRun

VIDEOS = {f"{n}.mp4": 32 for n in range(10)}


@pytest.fixture
def run_and_cache(make_cache, make_trainer):
    cache, _ = make_cache(VIDEOS, name="copied.zarr")
    trainer = make_trainer("copied", cache=cache, validation_fraction=0.4, latents_as="mean")
    trainer.close()
    return trainer.run, cache


class Scripted:
    """Draws a training window where it is told to copy, else noise; `asked` lists what it was asked for.

    copies: for each sample, at how many of its first attempts it copies.
    """

    def __init__(self, run, cache, copies):
        self.copies, self.asked, self.shape = copies, [], run.latent_shape()
        starts = np.array([cache.records()[video_id].start + 1 for video_id in run.training])
        mean, _ = cache.read_windows(starts, self.shape[1], with_std=False)
        self.windows = run.whitening.whiten(torch.from_numpy(mean).float())

    def latents(self, number, attempt):
        if attempt < self.copies[number]:
            return self.windows[number % len(self.windows)]
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(100 * number + attempt))

    def __call__(self, numbers, attempt):
        self.asked.append((list(numbers), attempt))
        return (self.latents(number, attempt) for number in numbers)


@pytest.mark.parametrize("drawn_at_once", some_of([1, 2, 64]))
def test_each_sample_is_its_first_attempt_that_copies_nothing(drawn_at_once, run_and_cache, monkeypatch):
    monkeypatch.setattr(rejection, "DRAWN_AT_ONCE", drawn_at_once)
    copies = [0, 2, 0, 1, MOST_ATTEMPTS]
    draw = Scripted(*run_and_cache, copies)
    found = list(CopyRejection(CopySearch(*run_and_cache), 0.01).draw(len(copies), draw))
    if drawn_at_once == 64:
        assert [number for number, _ in found] == [0, 2, 3, 1, 4]  # each as soon as it is accepted
    samples = [sample for _, sample in sorted(found, key=lambda each: each[0])]
    assert [sample.num_rejected for sample in samples] == copies
    for number, sample in enumerate(samples[:4]):
        assert sample.copied is None
        assert torch.equal(sample.latents, draw.latents(number, copies[number]))
    assert samples[4].copied.video_id == run_and_cache[0].training[4 % len(run_and_cache[0].training)]
    assert samples[4].copied.distance < 1e-3
    if drawn_at_once == 64:
        assert draw.asked[:3] == [([0, 1, 2, 3, 4], 0), ([1, 3, 4], 1), ([1, 4], 2)]
        assert len(draw.asked) == MOST_ATTEMPTS


class Copying(torch.nn.Module):
    """Flow's ideal velocity towards one window: whatever the noise, that is the sample.

    Towards another, which was not trained on, where the noise of the first value is positive.
    """

    def __init__(self, window, other):
        super().__init__()
        self.window, self.other = window, other

    def forward(self, noised, timestep, features=None):
        is_start = timestep.view(-1)[0] == 1
        if is_start:
            self.is_other = noised[:, 0, 0, 0, 0] > 0
        target = torch.where(self.is_other.view(-1, 1, 1, 1, 1), self.other, self.window)
        return (noised - target) / timestep.view(-1, 1, 1, 1, 1)


@pytest.fixture
def draw(run_and_cache, tmp_path, monkeypatch):
    """Draw samples of a network that copies about half of the time, into a folder; their paths."""
    run, cache = run_and_cache
    copied = Scripted(run, cache, [1]).latents(0, 0)
    other = torch.randn(run.latent_shape(), generator=torch.Generator().manual_seed(0))
    trained = TrainedRun(run=run, model=Copying(copied, other), step=1)
    monkeypatch.setattr(videos, "load_vae_of", lambda *_, **__: GrayVAE())
    monkeypatch.setattr(videos, "load_model", lambda *_, **__: trained)
    (tmp_path / "config.json").touch()  # which the command looks for

    def paths(out="out", latents=cache.path, **settings):
        values = {"num": 8, "steps": 2, "format": "npy", "reject_copies": 0.01} | settings
        return sorted(sample_videos(tmp_path, tmp_path / out, SampleConfig(**values), latents=latents))

    return paths


def test_no_sample_is_a_copy_and_each_depends_on_its_seed_alone(draw, tmp_path):
    all_of_them = [np.load(path) for path in draw()]
    alone = [np.load(path) for seed in (0, 3, 6) for path in draw(f"{seed}", num=2, seed=seed)]
    kept = [np.load(path) for path in draw("kept", reject_copies=0.0, latents=None)]
    num_rejected = [each.num_rejected for _, each in sorted(read_samples(tmp_path / "out").samples.items())]
    assert 0 < sum(map(bool, num_rejected)) < 8
    for number, other in zip((0, 1, 3, 4, 6, 7), alone, strict=True):
        assert np.array_equal(all_of_them[number], other)
    for one, first, num in zip(all_of_them, kept, num_rejected, strict=True):
        assert np.array_equal(one, first) == (num == 0)


def test_a_sample_that_copies_at_every_attempt_is_named_and_the_others_are_written(
    draw, tmp_path, monkeypatch
):
    monkeypatch.setattr(rejection, "MOST_ATTEMPTS", 1)
    message = r"\d of the samples \(seed [0-9, ]+\) copied .* copies \d\.mp4;"
    with pytest.raises(CopyError, match=message) as error:
        draw()
    assert error.value.exit_code == ExitCode.SOME_FAILED
    listed = re.search(r"seed ([0-9, ]+)\)", str(error.value))[1]
    written = {sample.seed for sample in read_samples(tmp_path / "out").samples.values()}
    assert written
    assert written.isdisjoint(map(int, listed.split(", ")))
    assert len(written) + len(listed.split(", ")) == 8
    assert len(list((tmp_path / "out").glob("sample-*"))) == len(written)


def test_the_command_counts_rejected_attempts_and_ends_with_3_where_copies_are_left(
    draw, run_and_cache, tmp_path, monkeypatch
):
    def command(out, num=8, seed=0):
        settings = f"-n {num} --seed {seed} --steps 2 --format npy --reject-copies 0.01"
        settings += f" --latents {run_and_cache[1].path}"
        arguments = ["sample", "--run", tmp_path, "--out", tmp_path / out, *settings.split()]
        return CliRunner().invoke(commands, list(map(str, arguments)))

    answer = command("out")
    num_rejected = sum(sample.num_rejected for sample in read_samples(tmp_path / "out").samples.values())
    assert answer.exit_code == 0
    assert f"{num_rejected} attempts rejected as suspect copies before these were drawn" in answer.stdout
    kept = read_samples(tmp_path / "out").samples.values()
    first = min(sample.seed for sample in kept if not sample.num_rejected)
    answer = command("one", num=1, seed=first)
    assert "no suspect copies were drawn" in answer.stdout
    monkeypatch.setattr(rejection, "MOST_ATTEMPTS", 1)
    answer = command("again")
    assert answer.exit_code == ExitCode.SOME_FAILED
    assert "contact sheet ->" in answer.stdout
    assert "no suspect copies" not in answer.stdout
    assert answer.stderr.count("\n") == 1
    assert re.match(r"Error: \d of the samples \(seed ", answer.stderr)


def test_an_interruption_keeps_what_is_accepted_and_tells_how_many(
    draw, run_and_cache, tmp_path, monkeypatch
):
    """It comes while samples are drawn a second time; the others of the same sixteen are accepted."""
    whole = draw("whole")
    num_rejected = [each.num_rejected for _, each in sorted(read_samples(tmp_path / "whole").samples.items())]
    draw_once = videos._Drawing.draw

    def interrupted(self, samples, on_progress, numbers, attempt):
        if attempt == 1:
            raise KeyboardInterrupt
        return draw_once(self, samples, on_progress, numbers, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(videos._Drawing, "draw", interrupted)
        settings = f"-n 8 --steps 2 --format npy --reject-copies 0.01 --latents {run_and_cache[1].path}"
        code, out, _ = vidlat("sample", "--run", tmp_path, "--out", tmp_path / "out", *settings.split())
    accepted = [path.name for path, num in zip(whole, num_rejected, strict=True) if num == 0]
    assert 0 < len(accepted) < 8
    assert code == ExitCode.INTERRUPTED
    assert sorted(path.name for path in (tmp_path / "out").glob("sample-*")) == accepted
    assert set(read_samples(tmp_path / "out").samples) == set(accepted)
    told = (
        f"{len(accepted)} of 8 samples written, those not yet compared with the training clips lost; the same"
    )
    assert told in out
    again = draw()
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]


def test_rejection_and_its_cache_go_together(draw, make_cache):
    with pytest.raises(ConfigError, match=r"reject_copies: .* give it by --latents"):
        draw(latents=None)
    with pytest.raises(ConfigError, match=r"latents: .* give both"):
        draw(reject_copies=0.0)
    other, _ = make_cache({**VIDEOS, "0.mp4": 36}, name="other.zarr")
    with pytest.raises(TrainError, match=r"does not fit the cache .*: its videos are changed: 0\.mp4"):
        draw(latents=other.path)
