"""What `--choose` reports where there is nothing to find: the procedure, and the best candidate.

`python tests/benchmarks/choice.py COHORT [--sets 20] [--people 160] [--seed 0]`

A set is so many people of a cohort, one of their maps, and labels permuted within sites: the truth is 0.5. Eight `nn`
are trained in memory on two folds, and inner folds choose among them, by the jobs' own code. Prints a row a set: the
AUC of the procedure, and that of the candidate which does best over all folds.

Last comes a line of means, each with its 95 % range, and how often each is called 'better than chance'.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data.cohorts.folds import Folds, permuted_labels
from data.cohorts.records import DTYPE, record_bytes
from data.cohorts.stored import carry_tables, open_cohort, write_tables
from utils.choice import job
from utils.choice.chosen import chosen_run
from utils.evaluation import comparisons
from utils.jobs import JOBS
from utils.machines import devices
from utils.runs.group import Group
from utils.runs.validate import request
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import CHANCE
from utils.training.fit import predicted

CANDIDATES = [
    f"--set phenotype_activation={activation} --set learning_rate={rate} --set phenotype_units={units}"
    for activation in ("sine", "relu")
    for rate in (0.001, 0.01)
    for units in (32, 256)
]
ITERATIONS, NUMBER_OF_FOLDS = 20, 2


def write_cohort(source: Path, folder: Path, people: int, seed: int) -> None:
    """So many people of a cohort, the first of their maps, with labels permuted within sites."""
    cohort, random = open_cohort(source).without_connectomes, np.random.default_rng(seed)
    label = permuted_labels(Folds("", cohort, "", {}), random)
    chosen = np.sort(random.permutation(len(cohort.rows))[:people])
    folder.mkdir()
    rows = [replace(cohort.rows[at], label=label[cohort.rows[at].subject]) for at in chosen]
    for at, row in zip(chosen, rows, strict=True):
        content = cohort.entries[at].read(record_bytes(cohort.grid))[DTYPE.itemsize :]
        (folder / row.file).write_bytes(np.array(row.label, DTYPE).tobytes() + content)
    carry_tables(cohort, folder)
    write_tables(folder, rows, replace(cohort.metadata, maps=cohort.maps[:1]))


def runs_of(folder: Path, seed: int) -> Group:
    """The training with a choice that the user's command asks for."""
    (folder / "candidates.txt").write_text("\n".join(CANDIDATES))
    words = ["--train", "--model", "nn", "--numIters", ITERATIONS, "--choose", folder / "candidates.txt"]
    words += ["--folds", NUMBER_OF_FOLDS, "--seed", seed, "--dataDir", folder / "cohort"]
    words += ["--chkPointDir", folder / "ckpt", "--outDir", folder / "out"]
    top = command_line.parser()
    args = top.parse_args(list(map(str, words)))
    given = {name for name, value in vars(args).items() if value != top.get_default(name)}
    return chosen_run(request(args, given, JOBS.values()))


def real_set(source: Path, people: int, seed: int) -> dict[str, dict[str, float]]:
    """The scores of a set of real people, as a test has them; networks are trained in memory, by the jobs' code."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        write_cohort(source, Path(temporary) / "cohort", people, seed)
        group = runs_of(Path(temporary), seed)
        workers = group.run.workers.started(devices.start_tensorflow("cpu"))
        tables: dict[str, list[pd.DataFrame]] = {name: [] for name in group.by_name}
        chosen = {}
        for of_fold in group.choice.leaves:
            fold = of_fold.fold
            contenders = {name: replace(part, workers=workers) for name, part in of_fold.options.contenders.items()}
            chosen[fold] = job.choice(contenders, job.Store()).name
            for name, part in contenders.items():
                found = predicted(part)
                rows = [(row, found[row.file]) for row in part.cohort.rows if row.file in found]
                cells = [(row.subject, row.site, row.label, fold, value) for row, value in rows]
                tables[name].append(pd.DataFrame(cells, columns=["subject", "site", "label", "fold", "probability"]))
        whole = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
        each = {name: Predictions.of(table) for name, table in whole.items()}
        procedure = Predictions.of(comparisons.of_folds(whole, chosen))
        summary = comparisons.choice_summary(each, procedure, chosen, seed)
        own = with_intervals(procedure, seed)[summary.metric]
    found = {"procedure": own, "best candidate": summary.best_score}
    return {name: estimate.columns() for name, estimate in found.items()}


def row(scores: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{name} {of['value']:.3f}" for name, of in scores.items())


def means(title: str, sets: list[dict[str, dict[str, float]]], seconds: float) -> str:
    """The mean of each score with its 95 % range, and how often its interval lies above chance if it has one."""
    text = f"{title}: {len(sets)} sets"
    for name in sets[0]:
        values = np.array([of[name]["value"] for of in sets])
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        text += f"; {name} {values.mean():.3f} ({values.mean() - half:.3f} to {values.mean() + half:.3f})"
        if "low" in sets[0][name]:
            text += f", better than chance {np.mean([of[name]['low'] > CHANCE for of in sets]):.1%}"
    return f"{text}; {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="with several sites")
    parser.add_argument("--sets", type=int, default=20, help="of real people (default 20)")
    parser.add_argument("--people", type=int, default=160, help="of a set (default 160)")
    parser.add_argument("--seed", type=int, default=0, help="of the first set (default 0)")
    args = parser.parse_args()
    start, sets = time.time(), []
    for seed in range(args.seed, args.seed + args.sets):
        sets.append(real_set(args.cohort, args.people, seed))
        print(f"set {seed}: {row(sets[-1])}", flush=True)
    print(means(f"{args.people} real people, {len(CANDIDATES)} candidates", sets, time.time() - start))


if __name__ == "__main__":
    main()
