"""Effects of a blackout -> what is concluded of them, as page and figure take it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from data.base.tables import printable
from data.cohorts.records import CLASSES
from utils.blackout import options, sentences
from utils.blackout.effects import Adjusted, Effects
from utils.blackout.families import Blackout, Family, People, Verdict
from utils.blackout.kinds import families_of
from utils.blackout.replication import replication_of
from utils.runs.run import Run
from utils.scores.adjustment import adjustment
from utils.scores.metrics import Predictions, headline, with_intervals
from utils.scores.results import MIN_PER_CLASS, SAME_SCAN, Estimate, Headline


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
    def at_chance(self) -> bool:
        return self.people.verdict is Verdict.CHANCE

    @cached_property
    def first(self) -> list[str]:
        """How well the network predicts, and whether what is named comes out in halves."""
        published = sentences.may_be_published(self.replication, self.run.caveats.unknown_site)
        return [sentences.accuracy_sentence(self.judged), " ".join(published)]

    @cached_property
    def beside(self) -> list[str]:
        """What stands beside every finding: how scans were prepared, and what p is adjusted for."""
        derivation = options.cohort_of(self.run).metadata.derivation
        uncleaned = derivation.uncleaned if derivation else ""
        return [*filter(None, [uncleaned]), sentences.basis_sentence(self.people)]

    @cached_property
    def said(self) -> list[str]:
        """All that is concluded, a text a line."""
        of_families = [*map(sentences.found_sentence, self.families), *(family.note for family in self.families)]
        return [*self.first, *filter(None, of_families), *self.beside]

    @property
    def sample(self) -> str:
        """How many subjects and records the mean is over."""
        subjects, count = len(self.people.label), len(self.effects.rows)
        counted = "1 test participant" if subjects == 1 else f"{subjects} test participants"
        return counted if count == subjects else f"{counted}, {count} records"

    @property
    def title(self) -> str:
        """Model, the name of the cohort, and the warnings that belong beside every result."""
        run = self.run
        cohort = printable(run.data_dir.absolute().name) if run.data_dir else "the demo cohort"
        at_chance = " (MODEL AT CHANCE)" if self.at_chance else ""
        return f"Blackout of {run.model.name} on {cohort}{run.marks}{at_chance}"


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
    rarer = np.bincount(label.astype(int), minlength=len(CLASSES)).min()
    if score.beats_chance is False:
        return Verdict.CHANCE
    if not rarer:
        return Verdict.ONE_CLASS
    if rarer < MIN_PER_CLASS:
        return Verdict.FEW
    return Verdict.OPEN if score.beats_chance else Verdict.UNKNOWN
