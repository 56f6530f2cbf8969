"""Processes beside this one: results in order, fresh ones in their environment; signals; what configures TensorFlow."""

import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from data.base.errors import InputError
from data.base.processes import (
    STOPS,
    collected,
    handled,
    interrupts_delayed,
    prepare_tensorflow,
    processes,
    several_processes,
)


def test_each_core_has_a_process_where_the_system_does_not_list_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # what joblib reads instead
    with processes() as started:
        assert started.run("Subtracting", operator.sub, [(5, 2), (2, 5), (0, 0)]) == [3, -3, 0]
        assert len(started.idle) == 1 and not started.environments


def test_results_come_in_order_from_processes_that_ignore_ctrl_c():
    with processes(2) as started:
        assert started.run("Powers", pow, [(2, exponent) for exponent in range(20)]) == [2**k for k in range(20)]
        assert set(started.run("Handlers", signal.getsignal, [(signal.SIGINT,)] * 2)) == {signal.SIG_IGN}
        assert len(set(started.run("Processes", os.getpid, [()] * 20))) <= 2


def failing(text: str) -> None:
    raise InputError(text)


def test_an_error_ends_processes_that_have_much_to_give():
    with pytest.raises(InputError, match="said there"), processes(2) as started:
        started.run("Failing", much_or_failing, [(True,), (False,)])


def much_or_failing(much: bool) -> bytes:
    return bytes(10**7) if much else failing("said there")


def test_an_error_that_cannot_be_sent_is_told_by_its_words():
    with pytest.raises(RuntimeError, match=r"OddError: 1, 2$") as raised, processes(1) as started:
        started.run("Failing", oddly, [()])
    assert "in oddly" in str(raised.value.__cause__)


class OddError(Exception):
    """It is made of two values, and so is not made again of its text."""

    def __init__(self, one: int, two: int):
        super().__init__(f"{one}, {two}")


def oddly() -> None:
    raise OddError(1, 2)


def test_a_process_that_dies_is_an_error_with_advice():
    with pytest.raises(InputError, match="was killed, perhaps because the memory is full"), processes() as started:
        started.run("Dying", os._exit, [(9,)])


def test_ctrl_c_stops_what_is_being_done_and_begins_nothing_else(tmp_path):
    script = (
        "import os, pathlib, signal, sys, threading, time\nfrom data.base.processes import processes\n"
        "def work(number):\n    pathlib.Path(f'begun-{number}').touch()\n    time.sleep(60)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits that it is ignored
        "try:\n    with processes(2) as pool:\n        pool.run('Sleeping', work, [(at,) for at in range(5)])\n"
        "except KeyboardInterrupt:\n    sys.exit(5)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    wait_for(tmp_path, "begun-*", 2)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 5
    assert len(list(tmp_path.glob("begun-*"))) == 2


def test_fresh_processes_do_one_call_each_in_their_environment():
    with processes(environments=[{"PLACE": "a"}, {"PLACE": "b"}]) as started:
        outcomes = dict(started.outcomes(where, [()] * 3))
    places, numbers = zip(*(outcome.value for outcome in outcomes.values()), strict=True)
    assert set(places) == {"a", "b"} and len({*numbers, os.getpid()}) == 4
    assert "PLACE" not in os.environ


def where() -> tuple[str, int]:
    return os.environ["PLACE"], os.getpid()


def test_a_fresh_process_that_is_killed_is_told_by_its_signal():
    with processes(environments=[{}]) as started:
        found = dict(started.outcomes(os.kill, [(0, 0), (os.getpid(), 0)]))
        assert [of.exit_code for of in found.values()] == [None, None]
        ((_, outcome),) = started.outcomes(killed, [()])
    assert outcome.exit_code == -signal.SIGKILL


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


PARENT = """
import pathlib, signal, sys, time
from data.base.processes import processes

def work(number):
    caught = []
    signal.signal(signal.SIGTERM, lambda *_: caught.append(number))
    pathlib.Path(f"begun-{number}").touch()
    while not caught:
        time.sleep(0.05)
    pathlib.Path(f"saved-{number}").touch()

if __name__ == "__main__":
    with processes(environments=[{}, {}]) as pool:
        list(pool.outcomes(work, [(at,) for at in range(3)]))
"""


def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    wait_for(tmp_path, "begun-*", 2)
    parent.kill()
    assert parent.communicate(timeout=60)[1] == b""  # once all of them have ended
    assert len(list(tmp_path.glob("saved-*"))) == 2
    assert len(list(tmp_path.glob("begun-*"))) == 2


def wait_for(folder: Path, pattern: str, count: int) -> None:
    until = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < until, f"{count} {pattern} expected"
        time.sleep(0.05)


def test_a_system_without_copies_of_processes_starts_fresh_ones(monkeypatch):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    with processes(1) as started:
        assert started.run("Subtracting", operator.sub, [(5, 2), (2, 5)]) == [3, -3]


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


def test_signals_are_collected_in_their_order_and_passed_on():
    passed: list[int] = []
    with collected(also=passed.append) as caught:
        for number in NUMBERS:
            signal.raise_signal(number)
    assert caught == passed == NUMBERS


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


CONFIGURED = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1", "KERAS_BACKEND": "tensorflow"}


def first_imports(lines: list[str], **environment: str) -> dict[str, dict]:
    """What `first_import.py` tells of lines of modules, in an environment that says nothing of TensorFlow but this."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "SLURM_"))}
    command = [sys.executable, ROOT / "tests" / "first_import.py"]
    done = subprocess.run(command, env=plain | environment, input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def asking(top: str) -> list[Path]:
    """Files of Python that import TensorFlow, or what brings it, somewhere."""
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / top).rglob("*.py"))]
    words = re.compile("(import|from) (tensorflow|keras|tensorboard)")
    return [path for path in paths if words.search((ROOT / path).read_text())]


@pytest.mark.slow
def test_no_import_of_ours_passes_by_what_configures_tensorflow():
    """Tests are imported after `conftest`. Modules of `data` never ask for TensorFlow, not even all together."""
    of_data = " ".join(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "data").rglob("*.py"))
    )
    modules = [".".join(path.with_suffix("").parts) for top in ("models", "utils") for path in asking(top)]
    modules += ["run", "conftest", "utils.jobs", *map(str, asking("tests/benchmarks"))]
    told = first_imports([of_data, *modules])
    assert told.pop(of_data) == {"asked": None, "found": dict.fromkeys(CONFIGURED)}
    assert {name: of["found"] for name, of in told.items()} == dict.fromkeys(modules, CONFIGURED)
    parts = ("encode", "network", "loop")
    asked = {"models.layers", "models.losses", *(f"utils.training.{part}" for part in parts)}
    assert asked <= {name for name, of in told.items() if of["asked"]}


@pytest.mark.parametrize(
    "variables, level",
    [
        ({}, "2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "2"),  # a batch script, before any srun
        ({"SLURM_STEP_NUM_TASKS": "1"}, "2"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "3"),
        ({"TF_CONFIG": "{}"}, "2"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "2"),
        ({"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'}, "3"),
        ({"TF_CONFIG": "{"}, "3"),  # told where the cluster is needed
    ],
)
def test_one_of_several_processes_leaves_it_to_the_chief_to_report_one_that_is_gone(variables, level, monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "SLURM_STEP_NUM_TASKS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    prepare_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
    assert several_processes() == (level == "3")
