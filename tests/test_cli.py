"""Commands as a user types them: exit codes, one clear line, never a traceback."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.test_files import make_special
from tests.train.toys import CacheMaker
from vidlat import commands as commands_package
from vidlat.cli import commands
from vidlat.commands import display
from vidlat.commands.settings_file import load_yaml
from vidlat.config import EncodeConfig, TrainConfig
from vidlat.errors import TrainError
from vidlat.fit.optimisation import FitOptimisation
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.task import encode_batch
from vidlat.store.layout import shard_file
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import create_cache
from vidlat.train.optimisation import Optimisation

pytestmark = pytest.mark.usefixtures("few_validation_windows", "short_measurements")

CONFIGS = Path(__file__).parents[1] / "configs"
LENGTHS = {"a.mp4": 5, "b.mp4": 9, "deep/c.mp4": 16}


def vidlat(*arguments):
    """Exit code, standard output, standard error."""
    answer = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


ESCAPES, SHOWN = "red\x1b[31m\x9b2J\x07\u202e", r"red\x1b[31m\x9b2J\x07\u202e"
"""A name that would colour and clear a terminal, ring its bell and turn its text around."""


def is_one_line(stderr):
    return stderr.startswith("Error: ") and stderr.count("\n") == 1


@pytest.fixture(scope="module")
def encode(scheduler, small_vae):
    """`vidlat encode` on the cluster of the tests, with the small VAE."""

    def encode(folder, out, *more):
        fixed = ("--vae", small_vae, "--size", 16, "--batch", 3, "--scheduler", scheduler, "--device", "cpu")
        return vidlat("encode", "--input", folder, "--out", out, *fixed, *more)

    return encode


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture(scope="module")
def cache(encode, videos, tmp_path_factory):
    """A cache of the videos; no test writes to it."""
    path = tmp_path_factory.mktemp("cache") / "l.zarr"
    code, out, err = encode(videos, path)
    assert (code, err) == (0, "")
    assert f"3 videos, {sum(LENGTHS.values())} frames" in out
    return path


@pytest.fixture
def no_cluster(monkeypatch):
    """Makes starting a cluster an error: a refusal comes before any work."""

    def connect(*_):
        raise AssertionError("work was started")

    monkeypatch.setattr("vidlat.pipeline.encode_videos.open_dask_executor", connect)


def test_second_encode_says_that_there_is_nothing_to_do(cache, encode, videos, no_cluster):
    code, out, _ = encode(videos, cache)
    assert code == 0
    assert "Nothing to do: 3 videos are already in" in out


def test_failed_videos_are_named_with_their_reason_and_the_others_encoded(encode, make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {"good.mp4": 4})
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "broken.avi").write_text("no video")
    code, out, _ = encode(folder, tmp_path / "l.zarr")
    assert code == 3
    assert "2 videos failed" in out
    assert "is an empty file" in out
    assert "broken.avi" in out
    assert list(open_cache(tmp_path / "l.zarr").records()) == ["good.mp4"]

    code, out, _ = encode(folder, tmp_path / "l.zarr")
    assert code == 3
    assert "Nothing to do" in out
    assert "--retry-failed" in out
    assert "is an empty file" in out

    make_videos(folder, {"empty.mp4": 4})
    (folder / "broken.avi").unlink()
    code, out, _ = encode(folder, tmp_path / "l.zarr", "--retry-failed")
    assert code == 0
    assert "1 video," in out
    assert list(open_cache(tmp_path / "l.zarr").failures()) == ["broken.avi"]


def test_input_without_a_readable_video_is_refused_with_the_reasons(encode, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "empty.mp4").write_bytes(b"")
    for _ in range(2):
        code, out, err = encode(tmp_path / "v", tmp_path / "l.zarr")
        assert code == 1
        assert "is an empty file" in out
        assert is_one_line(err)
        assert "no readable video" in err


def test_info_shows_the_contents_and_settings(cache):
    code, out, _ = vidlat("info", cache)
    assert code == 0
    assert f"3 ({sum(LENGTHS.values())} frames" in out
    assert "size 16, fit crop, crop none" in out
    assert "stack 4, encoded in float32" in out
    assert "4 x 4 x 4" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "--input", "missing", "--out", "l.zarr"], "missing: no such file or folder"),
        (["encode", "--input", "texts", "--out", "l.zarr"], "no video in texts"),
        (["encode", "--input", "VIDEOS", "--out", "l.zarr", "--vae", "nowhere.pt"], "no weights file"),
        (
            ["encode", "--input", "VIDEOS", "--out", "l.zarr", "--vae", "texts/a.txt"],
            "cannot be read as weights",
        ),
        (["encode", "--input", "VIDEOS", "--out", "texts", "--vae", "VAE", "--size", "16"], "texts"),
        (
            ["encode", "--input", "VIDEOS", "--out", "CACHE", "--vae", "VAE", "--size", "32"],
            "size: cache has 16",
        ),
        (["info", "texts"], "texts"),
        (["info", "missing"], "missing"),
        (["train", "--latents", "texts", "--out", "run"], "texts"),
        (["train", "--latents", "EMPTY", "--out", "run"], "holds no video"),
        (["sample", "--run", "texts", "--out", "s"], "texts"),
        (["decode", "--latents", "missing", "--out", "d"], "missing"),
        (["decode", "--latents", "CACHE", "--out", "texts/a.txt"], "give another --out"),
        (["decode", "--latents", "CACHE", "--out", "d", "--vae", "tiny"], "another encoder"),
        (["evaluate", "--latents", "missing", "--input", "VIDEOS"], "missing"),
        (["evaluate", "--latents", "EMPTY", "--input", "VIDEOS"], "none of the cached videos"),
        (["evaluate", "--latents", "CACHE", "--input", "VIDEOS/deep"], "none of the cached videos"),
        (["weights", "check", "nowhere.pt"], "no weights file"),
        (["fit-vae", "--input", "missing", "--out", "run"], "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_requests_are_refused_with_exit_code_1_and_one_line(
    arguments, message, cache, videos, small_vae, prepare_empty, tmp_path, monkeypatch, no_cluster
):
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("no video")
    names = {"VIDEOS": videos, "CACHE": cache, "VAE": small_vae, "EMPTY": prepare_empty}
    for name, path in names.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    code, _, err = vidlat(*arguments)
    assert code == 1
    assert is_one_line(err), err
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


@pytest.fixture
def prepare_empty(cache, tmp_path_factory):
    """A cache that no video was committed to."""
    from vidlat.store.writing.opening import create_cache

    path = tmp_path_factory.mktemp("empty") / "empty.zarr"
    create_cache(path, open_cache(cache).schema)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "--input", "v"], "--out"),
        (["encode", "--input", "v", "--out", "l.zarr", "--nonsense", "1"], "--nonsense"),
        (["encode", "--input", "v", "--out", "l.zarr", "--size", "big"], "big"),
        (["encode", "--input", "v", "--out", "l.zarr", "--size", "0"], "at least 1"),
        (["encode", "--input", "v", "--out", "l.zarr", "--fit", "squeeze"], "squeeze"),
        (["train", "--latents", "l.zarr", "--out", "run", "--objective", "gan"], "gan"),
        (["sample", "--run", "r", "--out", "s", "-n", "0"], "num: got 0"),
        (["fit-vae", "--input", __file__, "--out", "vae.safetensors"], "expected a folder"),
        (["preview", "l.zarr", "--out", "p.txt"], "--out p.txt: is written as .png"),
        (["evaluate", "--latents", "l.zarr", "--input", "v", "--json", "v/a.mp4"], "is written as .json"),
        (["compare", "--input", "v", "--out", "o", "--json", "v/a.mp4"], "--json v/a.mp4: is written as"),
        (["compare", "--input", "v", "--out", "o", "--report", "v/a.mp4"], "--report v/a.mp4: is written as"),
        (["report", "l.zarr", "--out", "v/a.mp4"], "--out v/a.mp4: is written as .html"),
        (["nonsense"], "nonsense"),
        (["encod", "--input", "v"], "Did you mean one of: 'decode', 'encode'?"),
        (["train", "--lr", "1e-4"], "no such option: --lr; did you mean --learning-rate?"),
        (["train", "--objective", "flwo"], "expected one of flow, mean-flow, v, epsilon; did you mean flow?"),
        (["compare", "--input", ".", "--out", "o", "--blend", "avrage"], "center; did you mean average?"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_wrong_flags_are_refused_with_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = vidlat(*arguments)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encode: {sizes: 3}", "unknown setting sizes"),
        ("encode: {1: 3}", "unknown setting 1"),
        ("encode: {size: large}", "size: got 'large'"),
        ("encode: {size: }", "size: got None"),
        ("train: {steps: 3}", "no section `encode:`"),
        ("encode: [size]", "no section `encode:`"),
        ("encode: {size: 3", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_invalid_yaml_is_refused_with_exit_code_2(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    code, _, err = vidlat("encode", "--config", tmp_path / "c.yaml", "--input", "v", "--out", tmp_path / "l")
    assert code == 2
    assert is_one_line(err)
    assert message in err


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "--input", "VIDEOS", "--out", "l.zarr", "--config", "IT"],
        ["encode", "--input", "VIDEOS", "--out", "l.zarr", "--vae", "VAE", "--size", "16", "--labels", "IT"],
        ["encode", "--input", "VIDEOS", "--out", "l.zarr", "--vae", "IT"],
        ["train", "--latents", "CACHE", "--out", "r", "--config", "IT"],
        ["train", "--latents", "CACHE", "--out", "r", "--labels", "IT"],
        ["decode", "--latents", "CACHE", "--out", "d", "--vae", "IT"],
        ["weights", "check", "IT"],
        ["fit-vae", "--input", "VIDEOS", "--out", "r", "--init", "IT"],
        ["sample", "--run", "RUN", "--out", "s"],
    ],
    ids=" ".join,
)
def test_what_is_no_file_is_refused_without_waiting(
    kind, arguments, cache, videos, small_vae, tmp_path, monkeypatch, no_cluster
):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    path = Path("run/config.json") if "RUN" in arguments else Path("it")
    make_special(kind, path)
    names = {"VIDEOS": videos, "CACHE": cache, "VAE": small_vae, "IT": "it", "RUN": "run"}
    code, _, err = vidlat(*(names.get(argument, argument) for argument in arguments))
    assert code in (1, 2)
    assert is_one_line(err), err
    assert f"{path}" in err
    assert re.search(f"is {kind}[;,] .*expected", err), err


def test_flags_take_precedence_over_yaml(tmp_path, videos, small_vae, no_cluster, monkeypatch):
    from vidlat.pipeline.encode_videos import _describe_cache as real

    (tmp_path / "c.yaml").write_text(f"encode: {{vae: {small_vae}, size: 15, fit: stretch}}")
    arguments = ["--config", tmp_path / "c.yaml", "--input", videos, "--out", tmp_path / "l.zarr"]
    code, _, err = vidlat("encode", *arguments)
    assert code == 2
    assert "size: got 15" in err
    schemas = []
    monkeypatch.setattr(
        "vidlat.pipeline.encode_videos._describe_cache", lambda *a: schemas.append(real(*a)) or schemas[0]
    )
    with pytest.raises(AssertionError, match="work was started"):
        vidlat("encode", *arguments, "--size", 8)
    assert (schemas[0].settings.size, schemas[0].settings.fit) == (8, "stretch")
    assert not (tmp_path / "l.zarr").exists()  # where no cluster can be had, no cache is left behind


@pytest.mark.parametrize(
    ("yaml", "flags", "steps", "epochs"),
    [
        ("{epochs: 2}", ["--steps", 3], 3, None),
        ("{steps: 3}", ["--epochs", 2], None, 2.0),
        ("{epochs: 2}", ["--epochs", 4], None, 4.0),
        ("{epochs: 2.5}", ["--batch", 1], None, 2.5),
    ],
)
def test_a_flag_takes_precedence_over_what_yaml_says_in_another_way(
    tmp_path, monkeypatch, yaml, flags, steps, epochs
):
    def trainer(inputs, out, config, **_):
        raise TrainError(f"trains {config.steps} steps or {config.epochs} epochs")

    monkeypatch.setattr("vidlat.commands.fit_vae.VAETrainer", trainer)
    (tmp_path / "c.yaml").write_text(f"fit-vae: {yaml}")
    command = ("fit-vae", "--input", tmp_path, "--out", tmp_path / "r", "--config", tmp_path / "c.yaml")
    assert f"trains {steps} steps or {epochs} epochs" in vidlat(*command, *flags)[2]


def test_what_says_the_same_twice_in_one_place_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("fit-vae: {epochs: 2, steps: 3}")
    command = ("fit-vae", "--input", "v", "--out", tmp_path / "r")
    for flags in (["--config", tmp_path / "c.yaml", "--steps", 3], ["--epochs", 2, "--steps", 3]):
        code, _, err = vidlat(*command, *flags)
        assert (code, is_one_line(err)) == (2, True)
        assert "epochs: another way to say --steps; give one of them" in err


@pytest.mark.parametrize(
    ("command", "flag", "shown"),
    [
        ("encode", "--keepbits", "[default: 10; at least 1 and at most 10]"),
        ("encode", "--vae", "else the VAE of the cache at --out, for a new one maisi"),
        ("train", "--ema-decay", "[default: 0.999; at least 0 and less than 1]"),
        ("sample", "--seed", "[default: 0; at least 0 and less than 2**63]"),
        ("fit-vae", "--learning-rate", "else 1e-3, with recipe maisi 1e-4 [more than 0]"),
        ("train", "--checkpoint-activations", "[default: no]"),
        ("compare", "--stack", "[default: 4; at least 1 and at most 100000]"),
        ("compare", "--vae", "be repeated [default: maisi]"),
    ],
)
def test_help_shows_the_default_and_the_limits_of_a_setting(command, flag, shown):
    code, out, _ = vidlat(command, "--help")
    assert code == 0
    (text,) = re.findall(rf"^  {flag}\b.*?(?=^  -|^\S|\Z)", out, re.MULTILINE | re.DOTALL)
    assert " ".join(text.split()).endswith(shown)


def parts_of_help(command):
    """The flags of each part of a command's help, from what it prints."""
    _, out, _ = vidlat(command, "--help")
    titles = re.split(r"^([A-Z][a-z]+):$", out, flags=re.MULTILINE)[1:]
    parts = dict(zip(titles[::2], titles[1::2], strict=True))
    return {
        title: re.findall(r"^  (?:[-\w]+, )?(--[\w-]+)", text, re.MULTILINE) for title, text in parts.items()
    }


@pytest.mark.parametrize("command", ["encode", "train", "sample", "evaluate", "compare", "fit-vae"])
def test_help_begins_with_what_a_newcomer_needs_and_lists_every_option_in_one_part(command):
    parts = parts_of_help(command)
    title, basic = next(iter(parts.items()))
    assert title == "Basic"
    declared = [param for param in commands.commands[command].params if isinstance(param, click.Option)]
    assert {param.opts[0] for param in declared if param.required} <= set(basic)
    assert len(basic) <= 12
    listed = [flag for flags in parts.values() for flag in flags]
    flags = [next(opt for opt in param.opts if opt.startswith("--")) for param in declared]
    assert sorted(listed) == sorted([*flags, "--help"])


def test_help_of_train_is_in_parts():
    parts = parts_of_help("train")
    assert set(parts) > {"Conditioning", "Split", "Network", "Performance"}
    assert "--condition-dropout" in parts["Conditioning"]
    assert "--split-by" in parts["Split"]
    assert "--heads" in parts["Network"]
    assert {"--device", "--cache-dir"} <= set(parts["Performance"])


def test_every_shipped_configuration_parses():
    files = list(CONFIGS.glob("*.yaml"))
    assert files
    for file in files:
        encode = EncodeConfig.from_mapping(load_yaml(file, "encode"))
        TrainConfig.from_mapping(load_yaml(file, "train"))
        assert encode.vae == "maisi"


def test_full_disk_ends_in_one_line(cache, monkeypatch):
    def full(path):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr("vidlat.commands.info.summarise", full)
    code, _, err = vidlat("info", cache)
    assert code == 1
    assert is_one_line(err)
    assert "No space left" in err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 32.0 GiB for an array"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: \nyou"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch.so: failed to map segment from shared object"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("vidlat.commands.train.open_cache", ["train", "--latents", "CACHE", "--out", "r"]),
        ("vidlat.commands.decode.open_cache", ["decode", "--latents", "CACHE", "--out", "d"]),
        ("vidlat.commands.sample.sample_videos", ["sample", "--run", "RUN", "--out", "s"]),
        ("vidlat.commands.info.summarise", ["info", "CACHE"]),
    ],
    ids=["train", "decode", "sample", "info"],
)
def test_lack_of_memory_ends_in_one_line(error, body, arguments, cache, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(body, fails)
    (tmp_path / "config.json").touch()
    names = {"CACHE": cache, "RUN": tmp_path}
    code, _, err = vidlat(*(names.get(argument, argument) for argument in arguments))
    assert code == 1
    assert is_one_line(err)
    assert err.startswith("Error: not enough memory (")


def test_other_errors_keep_their_traceback(cache, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr("vidlat.commands.info.summarise", fails)
    assert isinstance(CliRunner().invoke(commands, ["info", str(cache)]).exception, RuntimeError)


def test_interruption_ends_with_130_and_one_word(cache, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("vidlat.commands.info.summarise", interrupted)
    assert vidlat("info", cache) == (130, "", "Interrupted.\n")


def test_an_interrupted_decode_says_how_much_is_written(cache, tmp_path, monkeypatch):
    def interrupted(_, out, **__):
        yield "a.mp4", out / "a.mp4"
        yield "b.mp4", ValueError("is damaged")
        raise KeyboardInterrupt

    monkeypatch.setattr("vidlat.commands.decode.decode_videos", interrupted)
    code, out, err = vidlat("decode", "--latents", cache, "--out", tmp_path / "d")
    assert (code, err) == (130, "Interrupted.\n")
    assert "1 of 3 videos written; the same command continues" in out


def test_decode_writes_every_video(cache, tmp_path):
    code, out, _ = vidlat("decode", "--latents", cache, "--out", tmp_path / "d")
    assert code == 0
    assert "3 videos" in out
    found = discover_videos([str(tmp_path / "d")]).videos
    assert [source.video_id for source in found] == list(LENGTHS)


def test_evaluate_prints_and_writes_the_same_figures(cache, videos, tmp_path):
    code, out, _ = vidlat("evaluate", "--latents", cache, "--input", videos, "--json", tmp_path / "q.json")
    assert code == 0
    figures = json.loads((tmp_path / "q.json").read_text())
    assert sorted(figures["overall"]) == ["averaging", "pca", "vae"]
    assert [video["vae"]["video_id"] for video in figures["videos"]] == list(LENGTHS)
    assert f"{figures['overall']['vae']['psnr']:.2f}" in out
    assert f"{figures['overall']['vae']['motion']['energy_inside']:.2f}" in out
    assert "of the energy of the motion survives" in out
    some = ("--max-videos", 2, "--json", tmp_path / "2.json")
    assert vidlat("evaluate", "--latents", cache, "--input", videos, *some)[0] == 0
    fewer = json.loads((tmp_path / "2.json").read_text())
    ids = list(LENGTHS)
    assert [video["vae"]["video_id"] for video in fewer["videos"]] == [ids[0], ids[-1]]
    assert fewer["videos"][0]["vae"] == figures["videos"][0]["vae"]
    assert "does not hold" in out  # a random VAE meets no criterion


def test_evaluate_names_a_source_that_has_changed(cache, videos, make_videos, tmp_path):
    make_videos(tmp_path, LENGTHS | {"b.mp4": 6})
    code, out, _ = vidlat("evaluate", "--latents", cache, "--input", tmp_path, "--json", tmp_path / "q.json")
    assert code == 3
    assert "b.mp4" in out
    assert "no longer has the 9 frames" in out
    figures = json.loads((tmp_path / "q.json").read_text())
    assert [video["vae"]["video_id"] for video in figures["videos"]] == sorted(LENGTHS.keys() - {"b.mp4"})
    (tmp_path / "b.mp4").write_bytes(b"")
    code, out, _ = vidlat("evaluate", "--latents", cache, "--input", tmp_path)
    assert code == 3
    assert "is an empty file" in out
    code, _, err = vidlat("evaluate", "--latents", cache, "--input", tmp_path / "b.mp4")
    assert code == 1
    assert re.search(r"no cached video can be compared: .*b\.mp4: is an empty file", err)


@pytest.mark.parametrize(
    ("flags", "yaml", "named"),
    [
        (["--learning-rate", "0"], "{}", "--learning-rate: got 0.0; expected"),
        (["--objective", "flow"], "{learning_rate: 0}", "c.yaml: learning_rate: got 0; expected"),
        (["--min-snr", "5"], "{objective: flow}", "--min-snr: weights v and epsilon only"),
        (["--split-by", "site"], "{steps: 1}", "--split-by: "),
        (
            ["--plain-flow", "0.75"],
            "{steps: 1}",
            "--plain-flow: has no effect with objective flow; give --ob",
        ),
        (["--objective", "flow"], "{plain_flow: 0.75}", "Error: plain_flow: has no effect"),
        (["--vae", "tiny"], "{steps: 1}", "--vae: has no effect where no samples are drawn; give a --sample"),
    ],
)
def test_wrong_setting_is_named_as_it_was_given(cache, tmp_path, flags, yaml, named):
    (tmp_path / "c.yaml").write_text(f"train: {yaml}")
    train = ("train", "--latents", cache, "--out", tmp_path / "r", "--config", tmp_path / "c.yaml")
    code, _, err = vidlat(*train, *flags)
    assert code in (1, 2)
    assert is_one_line(err)
    assert named in err


def test_evaluate_names_each_video_that_it_cannot_compare(encode, make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {"damaged.mp4": 4})
    assert encode(folder, tmp_path / "l.zarr")[0] == 0  # into a shard of its own
    make_videos(folder, {"empty.mp4": 4, "gone.mp4": 4, "whole.mp4": 4})
    assert encode(folder, tmp_path / "l.zarr")[0] == 0
    (tmp_path / "l.zarr" / shard_file("mean", 0)).write_bytes(b"no shard")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "gone.mp4").unlink()
    code, out, _ = vidlat("evaluate", "--latents", tmp_path / "l.zarr", "--input", folder)
    assert code == 3
    assert "3/3" in out  # one has no source
    assert "3 videos not compared" in out
    for name, reason in (
        ("damaged.mp4", "latents are damaged"),
        ("empty.mp4", "is an empty file"),
        ("gone.mp4", "its source is not among --input"),
    ):
        assert re.search(rf"{name} .*{reason}", out)


def test_weights_check_counts_the_tensors(small_vae):
    code, out, _ = vidlat("weights", "check", small_vae)
    assert code == 0
    assert "tensors present" in out


def start_encode(folder, out, vae):
    # It hears Ctrl-C as from a terminal, whoever runs the tests.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from vidlat.cli import main; main()"
    flags = f"--size 64 --batch 1 --workers 2 --device cpu --vae {vae}".split()
    return subprocess.Popen(
        [sys.executable, "-c", code, "encode", "--input", str(folder), "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as from a terminal: the signal goes to the workers too
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_encode_leaves_a_cache_that_opens_and_resumes(way, make_videos, small_vae, tmp_path):
    folder = make_videos(tmp_path / "v", {f"{n:02d}.mp4": 24 for n in range(24)}, height=64, width=64)
    path = tmp_path / "l.zarr"
    encode = start_encode(folder, path, small_vae)
    while not (path.exists() and open_cache(path).records()):  # the first videos are committed
        assert encode.poll() is None, encode.communicate()
        time.sleep(0.05)
    os.killpg(encode.pid, way)
    out, err = encode.communicate(timeout=60)
    if way == signal.SIGINT:
        assert encode.returncode == 130
        assert "Traceback" not in err + out, err
        assert err.strip().endswith("Interrupted.")
        assert "are finished and safe; the same command continues" in " ".join(out.split())
    done = set(open_cache(path).records())
    assert 0 < len(done) < 24

    again = start_encode(folder, path, small_vae)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert f"{24 - len(done)} videos to encode, {len(done)} already done" in " ".join(out.split())
    assert "Traceback" not in err
    records = open_cache(path).records()
    assert len(records) == 24
    assert {record.latents.crc32c for record in records.values()} == fresh_checksums(folder, small_vae)


def fresh_checksums(folder, vae):
    """Checksums of the same videos, encoded without interruption in this process."""
    from vidlat.pipeline.encode_videos import prepare_encode

    settings = {"vae": str(vae), "size": 64, "batch": 1, "workers": 2, "device": "cpu"}
    prepared = prepare_encode([str(folder)], EncodeConfig(**settings), folder.parent / "fresh.zarr")
    checksums = set()
    for batch in prepared.plan.batches:
        checksums |= {
            v.record.latents.crc32c for v in encode_batch(batch, prepared.job, scratch_parent=folder).videos
        }
    return checksums


@pytest.mark.parametrize(
    "name", ["scan[apical].mp4", "d[/fail].mp4", ":heart:.mp4", "line\nbreak.mp4", f"{ESCAPES}.mp4"]
)
def test_names_are_shown_as_they_are(name, encode, make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {name: 4})
    (folder / f"{name}.none.mp4").write_bytes(b"")
    shown = name.replace("\n", "\\n").replace(ESCAPES, SHOWN)
    code, out, _ = encode(folder, tmp_path / "l.zarr")
    assert code == 3
    assert f"{shown}.none.mp4" in out
    assert f"1: {shown}.none.mp4" in vidlat("info", tmp_path / "l.zarr")[1]
    code, out, _ = vidlat("evaluate", "--latents", tmp_path / "l.zarr", "--input", folder)
    assert (code, shown in out) == (0, True)
    code, out, _ = vidlat("decode", "--latents", tmp_path / "l.zarr", "--out", tmp_path / name)
    assert code == 0
    assert "1 video -> " in out


def test_escapes_in_the_name_and_licence_of_a_vae_are_shown(tmp_path):
    schema = replace(CacheMaker(tmp_path / "other.zarr").schema, vae_name=ESCAPES, vae_licence=ESCAPES)
    create_cache(tmp_path / "l.zarr", schema)
    code, out, _ = vidlat("info", tmp_path / "l.zarr")
    assert (code, out.count(SHOWN), "\x1b" in out) == (0, 2, False)


def test_escapes_in_an_error_are_shown_whatever_file_they_come_from(tmp_path):
    save_file({ESCAPES: torch.zeros(1)}, tmp_path / "w.safetensors")
    (tmp_path / "keys.yaml").write_text(f'train: {{"{ESCAPES!r}": 1}}'.replace("'", ""))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": {ESCAPES: 1}}))
    for arguments in (
        ("weights", "check", tmp_path / "w.safetensors"),
        ("train", "--latents", "l", "--out", "r", "--config", tmp_path / "keys.yaml"),
        ("sample", "--run", tmp_path / "run", "--out", tmp_path / "s"),
        ("info", tmp_path / ESCAPES),
        ("info", "l.zarr", f"--{ESCAPES}"),
        ("info", "l.zarr", ESCAPES),
    ):
        code, _, err = vidlat(*arguments)
        assert code != 0
        assert SHOWN in err
        assert "\x1b" not in err


def test_a_progress_bar_shows_names_without_escapes(capsys):
    with display.progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task(ESCAPES, total=2, name="")
        progress.update(task, advance=1, name=ESCAPES)
    out = capsys.readouterr().out
    assert SHOWN in out
    assert "\x9b" not in out


def test_a_printed_command_can_be_copied_whatever_the_path(encode, make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {"a.mp4": 4, "b.mp4": 4})
    out = tmp_path / "new place #1's.zarr"
    assert encode(folder, out)[0] == 0
    (folder / "a.mp4").unlink()
    (folder / "c.mp4").write_bytes(b"no video")
    code, said, _ = encode(folder, out)
    printed = re.findall("`(vidlat [^`]*)`", said)
    assert code == 3
    assert [shlex.split(command)[:3] for command in printed] == [
        ["vidlat", "prune", str(out)],
        ["vidlat", "ls", str(out)],
    ]


def test_nothing_is_printed_past_the_filter():
    """Every print of a command is in display.py, or of an error, in declaration.py."""
    for path in Path(commands_package.__file__).parent.glob("*.py"):
        if path.name not in ("display.py", "declaration.py"):
            assert not re.search(r"click\.s?echo|(?<!\.)\bprint\(|sys\.std", path.read_text()), path


def test_tables_align_text_left_and_numbers_right(capsys, monkeypatch):
    monkeypatch.setattr(display.console, "width", 80)
    display.print_table(
        "t", ("name", "reason", "dB"), [("a", "b", "-"), ("long name", "long reason", "12.50")]
    )
    row = next(line for line in capsys.readouterr().out.splitlines() if " b " in line)
    assert row == "│ a         │ b           │     - │"


@pytest.mark.parametrize("size", [63, 2])
def test_fit_vae_refuses_a_size_before_a_video_is_read(size, videos, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlat.video.reader.open_video", None)
    code, out, err = vidlat("fit-vae", "--input", videos, "--out", tmp_path / "run", "--size", size)
    assert (code, out) == (2, "")
    assert f"size: got {size}; expected a multiple of 4" in err


@pytest.mark.parametrize(
    "command",
    [
        ["fit-vae", "--input", "VIDEOS", "--out", "file/run"],
        ["evaluate", "--latents", "CACHE", "--input", "VIDEOS", "--json", "file/q.json"],
        ["evaluate", "--latents", "CACHE", "--input", "VIDEOS", "--json", "d.json"],
        ["decode", "--latents", "CACHE", "--out", "file/d"],
    ],
    ids=" ".join,
)
def test_outputs_that_cannot_be_written_are_refused_before_any_work(
    command, cache, videos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("d.json").mkdir()
    for name in ("vidlat.video.reader.open_video", "vidlat.encode.vae.FrozenVAE.decode"):
        monkeypatch.setattr(name, None)
    names = {"VIDEOS": str(videos), "CACHE": str(cache)}
    code, out, err = vidlat(*(names.get(argument, argument) for argument in command))
    assert (code, out) == (1, "")
    assert is_one_line(err)
    assert re.search(r"(give|choose) another --(out|json)", err)


def test_fit_vae_counts_only_videos_that_gave_stacks(make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {"good.mp4": 8, "short.mp4": 3})
    (folder / "empty.mp4").write_bytes(b"")
    flags = ("--size", 16, "--steps", 1, "--batch", 1, "--device", "cpu", "--validation-fraction", 0)
    code, out, _ = vidlat("fit-vae", "--input", folder, "--out", tmp_path / "new" / "run", *flags)
    assert code == 0
    assert "empty.mp4: " in out
    assert "2 stacks of 4 frames from 1 video, 0 clips to validate; a VAE with 0.9 M parameters on cpu" in out
    assert "Note: no video is validated" in out
    assert f"1 step -> {tmp_path}/new/run; weights for --vae: " in out


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_train_ends_within_a_validation_when_interrupted_and_does_it_again(cache, tmp_path, monkeypatch):
    compute, num_computed = Optimisation.validation_error, []

    def compute_with_ctrl_c(optimisation, noised):
        num_computed.append(1)
        if optimisation.state.step == 2:
            signal.raise_signal(signal.SIGINT)
        return compute(optimisation, noised)

    command = ["train", "--latents", cache, "--out", tmp_path / "r"]
    flags = ["--steps", 2, "--batch", 2, "--frames", 4, "--device", "cpu", "--channels", "8,8", "--blocks", 1]
    with monkeypatch.context() as patch:
        patch.setattr(Optimisation, "validation_error", compute_with_ctrl_c)
        patch.setattr("vidlat.train.trainer.MOST_PASSES", 1)
        code, said, err = vidlat(*command, *flags)
    assert (code, err) == (130, "Interrupted.\n")
    assert "stopped and saved after step 2; the same command with --resume continues" in said
    num_estimated = 2
    assert len(num_computed) == num_estimated + 1
    code, said, err = vidlat(*command, "--resume")
    assert (code, err) == (0, "")
    assert re.search(r"for 0 steps of .* and 1 validation of", said)
    assert f"2 steps -> {tmp_path / 'r'}" in said
    done = f"Nothing to do: {tmp_path / 'r'} has taken 2 steps, and --steps asks for"
    assert f"{done} 2; give more than 2." in vidlat(*command, "--resume")[1]
    assert f"{done} 1; give more than 2." in vidlat(*command, "--resume", "--steps", 1)[1]


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_fit_vae_ends_after_the_step_when_interrupted_and_resumes(make_videos, tmp_path, monkeypatch):
    compute = FitOptimisation.compute_gradients

    def compute_with_ctrl_c(optimisation, *arguments):
        if optimisation.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return compute(optimisation, *arguments)

    folder, out = make_videos(tmp_path / "v", {"a.mp4": 8, "b.mp4": 8}), tmp_path / "run"
    command = ["fit-vae", "--input", folder, "--out", out]
    flags = ["--size", 16, "--steps", 3, "--batch", 1, "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(FitOptimisation, "compute_gradients", compute_with_ctrl_c)
        code, said, err = vidlat(*command, *flags)
    assert (code, err) == (130, "Interrupted.\n")
    assert "stopped and saved after step 2; the same command with --resume continues" in said
    assert "continue it with --resume" in vidlat(*command, *flags)[2]
    refused = vidlat(*command, "--resume", "--batch", 4)[2]
    assert is_one_line(refused)
    assert "batch: got 4, the run has 1" in refused
    code, said, _ = vidlat(*command, "--resume", "--epochs", 2)  # with the settings it was started with
    assert code == 0
    assert f"Resuming {out} from step 2 of 4." in said
    assert f"4 steps -> {out}" in said
    assert "held out " in said
    done = f"Nothing to do: {out} has taken 4 steps, and --steps asks for 4; give more than 4."
    assert done in vidlat(*command, "--resume")[1]


def test_refused_commands_show_no_progress_bar(cache, videos, tmp_path):
    for command in (
        ["sample", "--run", tmp_path, "--out", tmp_path / "s"],
        ["evaluate", "--latents", cache, "--input", videos / "deep"],
    ):
        code, out, err = vidlat(*command)
        assert (code, out) == (1, "")
        assert is_one_line(err)


def test_video_that_cannot_be_written_is_reported_and_the_others_are_decoded(encode, make_videos, tmp_path):
    longest, too_long = "a" * 251 + ".mp4", "b" * 252 + ".ts"
    folder = make_videos(tmp_path / "v", {longest: 4, too_long: 4, "c.mp4": 4})
    assert encode(folder, tmp_path / "l.zarr")[0] == 0
    code, out, _ = vidlat("decode", "--latents", tmp_path / "l.zarr", "--out", tmp_path / "d")
    assert code == 3
    assert "2 videos -> " in out
    assert "1 video failed" in out
    assert "File name too long" in " ".join(out.split())
    assert sorted(path.name for path in (tmp_path / "d").glob("*.mp4")) == [longest, "c.mp4"]


def test_warnings_of_new_videos_are_shown_after_the_run(encode, make_videos, tmp_path, monkeypatch):
    from vidlat.pipeline import encode_videos

    def run_encode(*arguments):
        for event in real(*arguments):
            yield replace(event, records=[warned(record) for record in event.records])

    real = encode_videos.run_encode
    monkeypatch.setattr(encode_videos, "run_encode", run_encode)
    folder = make_videos(tmp_path / "v", {"a.mp4": 4, "[b].mp4": 12})
    code, out, _ = encode(folder, tmp_path / "l.zarr")
    assert code == 0
    assert re.search(r"^1 warning\s*$", out, re.MULTILINE)
    assert re.search(r"\[b\]\.mp4\W+damaged frames: 1 of 12", out)


def test_info_names_videos_with_warnings_and_counts_used_latent_frames_first(cache, monkeypatch):
    noticed = {"deep/c.mp4": ["damaged frames: 1 of 16"]}
    monkeypatch.setattr("vidlat.store.reader.LatentCache.warnings", lambda self: noticed)
    _, out, _ = vidlat("info", cache)
    assert "with warnings  1: deep/c.mp4\n" in out
    num_used = sum(-(-length // 4) for length in LENGTHS.values())
    assert re.search(rf"latent frames  {num_used} used, .*; \d+ reserved, empty space takes no disk", out)


def warned(record):
    """The record, of a longer video with a warning."""
    long = record.num_frames > 9
    return replace(record, warnings=(f"damaged frames: 1 of {record.num_frames}",) if long else ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--latents", "a", "--out", "r", "--latents", "b"], "--latents is given 2 times"),
        (
            ["compare", "--input", "v", "--out", "o", "--stack", "4", "--stack", "8"],
            "--stack is given 2 times",
        ),
        (
            ["encode", "--input", "v", "--out", "o", "--labels", "a", "--labels", "b"],
            "--labels is given 2 times",
        ),
        (["encode", "--input", "v", "--out=o", "--out=o", "--out", "p"], "--out is given 3 times"),
        (["encode", "--input", "v", "--out", "o", "--size", "32", "--size", "64"], "--size is given 2 times"),
        (["sample", "--run", "r", "--out", "s", "-n", "3", "--num", "4"], "--num is given 2 times"),
        (
            ["train", "--latents", "a", "--out", "r", "--compile", "--no-compile"],
            "--compile is given 2 times",
        ),
        (
            ["evaluate", "--latents", "a", "--input", "v", "--json", "a", "--json", "b"],
            "--json is given 2 times",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_of_one_value_is_refused_when_it_is_repeated(arguments, message):
    code, out, err = vidlat(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"Error: {message}; expected it once"


def test_lists_and_plain_flags_may_be_repeated(tmp_path):
    code, _, err = vidlat(
        *("encode", "--input", tmp_path / "a", "--input", tmp_path / "b", "--out", tmp_path / "l.zarr"),
        *("--dry-run", "--dry-run", "--exclude", "a", "--exclude", "b"),
    )
    assert code == 1
    assert "no such file or folder" in err


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    videos, small_vae, scheduler, tmp_path, monkeypatch
):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    (home / "v").mkdir(parents=True)
    shutil.copy(videos / "a.mp4", home / "v")
    shutil.copy(small_vae, home / "vae.safetensors")
    (home / "m.csv").write_text("path\n~/v/a.mp4\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    settings = (
        "--vae=~/vae.safetensors",
        "--size",
        16,
        "--device",
        "cpu",
        "--scheduler",
        scheduler,
        "--dry-run",
    )
    for given in ("--input=~/v", "--input=~/v/*.mp4", "--input=~/m.csv", "--input=~/v/a.mp4"):
        code, out, err = vidlat("encode", given, "--out=~/l.zarr", *settings)
        assert (code, err) == (0, "")
        assert f"nothingiswrittento{home}/l.zarr" in "".join(out.split())  # the title may be folded
    assert list(here.iterdir()) == []
    code, _, err = vidlat("info", "~/nothing.zarr")
    assert code == 1
    assert f"{home}/nothing.zarr" in err
    code, _, err = vidlat("info", "~nobody_at_all/l.zarr")
    assert code == 2
    assert "names a home folder that is not known" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit-vae", "--input", "VIDEOS", "--out", "s3://bucket/vae", "--size", "16"],
        ["compare", "--input", "https://example.org/clips/", "--out", "c"],
        ["encode", "--input", "VIDEOS", "--out", "l.zarr", "--labels", "gs://bucket/t.csv"],
    ],
    ids=" ".join,
)
def test_urls_are_refused_and_nothing_is_written(arguments, videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = vidlat(*(videos if argument == "VIDEOS" else argument for argument in arguments))
    assert code == 2
    (url,) = (argument for argument in arguments if "://" in argument)
    assert f"{url} is a URL; expected a path on this machine" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["encode", "--input", "https://example.org/clips/", "--out", "l.zarr"],
            "clips/: expected s3://BUCKET/FOLDER, gs:// or az://, or a path on this machine",
        ),
        (["train", "--latents", "hf://datasets/a/b.zarr", "--out", "r"], "`vidlat pull` fetches from a hub"),
        (["info", "s3:/bucket/l.zarr"], "s3:/bucket/l.zarr has one slash after the colon; expected two"),
        (["info", "file:///l.zarr"], "got file://; expected a folder, s3://, gs:// or az://, or https://"),
        (
            ["prune", "s3://bucket/l.zarr"],
            "expected one to prune: `vidlat pull`",
        ),
        (["verify", "s3://bucket/l.zarr", "--repair"], "expected one to repair: `vidlat pull`"),
        (["merge", "s3://bucket/l.zarr", "--out", "m.zarr"], "expected one to merge: `vidlat pull`"),
        (
            ["push", "s3://bucket/l.zarr", "s3://other/l.zarr"],
            "expected one to push: `vidlat pull`",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_addresses_that_a_command_cannot_use_are_refused(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = vidlat(*arguments)
    assert code in (1, 2)
    assert expected in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []
