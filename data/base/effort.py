"""How much is computed: as much as a result needs, or less in tests, by the environment variable `ABIDE_EFFORT`."""

import json
import os
from dataclasses import dataclass


@dataclass
class Effort:
    """Numbers that make a command slow and its result sure."""

    resamples: int = 2000  # of an interval
    inner_folds: int = 5  # in which baselines choose penalties and calibrate; of fewer people a class, as many
    strengths: int = 5  # of a logistic regression, from which the best is chosen
    penalties: int = 7  # of a ridge regression
    save_every: int = 150  # batches from checkpoint to checkpoint
    calibrate_from: int = 50  # people of each class: what an 80 % set then holds varies by 6 % (SD) with them
    describe_from: int = 20  # people whose limits may be passed on
    told_from_s: int = 600  # of trainings, from which on it is said how long they take


EFFORT = Effort(**json.loads(os.environ.get("ABIDE_EFFORT", "{}")))
