"""Which values of a phenotype are missing -> sentences on those whose absence tells the label within a site."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from data.cohorts.rows import listed

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort

MISSING_P_VALUE = 0.01  # over all columns and sites (Bonferroni)
INDICATOR = re.compile("_(missing|unknown)$")  # ends the name of a value that is 1 where another one is missing


def missing_by_label(phenotype: pd.DataFrame, label: np.ndarray, site: Sequence[str]) -> list[str]:
    """A sentence for each site at which values are missing in one class more often than in the other (Fisher's exact
    test), the clearest first: there, a classifier can read the label from the gap. `phenotype` (people, columns) is
    NaN where a value is missing, `label` (people,) is 1.0 autism, 0.0 control, NaN unknown."""
    of_person = np.asarray(site, str)
    names: dict[tuple[str, bytes], list[str]] = {}  # of a site, the columns that the same people lack
    found: dict[tuple[str, bytes], tuple[float, str]] = {}
    for name, column in phenotype.items():
        missing = (column.isna() | bool(INDICATOR.search(str(name))) & (column == 1)).to_numpy()
        for where in np.unique(of_person):
            control, autism = (missing[(of_person == where) & (label == value)] for value in (0.0, 1.0))
            together = np.concatenate([control, autism])
            if control.size == 0 or autism.size == 0 or together.all() or not together.any():
                continue
            same = (str(where), together.tobytes())
            names.setdefault(same, []).append(INDICATOR.sub("", str(name)))
            test = fisher_exact([[control.sum(), (~control).sum()], [autism.sum(), (~autism).sum()]])
            counts = [f"{lacking.sum()} of {lacking.size}" for lacking in (control, autism)]
            found[same] = float(test.pvalue), f"{counts[0]} controls and {counts[1]} people with autism at {where}"
    threshold = MISSING_P_VALUE / max(len(found), 1)
    return [
        f"{listed(list(dict.fromkeys(names[same])))} missing in {text} (p = {p_value:.1g})"
        for same, (p_value, text) in sorted(found.items(), key=lambda item: item[1])
        if p_value < threshold
    ]


def missing_in(cohort: "Cohort") -> list[str]:
    """`missing_by_label` of a cohort's people; nothing if it has no `phenotype.csv`. Raises InputError."""
    if (values := cohort.raw_phenotype) is None:
        return []
    person = {row.subject: row for row in cohort.rows}
    label, site = ([getattr(person[name], field) for name in values.index] for field in ("label", "site"))
    return missing_by_label(values, np.array(label), site)
