"""Values of people and effects of things (`families.py`) -> which way the classes differ there, and how it is read.

`difference`   autism minus control within sites, in standard deviations within site and class. It is the slope of least
               squares on the label with the site as a factor. So a site weighs by n1 n0 / (n1 + n0) of its classes.
`correlation`  of a person's value with the thing's effect on the logit of autism, within sites. Connections are read by
               a linear part: there it is with all that this part says. So it has the sign of the activation pattern,
               which weights need not have (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067).

Intervals are for one thing alone. Their standard error is that of influences summed over units, so that relatives
count together (Liang & Zeger 1986, Biometrika 73:13).
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from utils.blackout.effects import sums
from utils.scores.results import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS, columns_of
from utils.scores.statistics import blocks

if TYPE_CHECKING:
    from utils.blackout.families import People

DIFFERENCE, CORRELATION, DIRECTION = "difference", "correlation", "direction"
CONSTANT = 1e-9  # spread over the largest value: less is rounding
PERFECT = 1 - 1e-12  # correlation whose Fisher z is finite
NOT_SHOWN = "not shown to differ"
SIDES = {1: "higher in autism", -1: "lower in autism"}
READ = {1: ", and read so", -1: ", but read the other way", 0: "; how it is read is not shown"}
Estimates = tuple[np.ndarray, np.ndarray, np.ndarray]  # values and both ends, (things,) each


def columns(value: np.ndarray, read: np.ndarray, people: "People") -> pd.DataFrame:
    """A row a thing: `difference` and `correlation` with 95 % intervals, and `direction` in words. `value` and `read`
    (people, things) are what people have there and how it is read, on the logit of autism. Unknown values are left out
    thing by thing; what is undefined is NaN, and its direction empty."""
    parts = [columns_of_block(value[:, some], read[:, some], people) for some in blocks(value.shape[1], len(value))]
    return pd.concat(parts, ignore_index=True)


def columns_of_block(value: np.ndarray, read: np.ndarray, people: "People") -> pd.DataFrame:
    """`columns` of as many things as memory should hold."""
    found = pd.DataFrame()
    found[columns_of(DIFFERENCE)] = np.column_stack(differences(value, people))
    found[columns_of(CORRELATION)] = np.column_stack(correlations(value, read, people))
    differs, which = (sides(found[f"{name}_low"], found[f"{name}_high"]) for name in (DIFFERENCE, CORRELATION))
    words = [SIDES[one] + READ[one * other] if one else NOT_SHOWN for one, other in zip(differs, which, strict=True)]
    found[DIRECTION] = np.where(found[f"{DIFFERENCE}_low"].isna(), "", words)
    return found


def sides(low: pd.Series, high: pd.Series) -> list[int]:
    """On which side of 0 intervals are: 1 above, -1 below, 0 if they hold it or are unknown."""
    return ((low > 0).astype(int) - (high < 0).astype(int)).tolist()


def differences(value: np.ndarray, people: "People") -> Estimates:
    """Standardised differences of values (people, things). NaN of constant values, and without a site that has both
    classes; the interval is NaN where a class has fewer than `MIN_CLASS_SUBJECTS` people at such sites."""
    autism, site = (people.label == 1).astype(float)[:, None], numbered(people.site)
    cell, known = 2 * site + (people.label == 1), ~np.isnan(value)
    of_class = [known & (autism == one) for one in (0, 1)]
    known &= (in_group(of_class[0], site) > 0) & (in_group(of_class[1], site) > 0)
    label, values, within = centred(autism, known, site), centred(value, known, site), centred(value, known, cell)
    free = known * (1 - 1 / np.maximum(in_group(known, cell), 1))  # of each person; without those of the cells' means
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.square(within).sum(0) / free.sum(0)
        variance = np.where(np.sqrt(variance) > CONSTANT * largest(value), variance, np.nan)
        slope = (label * values).sum(0) / np.square(label).sum(0)
        found = slope / np.sqrt(variance)
        of_slope = label * (values - slope * label) / np.square(label).sum(0) / np.sqrt(variance)
        of_spread = found * (np.square(within) / variance - free) / (2 * free.sum(0))
    few = np.minimum(*((one & known).sum(0) for one in of_class)) < MIN_CLASS_SUBJECTS
    margin = np.where(few, np.nan, margins(of_slope - of_spread, known, people))
    return found, found - margin, found + margin


def correlations(value: np.ndarray, effect: np.ndarray, people: "People") -> Estimates:
    """Correlations within sites of values (people, things) with effects (people, things), by Fisher's z. NaN where one
    of both is constant; the interval is NaN of fewer than `MIN_CLASS_SUBJECTS` people."""
    site, known = numbered(people.site), ~np.isnan(value)
    known &= in_group(known, site) > 1
    one, other = (scaled(centred(of, known, site), of, known) for of in (value, effect))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.clip((one * other).sum(0) / known.sum(0), -PERFECT, PERFECT)
        influence = (one * other - found * (np.square(one) + np.square(other)) / 2) / known.sum(0)
        margin = margins(influence / (1 - np.square(found)), known, people)
    margin[known.sum(0) < MIN_CLASS_SUBJECTS] = np.nan
    return found, np.tanh(np.arctanh(found) - margin), np.tanh(np.arctanh(found) + margin)


def margins(influence: np.ndarray, known: np.ndarray, people: "People") -> np.ndarray:
    """Half the widths (things,) of intervals, from each person's influence (people, things) on an estimate. A mean of
    each site and a slope are taken from the units; NaN where none is left."""
    units, sites = ((sums(known.astype(float), of) > 0).sum(0) for of in (people.unit, numbered(people.site)))
    freedom = np.where(units > sites + 1, units - sites - 1, np.nan)
    error = np.sqrt(np.square(sums(influence, people.unit)).sum(0) * units / freedom)
    return error * stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom)


def numbered(names: np.ndarray) -> np.ndarray:
    """The number of each name among the sorted ones (people,) int."""
    return np.unique(names, return_inverse=True)[1]


def in_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each person the sum over its group of values, (people, things)."""
    return sums(values.astype(float), group)[group]


def centred(values: np.ndarray, known: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values (people, things) minus the mean of what is known in the group; 0 where unknown."""
    mean = in_group(np.where(known, values, 0), group) / np.maximum(in_group(known, group), 1)
    return np.where(known, values - mean, 0)


def largest(values: np.ndarray) -> np.ndarray:
    """The largest size of values (people, things), (things,)."""
    return np.abs(np.nan_to_num(values)).max(0)


def scaled(deviation: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Deviations over their root mean square over who is known; NaN if the values are constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.square(deviation).sum(0) / known.sum(0))
        return deviation / np.where(spread > CONSTANT * largest(values), spread, np.nan)
