"""All kinds of features that a blackout replaces, in the order in which they are reported."""

from collections.abc import Mapping

from utils.blackout import column_families, connections, regions, values
from utils.blackout.effects import RecordEffects
from utils.blackout.families import Blackout, FeatureFamily
from utils.blackout.setup import BlackoutSetup, Measurements
from utils.predictors.estimator import EstimatorPredictor

FEATURE_KINDS = (regions.REGION_KIND, connections.CONNECTION_KIND, values.VALUE_KIND, regions.REGION_BY_MAP_KIND)
COLUMN_FAMILY_MAKERS = (
    regions.make_region_family,
    column_families.make_system_family,
    column_families.make_column_value_family,
)


def measure_all_kinds(setup: BlackoutSetup) -> dict[str, Measurements]:
    """Replaces all that the network reads, a part at a time, in all tested records: by kind."""
    return {
        feature_kind.kind_name: feature_kind.measure_effects(setup)
        for feature_kind in FEATURE_KINDS
        if feature_kind.measure_effects
    }


def collect_effects(setup: BlackoutSetup, measurements_by_kind: Mapping[str, Measurements]) -> RecordEffects:
    """The effects of all kinds."""
    record_array_by_name = {
        array_name: record_array
        for measurements in reversed([*measurements_by_kind.values()])
        for array_name, record_array in measurements.record_array_by_name.items()
    }
    return RecordEffects(
        record_array_by_name,
        [setup.run.cohort.rows[record_index] for record_index in setup.donors.tested_record_indices],
    )


def make_families(blackout: Blackout) -> list[FeatureFamily]:
    """The families of all that was replaced."""
    make_family_functions = [feature_kind.make_family for feature_kind in FEATURE_KINDS]
    if isinstance(blackout.run.predictor, EstimatorPredictor):
        make_family_functions = [*COLUMN_FAMILY_MAKERS]
    return [feature_family for make_family in make_family_functions if (feature_family := make_family(blackout))]
