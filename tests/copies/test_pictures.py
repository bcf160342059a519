"""Samples beside the training clips that they are nearest to."""

import re
from dataclasses import replace
from functools import partial

import av
import numpy as np
import torch
from PIL import Image

from tests.copies.test_result import VIDEOS, smooth_posterior, window
from vidlat.copies import pictures
from vidlat.copies.pictures import PAIRS, SHEET, write_pairs
from vidlat.copies.result import find_copies


class GrayVAE:
    """Decodes to gray, and keeps the latents."""

    def __init__(self):
        self.decoded = []

    def decode(self, latents, num_frames):
        self.decoded.append(latents[0])
        return torch.full((1, 1, num_frames, 8, 8), 0.5)


def kept(labels, function, shown, *arguments, title=None, **options):
    """Call a function that draws, and keep what it was given to show."""
    labels[function.__name__] = shown, title
    return function(shown, *arguments, **options, **({"title": title} if title else {}))


def test_the_nearest_pairs_are_shown_as_they_are_in_the_cache(make_run, tmp_path, monkeypatch):
    run, cache = make_run(
        VIDEOS, frames=16, posterior=smooth_posterior, validation_fraction=0.3, latents_as="mean"
    )
    noise = torch.randn(run.latent_shape(), generator=torch.Generator().manual_seed(0))
    samples = {"new": noise, "old": window(run, cache, run.training[3], 5)}
    copies = find_copies({"all": samples}, run, cache)["all"]
    asked, vae = [], GrayVAE()

    def frames_of(name):
        asked.append(name)
        return np.zeros((16, 8, 8), np.uint8)

    labels = {}
    monkeypatch.setattr(pictures, "contact_sheet", partial(kept, labels, pictures.contact_sheet))
    monkeypatch.setattr(pictures, "side_by_side", partial(kept, labels, pictures.side_by_side))
    write_pairs("samples, 4 steps", copies, frames_of, cache, vae, tmp_path, 25.0)
    assert asked == ["old", "new"]
    record = cache.records()[run.training[3]]
    expected = cache.read_latents(record.video_id).mean[:, 5:9]
    np.testing.assert_array_equal(vae.decoded[0], expected.astype(np.float32))
    doubt = f"uncertain: only {len(run.validation)} held-out subjects set the threshold"
    threshold = f"suspect below {copies.threshold:.2f}, {doubt}"
    (rows, title), videos = labels["contact_sheet"], list(labels["side_by_side"][0])
    assert title == f"samples, 4 steps, each above the training clip nearest to it; {threshold}"
    assert rows[0].note == f"above: sample; below: {record.video_id} from frame 20"
    assert re.fullmatch(rf"samples, 4 steps: old, distance 0\.\d\d, suspect copy \({threshold}\)", videos[0])
    assert rows[0].label in videos[0]
    assert videos[1] == f"training clip nearest to old: {record.video_id} from frame 20"
    with Image.open(tmp_path / SHEET) as sheet:
        assert sheet.height > 2 * 128 * 2  # two rows of two
    with av.open(tmp_path / PAIRS) as video:
        frames = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    assert len(frames) == 16
    assert frames[0].shape[1] > 4 * 128


def test_of_too_few_held_out_subjects_the_pictures_call_nothing_suspect(make_run, tmp_path, monkeypatch):
    run, cache = make_run(
        VIDEOS, frames=16, posterior=smooth_posterior, validation_fraction=0.3, latents_as="mean"
    )
    few = replace(run, validation=run.validation[:1])
    copies = find_copies({"all": {"old": window(run, cache, run.training[3], 5)}}, few, cache)["all"]
    labels = {}
    monkeypatch.setattr(pictures, "contact_sheet", partial(kept, labels, pictures.contact_sheet))
    write_pairs("samples", copies, lambda _: np.zeros((16, 8, 8), np.uint8), cache, GrayVAE(), tmp_path, 25.0)
    rows, title = labels["contact_sheet"]
    assert re.fullmatch(r"old, distance 0\.\d\d", rows[0].label)
    assert "suspect copies: cannot be told: only 1 held-out subject sets the threshold" in title
