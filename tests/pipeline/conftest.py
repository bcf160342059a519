from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from tests.pipeline.ten_videos import LENGTHS, videos_in
from vidlat.config import EncodeConfig
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import prepare_encode
from vidlat.pipeline.executor import InProcessExecutor
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer
from vidlat.types import WHOLE
from vidlat.video.reader import read_prepared

SIZE = 16


@pytest.fixture(scope="session")
def prepare_only(small_vae):
    """prepare_only(folder, cache path): the work for a cache, nothing written; settings are EncodeConfig's.

    One thread everywhere: their number changes the last bit of a sum.
    """

    def prepare_only(folder, out, options=MappingProxyType({}), **settings):
        values = {"vae": str(small_vae), "size": SIZE, "batch": 3, "workers": 2, "device": "cpu"} | settings
        prepared = prepare_encode([str(folder)], EncodeConfig(**values), out, **options)
        return replace(prepared, job=replace(prepared.job, num_threads=1))

    return prepare_only


@pytest.fixture(scope="session")
def prepare(prepare_only):
    """Like prepare_only, and makes the cache."""

    def prepare(folder, out, *, retry_failed=False, **settings):
        prepared = prepare_only(folder, out, {"retry_failed": retry_failed}, **settings)
        with prepared.open_writer():
            pass
        return prepared

    return prepare


@pytest.fixture(scope="session")
def expected_latents():
    """The oracle: a whole video through FrozenVAE.encode at once, rounded as the cache stores it."""

    def expected(path, job):
        torch.set_num_threads(job.num_threads)
        frames = [frame.pixels for frame in read_prepared(path, WHOLE, job.settings)]
        mean, std = job.load_vae().encode(torch.from_numpy(np.stack(frames))[None, None])
        return mean[0].numpy().astype(np.float16), std[0].numpy().astype(np.float16)

    return expected


@pytest.fixture(scope="session")
def read_all():
    """Every latent and every timeless fact of a cache, to compare two of them bit for bit."""

    def read(path):
        cache = open_cache(path)
        content = {}
        for video_id, record in cache.records().items():
            posterior = cache.read_latents(video_id)
            facts = (
                record.num_frames,
                record.fps,
                record.latents.crc32c,
                record.latents.count,
                record.latents.sum_mean,
            )
            content[video_id] = posterior.mean.tobytes(), posterior.std.tobytes(), facts
        return content

    return read


@pytest.fixture(scope="session")
def videos(make_videos, tmp_path_factory):
    """A folder of ten videos and a file that is none."""
    folder = make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="session")
def undisturbed(videos, prepare, tmp_path_factory, read_all):
    """What a cache of them holds after an encode where nothing goes wrong."""
    path = tmp_path_factory.mktemp("quiet") / "l.zarr"
    prepared = prepare(videos, path, workers=1)
    with InProcessExecutor() as executor, open_writer(path, "test") as writer:
        events = list(run_encode(prepared.plan, prepared.job, writer, executor))
    assert videos_in(events, "records") == sorted(LENGTHS)
    assert videos_in(events, "failures") == ["broken.mp4"]
    return read_all(path)
