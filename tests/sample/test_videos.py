"""From sampled latents to frames."""

import numpy as np
import pytest
import torch

from tests.test_files import make_special
from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import InputError, TrainError
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.sample import videos
from vidlat.sample.folder import read_samples
from vidlat.sample.videos import decode_sample, read_first_frame, sample_videos
from vidlat.train.run_folder import load_run


class EchoVAE:
    """Keeps the latents it decodes, and decodes them to a constant video."""

    device = torch.device("cpu")

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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {DECODED_MARK, "samples.json"}
    assert not read_samples(tmp_path / "out").samples


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_a_first_frame_that_is_no_file_is_refused_without_waiting(kind, make_trainer, tmp_path):
    make_special(kind, tmp_path / "it")
    with pytest.raises(InputError, match=f"cannot be read as the first frame: is {kind}"):
        read_first_frame(tmp_path / "it", make_trainer().run, EchoVAE())


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
