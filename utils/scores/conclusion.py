"""What a test shows: one record, in `run.json`, from which the terminal, the page and the card of a bundle speak."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from data.base.tables import printable
from data.cohorts.records import CLASSES
from data.cohorts.rows import SITE_IS_UNKNOWN, listed
from data.pages.page import Number
from utils.figures import number
from utils.scores.metrics import HEADLINES
from utils.scores.results import CHANCE, INTERVAL, MIN_PER_CLASS, NAMED, UNDEFINED, Estimate

UNLABELLED = "No diagnosis is known, so nothing can be concluded about how good the predictions are."
OF_FOLD = "What counts is the result of all folds together."
BETTER, SAME, WORSE, UNKNOWN = "better", "no difference shown", "worse", "cannot be told"
ABOVE, BELOW = "better than chance", "worse than chance"
YES, NOT_SHOWN = "yes, as measured", "not shown"
NAMES = 3  # in a row of the terminal


def standing(less: Estimate) -> str:
    """What an AUC minus another one says of the first."""
    if less.low is None or less.high is None:
        return UNKNOWN
    return BETTER if less.low > 0 else WORSE if less.high < 0 else SAME


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
        return f"{standing(self.less)}{', in the training' if self.where else ''}"

    @property
    def note(self) -> str:
        """How it differs from the network, or where it was fitted."""
        if self.where:
            return f"No baseline could be fitted for these participants: this is that {self.where}."
        differs = [f"does not read the {listed(self.lacks)}"] if self.lacks else []
        differs += [f"also reads the {listed(self.besides)}"] if self.besides else []
        told = f"It {' and '.join(differs)}; no baseline reads just what the network reads." if differs else ""
        return told or "It reads what the network reads, and was named before any score was known."


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Whether the output says more of the diagnosis than covariates do: the `partial` correlation of both beside these
    `names`, and its p; or the `reason` why it cannot be computed. `left_out`: how many are not in the test, since
    their site has one class. `motion`: the correlation of output and head motion."""

    names: list[str] = field(default_factory=list)
    partial: Estimate = UNDEFINED
    p: float | None = None
    reason: str = ""
    left_out: int = 0
    motion: Estimate = UNDEFINED

    @property
    def more(self) -> str:
        if self.partial.low is None:
            return UNKNOWN
        return YES if self.partial.low > 0 else NOT_SHOWN

    @property
    def sentence(self) -> str:
        return {
            YES: "It carries more than the covariates tested, as measured.",
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
    sites: int  # known ones
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
        if self.score.high < CHANCE:
            return BELOW
        return ABOVE if self.score.low > CHANCE else "not shown better than chance"

    @property
    def verdict(self) -> str:
        """What a reader takes away, in at most 60 words."""
        return " ".join(filter(None, [self.of_score, self.of_baselines, *self.of_confounds]))

    @property
    def of_score(self) -> str:
        if self.why:
            known = f" The {self.area} is {number(self.score.value, '.2f')}." if self.score.value is not None else ""
            return f"Nothing can be concluded: {self.why}.{known}"
        value, *_ = self.score.numbers
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
        if self.baseline is None:
            return "No baseline reads what it reads, so none is pre-specified." if self.others else ""
        less = self.baseline.less.text(".3f")
        told = {
            BETTER: f"It is better than the pre-specified baseline{{}}: {less}",
            SAME: f"No difference from the pre-specified baseline is shown{{}}: {less}",
            WORSE: f"It is worse than the pre-specified baseline{{}}: {less}",
            UNKNOWN: "Whether it differs from the pre-specified baseline cannot be told{}",
        }[standing(self.baseline.less)]
        told = told.format(" in the training's own test" if self.baseline.where else "")
        worse, every = self.others.get(WORSE, 0), sum(self.others.values())
        others = f"; {worse} of {every} others {'is' if worse == 1 else 'are'} better" if worse else ""
        return f"{told}{others}."

    @property
    def of_confounds(self) -> list[str]:
        if self.why or self.words == BELOW:
            return []
        told = [self.covariates.sentence if self.covariates else "Covariates are unknown."]
        if self.minus_masked.low is not None:
            told.append(f"With missingness masked: {self.masked.text('.2f')}.")
        return told

    def rows(self, **told: Sequence[str]) -> list[tuple[str, ...]]:
        """What the terminal shows; of what is `told`, such as problems, how many there are, and the first."""
        found = [(self.area, self.score.text(".2f", "undefined"), self.words)]
        if self.why:
            found.append(("", "", self.why))
        if of := self.baseline:
            found.append((f"{NAMED} baseline", of.auc.text(".2f", "undefined"), of.spoken))
            found.append(("model minus baseline", of.less.text(".3f", "undefined"), of.standing))
        if of_covariates := self.covariates:
            names = listed(of_covariates.names, NAMES)
            beyond = f"partial correlation {of_covariates.partial.text('.2f')} beside {names}"
            more = of_covariates.more
            found.append(("more than covariates", more, of_covariates.reason if more == UNKNOWN else beyond))
        else:
            found.append(("more than covariates", UNKNOWN, "no covariates are known"))
        if self.masked.value is not None:
            masked = f"{self.area}, score minus this {self.minus_masked.text('.3f', 'undefined')}"
            found.append(("missingness masked", self.masked.text(".2f", "undefined"), masked))
        found += [(name, str(len(texts)), texts[0]) for name, texts in told.items() if texts]
        return [tuple(map(printable, row)) for row in found]

    @property
    def numbers(self) -> list[Number]:
        """The headline of the page."""
        found = [Number(self.score.text(".2f", "undefined"), f"{self.area}, {INTERVAL}", self.words, self.notes)]
        if of := self.baseline:
            less = f"model minus this {of.less.text('.3f', 'undefined')}: {of.standing}"
            name = f"{NAMED} baseline, {INTERVAL}: {of.name}"
            found.append(Number(of.auc.text(".2f", "undefined"), name, less, [of.note]))
        return found


def why_not(score: Estimate, metric: str, fewest: int, small_sites: bool, tied: bool) -> str:
    """Why nothing can be concluded of a score; `fewest`: participants of the rarer class; `tied`: whether some are
    relatives or share a scan. Empty if something can."""
    if score.value is None and not fewest:
        return f"the test participants are of one class, not of {listed(CLASSES)}"
    if score.value is None:
        where = " of a fold" if small_sites else ""
        return (
            f"at each site all test participants{where} have the same diagnosis, and a network that tells sites apart "
            "would seem to tell diagnoses"
        )
    if score.low is None:
        once = " (a family, or participants who share a scan, count once)" if tied else ""
        both = f" at sites{' and folds' if small_sites else ''} that have both" if metric == "auc_sites" else ""
        return f"an interval needs {MIN_PER_CLASS} participants of each class{once}{both}"
    return ""


def notes_of(
    metric: str,
    small_sites: bool,
    one_class: int,
    participants: int,
    new_sites: bool | None,
    unknown_site: bool,
    repeats: int,
) -> list[str]:
    """Footnotes of a score: whom it compares, and what it does not say. `one_class`: participants who are compared with
    nobody; `new_sites`: whether each site was tested by a model that had not seen it, None without folds."""
    found = [f"{SITE_IS_UNKNOWN}."] if unknown_site else []
    if metric == "auc_sites" and small_sites:
        alone = f" {one_class} of {participants} have nobody of the other class there." if one_class else ""
        found.append(
            "Sites have few participants of a class, and a model that has seen some of such a site predicts the others "
            f"in the wrong direction: only those of the same site and fold are compared.{alone}"
        )
    elif metric == "auc_sites":
        alone = f" {one_class} of {participants} are at sites of one class, and not in it." if one_class else ""
        found.append(f"Compares participants of the same site, averaged over sites.{alone}")
        if new_sites is not None:
            found.append(
                "Each site was tested by a model that had not seen it."
                if new_sites
                else "Participants of the tested sites were in the training: this says nothing of a new site."
            )
    elif metric == "auc_folds":
        found.append("Compares participants whom the same model tested, averaged over folds.")
    return [*found, *([f"The mean over {repeats} repeats."] if repeats > 1 else [])]
