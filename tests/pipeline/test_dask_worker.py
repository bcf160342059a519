"""`vidlat worker` on the machines of a cluster: real processes, each with a scratch folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client
from distributed.security import Security

from tests.pipeline.test_out_of_memory import memory_rules
from vidlat.cli import commands
from vidlat.config import WorkerConfig
from vidlat.errors import ConfigError, InputError, WeightsError
from vidlat.pipeline import dask_worker
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_worker import plan_processes, run_processes
from vidlat.resources import memory_bytes
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache


@contextmanager
def running(*command, cwd=None, **variables):
    """A process, in an environment of these variables too, and the group of those that it starts.

    All are ended with the block.
    """
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"} | variables
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {name: str(value) for name, value in own.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def scheduler(file):
    flags = (
        "--host",
        "127.0.0.1",
        "--port",
        0,
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        file,
    )
    return running(Path(sys.executable).parent / "dask", "scheduler", *flags)


def worker(file, scratch):
    flags = ("--scheduler", file, "--workers", 1, "--local-directory", scratch)
    return running(sys.executable, "-m", "vidlat", "worker", *flags)


def wait_until_ready(process):
    """The line that a worker prints when its processes are there."""
    return process.stdout.readline()


def encode(videos, small_vae, out, *more):
    flags = ("--input", videos, "--vae", small_vae, "--size", 16, "--out", out, "--device", "cpu", *more)
    answer = CliRunner().invoke(commands, ["encode", *map(str, flags)])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def latents(path):
    cache = open_cache(path)
    return {video_id: cache.read_latents(video_id) for video_id in cache.records()}


@pytest.mark.slow
def test_workers_of_two_machines_encode_as_one_machine_does_though_one_is_killed(
    make_videos, small_vae, tmp_path
):
    videos = make_videos(tmp_path / "videos", {f"{number}.mp4": 40 + number for number in range(24)})
    file, scratch = tmp_path / "scheduler.json", [tmp_path / "one", tmp_path / "two"]
    # The workers first: they wait for the file of the scheduler.
    with worker(file, scratch[0]) as one, worker(file, scratch[1]) as two, scheduler(file) as dask:
        assert wait_until_ready(one).endswith(f"no GPU; scratch in {scratch[0]}\n")
        wait_until_ready(two)
        with Client(str(json.loads(file.read_text())["address"]), set_as_default=False) as client:
            assert memory_rules(client) == {(False, memory_bytes())}
            folders = [info["local_directory"] for info in client.scheduler_info()["workers"].values()]
        assert {Path(folder).parent.parent for folder in folders} == set(scratch)
        (killed,) = (
            child
            for child in psutil.Process(one.pid).children(recursive=True)
            if is_worker(child, scratch[0])
        )
        encoding = running(
            sys.executable, "-m", "vidlat", "encode", "--input", videos, "--vae", small_vae, "--size", 16,
            "--out", tmp_path / "far.zarr", "--device", "cpu", "--scheduler", file,
        )  # fmt: skip
        with encoding as driver:
            lines = [driver.stdout.readline() for _ in range(2)]
            killed.kill()
            rest, _ = driver.communicate()
            assert driver.returncode == 0, (lines, rest)
        assert "Dask's dashboard: http://127.0.0.1:" in "".join(lines) + rest
        dask.terminate()
        assert two.wait() == one.wait() == 0
        assert two.stdout.read() == "Ended.\n"
    encode(videos, small_vae, tmp_path / "here.zarr", "--workers", 2)
    far, here = latents(tmp_path / "far.zarr"), latents(tmp_path / "here.zarr")
    assert far.keys() == here.keys()
    for video_id, expected in here.items():
        np.testing.assert_array_equal(far[video_id].mean, expected.mean)
        np.testing.assert_array_equal(far[video_id].std, expected.std)
    assert list(verify_cache(tmp_path / "far.zarr")) == []
    assert not [path for folder in scratch for path in folder.rglob("vidlat-*")]


@pytest.mark.slow
def test_a_worker_finds_the_weights_below_the_folder_that_it_was_started_in(
    make_videos, small_vae, prepare_only, tmp_path
):
    videos, folder = make_videos(tmp_path / "videos", {"a.mp4": 5}), tmp_path / "machine"
    prepared = prepare_only(videos, tmp_path / "l.zarr")
    lost = replace(
        prepared.job, vae="small.safetensors", vae_path=tmp_path / "of the driver" / "it.safetensors"
    )
    file = tmp_path / "scheduler.json"
    prepared = replace(prepared, scheduler=str(file), job=lost)
    folder.mkdir()
    command = f"cd {folder} && exec {sys.executable} -m vidlat worker --scheduler {file} --workers 1"
    with running("bash", "-c", command) as process, scheduler(file):
        wait_until_ready(process)
        with pytest.raises(WeightsError, match=r"no weights file at small\.safetensors .*; copy those to /"):
            list(prepared.run())
        shutil.copy(small_vae, folder / "small.safetensors")
        list(prepared.run())
    assert list(open_cache(tmp_path / "l.zarr").records()) == ["a.mp4"]


def is_worker(process, scratch):
    """Whether a process encodes, and does not only watch or fork: it has files in the scratch folder."""
    try:
        return any(str(scratch) in opened.path for opened in process.open_files())
    except psutil.Error:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.slow
def test_a_worker_ends_its_processes_at_a_signal(tmp_path, number, code):
    file = tmp_path / "scheduler.json"
    with scheduler(file), worker(file, tmp_path / "scratch") as process:
        assert wait_until_ready(process).startswith("1 process for tcp://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait() == code
        assert process.stdout.read() == ("Interrupted.\n" if code else "Ended.\n")
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert (len(gone), alive) == (len(children), [])


SIGNALLED_ONCE_READY = """
import signal, sys
from vidlat.cli import main
from vidlat.commands import worker
worker._report = lambda processes: signal.raise_signal(signal.SIGTERM)
sys.argv[0] = "vidlat"
main()
"""


@pytest.mark.slow
def test_a_cluster_may_ask_for_certificates(make_videos, small_vae, tmp_path, monkeypatch):
    made = Security.temporary()
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    (tmp_path / "ca.pem").write_text(made.tls_ca_file)
    monkeypatch.setenv(f"{tls}CA_FILE", str(tmp_path / "ca.pem"))
    for role in ("scheduler", "worker", "client"):
        for kind in ("key", "cert"):
            (tmp_path / f"{role}.{kind}").write_text(getattr(made, f"tls_{role}_{kind}"))
            monkeypatch.setenv(f"{tls}{role}__{kind}".upper(), str(tmp_path / f"{role}.{kind}"))
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME", "tls")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "True")
    videos, file = make_videos(tmp_path / "videos", {"a.mp4": 9}), tmp_path / "scheduler.json"
    encoding = (
        "encode", "--input", videos, "--vae", small_vae, "--size", 16, "--out", tmp_path / "l.zarr",
        "--device", "cpu", "--scheduler", file,
    )  # fmt: skip
    with (
        worker(file, tmp_path / "scratch") as process,
        scheduler(file) as dask,
        running(sys.executable, "-m", "vidlat", *encoding) as driver,
    ):
        wait_until_ready(process)
        assert json.loads(file.read_text())["address"].startswith("tls://")
        answer, _ = driver.communicate()
        assert driver.returncode == 0, answer
        dask.terminate()
        assert process.wait() == 0
    assert list(latents(tmp_path / "l.zarr")) == ["a.mp4"]


@pytest.mark.slow
def test_a_worker_is_ready_for_a_signal_before_it_says_that_it_is_ready(tmp_path):
    file = tmp_path / "scheduler.json"
    flags = ("worker", "--scheduler", file, "--workers", 1, "--local-directory", tmp_path / "scratch")
    with scheduler(file), running(sys.executable, "-c", SIGNALLED_ONCE_READY, *flags) as process:
        assert process.wait() == 0
        assert process.stdout.read().splitlines()[-1] == "Ended."


def test_a_scheduler_that_does_not_answer_is_refused_in_one_line(tmp_path):
    processes = plan_processes(
        WorkerConfig(scheduler="tcp://127.0.0.1:9", local_directory=str(tmp_path / "s"))
    )
    before = dict(os.environ)
    with pytest.raises(
        InputError, match=r"^--scheduler: no Dask scheduler answers at tcp://127\.0\.0\.1:9; is it running"
    ):
        run_processes(processes, patience_seconds=0.2)
    assert dict(os.environ) == before


def test_a_scratch_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    settings = WorkerConfig(scheduler="tcp://127.0.0.1:9", local_directory=str(tmp_path / "file" / "scratch"))
    with pytest.raises(InputError, match=r"^--local-directory .*file/scratch: cannot be used: "):
        run_processes(plan_processes(settings), patience_seconds=0.2)


@pytest.mark.parametrize("content", ["[]", '{"workers": {}}', "1"])
def test_a_file_that_no_scheduler_wrote_is_refused(tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(content)
    said = r"other\.json: (is no scheduler file|no scheduler has written this file for 0 s)"
    with pytest.raises(InputError, match=said), connect(str(file), 1, patience_seconds=0.2):
        pass
    with pytest.raises(InputError, match="no scheduler has written this file"):
        plan_processes(WorkerConfig(scheduler=str(tmp_path / "missing.json"), patience_seconds=0.2))
    with pytest.raises(ConfigError, match=r"^scheduler: expected an address"):
        WorkerConfig()


def test_a_worker_says_that_it_waits_for_a_scheduler_file_and_not_for_one_that_is_there(tmp_path):
    def worker(name):
        line = ["worker", "--scheduler", str(tmp_path / name), "--patience-seconds", "0.2"]
        return CliRunner().invoke(commands, line)

    (tmp_path / "other.json").write_text("[]")
    said = f"Waiting for the scheduler file {tmp_path / 'missing.json'}, 0.2 s at most\n"
    assert (worker("missing.json").stdout, worker("other.json").stdout) == (said, "")


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 3, ("0", "1", "2")), ("", 0, ()), ("2,5", 2, ("2", "5")), ("GPU-a", 1, ("GPU-a",))],
)
def test_every_process_gets_one_of_the_gpus_that_this_one_may_use(monkeypatch, visible, count, expected):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(dask_worker.torch.cuda, "device_count", lambda: count)
    assert dask_worker._visible_gpus() == expected


@pytest.mark.slow
def test_a_worker_ends_though_its_scheduler_goes_while_a_process_is_replaced(tmp_path):
    file, scratch = tmp_path / "scheduler.json", tmp_path / "scratch"
    program = "from vidlat.pipeline import dask_worker; dask_worker.START_SECONDS = 15.0; "
    program += "from vidlat.cli import commands; commands()"
    flags = ("worker", "--scheduler", file, "--workers", 1, "--local-directory", scratch)
    with running(sys.executable, "-c", program, *flags) as process, scheduler(file) as dask:
        wait_until_ready(process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if is_worker(child, scratch):
                child.kill()
        dask.kill()
        assert process.wait(timeout=120) == 0
