"""An evaluation from the command line: of a run, of planted folders, stopped and continued, and refused."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.test_cli import is_one_line, vidlat
from tests.train.toys import build_small
from vidlat.config import EvaluateConfig, TrainConfig
from vidlat.evaluate.samples.clips import moving_and_still
from vidlat.evaluate.samples.compared import ComparedWindows, conditions_for
from vidlat.evaluate.samples.evaluation import evaluate_samples
from vidlat.evaluate.samples.measuring import LATENTS
from vidlat.evaluate.samples.real_clips import RealClips
from vidlat.evaluate.samples.result import NOISE, REAL, STILL
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.store.layout import shard_file
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.train.runs.evaluation import read_evaluation
from vidlat.train.runs.exported import load_model
from vidlat.train.runs.run_folder import read_run
from vidlat.train.trainer import Trainer
from vidlat.types import Annotation
from vidlat.video.writer import write_array, write_video

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.usefixtures("few_validation_windows"),
]

VIDEOS = [f"{number:02}.mp4" for number in range(14)]


SETTINGS = {"frames": 8, "batch": 2, "steps": 1, "device": "cpu", "latents_as": "mean"}
"""The posterior of a random VAE is wide, and clips that differ by less are taken for copies."""


def moving_noise(seed):
    """Frames (12, 16, 16) of a pattern of their own, with noise that changes."""
    rng = np.random.default_rng(seed)
    pattern, noise = rng.integers(0, 200, (1, 4, 4)), rng.integers(0, 56, (12, 4, 4))
    return (pattern + noise).astype(np.uint8).repeat(4, 1).repeat(4, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory, encode_here):
    """A folder with latents.zarr and run, hardly trained: seven subjects on each side, two kinds on both."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "videos").mkdir()
    for seed, name in enumerate(VIDEOS):
        write_video(folder / "videos" / name, moving_noise(seed), 25)
    latents = encode_here(folder / "videos", folder / "latents.zarr")
    labels = {
        name: Annotation(labels={"side": ("train", "val")[number % 2], "kind": "ab"[number // 2 % 2]})
        for number, name in enumerate(VIDEOS)
    }
    config = TrainConfig(**SETTINGS, condition=("kind",), split_by="side")
    list(Trainer(config, open_cache(latents), folder / "run", labels=labels, build_model=build_small).steps())
    return folder


@pytest.fixture(autouse=True)
def _small_network_and_few_resamples(monkeypatch):
    monkeypatch.setattr("vidlat.metrics.intervals.NUM_RESAMPLES", 50)
    monkeypatch.setattr("vidlat.sample.videos.load_model", partial(load_model, build_model=build_small))


def evaluate(made, *arguments):
    return vidlat("evaluate", "--latents", made / "latents.zarr", "--device", "cpu", *arguments)


def test_a_run_is_evaluated_at_each_number_of_steps_in_one_table(made, tmp_path):
    network = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Conv2d(1, 3, 3)).save(str(network))
    steps = "--steps", "1,2", "-n", "7", "--features", network
    code, out, err = evaluate(made, "--run", made / "run", "--out", tmp_path / "e", *steps)
    assert code == 0, err
    figures = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert list(figures["rows"]) == ["samples, 1 step", "samples, 2 steps", REAL, STILL, NOISE]
    for name, row in figures["rows"].items():
        assert row["num_clips"] == row["num_groups"] == 7
        assert set(row["distances"]) == {LATENTS, str(network)}
        assert f" {row['distances'][LATENTS]['kernel_distance']['value'] * 1000:,.0f} (" in out, name
    assert figures["held_out"] == {"num_clips": 7, "num_groups": 7, "num_videos": 7}
    assert figures["features"][1]["takes"] == "frames of 1 channel"
    assert figures["features"][1]["sha256"] in out
    assert figures["samples"]["samples, 2 steps"]["drawn"]["steps"] == 2
    assert figures["samples"]["samples, 2 steps"]["seconds_per_clip"] > 0
    assert set(figures["adherence"]["kind"]) == {"held-out clips", "samples, 1 step", "samples, 2 steps"}
    assert not re.search(r"(?<![\d.])\d{4,}(\)| \()", out)  # thousands have separators
    assert "Only 7 subjects among the held-out clips that are compared: with other subjects" in out
    assert set(figures["copies"]) == {"samples, 1 step", "samples, 2 steps"}
    for copies in figures["copies"].values():
        assert len(copies["nearest"]) == copies["held_out"]["subjects"] == 7
        assert f"nearer to a training clip than {copies['threshold']:.2f}" in out
        assert copies["share"]["doubt"] == "uncertain: only 7 held-out subjects set the threshold"
    assert out.count(", uncertain: only 7 held-out subjects set the threshold") == 2  # in the row of each
    assert {"spectrum.html", "grid.png", "grid.mp4", "copies.png", "copies.mp4"} <= {
        path.name for path in (tmp_path / "e").iterdir()
    }
    _, *lines = (tmp_path / "e" / "samples" / "steps-1" / "samples.jsonl").read_text().splitlines()
    held_out = [[f"kind={'ab'[number // 2 % 2]}"] for number in range(1, 14, 2)]
    assert sorted(json.loads(line)["condition"] for line in lines) == sorted(held_out)
    _assert_read_for_a_table_of_runs(tmp_path, figures)


def _assert_read_for_a_table_of_runs(folder, figures):
    (folder / "e").rename(folder / "evaluation")
    kids = []
    for each in read_evaluation(folder):
        assert each.kid.to_dict() == figures["rows"][each.name]["distances"][LATENTS]["kernel_distance"]
        share = figures["copies"][each.name]["share"]
        assert each.copies.to_dict() | {"doubt": each.doubt} == share
        assert each.step == figures["samples"][each.name]["drawn"]["step"]
        kids.append(each.kid.value)
    assert len(kids) == 2
    assert kids == sorted(kids)


def test_samples_are_compared_with_the_test_part_where_asked(made, tmp_path):
    parts = ("train", "val", "test")
    labels = {
        name: Annotation(labels={"split": parts[n % 3], "kind": "ab"[n % 2]}) for n, name in enumerate(VIDEOS)
    }
    config = TrainConfig(**SETTINGS, condition=("kind",))
    cache, run = open_cache(made / "latents.zarr"), tmp_path / "run"
    list(Trainer(config, cache, run, labels=labels, build_model=build_small).steps())
    code, out, err = evaluate(made, "--run", run, "--steps", "1", "-n", "4", "--held-out", "test")
    assert code == 0, err
    assert "Distances from 4 held-out clips of 4 test subjects" in out
    assert not (run / "evaluation").exists()
    figures = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    nearest = figures["copies"]["samples, 1 step"]["held_out"]["nearest"]
    assert {entry["video_id"] for entry in nearest} == set(VIDEOS[2::3])


def test_a_run_without_test_videos_cannot_be_tested(made):
    code, _, err = evaluate(made, "--run", made / "run", "--held-out", "test")
    assert code == 2
    assert "--held-out: got test, and no video was kept for testing; `vidlat split` writes a split" in err
    assert is_one_line(err)


@pytest.fixture
def damage(made, tmp_path):
    """Flips a byte of a video in a copy of the latents; the copy, and what `verify` finds in it."""

    def damage(video_id):
        path = tmp_path / "latents.zarr"
        shutil.copytree(made / "latents.zarr", path)
        cache = open_cache(path)
        shard = cache.records()[video_id].start // cache.schema.shard_frames
        file = path / shard_file("mean", shard)
        content = bytearray(file.read_bytes())
        content[40] ^= 1
        file.write_bytes(content)
        return path, {problem.where for problem in verify_cache(path)}

    return damage


@pytest.mark.parametrize(
    ("side", "num"),
    [("validation", 7), pytest.param("training", 2, marks=pytest.mark.slow)],
    ids=["compared", "that only the search meets"],
)
def test_damaged_videos_are_named_and_left_out(side, num, made, tmp_path, damage):
    run = read_run(made / "run")
    windows = ComparedWindows.of(run, open_cache(made / "latents.zarr"), num)
    compared = {place.record.video_id for place in (*windows.training, *windows.held_out)}
    victim = next(id for id in getattr(run, side) if num == 7 or id not in compared)
    latents, damaged = damage(victim)
    assert damaged == {victim}
    arguments = "--run", made / "run", "--out", tmp_path / "e", "--steps", 1, "-n", num
    code, out, err = vidlat("evaluate", "--latents", latents, "--device", "cpu", *arguments)
    assert (code, err) == (3, "")
    assert "1 damaged video left out" in out
    assert f"Left out, being damaged: {victim}." in out
    figures = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert figures["damaged"].keys() == damaged
    (copies,) = figures["copies"].values()
    assert victim not in {each["video_id"] for each in copies["nearest"]}
    num_whole = 7 - (side == "validation")
    assert copies["held_out"]["subjects"] == num_whole
    assert figures["held_out"]["num_groups"] == min(num, num_whole)


def test_where_nothing_whole_is_left_the_damage_is_told(made, tmp_path):
    shutil.copytree(made / "latents.zarr", tmp_path / "latents.zarr")
    for file in (tmp_path / "latents.zarr" / "mean").rglob("0"):
        if file.is_file():
            file.write_bytes(b"")
    arguments = "--run", made / "run", "--out", tmp_path / "e", "--steps", 1, "-n", 2
    code, _, err = vidlat("evaluate", "--latents", tmp_path / "latents.zarr", "--device", "cpu", *arguments)
    assert (code, is_one_line(err), "damaged" in err) == (1, True, True), err


def test_samples_that_are_there_are_not_drawn_again(made, tmp_path):
    settings = EvaluateConfig(steps=(1,), num=7, device="cpu")
    run, drawn = {"run": made / "run"}, tmp_path / "samples" / "steps-1"

    def interrupt(stage, *_):
        if len(list(drawn.glob("*.npy"))) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_samples(made / "latents.zarr", tmp_path, settings, **run, on_progress=interrupt)
    before = {path: path.stat().st_mtime_ns for path in drawn.glob("*.npy")}
    assert len(before) == 3
    found = evaluate_samples(made / "latents.zarr", tmp_path, settings, **run)
    assert found.samples["samples, 1 step"].num_clips == 7
    assert before.items() <= {path: path.stat().st_mtime_ns for path in drawn.glob("*.npy")}.items()


def test_an_interrupted_evaluation_says_that_samples_are_kept(made, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("vidlat.commands.evaluate_samples.evaluate_samples", interrupted)
    arguments = "--latents", made / "latents.zarr", "--run", made / "run", "--out", tmp_path / "e"
    code, out, err = vidlat("evaluate", *arguments, "--device", "cpu")
    assert (code, err) == (130, "Interrupted.\n")
    assert f"Samples that were drawn are kept in {tmp_path / 'e'}; the same command continues." in out


@pytest.fixture(scope="module")
def real_clips(made):
    """Decoded clips of the run's held-out videos."""
    cache, run = open_cache(made / "latents.zarr"), read_run(made / "run")
    windows = ComparedWindows.of(run, cache, 7)
    vae = load_vae_of(run.schema, device="cpu", batch=2)
    return RealClips(cache, vae, run.window_shape(), 8).clips(windows.held_out, windows.subjects, {})


@pytest.mark.slow
def test_planted_real_clips_are_real_and_those_that_stand_still_are_not(made, real_clips, tmp_path):
    kinds = {"real": real_clips, "still": moving_and_still(real_clips)[1]}
    rows = {}
    for kind, clips in kinds.items():
        (tmp_path / kind).mkdir()
        for number, clip in enumerate(clips):
            write_array(tmp_path / kind / f"{number}.npy", clip.frames())
        out = tmp_path / f"{kind}-evaluation"
        code, _, err = evaluate(made, "--samples", tmp_path / kind, "--run", made / "run", "--out", out)
        assert code == 0, err
        rows[kind] = json.loads((out / "evaluation.json").read_text())["rows"]["samples"]
    real, still = (rows[kind]["distances"][LATENTS]["kernel_distance"] for kind in ("real", "still"))
    assert real["value"] <= 0  # each is there on both sides, and nearer than any two subjects
    assert still["low"] > real["high"]
    assert rows["real"]["motion_inside"]["value"] == pytest.approx(1, abs=0.01)
    assert rows["still"]["motion_inside"]["value"] == 0


def test_a_folder_of_videos_needs_no_run(made, tmp_path):
    """The split is that of a training's defaults, and clips are as long as whole VAE calls of the first."""
    (tmp_path / "v").mkdir()
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 256, (11, 24, 24), np.uint8)
        write_array(tmp_path / "v" / f"{number}.npy", frames)
    code, out, err = evaluate(made, "--samples", tmp_path / "v", "--out", tmp_path / "e", "-n", "2")
    assert code == 0, err
    figures = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert figures["run"]["frames"] == 8
    assert figures["rows"]["samples"]["num_clips"] == 2
    assert figures["adherence"] == figures["copies"] == {}
    assert figures["rows"]["samples"]["distances"][LATENTS]["frechet_distance"]["value"] is None
    assert re.search("Only . subjects? among the held-out clips that are compared: with other subjects", out)


def test_a_damaged_description_of_samples_is_refused_with_what_measures_them(made, tmp_path):
    folder, out = tmp_path / "v", tmp_path / "e"
    folder.mkdir()
    for number in range(2):
        write_array(folder / f"{number}.npy", moving_noise(number)[:8])
    (folder / "samples.jsonl").write_text("nothing\n")
    arguments = "--samples", folder, "--run", made / "run", "--out", out
    code, _, err = evaluate(made, *arguments)
    assert (code, is_one_line(err)) == (1, True)
    assert "to measure these samples, without their conditions, remove it alone" in err
    (folder / "samples.jsonl").unlink()
    assert evaluate(made, *arguments)[0] == 0


@pytest.mark.slow
def test_samples_that_were_drawn_in_different_ways_are_told(made, tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    for number in range(6):
        write_array(folder / f"{number}.npy", moving_noise(number)[:8])
    conditions = [["kind=a"], ["kind=a"], ["kind=a"], [], []]
    lines = [{"drawn": {}}] + [
        {"name": f"{number}.npy", "seed": number, "condition": each, "seconds": 1.0, "num_rejected": 0}
        for number, each in enumerate(conditions)
    ]
    arguments = "--samples", folder, "--run", made / "run", "--out", tmp_path / "e"
    told = "Measured as one set, though drawn in different ways: "
    for kept, expected in ((lines, "3 with kind=a, 2 without condition, 1 unknown how."), (lines[:4], None)):
        (folder / "samples.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in kept))
        if expected is None:
            for number in (3, 4, 5):
                (folder / f"{number}.npy").unlink()
        code, out, err = evaluate(made, *arguments)
        assert code == 0, err
        assert (told + expected in out) if expected else (told not in out)


def test_videos_longer_than_the_clips_of_the_cache_are_refused_with_what_to_do(made, tmp_path):
    (tmp_path / "v").mkdir()
    write_array(tmp_path / "v" / "a.npy", np.zeros((50, 16, 16), np.uint8))
    code, _, err = evaluate(made, "--samples", tmp_path / "v", "--out", tmp_path / "e")
    assert (code, is_one_line(err)) == (1, True)
    assert re.search(r"a\.npy: has 50 frames, and the longest of \d+ held-out clips of .* has 12 in", err), (
        err
    )
    assert "cut your videos to 12 frames, or encode longer ones" in err
    assert "--frames" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be evaluated? --input VIDEOS"),
        (
            ["--input", "v", "--run", "RUN"],
            "--input compares latents with their sources, and --run measures sa",
        ),
        (["--input", "v", "--steps", "4"], "and --steps measures samples; leave one of the two out"),
        (["--run", "RUN", "--max-videos", "3"], "--run and --samples measure samples, and --max-videos comp"),
        (["--samples", "v", "--steps", "4"], "and --steps says how to draw them; leave one of the two out"),
        (["--samples", "v", "--average-length", "0.1"], "and --average-length says how to draw"),
        (["--samples", "v"], "--out is missing: with --samples"),
        (["--run", "RUN", "--steps", "0"], "steps: got 0; expected at least 1"),
        (["--run", "RUN", "-n", "1"], "num: got 1; expected at least 2"),
        (["--run", "RUN", "--features", "hub:x"], "features: got hub:x; expected hub:OWNER"),
        (["--run", "RUN", "--guidance", "2", "--out", "OUT", "--json", "q.txt"], "is written as .json"),
    ],
)
def test_wrong_flags_are_refused(made, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    places = {"RUN": made / "run", "OUT": tmp_path / "e"}
    code, out, err = evaluate(made, *(places.get(text, text) for text in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert is_one_line(err)


def test_what_does_not_fit_is_refused_in_one_line(made, tmp_path, make_cache):
    other, _ = make_cache({"a.mp4": 16})
    (tmp_path / "short").mkdir()
    write_array(tmp_path / "short" / "a.npy", np.zeros((3, 16, 16), np.uint8))
    (tmp_path / "e" / "samples" / "steps-1").mkdir(parents=True)
    (tmp_path / "e" / "samples" / "steps-1" / "sample-0000.npy").touch()
    out = "--out", tmp_path / "e"
    cases = {
        ("--latents", other.path, "--run", made / "run"): "was trained on a cache with other settings",
        ("--run", tmp_path): "is not a run: it has no config.json",
        ("--samples", tmp_path, *out): "holds no video",
        ("--samples", tmp_path, "--out", tmp_path): "is the folder of the samples; give one of its own",
        ("--samples", tmp_path / "short", *out): "has 3 frames; expected at least the 4 of a VAE call",
        ("--samples", tmp_path / "short", "--run", made / "run", *out): "has 3 frames; expected at least 8",
        ("--run", made / "run", "--steps", "1", "-n", "2", *out): "no samples.jsonl that tells how",
    }
    for arguments, message in cases.items():
        latents = () if "--latents" in arguments else ("--latents", made / "latents.zarr")
        code, _, err = vidlat("evaluate", *latents, "--device", "cpu", *arguments)
        assert (code, message in err, is_one_line(err)) == (1, True, True), err


def test_a_run_without_held_out_clips_or_that_continues_pictures_is_refused(made, tmp_path):
    for name, settings, code, message in (
        (
            "all",
            {"validation_fraction": 0.0},
            1,
            "no held-out clips .* --validation-fraction above 0",
        ),
        ("long", {"frames": 16}, 1, "none of 2 videos has the 16 frames .* fewer --frames"),
        ("first", {"first_frame": 1.0}, 2, "continue pictures .* give their folder by --samples"),
    ):
        config = TrainConfig(**SETTINGS | settings)
        Trainer(config, open_cache(made / "latents.zarr"), tmp_path / name, build_model=build_small).close()
        found, _, err = evaluate(made, "--run", tmp_path / name)
        assert found == code
        assert re.search(message, err), err


def test_samples_have_the_conditions_of_held_out_videos_evenly(made):
    run = read_run(made / "run")
    kinds = sorted((f"kind={run.labels[video_id]['kind']}",) for video_id in run.validation)
    conditions = conditions_for(run, 14, seed=3)
    assert sorted(conditions[:7]) == sorted(conditions[7:]) == kinds
    assert conditions_for(run, 3, seed=3) == conditions[:3]
    other = replace(run, duplicates=((run.validation[0], run.training[0]),))
    assert sorted(conditions_for(other, 6, seed=0)) == sorted(
        (f"kind={run.labels[video_id]['kind']}",) for video_id in run.validation[1:]
    )


def test_videos_without_all_conditions_are_passed_over_unless_all_are_such(made):
    run = read_run(made / "run")
    unknown = {video_id: {} for video_id in run.validation[1:]}
    some = replace(run, labels=run.labels | unknown)
    assert set(conditions_for(some, 9, seed=0)) == {(f"kind={run.labels[run.validation[0]]['kind']}",)}
    none = replace(run, labels=run.labels | {video_id: {"kind": "c"} for video_id in run.validation})
    assert conditions_for(none, 2, seed=0) == [(), ()]
