"""Files appear whole or not at all; one process at a time writes a folder; no row of a table is lost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lab
import pytest
from commands import ROOT, done, run

STOPS_BEFORE_THE_END = """
import os, signal, sys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
from data.__main__ import main
sys.exit(main())
"""


def python(script: str, *words: object, **how: Any) -> subprocess.Popen:
    """Starts a script in the folder of the program."""
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how)


@pytest.fixture
def stopped():
    """`stopped("pack", ...)` runs abide-data up to where a file or folder is put in its place."""
    processes = []

    def start(*words: object) -> subprocess.Popen:
        processes.append(python(STOPS_BEFORE_THE_END, *words))
        assert os.WIFSTOPPED(os.waitpid(processes[-1].pid, os.WUNTRACED)[1])
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb, out, more", [("pack", "out", ["--zip"]), ("export", "out", []), ("volume", "out.nii.gz", [])]
)
def test_simultaneous_writes_and_a_kill(verb, out, more, cohort, stopped, tmp_path):
    """The second is refused and names the first; what the killed first leaves is in nobody's way and is removed."""
    subject = ["0000001"] if verb == "volume" else []
    words = [verb, str(cohort), *subject, str(tmp_path / out), *more]
    command = f"abide-data {' '.join(words)}"
    first = stopped(*words)
    second = run(command)
    assert second.status == 2 and second.err.count("\n") == 1
    assert f"{tmp_path / out} is being written by process {first.pid} on " in second.err
    assert not (tmp_path / out).exists()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert {path.name for path in tmp_path.iterdir()} == {f".{out}.lock", f".unfinished.{out}"}
    done(command)
    assert [path.name for path in tmp_path.iterdir()] == [out]
    assert re.search(f"{tmp_path / out} exists.* remove it or name another", run(command).err)


@pytest.mark.slow
def test_a_single_process_writes_among_several(cohort, tmp_path):
    words = ("from data.__main__ import main; import sys; sys.exit(main())", "pack", cohort, tmp_path / "out", "--bin")
    processes = [python(*words) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2, 2]
    for process, error in zip(processes, errors, strict=True):
        assert error.count("\n") == (process.returncode == 2)
        assert process.returncode == 0 or "is being written by" in error or "exists and is complete" in error
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert all((tmp_path / "out" / path.name).read_bytes() == path.read_bytes() for path in cohort.glob("*.bin"))


WRITES_TEXT = """
import sys; from data.__main__ import main; sys.exit(main())
"""


@pytest.mark.slow
def test_text_is_utf8_in_any_locale(tmp_path):
    """A batch job may run in the locale C, where Python would write ASCII."""
    lab.pcp(tmp_path / "lab", lab.people(8).assign(SITE_ID=["Zürich", "NYU"] * 4))
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    words = ("convert", tmp_path / "lab", tmp_path / "out", "--grid", "reduced")
    running = python(WRITES_TEXT, *words, env=ascii_only)
    assert running.communicate()[1] == "" and running.returncode < 2
    assert "Zürich".encode() in (tmp_path / "out/subjects.csv").read_bytes()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_reported_and_stops_nobody(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    lab.records(tmp_path / "of", 2)
    pack_output = done("abide-data pack {of}/of {of}/out --bin", of=tmp_path)
    assert f"{tmp_path}/out lies on a file system without locks" in pack_output
    assert {path.name for path in tmp_path.iterdir()} == {"of", "out"}


# Rows added to a table of runs

HEADER = "when,job,model,preset,cohort,folds,metric,value,low,high,folder"


@pytest.mark.slow
def test_run_rows_follow_a_single_header_and_earlier_bytes_stay(seen_two, on_folds, cohort, tmp_path):
    """One of a spreadsheet, whose last line has no end; a table of the user's is left alone, and the run ends well."""
    command = "run.py --test --model nn --dataDir {data} --chkPointDir {of}/ckpt --outDir {to}/{name}"
    places = {"data": cohort, "of": seen_two, "to": tmp_path}
    done(command, **places, name="one")
    first = (tmp_path / "runs.csv").read_bytes()
    assert first.startswith(HEADER.encode()) and first.count(b"\n") == 2
    train, row = lab.read_table(on_folds / "runs.csv").to_dict("records")
    score = json.loads((on_folds / "test/metrics.json").read_text())[row["metric"]]
    assert [float(row[end_name]) for end_name in ("value", "low", "high")] == pytest.approx(
        [*score.values()][:3], abs=1e-6
    )
    assert (train["job"], row["job"], row["model"], row["folds"]) == ("train", "test", "mmnn", "3")
    assert row["folder"] == str(on_folds / "test")
    edited = HEADER.encode() + b'\r\n"edited, by hand",,\r\nno end'
    (tmp_path / "runs.csv").write_bytes(edited)
    done(command, **places, name="two")
    after = (tmp_path / "runs.csv").read_bytes()
    assert after.startswith(edited + b"\n") and after.count(b"\n") == edited.count(b"\n") + 2
    for user_content in (b"", b"subject,site\n1,NYU\n", b"\xff\xfe"):
        (tmp_path / "runs.csv").write_bytes(user_content)
        assert "runs.csv has other columns" in done(command, **places, name=f"own-{len(user_content)}")
        assert (tmp_path / "runs.csv").read_bytes() == user_content


ADDS = """
import os, sys
from pathlib import Path
from data.base import tables
for number in range(40):
    tables.add_csv_row(Path("runs.csv"), {"folder": f"{sys.argv[1]}-{number}"})
"""


@pytest.mark.slow
def test_concurrent_processes_lose_no_row(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ADDS]
    running = [subprocess.Popen([*command, str(number)], cwd=tmp_path, env=environment) for number in range(3)]
    assert [process.wait() for process in running] == [0] * 3
    folder_names = lab.read_table(tmp_path / "runs.csv")["folder"].tolist()
    assert sorted(folder_names) == sorted(f"{process}-{number}" for process in range(3) for number in range(40))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["runs.csv"]
