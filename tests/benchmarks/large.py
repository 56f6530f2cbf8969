"""Time and memory of every command on a cohort of many people: `python tests/benchmarks/large.py --cohort COHORT`.

`[--people 50000] [--only check,swap,...]`

COHORT, a record a person in a file of its own, is repeated by hard links under new names in a temporary folder (of
`TMPDIR`, on the same disk), and each command is run on it in a process of its own. Prints a table: seconds until the
first iteration is done, for trainings, and until the end, and the peak of resident memory.

Since the links share their content, everything is read from memory; a disk that reads 500 MB/s adds 14 s each time that
50,000 reduced records are read.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts.cohort import COVARIATES_FILE, MAP_MEASURES_FILE, PHENOTYPE_FILE, Cohort
from data.cohorts.metadata import DUPLICATES_APART
from data.cohorts.stored import open_cohort, write_cohort_tables

ROOT = Path(__file__).resolve().parents[2]
TRAIN_ONE_ITERATION = ["--train", "--numIters", 1]
COMMANDS: dict[str, list[Any]] = {  # `python ...`, each of which may use the files of those before it
    "check": ["-m", "data", "check", "COHORT"],
    "swap": ["-m", "data", "swap", "COHORT", "OUT", "--regions", 13, "--copies", 1],
    "zip": ["-m", "data", "pack", "COHORT", "OUT", "--zip"],
    "mmnn": ["run.py", "--model", "mmnn", *TRAIN_ONE_ITERATION],  # averages all volumes, and keeps the means
    "again": ["run.py", "--model", "mmnn", "--overrideChkpt", *TRAIN_ONE_ITERATION],  # and the next ones read them
    "cnn": ["run.py", "--model", "cnn", *TRAIN_ONE_ITERATION],
    "nn": ["run.py", "--model", "nn", *TRAIN_ONE_ITERATION],
    "fold": ["run.py", "--model", "cnn", "--folds", 5, "--fold", 0, *TRAIN_ONE_ITERATION],
    "test": ["run.py", "--model", "cnn", "--test"],
    "blackout": ["run.py", "--model", "cnn", "--blackout"],
}


@dataclass(frozen=True)
class Cost:
    """What a command took; `first_iteration_s` is when a training's first iteration was done."""

    status: int
    first_iteration_s: float | None
    seconds: float
    peak_gb: float


def enlarge(source: Cohort, people: int, folder: Path) -> Cohort:
    """The cohort `folder` of `people`, each a hard link to a record of the source and a copy of its rows; a person and
    all copies are in the same split."""
    rows, original_by_subject = [], {}
    for number, (row, entry) in enumerate(islice(cycle(zip(source.rows, source.entries, strict=True)), people)):
        rows.append(replace(row, file=f"{number}.bin", subject=str(number)))
        os.link(entry.path, folder / rows[-1].file)
        original_by_subject[rows[-1].subject] = row.subject
    copies = pd.DataFrame({"subject": original_by_subject.values(), "copy": original_by_subject.keys()})
    for table_name in (COVARIATES_FILE, PHENOTYPE_FILE, MAP_MEASURES_FILE):
        if (source.tables_folder / table_name).is_file():
            table = pd.read_csv(source.tables_folder / table_name, dtype=str, keep_default_na=False)
            merged = copies.merge(table, on="subject").assign(subject=lambda merged_table: merged_table["copy"])
            merged[list(table)].to_csv(folder / table_name, index=False, lineterminator="\n")
    write_cohort_tables(folder, rows, replace(source.metadata, grid=source.grid.shape, duplicates=DUPLICATES_APART))
    return open_cohort(folder)


def run_measured(command: list[str]) -> Cost:
    """Runs a command, printing its output."""
    start_time, first_iteration_s = time.monotonic(), None
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(f"    {line[:160].rstrip()}", flush=True)
            if first_iteration_s is None and line.startswith("Training "):
                first_iteration_s = time.monotonic() - start_time
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(process.returncode, first_iteration_s, time.monotonic() - start_time, usage.ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--people", type=int, default=50_000)
    parser.add_argument("--only", default=",".join(COMMANDS))
    args = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort_folder = Path(folder) / "cohort"
        cohort_folder.mkdir()
        enlarge(open_cohort(args.cohort), args.people, cohort_folder)
        path_by_word = {"COHORT": cohort_folder}
        for name in args.only.split(","):
            out = Path(folder) / name
            arguments = [str((path_by_word | {"OUT": out}).get(word, word)) for word in COMMANDS[name]]
            if arguments[0] == "run.py":
                arguments += [
                    "--dataDir",
                    str(cohort_folder),
                    "--outDir",
                    str(out),
                    "--chkPointDir",
                    str(Path(folder) / "checkpoints"),
                ]
            print(name, flush=True)
            costs[name] = run_measured([sys.executable, *map(str, arguments)])
            shutil.rmtree(out, ignore_errors=True)
    print(f"\n| {args.people} people | first iteration (s) | in all (s) | peak memory (GB) | exit status |")
    print("|---|---|---|---|---|")
    for name, cost in costs.items():
        first_iteration_text = "" if cost.first_iteration_s is None else f"{cost.first_iteration_s:.1f}"
        print(f"| {name} | {first_iteration_text} | {cost.seconds:.1f} | {cost.peak_gb:.2f} | {cost.status} |")


if __name__ == "__main__":
    main()
