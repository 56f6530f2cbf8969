"""The ledger: a row a run, none lost, and nothing of the user's touched."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from helpers import read_rows

from data.base import files
from utils.runs import ledger

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
    ledger.add(tmp_path, ROW)
    assert path.read_bytes() == HEADER + LINE
    path.write_bytes(HEADER.replace(b"\n", b"\r\n") + b'"edited, by hand",,\r\nno end')
    before = path.read_bytes()
    ledger.add(tmp_path, ROW)
    assert path.read_bytes() == before + b"\n" + LINE
    assert os.listdir(tmp_path) == ["runs.csv"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"subject,site\n1,NYU\n", b"\xff\xfe", b"when;job\n"])
def test_a_table_of_the_user_is_left_alone_and_that_is_said(content, tmp_path, capsys):
    (tmp_path / "runs.csv").write_bytes(content)
    ledger.add(tmp_path, ROW)
    assert (tmp_path / "runs.csv").read_bytes() == content
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "runs.csv is not a table of runs of this program" in told


def refuse(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("name", ["locked", "replacing"])
def test_where_nothing_can_be_written_the_run_goes_on(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, name, refuse)
    ledger.add(tmp_path, ROW)
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "runs.csv could not be written (Read-only file system)" in told
    assert os.listdir(tmp_path) == []


def test_a_folder_in_its_place_is_said(tmp_path, capsys):
    (tmp_path / "runs.csv").mkdir()
    ledger.add(tmp_path, ROW)
    assert "runs.csv could not be written (Is a directory)" in capsys.readouterr().out


def test_texts_of_a_user_stay_in_their_cell(tmp_path):
    ledger.add(tmp_path, ROW | {"cohort": 'a,"b"\nc\u202e', "folder": "=1+1", "value": -0.5})
    (row,) = read_rows(tmp_path / "runs.csv")
    assert (row["cohort"], row["folder"], row["value"]) == ('a,"b" c', "'=1+1", "-0.5")


def add_many(folder: Path, process: int) -> None:
    for number in range(20):
        ledger.add(folder, ROW | {"folder": f"{process}-{number}"})


@pytest.mark.slow
def test_processes_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(tmp_path, number)) for number in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 5
    found = [row["folder"] for row in read_rows(tmp_path / "runs.csv")]
    assert sorted(found) == sorted(f"{process}-{number}" for process in range(5) for number in range(20))
    assert os.listdir(tmp_path) == ["runs.csv"]
