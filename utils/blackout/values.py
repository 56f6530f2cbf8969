"""Groups of the phenotype's values in a blackout: each is replaced by that of the donors, while all else stays.

An unknown number is what the network reads in its place, the imputed one; a donor's is taken likewise. In ABIDE's
table the marks of what is unknown are a group of their own, so they stay if a number is replaced. In a table of one's
own each column is a group, with its mark.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial

import keras
import numpy as np
import pandas as pd
from scipy.special import expit

from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.covariates import COVARIATE_KIND_BY_NAME
from data.cohorts.phenotype import INDICATOR_PATTERN, IQ_TEST_VALUE_PREFIX, list_abide_names
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata
from utils.blackout import options
from utils.blackout.donors import control_variate_mean
from utils.blackout.edges import Replacement
from utils.blackout.effects import Adjusted, Beside
from utils.blackout.families import Blackout, Effect, Family, Kind
from utils.blackout.fills import FILL_OF, RELIANCE
from utils.blackout.graph import nodes_of
from utils.blackout.options import TOGETHER, tables_of
from utils.blackout.setup import Check, Measured, Setup
from utils.scores.adjustment import adjustment
from utils.training.network import check_network_finite, compute_autism_logit

PHENOTYPE = "phenotype"  # what networks call the values that they read
MARKS = "tests and missing values"
OF_ONE = "Of one value of the group, as the difference: the first, or how much is unknown."
APART = "Each group is adjusted without the covariates that tell the same."
ABIDE = {  # group -> how its values, and the columns of ABIDE's table that tell them, begin; the first that fits
    MARKS: f"{IQ_TEST_VALUE_PREFIX}|fiq_test|.*({INDICATOR_PATTERN.pattern})",
    "age": "age(?![a-z])",
    "sex": "sex(?![a-z])",
    "handedness": "handedness",
    "IQ": "fiq|viq|piq|wisc",
    "eyes": "eyes?_",
    "body mass index": "bmi",
}

Groups = dict[str, list[int]]


def names_of(metadata: Metadata) -> tuple[str, ...]:
    """Of the 29 values."""
    return metadata.phenotype or tuple(f"value {number + 1}" for number in range(PHENOTYPE_SIZE))


def groups_of(metadata: Metadata) -> Groups:
    """The positions of the values of each group, by its name. In ABIDE's table a group is what they measure, in a table
    of one's own it is a column. Without names each value is a group."""
    names = names_of(metadata)
    of_name = [group_of(metadata, name) for name in names]
    order = [*ABIDE] if names == list_abide_names() else dict.fromkeys(of_name)
    return {group: [at for at, of in enumerate(of_name) if of == group] for group in order if group}


def group_of(metadata: Metadata, name: str) -> str:
    """The group of a value, or of a column of the table, by its name; empty if it is in none."""
    names, lower = names_of(metadata), name.lower()
    if names == list_abide_names():
        return next((group for group, begins in ABIDE.items() if re.match(begins, lower)), "")
    if not metadata.phenotype_columns:
        return name if name in names else ""
    known = metadata.phenotype_categories
    column_of = {one.lower(): one for one in metadata.phenotype_columns}
    column_of |= {f"{one}_missing".lower(): one for one in metadata.phenotype_columns}
    column_of |= {f"{one}_{value}".lower(): one for one, values in known.items() for value in values}
    return column_of.get(lower, "")


def without_own(known: pd.DataFrame, metadata: Metadata, group: str) -> pd.DataFrame:
    """The covariates of people without those that tell what a group of values does: of the same column, or kind, such
    as age. What is unknown is told by the phenotype's covariates that are unknown for some, such as the IQ."""
    every, marks = names_of(metadata), group == MARKS
    names = every if marks else (group, *(name for name in every if group_of(metadata, name) == group))
    kinds = [kind for kind in COVARIATE_KIND_BY_NAME.values() if any(map(kind.matches_name, names))]

    def is_own(covariate: str) -> bool:
        bare = covariate.removeprefix("log ")
        of, of_kind = group_of(metadata, bare), any(kind.matches_name(bare) for kind in kinds)
        if marks and of != group:
            return bool(of or of_kind) and bool(known[covariate].isna().any())
        return of == group or of_kind

    return known.drop(columns=[name for name in known if is_own(str(name))])


def measured_of_people(cohort: Cohort, subjects: Sequence[str]) -> pd.DataFrame:
    """What is known of the 29 values of these subjects, NaN where unknown; of a cohort that holds only what networks
    read, that."""
    if (raw := cohort.raw_phenotype) is not None:
        return raw.loc[[*subjects]]
    first = cohort.first_index_by_subject(range(len(cohort.rows)))
    values = cohort.make_batch([first[subject] for subject in subjects], with_volumes=False)[PHENOTYPE]
    return pd.DataFrame(values.astype(float), index=[*subjects])


def of_groups(values: pd.DataFrame, groups: Groups) -> np.ndarray:
    """One number a group of the values (subjects, 29): (subjects, groups). Of a group of marks it is how much is
    unknown, else the first value. A category of which all values are 0 is unknown, NaN."""
    found = {}
    for group, own in groups.items():
        of_group = values.iloc[:, own]
        marks = of_group[[name for name in of_group if INDICATOR_PATTERN.search(str(name))]]
        codes = of_group.drop(columns=marks.columns).loc[:, lambda table: table.isin([0, 1]).all()]
        first = of_group.iloc[:, 0]
        is_code = codes.shape[1] > 1 and first.name in codes
        found[group] = marks.sum(axis=1) if group == MARKS else first.where(codes.any(axis=1)) if is_code else first
    return pd.DataFrame(found).to_numpy(float)


class OfPhenotype:
    """A classifier as a function of its phenotype. What does not depend on it is computed once for each record."""

    def __init__(self, network: keras.Model):
        (source,) = (tensor for tensor in network.inputs if tensor.name == PHENOTYPE)
        reached, rest = {id(source)}, dict[int, keras.KerasTensor]()
        for node in nodes_of(network):
            if reached.isdisjoint(map(id, node.input_tensors)):
                continue
            rest |= {id(tensor): tensor for tensor in node.input_tensors if id(tensor) not in reached}
            reached.update(map(id, node.output_tensors))
        self._inputs = [tensor.name for tensor in network.inputs]
        self._rest = keras.Function(network.inputs, [*rest.values()]) if rest else None
        self._logits = keras.Function([source, *rest.values()], network.outputs[0])

    @property
    def reads_more(self) -> bool:
        """Whether the network reads more than the phenotype."""
        return self._rest is not None

    def __call__(self, batch: dict[str, np.ndarray], phenotypes: np.ndarray) -> np.ndarray:
        """The log odds of autism (n, any) of n records with other phenotypes (n, any, 29)."""
        count, several = phenotypes.shape[:2]
        rest = self._rest([batch[name] for name in self._inputs]) if self._rest else []
        repeated = [np.repeat(np.asarray(one), several, axis=0) for one in rest]
        logits = self._logits([phenotypes.reshape(count * several, -1), *repeated])
        return compute_autism_logit(np.asarray(logits)).reshape(count, several)


def measure(setup: Setup) -> Measured:
    """Replaces each group of values in all tested records."""
    run, donors, cohort = setup.run, setup.donors, setup.cohort
    if PHENOTYPE not in run.model.list_inputs(run.config):
        return Measured()
    function, groups = OfPhenotype(setup.network), groups_of(cohort.metadata)
    phenotypes = cohort.make_batch(np.arange(len(cohort.rows)), with_volumes=False)[PHENOTYPE]
    parts = []
    for indices in split_into_batches(donors.tested, TOGETHER):
        batch = cohort.make_batch(indices, with_volumes=function.reads_more, table_by_name=tables_of(cohort))
        own = phenotypes[indices]
        shown = replaced(own, phenotypes[donors.of(indices)], groups).reshape(len(own), -1, own.shape[1])
        parts.append(function(batch, np.concatenate([own[:, None], shown], axis=1)))
    logits = np.concatenate(parts)
    check_network_finite(run, "outputs", logits)
    base, after = logits[:, 0], logits[:, 1:].reshape(len(logits), donors.count, len(groups))
    level = np.zeros((len(phenotypes), len(groups), max(map(len, groups.values()))))
    for at, own in enumerate(groups.values()):
        level[:, at, : len(own)] = phenotypes[:, own]
    fall = control_variate_mean(base[:, None, None] - after, donors.deviations(level))
    arrays = {"value_reliance": setup.sign * fall, "probability": expit(base)}
    return Measured(arrays, partial(checks, setup, groups, phenotypes, after))


def replaced(own: np.ndarray, given: np.ndarray, groups: Groups) -> np.ndarray:
    """Phenotypes (n, 29) with each group of their donors' (donors, n, 29): (n, donors, groups, 29)."""
    chosen = np.array([np.isin(np.arange(own.shape[1]), positions) for positions in groups.values()])
    return np.where(chosen, given.swapaxes(0, 1)[:, :, None], own[:, None, None])


def checks(
    setup: Setup, groups: Groups, phenotypes: np.ndarray, after: np.ndarray, at: int, random: np.random.Generator
) -> Iterable[Check]:
    """A group of values of a record replaced by that of each donor."""
    group, record = int(random.integers(len(groups))), int(setup.donors.tested[at])
    batch, positions = setup.batch(record), [*map(np.array, groups.values())]
    for donor, given in enumerate(setup.donors.drawn[record]):
        one = Replacement(phenotypes[[record]], phenotypes[[given]], positions)
        yield Check(batch | {PHENOTYPE: one.replaced(group)}, after[at, donor, group])


def family(of: Blackout) -> Family | None:
    """Groups, each adjusted for all covariates but those that tell the same."""
    if "value_reliance" not in of.effects:
        return None
    metadata, label = of.cohort.metadata, of.people.label
    known = options.covariates_of(of.run.cohort, of.effects.rows)
    groups, names = groups_of(metadata), names_of(metadata)

    def correct(effect: np.ndarray) -> Beside:
        others = (Adjusted(adjustment(without_own(known, metadata, group)), label) for group in groups)
        each = [adjusted(effect[:, [at]]) for at, adjusted in enumerate(others)]
        return Beside(*map(np.hstack, zip(*each, strict=True)))

    effect = Effect(FILL_OF[RELIANCE], of.of_subjects("value_reliance"), of.people, correct)
    first = ["how much is unknown" if group == MARKS else names[own[0]] for group, own in groups.items()]
    of_group = ["; ".join(names[at] for at in own) for own in groups.values()]
    return Family(
        VALUES,
        [*groups],
        pd.DataFrame({"group": [*groups], "values": of_group, "difference_of": first}),
        [effect],
        of_groups(measured_of_people(of.cohort, sorted(set(of.effects.subject))), groups),
        notes={"direction": OF_ONE} | ({"p_reliance": APART} if of.people.adjusted.beside.covariates else {}),
        stored={"values": np.array([*groups], object)},
    )


VALUES = Kind(
    "values",
    "values",
    "groups of values",
    family,
    measure,
    about="A group of values of the phenotype is replaced by that of other participants; all else stays",
    shown=("group",),
)
