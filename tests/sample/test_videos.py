"""From sampled latents to frames."""

import numpy as np
import pytest
import torch

from tests.test_files import make_special
from tests.thorough import some_of
from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import InputError, TrainError
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.sample import videos
from vidlat.sample.first_frames import read_first_frames
from vidlat.sample.folder import read_samples
from vidlat.sample.videos import decode_sample, sample_videos
from vidlat.train.runs.run_folder import load_run


class EchoVAE:
    """Keeps the latents it decodes, and decodes them to a constant video."""

    device = torch.device("cpu")
    weights_hash = "d" * 64

    def decode(self, latents, num_frames):
        self.decoded = latents
        return torch.full((1, 1, num_frames, 3, 3), 0.4)


def test_a_sample_that_is_not_finite_is_refused_and_not_written(make_trainer, tmp_path, monkeypatch):
    list(make_trainer(steps=2).steps())
    trained = load_run(tmp_path / "run", build_model=build_small)
    with torch.no_grad():
        trained.model.mix.bias.fill_(3e38)  # finite, and the first step goes beyond
    monkeypatch.setattr(videos, "load_model", lambda *_, **__: trained)
    monkeypatch.setattr(videos, "load_vae_of", lambda *_, **__: EchoVAE())
    settings = SampleConfig(num=2, steps=4)
    with pytest.raises(TrainError, match="sample 0 holds numbers that are not finite"):
        list(sample_videos(tmp_path / "run", tmp_path / "out", settings))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {DECODED_MARK, "samples.jsonl"}
    assert not read_samples(tmp_path / "out").samples


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_a_first_frame_that_is_no_file_is_refused_without_waiting(kind, make_trainer, tmp_path):
    make_special(kind, tmp_path / "it")
    with pytest.raises(InputError, match=f"cannot be read as the first frame: is {kind}"):
        read_first_frames(tmp_path / "it", make_trainer().run, EchoVAE())


def test_latents_are_unwhitened_before_they_are_decoded(make_trainer):
    run, vae = make_trainer().run, EchoVAE()
    whitened = torch.randn(2, 2, 4, 4)
    frames = decode_sample(whitened, run, vae, 7)
    expected = torch.stack(
        [
            scale * channel + mean
            for scale, channel, mean in zip(run.whitening.scale, whitened, run.whitening.mean, strict=True)
        ]
    )
    torch.testing.assert_close(vae.decoded[0], expected)
    assert frames.dtype == np.uint8
    assert frames.shape == (7, 3, 3)
    assert (frames == 102).all()


class CountingVAE:
    """Encodes each latent frame as the first of its four frames."""

    def __init__(self, timing):
        self.timing = timing

    def with_batch(self, batch):
        return self

    def encode(self, frames):
        first = frames[:, :, ::4].expand(-1, 2, -1, -1, -1)
        return first[..., :4, :4], None


@pytest.mark.parametrize(
    ("stack", "num_given", "num_frames", "expected"),
    some_of(
        [
            (4, 1, 30, [26]),
            (4, 2, 30, [22, 26]),
            (8, 1, 30, [22]),  # the first of the two latent frames of the last call
            (8, 2, 30, [22, 26]),
            (8, 3, 30, [14, 18, 22]),
            (8, 3, 5, [0, 0, 0]),  # shorter than two calls: 11 times the first frame, then 0 to 4
        ]
    ),
)
def test_given_frames_are_the_first_of_the_last_calls(
    stack, num_given, num_frames, expected, make_cache, make_trainer, tmp_path
):
    cache, _ = make_cache({"a.mp4": 48, "b.mp4": 48}, stack=stack, name=f"{stack}.zarr")
    run = make_trainer(cache=cache, frames=24, first_frame=1.0, first_frames=num_given).run
    counted = np.arange(num_frames, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2)
    np.save(tmp_path / "counted.npy", counted)
    given = read_first_frames(tmp_path / "counted.npy", run, CountingVAE(run.schema.timing))
    levels = run.whitening.unwhiten(given)[0, :, 0, 0] * 255
    assert levels.round().tolist() == expected
