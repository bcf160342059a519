"""What a progress bar says is left, by a clock that the test moves."""

from types import SimpleNamespace

import pytest

from vidlat.commands import display


@pytest.fixture
def clock():
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def bar(clock):
    bar = display.progress_bar(show=False)
    bar.get_time = lambda: clock.now
    return bar


def left(bar):
    (task,) = bar.tasks
    (column,) = (column for column in bar.columns if isinstance(column, display._TimeLeft))
    return str(column.render(task))


def test_what_is_left_goes_on_at_the_mean_speed_however_close_two_reports_are(bar, clock):
    task = bar.add_task("encoding", total=4)
    assert left(bar) == "-:--:--"
    clock.now += 60
    bar.advance(task)
    assert left(bar) == "0:03:00"
    clock.now += 0.1
    bar.advance(task)
    assert left(bar) == "0:01:00"
    clock.now += 20  # without news, time passes
    assert left(bar) == "0:00:40"
    clock.now += 100
    assert left(bar) == "0:00:00"
    bar.update(task, completed=4)
    assert left(bar) == "0:00:00"


def test_a_stage_began_when_the_one_before_had_ended(bar, clock):
    stages = display.Stages(bar)
    clock.now += 10
    stages.show("reading", 2, 2)
    clock.now += 30
    stages.advance("comparing", 1, 3)
    reading, comparing = bar.tasks
    assert (reading.completed, comparing.completed) == (2, 1)
    (column,) = (column for column in bar.columns if isinstance(column, display._TimeLeft))
    assert (str(column.render(reading)), str(column.render(comparing))) == ("0:00:00", "0:01:00")


def test_steps_of_an_earlier_run_and_the_start_of_processes_say_nothing_about_the_speed(bar, clock):
    task = bar.add_task("training", total=100, completed=90)
    clock.now += 500
    bar.update(task, description="trains", began=clock.now)
    assert left(bar) == "-:--:--"
    clock.now += 10
    bar.update(task, completed=91)
    assert left(bar) == "0:01:30"


def test_a_first_advance_by_nothing_says_that_the_work_begins_now(bar, clock):
    task = bar.add_task("sampling", total=4)
    clock.now += 600
    bar.advance(task, 0)
    assert left(bar) == "-:--:--"
    clock.now += 10
    bar.advance(task)
    assert left(bar) == "0:00:30"
    clock.now += 10
    bar.advance(task, 0)
    bar.advance(task)
    assert left(bar) == "0:00:20"


def test_the_share_of_the_work_counts_rather_than_that_of_the_videos(bar, clock):
    task = bar.add_task("encoding", total=2)
    clock.now += 30
    bar.update(task, completed=0, share=0.25)
    assert left(bar) == "0:01:30"
    bar.update(task, completed=1, share=0.75)
    assert left(bar) == "0:00:10"


def test_a_log_file_gets_a_line_of_what_goes_on_and_at_the_end_each_stage_once(monkeypatch, capsys):
    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", -1)
    with display.progress_bar() as bar:
        stages = display.Stages(bar)
        stages.show("reading", 1, 1)
        stages.show("comparing", 1, 2)
        stages.show("comparing", 2, 2)
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == ["reading", "comparing", "comparing", "reading", "comparing"]
