"""Every example of docs/how-to/python.md runs as it stands there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.phantom import make_phantom
from tests.pages import code_blocks
from tests.train.toys import CacheMaker, random_posterior
from vidlat import SampleConfig, sample_frames, sample_videos
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.video.writer import write_video

PAGE = "docs/how-to/python.md"
WHOLE_PATH, COMMANDS, FRAMES, COMPARISON, REPORT, VAE, LEARNING, *TRAINING = code_blocks(PAGE, "python")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, in which the examples run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_here(code):
    exec(compile(code, PAGE, "exec"), {})


def run_as_script(code):
    """In a process of its own, whose worker processes import the script again."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    Path("example.py").write_text(f"if __name__ == '__main__':\n{body}")
    subprocess.run([sys.executable, "example.py"], check=True, timeout=200)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_whole_path_takes_ten_lines(capsys):
    assert len(WHOLE_PATH.splitlines()) == 10
    Path("videos").mkdir()
    for seed, num_frames in enumerate((12, 9)):
        write_video(Path(f"videos/{seed}.mp4"), make_phantom("heart", seed, num_frames, 48, 64, 25), 25)
    run_here(WHOLE_PATH)
    assert names_in(Path("decoded")) == [DECODED_MARK, "0.mp4", "1.mp4", "decoded.jsonl"]
    assert names_in(Path("samples")) == [
        DECODED_MARK,
        "contact_sheet.png",
        "sample-0000.mp4",
        "sample-0001.mp4",
        "samples.jsonl",
    ]
    assert Path("runs/first/checkpoints/step_00000010").is_dir()
    run_here(FRAMES)
    assert capsys.readouterr().out.endswith(
        "0.mp4 (12, 32, 32) uint8\n1.mp4 (9, 32, 32) uint8\n" + 2 * "(8, 32, 32)\n"
    )
    settings = SampleConfig(num=2, steps=10, format="npy")
    written = [np.load(path) for path in sample_videos("runs/first", "arrays/", settings)]
    np.testing.assert_array_equal(list(sample_frames("runs/first", settings)), written)


@pytest.mark.parametrize("run", [run_here, pytest.param(run_as_script, marks=pytest.mark.slow)])
def test_commands_run(make_videos, folder, scheduler, run):
    make_videos(folder / "videos", {"a.mp4": 3, "b.mp4": 2})
    Path("labels.csv").write_text("video_id,subject\na.mp4,S1\n")
    elsewhere = f"size=128, scheduler={scheduler!r})"
    run(COMMANDS if run is run_as_script else COMMANDS.replace("size=128)", elsewhere))
    assert names_in(Path("recon")) == [DECODED_MARK, "a.mp4", "b.mp4", "decoded.jsonl"]


def test_comparison_runs(make_videos, folder, capsys):
    make_videos(folder / "videos", {"a.mp4": 9, "b.mp4": 8})
    run_here(COMPARISON)
    assert names_in(Path("comparison")) == [DECODED_MARK, "a.mp4", "a.png", "b.mp4", "b.png"]
    assert "tiny stack 8 stretch 4" in capsys.readouterr().out


def test_report_runs(make_videos, encode_here, folder):
    encode_here(make_videos(folder / "videos", {"a.mp4": 9, "b.mp4": 8}), folder / "latents.zarr")
    run_here(REPORT)
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_training_of_a_vae_and_its_comparison_run(make_videos, folder, capsys):
    make_videos(folder / "videos", {"a.mp4": 9, "b.mp4": 8})
    run_here(VAE)
    assert Path("runs/vae/vae.safetensors").is_file()
    assert "FitStep(step=10, epoch=20.0" in capsys.readouterr().out
    run_here(LEARNING)
    assert "'vae stack 4': {'MSE < 0.05 after an epoch':" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_here, run_as_script])
def test_examples_of_training_run(folder, run):
    """With two steps each, on latents of MAISI's four channels."""
    assert len(TRAINING) == 6
    CacheMaker(folder / "latents.zarr", latent_dim=4).add(
        {"a.mp4": 21, "b.mp4": 33, "c.mp4": 18}, four_channels
    )
    Path("split.csv").write_text("video_id,split\na.mp4,train\nb.mp4,train\nc.mp4,val\n")
    Path("labels.csv").write_text("video_id,view,ef\na.mp4,A2C,35\nb.mp4,A4C,50\nc.mp4,A4C,\n")
    run("\n".join(TRAINING).replace("steps=100", "steps=2"))
    assert Path("runs/first/checkpoints/step_00000002").is_dir()


def four_channels(video_id, num_latent_frames):
    halves = [random_posterior(f"{video_id}{half}", num_latent_frames) for half in range(2)]
    return [np.concatenate(parts) for parts in zip(*halves, strict=True)]


@pytest.mark.parametrize(
    "example", [WHOLE_PATH, COMMANDS, FRAMES, COMPARISON, REPORT, VAE, LEARNING, *TRAINING]
)
def test_example_is_short(example):
    assert len(example.splitlines()) < 25
