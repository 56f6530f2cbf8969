"""`run.py --dryRun`: what was settled -> who, what is read, how many trainings; nothing is written."""

from collections.abc import Iterator, Sequence

from data.base.terminal import SummaryRow
from data.cohorts.folds import divide_into_inner_folds
from data.cohorts.forecast import make_forecast
from data.cohorts.rows import join_names
from utils.permutations import Series
from utils.runs.run import Run, make_pooled_run


def preview(runs: Sequence[Run], jobs: int, permutations: int | None) -> Iterator[SummaryRow]:
    """Facts on what the command would do."""
    run = make_pooled_run(runs)
    todo = [one for one in runs if one.is_requested and one.is_due()]
    yield from who(run)
    yield "reads", reads(run)
    what = f"to train, of {run.num_iters} batches" if trains(run) else f"for {run.job.flag}"
    at_a_time = f", {jobs} at a time" if jobs > 1 else ""
    yield "networks", f"{sum(map(cost, todo))} of {sum(map(cost, runs))} {what}{at_a_time}"
    if permutations:
        yield "permutations", Series(runs, permutations).expected()
    yield "dry run", "nothing was written"


def trains(run: Run) -> bool:
    return not run.job.needs_checkpoint


def cost(run: Run) -> int:
    """How many networks a run trains, or uses."""
    if not (trains(run) and run.candidates and run.folds):
        return 1
    return 1 + len(run.candidates) * len(divide_into_inner_folds(run.folds, run.cohort, run.seed).fold_names)


def who(run: Run) -> Iterator[SummaryRow]:
    """The people, by split or fold, class and site, unless they are printed before a training anyhow; what they can
    show; and who was left out when the cohort was converted."""
    cohort = run.folds.full_cohort if run.folds else run.cohort
    how, fold_of = (run.folds.folds_option, run.folds.fold_by_subject) if run.folds else ("", None)
    if not trains(run):
        yield from cohort.take_census(fold_of).make_count_rows("sites")
    if run.model.classifies:
        yield "forecast", " ".join(make_forecast(cohort.rows, cohort.groups, how, fold_of, cohort.metadata.connectome))
    if reasons := cohort.metadata.left_out_count_by_reason:
        yield "left out", f"by convert: {', '.join(f'{count} ({reason})' for reason, count in reasons.items())}"


def reads(run: Run) -> str:
    metadata = run.cohort.metadata
    told = {
        "volume": f"maps {', '.join(run.cohort.map_names)}",
        "phenotype": f"phenotype {join_names(metadata.phenotype_columns or metadata.phenotype)}",
        "connectome": f"connectomes {metadata.connectome}",
    }
    return "; ".join(told[name] for name in run.model.list_inputs(run.config))
