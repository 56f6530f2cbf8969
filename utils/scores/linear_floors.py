"""Training people -> the floors that are linear, as constants; constants and people -> probabilities of autism.

What the encoding of the features learns of training people, medians, z-scores and dummies, is folded into the weights,
so that a floor is a sum of terms of what is known of a person. It holds no value of anybody: a category of text that
one person alone has, other than the site, is left out, and so is as good as unknown.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.compose import ColumnTransformer
from threadpoolctl import threadpool_limits

from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts.cohort import Cohort, Standard
from data.cohorts.connectomes import Connectomes
from utils.scores import floors, ridge
from utils.scores.covariates import encoder
from utils.scores.floors import CONNECTOME, LINEAR, RIDGE
from utils.scores.statistics import MAJORITY

UNKNOWN = "unknown"  # the category of unknown text
SITE = "covariates site"  # a feature


@dataclass(frozen=True)
class Term:
    """What a number adds to the log odds: `weight` times its value; `unknown` if it is not known."""

    weight: float
    unknown: float


@dataclass(frozen=True)
class Floor:
    """A linear classifier of named features: numbers, and the weights of the categories of text."""

    bias: float
    numbers: dict[str, Term]
    categories: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Constants:
    """Floors by name; the share of autism; how volumes were standardised; the parcels of connectomes, empty if no floor
    reads them."""

    majority: float
    floors: dict[str, Floor]
    standard: Standard
    parcels_sha256: str
    connectome_bias: float


@dataclass(frozen=True, eq=False)
class LinearFloors:
    """All linear floors. `edges` (2, edges) float64 are the means of edges and what their deviations weigh; None if no
    floor reads connectomes."""

    constants: Constants
    edges: np.ndarray | None


def fit(cohort: Cohort) -> LinearFloors:
    """The floors by a cohort's training records; of too few people the majority alone. Raises InputError for a record
    that cannot be read."""
    train = cohort.indices("train")
    rows, people = [cohort.rows[index] for index in train], floors.people_of(cohort, train)
    fitting = floors.learners(rows, people)
    found: dict[str, Floor] = {}
    tables = floors.features(cohort) if fitting else {}
    with progress("Fitting linear floors", len(tables)) as shown, threadpool_limits(1, "blas"):
        for kind, table in tables.items():
            encoding = encoder().fit(table.iloc[train])
            known, own = encoding.transform(table.iloc[train]), of_one_person(table.iloc[train], people)
            for name in [name for name in LINEAR if floors.reads(name, kind)]:
                of = fitting[name].of
                floor = folded(encoding, LINEAR[name](known[of.rows], of))
                found[f"{kind}, {name}"] = without(floor, own)
            shown.advance()
    majority = float(np.mean([row.label for row in rows]))
    if not fitting or cohort.connectomes is None:
        return LinearFloors(Constants(majority, found, cohort.standard, "", 0.0), None)
    of_edges = ridge.fit_edges(cohort, cohort.connectomes, train)
    edges = np.stack([of_edges.scale.mean, of_edges.scale.scale * of_edges.of_scaled.weights])
    parcels, bias = cohort.metadata.parcels_sha256, of_edges.of_scaled.bias
    return LinearFloors(Constants(majority, found, cohort.standard, parcels, bias), edges)


def predict(of: LinearFloors, cohort: Cohort, indices: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """Probability of autism of the records at these positions (rows by file) by each floor (columns), as in
    `floors.predict`. Raises InputError if the cohort lacks what a floor reads."""
    chosen, constants = np.asarray(indices, int), of.constants
    if constants.standard != cohort.standard:
        raise InputError(
            f"{cohort.path} is read with volumes standardised as {cohort.standard}; the floors were fitted on "
            f"{constants.standard}. Use the settings of the training."
        )
    result = {MAJORITY: np.full(len(chosen), constants.majority)}
    if constants.floors:
        every = floors.inputs(cohort)
        site = pd.DataFrame({SITE: [row.site for row in cohort.rows]})  # left out of one site's covariates
        table = pd.concat([*every.values(), site], axis=1).iloc[chosen]
        table = table.loc[:, ~table.columns.duplicated()]
        result |= {name: expit(log_odds(floor, table)) for name, floor in constants.floors.items()}
    if of.edges is not None and cohort.connectomes and cohort.metadata.parcels_sha256 == constants.parcels_sha256:
        found = of_connectomes(of.edges, cohort.connectomes, chosen)
        result[f"{CONNECTOME}, {RIDGE}"] = expit(constants.connectome_bias + found)
    return pd.DataFrame(result, index=pd.Index([cohort.rows[index].file for index in chosen], name="file"))


def folded(encoding: ColumnTransformer, classifier: ridge.LinearClassifier) -> Floor:
    """A classifier of encoded features as one of the features themselves."""
    bias, numbers, categories = classifier.bias, dict[str, Term](), dict[str, dict[str, float]]()
    for name, pipeline, columns in encoding.transformers_:
        weights = classifier.weights[encoding.output_indices_[name]]
        if not len(columns) or isinstance(pipeline, str):
            continue
        filled, last = (step for _, step in pipeline.steps)
        if hasattr(last, "categories_"):
            parts = np.split(weights, np.cumsum([len(values) for values in last.categories_])[:-1])
            for column, values, part in zip(columns, last.categories_, parts, strict=True):
                categories[column] = dict(zip(map(str, values), part.tolist(), strict=True))
            continue
        of_values = weights / last.scale_
        bias -= float(of_values @ last.mean_)
        of_missing = np.zeros(len(columns))
        of_missing[filled.indicator_.features_] = of_values[len(columns) :]
        medians = np.nan_to_num(filled.statistics_)
        for column, weight, median, missing in zip(columns, of_values, medians, of_missing, strict=False):
            numbers[column] = Term(float(weight), float(weight * median + missing))
    return Floor(bias, numbers, categories)


def of_one_person(table: pd.DataFrame, people: Sequence[str]) -> dict[str, set[str]]:
    """The categories of text, by column, that one of the people (n,) alone has, other than sites."""
    person = pd.Series(list(people), table.index)
    columns = table.select_dtypes(exclude="number").drop(columns=SITE, errors="ignore")
    counts = {name: person.groupby(column.fillna(UNKNOWN)).nunique() for name, column in columns.items()}
    return {str(name): set(of.index[of < 2].astype(str)) for name, of in counts.items()}


def without(floor: Floor, left_out: Mapping[str, Container[str]]) -> Floor:
    """The floor without some categories, by column, but for that of unknown text."""
    kept = {
        name: {text: weight for text, weight in of.items() if text == UNKNOWN or text not in left_out.get(name, ())}
        for name, of in floor.categories.items()
    }
    return replace(floor, categories=kept)


def log_odds(floor: Floor, table: pd.DataFrame) -> np.ndarray:
    """Of autism (n,), of people with these features. Raises InputError if one is missing."""
    if absent := [name for name in (*floor.numbers, *floor.categories) if name not in table]:
        raise InputError(
            f"The floors read {absent[0]}, which these people lack; convert them like the training people."
        )
    values = table[list(floor.numbers)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    weights, unknown = np.array([(term.weight, term.unknown) for term in floor.numbers.values()]).reshape(-1, 2).T
    total = floor.bias + np.where(np.isnan(values), unknown, np.nan_to_num(values) * weights).sum(1)
    for name, weight in floor.categories.items():
        total += [weight.get(text, 0.0) for text in texts(table[name])]
    return total


def texts(column: pd.Series) -> Iterator[str]:
    """A column's categories; numbers as they are written, for those of few people may all be some."""
    for value in column:
        yield UNKNOWN if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def of_connectomes(edges: np.ndarray, connectomes: Connectomes, records: np.ndarray) -> np.ndarray:
    """What the edges of these records add to the log odds (n,); an unknown one counts as the mean."""
    mean, weight = edges
    found = (np.nan_to_num(values - mean) @ weight for _, values in ridge.blocks(connectomes, records))
    return np.concatenate([*found])
