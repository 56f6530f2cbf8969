"""Options -> a `Group` of runs, one a fold; of those that are to be done and are not done yet, each is checked."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from data.cohorts.folds import Folds, folder_name, open_folds, part_folder
from utils.runs import guards
from utils.runs.checkpoints import OF_FOLDS, CheckpointFolder
from utils.runs.group import Group, made_again
from utils.runs.guards import check
from utils.runs.run import Run
from utils.runs.validate import Request, report, report_simulated


def folded_run(asked: Request) -> Group:
    """The job on all folds. Raises InputError for the first thing that is wrong."""
    kept = folder_of_folds(asked)
    folds = open_folds(asked.data_dir, asked.args.folds, asked.args.seed or 0, kept)
    announce(folds)
    group = on_folds(asked, folds, kept)
    guards.free_output(group.run, None)
    report(group.run, folds.whole)
    return replace(group, again=partial(made_again, folded_run, asked))


def folder_of_folds(asked: Request) -> Path:
    """Where the folds' checkpoints are."""
    return asked.args.chkPointDir / asked.model.name / f"{OF_FOLDS}{folder_name(asked.args.folds)}{asked.of_choice}"


def announce(folds: Folds) -> None:
    """Prints what a user must know of the data before anything is done."""
    report_simulated(folds.whole)
    for note in folds.notes:
        print(note, flush=True)


def on_folds(asked: Request, folds: Folds, kept: Path, like: Run | None = None) -> Group:
    """The runs on these folds, with the checkpoints in `kept`; `like` is one on a fold of the same cohort."""
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
    every = CheckpointFolder(kept, asked.training_command)
    whole = replace(parts[0], fold="", cohort=folds.whole, options=asked.options, out_dir=out_dir, checkpoints=every)
    return Group(whole, tuple(parts), only=only, jobs=args.jobs)
