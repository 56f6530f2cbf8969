"""How much is computed: as much as a result needs, or less in tests, by the environment variable `ABIDE_EFFORT`."""

import json
import os
from dataclasses import dataclass


@dataclass
class Effort:
    """Numbers that make a command slower and its result more certain."""

    resamples: int = 2000  # of an interval
    inner_folds: int = 5  # in which baselines choose penalties and calibrate; at most as many as people of a class
    strengths: int = 5  # of a logistic regression, from which the best is chosen
    penalties: int = 7  # of a ridge regression
    save_every: int = 150  # batches from checkpoint to checkpoint
    calibrate_from: int = 50  # people of each class: with so few, the coverage of 80 % sets varies by 6 % (SD)
    describe_from: int = 20  # people: ranges of fewer are not passed on
    input_table_gib: float = 4  # of memory, that the values of a table of inputs may take
    measured_s: int = 2  # of training, at least, from which the expected duration is computed
    told_from_s: int = 600  # of training, above which that is printed


EFFORT = Effort(**json.loads(os.environ.get("ABIDE_EFFORT", "{}")))
