"""--verify: what a blackout measured piece by piece, once more by full passes of the network."""

from collections.abc import Mapping

import numpy as np

from utils.blackout.options import of
from utils.blackout.setup import Measured, Setup


def verify(setup: Setup, measured: Mapping[str, Measured]) -> None:
    """Recomputes random records in full, each with something of every kind replaced; prints the largest difference."""
    random, apart = np.random.default_rng(setup.run.seed), list[float]()
    records = random.permutation(len(setup.donors.tested))[: of(setup.run).verify].tolist()
    for at in records:
        for one in measured.values():
            apart += [float(setup.log_odds(check.inputs)[0] - check.measured) for check in one.checks(at, random)]
    told = f"{len(apart)} blackouts of {len(records)} records recomputed in full"
    print(f"{told}: logits differ by at most {np.abs(apart).max():.2g}.")
