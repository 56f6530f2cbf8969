"""A pool of processes: results in order, a process a core, and one line if a process dies."""

import operator
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.base.errors import InputError
from data.base.processes import processes


def test_each_core_has_a_process_where_the_system_does_not_list_cores(monkeypatch):
    counts = []

    def pool(count, **_):
        counts.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # what joblib reads instead
    monkeypatch.setattr("data.base.processes.ProcessPoolExecutor", pool)
    with processes() as started:
        assert started.run("Subtracting", operator.sub, [(5, 2), (2, 5), (0, 0)]) == [3, -3, 0]
    assert counts == [1]


def test_results_come_in_order_from_processes_that_ignore_ctrl_c():
    with processes() as started:
        assert started.run("Powers", pow, [(2, exponent) for exponent in range(20)]) == [2**k for k in range(20)]
        assert set(started.run("Handlers", signal.getsignal, [(signal.SIGINT,)] * 2)) == {signal.SIG_IGN}


def test_a_process_that_dies_is_an_error_with_advice():
    with pytest.raises(InputError, match="was killed, perhaps because the memory is full"), processes() as started:
        started.run("Dying", os._exit, [(9,)])


def test_ctrl_c_ends_the_block_between_two_results(monkeypatch):
    """It is pressed in the pool's first call; a pool of threads runs in this process."""
    monkeypatch.setattr("data.base.processes.ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
    try:
        with pytest.raises(KeyboardInterrupt), processes() as started:
            started.run("Interrupting", signal.raise_signal, [(signal.SIGINT,)] * 3)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
