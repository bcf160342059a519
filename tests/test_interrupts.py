"""Signals that ask a command to finish its current step."""

import signal

import pytest

from vidlat.commands.interrupts import stopping

pytestmark = pytest.mark.usefixtures("signals_as_in_a_terminal")


def test_second_ctrl_c_interrupts_at_once():
    asked = []
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_second_sigterm_asks_again():
    asked = []
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert asked == [1, 1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_signal_stays_ignored():
    asked = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert not asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
