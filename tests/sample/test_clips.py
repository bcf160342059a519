"""Latents of any length: clip by clip, or in windows; in batches."""

import pytest
import torch

from tests.thorough import some_of
from vidlat.config import SampleConfig
from vidlat.resources import LIMITED, THREADS
from vidlat.sample.clips import ClipSampler
from vidlat.train import threads as threads_module
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.types import Annotation


@pytest.fixture
def sample_with(make_cache, make_trainer):
    """sample_with(network, num_frames) samples from a run of 16 frames, four latent ones; two by default."""

    def sample(
        network, num_frames, *, seeds=(5, 6), conditions=None, given=None, on_progress=lambda _: None,
        batch=0, num_steps=4, stack=4, times=None, labels=None, **settings,
    ):  # fmt: skip
        name = f"stack{stack}-{times}.zarr"
        cache, _ = make_cache({"a.mp4": 40, "b.mp4": 24, "c.mp4": 24}, stack=stack, times=times, name=name)
        trainer = make_trainer(cache=cache, labels=labels, **{"frames": 16} | settings)
        trained = TrainedRun(run=trainer.run, model=network, step=1)
        trainer.close()
        sampler = ClipSampler(trained, SampleConfig(steps=num_steps, batch=batch), torch.device("cpu"))
        samples = sampler.sample(
            seeds, num_frames, conditions=conditions, first_frames=given, on_progress=on_progress
        )
        return torch.stack(list(samples))

    return sample


class Ramp(torch.nn.Module):
    """Ideal for data that grow by 0.5 per frame from the first frame, or from 0: noise - x0 of flow.

    With a single x0, the velocity is the same all along a path, and so is its average over any span.
    """

    def forward(self, inputs, timestep, features, span=None):
        noised, known, which = inputs.split([2, 2, 1], dim=1)
        first = known[:, :, :1] * which[:, :, :1]
        x0 = first + 0.5 * torch.arange(inputs.shape[2]).view(1, 1, -1, 1, 1)
        return (noised - x0) / timestep.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("stack", [4, 8])
@pytest.mark.parametrize(("num_frames", "length"), some_of([(9, 3), (16, 4), (17, 5), (40, 10), (57, 15)]))
def test_each_clip_of_a_long_sample_continues_the_one_before(sample_with, stack, num_frames, length):
    length += -length % (stack // 4)  # whole stacks
    first, progress = torch.tensor([3.0, -1.0]).view(2, 1, 1, 1, 1).expand(2, 2, 1, 4, 4), []
    latents = sample_with(
        Ramp(), num_frames, given=first, stack=stack, first_frame=1.0, on_progress=progress.append
    )
    assert latents.shape == (2, 2, length, 4, 4)
    ramp = first + 0.5 * torch.arange(length).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)
    assert sum(progress) == pytest.approx(2)


@pytest.mark.parametrize(("stack", "stretch"), [(4, 2), (4, 4), (8, 2)])
@pytest.mark.parametrize("num_frames", some_of([1, 9, 16, 17, 40]))
def test_frames_keep_their_meaning_in_slow_motion(sample_with, stack, stretch, num_frames):
    """Clips of 16 frames of the video, whatever the rate of their latent frames."""
    first = torch.zeros(2, 2, 1, 4, 4)
    latents = sample_with(
        Ramp(), num_frames, given=first, stack=stack, times={"stretch": stretch}, first_frame=1.0
    )
    length = -(-num_frames * stretch // stack) * stack // 4
    assert latents.shape == (2, 2, length, 4, 4)
    ramp = 0.5 * torch.arange(length).view(1, 1, -1, 1, 1).expand_as(latents)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("stack", "overlap", "num_frames", "length"),
    [
        (4, 2, 16, 7),
        (4, 2, 20, 9),
        (4, 2, 61, 30),
        (8, 4, 16, 4),
        (8, 4, 40, 10),
        (12, 4, 37, 11),
        (4, 3, 19, 16),
    ],
)
def test_clips_of_overlapping_calls_continue_each_other(sample_with, stack, overlap, num_frames, length):
    first, frames = torch.zeros(2, 2, 1, 4, 4), 20 if stack == 12 else 16
    latents = sample_with(
        Ramp(), num_frames, given=first, stack=stack, times={"overlap": overlap}, first_frame=1.0,
        frames=frames,
    )  # fmt: skip
    assert latents.shape == (2, 2, length, 4, 4)
    ramp = 0.5 * torch.arange(length).view(1, 1, -1, 1, 1).expand_as(latents)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)


def test_a_long_sample_without_a_first_frame_begins_by_itself(sample_with):
    latents = sample_with(Ramp(), 40, first_frame=0.5)
    ramp = 0.5 * torch.arange(10).view(1, 1, -1, 1, 1).expand_as(latents)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)


def test_a_long_sample_of_a_mean_flow_continues_clip_by_clip_in_single_steps(sample_with):
    first = torch.tensor([3.0, -1.0]).view(2, 1, 1, 1, 1).expand(2, 2, 1, 4, 4)
    settings = {"objective": "mean-flow", "first_frame": 1.0}
    latents = sample_with(Ramp(), 40, given=first, num_steps=1, **settings)
    ramp = first + 0.5 * torch.arange(10).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(latents, ramp, rtol=1e-4, atol=1e-4)


def test_a_long_sample_of_a_mean_flow_without_first_frames_blends_windows(sample_with):
    told = []

    class Noise(torch.nn.Module):
        """Ideal where x0 is 0: x_t / t."""

        def forward(self, inputs, timestep, features, span):
            told.append((inputs.shape[2], float(timestep[0]), float(span[0])))
            return inputs / timestep.view(-1, 1, 1, 1, 1)

    latents = sample_with(Noise(), 40, objective="mean-flow", num_steps=2)
    assert set(told) == {(4, 1.0, 0.5), (4, 0.5, 0.5)}
    torch.testing.assert_close(latents, torch.zeros(2, 2, 10, 4, 4), rtol=0, atol=1e-5)


class Still(torch.nn.Module):
    """Leaves the noise of a sample as it is, and counts what it is called with."""

    def __init__(self):
        super().__init__()
        self.lengths = set()

    def forward(self, inputs, timestep, features):
        self.lengths.add(inputs.shape[2])
        return torch.zeros_like(inputs[:, :2])


def test_every_clip_has_its_own_noise(sample_with):
    latents = sample_with(Still(), 28, first_frame=0.5)
    assert latents.shape[2] == 7
    frames = latents.movedim(2, 1).flatten(0, 1).flatten(1)
    assert len(frames.unique(dim=0)) == 2 * 7


def test_a_run_without_first_frame_conditioning_samples_long_clips_in_windows(sample_with):
    network = Still()
    assert sample_with(network, 28).shape[2] == 7
    assert network.lengths == {4}


class Curved(torch.nn.Module):
    """Depends on everything, and records the inputs of each call."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, inputs, timestep, features):
        self.inputs.append(inputs)
        return torch.tanh(inputs[:, :2]) * timestep.view(-1, 1, 1, 1, 1) + 0.3 * inputs[:, :2]


@pytest.mark.parametrize("batch", [1, 2])
def test_samples_do_not_depend_on_the_batch_size(sample_with, batch):
    seeds = [3, 1, 4, 1, 5]
    together, apart = (sample_with(Curved(), 16, seeds=seeds, batch=size) for size in (5, batch))
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[1], together[3], rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_progress_counts_the_samples_of_each_step(sample_with):
    progress = []
    sample_with(Curved(), 16, seeds=range(5), batch=4, on_progress=progress.append)
    assert progress == [1, 1, 1, 1, 0.25, 0.25, 0.25, 0.25]  # four steps of four samples, then of one


def test_a_last_batch_is_filled_up_and_a_first_frame_is_kept_to_the_bit(sample_with):
    first, network = torch.randn(3, 2, 1, 4, 4), Curved()
    samples = sample_with(network, 16, seeds=[1, 2, 3], given=first, batch=2, first_frame=1.0)
    assert {len(inputs) for inputs in network.inputs} == {2}
    for number, inputs in enumerate(network.inputs):
        assert torch.equal(inputs[:, 2:4, :1], first[:2] if number < 4 else first[[2, 2]])
    assert torch.equal(samples[:, :, :1], first)


def test_samples_are_the_same_where_memory_does_not_suffice_for_a_batch(sample_with):
    class Limited(Curved):
        def forward(self, inputs, timestep, features):
            if len(inputs) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(inputs, timestep, features)

    limited, free = (sample_with(network, 28, seeds=[3, 1, 4], batch=3) for network in (Limited(), Curved()))
    torch.testing.assert_close(limited, free, rtol=0, atol=1e-6)


class Echo(torch.nn.Module):
    """Predicts that all data are 1, 2 or 3, by the class that is asked for; 0 if none is."""

    def forward(self, inputs, timestep, features):
        x0 = (features * torch.tensor([1.0, 2.0, 3.0])).sum(1).view(-1, 1, 1, 1, 1)
        return (inputs - x0) / timestep.view(-1, 1, 1, 1, 1)


def test_each_sample_may_have_a_condition_of_its_own(sample_with):
    labels = {f"{name}.mp4": Annotation(labels={"kind": name}) for name in "abc"}
    conditions = [["kind=c"], [], ["kind=a"], ["kind=b"], ["kind=a"]]
    trained = {"labels": labels, "condition": ("kind",), "validation_fraction": 0.0}
    samples = sample_with(Echo(), 16, seeds=range(5), conditions=conditions, batch=2, **trained)
    assert samples.mean((1, 2, 3, 4)).tolist() == pytest.approx([3, 0, 1, 2, 1], abs=1e-4)


class Grown(torch.nn.Module):
    """Ideal for data that go on from the given frames by the difference of the last two."""

    def __init__(self, num_given):
        super().__init__()
        self.num_given = num_given

    def forward(self, inputs, timestep, features):
        noised, known, _ = inputs.split([2, 2, 1], dim=1)
        last, before = known[:, :, self.num_given - 1], known[:, :, self.num_given - 2]
        steps = torch.arange(inputs.shape[2]).view(1, 1, -1, 1, 1) - (self.num_given - 1)
        x0 = last[:, :, None] + (last - before)[:, :, None] * steps
        return (noised - x0) / timestep.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("num_frames", [16, 24, 57])
@pytest.mark.parametrize(
    ("stack", "overlap", "num_given"), some_of([(4, 0, 2), (4, 0, 3), (8, 4, 2), (8, 4, 3), (8, 0, 2)])
)
def test_several_given_frames_show_the_motion_that_goes_on(
    sample_with, num_frames, stack, overlap, num_given
):
    speed = torch.tensor([0.5, -2.0]).view(2, 1, 1, 1, 1).expand(2, 2, 1, 4, 4)
    first = speed * torch.arange(num_given).view(1, 1, -1, 1, 1)
    latents = sample_with(
        Grown(num_given), num_frames, given=first, stack=stack, times={"overlap": overlap},
        first_frame=1.0, first_frames=num_given,
    )  # fmt: skip
    ramp = speed * torch.arange(latents.shape[2]).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(latents, ramp, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("num_samples", "given", "expected"),
    [(13, None, {2: 9.0, 1: 3.0}), (13, "2", {}), (12, None, {})],
)
def test_before_many_steps_the_fastest_number_of_threads_is_chosen(
    make_cache, make_trainer, monkeypatch, num_samples, given, expected
):
    before, timed = torch.get_num_threads(), []
    monkeypatch.delenv(LIMITED, raising=False)
    monkeypatch.delenv(THREADS, raising=False)
    if given:
        monkeypatch.setenv(THREADS, given)

    def scripted(compute):
        compute()
        timed.append(torch.get_num_threads())
        return {2: 9.0, 1: 3.0}[timed[-1]]

    monkeypatch.setattr(threads_module, "num_cores", lambda: 2)
    monkeypatch.setattr(threads_module, "least_seconds", scripted)
    cache, _ = make_cache({"a.mp4": 40, "b.mp4": 24})
    trainer = make_trainer(cache=cache, frames=16, first_frame=1.0)
    trained = TrainedRun(run=trainer.run, model=Ramp(), step=1)
    trainer.close()
    sampler = ClipSampler(trained, SampleConfig(steps=4), torch.device("cpu"))
    try:
        assert sampler.choose_threads(num_samples) == expected
        assert torch.get_num_threads() == (1 if expected else before)
    finally:
        torch.set_num_threads(before)
