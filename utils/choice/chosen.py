"""--choose: every candidate on the same folds, and for each fold the one that did best in inner folds of its training
subjects.

Checkpoints lie in `folds-<how>-choose-<digest>`: those of each candidate in a folder of its own, `candidate-<number>`,
and the choices in `choice`. What is reported is the score of the procedure: in each fold of who was chosen there.
"""

import argparse
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.folds import inner_folds, open_folds, part_folder
from data.cohorts.rows import listed
from utils.choice.job import CHOOSE, ChoiceOptions, read_choice, trainings
from utils.runs import guards
from utils.runs.candidates import Candidates
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.group import Group, announce, folder_of_folds, made_again, on_folds, saved_before
from utils.runs.run import Options, Run
from utils.runs.validate import Request, report

CANDIDATE = "candidate-{}"  # the folders of one
NAMED = "candidate {}"  # a run of one
CHOICE = "choice"


def chosen_run(asked: Request) -> Group:
    """The run by all candidates; a blackout is one on folds, of who was chosen in each. Raises InputError for the first
    thing that is wrong."""
    args, candidates, kept = asked.args, asked.candidates, folder_of_folds(asked)
    assert candidates
    before = saved_before(asked, kept / CANDIDATE.format(1))
    seed = args.seed if args.seed is not None else before.seed if before else 0
    out_dir = asked.out_dir(before)
    folds = open_folds(asked.data_dir, args.folds, seed, kept / CANDIDATE.format(1))
    announce(folds)
    parts: list[Group] = []
    for number, candidate in enumerate(candidates.all, 1):
        name = CANDIDATE.format(number)
        own = {"seed": seed, "preset": candidate.preset, "set": list(candidate.changes), "outDir": out_dir / name}
        part = on_folds(replace(asked, args=argparse.Namespace(**vars(args) | own)), folds, kept / name)
        folds.check_written(kept / name)
        guards.free_output(part.run)
        parts.append(replace(part, run=replace(part.run, name=NAMED.format(candidate))))
    choosing = choice_of(parts, candidates, kept)
    (check_inner_folds if asked.training else check_chosen)(choosing)
    again = partial(made_again, chosen_run, asked)
    if not asked.job.takes_candidates:
        chosen = {part.fold: read_choice(part).name for part in choosing.leaves if part.is_done()}
        return replace(of_the_chosen(parts, chosen, out_dir, described(candidates), folds.whole), again=again)
    choices = replace(parts[0].run.choices, preset=described(candidates))
    every = CheckpointFolder(kept, asked.training_command)
    told = {"candidates": {name: asdict(part.run.choices) for name, part in zip(candidates.names, parts, strict=True)}}
    whole = replace(parts[0].run, name=choices.preset, choices=choices, more=told, out_dir=out_dir, checkpoints=every)
    group = replace(parts[0], run=whole, parts=tuple(parts), pooling="select", choice=choosing, again=again)
    guards.free_output(whole)
    report(whole, folds.whole)
    if asked.training:
        print(cost(group))
    return group


def described(candidates: Candidates) -> str:
    return f"chosen among {len(candidates.all)} candidates"


def cost(group: Group) -> str:
    """How many trainings a training with a choice takes at most."""
    folds, count = len(group.folds.names), len(group.parts)
    inner = trainings(count, EFFORT.inner_folds)
    return (
        f"Trainings: {folds * (count + inner)} in all, in each of {folds} folds one of each of {count} candidates, and "
        f"at most {inner} to choose."
    )


def choice_of(parts: list[Group], candidates: Candidates, kept: Path) -> Group:
    """The choice in each fold among candidates, which are `parts`."""
    first, folder = parts[0], kept / CHOICE
    found: list[Run] = []
    for of_fold in zip(*(part.leaves for part in parts), strict=True):
        one, contenders = of_fold[0], dict(zip(candidates.names, of_fold, strict=True))
        told = {"candidates": {name: asdict(run.choices) for name, run in contenders.items()}}
        found.append(
            replace(
                one,
                job=CHOOSE,
                out_dir=part_folder(folder, one.fold),
                options=ChoiceOptions(contenders),
                more=told | {"iterations": one.num_iters},
            )
        )
    whole = replace(first.run, job=CHOOSE, out_dir=folder, options=Options(), name=CHOICE)
    return replace(first, run=whole, parts=tuple(found))


def check_inner_folds(choosing: Group) -> None:
    """Raises InputError, before anything is trained, if a fold that is to be done cannot be cut into inner folds."""
    for part in choosing.leaves:
        if choosing.only in (None, part.fold) and not part.is_done():
            inner_folds(choosing.folds, part.cohort, part.seed)


def check_chosen(choosing: Group) -> None:
    """Raises InputError if nobody has been chosen yet in a fold that is to be done."""
    wanted = [part for part in choosing.leaves if choosing.only in (None, part.fold)]
    if missing := [part.fold for part in wanted if not part.is_done()]:
        raise InputError(
            f"No candidate is chosen yet in {len(missing)} of {len(wanted)} folds ({listed(missing)}), or other "
            f"trainings were compared; choose: {choosing.run.checkpoints.training}"
        )


def of_the_chosen(parts: list[Group], chosen: dict[str, str], out_dir: Path, title: str, whole: Cohort) -> Group:
    """The job in each fold by the candidate that was chosen there."""
    by_name = {part.run.name: part for part in parts}
    usual = Counter(chosen.values()).most_common(1)[0][0]  # stands for whom is not chosen yet, in a fold not done
    most = by_name[NAMED.format(usual)]
    found = [
        replace(by_name[NAMED.format(chosen.get(leaf.fold, usual))].leaves[at], out_dir=part_folder(out_dir, leaf.fold))
        for at, leaf in enumerate(most.leaves)
    ]
    choices = replace(most.run.choices, preset=title)
    run = replace(most.run, name="", out_dir=out_dir, choices=choices)
    guards.free_output(run)
    report(run, whole)
    return replace(most, run=run, parts=tuple(found))
