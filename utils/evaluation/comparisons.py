"""The network beside plain classifiers (floors), and its repeats beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.rows import known_sites
from data.cohorts.variants import standardised
from utils.report.tables import MINUS, Tested, write_table
from utils.report.texts import paragraph
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores import floors
from utils.scores.metrics import (
    HEADLINES,
    Predictions,
    differences,
    headline,
    with_intervals,
)
from utils.scores.named import named, roles
from utils.scores.results import (
    MAJORITY,
    MODEL,
    NAMED_FLOOR,
    NO_FLOORS,
    OTHER,
    ROLE,
    RULE,
    UNDEFINED,
    Estimate,
    flat,
)

NONE_FITTED = (
    "No floor could be fitted beside the score: the people who trained the model, of {}, are not at hand, or were "
    "prepared otherwise."
)
FITTED: dict[tuple, pd.DataFrame] = {}  # what floors predict, by the data, split, groups and standard


def write_floors(run: Run) -> list[str]:
    """`floor_predictions.csv`, by floors of the cohort's training people or, if others trained the model, of these.
    Returns what must stand beside it."""
    training, is_of_others = None, run.everybody or not run.cohort.subjects("train")
    if is_of_others and (training := training_people(run)) is None:
        return [NONE_FITTED.format(run.checkpoints.record().cohort)]
    try:
        table = predicted_by_floors(run.cohort, training)
    except InputError as error:
        if training is None:
            raise
        return [f"No floor could be fitted beside the score: {error}"]
    write_table(run, "floor_predictions", table.reset_index())
    source = training or run.cohort
    return floors.limits(len(source.indices("train")), source.connectomes is not None)


def training_people(run: Run) -> Cohort | None:
    """The cohort that a checkpoint was trained on, to fit floors that predict the tested one; its training records are
    of the people who trained the checkpoint, and are standardised as those of `cohort`. None if it is not there as it
    was, or was prepared otherwise."""
    cohort, source, people = run.cohort, run.checkpoints.training_cohort(), run.checkpoints.record().people
    if source is None or people is None or prepared(source) != prepared(cohort):
        return None
    known = set(people.subjects)
    rows = tuple(replace(row, split="train" if row.subject in known else "test") for row in source.rows)
    return standardised(replace(source, rows=rows), cohort.standard)


def prepared(cohort: Cohort) -> list[object]:
    """How everything was made that all floors but those of connectomes read."""
    columns = [] if cohort.covariates is None else sorted(cohort.covariates)
    return [cohort.grid, cohort.num_maps, cohort.metadata.of_inputs(("volume", "phenotype")), columns]


def predicted_by_floors(cohort: Cohort, training: Cohort | None = None) -> pd.DataFrame:
    """`floors.predict`, once in a process: no seed decides it, and repeats with the same folds have the same floors."""
    cohorts = filter(None, (cohort, training))
    key = tuple((of.identity, of.rows, of.metadata.preparation, of.groups, of.standard) for of in cohorts)
    if key not in FITTED:
        FITTED[key] = floors.predict(cohort, training)
    return FITTED[key]


def floors_table(
    predictions: Predictions, predicted: Sequence[pd.DataFrame], seed: int, inputs: Sequence[str]
) -> list[dict]:
    """Rows of `floors.csv`: the model, then each floor, with intervals, and the model's AUCs minus the floor's.

    `predicted` are the tables of `floors.predict` for each repeat, a row for each of the predictions, in their order; a
    floor that could not be fitted in every fold is left out. One floor is `named` beforehand, by the `inputs` of the
    network. The intervals of the model minus each other floor hold for all of these together.
    """
    names = ["auc", "accuracy", "balanced_accuracy", "brier", *predictions.groups]
    common = [name for name in predicted[0] if all(name in table for table in predicted)]
    known = [str(name) for name in common if not any(table[name].isna().any() for table in predicted)]
    candidates = {MODEL: predictions}
    candidates |= {name: predictions.with_probabilities([table[name] for table in predicted]) for name in known}
    role = roles(known, inputs)
    among = list(role.values()).count(OTHER)
    rows = []
    for name, floor in candidates.items():
        found = with_intervals(floor, seed)
        if name == MAJORITY:  # its constants differ between folds, but they rank nobody
            floor = floor.with_probabilities([np.zeros(len(one.label)) for one in floor.all])
            found |= {key: value for key, value in with_intervals(floor, seed).items() if key in HEADLINES}
        areas, together = ("auc", *predictions.groups), among if role.get(name) == OTHER else 1
        less = dict.fromkeys(areas, UNDEFINED)
        if name != MODEL:
            less |= differences(predictions, floor, seed, together)
        cells = {key: found[key] for key in names} | {f"{MINUS}{area}": less[area] for area in areas}
        rows.append({"floor": name, ROLE: role.get(name, "")} | flat(cells))
    return rows


@dataclass(frozen=True)
class Compared:
    """The AUC of the headline, of the model or a floor, and the model's minus that of a floor."""

    name: str
    auc: Estimate
    less: Estimate

    @property
    def standing(self) -> str:
        """See `standing`."""
        return standing(self.less)


def standing(less: Estimate) -> str:
    """What the interval of a difference says of the one from which the other was subtracted."""
    if less.low is None or less.high is None:
        return "unknown"
    return "beats" if less.low > 0 else "worse" if less.high < 0 else "level"


def compared(rows: Sequence[dict]) -> list[Compared]:
    """The rows of `floors_table` by the AUC that the verdict rests on."""
    name = headline(rows[0])
    return [Compared(row["floor"], Estimate.in_row(row, name), Estimate.in_row(row, f"{MINUS}{name}")) for row in rows]


def verdict(
    rows: Sequence[dict], predictions: Predictions, inputs: Sequence[str], of_folds: CrossValidation | None = None
) -> str:
    """What the rows of `floors_table` say of a network with these inputs, by the AUC of the headline. It stands beside
    chance, the floor that is named beforehand, and each other floor; without any, beside that of the test `of_folds`
    that goes with the network."""
    model, *others = [one for one in compared(rows) if one.name == MODEL or one.auc.value is not None]
    of_floors = [floor for floor in others if floor.name not in NO_FLOORS]
    return paragraph(
        "verdict",
        model=model,
        auc=headline(rows[0]),
        named=named([floor.name for floor in of_floors], inputs),
        floors=of_floors,
        of_folds=of_folds,
        rule=next((floor for floor in others if floor.name == RULE), None),
        people={
            "subjects": predictions.count(predictions.label >= 0),
            "in_one_class_sites": predictions.in_one_class_sites,
            "unknown_site": predictions.site is not None and not known_sites(predictions.site),
            "new_sites": new_sites(predictions),
            "small_sites": predictions.in_small_sites,
            "tied": predictions.person is not None,
            "fewest": min(predictions.count(predictions.label == value) for value in (0, 1)),
        },
        repeats=len(predictions.all),
    )


def new_sites(predictions: Predictions) -> bool | None:
    """Whether every site is in one fold, in each repeat, so that its model has not seen it; None if there are no
    folds."""
    if predictions.fold is None or predictions.site is None:
        return None
    folds = [pd.Series(one.fold).groupby(one.site).nunique() for one in predictions.all]
    return all((of == 1).all() for of in folds)


def repeats_table(each: Sequence[Tested], seed: int, inputs: Sequence[str]) -> pd.DataFrame:
    """A row a repeat: number, seed, every metric with its interval. Then the floor that is named beforehand, and the
    network's AUC minus that of this floor."""
    rows = []
    for number, one in enumerate(each):
        of = one.of_records(one.predictions["file"][one.predictions["label"].notna()])
        predictions = Predictions.of(of.predictions)
        floor = named([str(name) for name in of.floors if not of.floors[name].isna().any()], inputs)
        beside: dict[str, object] = {}
        if floor:
            less = differences(predictions, predictions.with_probabilities([of.floors[floor.name]]), seed + number)
            beside = {
                NAMED_FLOOR: floor.name,
                **flat({f"{MINUS}{area}": less[area] for area in HEADLINES if area in less}),
            }
        rows.append(
            {"repeat": number, "seed": seed + number} | flat(with_intervals(predictions, seed + number)) | beside
        )
    return pd.DataFrame(rows).fillna({NAMED_FLOOR: ""})
