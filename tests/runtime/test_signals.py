"""Requests to stop."""

import os
import signal
import subprocess
import sys
import time

import pytest

from smoothinfer.cli import main
from smoothinfer.runtime.signals import (
    Stop,
    defer_signals,
    interruptible,
    raise_if_stopped,
    received,
    stop_on_signals,
)


def ask(number):
    os.kill(os.getpid(), number)
    time.sleep(0.05)


def test_a_signal_raises_at_once_unless_it_is_deferred():
    before, seen = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Stop) as stop, stop_on_signals():
        ask(signal.SIGTERM)
    assert (stop.value.status, stop.value.name) == (143, "SIGTERM")

    def work():
        with defer_signals():
            ask(signal.SIGINT)
            seen.append(received())  # the block itself goes on to its end

    with pytest.raises(Stop):
        work()
    assert seen == [signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


class Asking:
    """A field of a class: the signal comes while the class is being made, as in an import."""

    def __set_name__(self, owner, name):
        ask(signal.SIGTERM)


def make_class():
    class Owner:
        field = Asking()

    return Owner


def fail_meanwhile():
    try:
        ask(signal.SIGTERM)
    finally:
        raise ValueError("closing failed")


@pytest.mark.parametrize("work", [make_class, fail_meanwhile])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_stop_that_became_another_error_is_a_stop_again(work, deferred):
    """Whether a command was stopped, or the validation of a training, which then saves."""
    if deferred:
        with pytest.raises(Stop), stop_on_signals(), defer_signals(), interruptible():
            work()
    else:
        with pytest.raises(Stop), stop_on_signals():
            work()


def test_an_error_after_a_signal_that_was_only_noted_stays_an_error():
    def diverge():
        ask(signal.SIGTERM)
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"), stop_on_signals(), defer_signals():
        diverge()


def test_a_signal_that_ended_one_call_does_not_end_the_next():
    with pytest.raises(Stop), stop_on_signals():
        ask(signal.SIGTERM)
    raise_if_stopped()  # by a call of the library, outside of any command


def test_a_part_of_deferred_work_can_be_broken_off():
    seen = []

    def work():
        with defer_signals():
            with pytest.raises(Stop), interruptible():
                ask(signal.SIGTERM)
            with pytest.raises(Stop), interruptible():  # the request is still open
                seen.append("never")
            seen.append("saved")

    with pytest.raises(Stop):
        work()
    assert seen == ["saved"]


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not received()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_says_what_is_kept(monkeypatch, capsys):
    def endless(options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr("smoothinfer.workflows.models.run", endless)
    assert main(["models"]) == 143
    assert capsys.readouterr().err == "SIGTERM: stopped; nothing is kept\n"


def test_a_second_ctrl_c_leaves_at_once():
    program = (
        "import signal, time\n"
        "from smoothinfer.runtime.signals import defer_signals\n"
        "with defer_signals():\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(0.05)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None  # the work that is deferred goes on
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=5) == -signal.SIGINT
