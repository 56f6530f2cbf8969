"""Signals within a block go where it says and afterwards where they went before; Ctrl-C is put off, not lost."""

import signal
import subprocess
import sys

import pytest
from helpers import ROOT

from data.base.processes import STOPS, collected, handled, ignore_interrupts, interrupts_delayed

NUMBERS = [getattr(signal, name) for name in STOPS]


@pytest.fixture(autouse=True)
def untouched():
    """Every handler is afterwards what it was before."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    after = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def interruptible(untouched):
    """Ctrl-C raises KeyboardInterrupt, and is heard again after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signals_are_collected_in_their_order():
    with collected() as caught:
        for number in NUMBERS:
            signal.raise_signal(number)
        assert caught == NUMBERS


def test_each_is_also_passed_on():
    passed: list[int] = []
    with collected(also=passed.append) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught == passed == [signal.SIGTERM]


def test_signals_that_are_not_named_are_not_collected():
    with handled(signal.SIG_IGN, ("SIGTERM",)), collected(("SIGINT",)) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught == []


def test_a_name_that_the_system_lacks_is_left_out():
    with collected(("SIGINT", "SIGNOSUCH")) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught == [signal.SIGINT]


def test_blocks_within_blocks_and_errors_restore_the_handlers():
    with collected() as outer:
        inside = signal.getsignal(signal.SIGTERM)
        with pytest.raises(RuntimeError), collected() as inner:
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is inside
        signal.raise_signal(signal.SIGHUP)
    assert (inner, outer) == ([signal.SIGTERM], [signal.SIGHUP])


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_put_off_to_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_delayed() as caught:
        signal.raise_signal(signal.SIGINT)
        done.append(list(caught))
    assert done == [[signal.SIGINT]]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # the rest is closing files


@pytest.mark.usefixtures("interruptible")
def test_without_an_interrupt_nothing_changes():
    with interrupts_delayed() as caught:
        pass
    assert caught == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_the_error_of_a_block_that_was_interrupted_is_raised():
    with pytest.raises(RuntimeError, match="the first"), interrupts_delayed():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("the first")


@pytest.mark.usefixtures("interruptible")
def test_a_background_job_keeps_ignoring_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_delayed() as caught:
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert caught == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


IGNORES = """
import os, signal
from data.base.processes import ignore_interrupts

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
os.kill(os.getpid(), signal.SIGINT)  # on its way
ignore_interrupts()
os.kill(os.getpid(), signal.SIGINT)
print("went on", signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_an_interrupt_on_its_way_is_ignored_too():
    done = subprocess.run([sys.executable, "-c", IGNORES], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on set()\n", "")


@pytest.mark.usefixtures("interruptible")
def test_ignored_in_this_process():
    ignore_interrupts()
    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
