"""A run on folds: the job on each fold, a run of its own, and then the results of all folds pooled."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.base import files
from data.cohorts.folds import Folds, folder_name, open_folds, part_folder
from data.cohorts.rows import listed
from utils.runs import guards
from utils.runs.checkpoints import OF_FOLDS, CheckpointFolder
from utils.runs.fold_rows import Rows
from utils.runs.pooled import PooledRun
from utils.runs.run import Run
from utils.runs.validate import Request, check, report, report_simulated


@dataclass(frozen=True, kw_only=True)
class FoldedRun(PooledRun):
    """The job on folds: `parts` are the runs on single ones. `name` tells one of several such runs."""

    pooling = "pool"
    name: str = ""

    @property
    def single_folds(self) -> Sequence[Run]:
        return self.parts

    @property
    def cut(self) -> str:
        return f"{super().cut}, {self.name}" if self.name else super().cut

    def settings(self) -> dict[str, Any]:
        digests = {part.fold: part.settings()["checkpoint_sha256"] for part in self.parts}
        of_data = {"cohort_sha256": self.folds.digest, "records_sha256": self.folds.records_sha256}
        return super().settings() | of_data | {"checkpoint_sha256": digests}

    def begin(self) -> None:
        """Writes the table of folds too."""
        if not self.job.needs_checkpoint:
            with files.locked(self.checkpoints.path, wait=True):
                self.folds.write(self.checkpoints.path)
        super().begin()

    def perform_parts(self, rows: Rows, device: str) -> int:
        for part in self.parts:
            if self.only in (None, part.fold) and (status := self.perform_part(part, rows, device)):
                return status
        return 0

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

    def missing(self) -> str:
        names = [part.fold for part in self.parts if not part.is_done()]
        return f"fold{'s' if len(names) > 1 else ''} {listed(names)}" if names else ""


def folded_run(asked: Request) -> FoldedRun:
    """The run on all folds; of its parts, those that are to be done and are not done yet are checked."""
    kept = folder_of_folds(asked)
    folds = open_folds(asked.data_dir, asked.args.folds, asked.args.seed or 0, kept)
    announce(folds)
    run = on_folds(asked, folds, kept)
    guards.free_output(run, None)
    report(run, folds.whole)
    return run


def folder_of_folds(asked: Request) -> Path:
    """Where the folds' checkpoints are."""
    return asked.args.chkPointDir / asked.model.name / f"{OF_FOLDS}{folder_name(asked.args.folds)}{asked.of_choice}"


def announce(folds: Folds) -> None:
    """Prints what a user must know of the data before anything is done."""
    report_simulated(folds.whole)
    for note in folds.notes:
        print(note, flush=True)


def on_folds(asked: Request, folds: Folds, kept: Path, like: Run | None = None) -> FoldedRun:
    """The run on these folds, with the checkpoints in `kept`; `like` is one on a fold of the same cohort."""
    args = asked.args
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
        if like := like or next(iter(parts), None):  # the moments of sites are the same in all folds: computed once
            part = replace(part, cohort=replace(part.cohort, moments=like.cohort.moments))
        if options := part.options.of_fold(part.cohort):
            parts.append(replace(part, options=options, folds=folds, fold=name))
    for part in parts:
        if only in (None, part.fold) and (part.override or not part.is_done()):
            check(part, saved[part.fold])
    own = {"cohort": folds.whole, "options": asked.options, "out_dir": out_dir, "fold": ""}
    own |= {"checkpoints": CheckpointFolder(kept, asked.training_command), "only": only, "jobs": args.jobs}
    return FoldedRun(**fields_of(parts[0]) | own | {"parts": tuple(parts)})


def fields_of(run: Run) -> dict[str, Any]:
    """What a run of a subclass takes from this one."""
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
