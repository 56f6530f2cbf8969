"""Features of one kind that a blackout replaces one at a time and tests together: a family, with a family-wise p of its
own. `FeatureKind` says what is special to regions, connections and so on; `kinds.py` lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.cohorts.cohort import Cohort
from data.images.atlas import Atlas
from data.tables.vocabulary import CLASS_NAMES
from utils.blackout import direction, options
from utils.blackout.effects import AdjustedEffects, FamilyTest, RecordEffects
from utils.blackout.fills import RELIANCE_FILL, UNIQUE_FILL, Fill
from utils.blackout.people import BlackoutPeople, BlackoutVerdict
from utils.runs.run import Run
from utils.scores.results import FAMILYWISE_ALPHA, list_estimate_columns

if TYPE_CHECKING:
    from utils.blackout.setup import BlackoutSetup, Measurements

SUPPRESSOR_REMARK = "possibly a suppressor"  # unique without reliance


@dataclass(frozen=True, eq=False)
class FillEffect:
    """The effect of replacing each feature by one fill, positive where a feature speaks for the true class. No p is
    below `min_family_wise_p` (features,)."""

    fill: Fill
    subject_effects: np.ndarray  # (subjects, features), on the logit of the true class
    people: BlackoutPeople
    adjust_for_covariates: Callable[[np.ndarray], AdjustedEffects]
    min_family_wise_p: np.ndarray | float = 0.0

    @cached_property
    def covariate_adjusted(self) -> AdjustedEffects:
        """What covariates leave of it."""
        return self.adjust_for_covariates(self.subject_effects)

    @cached_property
    def means_with_intervals(self) -> np.ndarray:
        """The mean with the ends of its 95 % interval, (features, 3)."""
        return self.people.estimate_means_with_intervals(self.subject_effects)

    @property
    def adjusted_effects(self) -> np.ndarray:
        """The effects (subjects, features) adjusted for covariates."""
        return self.covariate_adjusted.true_class_effects

    @cached_property
    def family_test(self) -> FamilyTest:
        """The test of the adjusted effects."""
        return self.people.test_effects(self.covariate_adjusted, self.people.permutation_sites)

    @cached_property
    def family_wise_p(self) -> np.ndarray:
        """Family-wise p-values (features,) of the adjusted effects."""
        return np.maximum(self.family_test.family_wise_p, self.min_family_wise_p)

    @property
    def false_discovery_q(self) -> np.ndarray:
        """False discovery rates (features,) of the adjusted effects."""
        return self.family_test.false_discovery_q

    @cached_property
    def unadjusted_p(self) -> np.ndarray:
        """Family-wise p-values (features,) of the effects before adjustment."""
        unadjusted_effects = self.people.adjuster.make_unadjusted_effects(self.subject_effects)
        return self.people.test_effects(unadjusted_effects).family_wise_p

    @property
    def is_significant(self) -> np.ndarray:
        """Which features are significant (features,) bool; none if nothing is concluded of these people."""
        return (self.family_wise_p < FAMILYWISE_ALPHA) & (self.people.verdict is BlackoutVerdict.CONCLUSIVE)

    @property
    def autism_logit_effects(self) -> np.ndarray:
        """The effects (subjects, features) on the logit of autism, not of the true class."""
        return np.where(self.people.subject_labels == 1, 1, -1)[:, None] * self.subject_effects

    @property
    def effect_columns(self) -> pd.DataFrame:
        """A row a feature: the mean with its 95 % interval; p and q if it is tested; means of classes if the fill has
        them."""
        fill_name = self.fill.fill_name
        subject_labels = self.people.subject_labels
        effect_table = pd.DataFrame(self.means_with_intervals, columns=list_estimate_columns(fill_name))
        if self.fill.has_p_values:
            effect_table[f"p_{fill_name}"] = self.family_wise_p
            effect_table[f"q_{fill_name}"] = self.false_discovery_q
        if self.fill.has_class_means:
            for class_label, class_name in reversed([*enumerate(CLASS_NAMES)]):
                class_effects = self.subject_effects[subject_labels == class_label]
                effect_table[f"{fill_name}_{class_name}"] = class_effects.mean(0) if len(class_effects) else np.nan
        return effect_table

    @property
    def adjusted_effect_columns(self) -> pd.DataFrame:
        """The adjusted mean with its interval, which p tests, and p before adjustment."""
        fill_name = self.fill.fill_name
        adjusted_table = pd.DataFrame(
            self.people.estimate_means_with_intervals(self.adjusted_effects),
            columns=list_estimate_columns(f"{fill_name}_adjusted"),
        )
        adjusted_table[f"p_{fill_name}_plain"] = self.unadjusted_p
        return adjusted_table


@dataclass(frozen=True, eq=False)
class Blackout:
    """The effects of a run on `people`, from which families are made."""

    run: Run
    record_effects: RecordEffects
    people: BlackoutPeople

    @cached_property
    def cohort(self) -> Cohort:
        return options.select_network_cohort(self.run)

    @cached_property
    def atlas(self) -> Atlas:
        return options.get_blackout_options(self.run).load_regions(self.cohort.region_grid)

    def average_subject_records(self, array_name: str) -> np.ndarray:
        """The means (subjects, ...) of an array of the effects."""
        return self.record_effects.average_subject_records(self.record_effects[array_name])

    def make_fill_effect(self, fill: Fill, subject_effects: np.ndarray) -> FillEffect:
        """The effect of a fill, adjusted for all covariates."""
        return FillEffect(fill, subject_effects, self.people, self.people.adjuster)


@dataclass(frozen=True)
class FeatureKind:
    """What is special to the families of a kind: its words, how it is measured, and how a family is made of what was
    measured.

    `kind_name` is its name in `replication.csv`, `table_file_stem` the name of its CSV. `no_finding_message` is shown
    if no feature is significant; `plural_inner_feature_name` is the name of the features within its features.
    `identifying_column_names` are the columns by which a page identifies a feature. `measure_effects` returns arrays
    of `RecordEffects`; `make_family` returns None if nothing of this kind was replaced.
    """

    kind_name: str  # in `replication.csv`
    table_file_stem: str
    plural_feature_name: str
    make_family: Callable[[Blackout], "FeatureFamily | None"]
    measure_effects: Callable[["BlackoutSetup"], "Measurements"] | None = None
    section_explanation: str = ""
    no_finding_message: str = ""  # if no feature is significant
    plural_inner_feature_name: str = ""
    identifying_column_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FeatureFamily:
    """All features of a kind. `autism_logit_effects` are what the network makes of the `feature_values`."""

    feature_kind: FeatureKind
    feature_names: Sequence[str]
    feature_table: pd.DataFrame  # a row a feature: the columns that identify it
    fill_effects: Sequence[FillEffect]  # features are ranked by the first
    feature_values: np.ndarray  # (subjects, features), what people have there; NaN: unknown, or no number
    autism_logit_effects: np.ndarray | None = None  # (subjects, features); None: of the first fill effect
    inner_family: "FeatureFamily | None" = None  # features within the significant ones, such as regions within systems
    atlas: Atlas | None = None  # whose regions the features are
    matrix_axis_columns: tuple[str, str] | None = None  # of `feature_table`, for rows and for columns
    footnote_by_column: Mapping[str, str] = field(default_factory=dict)
    stored_arrays: Mapping[str, np.ndarray] = field(default_factory=dict)  # by the name in `blackout.h5`

    @property
    def reliance_effect(self) -> FillEffect:
        return self.fill_effects[0]

    @property
    def people(self) -> BlackoutPeople:
        return self.reliance_effect.people

    @property
    def tested_effects(self) -> list[FillEffect]:
        return [fill_effect for fill_effect in self.fill_effects if fill_effect.fill.has_p_values]

    @cached_property
    def reliance_order(self) -> np.ndarray:
        """Features by reliance (features,); equal ones as they come."""
        return np.argsort(-self.reliance_effect.subject_effects.mean(0), kind="stable")

    @cached_property
    def significant_first_order(self) -> np.ndarray:
        """Features (features,) as they are shown where not all are: significant ones by p, then the others by
        reliance."""
        significant_p = np.where(self.reliance_effect.is_significant, self.reliance_effect.family_wise_p, 1)
        return np.lexsort((-self.reliance_effect.subject_effects.mean(0), significant_p))

    @cached_property
    def feature_rows(self) -> pd.DataFrame:
        """A row a feature, in the order of `feature_names`: its `rank` by reliance, the columns that identify it, its
        effects, the same adjusted, which way people differ there and how that is read."""
        feature_ranks = pd.Series(np.argsort(self.reliance_order) + 1, name="rank")
        effect_tables = [fill_effect.effect_columns for fill_effect in self.fill_effects]
        adjusted_effect_tables = [fill_effect.adjusted_effect_columns for fill_effect in self.tested_effects]
        autism_logit_effects = (
            self.reliance_effect.autism_logit_effects
            if self.autism_logit_effects is None
            else self.autism_logit_effects
        )
        direction_columns = direction.make_direction_columns(self.feature_values, autism_logit_effects, self.people)
        return pd.concat(
            [
                feature_ranks,
                self.feature_table,
                *effect_tables,
                *adjusted_effect_tables,
                self.suppressor_remarks,
                direction_columns,
            ],
            axis=1,
        )

    @cached_property
    def ranked_table(self) -> pd.DataFrame:
        """The rows by reliance, then those of `inner_family`."""
        level_tables = [self.feature_rows.iloc[self.reliance_order]]
        if self.inner_family:
            level_tables.append(self.inner_family.ranked_table)
        return pd.concat(level_tables, ignore_index=True)

    def select_first_features(self, min_feature_count: int) -> np.ndarray:
        """The first `min_feature_count` features of `significant_first_order`; more if more are significant."""
        return self.significant_first_order[: max(min_feature_count, self.reliance_effect.is_significant.sum())]

    @property
    def suppressor_remarks(self) -> pd.DataFrame:
        """The column `remark`, which marks features that are unique without reliance; no column if that is not
        tested."""
        p_by_fill = {fill_effect.fill.fill_name: fill_effect.family_wise_p for fill_effect in self.tested_effects}
        if UNIQUE_FILL not in p_by_fill:
            return pd.DataFrame()
        is_unique = p_by_fill[UNIQUE_FILL] < FAMILYWISE_ALPHA
        is_relied_on = p_by_fill[RELIANCE_FILL] < FAMILYWISE_ALPHA
        return pd.DataFrame({"remark": np.where(is_unique & ~is_relied_on, SUPPRESSOR_REMARK, "")})
