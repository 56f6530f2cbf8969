"""Files appear whole or not at all; one process at a time writes a folder; SHA256SUMS tells a bit that flipped."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, bare_records, flip_a_bit, small_record, write_bare

from data import demo
from data.base import cli, files
from data.base.errors import InputError
from data.base.files import read_sums, verify_sums, write_sums
from data.cohorts import records
from data.cohorts.rows import Metadata
from data.cohorts.stored import open_cohort, write_tables


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
    """`stopped("pack", ...)` runs abide-data up to where a file or folder is put in its place."""
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
        ("pack", "out", ["--zip"]),
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


def test_who_writes_a_folder_is_told_while_it_does(tmp_path):
    """Also of what is in the folder, as the folds of a run; not of this process, and not of one that died."""
    inside = tmp_path / "out" / "fold-1"
    with files.locked(inside):
        assert files.writer_of(tmp_path / "out") is None
        (tmp_path / "out/.fold-1.lock").write_text("process 1 on elsewhere (run.py --test)")
        assert files.writer_of(inside) == "process 1 on elsewhere (run.py --test)"
        told = files.running(tmp_path / "out", "did not end")
        assert told == "still runs, as process 1 on elsewhere (run.py --test); wait for it to end"
    (tmp_path / "out/.fold-1.lock").write_text("process 1 on elsewhere (run.py --test)")
    assert files.running(tmp_path / "out", "did not end") == "did not end"
    assert files.writer_of(tmp_path / "none") is None


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_does_not_stop_anybody(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with files.locked(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert f"{tmp_path}/out lies on a file system without locks" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["out"]


def agrees(folder: Path) -> bool:
    """Whether coreutils finds every file as its sum says."""
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def write_cohort(folder: Path, members: dict[str, bytes]) -> Path:
    """A cohort of its records as a program of this version writes it."""
    write_tables(write_bare(folder, members), open_cohort(folder).rows, Metadata(grid=(31, 37, 31)))
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """9 simulated subjects on the reduced grid, so that the middle of a zip is in a record."""
    target = tmp_path_factory.mktemp("few") / "reduced"
    demo.simulate(target, records.REDUCED, demo.Simulation(subjects=9, seed=1))
    return target


@pytest.fixture
def made(few, pcp, data_cli, tmp_path) -> Callable[[str], Path]:
    """`made(how)` gives a cohort that a command wrote."""
    commands = {
        "zip": ("pack", few, tmp_path / "zip", "--zip"),
        "swap": ("swap", few, tmp_path / "swap", "--copies", 1),
        "convert": ("convert", pcp, tmp_path / "convert", "--grid", "reduced"),
    }

    def run(how: str) -> Path:
        if how == "demo":
            return shutil.copytree(few, tmp_path / "demo")
        outcome = data_cli(*commands[how])
        assert outcome.status < 2, outcome.err
        return tmp_path / how

    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", ["demo", "zip", "swap", "convert"])
def test_every_form_has_sums_that_tell_a_flipped_bit_by_name(how, made, data_cli):
    folder = made(how)
    paths = open_cohort(folder).paths
    assert {path.name for path in paths} == read_sums(folder).keys()
    assert agrees(folder)
    assert "SHA256SUMS" not in data_cli("check", folder).out
    victim = max(paths)
    flip_a_bit(victim)
    assert not agrees(folder)
    outcome = data_cli("check", folder)
    assert outcome.status == 1
    assert f"PROBLEM: {victim} is not what was written, its sum in SHA256SUMS says." in outcome.out


def test_sums_are_of_the_contents_and_in_the_order_of_names(tmp_path):
    members = bare_records([3, 1, 2])
    folder = write_cohort(tmp_path / "cohort", members)
    expected = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}" for name in ("1.bin", "2.bin", "3.bin")]
    assert (folder / "SHA256SUMS").read_text().splitlines() == expected


def test_names_that_sha256sum_must_escape(tmp_path):
    names = ["back\\slash.bin", "tail\\\\.bin", "sp ace.bin", "*star.bin", "ü→.bin", "-c.bin", "n\\n.bin"]
    folder = write_cohort(tmp_path / "cohort", {name: small_record(seed=at) for at, name in enumerate(names)})
    assert agrees(folder)
    assert read_sums(folder).keys() == set(names)
    flip_a_bit(folder / "n\\n.bin")
    assert verify_sums(open_cohort(folder).paths) == ([folder / "n\\n.bin"], [])


def test_a_bare_folder_has_no_sums_which_is_worth_a_note(data_cli, tmp_path):
    outcome = data_cli("check", write_bare(tmp_path / "bare", bare_records([1, 2])))
    assert outcome.status < 2
    assert "note: no sum in SHA256SUMS, so damage cannot be detected: 1.bin, 2.bin" in outcome.out


@pytest.mark.parametrize("arguments", [("pack", "--zip"), ("swap",)])
def test_damage_is_not_passed_on_under_new_sums(arguments, cohort, data_cli, tmp_path):
    source = shutil.copytree(cohort, tmp_path / "source")
    victim = max(source.glob("*.bin"))
    flip_a_bit(victim)
    outcome = data_cli(arguments[0], source, tmp_path / "out", *arguments[1:])
    assert outcome.status == 2
    assert f"{victim} is not what was written, its sum in SHA256SUMS says. Was it damaged?" in outcome.err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
def test_a_conversion_that_is_repeated_does_not_sum_up_damage(pcp, data_cli, tmp_path):
    arguments = ("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert data_cli(*arguments).status < 2
    before = (tmp_path / "out" / "SHA256SUMS").read_text()
    victim = min((tmp_path / "out").glob("*.bin"))
    flip_a_bit(victim)
    outcome = data_cli(*arguments)
    assert outcome.status == 2
    assert f"{victim} is not what SHA256SUMS says that was written" in outcome.err
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before
    victim.unlink()
    assert data_cli(*arguments).status < 2
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before


@pytest.mark.slow
def test_a_conversion_into_a_folder_whose_metadata_is_damaged_is_refused(pcp, data_cli, tmp_path):
    arguments = ("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert data_cli(*arguments).status < 2
    (tmp_path / "out" / "cohort.json").write_bytes(b"\xff\xfe")
    outcome = data_cli(*arguments)
    assert outcome.status == 2
    assert "out holds a cohort converted differently; choose another folder or remove it" in outcome.err


def test_the_table_that_marks_a_complete_cohort_comes_last(tmp_path):
    folder = write_cohort(tmp_path / "cohort", bare_records([1, 2]))
    rows = open_cohort(folder).rows
    (folder / "subjects.csv").unlink()
    flip_a_bit(folder / "1.bin")
    with pytest.raises(InputError, match=r"1\.bin is not what SHA256SUMS says that was written"):
        write_tables(folder, rows, Metadata(grid=(31, 37, 31)))
    assert not (folder / "subjects.csv").exists()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"abc  1.bin\n", b"0" * 64 + b"  ../1.bin\n", b"0" * 64 + b"\n"],
)
def test_damaged_sums_are_a_problem(content, data_cli, tmp_path):
    folder = write_bare(tmp_path / "bare", bare_records([1, 2]))
    (folder / "SHA256SUMS").write_bytes(content)
    outcome = data_cli("check", folder)
    assert outcome.status == 1
    assert [line for line in outcome.out.splitlines() if line.startswith(f"PROBLEM: {folder / 'SHA256SUMS'} ")]


def test_sums_of_files_that_are_gone_are_left_behind(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path, ["a", "b"])
    (tmp_path / "a").unlink()
    write_sums(tmp_path, ["b"])
    assert read_sums(tmp_path) == {"b": hashlib.sha256(b"b").hexdigest()}
