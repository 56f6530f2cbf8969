"""Networks and floors beside each other on the same folds, each with its paired difference.

`python tests/benchmarks/networks.py COHORT OUT [--maps 3] [--folds site] [--seeds 3] [--people train] [--floors]
[--of "cnn" "mmnn --set connectome=false"]`

Each of `--of` is a model and its options. It is trained in memory in each fold, as `--train` would, with so many seeds;
numbered folds are cut anew with each. `OUT` takes what each predicts: `<maps>-<folds>-<name>.csv`, with a column a
seed. What is there already is not done again, so another version's predictions can be put beside these. `--maps 3`
takes the first three maps of the cohort, and `--people train` its training people alone. `--floors` adds the floors
that networks are compared with. Prints the AUC of each, all together and within sites, and each minus the first.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data.cohorts.cohort import Cohort
from data.cohorts.records import record_bytes
from data.cohorts.stored import carry_tables, open_cohort, write_tables
from utils.jobs import JOBS
from utils.machines import devices
from utils.runs.group import Group, folded_run
from utils.runs.validate import request
from utils.scores import floors
from utils.scores.features import encoder, features
from utils.scores.metrics import Predictions, differences, with_intervals
from utils.training.fit import predicted


def with_maps(source: Cohort, folder: Path, maps: int, people: str) -> Path:
    """A cohort of the first maps of the records of everybody, or of those of the training people."""
    rows = [row for row in source.rows if people == "all" or row.split == people]
    if maps == source.num_maps and len(rows) == len(source.rows):
        return source.path
    folder.mkdir()
    size = record_bytes(source.grid, maps)
    for at, row in enumerate(source.rows):
        if row in rows:
            (folder / row.file).write_bytes(source.entries[at].read(record_bytes(source.grid, source.num_maps))[:size])
    carry_tables(source, folder)
    write_tables(folder, rows, replace(source.metadata, maps=source.maps[:maps]))
    return folder


def group_of(cohort: Path, words: str, folds: str, seed: int) -> Group:
    """The trainings that a user's command asks for."""
    given = f"--train --model {words} --folds {folds} --seed {seed} --dataDir {cohort}".split()
    top = command_line.parser()
    args = top.parse_args([*given, "--chkPointDir", str(cohort.parent / "none"), "--outDir", str(cohort.parent / "no")])
    named = {name for name, value in vars(args).items() if value != top.get_default(name)}
    return folded_run(request(args, named, JOBS.values()))


def of_network(group: Group) -> pd.DataFrame:
    """What its networks predict of the people whom each fold tests."""
    workers, found = group.run.workers.started(devices.start_tensorflow("cpu")), []
    for part in group.parts:
        part = replace(part, workers=workers)
        found.append(table_of(part.cohort, predicted(part), part.fold))
    return pd.concat(found)


def table_of(cohort: Cohort, probability: dict[str, float], fold: str) -> pd.DataFrame:
    """The people whom a fold tests."""
    rows = [row for row in cohort.rows if row.file in probability]
    cells = [(row.subject, row.site, row.label, fold, probability[row.file]) for row in rows]
    return pd.DataFrame(cells, columns=["subject", "site", "label", "fold", "probability"])


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.csv"


def is_done(folder: Path, name: str, seed: int) -> bool:
    path = path_of(folder, name)
    return path.exists() and f"seed {seed}" in pd.read_csv(path, nrows=1)


def keep(folder: Path, name: str, seed: int, table: pd.DataFrame) -> None:
    """Adds a seed's predictions to those of the seeds before."""
    path, own = path_of(folder, name), {"probability": f"seed {seed}", "fold": f"fold seed {seed}"}
    table = table.rename(columns=own)
    if path.exists():
        known = pd.read_csv(path, dtype={"subject": str, **{f"fold seed {at}": str for at in range(seed)}})
        table = known.merge(table[["subject", *own.values()]], on="subject", validate="one_to_one")
    table.to_csv(path, index=False)


def of_floors(group: Group) -> dict[str, pd.DataFrame]:
    """What floors predict of the people whom each fold tests."""
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in FLOORS}
    for part in group.parts:
        cohort = part.cohort
        train, test = cohort.indices("train"), cohort.indices("test")
        fitting = floors.training_sets([cohort.rows[at] for at in train], floors.ridge.people_of(cohort, train))
        tables, every, parts = features(cohort), [], {}
        for kind in ("regions", "phenotype"):
            encoding = encoder().fit(tables[kind].iloc[train])
            known, new = (encoding.transform(tables[kind].iloc[rows]) for rows in (train, test))
            count = cohort.num_maps if kind == "regions" else 1
            svms = [floors.by_svm(known[:, at::count], new[:, at::count], fitting["SVM"]) for at in range(count)]
            every += svms
            parts[f"{kind}, mean of SVMs"] = floors.pooled(svms)
        parts["regions and phenotype, mean of SVMs"] = floors.pooled(every)
        if cohort.connectomes is not None:
            edges = floors.ridge.fit_edges(cohort, cohort.connectomes, train).log_odds(cohort.connectomes, test)
            parts["connectome, ridge"] = floors.expit(edges)
            parts["mean of parts"] = floors.pooled([parts[FLOORS[0]], parts[FLOORS[2]], parts["connectome, ridge"]])
        files = [cohort.rows[at].file for at in test]
        for name, probability in parts.items():
            found[name].append(table_of(cohort, dict(zip(files, probability, strict=True)), part.fold))
    return {name: pd.concat(tables) for name, tables in found.items() if tables}


FLOORS = (
    "regions, mean of SVMs",
    "regions and phenotype, mean of SVMs",
    "phenotype, mean of SVMs",
    "connectome, ridge",
    "mean of parts",
)


def scored(tables: dict[str, pd.DataFrame]) -> None:
    """Prints each, and minus the first."""
    each = {}
    for name, table in tables.items():
        seeds = [column for column in table if column.startswith("seed")]
        each[name] = [
            Predictions(table["label"], table[seed], table["subject"], table[f"fold {seed}"], table["site"])
            for seed in seeds
        ]
    first = next(iter(each))
    for name, (one, *repeats) in each.items():
        pooled, text = replace(one, repeats=tuple(repeats)), ""
        scores = with_intervals(pooled, 0)
        seeds = " ".join(f"{with_intervals(of, 0)['auc_sites'].value:.3f}" for of in (one, *repeats))
        if name != first and len(repeats) + 1 == len(each[first]):
            minus = differences(pooled, replace(each[first][0], repeats=tuple(each[first][1:])), 0)
            text = f"; minus {first}: " + ", ".join(f"{key} {estimate.text()}" for key, estimate in minus.items())
        print(
            f"{name}: AUC {scores['auc'].text()}, within sites {scores['auc_sites'].text()} ({seeds}){text}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--maps", type=int, default=3, help="the first of the cohort's (default 3)")
    parser.add_argument("--folds", default="site", help="as of run.py (default site)")
    parser.add_argument("--seeds", type=int, default=3, help="(default 3)")
    parser.add_argument("--people", choices=("all", "train"), default="all", help="(default all)")
    parser.add_argument("--floors", action="store_true", help="those that networks are compared with")
    parser.add_argument("--name", default="", help="begins the names, such as of another version")
    parser.add_argument("--of", nargs="*", default=[], metavar="OPTIONS", help="a model and its options")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start, tables = f"{args.maps}-{args.folds}-", dict[str, pd.DataFrame]()
    with tempfile.TemporaryDirectory() as temporary:
        cohort = with_maps(open_cohort(args.cohort), Path(temporary) / "cohort", args.maps, args.people)
        for seed in range(args.seeds):
            names = [name for name in args.of if not is_done(args.out, start + args.name + name, seed)]
            floors_too = args.floors and not is_done(args.out, start + FLOORS[0], seed)
            for name in [*(["floors"] if floors_too else []), *names]:
                began = time.time()
                with contextlib.redirect_stdout(io.StringIO()):
                    group = group_of(cohort, "cnn" if name == "floors" else name, args.folds, seed)
                    found = of_floors(group) if name == "floors" else {args.name + name: of_network(group)}
                for one, table in found.items():
                    keep(args.out, start + one, seed, table)
                print(f"{start}{args.name}{name}: seed {seed} in {time.time() - began:.0f} s", flush=True)
    tables = {
        path.stem.removeprefix(start).replace("_", " "): pd.read_csv(path)
        for path in sorted(args.out.glob(f"{start}*.csv"))
    }
    scored(tables)


if __name__ == "__main__":
    main()
