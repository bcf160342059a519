"""What tests of more than one room need: a VAE of MAISI's class in miniature, videos, one Dask cluster."""

import os
import shutil
import signal
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import settings

# The processes that tests start import test helpers too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
)

# Most of the time of the tests of the store would be that of a disk, which syncs every file.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4e9:
    tempfile.tempdir = os.environ.setdefault("TMPDIR", str(MEMORY))

# No deadlines: how long an example takes says more about the machine than about the code.
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=300)  # make test-all
settings.load_profile("quick")


# Before the first product on a GPU: there, deterministic algorithms ask for it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

SLOW_SECONDS = 3600
"""A slow test may take this long; a machine that does other things beside it is several times slower."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        require_gpu()
    if item.get_closest_marker("browser"):
        require_browser()


def require_gpu():
    """Skip a test where there is no GPU, or fail it where VIDLAT_REQUIRE_GPU=1 promises one."""
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("VIDLAT_REQUIRE_GPU") == "1":
        pytest.fail("VIDLAT_REQUIRE_GPU=1, but PyTorch finds no GPU", pytrace=False)
    pytest.skip("needs a GPU")


def require_browser():
    """The path of Chromium; skips a test where there is none, or fails it where VIDLAT_REQUIRE_BROWSER=1."""
    if path := shutil.which("chromium"):
        return path
    if os.environ.get("VIDLAT_REQUIRE_BROWSER") == "1":
        pytest.fail("VIDLAT_REQUIRE_BROWSER=1, but there is no chromium", pytrace=False)
    return pytest.skip("needs Chromium")


@pytest.fixture(scope="session")
def small_vae(tmp_path_factory):
    """The weights file of a random network of some thousand parameters, in every way like a real one."""
    import torch

    from vidlat.encode.network import MAISI_NETWORK, build_network
    from vidlat.encode.weights_file import write_weights

    settings = {
        **MAISI_NETWORK,
        "num_channels": [4, 8, 8],
        "num_res_blocks": [1, 1, 1],
        "norm_num_groups": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(settings)
    path = tmp_path_factory.mktemp("vae") / "small.safetensors"
    write_weights(path, network.state_dict(), settings)
    return path


@pytest.fixture(scope="session")
def other_decoder(small_vae, tmp_path_factory):
    """The weights file of `small_vae` with another decoder."""
    import torch

    from vidlat.encode.weights_file import load_network, write_weights

    network, settings = load_network(small_vae)
    with torch.no_grad():
        network.decoder.blocks[-1].conv.conv.bias += 0.25
    path = tmp_path_factory.mktemp("vae") / "other-decoder.safetensors"
    write_weights(path, network.state_dict(), settings)
    return path


@pytest.fixture(scope="session")
def kl_folder(tmp_path_factory):
    """The folder of a random AutoencoderKL of diffusers that halves height and width; its licence is MIT."""
    import torch
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderKL(block_out_channels=[4, 8], norm_num_groups=2, **blocks)
    path = tmp_path_factory.mktemp("vae") / "kl"
    network.save_pretrained(path)
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    return path


@pytest.fixture(scope="session")
def make_videos():
    """make_videos(folder, {"a.mp4": 5}) writes noise of that many frames; the name is the seed."""
    import numpy as np

    from vidlat.video.writer import write_video

    def make(folder: Path, lengths, fps=25, height=20, width=24):
        for name, num_frames in lengths.items():
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            coarse = rng.integers(0, 256, (num_frames, height // 4, width // 4), np.uint8)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, coarse.repeat(4, 1).repeat(4, 2), fps)
        return folder

    return make


@pytest.fixture
def cpu_with_bfloat16(monkeypatch):
    """A CPU that computes with bfloat16, whatever this one is: slow here and there, and no less right."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": True})


@pytest.fixture
def cpu_without_bfloat16(monkeypatch):
    """A CPU without it, whatever this one is."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})


@pytest.fixture
def signals_as_in_a_terminal():
    """SIGINT is ignored where the tests run in the background of a script."""
    others = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    defaults = {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(others, signal.SIG_DFL)}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def few_validation_windows():
    """Trainings validate on 8 windows instead of 64 and are timed by one step; for marks of modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidlat.train.trainer.NUM_VALIDATION_WINDOWS", 8)
        patch.setattr("vidlat.train.trainer.ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def short_measurements():
    """Dry runs in this process time the VAE by one call; for marks of modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidlat.pipeline.measure.SECONDS_ENCODED", 0.0)
        yield


@pytest.fixture(scope="module")
def scheduler():
    """The address of a Dask scheduler whose worker is this process, which has loaded torch already.

    It ends with the module: its threads use `random`, which Hypothesis does not allow meanwhile.
    """
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def encode_here(small_vae):
    """encode_here(folder, cache path): `vidlat encode` of 16 x 16 pixels in this process, on one thread."""
    from tests.pipeline.one_thread import OneThread
    from vidlat.config import EncodeConfig
    from vidlat.pipeline.encode_videos import encode_videos

    def encode(folder, out, **settings):
        values = {"vae": str(small_vae), "size": 16, "batch": 3, "workers": 2, "device": "cpu"} | settings
        list(encode_videos([folder], out, EncodeConfig(**values), executor=OneThread()))
        return out

    return encode
