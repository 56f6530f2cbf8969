"""`run.py --dryRun`: what was settled -> who, what is read, how many trainings, in lines.

Nothing is written.
"""

from collections.abc import Iterator, Sequence

from data.cohorts.forecast import forecast
from data.cohorts.rows import listed
from utils.permutations import Permutations
from utils.runs.group import Group
from utils.runs.run import Run


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
