"""A job in parts on the same people: folds, repeats of these, or candidates on them; and one result of all parts.

`folded_run` and `repeated_run` make the group that the options ask for. Of folds that are to be done and are not done
yet, each is checked. Repeat r takes the seed of the run plus r. It cuts numbered folds anew; of folds of a column it
changes only the starts of the networks. A repeat is a run on folds as it would be alone, but for its folders:
`<how>/repeat-<r>` of checkpoints and `<outDir>/repeat-<r>` of results. So more repeats continue fewer.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.base import files
from data.base.cli import MAX_SEED
from data.base.errors import InputError
from data.cohorts.division import folder_name
from data.cohorts.folds import Folds, open_folds, part_folder, repeated
from data.cohorts.rows import listed
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs import guards
from utils.runs.checkpoints import OF_FOLDS, CheckpointFolder, Identity
from utils.runs.run import Job, Run
from utils.runs.side_by_side import Again, FoldProgress, side_by_side
from utils.runs.validate import Request, report, report_simulated

REPEAT = "repeat-{}"  # the name of a repeat's folders


@dataclass(frozen=True)
class Group:
    """The parts of a job. `run` is the job as a whole: all people, and the folder of the pooled results. These are made
    by `pooling`, a function of the job's module, once every part has its results."""

    run: Run
    parts: Sequence["Run | Group"]
    pooling: str = "pool"
    only: str | None = None  # the one fold that is to be done
    jobs: int = 1  # folds at a time
    choice: "Group | None" = None  # among candidates in each fold
    again: Again | None = None  # makes it in another process; None for a part

    @property
    def job(self) -> Job:
        return self.run.job

    @property
    def folds(self) -> Folds:
        assert self.run.folds
        return self.run.folds

    @property
    def groups(self) -> list["Group"]:
        """Those of its parts that are groups, and the choice if that is to be made."""
        choice = [self.choice] if self.choice and not self.job.needs_checkpoint else []
        return [part for part in [*self.parts, *choice] if isinstance(part, Group)]

    @property
    def leaves(self) -> list[Run]:
        """The runs on single folds."""
        of_groups = [leaf for group in self.groups for leaf in group.leaves]
        return [*(part for part in self.parts if isinstance(part, Run)), *of_groups]

    @property
    def by_name(self) -> dict[str, "Group"]:
        """The groups of the candidates."""
        return dict(zip(self.run.more["candidates"], self.groups[: len(self.parts)], strict=True))

    @property
    def whole(self) -> Run:
        """`run` with the settings of all parts, as far as they have their checkpoints."""
        of_data = {"cohort_sha256": self.folds.identity}
        return replace(self.run, more={**of_data, "checkpoint_sha256": self.checkpoints(), **self.run.more})

    def checkpoints(self) -> dict[str, str | None]:
        """The digests of the checkpoints of all leaves, and of the choice among them."""
        if not self.groups:
            return {leaf.fold: leaf.settings()["checkpoint_sha256"] for leaf in self.leaves}
        every = {group.run.name: group.checkpoints() for group in self.groups}
        if self.choice:
            every[self.choice.run.name] = self.choice.checkpoints()
        return {f"{fold}, {name}": digest for name, of in every.items() for fold, digest in of.items()}

    def settings(self) -> dict[str, Any]:
        return self.whole.settings()

    def on(self, workers: Workers) -> "Group":
        return replace(self, run=self.run.on(workers), parts=tuple(part.on(workers) for part in self.parts))

    def is_done(self) -> bool:
        return self.whole.is_done() and all(part.is_done() for part in self.groups or self.parts)

    def nothing_to_do(self) -> bool:
        return self.is_done() and not self.run.override

    def announce(self) -> None:
        self.run.announce()

    def perform(self, share_gpu: bool) -> int:
        """Does the folds that are not done, one after another here or `jobs` at a time beside this process, and pools;
        returns the exit status."""
        if self.jobs == 1:
            return self.perform_on(devices.choose_device(share_gpu, several=self.job.takes_several_devices))
        assert self.again
        device = devices.choose_device(share_gpu, several=True)
        with files.locked(Path(f"{self.run.out_dir.absolute()}.jobs")):  # two would stop each other
            self.begin()
            return side_by_side(self.again, self.progress(), device, share_gpu) or self.pool(device)

    def progress(self) -> FoldProgress:
        """What the terminal shows of the folds, from now on."""
        names = [group.run.name for group in self.groups]
        return FoldProgress(self.leaves, names, self.jobs, alone=self.only is not None)

    def perform_on(self, device: str) -> int:
        is_chief = self.run.workers.is_chief
        if is_chief:
            self.begin()
        progress = self.progress()
        with progress.advancing():
            for leaf in self.leaves:
                if self.only in (None, leaf.fold) and (status := progress.perform(leaf, device)):
                    return status
        return self.pool(device) if is_chief else 0

    def begin(self) -> None:
        """Writes the table of folds, for a training, and makes the folder of the pooled results; earlier ones are moved
        aside."""
        if not (self.job.needs_checkpoint or self.groups):
            with files.locked(self.run.checkpoints.path, wait=True):
                self.folds.write(self.run.checkpoints.path)
        with files.locked(self.run.out_dir, wait=True):
            whole = self.whole
            if (manifest := whole.results.manifest) is None or manifest.finished or not whole.continues():
                whole.prepare_folder()
        for group in self.groups:
            group.begin()

    def missing(self) -> str:
        """Which folds are to be done before the results are pooled, in words; nothing if none is."""
        if self.groups:
            missing = [(group.run.name, group.missing()) for group in self.groups]
            return listed([f"{folds} of {name}" for name, folds in missing if folds], between="; ")
        names = [leaf.fold for leaf in self.leaves if not leaf.is_done()]
        return f"fold{'s' if len(names) > 1 else ''} {listed(names)}" if names else ""

    def pool(self, device: str) -> int:
        """Pools the results if no fold is missing."""
        if self.only is not None and self.run.override:
            print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
        elif missing := self.missing():
            print(f"Still to be done before the results are pooled: {missing}.")
        else:
            self.pool_parts(device)
        return 0

    def pool_parts(self, device: str) -> None:
        """Pools the results, unless that is done; of groups nothing is printed, since one verdict is enough."""
        with redirect_stdout(None):
            for group in self.groups:
                group.pool_parts(device)
        with files.locked(self.run.out_dir, wait=True):
            if self.run.override or not self.is_done():
                devices.start_tensorflow(device)
                self.job.function(self.pooling)(self)


def made_again(make: Callable[[Request], Group], asked: Request, fold: str | None) -> Group:
    """The group that a command asks for, to do one fold of it."""
    return make(asked.of_fold(fold))


def folded_run(asked: Request) -> Group:
    """The job on all folds. Raises InputError for the first thing that is wrong."""
    kept = folder_of_folds(asked)
    folds = open_folds(asked.data_dir, asked.args.folds, asked.args.seed or 0, kept)
    announce(folds)
    group = on_folds(asked, folds, kept)
    guards.free_output(group.run)
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
        parts.append(replace(part, folds=folds, fold=name))
    for part in parts:
        if only in (None, part.fold) and (part.override or not part.is_done()):
            guards.check(part, saved[part.fold])
    every = CheckpointFolder(kept, asked.training_command)
    whole = replace(parts[0], fold="", cohort=folds.whole, out_dir=out_dir, checkpoints=every)
    return Group(whole, tuple(parts), only=only, jobs=args.jobs)


def repeated_run(asked: Request) -> Group:
    """The run on folds, `--repeats` times. Raises InputError for the first thing that is wrong."""
    args, kept = asked.args, folder_of_folds(asked)
    before = saved_before(asked, kept / REPEAT.format(0))
    seed = args.seed if args.seed is not None else before.seed if before else 0
    if seed + args.repeats - 1 > MAX_SEED:
        raise InputError(f"--seed {seed} leaves no seeds for {args.repeats} repeats; use a smaller one.")
    out_dir = asked.out_dir(before)
    folds = open_folds(asked.data_dir, args.folds, seed, kept / REPEAT.format(0))
    announce(folds)
    if folds.reduced or not folds.are_numbered:
        print("The repeats have the same folds, and differ in the networks' starts only.", flush=True)
    parts: list[Group] = []
    for number in range(args.repeats):
        name = REPEAT.format(number)
        own = vars(args) | {"seed": seed + number, "outDir": out_dir / name}
        of_repeat = replace(asked, args=argparse.Namespace(**own))
        cut = repeated(folds, seed + number, kept / name)
        part = on_folds(of_repeat, cut, kept / name, parts[0].leaves[0] if parts else None)
        part = replace(part, run=replace(part.run, name=f"repeat {number}"))
        guards.free_output(part.run)
        parts.append(part)
    every = CheckpointFolder(kept, asked.training_command)
    told = {"repeats": args.repeats}
    whole = replace(parts[0].run, name=f"{args.repeats} repeats", more=told, out_dir=out_dir, checkpoints=every)
    guards.free_output(whole)
    report(whole, folds.whole)
    again = partial(made_again, repeated_run, asked)
    return replace(parts[0], run=whole, parts=tuple(parts), pooling="average", again=again)


def saved_before(asked: Request, folder: Path) -> Identity | None:
    """The identity of a checkpoint of the first repeat that this run continues or uses; None to start from zero."""
    if asked.training and asked.training.override_chkpt:
        return None
    found = (CheckpointFolder(path) for path in sorted(folder.glob("*")) if path.is_dir())
    return next((checkpoints.identity() for checkpoints in found if checkpoints.current), None)


def train_together(run: Run | Group, share_gpu: bool) -> int:
    """Does a training with the other workers; returns the exit status."""
    from utils.machines.workers import lost_workers_explained, together

    device = devices.choose_device(share_gpu, several=True)
    devices.start_tensorflow(device)
    with lost_workers_explained():
        workers = together()
        with nullcontext() if workers.is_chief else redirect_stdout(None):
            status = run.on(workers).perform_on(device)
        workers.meet({})  # nobody leaves before all are done
    return status
