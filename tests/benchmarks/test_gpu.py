"""The benchmark of a GPU: its parts run here too, one that fails loses only itself, what is done is kept."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import gpu
from vidlat.encode.network import TINY_NETWORK, build_network

BENCHMARKS = Path(gpu.__file__).parent


@pytest.fixture(autouse=True)
def beside_the_parts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_all_parts_take_less_than_seven_minutes():
    assert sum(gpu.PARTS.values()) <= 420
    assert all((BENCHMARKS / f"gpu_parts/{name}.py").is_file() for name in gpu.PARTS)


def shell(script):
    """A part's command: $1 is the file for its rows."""
    return ["sh", "-c", script, "sh"]


def test_part_that_dies_keeps_its_whole_rows(tmp_path):
    command = shell("""printf '{"torch": "2"}\n{"rate": 3.5}\n{"rat' > "$1"; echo why; exit 7""")
    part = gpu.run_part("network", command, 100, tmp_path / "log.txt")
    assert part["state"] == "ended with exit code 7"
    assert part["said last"] == "why\n"
    assert part["machine"] == {"torch": "2"}
    assert part["rows"] == [{"rate": 3.5}]
    assert not gpu.is_right(part)


def test_part_that_hangs_is_stopped_with_all_it_started(tmp_path):
    os.mkfifo(tmp_path / "held")
    reading = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    command = shell(f"tail -f /dev/null > {tmp_path / 'held'} & tail -f /dev/null")
    part = gpu.run_part("encode", command, 0, tmp_path / "log.txt")
    assert part["state"] == "stopped after 0 s"
    assert part["rows"] == []
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""  # nobody holds it any more
    os.close(reading)


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Runs the benchmark with a shell script for each part, and returns the names of those it measured."""
    (tmp_path / "measured").touch()

    def run(scripts, *arguments):
        record = f"echo $0 >> {tmp_path / 'measured'}; "

        def command(name, options):
            return ["sh", "-c", record + scripts[name], name]

        (tmp_path / "measured").write_text("")
        monkeypatch.setattr(gpu, "part_command", command)
        monkeypatch.setattr(gpu, "require_device", lambda _: None)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out"), *arguments])
        gpu.main()
        return (tmp_path / "measured").read_text().split()

    return run


FINE = """printf '{"torch": "2.11"}\n{"way": "encode", "stacks/s": 1234.5}\n' > "$1\""""
WRONG = """printf '{"torch": "2.11"}\n{"check": "means", "right": false}\n' > "$1\""""


def test_second_call_measures_what_is_not_done(benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark({"network": FINE, "encode": "echo no more; exit 1"}, "--parts", "network,encode")
    assert "no more" in capsys.readouterr().out
    assert benchmark({"encode": FINE}, "--parts", "network,encode") == ["encode"]
    assert benchmark({}, "--parts", "network,encode") == []
    assert benchmark({"network": FINE}, "--parts", "network", "--fresh") == ["network"]
    parts = json.loads((tmp_path / "out/results.json").read_text())["parts"]
    assert list(parts) == ["encode", "network"]
    assert parts["network"]["rows"] == [{"way": "encode", "stacks/s": 1234.5}]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["way     stacks/s", "encode  1,234"]


def test_wrong_result_is_an_error_of_the_benchmark(benchmark, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark({"correctness": WRONG}, "--parts", "correctness")
    assert ended.value.code == 1
    assert "NO" in capsys.readouterr().out


def test_results_of_other_settings_are_not_mixed_in(benchmark):
    benchmark({"network": FINE}, "--parts", "network")
    with pytest.raises(SystemExit, match="other settings"):
        benchmark({"network": FINE}, "--parts", "network", "--quick")


def test_results_survive_a_disk_that_is_full(benchmark, tmp_path, monkeypatch):
    benchmark({"network": FINE}, "--parts", "network")
    before = (tmp_path / "out/results.json").read_bytes()

    def write_half(path, text):
        with path.open("w") as file:
            file.write(text[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="No space left"):
        gpu.replace_text(tmp_path / "out/results.json", "x" * 200)
    assert (tmp_path / "out/results.json").read_bytes() == before


def test_results_that_are_cut_off_are_named(benchmark, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text('{"device": "cu')
    with pytest.raises(SystemExit, match=r"results.json: is damaged .*; remove it, or give another --out"):
        benchmark({"network": FINE}, "--parts", "network")


def test_operations_are_those_of_the_convolutions():
    from gpu_parts.vaes import count_flops

    network, counted = build_network(TINY_NETWORK), []

    def count(layer, _, output):
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            positions = output if isinstance(layer, nn.Conv3d) else _[0]
            counted.append(2 * layer.weight.numel() * positions[:, 0].numel())

    for layer in network.modules():
        layer.register_forward_hook(count)
    with torch.inference_mode():
        network.encode(torch.rand(1, 1, 4, 16, 16))
    assert count_flops(TINY_NETWORK, (1, 1, 4, 16, 16), "encode") == sum(counted)


def test_an_encode_that_takes_less_than_its_start_gives_no_rate():
    """The two starts differ, on a busy machine by seconds."""
    from gpu_parts.encode import rest_rows

    (rest, ratio) = rest_rows(2.0, 4.0, 96)
    assert (rest["seconds"], rest["frames/s"], ratio["ratio"]) == (2, 48, 0.5)
    assert [row.keys() for row in rest_rows(-3.0, 4.0, 96)] == [{"what"}, {"what"}]


def test_operations_that_only_view_are_not_launches():
    from launches import CountingOperations

    matrix = torch.rand(3, 3)
    with CountingOperations() as operations:
        (matrix.t()[:2] @ matrix.view(3, 3)).add_(1)
    assert operations.count == 2


def run(*arguments, device="cpu"):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", device, "--quick", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line_and_no_folder(tmp_path):
    ended = run("--out", tmp_path / "out", device="cuda:99")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"device cuda:99: .*\n", ended.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    ended = run("--parts", "trace", "--out", tmp_path / "file")
    assert ended.returncode == 1
    assert re.fullmatch(r".*File exists: .*; make room, or give another --out\n", ended.stderr)


@pytest.fixture
def download_wheels(tmp_path):
    """Runs the script, with a `python3 -m pip download` that is this shell script; returns its exit code."""

    def run(download):
        (tmp_path / "python3").write_text(
            f'#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\n{download}\n'
        )
        (tmp_path / "python3").chmod(0o755)
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        script = [str(BENCHMARKS / "gpu_wheels.sh"), str(tmp_path / "wheels")]
        return subprocess.run(
            script, env=os.environ | {"PATH": path}, capture_output=True, check=False
        ).returncode

    return run


def test_new_wheels_replace_the_old_ones_and_nothing_else(download_wheels, tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "mine.txt").touch()
    assert download_wheels('touch "$2/a-1.whl"') == 0
    assert download_wheels("exit 1") != 0
    assert {path.name for path in folder.iterdir()} == {"a-1.whl", "mine.txt"}
    assert download_wheels('touch "$2/a-2.whl"') == 0
    assert {path.name for path in folder.iterdir()} == {"a-2.whl", "mine.txt"}


@pytest.mark.slow
def test_a_part_runs_on_a_cpu(tmp_path):
    ended = run("--parts", "sampling", "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + (tmp_path / "log.txt").read_text()
    assert "samples/s" in ended.stdout


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path):
    ended = run("--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + (tmp_path / "log.txt").read_text()
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS)
    assert all(part["rows"] for part in parts.values())
    assert (tmp_path / "encode.trace.json.gz").stat().st_size > 1000
