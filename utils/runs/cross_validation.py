"""What a test on folds says of a model that is trained on everybody, who leave nobody to test it on."""

from dataclasses import asdict, dataclass
from typing import Any

from data.base.terminal import format_participants
from data.cohorts.division import Division
from utils.scores.conclusion import Conclusion
from utils.scores.results import Estimate

MIN_PEOPLE_PER_GROUP = 10  # people; the score of a smaller group is not reported


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The AUC of people of one kind, such as of a site, or of one sex."""

    kind: str  # of the grouping: site, head motion, sex or age
    group: str  # its name within the kind, such as a site's
    autism: int  # number of people with autism
    control: int  # number of control people
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """A test on folds of the same people with the same settings: its scores, with 95 % intervals, and what it
    concluded. It holds aggregates, nothing of a single person."""

    folder: str  # results of the test on folds
    preset: str  # name of a preset
    config: dict[str, Any]  # hyper-parameters; of a choice, those that were chosen in most folds
    precision: str  # of the layers, such as float32
    num_iters: int  # batches of each training
    cohort_sha256: str  # see `Folds.identity`
    folds: str  # the name of a `Division`
    repeats: int  # how often the folds were trained
    scores: dict[str, Estimate]  # by metric
    groups: tuple[GroupScore, ...]
    conclusion: Conclusion
    calibration: dict[str, Any] | None  # see `utils.scores.calibration`; None if there were too few people
    lowest_coverage: float | None  # of prediction sets, at one left-out site or column value with enough of a class
    chosen: dict[str, int]  # in how many folds each candidate was chosen
    marks: str  # see `Caveats`

    @property
    def deciding_fields(self) -> dict[str, Any]:
        """What a training takes from it, and its numbers; without the sentences of its conclusion, which may be worded
        otherwise."""
        return {name: value for name, value in asdict(self).items() if name != "conclusion"}

    @property
    def headline_score(self) -> Estimate:
        """The score of the headline."""
        return self.conclusion.score

    @property
    def choice_sentence(self) -> str:
        """Which of several candidates is meant, if folds chose among them."""
        if not self.chosen:
            return ""
        most_chosen_name = max(self.chosen, key=self.chosen.__getitem__)
        choosing_fold_count = self.chosen[most_chosen_name]
        total_fold_count = sum(self.chosen.values())
        is_tied = list(self.chosen.values()).count(choosing_fold_count) > 1
        tie_text = ", as often as another" if is_tied else ""
        return (
            f"Settings: those of {most_chosen_name}, which was chosen in {choosing_fold_count} of {total_fold_count} "
            f"folds{tie_text}."
        )

    @property
    def division_text(self) -> str:
        """How people were left out, in words."""
        return Division.parse_folds_option(self.folds).division_text

    def __str__(self) -> str:
        score_text = self.headline_score.text(undefined_text="undefined")
        conclusion = self.conclusion
        return (
            f"{conclusion.auc_title} {score_text} {self.division_text}, "
            f"{format_participants(conclusion.participants)}{self.marks}"
        )
