"""What a test shows: one record, in `run.json`, from which the terminal, the page and the card of a bundle speak."""

from dataclasses import dataclass, field

from data.base.tables import make_printable
from data.cohorts.rows import join_names
from data.pages.page import HeadlineNumber
from utils.scores.results import (
    CHANCE_AUC,
    HEADLINES,
    INTERVAL,
    NAMED,
    UNDEFINED,
    Estimate,
    minimum_detectable_difference,
)

UNLABELLED = "No diagnosis is known, so nothing can be concluded about how good the predictions are."
OF_FOLD = "What counts is the result of all folds together."
BETTER, SAME, WORSE, UNKNOWN = "better", "no difference shown", "worse", "cannot be told"
ABOVE, BELOW = "better than chance", "worse than chance"
YES, NOT_SHOWN = "yes", "not shown"
NAMES, SPOKEN = 3, 2  # of covariates in a row of the terminal, and in the verdict
SHORT = "undefined", "no interval"  # there, where the first row says why


def standing(less: Estimate) -> str:
    """What an AUC minus another one says of the first."""
    if less.low is None or less.high is None:
        return UNKNOWN
    return BETTER if less.low > 0 else WORSE if less.high < 0 else SAME


def would_show(detectable: float | None) -> str:
    """What follows "no difference is shown": the difference that is large enough to be."""
    return "" if detectable is None else f"; 8 of 10 such studies would show one of {detectable:.3f}"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The pre-specified one: its AUC, and the model's minus it. It `lacks` some of what the network reads, and reads
    others `besides`. `where` it was fitted, if not for these participants."""

    name: str
    auc: Estimate
    less: Estimate
    lacks: list[str] = field(default_factory=list)
    besides: list[str] = field(default_factory=list)
    where: str = ""

    @property
    def spoken(self) -> str:
        return f"{self.name.replace(', ', ' by ')}{f' ({self.where})' if self.where else ''}"

    @property
    def standing(self) -> str:
        """What the difference says, and of whom, if not of these participants."""
        return f"{standing(self.less)}{', in the training' if self.where else ''}{would_show(self.detectable)}"

    @property
    def detectable(self) -> float | None:
        """The minimum detectable difference, where none is shown."""
        return minimum_detectable_difference(self.less) if standing(self.less) == SAME else None

    @property
    def note(self) -> str:
        """How it differs from the network, or where it was fitted."""
        if self.where:
            return f"No baseline could be fitted for these participants: this is that {self.where}."
        differs = [f"does not read the {join_names(self.lacks)}"] if self.lacks else []
        differs += [f"also reads the {join_names(self.besides)}"] if self.besides else []
        told = f"It {' and '.join(differs)}; no baseline reads just what the network reads." if differs else ""
        return told or "It reads what the network reads, and was named before any score was known."


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Whether the output says more of the diagnosis than covariates do: the `partial` correlation of both beside these
    `names`; or the `reason` why it cannot be computed. `left_out`: how many are not in the test, since their site has
    one class. It would not be shown if numbers had this `reliability`, or if an `unmeasured` covariate had this partial
    correlation with diagnosis and output: so many `times_strongest` that of the `strongest` measured one."""

    names: list[str] = field(default_factory=list)
    partial: Estimate = UNDEFINED
    reason: str = ""
    left_out: int = 0
    reliability: float | None = None
    unmeasured: float | None = None
    strongest: str = ""
    times_strongest: float | None = None

    @property
    def limits(self) -> str:
        """How far "carries more" can be trusted; nothing where that is not shown."""
        if self.unmeasured is None:
            return ""
        times = f", {self.times_strongest:.1f} times that of {self.strongest}" if self.times_strongest else ""
        told = (
            f"A covariate that was not measured would explain it with a partial correlation of {self.unmeasured:.2f} "
            f"with both diagnosis and output{times}."
        )
        if self.reliability is not None:
            told = f"It holds if numbers were measured with a reliability above {self.reliability:.2f}. {told}"
        return told

    @property
    def more(self) -> str:
        if self.partial.low is None:
            return UNKNOWN
        return YES if self.partial.low > 0 else NOT_SHOWN

    @property
    def short(self) -> str:
        """The same in few words."""
        return "It carries more than the covariates." if self.more == YES else self.sentence

    @property
    def sentence(self) -> str:
        beside = ", ".join(self.names[:SPOKEN]) or "the covariates"
        beside += f", {len(self.names) - SPOKEN} more" if len(self.names) > SPOKEN else ""
        beside += ", pairs and curves" if len(self.names) > 1 else ""
        needs = f" (reliability > {self.reliability:.2f})" if self.reliability else ""
        return {
            YES: f"It carries more than {beside}{needs}.",
            NOT_SHOWN: "It is not shown to carry more than the covariates.",
            UNKNOWN: "Whether it carries more than covariates cannot be told.",
        }[self.more]


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """`score`: the AUC (`metric`) that the verdict rests on; `why` nothing can be concluded of it, empty if something
    can. `notes` are footnotes of it. `others`: how many other baselines there are, by the model's standing beside
    them. `masked`: the AUC where missingness is masked, and `minus_masked` the score minus it."""

    metric: str
    score: Estimate
    participants: int
    alone: int = 0  # participants whom it compares with nobody
    small_sites: bool = False  # whether only participants of one fold are compared, see `Predictions`
    why: str = ""
    notes: list[str] = field(default_factory=list)
    baseline: Baseline | None = None
    others: dict[str, int] = field(default_factory=dict)
    covariates: Covariates | None = None
    masked: Estimate = UNDEFINED
    minus_masked: Estimate = UNDEFINED

    @property
    def area(self) -> str:
        return HEADLINES[self.metric]

    @property
    def words(self) -> str:
        """The verdict on the score in a few words."""
        if self.why or self.score.low is None or self.score.high is None:
            return UNKNOWN
        if self.score.high < CHANCE_AUC:
            return BELOW
        return ABOVE if self.score.low > CHANCE_AUC else "not shown better than chance"

    @property
    def verdict(self) -> str:
        """What a reader takes away, in at most 60 words."""
        return " ".join(filter(None, [self.of_score, self.of_baselines, *self.of_confounds]))

    @property
    def of_score(self) -> str:
        value, *_ = self.score.numbers
        if self.why:
            known = f" The {self.area} is {value:.2f}." if self.score.value is not None else ""
            return f"Nothing can be concluded: {self.why}.{known}"
        interval = f"{value:.2f} ({INTERVAL} {self.score.ends('.2f')})"
        told = f"{self.area} {interval}, {self.participants} participants."
        does = {BELOW: "does worse", ABOVE: "does better"}.get(self.words, "is not shown to do better")
        advice = (
            " Look for exchanged labels, or for what tells the diagnosis at one site and its opposite at others, such "
            "as missing values."
        )
        return f"The network {does} than chance: {told}{advice if self.words == BELOW else ''}"

    @property
    def of_baselines(self) -> str:
        if self.why or self.words == BELOW:
            return ""
        worse, every = self.others.get(WORSE, 0), sum(self.others.values())
        others = f"; {worse} of {every} others better" if worse else ""
        if self.baseline is None:
            return f"No baseline reads what it reads, so none is pre-specified{others}." if every else ""
        less, lacks = self.baseline.less.text(".3f"), self.baseline.lacks
        its = f"the pre-specified baseline{f' (lacks {join_names(lacks)})' if lacks else ''}"
        where = " in the training's own test" if self.baseline.where else ""
        detectable = self.baseline.detectable if not others and not where else None  # else 60 words are too few
        least = "" if detectable is None else f", minimum detectable {detectable:.3f}"
        told = {
            BETTER: f"It is better than {its}{where}: {less}",
            SAME: f"No difference from {its} is shown{where}: {less}{least}",
            WORSE: f"It is worse than {its}{where}: {less}",
            UNKNOWN: f"Whether it differs from {its} cannot be told{where}",
        }[standing(self.baseline.less)]
        return f"{told}{others}."

    @property
    def of_confounds(self) -> list[str]:
        if self.why or self.words == BELOW:
            return []
        told = ["Covariates are unknown."]
        if self.covariates:
            told = [self.covariates.sentence if self.words == ABOVE else self.covariates.short]
        if self.minus_masked.low is not None:
            told.append(f"Missingness masked: {self.masked.text('.2f', *SHORT)}.")
        return told

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """What the terminal shows."""
        compared = f", {self.alone} of {self.participants} compared with nobody" if self.alone else ""
        words = f"{self.words}: {self.why}" if self.why else f"{self.words}{compared}"
        found = [(self.area, self.score.text(".2f", *SHORT), words)]
        if of := self.baseline:
            lacks = f", which lacks the {join_names(of.lacks)}" if of.lacks else ""
            found.append((f"{NAMED} baseline", of.auc.text(".2f", *SHORT), f"{of.spoken}{lacks}"))
            found.append(("model minus baseline", of.less.text(".3f", *SHORT), of.standing))
        if of_covariates := self.covariates:
            names = join_names(of_covariates.names, NAMES)
            needs = f", if reliability > {of_covariates.reliability:.2f}" if of_covariates.reliability else ""
            beyond = f"partial correlation {of_covariates.partial.text('.2f')} beside {names}"
            more = of_covariates.more
            found.append(
                ("more than covariates", f"{more}{needs}", of_covariates.reason if more == UNKNOWN else beyond)
            )
        else:
            found.append(("more than covariates", UNKNOWN, "no covariates are known"))
        if self.masked.value is not None:
            masked = f"{self.area}, score minus this {self.minus_masked.text('.3f', *SHORT)}"
            found.append(("missingness masked", self.masked.text(".2f", *SHORT), masked))
        return [tuple(map(make_printable, row)) for row in found]

    @property
    def numbers(self) -> list[HeadlineNumber]:
        """The headline of the page."""
        found = [
            HeadlineNumber(self.score.text(".2f", "undefined"), f"{self.area}, {INTERVAL}", self.words, self.notes)
        ]
        if of := self.baseline:
            less = f"model minus this {of.less.text('.3f', 'undefined')}: {of.standing}"
            name = f"{NAMED} baseline, {INTERVAL}: {of.name}"
            found.append(HeadlineNumber(of.auc.text(".2f", "undefined"), name, less, [of.note]))
        return found
