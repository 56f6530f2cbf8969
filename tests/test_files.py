"""Files appear whole or not at all, and one process at a time writes a folder."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from helpers import ROOT

from data.base import cli, files
from data.base.errors import InputError
from data.cohorts.stored import open_cohort


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"), files.replacing(path) as file:
        file.write("new, but only half")
        raise RuntimeError("in the middle")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_write_replaces_the_old_content(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    files.write_json(path, {"a": [1]})
    assert path.read_text() == '{\n  "a": [\n    1\n  ]\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_in_any_locale(tmp_path):
    """A batch job may run in the locale C, where Python would write ASCII."""
    program = "import sys, pathlib; from data.base import files\n"
    program += "with files.replacing(pathlib.Path(sys.argv[1])) as file: file.write('Z\\xfcrich')"
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "x.csv"], cwd=ROOT, env=ascii_only, check=True)
    assert (tmp_path / "x.csv").read_bytes() == "Zürich".encode()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_name_the_target_and_say_what_to_do(number, tmp_path, capsys):
    def work() -> int:
        with files.new_folder(tmp_path / "out") as folder, files.replacing(folder / "x.csv"):
            raise OSError(number, os.strerror(number))

    assert cli.guarded("run.py", work) == 2
    told = f"run.py: error: {tmp_path / 'out'}: {os.strerror(number)}. Free space and repeat the command.\n"
    assert capsys.readouterr().err == told
    assert list(tmp_path.iterdir()) == []


STOPS_BEFORE_THE_END = """
import os, signal, sys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
from data.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def stopped():
    """`stopped("pack", ...)` runs python -m data up to where a file or folder is put in its place."""
    processes = []

    def run(*arguments) -> subprocess.Popen:
        command = [sys.executable, "-c", STOPS_BEFORE_THE_END, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        processes.append(process)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb, out, options",
    [
        ("pack", "out", ["--hdf5"]),
        ("swap", "out", ["--copies", 1]),
        ("export", "out.nii.gz", []),
    ],
)
def test_two_at_once_and_a_kill(verb, out, options, cohort, data_cli, stopped, tmp_path):
    """The second is refused and names the first; what the killed first leaves is in nobody's way and is removed."""
    arguments = [verb, cohort, *([open_cohort(cohort).rows[0].subject] if verb == "export" else []), tmp_path / out]
    first = stopped(*arguments, *options)
    second = data_cli(*arguments, *options)
    assert second.status == 2
    assert f"{tmp_path / out} is being written by process {first.pid} on " in second.err
    assert f"{verb} {cohort}" in second.err
    assert second.err.count("\n") == 1
    assert not (tmp_path / out).exists()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert {path.name for path in tmp_path.iterdir()} == {f".{out}.lock", f".unfinished.{out}"}
    assert data_cli(*arguments, *options).status == 0
    assert [path.name for path in tmp_path.iterdir()] == [out]
    again = data_cli(*arguments, *options)
    assert again.status == 2
    assert f"{tmp_path / out} exists; remove it or name another" in again.err


@pytest.mark.slow
def test_of_several_at_once_one_writes(cohort, tmp_path):
    command = [sys.executable, "-m", "data", "pack", str(cohort), str(tmp_path / "out"), "--bin"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2, 2]
    for process, error in zip(processes, errors, strict=True):
        assert error.count("\n") == (process.returncode == 2)
        assert process.returncode == 0 or "is being written by" in error or "exists; remove it" in error
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert open_cohort(tmp_path / "out").digest == open_cohort(cohort).digest


def test_a_lock_that_does_not_say_whose_it_is(tmp_path):
    """As in the moment between taking a lock and signing it."""
    with files.locked(tmp_path / "out"):
        (tmp_path / ".out.lock").write_text("")
        with (
            pytest.raises(InputError, match="out is being written by another process; wait"),
            files.locked(tmp_path / "out"),
        ):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_does_not_stop_anybody(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with files.locked(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert f"{tmp_path}/out lies on a file system without locks" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["out"]
