"""What a test shows: one record, in `run.json`, from which the terminal, the page and the card of a bundle speak.

All words of a test's verdict, footnotes and warnings are here. Those who find out what holds take the words from here.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from data.base.listing import join_names
from data.base.tables import make_printable
from data.base.thresholds import MIN_CLASS_SUBJECTS
from data.pages.page import HeadlineNumber
from data.tables.vocabulary import CLASS_NAMES, SITE_UNKNOWN_SENTENCE, find_recorded_sites
from utils.scores.results import (
    CHANCE_AUC,
    INTERVAL_TEXT,
    PRESPECIFIED_ROLE,
    TITLE_BY_AUC,
    UNDEFINED,
    Estimate,
    find_detectable_difference,
)

if TYPE_CHECKING:
    import pandas as pd

    from utils.scores.metrics import Predictions

UNLABELLED_VERDICT = "No diagnosis is known, so nothing can be concluded about how good the predictions are."
FOLD_VERDICT = "What counts is the result of all folds together."
MODEL_BETTER = "better"
NO_DIFFERENCE = "no difference shown"
MODEL_WORSE = "worse"
CANNOT_BE_TOLD = "cannot be told"
ABOVE_CHANCE = "better than chance"
BELOW_CHANCE = "worse than chance"
CARRIES_MORE = "yes"
MORE_NOT_SHOWN = "not shown"
MAX_TERMINAL_COVARIATES = 3  # covariates in a row of the terminal
MAX_VERDICT_COVARIATES = 2  # covariates in the verdict
ESTIMATE_PLACEHOLDERS = "undefined", "no interval"  # in the terminal, where the first row says why

# Caveats, before any number of any page
SIMULATED_CAVEAT = "SIMULATED cohort: its people were made by a program, and nothing here is about people."
CONTROL_CAVEAT = (
    "CONTROL: the labels were permuted within sites (seed {}). No number here says anything about autism, only whether "
    "labels of tested participants reached the model."
)
PROBLEMS_CAVEAT = "PROBLEMS that invalidate these results: {}."
LEAK_CAVEAT = (
    "LEAK ACCEPTED: the cohort was converted with --allowLeak, though {} tells the diagnosis. Do not trust the scores."
)
TRANSDUCTIVE_CAVEAT = (
    "TRANSDUCTIVE: each site's volumes were standardised by its own participants, tested ones too (without "
    "labels). So the score is for participants who come together with others of their site."
)
UNKNOWN_SITE_CAVEAT = (
    f"{SITE_UNKNOWN_SENTENCE}: what differs between scanners can look like what differs between diagnoses, and "
    "nothing here would show it. Convert again with the column of sites (--siteColumn), also if all are of one."
)
INVALID_PREFIX = "Problems invalidate this. "  # of a verdict
SEEN_BY_AUTHORS_CAVEAT = (
    "The preset was made by results on ABIDE I, on whose participants the score may be a little too good"
)

# Warnings of a test
MISSINGNESS_WARNING = "Missing values tell the label: {}."
UNLABELLED_WARNING = "{} of {} test records have no label and are in no metric."
FEW_PARTICIPANTS_WARNING = "Few participants: another sample than these {} may score otherwise."
SUSPICIOUS_ACCURACY_WARNING = (
    "An accuracy of {} is far above the {:.2f} that honest tests on ABIDE reach. Look for a leak before you believe it."
)
NO_BASELINE_WARNING = "No baseline could be fitted beside the score: {}"
NO_TRAINING_PEOPLE_WARNING = NO_BASELINE_WARNING.format(
    "the participants who trained the model, of {}, are not at hand, or were prepared otherwise."
)
UNKNOWN_TRAINING_COHORT_REASON = "who trained the model is not known."
RECORD_LIMIT_WARNING = (
    "Each {} among the baselines is fitted on {} of {} training records, drawn at random."  # classifier, limit, records
)
NOBODY_COMPARED_WARNING = "Nobody is compared with the training participants: {}"
UNKNOWN_TRAINING_PEOPLE_REASON = "what these are like is not known, or is known of other maps."
NO_CALIBRATION_WARNING = (
    "Probabilities are not calibrated and there are no sets of labels: no test on folds of enough participants goes "
    "with this model."
)
NO_SCORE_WARNING = "How good this network is nobody knows: what it says of a participant may be chance."
AT_CHANCE_WARNING = (
    "The test on folds does not show that such networks beat chance: what this one says of a participant may be chance."
)

# Where a baseline was fitted, and why the test beside covariates cannot be done
TRAINING_TEST_TEXT = "in the training's own test {}, {} participants"
ONE_CLASS_REASON = "the participants are of one class"
CONSTANT_OUTPUT_REASON = "the output is the same for everybody"
OUTPUT_FOLLOWS_REASON = "the output follows from the covariates"
DIAGNOSIS_FOLLOWS_REASON = "the diagnosis follows from the covariates"


def judge_auc_difference(auc_difference: Estimate) -> str:
    """What an AUC minus another one says of the first."""
    if auc_difference.low is None or auc_difference.high is None:
        return CANNOT_BE_TOLD
    if auc_difference.low > 0:
        return MODEL_BETTER
    return MODEL_WORSE if auc_difference.high < 0 else NO_DIFFERENCE


def describe_detectable_difference(detectable_difference: float | None) -> str:
    """What follows "no difference is shown": the difference that is large enough to be."""
    return (
        "" if detectable_difference is None else f"; 8 of 10 such studies would show one of {detectable_difference:.3f}"
    )


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """The pre-specified baseline: its `auc`, and `less`, the model's AUC minus it. It `lacks` some of what the model
    reads, and reads others `besides`. `where` it was fitted, if not for these participants."""

    name: str  # of the pre-specified baseline
    auc: Estimate  # of the baseline
    less: Estimate  # AUC of the model minus that of the baseline
    lacks: list[str] = field(default_factory=list)  # inputs of the model that the baseline does not read
    besides: list[str] = field(default_factory=list)  # inputs that the baseline reads and the model does not
    where: str = ""  # the test in which it was fitted, if not on these participants; else empty
    noun: str = "network"  # what is compared with it, see `Predictor`
    are_inputs_known: bool = True  # whether it is known what that reads

    @property
    def readable_name(self) -> str:
        where_text = f" ({self.where})" if self.where else ""
        return f"{self.name.replace(', ', ' by ')}{where_text}"

    @property
    def difference_verdict_text(self) -> str:
        """What the difference says, and of whom, if not of these participants."""
        where_text = ", in the training" if self.where else ""
        detectable_text = describe_detectable_difference(self.detectable_difference)
        return f"{judge_auc_difference(self.less)}{where_text}{detectable_text}"

    @property
    def detectable_difference(self) -> float | None:
        """The minimum detectable difference, where none is shown."""
        return find_detectable_difference(self.less) if judge_auc_difference(self.less) == NO_DIFFERENCE else None

    @property
    def note(self) -> str:
        """How it differs from what it is compared with, or where it was fitted."""
        if self.where:
            return f"No baseline could be fitted for these participants: this is that {self.where}."
        if not self.are_inputs_known:
            return (
                f"What the {self.noun} reads is not known: of all baselines this one reads most of maps, phenotype and "
                "connectome."
            )
        input_differences = [f"does not read the {join_names(self.lacks)}"] if self.lacks else []
        input_differences += [f"also reads the {join_names(self.besides)}"] if self.besides else []
        input_difference_sentence = (
            f"It {' and '.join(input_differences)}; no baseline reads just what the {self.noun} reads."
            if input_differences
            else ""
        )
        if input_difference_sentence:
            return input_difference_sentence
        return f"It reads what the {self.noun} reads, and was named before any score was known."


@dataclass(frozen=True, kw_only=True)
class CovariateResult:
    """Whether the output says more of the diagnosis than covariates do: the `partial` correlation of both given the
    covariates `names`; or the `reason` why it cannot be computed. `left_out`: how many are not in the test, since their
    site has one class. It would not be shown if numbers had this `reliability`, or if an `unmeasured` covariate had
    this partial correlation with diagnosis and output, which is `times_strongest` times that of the `strongest`
    measured one."""

    names: list[str] = field(default_factory=list)  # of the covariates in the test
    partial: Estimate = UNDEFINED  # correlation of output and diagnosis given the covariates
    reason: str = ""  # why it cannot be computed; empty if it can
    left_out: int = 0  # number of participants not in the test, at sites of one class
    reliability: float | None = None  # of covariates: the correlation would not be shown if they had this one
    # partial correlation with diagnosis and output at which an unmeasured covariate would explain it
    unmeasured: float | None = None
    strongest: str = ""  # name of the strongest measured covariate
    times_strongest: float | None = None  # `unmeasured` in multiples of the correlation of the strongest covariate

    @property
    def trust_limits_text(self) -> str:
        """How far "carries more" can be trusted; nothing where that is not shown."""
        if self.unmeasured is None:
            return ""
        times_strongest_text = (
            f", {self.times_strongest:.1f} times that of {self.strongest}" if self.times_strongest else ""
        )
        limits_sentences = (
            f"A covariate that was not measured would explain it with a partial correlation of {self.unmeasured:.2f} "
            f"with both diagnosis and output{times_strongest_text}."
        )
        if self.reliability is not None:
            limits_sentences = (
                f"It holds if numbers were measured with a reliability above {self.reliability:.2f}. {limits_sentences}"
            )
        return limits_sentences

    @property
    def carries_more_verdict(self) -> str:
        if self.partial.low is None:
            return CANNOT_BE_TOLD
        return CARRIES_MORE if self.partial.low > 0 else MORE_NOT_SHOWN

    @property
    def short_covariates_sentence(self) -> str:
        """The `covariates_sentence` in fewer words."""
        return (
            "It carries more than the covariates."
            if self.carries_more_verdict == CARRIES_MORE
            else self.covariates_sentence
        )

    @property
    def covariates_sentence(self) -> str:
        covariates_text = ", ".join(self.names[:MAX_VERDICT_COVARIATES]) or "the covariates"
        covariates_text += (
            f", {len(self.names) - MAX_VERDICT_COVARIATES} more" if len(self.names) > MAX_VERDICT_COVARIATES else ""
        )
        covariates_text += ", pairs and curves" if len(self.names) > 1 else ""
        reliability_text = f" (reliability > {self.reliability:.2f})" if self.reliability else ""
        return {
            CARRIES_MORE: f"It carries more than {covariates_text}{reliability_text}.",
            MORE_NOT_SHOWN: "It is not shown to carry more than the covariates.",
            CANNOT_BE_TOLD: "Whether it carries more than covariates cannot be told.",
        }[self.carries_more_verdict]


DOUBTFUL_P = 0.05  # at most, for a doubt: whether there is a leak, or whether predictions were made from the control


class ControlVerdict(StrEnum):
    """What follows from predictions of the labels of a control."""

    LEAK = "leak"
    FROM_TRUE_LABELS = "made from the true labels"
    PERHAPS_FROM_TRUE_LABELS = "perhaps made from the true labels"  # a control of another seed can tell
    NO_LEAK_SHOWN = "no leak shown"
    CANNOT_TELL = "cannot tell"  # even perfect predictions would not be accused


@dataclass(frozen=True)
class ControlResult:
    """How well predictions tell the labels of a control, and the true labels. `metric` names the AUCs, which are those
    of the headline; p is of AUCs within sites, which find more where sites are small, and None where nobody is
    compared."""

    metric: str
    auc: float  # of the labels of the control
    p: float | None  # of telling these as well
    true_label_auc: float
    true_label_p: float | None  # of telling what the labels of the control do not explain of the true ones
    verdict: ControlVerdict

    @property
    def numbers_text(self) -> str:
        """How far the AUC lies from that of guessing, and p."""
        if self.p is None:
            return "nobody is compared"
        distance_text = f"{abs(self.auc - CHANCE_AUC):.2f} {'above' if self.auc >= CHANCE_AUC else 'below'}"
        return f"AUC {self.auc:.2f}, {distance_text} {CHANCE_AUC:g}, p {self.p:.2g}"

    @property
    def verdict_sentences(self) -> str:
        """What a reader takes away, in at most 60 words."""
        if self.verdict == ControlVerdict.LEAK:
            return (
                f"The labels were permuted, and these predictions still tell them ({self.numbers_text}): labels of "
                "tested people reached the model."
            )
        if self.verdict == ControlVerdict.NO_LEAK_SHOWN:
            if self.p is not None and self.p <= DOUBTFUL_P and self.auc > CHANCE_AUC:
                return (
                    f"No leak shown by this control ({self.numbers_text}), but one is possible: honest predictions "
                    "seldom tell permuted labels as well as this by chance. Make a control of another seed."
                )
            return f"No leak shown by this control ({self.numbers_text}); small leaks may be missed."
        if self.verdict == ControlVerdict.CANNOT_TELL:
            return (
                f"This control cannot tell whether there is a leak ({self.numbers_text}): too few participants of both "
                "labels are of the same site and fold. Larger folds may help."
            )
        return (
            f"Cannot tell: the predictions were {self.verdict} ({self.numbers_text}). Export a control of another "
            "SEED, fit again on its labels, and test that."
        )


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """`score`: the AUC (`metric`) that the verdict rests on; `why`: the reason if nothing can be concluded from it,
    else empty. `notes` are its footnotes. `others`: how many other baselines there are, by how the model compares with
    them. `masked`: the AUC where missingness is masked, and `minus_masked` the score minus it."""

    metric: str  # name of the AUC that the verdict rests on
    score: Estimate  # the AUC that the verdict rests on
    participants: int  # number of them whose diagnosis is known
    alone: int = 0  # participants whom it compares with nobody
    small_sites: bool = False  # whether only participants of one fold are compared, see `Predictions`
    why: str = ""  # the reason if nothing can be concluded; else empty
    notes: list[str] = field(default_factory=list)  # footnotes of the score
    baseline: BaselineComparison | None = None  # the pre-specified one
    # number of other baselines, by how the model compares with them
    others: dict[str, int] = field(default_factory=dict)
    covariates: CovariateResult | None = None
    masked: Estimate = UNDEFINED  # the AUC where missingness is masked
    minus_masked: Estimate = UNDEFINED  # `score` minus `masked`
    noun: str = "network"  # what was tested, see `Predictor`
    training_sentence: str = ""  # what must be said of who trained it, if that is not known
    control: ControlResult | None = None  # if the labels are permuted ones; then nothing else is concluded

    @property
    def auc_title(self) -> str:
        return TITLE_BY_AUC[self.metric]

    @property
    def score_verdict(self) -> str:
        """The verdict on the score in a few words."""
        if self.why or self.score.low is None or self.score.high is None:
            return CANNOT_BE_TOLD
        if self.score.high < CHANCE_AUC:
            return BELOW_CHANCE
        return ABOVE_CHANCE if self.score.low > CHANCE_AUC else "not shown better than chance"

    @property
    def verdict(self) -> str:
        """What a reader takes away, in at most 60 words."""
        if self.control:
            return self.control.verdict_sentences
        return " ".join(
            filter(
                None, [self.score_sentence, self.training_sentence, self.baseline_sentence, *self.confound_sentences]
            )
        )

    @property
    def score_sentence(self) -> str:
        score_value, *_ = self.score.value_low_high
        if self.why:
            auc_value_sentence = f" The {self.auc_title} is {score_value:.2f}." if self.score.value is not None else ""
            return f"Nothing can be concluded: {self.why}.{auc_value_sentence}"
        score_text = f"{score_value:.2f} ({INTERVAL_TEXT} {self.score.format_interval('.2f')})"
        score_and_count_text = f"{self.auc_title} {score_text}, {self.participants} participants."
        comparison_verb = {BELOW_CHANCE: "does worse", ABOVE_CHANCE: "does better"}.get(
            self.score_verdict, "is not shown to do better"
        )
        worse_than_chance_advice = (
            " Look for exchanged labels, or for what tells the diagnosis at one site and its opposite at others, such "
            "as missing values."
        )
        return (
            f"The {self.noun} {comparison_verb} than chance: "
            f"{score_and_count_text}{worse_than_chance_advice if self.score_verdict == BELOW_CHANCE else ''}"
        )

    @property
    def baseline_sentence(self) -> str:
        if self.why or self.score_verdict == BELOW_CHANCE:
            return ""
        better_baseline_count = self.others.get(MODEL_WORSE, 0)
        non_prespecified_baseline_count = sum(self.others.values())
        better_baselines_text = (
            f"; {better_baseline_count} of {non_prespecified_baseline_count} others better"
            if better_baseline_count
            else ""
        )
        if self.baseline is None:
            return (
                f"No baseline reads what it reads, so none is pre-specified{better_baselines_text}."
                if non_prespecified_baseline_count
                else ""
            )
        auc_difference_text = self.baseline.less.text(".3f")
        lacking_inputs = self.baseline.lacks
        baseline_text = (
            f"the pre-specified baseline{f' (lacks {join_names(lacking_inputs)})' if lacking_inputs else ''}"
        )
        training_place_text = " in the training's own test" if self.baseline.where else ""
        detectable_difference = (
            self.baseline.detectable_difference if not better_baselines_text and not training_place_text else None
        )  # else the verdict would exceed 60 words
        detectable_text = "" if detectable_difference is None else f", minimum detectable {detectable_difference:.3f}"
        comparison_text = {
            MODEL_BETTER: f"It is better than {baseline_text}{training_place_text}: {auc_difference_text}",
            NO_DIFFERENCE: f"No difference from {baseline_text} is shown{training_place_text}: {auc_difference_text}"
            f"{detectable_text}",
            MODEL_WORSE: f"It is worse than {baseline_text}{training_place_text}: {auc_difference_text}",
            CANNOT_BE_TOLD: f"Whether it differs from {baseline_text} cannot be told{training_place_text}",
        }[judge_auc_difference(self.baseline.less)]
        return f"{comparison_text}{better_baselines_text}."

    @property
    def confound_sentences(self) -> list[str]:
        if self.why or self.score_verdict == BELOW_CHANCE:
            return []
        sentences = ["Covariates are unknown."]
        if self.covariates:
            sentences = [
                self.covariates.covariates_sentence
                if self.score_verdict == ABOVE_CHANCE
                else self.covariates.short_covariates_sentence
            ]
        if self.minus_masked.low is not None:
            sentences.append(f"Missingness masked: {self.masked.text('.2f', *ESTIMATE_PLACEHOLDERS)}.")
        return sentences

    @property
    def terminal_summary_rows(self) -> list[tuple[str, ...]]:
        """What the terminal shows."""
        if self.control:
            score_text = self.score.text(".2f", *ESTIMATE_PLACEHOLDERS)
            return [(self.auc_title, score_text, self.control.numbers_text), ("CONTROL", "", self.verdict)]
        uncompared_text = f", {self.alone} of {self.participants} compared with nobody" if self.alone else ""
        verdict_text = f"{self.score_verdict}: {self.why}" if self.why else f"{self.score_verdict}{uncompared_text}"
        terminal_rows = [(self.auc_title, self.score.text(".2f", *ESTIMATE_PLACEHOLDERS), verdict_text)]
        if baseline := self.baseline:
            lacks_text = f", which lacks the {join_names(baseline.lacks)}" if baseline.lacks else ""
            terminal_rows.append(
                (
                    f"{PRESPECIFIED_ROLE} baseline",
                    baseline.auc.text(".2f", *ESTIMATE_PLACEHOLDERS),
                    f"{baseline.readable_name}{lacks_text}",
                )
            )
            terminal_rows.append(
                (
                    "model minus baseline",
                    baseline.less.text(".3f", *ESTIMATE_PLACEHOLDERS),
                    baseline.difference_verdict_text,
                )
            )
        if covariate_result := self.covariates:
            covariates_text = join_names(covariate_result.names, MAX_TERMINAL_COVARIATES)
            reliability_text = (
                f", if reliability > {covariate_result.reliability:.2f}" if covariate_result.reliability else ""
            )
            output_label_correlation_text = (
                f"partial correlation {covariate_result.partial.text('.2f')} beside {covariates_text}"
            )
            carries_more_verdict = covariate_result.carries_more_verdict
            terminal_rows.append(
                (
                    "more than covariates",
                    f"{carries_more_verdict}{reliability_text}",
                    covariate_result.reason
                    if carries_more_verdict == CANNOT_BE_TOLD
                    else output_label_correlation_text,
                )
            )
        else:
            terminal_rows.append(("more than covariates", CANNOT_BE_TOLD, "no covariates are known"))
        if self.masked.value is not None:
            masked_text = f"{self.auc_title}, score minus this {self.minus_masked.text('.3f', *ESTIMATE_PLACEHOLDERS)}"
            terminal_rows.append(("missingness masked", self.masked.text(".2f", *ESTIMATE_PLACEHOLDERS), masked_text))
        return [tuple(map(make_printable, row)) for row in terminal_rows]

    @property
    def headline_numbers(self) -> list[HeadlineNumber]:
        """The headline of the page."""
        score_text = self.score.text(".2f", "undefined")
        score_title = f"{self.auc_title}, {INTERVAL_TEXT}"
        if self.control:
            verdict_text = f"{self.control.verdict} ({self.control.numbers_text})"
            return [HeadlineNumber(score_text, score_title, verdict_text, self.notes)]
        score_and_baseline_numbers = [
            HeadlineNumber(
                score_text,
                score_title,
                self.score_verdict,
                self.notes,
            )
        ]
        if baseline := self.baseline:
            difference_text = (
                f"model minus this {baseline.less.text('.3f', 'undefined')}: {baseline.difference_verdict_text}"
            )
            baseline_title = f"{PRESPECIFIED_ROLE} baseline, {INTERVAL_TEXT}: {baseline.name}"
            score_and_baseline_numbers.append(
                HeadlineNumber(baseline.auc.text(".2f", "undefined"), baseline_title, difference_text, [baseline.note])
            )
        return score_and_baseline_numbers


def explain_no_conclusion(auc_estimate: Estimate, headline_metric: str, predictions: "Predictions") -> str:
    """Why nothing can be concluded of a score; empty if something can."""
    has_small_sites = predictions.in_small_sites
    is_labelled = predictions.label >= 0
    has_both_classes = all((predictions.label == class_label).any() for class_label in range(len(CLASS_NAMES)))
    if auc_estimate.value is None and not has_both_classes:
        return f"the test participants are of one class, not of {join_names(CLASS_NAMES)}"
    if auc_estimate.value is None and headline_metric == "auc_folds":
        return "in each fold all test participants have the same diagnosis"
    if auc_estimate.value is None:
        fold_text = " of a fold" if has_small_sites else ""
        return (
            f"at each site all test participants{fold_text} have the same diagnosis, and a model that tells sites "
            "apart would seem to tell diagnoses"
        )
    if auc_estimate.low is None:
        has_clusters = predictions.count_clusters(is_labelled) < predictions.count_subjects(is_labelled)
        clusters_text = " (a family, or participants who share a scan, count once)" if has_clusters else ""
        both_classes_text = ""
        if headline_metric == "auc_sites":
            both_classes_text = f" at sites{' and folds' if has_small_sites else ''} that have both"
        return f"an interval needs {MIN_CLASS_SUBJECTS} participants of each class{clusters_text}{both_classes_text}"
    return ""


def make_score_footnotes(
    headline_metric: str, predictions: "Predictions", are_training_people_known: bool = True
) -> list[str]:
    """Footnotes of a score: whom it compares, and what it does not say. If nobody knows who trained a model, that is
    what its folds say."""
    subject_count = predictions.count_subjects(predictions.label >= 0)
    repeat_count = len(predictions.repeats_to_score)
    score_footnotes = [] if find_recorded_sites(predictions.site) else [f"{SITE_UNKNOWN_SENTENCE}."]
    uncompared_count = predictions.uncompared_subject_count
    if headline_metric == "auc_sites" and predictions.in_small_sites:
        score_footnotes.append(
            "Sites have few participants of a class, and a model that has seen some of such a site predicts the others "
            "in the wrong direction: only those of the same site and fold are compared."
        )
        score_footnotes += (
            [f"{uncompared_count} of {subject_count} have nobody of the other class there."] if uncompared_count else []
        )
        score_footnotes.append("Folds of whole sites (--wholeSites) compare all who are at sites of both classes.")
    elif headline_metric == "auc_sites":
        score_footnotes.append("Compares participants of the same site, averaged over sites.")
        score_footnotes += (
            [f"{uncompared_count} of {subject_count} are at sites of one class, and not in it."]
            if uncompared_count
            else []
        )
        if predictions.are_sites_new is not None:
            site_footnote = (
                "each site was tested by a model that had not seen it."
                if predictions.are_sites_new
                else "participants of the tested sites were in the training: this says nothing of a new site."
            )
            score_footnotes.append(
                site_footnote[0].upper() + site_footnote[1:]
                if are_training_people_known
                else f"By the folds of the file, {site_footnote}"
            )
    elif headline_metric == "auc_folds":
        score_footnotes.append("Compares participants whom the same model tested, averaged over folds.")
    return [
        *score_footnotes,
        *([f"The mean over {repeat_count} repeats, of those that have one."] if repeat_count > 1 else []),
    ]


def explain_too_few_people(tested_people: "pd.DataFrame") -> str:
    """Why these people are too few for a statement, as they are for their AUC within sites; empty if they are
    enough."""
    has_several_sites = tested_people["site"].nunique() > 1
    mixed_site_people = tested_people
    if has_several_sites:
        mixed_site_people = tested_people[tested_people.groupby("site")["label"].transform("nunique") == 2]
    if mixed_site_people.empty:
        return "at each site all participants have the same diagnosis"
    if mixed_site_people.groupby("label")["unit"].nunique().min() >= MIN_CLASS_SUBJECTS:
        return ""
    both_classes_text = " at sites that have both" if has_several_sites else ""
    return f"it needs {MIN_CLASS_SUBJECTS} participants of each class{both_classes_text}"


def format_calibration_promise(
    prevalence: float | None, training_prevalence: float, coverage_level: float, lowest_coverage: float | None
) -> str:
    """What calibrated probabilities, for a `prevalence` that the user gave or else that of the training, and sets of
    labels at `coverage_level` promise, and to whom; `lowest_coverage` is that of groups which were left out."""
    prevalence_text = f"{prevalence or training_prevalence:.3g}"
    prevalence_text += "" if prevalence else ", as in the training; --prevalence names another one"
    participants_text = "of participants of sites that trained the network; at a new site nobody knows"
    if lowest_coverage is not None:
        coverage_text = f"at one site that was left out for {lowest_coverage:.0%} of a class"
        participants_text = f"of participants like those of its sites; {coverage_text}, and at yours nobody knows"
    return (
        f"Calibrated probabilities are for a share of autism of {prevalence_text}. Sets of labels hold the true one "
        f"for {coverage_level:.0%} of each class, {participants_text}."
    )
