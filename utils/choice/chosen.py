"""--choose: every candidate on the same folds, and for each fold the one that did best in inner folds of its training
subjects.

Checkpoints lie in `folds-<how>-choose-<digest>`: those of each candidate in a folder of its own, `candidate-<number>`,
and the choices in `choice`. What is reported is the score of the procedure: in each fold of who was chosen there.
"""

import argparse
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.processes import several_processes
from data.cohorts.cohort import Cohort
from data.cohorts.folds import open_folds, part_folder
from data.cohorts.inner_folds import MOST, inner_folds
from data.cohorts.rows import listed
from utils.choice.halving import trainings
from utils.choice.job import CHOOSE, ChoosingRun, read_choice
from utils.runs import guards
from utils.runs.candidates import Candidates
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.folded import FoldedRun, announce, fields_of, folder_of_folds, on_folds
from utils.runs.repeated import saved_before
from utils.runs.run import Options, Run
from utils.runs.several import SeveralRun
from utils.runs.validate import Request, report

CANDIDATE = "candidate-{}"  # the folders of one
NAMED = "candidate {}"  # a run of one
CHOICE = "choice"
QUICKLY = "quick.json"  # beside the checkpoints: who was chosen for all folds by a test


@dataclass(frozen=True, kw_only=True)
class ChosenRun(SeveralRun):
    """The job by all candidates on the same folds, and what the procedure that chooses among them makes of it.
    `choosing` is the choice in each fold, which is one of the `parts` of a training; None if it is quick."""

    pooling = "select"
    candidates: Candidates
    choosing: FoldedRun | None

    @property
    def by_name(self) -> dict[str, FoldedRun]:
        """The runs of the candidates."""
        return dict(zip(self.candidates.names, self.several, strict=False))

    @property
    def cut(self) -> str:
        return f"{super().cut}, {described(self.candidates)}"

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        if self.choosing:
            of_choices = self.choosing.settings()["checkpoint_sha256"]
            found["checkpoint_sha256"] |= {f"{fold}, {CHOICE}": digest for fold, digest in of_choices.items()}
        candidates = {name: asdict(run.choices) for name, run in self.by_name.items()}
        own = {"preset": self.choices.preset, "candidates": candidates, "quick": self.candidates.quick}
        return found | own

    def pool_parts(self, device: str) -> None:
        """Those of each candidate before, of which nothing is printed."""
        with redirect_stdout(None):
            for part in self.several:
                part.pool_parts(device)
        super().pool_parts(device)

    def keep_quick(self, name: str) -> None:
        """Keeps beside the checkpoints who was chosen for all folds by a test of these."""
        digests = [part.settings()["checkpoint_sha256"] for part in self.several]
        files.write_json(self.checkpoints.path / QUICKLY, {"chosen": name, "checkpoint_sha256": digests})


def chosen_run(asked: Request) -> FoldedRun | ChosenRun:
    """The run by all candidates; a blackout is one on folds, of who was chosen in each. Raises InputError for the first
    thing that is wrong."""
    if several_processes():
        raise InputError("--choose trains many small networks, each in one process; use --jobs, or an array of --fold.")
    args, candidates, kept = asked.args, asked.candidates, folder_of_folds(asked)
    assert candidates
    before = saved_before(asked, kept / CANDIDATE.format(1))
    seed = args.seed if args.seed is not None else before.seed if before else 0
    out_dir = asked.out_dir(before)
    folds = open_folds(asked.data_dir, args.folds, seed, kept / CANDIDATE.format(1))
    announce(folds)
    parts: list[FoldedRun] = []
    for number, candidate in enumerate(candidates.all, 1):
        name = CANDIDATE.format(number)
        own = {"seed": seed, "preset": candidate.preset, "set": list(candidate.changes), "outDir": out_dir / name}
        part = on_folds(replace(asked, args=argparse.Namespace(**vars(args) | own)), folds, kept / name)
        folds.check_written(kept / name)
        guards.free_output(part, None)
        parts.append(replace(part, name=NAMED.format(candidate)))
    choosing = None if candidates.quick else choice_of(parts, candidates, kept)
    if choosing:
        (check_inner_folds if asked.training else check_chosen)(choosing)
    if not asked.job.takes_candidates:
        chosen = chosen_in_folds(choosing) if choosing else quickly_chosen(parts, kept, asked)
        return of_the_chosen(parts, chosen, out_dir, described(candidates), folds.whole)
    shown = replace(parts[0].choices, preset=described(candidates))
    every = tuple(parts) + ((choosing,) if choosing and asked.training else ())
    own = {"parts": every, "out_dir": out_dir, "choices": shown, "candidates": candidates, "choosing": choosing}
    own |= {"checkpoints": CheckpointFolder(kept, asked.training_command), "only": parts[0].only, "jobs": args.jobs}
    run = ChosenRun(**fields_of(parts[0]) | own)
    guards.free_output(run, None)
    report(run, folds.whole)
    if asked.training:
        print(cost(run))
    return run


def described(candidates: Candidates) -> str:
    return f"chosen {'quickly ' if candidates.quick else ''}among {len(candidates.all)} candidates"


def cost(run: ChosenRun) -> str:
    """How many trainings a training with a choice takes at most."""
    folds, count = len(run.folds.names), len(run.candidates.all)
    inner = f", and at most {trainings(count, MOST)} to choose" if run.choosing else ""
    total = folds * (count + (trainings(count, MOST) if run.choosing else 0))
    return f"Trainings: {total} in all, in each of {folds} folds one of each of {count} candidates{inner}."


def choice_of(parts: list[FoldedRun], candidates: Candidates, kept: Path) -> FoldedRun:
    """The choice in each fold among candidates, which are `parts`."""
    first, folder = parts[0], kept / CHOICE
    found: list[Run] = []
    for of_fold in zip(*(part.parts for part in parts), strict=True):
        contenders = dict(zip(candidates.names, of_fold, strict=True))
        own = {"job": CHOOSE, "out_dir": part_folder(folder, of_fold[0].fold), "options": Options()}
        own |= {"num_iters": of_fold[0].trained_for, "contenders": contenders}
        found.append(ChoosingRun(**fields_of(of_fold[0]) | own))
    own = {"job": CHOOSE, "out_dir": folder, "options": Options(), "name": CHOICE}
    return FoldedRun(**fields_of(first) | own | {"parts": tuple(found), "only": first.only, "jobs": first.jobs})


def check_inner_folds(choosing: FoldedRun) -> None:
    """Raises InputError, before anything is trained, if a fold that is to be done cannot be cut into inner folds."""
    for part in choosing.parts:
        if choosing.only in (None, part.fold) and not part.is_done():
            inner_folds(choosing.folds, part.cohort, part.seed)


def check_chosen(choosing: FoldedRun) -> None:
    """Raises InputError if nobody has been chosen yet in a fold that is to be done."""
    wanted = [part for part in choosing.parts if choosing.only in (None, part.fold)]
    if missing := [part.fold for part in wanted if not part.is_done()]:
        raise InputError(
            f"Nobody is chosen yet in {len(missing)} of {len(wanted)} folds ({listed(missing)}), or of other "
            f"trainings; choose: {choosing.checkpoints.training}"
        )


def chosen_in_folds(choosing: FoldedRun) -> dict[str, str]:
    """Who was chosen in each fold that is done."""
    return {part.fold: read_choice(part).name for part in choosing.parts if part.is_done()}


def of_the_chosen(
    parts: list[FoldedRun], chosen: dict[str, str], out_dir: Path, title: str, whole: Cohort
) -> FoldedRun:
    """The job in each fold by the candidate that was chosen there."""
    by_name = {part.name: part for part in parts}
    usual = Counter(chosen.values()).most_common(1)[0][0]  # stands for whom is not chosen yet, in a fold not done
    most = by_name[NAMED.format(usual)]
    found = [
        replace(by_name[NAMED.format(chosen.get(part.fold, usual))].parts[at], out_dir=part_folder(out_dir, part.fold))
        for at, part in enumerate(most.parts)
    ]
    choices = replace(most.choices, preset=title)
    run = replace(most, name="", parts=tuple(found), out_dir=out_dir, choices=choices)
    guards.free_output(run, None)
    report(run, whole)
    return run


def quickly_chosen(parts: list[FoldedRun], kept: Path, asked: Request) -> dict[str, str]:
    """Who was chosen for all folds. Raises InputError if no test has chosen yet, or one of other checkpoints."""
    digests = [part.settings()["checkpoint_sha256"] for part in parts]
    found = files.read_json(kept / QUICKLY, dict) if (kept / QUICKLY).is_file() else {}
    tested = found.get("checkpoint_sha256", [{}] * len(parts))
    if any(own.items() - there.items() for own, there in zip(digests, tested, strict=True)):  # in the folds asked for
        test = asked.training_command.replace("--train", "--test", 1)
        raise InputError(f"--choose quick chooses by the predictions of a test, which is to be done first: {test}")
    return {part.fold: str(found["chosen"]) for part in parts[0].parts}
