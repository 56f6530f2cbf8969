"""`run.py --dryRun`: what was settled -> who, what is read, how many trainings, how long and how much, in lines.

Nothing is written.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_rows
from data.base.terminal import duration, size
from data.cohorts import records
from data.cohorts.forecast import forecast
from data.cohorts.rows import listed
from utils.machines.devices import start_on_cpu
from utils.permutations import Permutations
from utils.runs.folders import as_json, described, seconds_of
from utils.runs.group import Group
from utils.runs.run import Run

UNKNOWN = "not known yet; {} tells"


def preview(work: Run | Group | Permutations) -> Iterator[str]:
    """Lines on what the command would do."""
    asked = work if isinstance(work, Permutations) else None
    of = asked.tested if asked else work
    assert not isinstance(of, Permutations)
    run, leaves, jobs = (of, [of], 1) if isinstance(of, Run) else (of.run, of.leaves, of.jobs)
    only = None if isinstance(of, Run) else of.only
    todo = [leaf for leaf in leaves if only in (None, leaf.fold) and is_to_do(leaf)]
    yield from who(run)
    yield reads(run)
    what = "Networks to train" if trains(run) else f"Networks for {run.job.flag}"
    at_a_time = f", {jobs} at a time" if jobs > 1 else ""
    batches = f", of {run.num_iters} batches" if trains(run) else ""
    yield f"{what}: {cost(todo)} of {cost(leaves)}{batches}{at_a_time}."
    if todo:
        done = [leaf for leaf in leaves if leaf not in todo and leaf.is_done()]
        took = [seconds / leaf.options.cost for leaf in done if (seconds := seconds_of(leaf.out_dir))]
        yield f"Time: {time_of(todo, took or earlier(run), jobs)}."
        yield f"Disk: {disk(todo, done)}."
    if asked:
        yield asked.expected()
    yield "Dry run: nothing was written."


def trains(run: Run) -> bool:
    return not run.job.needs_checkpoint


def is_to_do(leaf: Run) -> bool:
    """Whether the command does a leaf: what is not on folds is tested again, though it is done."""
    return leaf.override or not leaf.is_done() or not (leaf.folds or trains(leaf))


def cost(leaves: Sequence[Run]) -> int:
    return sum(leaf.options.cost for leaf in leaves)


def who(run: Run) -> Iterator[str]:
    """The people, by split or fold, class and site, unless they are printed before a training anyhow; what they can
    show; and who was left out when the cohort was converted."""
    cohort = run.folds.whole if run.folds else run.cohort
    if not trains(run):
        yield from cohort.census(run.folds.fold_of if run.folds else None).lines()
    if run.model.classifies:
        how, fold_of = (run.folds.how, run.folds.fold_of) if run.folds else ("", None)
        yield from forecast(cohort.rows, cohort.groups, how, fold_of, cohort.metadata.connectome)
    if reasons := cohort.metadata.left_out:
        yield f"Left out by convert: {', '.join(f'{count} ({reason})' for reason, count in reasons.items())}."


def reads(run: Run) -> str:
    metadata = run.cohort.metadata
    told = {
        "volume": f"maps {', '.join(run.cohort.maps)}",
        "phenotype": f"phenotype {listed(metadata.phenotype_columns or metadata.phenotype)}",
        "connectome": f"connectomes {metadata.connectome}",
    }
    return f"{run.model.name} reads: {'; '.join(told[name] for name in run.model.inputs(run.config))}."


def time_of(todo: Sequence[Run], seconds: Sequence[float], jobs: int) -> str:
    """How long it takes, by what others of the same kind took."""
    if not seconds:
        return UNKNOWN.format("the first fold" if todo[0].folds else "the first progress line")
    total = np.mean(seconds) * cost(todo) / min(jobs, len(todo))
    return f"about {duration(float(total))}, since {len(seconds)} others took {duration(float(np.mean(seconds)))} each"


def earlier(run: Run) -> list[float]:
    """How long earlier trainings of the same model, settings and number of batches took. These are listed in `runs.csv`
    beside the output folder; folds in that of their run."""
    alike, found = alike_in(run), list[float | None]()
    for folder in listed_in(run.out_dir.absolute().parent) if trains(run) else ():
        with suppress(InputError, OSError):
            content = described(folder)
            if content.items() >= alike.items() and not (content.get("folds") and not content.get("fold")):
                found.append(seconds_of(folder))
    return [seconds for seconds in found if seconds]


def alike_in(run: Run) -> dict[str, Any]:
    """What `run.json` has of a finished training that took as long."""
    decisive = {"job": run.job.name, "model": run.model.name, "config": run.choices.config}
    return as_json(decisive | {"num_iters": run.num_iters, "finished": True})


def listed_in(folder: Path, deep: bool = True) -> Iterator[Path]:
    """The folders that the ledger in a folder lists, and those that these list."""
    with suppress(InputError, OSError):
        for row in read_rows(folder / files.LEDGER, ["folder"]).values():
            yield Path(row["folder"])
            if deep:
                yield from listed_in(Path(row["folder"]), deep=False)


def disk(todo: Sequence[Run], done: Sequence[Run]) -> str:
    """How much is written: of trainings their checkpoints, of others as much as those that are done have written."""
    first = todo[0]
    if not first.job.has_flag:
        return size(len(first.cohort.rows) * records.record_bytes(records.REDUCED, first.cohort.num_maps))
    if trains(first):
        return f"{size(checkpoints(todo))} of checkpoints"
    if not done:
        return UNKNOWN.format("the first fold" if first.folds else "a first run")
    written = [sum(path.stat().st_size for path in leaf.out_dir.rglob("*") if path.is_file()) for leaf in done]
    return f"about {size(int(np.mean(written) * len(todo)))}, since {len(done)} others have {size(sum(written))}"


def checkpoints(todo: Sequence[Run]) -> int:
    """The bytes of the checkpoints that trainings keep: of weights and optimizer, as each network is built."""
    start_on_cpu()  # before what imports TensorFlow
    from utils.training.loop import saves
    from utils.training.network import KEPT
    from utils.training.train import begin

    total, known = 0, dict[str, int]()
    for leaf in (leaf for leaf in todo if leaf.job is todo[0].job):  # a choice keeps no network
        settings = files.json_text(leaf.choices.config)
        if settings not in known:
            with leaf.fresh():
                training = begin(leaf.on(leaf.workers.started(())))
                variables = [*training.network.variables, *training.optimizer.variables]
                known[settings] = sum(int(np.prod(of.shape)) * np.dtype(of.dtype).itemsize for of in variables)
        kept = min(KEPT, saves(leaf.num_iters))
        total += known[settings] * (kept + bool(leaf.choices.validation))
    return total
