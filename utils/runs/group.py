"""All runs of a command: one of a split, or one for each fold of each repeat, whose results are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from utils.machines.devices import Workers
from utils.runs.run import Run


@dataclass(frozen=True)
class RunGroup:
    """The runs of a command, in the order of repeats and folds. Their results are pooled if they are of folds."""

    runs: Sequence[Run]

    @property
    def has_folds(self) -> bool:
        return self.runs[0].folds is not None

    @property
    def requested_runs(self) -> list[Run]:
        """Those that this command is to do: all, or with --fold those of one fold."""
        return [run for run in self.runs if run.is_requested]

    @cached_property
    def joint_run(self) -> Run:
        """What writes the results of all: of folds a run on everybody, with the folder of the pooled results and the
        weights of all folds; of a split its only run."""
        first_run = self.runs[0]
        if first_run.folds is None:
            return first_run

        # folders of folds lie in those of repeats, if there are several
        parent_index = 1 if first_run.repeats > 1 else 0
        # settings are those that were chosen in folds: of what reads most
        widest_run = max(self.runs, key=lambda run: (run.is_transductive, len(run.predictor.input_names)))
        predictors = [run.predictor for run in self.runs]
        return replace(
            first_run,
            predictor=widest_run.predictor.pool_with(predictors, parent_index),
            fold="",
            repeat=0,
            training_id="",
            cohort=first_run.folds.full_cohort,
            out_dir=first_run.out_dir.parents[parent_index],
            used_weights_sha256=self.find_sha256_by_fold(),
            start_time=min(run.start_time for run in self.runs),
        )

    def find_sha256_by_fold(self) -> dict[str, str]:
        """SHA-256 of what predicts in each fold, of those where there is something."""
        sha256_by_fold = {}
        for run in self.runs:
            if predictor_sha256 := run.predictor.find_sha256():
                sha256_by_fold[run.fold_label] = predictor_sha256
        return sha256_by_fold

    def refresh(self) -> "RunGroup":
        """The same runs, to be asked once more, after they have been done."""
        return RunGroup(self.runs)

    def with_workers(self, workers: Workers) -> "RunGroup":
        return RunGroup([replace(run, workers=workers) for run in self.runs])


@dataclass(frozen=True)
class RunPlan:
    """What a command is to do, as it stood when it was planned."""

    group: RunGroup
    due_runs: Sequence[Run]  # of the requested ones, those that are not done
    is_joint_run_due: bool  # whether the results of all folds are to be pooled; of a split False

    @property
    def is_everything_done(self) -> bool:
        return not self.due_runs and not self.is_joint_run_due
