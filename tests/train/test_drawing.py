"""Samples of any length: clip by clip, or in windows."""

from types import SimpleNamespace

import pytest
import torch

from vidlat.config import SampleConfig
from vidlat.evaluate.drawing import draw
from vidlat.train.run import TrainedRun

CPU = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture
def draw_by(make_cache, make_trainer):
    """draw_by(network, num_frames) draws two samples of a run of 16 frames, four latent ones; whitened."""

    def drawn(network, num_frames, *, given=None, stack=4, on_progress=lambda _: None, **settings):
        cache, _ = make_cache({"a.mp4": 40, "b.mp4": 24}, stack=stack, name=f"stack{stack}.zarr")
        trainer = make_trainer(cache=cache, frames=16, **settings)
        trained = TrainedRun(run=trainer.run, model=network, step=1)
        config = SampleConfig(steps=4)
        latents = draw(trained, CPU, config, [5, 6], num_frames, given, on_progress)
        return trainer.run.whitening.whiten(latents)

    return drawn


class Ramp(torch.nn.Module):
    """Ideal for data that grow by 0.5 a frame from what is given, or from 0: flow's noise - x0."""

    def forward(self, inputs, timestep, features):
        noised, known, which = inputs.split([2, 2, 1], dim=1)
        first = known[:, :, :1] * which[:, :, :1]
        x0 = first + 0.5 * torch.arange(inputs.shape[2]).view(1, 1, -1, 1, 1)
        return (noised - x0) / timestep.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("stack", [4, 8])
@pytest.mark.parametrize(("num_frames", "length"), [(9, 3), (16, 4), (17, 5), (40, 10), (57, 15)])
def test_a_long_sample_goes_on_where_each_clip_ended(draw_by, stack, num_frames, length):
    length += -length % (stack // 4)  # whole stacks
    given, progress = torch.tensor([3.0, -1.0]).view(2, 1, 1, 1).expand(2, 2, 4, 4), []
    latents = draw_by(
        Ramp(), num_frames, given=given, stack=stack, first_frame=1.0, on_progress=progress.append
    )
    assert latents.shape == (2, 2, length, 4, 4)
    ramp = given[:, :, None] + 0.5 * torch.arange(length).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)
    assert sum(progress) == pytest.approx(2)


def test_a_long_sample_without_a_start_begins_by_itself(draw_by):
    latents = draw_by(Ramp(), 40, first_frame=0.5)
    ramp = 0.5 * torch.arange(10).view(1, 1, -1, 1, 1).expand_as(latents)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)


class Still(torch.nn.Module):
    """Leaves the noise that a sample begins with as it is."""

    def __init__(self):
        super().__init__()
        self.lengths = set()

    def forward(self, inputs, timestep, features):
        self.lengths.add(inputs.shape[2])
        return torch.zeros_like(inputs[:, :2])


def test_every_clip_has_its_own_noise(draw_by):
    latents = draw_by(Still(), 28, first_frame=0.5)
    assert latents.shape[2] == 7
    frames = latents.movedim(2, 1).flatten(0, 1).flatten(1)
    assert len(frames.unique(dim=0)) == 2 * 7


def test_a_run_that_never_saw_a_given_frame_is_asked_in_windows(draw_by):
    network = Still()
    assert draw_by(network, 28).shape[2] == 7
    assert network.lengths == {4}
