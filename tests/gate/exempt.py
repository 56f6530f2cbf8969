"""What may differ from the earlier commit. A row that matches nothing is an error; each that does is printed."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

How = Literal["gone", "new", "changed"]
HOWS: tuple[How, ...] = ("gone", "new", "changed")


@dataclass(frozen=True)
class Exemption:
    """`what` is a pattern of step/folder/table/column/row, `since` the change that made the difference, in a word. A
    number that has changed is covered if it is `within` so much of the earlier one."""

    what: str
    how: How
    since: str
    reason: str
    within: float = np.inf

    def covers(self, name: str, how: str) -> bool:
        return self.how == how and fnmatchcase(name, self.what)

    def could_be_met(self, done: list[str], steps: list[str]) -> bool:
        """Whether all steps were done that it speaks of."""
        spoken_of = [step for step in steps if fnmatchcase(step, self.what.split("/")[0])]
        return set(spoken_of) <= set(done)


BLOBS = "Random blobs are gone: the number of voxels stands beside each region."
MOTION = "How reliable motion would have to be is said no more."
COMPARED = "A comparison has the paired difference with its interval: no McNemar, no correlation, no table of sites."
ONE_ENGINE = "A shift is measured by a robust spread, and its measures have the names that a check gives them."
CHOSEN = "Inner folds choose within a training: no candidate is tested by itself, nor has folders of its own."
ONE_NETWORK = "A bundle is one network and holds no baselines, of which one of the folds is quoted."
IN_ROWS = "A permutation leaves its score; which are as high as the observed one follows from it."
ONE_TABLE = "Every family of a blackout has the columns of regions."
BINNED = "The calibration error is gone: slope, intercept and Brier score say how probabilities agree with labels."
ONE_CALIBRATION = "New people have the slope, the intercept and the Brier score of calibration.csv, by one method."
ROUNDED = "Regions change averages of voxels, on which the network is computed again: it rounds otherwise."
OWN_ROW = "The network is no row of the baselines' table: its scores are in metrics.json."
MASKED = "Where missingness is masked stands in predictions.csv and confounds.csv, not among baselines."
CURVES = "The report has no second copy of training curves: history.csv has them."
OF_PART = (
    "Sites and groups are drawn over all of their people: within folds, of which each has few, they were too narrow."
)
WORDS = "Unlike the training participants is out of distribution."
DIGITS = "What a model of everybody says of each has the digits of all tables."
TOLD = "What was adjusted for is a table."
EXEMPTIONS: tuple[Exemption, ...] = (
    *(
        Exemption(f"*blackout*/{results}/*", "changed", "averages", ROUNDED, within)
        for results, within in {
            "blackout": 1e-5,
            "image/voxels": 1e-5,
            "regions/[pq]_*": 1e-3,
            "regions": 1e-5,
            "regions_by_map/rank": 1,
            "regions_by_map/[pq]_*": 1e-3,
            "regions_by_map/correlation*": 1e-3,
            "regions_by_map": 1e-5,
            "connections": 1e-5,
            "replication/correlation*": 1e-5,
        }.items()
    ),
    *(Exemption(f"*/baselines/*/{row}", "gone", "own row", OWN_ROW) for row in ("model", "model, missingness masked")),
    Exemption("*/baseline_predictions/model, missingness masked/*", "gone", "masked", MASKED),
    Exemption("*/predictions/missingness_masked/*", "new", "masked", MASKED),
    *(Exemption(f"*/confounds/*/{row}", "new", "masked", MASKED) for row in ("masked", "minus_masked")),
    Exemption("*/training/*", "gone", "curves", CURVES),
    *(
        Exemption(f"*/{table}/*_{end}/*", "changed", "parts", OF_PART)
        for table in ("sites", "groups")
        for end in ("low", "high")
    ),
    Exemption("*/adjusted/*", "new", "adjusted", TOLD),
    Exemption("bundle/of-new/external/*/calibration/slope", "new", "calibration", ONE_CALIBRATION),
    *(Exemption("bundle/of-new/external/*/out*of*distribution*", how, "words", WORDS) for how in ("gone", "new")),
    Exemption("bundle/of-new/participants/raw/*", "changed", "digits", DIGITS, within=1e-5),
    Exemption("*/connections/rank/*", "new", "families", ONE_TABLE),
    *(
        Exemption(f"*/{table}/q_reliance/*", "new", "families", ONE_TABLE)
        for table in ("connections", "values", "regions_by_map")
    ),
    Exemption("choose/test/candidates/*", "gone", "choice", CHOSEN),
    Exemption("choose/test/choices/*", "gone", "choice", CHOSEN),
    Exemption("choose/ckpt/folds/*", "gone", "choice", CHOSEN),
    Exemption("permutations/test/permutations/as_high/*", "gone", "permutations", IN_ROWS),
    Exemption("*/regions/size_percentile/*", "gone", "blobs", BLOBS),
    Exemption("*/blackout/blob_excess/*", "gone", "blobs", BLOBS),
    Exemption("*/blackout/group/*", "gone", "blobs", BLOBS),
    Exemption("*/test/confounds/*/reliability", "gone", "reliability", MOTION),
    *(Exemption("bundle/of-new/external/*/shift of *", how, "likeness", ONE_ENGINE) for how in HOWS),
    Exemption("*/metrics/*calibration_error/*", "gone", "calibration", BINNED),
    Exemption("*/repeats/calibration_error*/*", "gone", "calibration", BINNED),
    Exemption("bundle/of-new/external/*/calibration/in_the_large", "gone", "calibration", ONE_CALIBRATION),
    *(
        Exemption(f"bundle/of-new/external/*/calibration/{measure}", "new", "calibration", ONE_CALIBRATION)
        for measure in ("intercept", "brier")
    ),
    *(
        Exemption(f"bundle/of-new/{table}/*", "gone", "bundle", ONE_NETWORK)
        for table in ("baseline_predictions", "baselines", "participants/low", "participants/high")
    ),
    *(
        Exemption(f"folds/compare/{column}/*", "gone", "comparison", COMPARED)
        for column in ("compare/*_right", "compare/correlation*", "compare/p_mcnemar", "compare_sites/*")
    ),
)
