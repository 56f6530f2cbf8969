"""What stands beside predictions: floors, and how people none of whom took part in the training differ from those."""

from dataclasses import replace

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.standards import within_sites
from utils.bundle.run import bundle_of
from utils.evaluation import external, repeats
from utils.evaluation.stored import read_table, write_table
from utils.runs.checkpoints import Identity, training_cohort
from utils.runs.run import Run
from utils.scores import floors

NO_FLOORS = (
    "No floor could be fitted beside the score: the cohort has no training subjects, and {cohort}, which trained the "
    "checkpoint, is gone, was changed or was prepared otherwise."
)
LINEAR_FLOORS = "The floors are the linear ones that a bundle holds, fitted on its training people."


def write(run: Run) -> list[str]:
    """`floor_predictions.csv`, and `external.csv` and `unlike.csv` of people none of whom took part in the training, as
    far as anything is known; returns what must stand beside the floors, or why there are none."""
    if bundle := bundle_of(run):
        score = external.score_of(run.cross_validation)
        known = external.Known(score, bundle.reference, bundle.floors, bundle.calibration)
    elif run.cohort.subjects("train"):
        return write_floors(run)
    else:
        known = external.known_of(run)
    notes = write_floors(run, known)
    found, unlike = external.tables(run.cohort, read_table(run, "predictions"), known, run.seed)
    for name, table in (("external", found), ("unlike", unlike)):
        if len(table):
            write_table(run, name, table)
    return notes


def write_floors(run: Run, known: external.Known | None = None) -> list[str]:
    """`floor_predictions.csv`, by floors of the training people: the cohort's own or, if none of them took part, those
    that are `known`."""
    training = None
    if known and known.floors:
        table = floors.predict_linear(known.floors, run.cohort, run.cohort.indices("test"))
        write_table(run, "floor_predictions", table.reset_index())
        return [LINEAR_FLOORS]
    if not run.cohort.subjects("train"):
        identity = run.checkpoints.identity()
        if (training := training_people(run.cohort, identity)) is None:
            return [NO_FLOORS.format(cohort=identity.cohort)]
    try:
        table = repeats.predicted_by_floors(run.cohort, training)
    except InputError as error:
        if training is None:
            raise
        return [f"No floor could be fitted beside the score: {error}"]
    write_table(run, "floor_predictions", table.reset_index())
    source = training or run.cohort
    return floors.limits(len(source.indices("train")), source.connectomes is not None)


def training_people(cohort: Cohort, saved: Identity) -> Cohort | None:
    """The cohort that a checkpoint was trained on, to fit floors that predict `cohort`; its training records are of the
    people who trained the checkpoint, and are standardised as those of `cohort`. None if it is not there as it was, or
    was prepared otherwise."""
    source = training_cohort(saved)
    if source is None or source.digest != saved.cohort_sha256 or prepared(source) != prepared(cohort):
        return None
    known = set(saved.training_subjects)
    rows = tuple(replace(row, split="train" if row.subject in known else "test") for row in source.rows)
    source = replace(source, rows=rows, standard=cohort.standard)
    return within_sites(source) if cohort.standard == "site" else source


def prepared(cohort: Cohort) -> list[object]:
    """How everything was made that all floors but those of connectomes read."""
    columns = [] if cohort.covariates is None else sorted(cohort.covariates)
    return [cohort.grid, cohort.num_maps, cohort.metadata.of_inputs(("volume", "phenotype")), columns]
