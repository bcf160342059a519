"""Signals that ask a command to finish its current step."""

import signal
import subprocess
import sys
import threading

import pytest

from vidlat.__main__ import main
from vidlat.interrupts import end_as_by_ctrl_c, stopping

pytestmark = pytest.mark.usefixtures("signals_as_in_a_terminal")


def test_second_ctrl_c_interrupts_at_once():
    asked = []
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_second_signal_of_another_kind_asks_again(number):
    asked = []
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert asked == [1, 1]
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])  # of a script's background; of nohup
def test_ignored_signal_stays_ignored(number):
    asked = []
    signal.signal(number, signal.SIG_IGN)
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(number)
    assert not asked
    assert signal.getsignal(number) is signal.SIG_IGN


def test_only_the_signals_that_are_named_are_taken():
    asked = []
    with stopping(lambda: asked.append(1), [signal.SIGINT]):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_in_another_thread_signals_stay_as_they_are():
    found = []

    def run():
        with stopping(lambda: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_ctrl_c_while_cores_are_counted_is_one_line(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("vidlat.__main__.limit_threads", interrupt)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_while_the_command_line_is_imported_is_one_line():
    code = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from vidlat.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("of_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_a_command_ends_by_the_signals_of_a_batch_system_as_by_ctrl_c(number, of_ctrl_c):
    signal.signal(signal.SIGINT, of_ctrl_c)
    end_as_by_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_step_that_shall_end_first_is_ended_by_sigterm_too():
    asked = []
    end_as_by_ctrl_c()
    with stopping(lambda: asked.append(1), [signal.SIGINT]):
        signal.raise_signal(signal.SIGTERM)
    assert asked == [1]


def test_a_hangup_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    end_as_by_ctrl_c()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
