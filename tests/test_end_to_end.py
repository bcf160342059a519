"""The whole path, as the README shows it: phantoms to latents, to a trained network, to new videos."""

import json
import re
import signal

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.phantom import make_phantom
from tests.test_cli import vidlat
from vidlat.pipeline.decode_videos import decode_latents
from vidlat.store.reader import open_cache
from vidlat.train.optimisation import Optimisation
from vidlat.video.writer import write_video

pytestmark = pytest.mark.usefixtures("few_validation_windows")


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other on a busy machine would take most of the time."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def frames_and_rate(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0)), float(container.streams.video[0].average_rate)


def interrupt_first_step(patch, number):
    """Of the next training: a signal comes while its first step is under way."""
    apply_gradients, signals = Optimisation.apply_gradients, [number]

    def interrupted(optimisation, figures):
        if signals:
            signal.raise_signal(signals.pop())
        return apply_gradients(optimisation, figures)

    patch.setattr(Optimisation, "apply_gradients", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-16"])
def test_embedded_vae_brings_a_phantom_back_better_than_block_averages(name, scheduler, tmp_path):
    (tmp_path / "v").mkdir()
    for seed in range(2):
        write_video(tmp_path / "v" / f"{seed}.mp4", make_phantom("heart", seed, 8, 96, 96, 25), 25)
    encode = (
        "encode",
        "--input",
        tmp_path / "v",
        "--out",
        tmp_path / "l.zarr",
        "--vae",
        name,
        "--size",
        64,
    )
    assert vidlat(*encode, "--scheduler", scheduler)[0] == 0
    evaluate = ("evaluate", "--latents", tmp_path / "l.zarr", "--input", tmp_path / "v")
    assert vidlat(*evaluate, "--json", tmp_path / "q.json")[0] == 0
    overall = json.loads((tmp_path / "q.json").read_text())["overall"]
    assert overall["vae"]["psnr"] > overall["averaging"]["psnr"]


def test_the_whole_path_with_a_vae_of_diffusers(scheduler, make_videos, kl_folder, tmp_path):
    videos = make_videos(tmp_path / "videos", {"a.mp4": 7, "b.mp4": 5})
    cache, run, vae = tmp_path / "latents.zarr", tmp_path / "run", ("--vae", f"diffusers:{kl_folder}")

    def done(*arguments):
        code, out, err = vidlat(*arguments)
        assert (code, err) == (0, ""), arguments
        return out

    done("encode", "--input", videos, "--out", cache, *vae, "--size", 16, "--scheduler", scheduler)
    schema, records = open_cache(cache).schema, open_cache(cache).records()
    assert (schema.time_compression, schema.space_compression, schema.settings.stack) == (1, 2, 1)
    assert {name: record.stop - record.start for name, record in records.items()} == {"a.mp4": 7, "b.mp4": 5}
    assert {"torch", "diffusers"} <= records["a.mp4"].versions.keys()
    assert "licence: mit" in done("info", cache)
    train = (
        "--steps",
        2,
        "--batch",
        1,
        "--frames",
        5,
        "--device",
        "cpu",
        "--channels",
        "8,16",
        "--sample-every",
        0,
    )
    done("train", "--latents", cache, "--out", run, *train)
    done("sample", "--run", run, "--out", tmp_path / "s", "-n", 1, "--steps", 2, "--device", "cpu", *vae)
    assert frames_and_rate(tmp_path / "s" / "sample-0000.mp4") == (5, 25)
    done("decode", "--latents", cache, "--out", tmp_path / "d", "--device", "cpu")
    assert frames_and_rate(tmp_path / "d" / "a.mp4") == (7, 25)
    done("evaluate", "--latents", cache, "--input", videos, "--device", "cpu", *vae)
    done("preview", cache, "--out", tmp_path / "p.png", "--device", "cpu", *vae)
    compare = ("--stack", "1,2", "--videos", 1, "--frames", 4, "--size", 16, "--device", "cpu")
    assert "kl stack 2" in done("compare", "--input", videos, "--out", tmp_path / "c", *vae, *compare)


def test_from_videos_to_samples(scheduler, make_videos, small_vae, tmp_path):
    videos = make_videos(tmp_path / "videos", {"a.mp4": 9, "b.mp4": 5})
    cache, run = tmp_path / "latents.zarr", tmp_path / "run"
    encode = ("encode", "--input", videos, "--out", cache, "--vae", small_vae, "--scheduler", scheduler)
    train = ("train", "--latents", cache, "--out", run, "--steps", 2, "--batch", 1, "--frames", 8)
    sample = ("sample", "--run", run, "--out", tmp_path / "samples", "-n", 1, "--steps", 2)
    for command in ((*encode, "--size", 16), (*train, "--channels", "8,16", "--blocks", 1), sample):
        code, _, err = vidlat(*command, "--device", "cpu")
        assert (code, err) == (0, ""), command
    assert open_cache(cache).records().keys() == {"a.mp4", "b.mp4"}
    assert steps_of(run) == [1, 2]
    assert frames_and_rate(tmp_path / "samples" / "sample-0000.mp4") == (8, 25)


@pytest.mark.slow
@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_from_videos_to_samples_through_the_command_line(scheduler, small_vae, tmp_path, monkeypatch):
    lengths = {"heart.mp4": 17, "lung.mp4": 9, "short.mp4": 3}
    (tmp_path / "videos").mkdir()
    for seed, (name, num_frames) in enumerate(lengths.items()):
        frames = make_phantom("lung" if seed == 1 else "heart", seed, num_frames, 48, 64, 20)
        write_video(tmp_path / "videos" / name, frames, 20)
    cache, run = tmp_path / "latents.zarr", tmp_path / "run"

    flags = ("--vae", small_vae, "--size", 16, "--batch", 3, "--scheduler", scheduler)
    code, out, err = vidlat("encode", "--input", tmp_path / "videos", "--out", cache, *flags)
    assert (code, err) == (0, "")
    records = open_cache(cache).records()
    assert {name: record.num_frames for name, record in records.items()} == lengths

    (tmp_path / "labels.csv").write_text(
        "video_id,organ,age\nheart.mp4,heart,30\nlung.mp4,lung,50\nshort.mp4,,70\n"
    )
    conditions = ("--labels", tmp_path / "labels.csv", "--condition", "organ", "--condition", "age:float")
    looks = ("--first-frame", 0.5, "--sample-every", 3, "--objective", "v", "--min-snr", 5, "--shift", 2)
    flags = ("--steps", 3, "--batch", 2, "--frames", 8, "--warmup-steps", 1, "--device", "cpu")
    flags = (*flags, "--channels", "8,16", "--blocks", 1, "--validation-fraction", 0.01, *conditions, *looks)
    code, out, err = vidlat("train", "--latents", cache, "--out", run, *flags)
    assert (code, err) == (0, "")
    assert re.search(r"about .* for 3 steps of [\d.]+ s and 1 validation of [\d.]+ s; the samples of ", out)
    assert steps_of(run) == [1, 2, 3]
    with Image.open(run / "samples/step_00000003.gif") as moving:
        assert (moving.n_frames, moving.size) == (8, (4 * (256 + 12) + 12, 2 * 22 + 256 + 2 * 12))
    events = EventAccumulator(str(run)).Reload()
    assert {"samples/moving", "samples/grid"} <= set(events.Tags()["images"])
    assert "loss" in events.Tags()["scalars"]
    for number in (signal.SIGINT, signal.SIGUSR1):
        flags = (*flags[:1], flags[1] + 2, *flags[2:])
        with monkeypatch.context() as patch:
            interrupt_first_step(patch, number)
            code, out, err = vidlat("train", "--latents", cache, "--out", run, "--resume", *flags)
        assert (code, err) == (130, "Interrupted.\n")
        assert f"stopped and saved after step {steps_of(run)[-1]}" in out
    assert steps_of(run) == [1, 2, 3, 4, 5]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert vidlat("train", "--latents", cache, "--out", run, "--resume", *flags)[0] == 0
    code, out, err = vidlat("train", "--latents", cache, "--out", run, "--resume")
    assert code == 0
    assert "Nothing to do" in out

    sample = ("sample", "--run", run, "--device", "cpu", "--steps", 2)
    code, out, err = vidlat(*sample, "--out", tmp_path / "samples", "-n", 2, "--seed", 5)
    assert (code, err) == (0, "")
    videos = sorted((tmp_path / "samples").glob("*.mp4"))
    assert [path.name for path in videos] == ["sample-0005.mp4", "sample-0006.mp4"]
    assert [frames_and_rate(path) for path in videos] == [(8, 20)] * 2
    with Image.open(tmp_path / "samples" / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 16
    # A sample depends on its seed alone, not on how many are drawn.
    assert vidlat(*sample, "--out", tmp_path / "one", "-n", 1, "--seed", 6)[0] == 0
    assert (tmp_path / "one" / "sample-0006.mp4").read_bytes() == videos[1].read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr("vidlat.sample.pictures.MAX_ROWS", 1)
        code, out, err = vidlat(*sample, "--out", tmp_path / "few", "-n", 2)
    assert "contact sheet (the first 1) ->" in out
    assert vidlat(*sample, "--out", tmp_path / "first", "-n", 1)[0] == 0
    sheets = [(tmp_path / name / "contact_sheet.png").read_bytes() for name in ("few", "first")]
    assert sheets[0] == sheets[1]

    asked = ("--condition", "organ=heart", "--condition", "age=40", "--guidance", 2, "--sampler", "heun")
    Image.fromarray(make_phantom("heart", 0, 1, 48, 64, 20)[0]).save(tmp_path / "frame.png")
    longer = ("--frames", 21, "--first-frame", tmp_path / "frame.png", "--checkpoint", "best", "-n", 1)
    for kind in ("gif", "npy"):
        code, out, err = vidlat(*sample, "--out", tmp_path / kind, *asked, *longer, "--format", kind)
        assert (code, err) == (0, "")
    with Image.open(tmp_path / "gif/sample-0000.gif") as moving:
        frames = [np.asarray(moving.convert("L")) for _ in ImageSequence.Iterator(moving)]
        assert moving.info["duration"] == 50
    assert np.array_equal(frames, np.load(tmp_path / "npy/sample-0000.npy"))
    assert len(frames) == 21

    start = ("--first-frame", tmp_path / "videos/heart.mp4", "-n", 1, "--format", "npy")
    assert vidlat(*sample, "--out", tmp_path / "on", *start)[0] == 0
    code, out, err = vidlat(*sample, "--out", tmp_path / "on", "--first-frame", tmp_path / "labels.csv")
    assert code == 1
    assert "labels.csv: cannot be read as the first frame: " in err

    calls = iter(range(100))

    def decode_one(*arguments):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return decode_latents(*arguments)

    monkeypatch.setattr("vidlat.sample.videos.decode_latents", decode_one)
    code, out, err = vidlat(*sample, "--out", tmp_path / "some", "-n", 3, "--seed", 5)
    assert (code, err) == (130, "Interrupted.\n")
    assert "1 of 3 samples written; the same command draws the others" in out
    assert (tmp_path / "some" / "sample-0005.mp4").read_bytes() == videos[0].read_bytes()
    shown = {path.name for path in (tmp_path / "some").iterdir() if not path.name.startswith(".")}
    assert shown == {"sample-0005.mp4", "contact_sheet.png", "samples.jsonl"}

    code, out, err = vidlat("decode", "--latents", cache, "--out", tmp_path / "decoded", "--device", "cpu")
    assert (code, err) == (0, "")
    for name, num_frames in lengths.items():
        assert frames_and_rate(tmp_path / "decoded" / name) == (num_frames, 20)

    evaluate = ("evaluate", "--latents", cache, "--input", tmp_path / "videos", "--device", "cpu")
    code, out, err = vidlat(*evaluate, "--json", tmp_path / "quality.json")
    assert (code, err) == (0, "")
    compared = json.loads((tmp_path / "quality.json").read_text())["videos"]
    assert {video["vae"]["video_id"]: video["vae"]["num_frames"] for video in compared} == lengths
