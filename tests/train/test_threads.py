"""The number of threads of a run: the fastest of those tried, kept for whoever resumes it."""

from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, strategies as st

from vidlat.resources import LIMITED, THREADS
from vidlat.train import threads as threads_module
from vidlat.train.runs.run_folder import read_run
from vidlat.train.threads import MARGIN, fastest, least_seconds, try_threads

SECONDS = st.floats(0.01, 100)


@given(most=st.integers(1, 255), seconds=st.lists(SECONDS, min_size=8, max_size=8))
def test_halves_are_tried_while_they_are_faster(most, seconds):
    asked = []

    def seconds_with(number):
        asked.append(number)
        return seconds[len(asked) - 1]

    tried = try_threads(seconds_with, most)
    assert list(tried) == asked
    assert asked == [most >> n for n in range(len(asked))]
    slower = [n for n, (before, after) in enumerate(pairwise(seconds), 1) if after >= before]
    assert len(asked) == min(most.bit_length(), *(n + 1 for n in slower), len(seconds))


@given(st.dictionaries(st.integers(1, 64), SECONDS, min_size=1))
def test_all_cores_unless_fewer_are_faster_by_the_margin(tried):
    chosen = fastest(tried)
    assert tried[chosen] * MARGIN >= 0.999 * min(tried.values()) * MARGIN
    if chosen == max(tried):
        assert tried[chosen] <= MARGIN * min(tried.values())
    else:
        assert tried[chosen] == min(tried.values())
        assert tried[max(tried)] > MARGIN * tried[chosen]


def test_a_call_is_timed_after_one_that_warms_up(monkeypatch):
    calls = []
    clock = iter([0.0, 0.3, 1.0, 1.2, 2.0, 2.4])
    monkeypatch.setattr("vidlat.train.threads.time.perf_counter", lambda: next(clock))
    assert least_seconds(lambda: calls.append(0)) == pytest.approx(0.2)
    assert len(calls) == 4


@pytest.fixture
def on_cores(monkeypatch):
    """on_cores(seconds by threads): a machine with as many cores as the most of these; the numbers tried."""
    asked, before = [], torch.get_num_threads()
    monkeypatch.delenv(THREADS, raising=False)

    def machine(seconds):
        def scripted(compute):
            compute()
            asked.append(torch.get_num_threads())
            return seconds[asked[-1]]

        monkeypatch.setattr(threads_module, "num_cores", lambda: max(seconds))
        monkeypatch.setattr(threads_module, "least_seconds", scripted)
        return asked

    yield machine
    torch.set_num_threads(before)


def weights(trainer):
    """Those after five steps: a run of as few would try nothing."""
    list(islice(trainer.steps(), 5))
    trainer.close()
    return list(trainer.state.model.state_dict().values())


@pytest.mark.parametrize(("seconds", "chosen"), [({2: 9.0, 1: 3.0}, 1), ({2: 1.1, 1: 1.0}, 2)])
def test_a_run_keeps_the_fastest_number_and_learns_as_without_a_trial(
    make_trainer, tmp_path, on_cores, seconds, chosen
):
    asked = on_cores(seconds)
    trainer = make_trainer("tried", steps=60)
    trainer.choose_threads()
    assert asked == [2, 1]
    assert torch.get_num_threads() == trainer.settings.threads == chosen
    note = (
        f"a step takes {seconds[2]:.2f} s with 2 threads, {seconds[1]:.2f} s with 1; the run keeps --threads"
    )
    assert f"{note} {chosen} " in " ".join(trainer.notes)
    assert read_run(tmp_path / "tried").config.threads == chosen
    learned = weights(trainer)
    given = make_trainer("given", steps=60, threads=chosen)
    given.choose_threads()
    assert asked == [2, 1]
    assert all(map(torch.equal, learned, weights(given)))


def test_a_resumed_run_computes_with_the_threads_of_its_start(make_trainer, on_cores):
    on_cores({2: 9.0, 1: 3.0})
    trainer = make_trainer(steps=60)
    trainer.choose_threads()
    steps = trainer.steps()
    next(steps)
    trainer.stop()
    list(steps)
    trainer.close()
    asked = on_cores({8: 1.0})
    asked.clear()
    torch.set_num_threads(2)
    resumed = make_trainer(resume=True, steps=60)
    resumed.choose_threads()
    assert (asked, torch.get_num_threads(), resumed.settings.threads) == ([], 1, 1)
    resumed.close()


@pytest.mark.parametrize("steps", [60, 10])
def test_nothing_is_tried_where_the_user_says_it_or_a_run_is_short(
    make_trainer, on_cores, monkeypatch, steps
):
    asked = on_cores({2: 9.0, 1: 3.0})
    if steps == 60:
        monkeypatch.setenv(THREADS, "2")
        monkeypatch.delenv(LIMITED, raising=False)
    before = torch.get_num_threads()
    trainer = make_trainer(steps=steps)
    trainer.choose_threads()
    assert (asked, trainer.settings.threads, torch.get_num_threads()) == ([], 0, before)
    trainer.close()
