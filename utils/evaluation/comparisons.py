"""The network beside plain classifiers (floors), its repeats beside each other, candidates beside each other.

A choice chooses in each outer fold by inner folds of its training people, so its score is honest. The best candidate's
own score is not, since the same predictions choose it and judge it; the difference is the optimism.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_frame
from data.cohorts.cohort import Cohort
from data.cohorts.rows import known_sites
from data.cohorts.variants import within_sites
from utils.choice.job import read_choice
from utils.report.tables import MINUS, Choice, as_numbers, read_scores, write_table
from utils.report.texts import paragraph
from utils.runs.checkpoints import Identity, training_cohort
from utils.runs.group import Group
from utils.runs.run import Run
from utils.scores import floors
from utils.scores.metrics import (
    HEADLINES,
    Predictions,
    differences,
    headline,
    headline_of,
    with_intervals,
)
from utils.scores.named import named, roles
from utils.scores.results import (
    ALIKE,
    CANDIDATE,
    CHOICE_COLUMNS,
    MAJORITY,
    METRICS,
    MODEL,
    NAMED,
    NAMED_FLOOR,
    NO_FLOORS,
    OTHER,
    ROLE,
    RULE,
    TABLES,
    UNDEFINED,
    Estimate,
    columns_of,
    flat,
)

NONE_FITTED = (
    "No floor could be fitted beside the score: the cohort has no training subjects. The checkpoint was "
    "trained on {cohort}, which is gone, was changed or was prepared otherwise."
)
LINEAR_FLOORS = "The floors are the linear ones that a bundle holds, fitted on its training people."
FITTED: dict[tuple, pd.DataFrame] = {}  # what floors predict, by the data, split, groups and standard


def write_floors(run: Run, known: floors.LinearFloors | None = None) -> list[str]:
    """`floor_predictions.csv`, by floors of the training people: the cohort's own or, if none of them took part, those
    that are `known`."""
    training = None
    if known:
        table = floors.predict_linear(known, run.cohort, run.cohort.indices("test"))
        write_table(run, "floor_predictions", table.reset_index())
        return [LINEAR_FLOORS]
    if not run.cohort.subjects("train"):
        identity = run.checkpoints.identity()
        if (training := training_people(run.cohort, identity)) is None:
            return [NONE_FITTED.format(cohort=identity.cohort)]
    try:
        table = predicted_by_floors(run.cohort, training)
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
    if source is None or prepared(source) != prepared(cohort):
        return None
    known = set(saved.training_subjects)
    rows = tuple(replace(row, split="train" if row.subject in known else "test") for row in source.rows)
    source = replace(source, rows=rows, standard=cohort.standard)
    return within_sites(source) if cohort.standard == "site" else source


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


def verdict(rows: Sequence[dict], predictions: Predictions, inputs: Sequence[str]) -> str:
    """What the rows of `floors_table` say of a network with these inputs, by the AUC of the headline. It stands beside
    chance, the floor that is named beforehand, and each other floor."""
    model, *others = [one for one in compared(rows) if one.name == MODEL or one.auc.value is not None]
    of_floors = [floor for floor in others if floor.name not in NO_FLOORS]
    return paragraph(
        "verdict",
        model=model,
        auc=headline(rows[0]),
        named=named([floor.name for floor in of_floors], inputs),
        floors=of_floors,
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


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables with a row a record (`file`), in any order, as one in the order of the first. It has the mean of numbers
    that all have. Other columns, such as the fold, stay if they are the same in all."""
    first, *others = (table.set_index("file") for table in tables)
    others = [other.loc[first.index] for other in others]
    mean = first.copy()
    for name in first:
        columns = [other[name] for other in others if name in other]
        if len(columns) == len(others) and all(column.equals(first[name]) for column in columns):
            continue
        if len(columns) < len(others) or not pd.api.types.is_numeric_dtype(first[name]):
            del mean[name]
        else:
            mean[name] = sum(columns, first[name]) / len(tables)
    return mean.reset_index()


def repeats_table(group: Group) -> pd.DataFrame:
    """A row a repeat: number, seed, every metric of `metrics.json` with its interval. Then the floor that is named
    beforehand, and the network's AUC minus that of this floor."""
    rows = []
    for number, part in enumerate(repeat.run for repeat in group.groups):
        found, _ = read_scores(part.out_dir / METRICS)
        rows.append({"repeat": number, "seed": part.seed} | flat(found) | beside_named(part))
    return pd.DataFrame(rows).fillna({NAMED_FLOOR: ""})


def beside_named(part: Run) -> dict[str, object]:
    """The floor that is named beforehand for one repeat, and the differences of AUC from it; nothing without floors."""
    table = read_frame(part.out_dir / TABLES["floors"].file)
    found = table[table[ROLE] == NAMED]
    if found.empty:
        return {}
    differences = [name for area in HEADLINES for name in columns_of(f"{MINUS}{area}") if name in table]
    return {NAMED_FLOOR: found["floor"].item()} | {name: as_numbers(found[name]).item() for name in differences}


def best_of(each: Mapping[str, Predictions]) -> str:
    """The candidate with the largest AUC of the headline; of equal ones the first."""
    scores = {name: headline_of(one)[1] for name, one in each.items()}
    return max(scores, key=lambda name: scores[name])


def agreement(chosen: Sequence[str]) -> float:
    """The share of pairs of folds in which the same candidate was chosen."""
    pairs = list(combinations(chosen, 2))
    return sum(one == other for one, other in pairs) / len(pairs)


def choice_summary(
    each: Mapping[str, Predictions], procedure: Predictions, chosen: Mapping[str, str], seed: int
) -> Choice:
    """What the report says of the choice."""
    best = best_of(each)
    scores = with_intervals(each[best], seed)
    name = headline(scores)
    return Choice(
        candidates=list(each),
        chosen=dict(Counter(chosen.values()).most_common()),
        agreement=agreement(list(chosen.values())),
        metric=name,
        best=best,
        best_score=scores[name],
        optimism=differences(each[best], procedure, seed)[name],
    )


def candidates_table(each: Mapping[str, Predictions], chosen: Mapping[str, str], seed: int) -> pd.DataFrame:
    """A row a candidate: in how many folds it was chosen, and its own scores over all folds."""
    counts = Counter(chosen.values())
    rows = []
    for name, one in each.items():
        scores = with_intervals(one, seed)
        names = [area for area in ("auc_sites", "auc_folds", "auc", "accuracy", "brier") if area in scores]
        rows.append({CANDIDATE: name, "chosen": counts[name]} | flat({area: scores[area] for area in names}))
    return pd.DataFrame(rows)


def of_folds(tables: Mapping[str, pd.DataFrame], chosen: Mapping[str, str]) -> pd.DataFrame:
    """Of tables with a column `fold`, one a candidate, the rows of each fold from that of who was chosen there."""
    found = [tables[name][tables[name]["fold"] == fold].assign(candidate=name) for fold, name in chosen.items()]
    return pd.concat(found, ignore_index=True)


def floors_beside(tables: Mapping[str, pd.DataFrame], chosen: Mapping[str, str]) -> pd.DataFrame:
    """`floor_predictions.csv` beside a choice, of those of the candidates. Floors are the same beside each. What the
    network says if missing values are told alike is that of who was chosen."""
    floors = next(iter(tables.values())).drop(columns=ALIKE, errors="ignore")
    own = of_folds(tables, chosen).set_index("file")
    return floors.assign(**{ALIKE: own.loc[floors["file"], ALIKE].to_numpy()}) if ALIKE in own else floors


def choices_table(choosing: Group) -> pd.DataFrame:
    """A row a fold and candidate: how many inner folds it was compared on, its score there, whether it was chosen."""
    choices = {part.fold: read_choice(part) for part in choosing.leaves}
    rows = [
        {"fold": fold, CANDIDATE: name, "inner_folds": rung.folds, "score": rung.scores[name]}
        | {"chosen": int(name == choice.name)}
        for fold, choice in choices.items()
        for name in choice.scores
        for rung in [next(rung for rung in reversed(choice.rungs) if name in rung.scores)]
    ]
    return pd.DataFrame(rows, columns=list(CHOICE_COLUMNS))
