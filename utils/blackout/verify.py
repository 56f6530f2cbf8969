"""--verify: what a blackout measured piece by piece, once more by full passes of the network."""

from collections.abc import Mapping

import numpy as np

from utils.blackout.options import get_blackout_options
from utils.blackout.setup import BlackoutSetup, Measurements


def verify_blackout(setup: BlackoutSetup, measurements_by_kind: Mapping[str, Measurements]) -> None:
    """Recomputes random records in full, each with something of every kind replaced; prints the largest difference."""
    rng = np.random.default_rng(setup.run.seed)
    log_odds_differences = list[float]()
    tested_positions = rng.permutation(len(setup.donors.tested_record_indices))[
        : get_blackout_options(setup.run).verify
    ].tolist()
    for tested_position in tested_positions:
        for measurements in measurements_by_kind.values():
            log_odds_differences += [
                float(
                    setup.ready_network.compute_log_odds(recomputation_check.input_by_name)[0]
                    - recomputation_check.measured_log_odds
                )
                for recomputation_check in measurements.make_recomputation_checks(tested_position, rng)
            ]
    recomputation_summary = (
        f"{len(log_odds_differences)} blackouts of {len(tested_positions)} records recomputed in full"
    )
    print(f"{recomputation_summary}: logits differ by at most {np.abs(log_odds_differences).max():.2g}.")
