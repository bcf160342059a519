"""From sampled latents to frames."""

import numpy as np
import torch

from vidlat.sample.videos import decode_sample


class EchoVAE:
    """Keeps the latents it decodes, and decodes them to a constant video."""

    def decode(self, latents, num_frames):
        self.decoded = latents
        return torch.full((1, 1, num_frames, 3, 3), 0.4)


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
