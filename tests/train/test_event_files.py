"""What TensorBoard finds in the folder of a run, as its own readers read it."""

import pytest
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata

from vidlat.config import TrainConfig
from vidlat.train.event_files import EventFiles


def read(folder):
    return EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()


def test_runs_are_named_after_their_folders_and_losses_share_the_first_chart(make_trainer, tmp_path):
    for name in ("first", "second"):
        list(make_trainer(f"runs/{name}", steps=4, validate_every=2, validation_fraction=0.3).steps())
    found = read(tmp_path / "runs")
    assert sorted(found.Runs()) == ["first", "first/validation", "second", "second/validation"]
    assert [event.step for event in found.Scalars("first", "loss")] == [1, 2, 3, 4]
    assert [event.step for event in found.Scalars("first/validation", "loss")] == [2, 4]
    tags = {tag for run in found.Runs() for tag in found.Runs()[run]["scalars"]}
    assert sorted(tags)[:2] == ["loss", "loss_as_trained"]
    assert "training/learning_rate" in tags


def test_settings_are_a_text_and_hyperparameters_beside_both_losses(make_trainer, tmp_path):
    settings = {"condition": (), "learning_rate": 1e-3, "compile": False}
    trainer = make_trainer("runs/first", steps=2, validate_every=2, validation_fraction=0.3, **settings)
    list(trainer.steps())
    found = read(tmp_path / "runs")
    (text,) = found.Tensors("first", "settings/text_summary")
    assert "| learning_rate | 0.001 |" in text.tensor_proto.string_val[0].decode()
    content = found.SummaryMetadata("first", metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.group_name == "first"
    assert start.hparams["learning_rate"].number_value == 1e-3
    assert start.hparams["objective"].string_value == "flow"
    assert start.hparams["compile"].WhichOneof("kind") == "bool_value"
    content = found.SummaryMetadata("first", metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    shown = {(figure.name.group, figure.name.tag) for figure in experiment.metric_infos}
    assert {("", "loss"), ("validation", "loss")} <= shown
    known = {name for name, value in trainer.settings.to_dict().items() if value is not None}
    assert {info.name for info in experiment.hparam_infos} == known


@pytest.mark.parametrize("value", ["a|b", "<script>x</script>", "two\nlines", "", "\x1b[31m"])
def test_a_hostile_setting_stays_in_its_cell(tmp_path, value):
    EventFiles(tmp_path / "run", 0, {"init": value, "seed": 1}).close()
    (text,) = read(tmp_path).Tensors("run", "settings/text_summary")
    lines = text.tensor_proto.string_val[0].decode().split("\n")
    assert len(lines) == 4
    assert all(line.count("|") == 3 for line in lines)
    assert lines[3] == "| seed | 1 |"


def test_a_training_without_validation_is_one_run(make_trainer, tmp_path):
    list(make_trainer("runs/only", steps=2, validation_fraction=0.0).steps())
    assert list(read(tmp_path / "runs").Runs()) == ["only"]


def test_every_setting_can_be_shown(tmp_path):
    EventFiles(tmp_path / "run", 0, TrainConfig().to_dict()).close()
    assert "run" in read(tmp_path).Runs()
