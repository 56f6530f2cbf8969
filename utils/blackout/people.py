"""The tested people of a blackout, and whether anything is concluded about them."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from data.base.thresholds import MIN_CLASS_SUBJECTS
from utils.blackout.effects import (
    AdjustedEffects,
    CovariateAdjuster,
    FamilyTest,
    bootstrap_mean_interval,
    inflate_spread,
    run_family_permutation_test,
)


class BlackoutVerdict(StrEnum):
    """Whether anything is concluded about the people; if not, the reason, which follows how well they are predicted."""

    CONCLUSIVE = ""
    AT_CHANCE = "There is nothing to explain."
    SINGLE_CLASS = "Nothing is concluded: all participants are of one class, so that there is no p."
    FEW_IN_CLASS = f"Nothing is concluded: a class has fewer than {MIN_CLASS_SUBJECTS} participants."
    UNDECIDED = "Nothing is concluded."


@dataclass(frozen=True, eq=False)
class BlackoutPeople:
    """The tested subjects, sorted by name."""

    subject_labels: np.ndarray  # (subjects,), 1 for autism
    subject_sites: np.ndarray  # (subjects,), names
    subject_folds: np.ndarray  # (subjects,), of the models that blacked them out
    subject_cluster_numbers: np.ndarray  # (subjects,) int; those with one number are drawn together
    adjuster: CovariateAdjuster
    resampling_seed: int
    verdict: BlackoutVerdict = BlackoutVerdict.CONCLUSIVE
    is_cross_fitted: bool = False  # whether they trained the models of others, see `compute_mean_sd_inflation`

    def compute_mean_sd_inflation(self, people_fraction: float = 1) -> float:
        """How much wider the spread of a mean effect is than that of independent people. Each pair of people meets
        twice, see `utils.scores.metrics`; `people_fraction` of them are in the mean."""
        return float(np.sqrt(1 + people_fraction * self.is_cross_fitted))

    def estimate_means_with_intervals(self, subject_effects: np.ndarray) -> np.ndarray:
        """The mean of effects (subjects, features) with the ends of its 95 % interval, (features, 3)."""
        inflated_effects = inflate_spread(subject_effects, self.compute_mean_sd_inflation())
        return np.column_stack(
            bootstrap_mean_interval(inflated_effects, self.resampling_seed, self.subject_cluster_numbers)
        )

    @property
    def permutation_sites(self) -> np.ndarray | None:
        """The site (n,) of each subject, within which the residuals of labels are permuted, if these are adjusted for
        the site; else None."""
        return self.subject_sites if "site" in self.adjuster.adjustment.covariates else None

    def test_effects(
        self, adjusted_effects: AdjustedEffects, permutation_sites: np.ndarray | None = None
    ) -> FamilyTest:
        """Whether effects (subjects, features) speak for the true class; labels are permuted within
        `permutation_sites`, if given."""
        return run_family_permutation_test(
            adjusted_effects,
            self.resampling_seed,
            self.subject_cluster_numbers,
            self.compute_mean_sd_inflation(),
            permutation_sites=permutation_sites,
        )
