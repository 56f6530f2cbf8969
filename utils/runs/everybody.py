"""--everybody: one model of all people, with what a test on folds has settled; nobody is left to test it on.

Its checkpoints lie in `<chkPointDir>/<model>/everybody`. The score that goes with it is that of the folds, whose models
were trained on fewer people with the same settings.
"""

from dataclasses import replace

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.stored import sealed
from data.cohorts.variants import everybody, prepared_as
from utils.runs.checkpoints import EVERYBODY, CheckpointFolder, Identity
from utils.runs.cross_validation import CrossValidation
from utils.runs.folders import as_json
from utils.runs.guards import check
from utils.runs.run import Run
from utils.runs.validate import Request, report, report_simulated

NO_SCORE = "no test on folds goes with it either: --train --everybody --score FOLDER names one"


def everybody_run(asked: Request) -> Run:
    """The training on everybody, or a job by its checkpoint on other people. Raises InputError for the first thing that
    is wrong."""
    args, model = asked.args, asked.model
    checkpoints = CheckpointFolder(args.chkPointDir / model.name / EVERYBODY, asked.training_command)
    saved = asked.saved(checkpoints)
    asked = replace(asked, cross_validation=asked.cross_validation or (saved.internal if saved else None))
    asked.config(saved)  # a mistake there is reported before the cohort is read
    out_dir = asked.out_dir(saved)
    cohort = sealed(asked.data_dir)
    report_simulated(cohort)
    run = asked.run(checkpoints, saved, of_everybody(cohort) if asked.training else prepared(cohort, saved), out_dir)
    run = replace(run, cross_validation=asked.cross_validation, everybody=True)
    if asked.training and asked.cross_validation:
        check_same(run, asked.cross_validation)
    report(run, run.cohort)
    print(f"{checkpoints.path} is of everybody and has no score of its own; {asked.cross_validation or NO_SCORE}.")
    if asked.cross_validation and asked.cross_validation.chosen:
        print(asked.cross_validation.choice)
    check(run, saved)
    return run


def of_everybody(cohort: Cohort) -> Cohort:
    """The cohort with everybody to train on; people without a label, and a phenotype that stays, are printed."""
    whole = everybody(cohort)
    if unlabelled := [row.subject for row in whole.rows if row.split == "test"]:
        print(f"Not trained on, since no label is known of them: {len(set(unlabelled))} people.")
    if whole.raw_phenotype is None:
        print(f"{cohort.path} has no phenotype.csv: the phenotype stays as it is stored, scaled on whomever it was.")
    return whole


def prepared(cohort: Cohort, saved: Identity | None) -> Cohort:
    """New people, with the phenotype scaled as the model's training people."""
    return prepared_as(cohort, saved.preparation) if saved else cohort


def check_same(run: Run, of_folds: CrossValidation) -> None:
    """Raises InputError unless the folds were of the same records, trained with the same settings."""
    if of_folds.cohort_sha256 != run.cohort.identity:
        raise InputError(
            f"--score {of_folds.folder} is of other data than {run.cohort.path} has now; name a test on folds of these."
        )
    there, here = of_folds.config, as_json(run.choices.config)
    pairs = {f"--set {name}": (there.get(name), here[name]) for name in here}
    for name in ("preset", "precision"):
        pairs[f"--{name}"] = getattr(of_folds, name), getattr(run.choices, name)
    pairs["--numIters"] = of_folds.num_iters, run.num_iters
    if differing := [(flag, *values) for flag, values in pairs.items() if values[0] != values[1]]:
        flag, tested, asked_for = differing[0]
        raise InputError(
            f"--score {of_folds.folder} tested {flag} {tested}, this run asks for {asked_for}; use the same, or test "
            "these settings on folds."
        )
