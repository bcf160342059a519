"""Samples during a training: what they show, and a training that goes on without them."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.thorough import some_of
from vidlat.errors import NotEnoughMemoryError
from vidlat.sample import during_training
from vidlat.sample.during_training import NUM_SAMPLES, TrainingSamples, steps_with_samples
from vidlat.types import Annotation

pytestmark = pytest.mark.usefixtures("few_validation_windows")


class ToyVAE:
    """Decodes to the mean of the latents, in grays, and lacks memory at the calls that are listed."""

    device = torch.device("cpu")

    def __init__(self, *fails):
        self.fails, self.num_calls, self.error = (
            fails,
            0,
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
        )

    def decode(self, latents, num_frames):
        self.num_calls += 1
        if self.num_calls in self.fails:
            raise self.error
        return latents.mean().expand(1, 1, num_frames, 8, 8)


@pytest.fixture
def use_vae(monkeypatch):
    def use(vae):
        monkeypatch.setattr(during_training, "load_vae_of", lambda *_, **__: vae)
        return vae

    return use


def written(run):
    return sorted(path.name for path in (run / "samples").iterdir() if path.suffix)


STEPS = ["step_00000002.gif", "step_00000002.png", "step_00000004.gif", "step_00000004.png"]


@pytest.mark.parametrize(
    "error",
    some_of(
        [
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB"),
            NotEnoughMemoryError("not enough memory on cpu for 1 stack of 1x4x8x8; free some"),
            MemoryError(),
        ]
    ),
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_costs_only_the_samples_of_that_step(make_trainer, use_vae, tmp_path, error):
    vae, notices = use_vae(ToyVAE(3, NUM_SAMPLES)), []  # in the third sample of step 2, and once of step 4
    vae.error = error
    trainer, plain = make_trainer(sample_every=2), make_trainer("plain")
    records = list(steps_with_samples(trainer, show_notice=notices.append))
    assert [record.loss for record in records] == [record.loss for record in plain.steps()]
    assert [notice.partition(": ")[0] for notice in notices] == [
        f"no samples of step {step}, the training goes on" for step in (2, 4)
    ]
    for notice in notices:
        assert "\n" not in notice
        assert notice.endswith(" ".join(str(error).split()) or "MemoryError")
    assert written(tmp_path / "run") == ["step_00000006.gif", "step_00000006.png"]
    for name, value in trainer.state.model.state_dict().items():
        assert torch.equal(value, plain.state.model.state_dict()[name])


def test_dark_samples_move_in_a_window_of_gray_levels(make_trainer, use_vae, tmp_path):
    vae = use_vae(ToyVAE())
    vae.decode = lambda latents, num_frames: torch.full((1, 1, num_frames, 8, 8), 0.4)
    list(steps_with_samples(make_trainer(sample_every=6)))
    with Image.open(tmp_path / "run" / "samples" / "step_00000006.gif") as moving:
        assert (np.asarray(moving.convert("L")) == 255).sum() == NUM_SAMPLES * 256**2


def is_drawn_by_call(trainer, vae):
    """Let `stop` be called during the first call of the network for a sample."""
    forward = trainer.state.ema.forward

    def stopping(*inputs):
        if not torch.is_grad_enabled() and trainer.state.step == 2:
            trainer.stop()
        return forward(*inputs)

    trainer.state.ema.forward = stopping
    return 0


def is_decoded(trainer, vae):
    """Let `stop` be called while the second sample is decoded."""
    decode = vae.decode

    def stopping(latents, num_frames):
        if vae.num_calls == 1:
            trainer.stop()
        return decode(latents, num_frames)

    vae.decode = stopping
    return 2


@pytest.mark.parametrize("stop_while_it", [is_drawn_by_call, is_decoded])
def test_samples_end_where_a_training_is_to_stop_and_it_resumes_exactly(
    make_trainer, use_vae, tmp_path, stop_while_it
):
    vae, notices = use_vae(ToyVAE()), []
    settings = {"sample_every": 2, "checkpoint_every": 100}
    plain, stopped = make_trainer("plain"), make_trainer(**settings)
    expected = list(plain.steps())
    num_decoded = stop_while_it(stopped, vae)
    records = list(steps_with_samples(stopped, show_notice=notices.append))
    assert notices == ["no samples of step 2, the training stops"]
    assert vae.num_calls == num_decoded
    assert (written(tmp_path / "run"), stopped.state.step) == ([], 3)
    stopped.close()
    resumed = make_trainer(resume=True, **settings)
    records += steps_with_samples(resumed, show_notice=notices.append)
    assert [(record.step, record.loss) for record in records] == [
        (record.step, record.loss) for record in expected
    ]
    assert written(tmp_path / "run") == [
        *STEPS[2:], "step_00000006.gif", "step_00000006.png"
    ]  # fmt: skip
    for name, value in resumed.state.model.state_dict().items():
        assert torch.equal(value, plain.state.model.state_dict()[name])


def test_a_network_that_lacks_memory_is_told_on_stderr(make_trainer, use_vae, tmp_path, capsys):
    use_vae(ToyVAE())
    trainer = make_trainer(sample_every=2, steps=4)
    forward, fails = trainer.state.ema.forward, [True]

    def limited(inputs, *others):
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(inputs, *others)

    trainer.state.ema.forward = limited
    for record in steps_with_samples(trainer):
        if record.step == 3:
            fails.clear()
    told = capsys.readouterr().err
    assert re.fullmatch(r"no samples of step 2, .*: not enough memory on cpu for the U-Net .*\n", told)
    assert written(tmp_path / "run") == STEPS[2:]


def test_other_errors_end_a_training(make_trainer, use_vae):
    use_vae(ToyVAE(1)).error = RuntimeError("size of tensor")
    with pytest.raises(RuntimeError, match="size of tensor"):
        list(steps_with_samples(make_trainer(sample_every=2)))


def test_samples_have_the_conditions_of_training_videos_and_seeds_of_their_own(
    make_cache, make_trainer, use_vae, tmp_path
):
    use_vae(ToyVAE())
    cache, _ = make_cache({"a.mp4": 16, "b.mp4": 16, "c.mp4": 16}, name="kinds.zarr")
    labels = {"a.mp4": Annotation(labels={"kind": "x"}), "b.mp4": Annotation(labels={"kind": "y"})}
    settings = {"labels": labels, "condition": ("kind",), "validation_fraction": 0.0, "batch": 2}
    run = make_trainer(cache=cache, **settings).run
    seen = []

    def network(inputs, timestep, features):
        seen.append((inputs, features))
        # Towards latents of 0.2 where the kind is x, 0.84 where it is y: bright enough to be shown as it is.
        latents = (features @ torch.tensor([0.2, 0.84])).view(-1, 1, 1, 1, 1).expand_as(inputs)
        return (inputs - run.whitening.whiten(latents)) / timestep.view(-1, 1, 1, 1, 1)

    network.to = lambda _: network
    samples = TrainingSamples(run, cache, tmp_path / "run", device="cpu")
    sheet = samples.write(network, 7)
    samples.close()
    noise, features = seen[0]
    assert features.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert len(noise.flatten(1).unique(dim=0)) == NUM_SAMPLES
    with Image.open(sheet.with_suffix(".gif")) as moving:
        picture = np.asarray(moving.convert("L"))
    tiles = [
        picture[-12 - 16 : -12, left : left + 256] for left in range(12, 4 * 268, 268)
    ]  # their last lines
    assert [tile.mean().round() for tile in tiles] == [51, 51, 214, 214]
