"""--test --permutations N: the test, and then its whole procedure again on labels permuted within sites -> the p-value.

Each permutation is trained in memory on relabelled folds, chooses if the training did, and leaves a row of
`permutations/permutations.csv`. Every process of the command does permutations that no other one is working on, so a
job array shares them, and a command that was killed can be repeated to go on. The process that finds them complete
writes the p-value into the report.

The p-value ends early where there is little to find (Besag & Clifford 1991, Biometrika 78:301). Permutations are drawn
until ten of them score at least as high as the true labels; then p = 10 / number drawn. If that does not happen within
the requested number, p = (1 + those as high) / (1 + number). Either way P(p <= a) <= a where there is nothing to find.
The order of the permutations decides, not which is done first: processes that share the work get the same p.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from scipy.stats import beta

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_csv_frame, write_csv_frame
from data.base.terminal import (
    format_duration,
    open_progress_bar,
    print_summary,
    print_table,
    print_unless_quiet,
    redirect_progress,
)
from data.base.thresholds import CONFIDENCE_LEVEL
from data.cohorts.cohort import Cohort
from data.cohorts.folds import permute_folds
from utils.machines import devices
from utils.report.tables import read_predictions
from utils.runs import record
from utils.runs.group import RunGroup
from utils.runs.record import MANIFEST_FILE, Manifest
from utils.runs.run import Run
from utils.runs.statements import PermutationResult
from utils.runs.work import is_child_process, make_process_environments, run_subprocesses
from utils.scores.metrics import Predictions, compute_headline_auc
from utils.scores.results import RESULT_TABLE_BY_NAME, Estimate, Headline

PERMUTATION_COLUMNS = ["permutation", "score"]
MAX_EXCEEDANCES = 10  # permutations as high as the true labels, after which none is drawn
PERMUTATIONS_FOLDER = "permutations"
PERMUTATIONS_FILE = "permutations.csv"
PERMUTATIONS_PER_PROCESS = 25  # after which a process of --jobs ends: TensorFlow keeps about 2 MB of every training


def replace_cohort(run: Run, cohort: Cohort) -> Run:
    """The run on another cohort of the same records, whose volumes are read as before."""
    original_cohort = run.cohort
    cohort = cohort if original_cohort.connectomes else cohort.without_connectomes
    cohort = replace(
        cohort,
        standard=original_cohort.standard,
        moments_by_site=original_cohort.moments_by_site,
        means_folder=original_cohort.means_folder,
    )
    return replace(run, cohort=cohort)


def compute_permutation_result(
    observed_score: float, permutation_scores: Sequence[float], requested_count: int, metric_name: str
) -> PermutationResult | None:
    """The result of a series, of whose first permutations these are the scores; None if its end is not reached yet."""
    exceedance_count = 0  # permutations at least as high as the true labels
    drawn_count = 0
    for permutation_score in permutation_scores[:requested_count]:
        drawn_count += 1
        exceedance_count += permutation_score >= observed_score
        if exceedance_count == MAX_EXCEEDANCES:
            break
    is_stopped_early = exceedance_count == MAX_EXCEEDANCES
    if drawn_count == 0 or not (is_stopped_early or drawn_count == requested_count):
        return None

    # Clopper and Pearson; if it stopped early, it did so because the last one was high
    lower_score_count = drawn_count - exceedance_count
    if is_stopped_early:
        p_value = exceedance_count / drawn_count
        beta_shape = exceedance_count
    else:
        p_value = (exceedance_count + 1) / (drawn_count + 1)
        beta_shape = exceedance_count + 1
    p_upper_bound = beta.ppf(CONFIDENCE_LEVEL, beta_shape, lower_score_count) if lower_score_count else 1.0
    return PermutationResult(
        p=p_value,
        bound=float(p_upper_bound),
        high=exceedance_count,
        count=drawn_count,
        asked=requested_count,
        observed=observed_score,
        metric=metric_name,
        mean=sum(permutation_scores[:drawn_count]) / drawn_count,
    )


@dataclass(frozen=True)
class PermutationSeries:
    """The permutations of a test on folds, which the runs of `group` did; `requested_count` of them at most."""

    group: RunGroup
    requested_count: int

    @property
    def fold_runs(self) -> Sequence[Run]:
        return self.group.runs

    @property
    def pooled_run(self) -> Run:
        return self.group.joint_run

    @property
    def permutations_folder(self) -> Path:
        return self.pooled_run.out_dir / PERMUTATIONS_FOLDER

    @property
    def permutations_manifest(self) -> Manifest:
        """The record of the folder. It does not depend on the number of permutations, so that more continue fewer; what
        is permuted is the training, so it has the training's settings."""
        training_keys = [fold_run.predictor.training_key for fold_run in self.fold_runs]
        permutations_key = record.compute_run_key(self.pooled_run.run_key, training_keys)
        return Manifest(job="permute", key=permutations_key, settings=self.pooled_run.choices)

    @cached_property
    def manifest_key(self) -> str:
        """The key of its record, as it was at first."""
        return self.permutations_manifest.key

    @cached_property
    def observed_auc_name_and_value(self) -> tuple[str, float]:
        """The AUC that the verdict rests on, by its name, as the test has it."""
        predictions_path = self.pooled_run.out_dir / RESULT_TABLE_BY_NAME["predictions"].file_name
        return compute_headline_auc(Predictions.from_tables(read_predictions(predictions_path)))

    def load_score_by_permutation(self) -> dict[int, float]:
        """The scores of the permutations that are done, by number."""
        table_path = self.permutations_folder / PERMUTATIONS_FILE
        if not table_path.is_file():
            return {}
        score_table = read_csv_frame(table_path, PERMUTATION_COLUMNS)
        return dict(zip(score_table["permutation"].map(int), score_table["score"].map(float), strict=True))

    def find_result(self) -> PermutationResult | None:
        """The result; None if permutations are missing."""
        score_by_permutation = self.load_score_by_permutation()
        metric_name, observed_score = self.observed_auc_name_and_value
        first_scores = []  # of permutations 1, 2, ... up to the first that is missing
        for permutation_number in range(1, self.requested_count + 1):
            if permutation_number not in score_by_permutation:
                break
            first_scores.append(score_by_permutation[permutation_number])
        return compute_permutation_result(observed_score, first_scores, self.requested_count, metric_name)

    def score_permutation(self, permutation_number: int, report_progress: Callable[[str], object]) -> float:
        """What the procedure scores on one permutation. TensorFlow must have been started."""
        original_folds = self.fold_runs[0].folds
        assert original_folds
        relabelled_folds = permute_folds(original_folds, self.pooled_run.seed, permutation_number)
        prediction_rows = []
        for fold_name, fold_run in zip(relabelled_folds.fold_names, self.fold_runs, strict=True):
            relabelled_run = replace_cohort(fold_run, relabelled_folds.make_fold_cohort(fold_name))
            relabelled_run = replace(relabelled_run, folds=relabelled_folds)
            row_by_file = {cohort_row.file: cohort_row for cohort_row in relabelled_run.cohort.rows}
            for file_name, probability in fit_and_predict_by_file(relabelled_run).items():
                cohort_row = row_by_file[file_name]
                prediction_rows.append((cohort_row.subject, cohort_row.site, cohort_row.label, fold_name, probability))
            report_progress(f"{permutation_number}: fold {fold_name} is done")
        prediction_columns = ["subject", "site", "label", "fold", "probability"]
        prediction_table = pd.DataFrame(prediction_rows, columns=prediction_columns)
        _, permutation_score = compute_headline_auc(Predictions.from_tables(prediction_table))
        return permutation_score

    def run_permutations(self, max_permutations: int) -> None:
        """Does permutation after permutation that no other process is working on, `max_permutations` at most, until no
        more are needed."""
        own_count = 0  # permutations that this process has done
        stored_count = len(self.load_score_by_permutation())
        with open_progress_bar("Permutations", self.requested_count, stored_count) as progress_bar:
            for permutation_number in range(1, self.requested_count + 1):
                if permutation_number in self.load_score_by_permutation():
                    continue
                if self.find_result() or own_count == max_permutations:
                    return
                permutation_lock = self.permutations_folder / f"permutation {permutation_number}"
                with ExitStack() as lock_stack:
                    try:
                        lock_stack.enter_context(files.lock_exclusively(permutation_lock))
                    except InputError:  # another process is working on it
                        continue
                    if permutation_number in self.load_score_by_permutation():
                        continue
                    permutation_score = self.score_permutation(
                        permutation_number, lambda message: progress_bar.advance(message, 0)
                    )
                    self.add_score(permutation_number, permutation_score)
                own_count += 1
                progress_bar.advance()

    def add_score(self, permutation_number: int, permutation_score: float) -> None:
        """Adds a row, in the order of numbers."""
        with files.lock_exclusively(self.permutations_folder, wait=True):
            if not self.is_continued:
                raise InputError(f"{self.permutations_folder} is of another training now; repeat the command.")
            score_rows = sorted((self.load_score_by_permutation() | {permutation_number: permutation_score}).items())
            write_csv_frame(
                self.permutations_folder / PERMUTATIONS_FILE, pd.DataFrame(score_rows, columns=PERMUTATION_COLUMNS)
            )

    @property
    def is_continued(self) -> bool:
        """Whether the folder is of these trainings, so that the scores in it count."""
        folder_manifest = record.read_manifest(self.permutations_folder)
        return folder_manifest is not None and folder_manifest.key == self.manifest_key

    def describe_remaining_work(self) -> str:
        """How many permutations are to come, and how long they take at most, by the trainings of the networks."""
        remaining_permutation_count = self.requested_count
        if self.is_continued:
            remaining_permutation_count -= len(self.load_score_by_permutation())
            if self.find_result():
                remaining_permutation_count = 0
        work_text = (
            f"{remaining_permutation_count} more at most, each in {len(self.fold_runs)} folds; {MAX_EXCEEDANCES} as "
            "high end it early"
        )

        training_times_s = [fold_run.predictor.training_manifest.wall_time_s for fold_run in self.fold_runs]
        known_training_times_s = [training_time_s for training_time_s in training_times_s if training_time_s]
        if not known_training_times_s:
            return f"{work_text}; time not known yet: the first one tells"
        mean_training_s = sum(known_training_times_s) / len(known_training_times_s)
        max_remaining_s = remaining_permutation_count * len(self.fold_runs) * mean_training_s
        return (
            f"{work_text}; time at most about {format_duration(max_remaining_s)}, by "
            f"{format_duration(mean_training_s)} a training"
        )


def run_permutation_test(group: RunGroup, requested_count: int, process_count: int, may_share_gpus: bool) -> int:
    """Does the permutations that are missing, in `process_count` processes if there are several; returns the exit
    status."""
    series = PermutationSeries(group, requested_count)
    folder_manifest = record.read_manifest(series.permutations_folder)
    test_manifest = record.read_manifest(series.pooled_run.out_dir)
    stored_result = get_finished_result(folder_manifest)
    if (
        folder_manifest
        and folder_manifest.key == series.manifest_key
        and stored_result
        and stored_result == get_finished_result(test_manifest)
        and stored_result.asked == requested_count
    ):
        print("Everything is done.")
        if permutation_result := series.find_result():
            print_table([[permutation_result.permutation_sentence]], truncate_last_column=True)
        series.pooled_run.print_finished_results()
        return 0

    with files.lock_exclusively(series.permutations_folder, wait=True):
        if (
            folder_manifest is None
            or folder_manifest.key != series.manifest_key
            or record.find_changed_outputs(series.permutations_folder, folder_manifest)
        ):
            record.claim_results_folder(series.permutations_folder, series.permutations_manifest)
    if not is_child_process():
        print_summary([("permutations", series.describe_remaining_work())])
    if process_count == 1:
        run_permutations_in_process(series, may_share_gpus)
    else:
        exit_status = run_permutations_in_subprocesses(series, process_count, may_share_gpus)
        if exit_status:
            return exit_status
    return 0 if is_child_process() else conclude_permutations(series)


def fit_and_predict_by_file(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, of a predictor that is fitted anew on the training
    people; nothing of it is kept."""
    if not run.predictor.is_fitted_when_used:
        from utils.training.train import train_and_predict_by_file  # imports Keras, which is slow

        return train_and_predict_by_file(run)
    test_indices = run.cohort.find_split_record_indices("test")
    with redirect_progress(lambda _: None):  # the bar of permutations says enough
        probabilities, _ = run.predictor.make_ready(run.fold_data).predict_probabilities(test_indices)
    file_names = [run.cohort.rows[record_index].file for record_index in test_indices]
    return dict(zip(file_names, probabilities.tolist(), strict=True))


def get_finished_result(manifest: Manifest | None) -> PermutationResult | None:
    """The result as a record has it; None if it is not finished."""
    return manifest.permutations if manifest and manifest.finished else None


def run_permutations_in_process(series: PermutationSeries, may_share_gpus: bool) -> None:
    """Does permutations until no more are needed; a process of --jobs ends before that."""
    if series.pooled_run.predictor.needs_tensorflow:
        with redirect_stdout(None) if is_child_process() else nullcontext():
            device_kind = devices.choose_device(may_share_gpus)
        workers = series.fold_runs[0].workers.with_strategy(devices.start_tensorflow(device_kind))
        series = replace(series, group=series.group.with_workers(workers))
    max_permutations = PERMUTATIONS_PER_PROCESS if is_child_process() else series.requested_count
    with redirect_progress(lambda _: None) if is_child_process() else nullcontext():
        series.run_permutations(max_permutations)


def run_permutations_in_subprocesses(series: PermutationSeries, process_count: int, may_share_gpus: bool) -> int:
    """Starts several processes, and as many anew when these have ended, until no more permutations are needed, or they
    have added none; returns the exit status of the first that fails."""
    previous_score_count = -1
    while series.find_result() is None:
        score_count = len(series.load_score_by_permutation())
        if score_count <= previous_score_count:
            break
        previous_score_count = score_count
        if series.pooled_run.predictor.needs_tensorflow:
            devices.choose_device(may_share_gpus, may_use_several=True)
        process_environments = make_process_environments(process_count, may_share_gpus)
        # a name, and no options to add
        names_and_options = [("A process of permutations", list[str]())] * process_count
        exit_status = run_subprocesses(names_and_options, process_environments, "Permutations")
        if exit_status:
            return exit_status
    return 0


def conclude_permutations(series: PermutationSeries) -> int:
    """Writes the p-value, here and into the report of the test, if no permutation is missing."""
    pooled_run = series.pooled_run
    permutations_folder = series.permutations_folder
    with files.lock_exclusively(permutations_folder, wait=True):
        permutation_result = series.find_result()
        if permutation_result is None:
            print("Other processes are still at permutations; the last one of all writes the p-value.")
            return 0
        for lock_path in permutations_folder.glob(".*.lock"):  # of a process that was killed
            files.remove_file_or_folder(lock_path)
        amend_test_report(pooled_run, permutation_result)
        finished_manifest = replace(
            series.permutations_manifest,
            finished=True,
            outputs=record.fingerprint_outputs(permutations_folder),
            permutations=permutation_result,
        )
        record.write_manifest(permutations_folder / MANIFEST_FILE, finished_manifest)
        replace(pooled_run, out_dir=permutations_folder).add_to_ledger(
            Headline("p of permutations", Estimate(permutation_result.p, None, permutation_result.bound))
        )
    print_unless_quiet(permutation_result.permutation_sentence)
    pooled_run.print_results_location()
    return 0


def amend_test_report(pooled_run: Run, permutation_result: PermutationResult) -> None:
    """Puts the p-value into the record of a test, and into its report."""
    from utils.report.build import REWRITTEN_FILES, write_report
    from utils.report.tables import read_test_folder

    with (
        files.lock_exclusively(pooled_run.out_dir, wait=True),
        record.rewrite_outputs(pooled_run.out_dir, REWRITTEN_FILES, permutation_result),
    ):
        write_report(pooled_run.out_dir, read_test_folder(pooled_run.out_dir))
