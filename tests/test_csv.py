"""Rows added to a table: none lost, and nothing of the user's touched; tables read and written."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from helpers import read_rows

from data.base import files, tables
from data.base.errors import InputError

pytestmark = pytest.mark.usefixtures("undrawn")

ROW = {
    "when": "2026-11-25T10:30:24+0000",
    "job": "test",
    "model": "mmnn",
    "preset": "residual",
    "cohort": "/data/abide",
    "folds": None,
    "metric": "auc",
    "value": 0.6123456789,
    "low": 0.5,
    "high": float("nan"),
    "folder": "results/mmnn-test",
}
HEADER = b"when,job,model,preset,cohort,folds,metric,value,low,high,folder\n"
LINE = b"2026-11-25T10:30:24+0000,test,mmnn,residual,/data/abide,,auc,0.612346,0.5,,results/mmnn-test\n"


def test_rows_follow_one_header_and_earlier_bytes_stay(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    tables.add_row(tmp_path / "runs.csv", ROW)
    assert path.read_bytes() == HEADER + LINE
    path.write_bytes(HEADER.replace(b"\n", b"\r\n") + b'"edited, by hand",,\r\nno end')
    before = path.read_bytes()
    tables.add_row(tmp_path / "runs.csv", ROW)
    assert path.read_bytes() == before + b"\n" + LINE
    assert os.listdir(tmp_path) == ["runs.csv"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"subject,site\n1,NYU\n", b"\xff\xfe", b"when;job\n"])
def test_a_table_of_the_user_is_left_alone(content, tmp_path):
    (tmp_path / "runs.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"runs.csv has other columns than when, job, .*no row was added. Rename it"):
        tables.add_row(tmp_path / "runs.csv", ROW)
    assert (tmp_path / "runs.csv").read_bytes() == content


@pytest.mark.slow
def test_where_nothing_can_be_written_the_run_ends_well(cli, trained, cohort, tmp_path, monkeypatch):
    replacing = files.replacing

    def only_runs(path, *arguments, **options):
        if path.name == "runs.csv":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return replacing(path, *arguments, **options)

    monkeypatch.setattr(files, "replacing", only_runs)
    words = ("--test", "--model", "cnn", "--dataDir", cohort, "--chkPointDir", trained, "--outDir", tmp_path / "out")
    outcome = cli(*words)
    assert (outcome.status, outcome.err) == (0, "")
    assert "runs.csv could not be written (Read-only file system). The run is not in it, its results" in outcome.out
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"a,b\n1\n", "line 2 has 1 values; expected 2: a, b"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 has 3 values; expected 2"),
        (b"a,a\n1,2\n", "it has a column twice"),
        (b"b\n1\n", "lacks the columns a; expected a"),
        (b"", "lacks the columns a"),
        (b"a\n\xff\n", "is damaged"),
        (b'a\n"1\n', "is damaged"),
    ],
)
def test_what_is_no_table_is_refused(content, words, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        tables.read_rows(tmp_path / "table.csv", ("a",))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "table.csv"
    tables.write_rows(path, ("name", "value"), [["a,b", 1], ['c"d', ""], ["e f", 0.5]])
    expected = [{"name": "a,b", "value": "1"}, {"name": 'c"d', "value": ""}, {"name": "e f", "value": "0.5"}]
    assert list(tables.read_rows(path).values()) == expected == tables.read_frame(path).to_dict("records")
    assert list(tables.read_rows(path)) == [2, 3, 4]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [row["value"] for row in tables.read_rows(path, ["name"]).values()] == ["1", "", "0.5"]


def test_texts_of_a_user_stay_in_their_cell(tmp_path):
    tables.add_row(tmp_path / "runs.csv", ROW | {"cohort": 'a,"b"\nc\u202e', "folder": "=1+1", "value": -0.5})
    (row,) = read_rows(tmp_path / "runs.csv")
    assert (row["cohort"], row["folder"], row["value"]) == ('a,"b" c', "'=1+1", "-0.5")


def add_many(folder: Path, process: int) -> None:
    for number in range(40):
        tables.add_row(folder / "runs.csv", ROW | {"folder": f"{process}-{number}"})


@pytest.mark.slow
def test_processes_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    found = [row["folder"] for row in read_rows(tmp_path / "runs.csv")]
    assert sorted(found) == sorted(f"{process}-{number}" for process in range(3) for number in range(40))
    assert os.listdir(tmp_path) == ["runs.csv"]
