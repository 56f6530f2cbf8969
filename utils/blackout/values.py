"""Groups of the phenotype's values in a blackout: each is replaced by that of the donors, while all else stays.

An unknown number is what the network reads in its place, the imputed one; a donor's is taken likewise. In ABIDE's
table the marks of what is unknown are a group of their own, so they stay if a number is replaced. In a table of one's
own each column is a group, with its mark.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from data.cohorts.cohort import Cohort, in_order
from data.cohorts.covariates import KINDS
from data.cohorts.phenotype import INDICATOR, TEST, abide_names
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata
from utils.blackout.donors import Donors, control_variate_mean
from utils.blackout.graph import nodes_of
from utils.blackout.options import CONNECTOME
from utils.training.network import logit_of_autism

PHENOTYPE = "phenotype"  # what networks call the values that they read
MARKS = "tests and missing values"
ABIDE = {  # group -> how the names of its values begin; the first that fits
    MARKS: f"{TEST}|.*({INDICATOR.pattern})",
    "age": "age",
    "sex": "sex",
    "handedness": "handedness",
    "IQ": "fiq|viq|piq|wisc",
    "eyes": "eyes",
    "body mass index": "bmi",
}
TOGETHER = 16  # records at a time

Groups = dict[str, list[int]]


def names_of(metadata: Metadata) -> tuple[str, ...]:
    """Of the 29 values."""
    return metadata.phenotype or tuple(f"value {number + 1}" for number in range(PHENOTYPE_SIZE))


def groups_of(metadata: Metadata) -> Groups:
    """The positions of the values of each group, by its name. In ABIDE's table a group is what they measure, in a table
    of one's own it is a column. Without names each value is a group."""
    names = names_of(metadata)
    if names == abide_names():
        group_of = [next(group for group, begins in ABIDE.items() if re.match(begins, name)) for name in names]
    else:
        known = metadata.phenotype_categories
        column_of = {name: column for column in metadata.phenotype_columns for name in (column, f"{column}_missing")}
        column_of |= {f"{column}_{value}": column for column, values in known.items() for value in values}
        unused = () if metadata.phenotype_columns else names
        group_of = [column_of.get(name, name if name in unused else "") for name in names]
    order = [*ABIDE] if names == abide_names() else dict.fromkeys(group_of)
    return {group: [at for at, of in enumerate(group_of) if of == group] for group in order if group}


def told_by(names: Sequence[str], covariates: Sequence[str]) -> list[str]:
    """The covariates that tell what values of these names do: of the same kind, such as age, or of the same name."""
    kinds = [kind for kind in KINDS.values() if any(map(kind.names, names))]
    return [one for one in covariates if one in names or any(kind.names(one) for kind in kinds)]


def measured_of_people(cohort: Cohort, subjects: Sequence[str]) -> pd.DataFrame:
    """What is known of the 29 values of these subjects, NaN where unknown; of a cohort that holds only what networks
    read, that."""
    if (raw := cohort.raw_phenotype) is not None:
        return raw.loc[[*subjects]]
    first = cohort.first_records(range(len(cohort.rows)))
    values = cohort.batch([first[subject] for subject in subjects], volumes=False)[PHENOTYPE]
    return pd.DataFrame(values.astype(float), index=[*subjects])


def of_groups(values: pd.DataFrame, groups: Groups) -> np.ndarray:
    """One number a group of the values (subjects, 29): (subjects, groups). Of a group of marks it is how much is
    unknown, else the first value."""
    marks = [column for column in values if INDICATOR.search(str(column))]
    found = {
        group: values[marks].sum(axis=1) if group == MARKS else values.iloc[:, own[0]] for group, own in groups.items()
    }
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
        return logit_of_autism(np.asarray(logits)).reshape(count, several)


class ValueLogits(NamedTuple):
    """The log odds of autism with all shown, (records,), and with each group replaced, (records, donors, groups)."""

    base: np.ndarray
    replaced: np.ndarray
    phenotypes: np.ndarray  # (records of the cohort, 29), as the network reads them

    def reliance(self, donors: Donors, groups: Groups) -> np.ndarray:
        """How far the log odds of autism fall, a mean over donors: (records, groups)."""
        largest = max(map(len, groups.values()))
        level = np.zeros((len(self.phenotypes), len(groups), largest))
        for at, own in enumerate(groups.values()):
            level[:, at, : len(own)] = self.phenotypes[:, own]
        return control_variate_mean(self.base[:, None, None] - self.replaced, donors.deviations(level))


def replaced(own: np.ndarray, given: np.ndarray, groups: Groups) -> np.ndarray:
    """Phenotypes (n, 29) with each group of their donors' (donors, n, 29): (n, donors, groups, 29)."""
    chosen = np.array([np.isin(np.arange(own.shape[1]), positions) for positions in groups.values()])
    return np.where(chosen, given.swapaxes(0, 1)[:, :, None], own[:, None, None])


def value_logits(cohort: Cohort, network: keras.Model, donors: Donors) -> ValueLogits:
    """Of all tested records."""
    function, groups = OfPhenotype(network), groups_of(cohort.metadata)
    phenotypes = cohort.batch(np.arange(len(cohort.rows)), volumes=False)[PHENOTYPE]
    tables = {} if cohort.connectomes is None else {CONNECTOME: cohort.connectomes}
    found = []
    for indices in in_order(donors.tested, TOGETHER):
        batch = cohort.batch(indices, volumes=function.reads_more, tables=tables)
        own = phenotypes[indices]
        shown = replaced(own, phenotypes[donors.of(indices)], groups).reshape(len(own), -1, own.shape[1])
        found.append(function(batch, np.concatenate([own[:, None], shown], axis=1)))
    logits = np.concatenate(found)
    return ValueLogits(logits[:, 0], logits[:, 1:].reshape(len(logits), donors.count, len(groups)), phenotypes)
