"""What jobs say of their results in a `Manifest`."""

from dataclasses import dataclass, field
from typing import Any

from data.base.thresholds import CONFIDENCE_LEVEL
from utils.scores.conclusion import Conclusion
from utils.scores.results import TITLE_BY_AUC


@dataclass(frozen=True)
class SubjectCounts:
    """Subjects of one split and site, by label."""

    split: str  # train or test; of pooled folds, such as "fold 1", or "tested"
    site: str  # its name
    autism: int  # number of subjects
    control: int  # number of subjects
    unknown: int  # number of subjects


@dataclass(frozen=True, kw_only=True)
class DataPreparation:
    """How the data that a test read had been prepared."""

    normalisation: str  # of the volumes, at conversion
    reduction: str  # see `Preparation`
    standard: str  # of the volumes, as they are read
    connectome: str  # the series whose correlations the cohort has
    phenotype_columns: tuple[str, ...]  # columns of the tables of people from which the phenotype was made
    num_phenotype: int  # values made of these that are not alike for all; 0 if unknown
    derivation: str  # of maps and series from scans, in words
    scaled_by: str  # whose medians, means and spreads the phenotype takes: `fold` or `split`; empty if unknown
    same_scan: int  # groups of people who share a scan
    together: bool  # whether these are in one split or fold
    families: int  # of two people or more
    family_column: str  # the column of the tables that tells families; empty without one
    conversion: str  # the command


@dataclass(frozen=True, kw_only=True)
class CandidateChoice:
    """The candidate that inner folds chose in a training, with its settings, and the scores of all candidates."""

    name: str  # of the chosen candidate
    preset: str  # of the chosen candidate
    config: dict[str, Any]  # settings of the chosen candidate
    batches: int  # of the trainings in inner folds
    metric: str  # name of the metric of `scores`
    scores: dict[str, float]  # by candidate, in inner folds


@dataclass(frozen=True, kw_only=True)
class TestStatement:
    """What the test of a classifier found, on one fold or on all."""

    __test__ = False  # pytest collects nothing here

    conclusion: Conclusion | None = None  # None without labels, and of one fold
    warnings: list[str]  # sentences
    subjects: list[SubjectCounts]  # by split and site
    left_out: dict[str, int]  # number of people whom the conversion left out, by reason
    chosen: dict[str, CandidateChoice] = field(default_factory=dict)  # in each fold, among candidates
    prepared: DataPreparation
    promise: str = ""  # what probabilities and sets of labels promise to new people
    baseline_settings: dict[str, str]  # of each classifier that is a baseline
    shares: dict[str, float]  # the weight of each part of the networks, if it was learned


@dataclass(frozen=True, kw_only=True)
class PermutationResult:
    """The result of a series of permutations; the bound is that of Clopper & Pearson 1934."""

    p: float  # of `observed` among the scores on permuted labels
    bound: float  # upper end of the one-sided 95 % interval of the p of infinitely many permutations
    high: int  # number of permutations that score at least as high as `observed`
    count: int  # number of permutations that were done
    asked: int  # number of permutations that were requested
    observed: float  # score on the true labels
    metric: str  # name of the AUC that is the score
    mean: float  # score on permuted labels

    @property
    def permutation_sentence(self) -> str:
        citation = "Besag and Clifford 1991, doi:10.1093/biomet/78.2.301"
        early_stop_text = f" No more were needed ({citation})." if self.count < self.asked else ""
        return (
            f"p = {self.p:.2g} for the whole procedure: on labels permuted within sites its "
            f"{TITLE_BY_AUC[self.metric]} was as high in {self.high} of {self.count} permutations (mean "
            f"{self.mean:.3f}).{early_stop_text} Infinitely many would give at most {self.bound:.2g} "
            f"({CONFIDENCE_LEVEL:.0%} bound)."
        )


@dataclass(frozen=True, kw_only=True)
class BlackoutStatement:
    """What a blackout found, on one fold or on all."""

    subjects: int  # number of people who were blacked out
    better_than_chance: bool | None  # whether the network predicts them so; None if that cannot be told
    concluded: bool  # whether anything is concluded of them
    adjusted_for: tuple[str, ...]  # names of covariates
    conclusion: str  # what a reader takes away, in sentences
    notes: tuple[str, ...]  # warnings and footnotes
    donors: str  # who gave the replacements, in a sentence
    donors_per_record: int | None  # None of all folds, which may differ
    recomputed_layers: tuple[str, ...] | None  # by name, see `FeatureOcclusion`; None of all folds, or without volumes


@dataclass(frozen=True, kw_only=True)
class EncodeStatement:
    """What a full pass did."""

    records: int  # number of records that were reduced


@dataclass(frozen=True, kw_only=True)
class BundleStatement:
    """Who trained the network of a bundle, and what it was made with."""

    autism: int  # number of people with autism who trained its network
    control: int  # number of control people who did
    aal_sha256: str  # see `atlas.compute_aal_sha256`
