"""A run on folds: the job on each fold, a run of its own, and then the results of all folds pooled."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

from data.base import files
from data.cohorts.folds import Folds, folder_name, open_folds, part_folder
from data.cohorts.rows import listed
from utils.machines import devices
from utils.runs import guards
from utils.runs.checkpoints import OF_FOLDS, CheckpointFolder
from utils.runs.fold_rows import Rows
from utils.runs.results import read_manifest
from utils.runs.run import Run, prepare_folder
from utils.runs.side_by_side import side_by_side
from utils.runs.validate import Request, check, report, report_simulated


@dataclass(frozen=True, kw_only=True)
class FoldedRun(Run):
    """The job on folds; `cohort` is the whole one, `out_dir` takes the pooled results. `parts` are the runs on single
    folds, of which only the one named `only` is to be done, if that is given; `jobs` are done at a time."""

    folds: Folds
    only: str | None = None
    jobs: int = 1

    def settings(self) -> dict[str, Any]:
        digests = {part.fold: part.settings()["checkpoint_sha256"] for part in self.parts}
        of_data = {"cohort_sha256": self.folds.digest, "records_sha256": self.folds.records_sha256}
        return super().settings() | of_data | {"checkpoint_sha256": digests}

    def is_done(self) -> bool:
        return super().is_done() and all(part.is_done() for part in self.parts)

    def perform_side_by_side(self, share_gpu: bool) -> int:
        """Does the folds in processes of their own, `jobs` at a time, then pools; returns the exit status."""
        device = devices.choose_device(share_gpu, several=True)
        self.begin()
        return side_by_side(self.parts, self.jobs, share_gpu) or self.pool(device)

    def perform_on(self, device: str) -> int:
        if self.workers.is_chief:
            self.begin()
        rows = Rows(self.parts, alone=self.only is not None)
        for part in self.parts:
            if self.only in (None, part.fold) and (status := self.perform_part(part, rows, device)):
                return status
        return self.pool(device) if self.workers.is_chief else 0

    def begin(self) -> None:
        """Writes the table of folds, and makes the folder of the pooled results; earlier ones are moved aside."""
        if not self.job.needs_checkpoint:
            with files.locked(self.checkpoints.path, wait=True):
                self.folds.write(self.checkpoints.path)
        with files.locked(self.out_dir, wait=True):
            manifest = read_manifest(self.out_dir)
            if manifest is None or manifest.finished or not self.continues():
                prepare_folder(self)

    def perform_part(self, part: Run, rows: Rows, device: str) -> int:
        """The job on one fold by these workers, unless it is done."""
        part = replace(part, workers=self.workers)
        with part.locked():
            done = part.is_done() and not part.override
            if part.workers.of_chief(b"done" if done else b""):
                rows.skip(part)
                return 0
            if part.workers.is_chief:
                self.folds.check(part.checkpoints.trained.path.parent, part.fold, part.cohort)
            return rows.of(part, lambda: part.call(device))

    def pool(self, device: str) -> int:
        """Pools the results if no fold is missing."""
        if self.only and self.override:
            print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
            return 0
        if missing := [part.fold for part in self.parts if not part.is_done()]:
            folds = "folds" if len(missing) > 1 else "fold"
            print(f"Still to be done before the results are pooled: {folds} {listed(missing)}.")
            return 0
        with files.locked(self.out_dir, wait=True):
            if self.override or not self.is_done():
                devices.start_tensorflow(device)
                self.job.part("pool")(self)
        return 0


def folded_run(asked: Request) -> FoldedRun:
    """The run on all folds; of its parts, those that are to be done and are not done yet are checked."""
    args = asked.args
    kept = args.chkPointDir / asked.model.name / f"{OF_FOLDS}{folder_name(args.folds)}"
    folds = open_folds(asked.data_dir, args.folds, args.seed or 0, kept)
    report_simulated(folds.whole)
    for note in folds.notes:
        print(note, flush=True)
    only = None if args.fold is None else folds.named(args.fold)
    asked.options.check(folds)
    checkpoints = {name: CheckpointFolder(kept / folder_name(name), asked.training_command) for name in folds.names}
    saved = {
        name: asked.saved(folder) if folder.current or only in (None, name) else None
        for name, folder in checkpoints.items()
    }
    out_dir = asked.out_dir(next(filter(None, saved.values()), None))
    parts: list[Run] = []
    for name in folds.names:
        part = asked.run(checkpoints[name], saved[name], folds.cohort(name), part_folder(out_dir, name))
        if parts:  # the moments of sites are the same in all folds, and are computed once
            part = replace(part, cohort=replace(part.cohort, moments=parts[0].cohort.moments))
        if options := part.options.of_fold(part.cohort):
            parts.append(replace(part, options=options, folds=folds, fold=name))
    for part in parts:
        if only in (None, part.fold) and (part.override or not part.is_done()):
            check(part, saved[part.fold])
    first = {field.name: getattr(parts[0], field.name) for field in dataclasses.fields(Run)}
    own = {"cohort": folds.whole, "options": asked.options, "out_dir": out_dir, "fold": ""}
    own |= {"checkpoints": CheckpointFolder(kept, asked.training_command), "only": only, "jobs": args.jobs}
    run = FoldedRun(**first | own | {"parts": tuple(parts)})
    guards.free_output(run, None)
    report(run, folds.whole)
    return run
