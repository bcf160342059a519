"""A training reports to the trackers of Accelerate what it writes into its own files."""

import json
from typing import get_args

import pytest
from accelerate import PartialState, tracking

from vidlat.config.train import Tracker
from vidlat.errors import ConfigError, TrainError
from vidlat.train import trackers
from vidlat.train.runs.run_folder import read_run


class KeepingTracker(tracking.GeneralTracker):
    """Keeps what it is told, as one of Accelerate's trackers."""

    name, requires_logging_directory, kept = "trackio", False, []
    fails_at = ""

    def __init__(self, project, name):
        super().__init__()
        self.kept.append(("init", project, name))

    def start(self):
        self._note("start")

    @property
    def tracker(self):
        return self.kept

    def store_init_configuration(self, values):
        self._note("settings", values)

    def log(self, values, step=None, **_):
        self._note("log", values | {"step": step})

    def finish(self):
        self._note("finish")

    def _note(self, what, values=None):
        tracking.logger.debug("as every tracker of Accelerate does")
        if what == self.fails_at:
            raise RuntimeError("no route\nto host")
        self.kept.append((what, values))


@pytest.fixture
def kept(monkeypatch):
    """What a tracker that stands for trackio is told."""
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", KeepingTracker)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard", "trackio"])
    monkeypatch.setattr(KeepingTracker, "kept", [])
    PartialState._reset_state()
    return KeepingTracker.kept


def test_a_tracker_is_told_the_settings_and_every_step(kept, make_trainer, tmp_path):
    list(make_trainer(steps=3, tracker=("tensorboard", "trackio"), validate_every=2).steps())
    assert [what for what, *_ in kept] == ["init", "start", "settings", "log", "log", "log", "finish"]
    assert kept[0] == ("init", "vidlat", "run")
    assert kept[2][1]["batch"] == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [values for what, values, *_ in kept if what == "log"] == lines


def test_a_resumed_training_may_have_another_tracker(kept, make_trainer, tmp_path):
    list(make_trainer(steps=2).steps())
    list(make_trainer(steps=4, resume=True, tracker=("trackio",)).steps())
    assert [values["step"] for what, values, *_ in kept if what == "log"] == [3, 4]
    assert read_run(tmp_path / "run").config.tracker == ("trackio",)


def test_a_tracker_that_fails_does_not_end_a_training(kept, make_trainer, monkeypatch, capsys):
    monkeypatch.setattr(KeepingTracker, "fails_at", "log")
    assert len(list(make_trainer(steps=3, tracker=("trackio",)).steps())) == 3
    assert capsys.readouterr().err == "The training goes on without trackio, which failed: no route to host\n"


def test_a_tracker_that_does_not_start_is_named_in_a_line(kept, make_trainer, monkeypatch):
    monkeypatch.setattr(KeepingTracker, "fails_at", "start")
    with pytest.raises(TrainError, match=r"tracker: trackio does not start \(no route to host\)"):
        next(make_trainer(tracker=("trackio",)).steps())


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(make_trainer, tmp_path):
    with pytest.raises(TrainError, match=r"tracker: comet_ml not installed; .* `pip install comet-ml`"):
        make_trainer(tracker=("comet_ml",))
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(make_trainer):
    with pytest.raises(ConfigError, match="tracker: got 'paper'"):
        make_trainer(tracker=("paper",))


def test_every_tracker_of_accelerate_can_be_named():
    """Accelerate's list is the oracle."""
    assert set(get_args(Tracker)) == {str(name) for name in tracking.LOGGER_TYPE_TO_CLASS}
    assert set(trackers._RUN_NAME) < set(get_args(Tracker))
