"""A run on two labelled videos, with names that must not get out, and its exported folder."""

import pytest

from tests.encode.conftest import hub, use_hub
from vidlat.config import TrainConfig
from vidlat.export.run import export_run
from vidlat.sample.during_training import train_unet

__all__ = ["hub", "use_hub"]

SECRETS = "smith", "jones", "ward-7"
"""Of the videos, the subjects and the folder that a cache and a run have."""


@pytest.fixture(scope="session")
def made(tmp_path_factory, small_vae):
    """A run of a step, conditioned on two labels."""
    from tests.pipeline.one_thread import OneThread
    from vidlat.config import EncodeConfig
    from vidlat.pipeline.encode_videos import encode_videos
    from vidlat.video.writer import write_video

    folder = tmp_path_factory.mktemp("ward-7")
    import numpy as np

    (folder / "videos").mkdir()
    for seed, name in enumerate(("smith.mp4", "jones.mp4")):
        frames = np.random.default_rng(seed).integers(0, 256, (8, 16, 16), np.uint8)
        write_video(folder / "videos" / name, frames, 25)
    (folder / "labels.csv").write_text(
        "video_id,subject,view,age\nsmith.mp4,smith,a4c,40\njones.mp4,jones,a2c,50\n"
    )
    vae = folder / "vae.safetensors"
    vae.write_bytes(small_vae.read_bytes())
    settings = EncodeConfig(vae=str(vae), size=16, workers=1, device="cpu")
    encoding = encode_videos(
        [folder / "videos"], folder / "l.zarr", settings, labels=folder / "labels.csv", executor=OneThread()
    )
    list(encoding)
    training = TrainConfig(
        frames=8,
        batch=2,
        steps=1,
        device="cpu",
        validation_fraction=0.0,
        split_by_pattern="smith|jones",
        condition=("view", "age:float"),
    )
    list(train_unet(folder / "l.zarr", folder / "run", training))
    return folder


@pytest.fixture(scope="session")
def exported(made, tmp_path_factory):
    """The folder of its exported model."""
    folder = tmp_path_factory.mktemp("shared") / "model"
    export_run(made / "run", folder, licence="cc-by-4.0")
    return folder
