"""Paths in calls from Python: those of the command line are in test_cli.py."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from vidlat import (
    CompareConfig,
    EncodeConfig,
    EvaluateConfig,
    FitVAEConfig,
    LatentBatches,
    SampleConfig,
    TrainConfig,
    compare_videos,
    decode_videos,
    encode_videos,
    evaluate_samples,
    evaluate_videos,
    fit_vae,
    open_cache,
    repair_cache,
    sample_videos,
    train_unet,
    verify_cache,
)
from vidlat.cli import commands
from vidlat.errors import ExitCode, InputError, VidlatError

URL = "s3://bucket/l.zarr"
TINY = EncodeConfig(vae="tiny", size=16)
CALLS = {
    "encode_videos, labels": lambda path: encode_videos(["v"], "l.zarr", TINY, labels=path),
    "compare_videos, input": lambda path: compare_videos([path], "out", CompareConfig()),
    "compare_videos, out": lambda path: compare_videos(["v"], path, CompareConfig()),
    "evaluate_samples, run": lambda path: evaluate_samples("l.zarr", "out", EvaluateConfig(), run=path),
    "evaluate_samples, samples": lambda path: evaluate_samples("l.zarr", "o", EvaluateConfig(), samples=path),
    "evaluate_samples, out": lambda path: evaluate_samples("l.zarr", path, EvaluateConfig(), run="run"),
    "sample_videos": lambda path: next(sample_videos(path, "out", SampleConfig())),
    "sample_videos, out": lambda path: next(sample_videos("run", path, SampleConfig())),
    "train_unet, labels": lambda path: train_unet("l.zarr", "run", TrainConfig(), labels=path),
    "fit_vae, input": lambda path: fit_vae([path], "run", FitVAEConfig(size=16)),
    "fit_vae, out": lambda path: fit_vae(["v"], path, FitVAEConfig(size=16)),
}
CACHES = {
    "encode_videos, out": lambda path: encode_videos(["v"], path, TINY),
    "open_cache": lambda path: open_cache(path),
    "verify_cache": lambda path: next(verify_cache(path)),
    "decode_videos": lambda path: decode_videos(path, "out"),
    "evaluate_videos": lambda path: evaluate_videos(path, ["v"]),
    "evaluate_samples": lambda path: evaluate_samples(path, "out", EvaluateConfig(), run="run"),
    "train_unet": lambda path: train_unet(path, "run", TrainConfig()),
    "LatentBatches": lambda path: LatentBatches(path, frames=4, batch=1, steps=1),
}
ALL = CALLS | CACHES | {"encode_videos, input": lambda path: encode_videos([path], "l.zarr", TINY)}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_url_is_refused_and_nothing_is_written(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{URL} is a URL; expected a path on this machine"):
        call(URL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_an_address_that_has_lost_a_slash_is_no_folder(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("s3:/bucket/l.zarr", Path(URL)):
        with pytest.raises(
            InputError, match=r"s3:/bucket/l.zarr has one slash after the colon; expected two"
        ):
            call(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", CACHES.values(), ids=CACHES)
def test_a_cache_is_read_at_no_other_address_than_a_store_or_web_server(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VidlatError, match=r"got ftp://; expected a folder, s3://, gs:// or az://, or https:"):
        call("ftp://host/l.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_is_repaired_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{URL}: is not in a folder; expected one to repair: `vidlat pull`"):
        next(repair_cache(URL))


@pytest.mark.parametrize("name", ["open_cache", "encode_videos, input", "decode_videos"])
def test_a_tilde_is_the_home_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(VidlatError, match=f"{tmp_path}/home/nothing"):
        ALL[name]("~/nothing")


@pytest.mark.parametrize("name", [name for name in CALLS if name.endswith(", out")])
def test_an_empty_path_is_not_the_current_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VidlatError, match="got an empty text; expected a path"):
        CALLS[name]("")
    assert not list(tmp_path.iterdir())


def test_an_empty_path_on_the_command_line_is_a_wrong_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(commands, ["sample", "--run", "run", "--out", ""])
    assert result.exit_code == ExitCode.WRONG_SETTINGS
    assert "'--out': got an empty text; expected a path" in result.stderr
