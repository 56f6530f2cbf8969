"""`run.py --dryRun`: the runs as settled -> the people, what is read, how many trainings; nothing is written."""

from collections.abc import Iterator

from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.cohorts.folds import divide_into_inner_folds
from data.cohorts.forecast import make_forecast
from utils.blackout.options import BlackoutOptions
from utils.permutations import PermutationSeries
from utils.predictors.estimator import EstimatorPredictor
from utils.runs.group import RunPlan
from utils.runs.run import Run


def preview_plan(plan: RunPlan, process_count: int, permutation_count: int | None) -> Iterator[SummaryRow]:
    """Facts on what the command would do."""
    joint_run = plan.group.joint_run
    yield from describe_people(joint_run)
    yield "reads", describe_inputs(joint_run)
    purpose_text = (
        f"to train, of {joint_run.num_iters} batches" if is_training(joint_run) else f"for {joint_run.job.flag}"
    )
    parallel_text = f", {process_count} at a time" if process_count > 1 else ""
    due_count = sum(map(count_networks, plan.due_runs))
    total_count = sum(map(count_networks, plan.group.runs))
    if isinstance(joint_run.predictor, EstimatorPredictor) and isinstance(joint_run.options, BlackoutOptions):
        from utils.blackout.column_preview import preview_rows  # fits it

        yield from preview_rows(plan.due_runs)
    topic = "fits" if joint_run.predictor.is_fitted_when_used else "networks"
    yield topic, f"{due_count} of {total_count} {purpose_text}{parallel_text}"
    if permutation_count:
        yield "permutations", PermutationSeries(plan.group, permutation_count).describe_remaining_work()
    yield "dry run", "nothing was written"


def is_training(run: Run) -> bool:
    return not run.job.needs_checkpoint


def count_networks(run: Run) -> int:
    """How many networks a run trains, or uses."""
    if not (is_training(run) and run.candidates and run.folds):
        return 1
    inner_fold_names = divide_into_inner_folds(run.folds, run.cohort, run.seed).fold_names
    return 1 + len(run.candidates) * len(inner_fold_names)


def describe_people(run: Run) -> Iterator[SummaryRow]:
    """The people, by split or fold, class and site, unless they are printed before a training anyhow; what they can
    show; and who was left out when the cohort was converted."""
    cohort = run.folds.full_cohort if run.folds else run.cohort
    folds_option = run.folds.folds_option if run.folds else ""
    fold_by_subject = run.folds.fold_by_subject if run.folds else None
    if not is_training(run):
        yield from cohort.take_census(fold_by_subject).make_count_rows("sites")
    if run.predictor.classifies:
        forecast_sentences = make_forecast(
            cohort.rows, cohort.groups, folds_option, fold_by_subject, cohort.metadata.connectome
        )
        yield "forecast", " ".join(forecast_sentences)
    left_out_count_by_reason = cohort.metadata.left_out_count_by_reason
    if left_out_count_by_reason:
        reason_texts = [f"{people_count} ({reason})" for reason, people_count in left_out_count_by_reason.items()]
        yield "left out", f"by convert: {', '.join(reason_texts)}"


def describe_inputs(run: Run) -> str:
    metadata = run.cohort.metadata
    text_by_input = {
        "volume": f"maps {', '.join(run.cohort.map_names)}",
        "phenotype": f"phenotype {join_names(metadata.phenotype_columns or metadata.phenotype)}",
        "connectome": f"connectomes {metadata.connectome}",
    }
    input_texts = [text_by_input[input_name] for input_name in run.predictor.input_names]
    return "; ".join(input_texts) or f"not known of this {run.predictor.noun}"
