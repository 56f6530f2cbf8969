"""Effects of a blackout -> what is concluded of them, as page and figure take it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from data.base.tables import make_printable
from data.base.terminal import format_participants
from data.cohorts.records import CLASS_NAMES
from data.cohorts.rows import SITE_UNKNOWN_SENTENCE
from utils.blackout import options
from utils.blackout.effects import Adjusted, Effects
from utils.blackout.families import Blackout, Family, People, Verdict
from utils.blackout.fills import RELIANCE
from utils.blackout.kinds import families_of
from utils.blackout.replication import EXPECTED, HALVES, MOST, replication_of
from utils.runs.run import Run
from utils.scores.adjustment import adjustment
from utils.scores.metrics import Predictions, headline, with_intervals
from utils.scores.results import ALPHA, CHANCE_AUC, HEADLINES, MIN_CLASS_SUBJECTS, SAME_SCAN, Estimate, Headline

UNEQUAL = 0.4  # share of the rarer class; the case is counted in docs/evidence/blackout_p.csv


@dataclass(frozen=True, eq=False)
class BlackoutResults:
    """All families of a blackout. `judged`: how well the network predicts these subjects. `replication`: as in
    `replication.csv`."""

    run: Run
    effects: Effects
    people: People
    judged: Headline
    families: Sequence[Family]
    replication: pd.DataFrame

    @property
    def is_open(self) -> bool:
        return self.people.verdict is Verdict.OPEN

    @cached_property
    def counted(self) -> pd.DataFrame:
        """A row a family, by the name of its kind: what its things are called, how many there are, how many are
        significant by each tested effect, adjusted and before (`_plain`), how many of those replicate in halves, and in
        repeats if there are some."""
        again, rows = self.replication, list[dict[str, Any]]()
        found = again[(again["thing"] != "") & (again["significant"] == 1) & (again["replicates"] > MOST)]
        times = found.groupby(["between", "family"]).size()
        of_families = again[again["thing"] == ""].set_index(["between", "family"])["expected"]
        for family in self.families:
            row: dict[str, Any] = {"family": family.kind.many, "things": len(family.things)}
            for effect in family.tested:
                row[effect.fill.name] = effect.significant.sum()
                row[f"{effect.fill.name}_plain"] = (effect.plain < ALPHA).sum()
            row[EXPECTED] = row[RELIANCE] * of_families[HALVES, family.kind.name] if row[RELIANCE] else 0.0
            rows.append(row | {of: times.get((of, family.kind.name), 0) for of in again["between"].unique()})
        return pd.DataFrame(rows, [family.kind.name for family in self.families])

    @property
    def verdict(self) -> str:
        """What a reader takes away: how well the network predicts, how much of the first family is significant, and
        of what no list should be published."""
        return f"{self.predicts} {self.people.verdict or self.found} {self.published}"

    @property
    def predicts(self) -> str:
        """Whether the network predicts these participants."""
        auc, name, model = self.judged.score, HEADLINES[self.judged.metric], self.run.model.model_name
        if auc.low is None or auc.high is None:
            known = f"{name} {auc.text('.2f', 'is undefined: all, or all whom it compares, are of one class')}"
            return f"It is not known whether {model} predicts better than chance. {known}."
        if auc.high < CHANCE_AUC:
            said = "ranks participants the wrong way round"
        elif auc.low <= CHANCE_AUC:
            said = "is not shown to predict better than chance"
        else:
            said = "predicts better than chance"
        return f"{model} {said}: {name} {auc.text('.2f')}."

    @property
    def found(self) -> str:
        """How many things of the first family are significant, and replicate."""
        first, again = self.counted.iloc[0], self.replicates(self.families[0])
        count = first[RELIANCE]
        said = f"Of {first['things']:,} {first['family']}, {count or 'none'} {'are' if count > 1 else 'is'} significant"
        return "; ".join(filter(None, [said, again])) + "."

    def replicates(self, family: Family) -> str:
        """How many significant things of a family are so in most halves, too, and how many would be if all were true;
        nothing if none is significant."""
        counted = self.counted.loc[family.kind.name]
        if not counted[RELIANCE]:
            return ""
        expected = f"{counted[EXPECTED]:.1f} expected of true effects"
        return f"{counted[HALVES] or 'none'} also with half of the participants ({expected})"

    @property
    def published(self) -> str:
        """Of what no list or map should be published. What an unknown site, a leak or head motion does is significant,
        too."""
        caveats = self.run.caveats
        if (
            not self.counted[RELIANCE].any()
            or self.uncleaned
            or caveats.unknown_site
            or caveats.problems
            or caveats.accepted_leaks
        ):
            return "No list or map should be published from this."
        return "A list or map should name only what is significant."

    @property
    def uncleaned(self) -> str:
        """A warning if the scans are not known to be cleaned of confounds, or nothing."""
        derivation = options.cohort_of(self.run).metadata.derivation
        return derivation.uncleaned_warning if derivation else ""

    @property
    def cautions(self) -> list[str]:
        """What stands beside every number."""
        rarer = min(self.people.label.mean(), 1 - self.people.label.mean())
        told = [self.uncleaned]
        told.append(f"{SITE_UNKNOWN_SENTENCE}." if self.run.caveats.unknown_site else "")
        if self.people.verdict is not Verdict.ONE_CLASS and not self.people.adjusted.beside.covariates:
            told.append(f"No p is adjusted for covariates: {self.people.adjusted.beside.reason}.")
        if 0 < rarer < UNEQUAL:
            told.append(
                f"Only {rarer:.0%} are of one class: if their effects are skewed and vary much more than the others', "
                "p is too small."
            )
        return [*filter(None, told)]

    @property
    def notes(self) -> list[str]:
        """What `run.json` says beside the verdict."""
        return [*self.cautions, *(text for family in self.families for text in family.notes.values())]

    @property
    def sample(self) -> str:
        """How many subjects and records the mean is over."""
        subjects, count = len(self.people.label), len(self.effects.rows)
        told = format_participants(subjects, "test")
        return told if count == subjects else f"{told}, {count} records"

    @property
    def title(self) -> str:
        """Model, the name of the cohort, and the warnings that belong beside every result."""
        run = self.run
        cohort = make_printable(run.data_dir.absolute().name) if run.data_dir else "the demo cohort"
        at_chance = " (MODEL AT CHANCE)" if self.people.verdict is Verdict.CHANCE else ""
        return f"Blackout of {run.model.model_name} on {cohort}{run.marks}{at_chance}"


def concluded(
    run: Run, effects: Effects, fold: Sequence | None = None, repeats: Sequence[Effects] = ()
) -> BlackoutResults:
    """The results of effects. `fold` (records,) names the model that blacked out each record, if there are several; of
    repeats, in the first. `repeats` are the effects that these are the means of."""
    effects = replace(effects, groups=run.cohort.groups)
    scores = scores_of(effects, fold, run.seed)
    judged = Headline(headline(scores), scores[headline(scores)])
    people = people_of(run, effects, fold, judged.score)
    families = families_of(Blackout(run, effects, people))
    others = (families_of(Blackout(run, replace(one, groups=effects.groups), people)) for one in repeats)
    return BlackoutResults(run, effects, people, judged, families, replication_of(families, others))


def scores_of(effects: Effects, fold: Sequence | None, seed: int) -> dict[str, Estimate]:
    """How well the network predicts the people who were blacked out."""
    columns = {"label": effects.label, "probability": effects["probability"], "subject": effects.subject}
    columns |= {"site": [row.site for row in effects.rows], SAME_SCAN: effects.first}
    columns |= {} if fold is None else {"fold": list(fold)}
    return with_intervals(Predictions.of(pd.DataFrame(columns)), seed)


def people_of(run: Run, effects: Effects, fold: Sequence | None, score: Estimate) -> People:
    """The subjects of effects, and whether anything is concluded of them."""
    label, (_, first) = effects.of_subjects(effects.label), np.unique(effects.subject, return_index=True)
    known = options.covariates_of(run.cohort, effects.rows)
    site = np.array([effects.rows[at].site for at in first])
    return People(
        label=label,
        site=site,
        fold=np.array(["" if fold is None else fold[at] for at in first]),
        unit=effects.unit,
        adjusted=Adjusted(adjustment(known, site), label),
        seed=run.seed,
        verdict=verdict(label, score),
        twice=fold is not None and len(set(fold)) > 1,
    )


def verdict(label: np.ndarray, score: Estimate) -> Verdict:
    """Whether anything is concluded of people with these labels, whom a network predicts so well."""
    rarer = np.bincount(label.astype(int), minlength=len(CLASS_NAMES)).min()
    if score.beats_chance is False:
        return Verdict.CHANCE
    if not rarer:
        return Verdict.ONE_CLASS
    if rarer < MIN_CLASS_SUBJECTS:
        return Verdict.FEW
    return Verdict.OPEN if score.beats_chance else Verdict.UNKNOWN
