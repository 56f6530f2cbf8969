"""The options of a command line -> a `Request`, once they go together; nothing is read yet."""

import argparse
from collections.abc import Iterable

from data.base.cli import flags
from data.base.errors import InputError
from models import MODELS
from utils.runs.folders import check_pattern
from utils.runs.run import Job
from utils.runs.validate import Request


def request(args: argparse.Namespace, given: set[str], jobs: Iterable[Job]) -> Request:
    """What the user asks for; `given` names the options that are not at their default. Raises InputError for the first
    thing that is wrong with the options themselves."""
    asked = Request(args)
    job, model = asked.job, asked.model
    check_options(job, given, jobs)
    check_pattern(args.chkPointDir)
    if job.needs and not getattr(model, job.needs):
        able = " or ".join(name for name, other in MODELS.items() if getattr(other, job.needs))
        raise InputError(job.refusal.format(able=able, model=model.name))
    if args.jobs > 1 and (args.fold or not args.folds):
        raise InputError(
            f"--jobs {args.jobs} counts folds that are done at a time; use it with --folds, without --fold."
        )
    if args.fold and not args.folds:
        raise InputError(f"--fold {args.fold} is one of several; say with --folds how they are cut.")
    if asked.is_repeated and not job.is_repeated:
        raise InputError(f"--repeats {args.repeats} is not for {job.flag}, which is done once; leave it out.")
    if asked.is_repeated and not args.folds:
        raise InputError(f"--repeats {args.repeats} repeats a run on folds; say with --folds how they are cut.")
    check_choice(asked, given)
    check_everybody(asked, given)
    asked.out_dir(None)  # looks at the folders
    return asked


def check_choice(asked: Request, given: set[str]) -> None:
    """Raises InputError if --choose is not for such a run, or has no candidates."""
    args, job, model = asked.args, asked.job, asked.model
    if args.choose is None:
        return
    if model.predicts != "label" or not job.is_repeated:
        what = model.name if model.predicts != "label" else job.flag
        raise InputError(f"--choose compares classifiers by their predictions of the label, not {what}; leave it out.")
    if not args.folds:
        raise InputError("--choose compares candidates within folds; say with --folds how they are cut.")
    if asked.is_repeated:
        raise InputError(f"--choose is done with one seed; leave --repeats {args.repeats} out.")
    if other := sorted(given & {"preset", "set"}):
        raise InputError(f"--choose names the settings that are compared; leave --{other[0]} out.")
    _ = asked.candidates


def check_everybody(asked: Request, given: set[str]) -> None:
    """Raises InputError if a model of everybody is not for such a run."""
    if not asked.args.everybody:
        if "score" in given:
            raise InputError("--score goes with --everybody, which leaves nobody to test on; leave it out.")
        if "prevalence" in given and not asked.args.bundle:
            raise InputError("--prevalence goes with --bundle, whose probabilities are calibrated; leave it out.")
        return
    if other := next((name for name in ("folds", "choose") if name in given), None):
        raise InputError(f"--everybody trains one model of all people, --{other} several; leave one of them out.")


def check_options(job: Job, given: set[str], jobs: Iterable[Job]) -> None:
    """Raises InputError for an option that other jobs take and this one does not."""
    for name in sorted(given - set(flags(job.options))):
        if takers := [other.flag for other in jobs if name in flags(other.options)]:
            only = " or ".join(takers)
            raise InputError(f"--{name} goes with {only}, not with {job.flag}; leave it out.")
