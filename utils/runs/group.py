"""A job in parts on the same people: folds, repeats of these, or candidates on them; and one result of all parts."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from data.base import files
from data.cohorts.folds import Folds
from data.cohorts.rows import listed
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs.candidates import Candidates
from utils.runs.fold_progress import FoldProgress
from utils.runs.run import Job, Run
from utils.runs.side_by_side import Again, side_by_side
from utils.runs.validate import Request


@dataclass(frozen=True)
class Choosing:
    """How one of several candidates is chosen in each fold: by a job of its own, in inner folds; or quickly, by the
    scores of a test, if `in_folds` is None."""

    candidates: Candidates
    in_folds: "Group | None"


@dataclass(frozen=True)
class Group:
    """The parts of a job. `run` is the job as a whole: all people, and the folder of the pooled results. These are made
    by `pooling`, a function of the job's module, once every part has its results."""

    run: Run
    parts: Sequence["Run | Group"]
    pooling: str = "pool"
    only: str | None = None  # the one fold that is to be done
    jobs: int = 1  # folds at a time
    choosing: Choosing | None = None  # of candidates
    again: Again | None = None  # makes it in another process; None for a part

    @property
    def job(self) -> Job:
        return self.run.job

    @property
    def folds(self) -> Folds:
        assert self.run.folds
        return self.run.folds

    @property
    def choice(self) -> "Group | None":
        """The choice among candidates in each fold; None if there is none."""
        return self.choosing.in_folds if self.choosing else None

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
        assert self.choosing
        return dict(zip(self.choosing.candidates.names, self.groups[: len(self.parts)], strict=True))

    @property
    def whole(self) -> Run:
        """`run` with the settings of all parts, as far as they have their checkpoints."""
        of_data = {"cohort_sha256": self.folds.digest, "records_sha256": self.folds.records_sha256}
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

    def agreed(self) -> dict[str, Any]:
        return self.whole.agreed() | {"only": self.only}

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
            return self.perform_on(devices.choose_device(share_gpu, several=self.job.takes_several_gpus))
        assert self.again
        device = devices.choose_device(share_gpu, several=True)
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
