"""A run in parts, whose results are pooled once all parts have theirs: what folds, and repeats of them, share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from data.base import files
from data.cohorts.folds import Folds
from utils.machines import devices
from utils.runs.fold_rows import Rows
from utils.runs.results import read_manifest
from utils.runs.run import Run, prepare_folder
from utils.runs.side_by_side import side_by_side


@dataclass(frozen=True, kw_only=True)
class PooledRun(Run):
    """A job in `parts`; `cohort` is the whole one, `out_dir` takes the pooled results. Of the folds only the one named
    `only` is to be done, if that is given; `jobs` are done at a time."""

    pooling: ClassVar[str]  # the function of the job's module that makes the results from those of the parts
    folds: Folds
    only: str | None = None
    jobs: int = 1

    @property
    def single_folds(self) -> Sequence[Run]:
        """The runs on single folds."""
        raise NotImplementedError

    @property
    def names(self) -> Sequence[str]:
        """What several runs on these folds are called, in the order of `single_folds`; none if there is one."""
        return ()

    def perform_parts(self, rows: Rows, device: str) -> int:
        """Does the folds that are not done; returns the exit status of the first that fails."""
        raise NotImplementedError

    def missing(self) -> str:
        """Which folds are to be done before the results are pooled, in words; nothing if none is."""
        raise NotImplementedError

    def is_done(self) -> bool:
        return super().is_done() and all(part.is_done() for part in self.parts)

    def perform_side_by_side(self, share_gpu: bool) -> int:
        """Does the folds in processes of their own, `jobs` at a time, then pools; returns the exit status."""
        device = devices.choose_device(share_gpu, several=True)
        self.begin()
        return side_by_side(self.single_folds, self.names, self.jobs, share_gpu) or self.pool(device)

    def perform_on(self, device: str) -> int:
        if self.workers.is_chief:
            self.begin()
        rows = Rows(self.single_folds, self.names, alone=self.only is not None)
        return self.perform_parts(rows, device) or (self.pool(device) if self.workers.is_chief else 0)

    def begin(self) -> None:
        """Makes the folder of the pooled results; earlier ones are moved aside."""
        with files.locked(self.out_dir, wait=True):
            manifest = read_manifest(self.out_dir)
            if manifest is None or manifest.finished or not self.continues():
                prepare_folder(self)

    def pool(self, device: str) -> int:
        """Pools the results if no fold is missing."""
        if self.only and self.override:
            print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
            return 0
        if missing := self.missing():
            print(f"Still to be done before the results are pooled: {missing}.")
            return 0
        self.pool_parts(device)
        return 0

    def pool_parts(self, device: str) -> None:
        """Pools the results, unless that is done."""
        with files.locked(self.out_dir, wait=True):
            if self.override or not self.is_done():
                devices.start_tensorflow(device)
                self.job.part(self.pooling)(self)
