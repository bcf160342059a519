"""When the metrics of steps reach the disk."""

import pytest

from vidlat.train.recorder import NUM_TOGETHER, Recorder, StepRecord


def record(step):
    return StepRecord(
        step=step, loss=1.0, learning_rate=1e-4, grad_norm=1.0, steps_per_second=1.0, data_wait=0.0
    )


def test_fast_steps_are_written_together_and_a_slow_one_waits_for_no_others(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("vidlat.train.recorder.time.monotonic", lambda: now)
    recorder = Recorder(tmp_path, 0, {})

    def num_lines():
        return len((tmp_path / "metrics.jsonl").read_text().splitlines())

    for step in range(1, NUM_TOGETHER):
        recorder.write([record(step)])
    assert num_lines() == 0
    recorder.write([record(NUM_TOGETHER)])
    assert num_lines() == NUM_TOGETHER
    recorder.write([record(NUM_TOGETHER + 1)])
    now = 1.5
    recorder.write([record(NUM_TOGETHER + 2)])
    assert num_lines() == NUM_TOGETHER + 2
    recorder.close()


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": 1' + "0" * 400 + "}", "{}", "\0"])
def test_lines_from_a_damaged_one_on_are_dropped(line, tmp_path):
    good = '{"step": 1}\n'
    (tmp_path / "metrics.jsonl").write_text(f'{good}{line}\n{{"step": 2}}\n')
    Recorder(tmp_path, 2, {}).close()
    assert (tmp_path / "metrics.jsonl").read_text() == good


def test_at_the_end_of_python_no_thread_is_waited_for(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, 0, {})
    events = recorder._events
    monkeypatch.setattr(recorder, "_events", None)  # to touch it would raise
    recorder.write([record(1)])
    monkeypatch.setattr("vidlat.train.recorder.sys.is_finalizing", lambda: True)
    recorder.close()
    events.close()
