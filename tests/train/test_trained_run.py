import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.train.toys import CacheMaker, build_small, random_posterior
from vidlat.errors import TrainError
from vidlat.store.reader import open_cache
from vidlat.train.runs.run_folder import EVENT_FILES, hold_run, load_run, read_run


def other_latents(video_id, num_latent_frames):
    return random_posterior(video_id + "changed", num_latent_frames)


def test_a_loaded_run_holds_the_averaged_weights_and_what_sampling_needs(make_trainer, tmp_path):
    trainer = make_trainer(steps=3)
    list(trainer.steps())
    torch.manual_seed(99)
    loaded = load_run(tmp_path / "run", build_model=build_small)
    assert loaded.step == 3
    assert not loaded.model.training
    for name, value in trainer.state.ema.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], value, rtol=0, atol=0)
    assert loaded.run == trainer.run
    assert loaded.run.latent_shape() == (2, 2, 4, 4)
    assert loaded.run.schema.settings.encoder_hash == "a" * 64
    assert loaded.run.schema.vae_path == "vae.safetensors"


def test_config_json_holds_everything_the_run_froze(make_trainer, cache, tmp_path):
    trainer = make_trainer(precision="auto", validation_fraction=0.3)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["config"]["precision"] == "float32"
    assert written["config"]["batch"] == 2
    assert written["cache"]["cache_id"] == cache.schema.cache_id
    assert sorted(written["training"] + written["validation"]) == list(cache.records())
    assert written["latent_crc32c"] == {id: r.latents.crc32c for id, r in cache.records().items()}
    assert written["whitening"] == json.loads(json.dumps(trainer.run.whitening.to_dict()))
    assert written["median_fps"] == 30.0


def test_whitening_is_of_the_training_videos_alone(make_cache, make_trainer):
    cache, maker = make_cache({"a.mp4": 16, "b.mp4": 16}, name="two.zarr")
    before = make_trainer("before", cache=cache).run
    (held_out,) = before.validation

    def loud(video_id, num_latent_frames):
        mean, std = random_posterior(video_id, num_latent_frames)
        return mean * np.float16(100), std

    changed = make_trainer("after", cache=maker.add({held_out: 16}, posterior=loud)).run
    assert changed.whitening == before.whitening


def test_median_rate_ignores_videos_of_unknown_rate(make_cache, make_trainer):
    cache, maker = make_cache({"a.mp4": 16, "b.mp4": 16, "c.mp4": 16}, name="rates.zarr", fps=0.0)
    assert make_trainer("unknown", cache=cache).run.median_fps == 0.0
    cache = maker.add({"d.mp4": 16, "e.mp4": 16, "f.mp4": 16}, fps=25.0)
    assert make_trainer("known", cache=cache).run.median_fps == 25.0


def test_a_cache_that_grew_does_not_change_a_run(make_cache, make_trainer):
    cache, maker = make_cache({"a.mp4": 16, "b.mp4": 23, "c.mp4": 40}, name="growing.zarr")
    whole = make_trainer("whole", cache=cache)
    list(whole.steps())
    steps = make_trainer("killed", cache=cache, checkpoint_every=2).steps()
    [next(steps) for _ in range(3)]
    steps.close()
    grown = maker.add({f"new_{i}.mp4": 16 for i in range(10)})
    resumed = make_trainer("killed", cache=grown, checkpoint_every=2, resume=True)
    list(resumed.steps())
    assert resumed.run.training == whole.run.training
    assert any("10 videos of the cache came after the run was started" in note for note in resumed.notes)
    assert not any("came after" in note for note in whole.notes)
    torch.testing.assert_close(resumed.state.model.mix.weight, whole.state.model.mix.weight, rtol=0, atol=0)


def test_resuming_is_refused_when_a_listed_video_changed(make_cache, make_trainer):
    cache, maker = make_cache({"a.mp4": 16, "b.mp4": 23, "c.mp4": 40}, name="changing.zarr")
    make_trainer(cache=cache)
    changed = maker.add({"b.mp4": 23}, posterior=other_latents)
    with pytest.raises(TrainError, match=r"does not fit the cache .*: its videos are changed: b\.mp4;"):
        make_trainer(cache=changed, resume=True)


def test_resuming_is_refused_when_listed_videos_are_gone(make_cache, make_trainer):
    many = {f"{i}.mp4": 16 for i in range(8)}
    make_trainer(cache=make_cache(many, name="all.zarr")[0])
    left, _ = make_cache({"0.mp4": 16}, name="left.zarr")
    with pytest.raises(TrainError, match=r"gone: 1\.mp4, 2\.mp4, 3\.mp4, 4\.mp4, 5\.mp4 and 2 more;"):
        make_trainer(cache=left, resume=True)


def test_resuming_on_a_cache_of_another_vae_is_refused(make_trainer, tmp_path):
    make_trainer()
    other = CacheMaker(tmp_path / "other.zarr", encoder_hash="b" * 64).add({"a.mp4": 16})
    with pytest.raises(TrainError, match=r"other settings \(encoder_hash differ\)"):
        make_trainer(cache=other, resume=True)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch", 3, "batch: got 3, the run has 2"),
        ("seed", 5, "seed: got 5, the run has 0"),
        ("weight_decay", 0.5, "weight_decay: got 0.5, the run has 0.01"),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(make_trainer, setting, value, message):
    make_trainer()
    with pytest.raises(TrainError, match=re.escape(message)):
        make_trainer(resume=True, **{setting: value})


def test_resuming_may_change_the_number_of_steps_and_remembers_it(make_trainer, tmp_path):
    make_trainer(steps=6)
    make_trainer(resume=True, steps=9)
    assert read_run(tmp_path / "run").config.steps == 9


def test_resuming_a_finished_run_writes_nothing(make_trainer, tmp_path):
    list(make_trainer(steps=6).steps())
    before = (tmp_path / "run" / "config.json").read_bytes()
    for steps in (6, 2):
        trainer = make_trainer(resume=True, steps=steps)
        assert list(trainer.steps()) == []
        assert trainer.notes == make_trainer("other").notes
        del trainer
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_new_end_of_a_run_changes_its_learning_rate_and_says_so(make_trainer):
    list(make_trainer(steps=4).steps())
    (note,) = make_trainer(resume=True, steps=9).notes
    assert "was planned for 4 steps and now has 9: from step 5 on, its learning rate" in note
    assert make_trainer(resume=True, steps=9).notes == ()


def test_a_run_without_a_checkpoint_is_replaced(make_trainer, tmp_path):
    run = tmp_path / "run"
    failed = make_trainer(batch=1, steps=9)
    steps = failed.steps()
    next(steps), next(steps)
    steps.close()
    failed.close()
    (run / "checkpoints/step_00000002.partial").mkdir(parents=True)
    events = set(run.glob(EVENT_FILES))
    trainer = make_trainer(batch=3, steps=1)
    assert read_run(run).config.batch == 3
    list(trainer.steps())
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert events
    assert events.isdisjoint(run.glob(EVENT_FILES))
    assert [file.name for file in (run / "checkpoints").iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainers_in_one_folder_are_refused(make_trainer, resume):
    first = make_trainer()
    with pytest.raises(TrainError, match=r"another process trains in .*run"):
        make_trainer(resume=resume)
    assert len(list(first.steps())) == 6
    first.close()
    make_trainer(resume=True)


HOLDS = """
import sys
from pathlib import Path
from vidlat.train.runs.run_folder import hold_run
held = hold_run(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_trainer_of_another_process_is_refused(make_trainer, tmp_path):
    make_trainer()
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TrainError, match=r"another process trains in .*run"):
            make_trainer(resume=True)
        other.kill()
    make_trainer(resume=True)


def test_a_refused_trainer_does_not_keep_the_folder(make_trainer):
    list(make_trainer().steps())
    with pytest.raises(TrainError, match="already holds a run") as caught:
        make_trainer()
    make_trainer(resume=True)
    assert caught.value.__traceback__ is not None


def test_a_folder_that_holds_a_run_is_not_trained_into(make_trainer):
    list(make_trainer().steps())
    with pytest.raises(TrainError, match=r"already holds a run; continue it with --resume"):
        make_trainer()


def test_resuming_without_a_run_is_refused(make_trainer):
    with pytest.raises(TrainError, match=r"is not a run: there is no such folder"):
        make_trainer(resume=True)


def test_an_empty_cache_is_refused(make_trainer, tmp_path):
    CacheMaker(tmp_path / "empty.zarr")
    with pytest.raises(TrainError, match="holds no video to train on"):
        make_trainer(cache=open_cache(tmp_path / "empty.zarr"))
    assert not (tmp_path / "run").exists()


def test_a_clip_that_is_not_whole_stacks_is_refused_and_leaves_no_run(make_trainer, tmp_path):
    with pytest.raises(TrainError, match=r"frames: got 10; .*nearest is 8"):
        make_trainer(frames=10)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_run_is_refused(make_trainer, tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(TrainError, match="cannot hold a run"):
        make_trainer()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "lock"])
def test_a_link_or_a_pipe_in_the_place_of_a_file_is_refused(make_trainer, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(TrainError, match=rf"cannot hold a run \(.*{name}: is a link"):
        make_trainer()
    assert not (tmp_path / "outside").exists()
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(TrainError, match=rf"cannot hold a run \(.*{name}: is a named pipe"):
        make_trainer()


@pytest.mark.parametrize("name", ["checkpoints", "validation", "samples"])
def test_a_linked_folder_inside_a_run_is_refused_and_its_target_left_alone(make_trainer, tmp_path, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(TrainError, match=rf"cannot hold a run \(.*{name}: is a link; expected a folder"):
        make_trainer()
    assert not list((tmp_path / "outside").iterdir())


def test_a_link_with_the_temporary_name_of_a_checkpoint_is_never_followed(make_trainer, tmp_path):
    folder, file = tmp_path / "outside", tmp_path / "outside" / "file"
    folder.mkdir()
    file.write_text("kept")
    link = tmp_path / "run" / "checkpoints/step_00000002.partial"
    link.parent.mkdir(parents=True)
    link.symlink_to(folder)
    assert len(list(make_trainer(steps=2).steps())) == 2
    assert file.read_text() == "kept"
    assert list(folder.iterdir()) == [file]


def test_a_run_folder_may_itself_be_a_link(make_trainer, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk", target_is_directory=True)
    list(make_trainer(steps=2).steps())
    assert (tmp_path / "disk" / "config.json").is_file()


def test_loading_a_folder_without_a_run_is_refused(tmp_path):
    expected = "start one with `vidlat train`$"
    with pytest.raises(TrainError, match=f"nothing is not a run: there is no such folder; {expected}"):
        load_run(tmp_path / "nothing")
    with pytest.raises(TrainError, match=rf"is not a run: it has no config\.json; {expected}"):
        load_run(tmp_path)


def test_loading_refuses_a_run_without_a_checkpoint(make_trainer, tmp_path):
    make_trainer()
    with pytest.raises(TrainError, match="has no checkpoint yet"):
        load_run(tmp_path / "run", build_model=build_small)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"config": {}}', '{"config": {"stepz": 3}}', '{"config": {}, "cache": {}}']
)
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(TrainError, match=r"config\.json cannot be read as a run's settings"):
        load_run(tmp_path)


def test_a_folder_of_other_files_is_no_place_for_a_run(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4", ".hidden"):
        (clips / name).write_bytes(b"a clip")
    with pytest.raises(
        TrainError, match=r"clips holds a\.mp4, b\.mp4, and no run; give a new folder as --out$"
    ):
        hold_run(clips)
    assert sorted(path.name for path in clips.iterdir()) == [".hidden", "a.mp4", "b.mp4"]
    for name in ("a.mp4", "b.mp4"):
        (clips / name).unlink()
    hold_run(clips).close()
    (clips / "notes.txt").write_text("of a run")
    (clips / "config.json").write_text("{}")
    hold_run(clips).close()
