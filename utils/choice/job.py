"""The choice within one fold: candidates and the fold's training subjects -> who does best in inner folds.

`inner.json` holds what each candidate predicts of the subjects of an inner fold, by networks that never saw them; it
grows with each training, so a run that is killed goes on where it was. `run.json` says who was chosen.

The choice is by successive halving (Jamieson & Talwalkar 2016, AISTATS). All candidates are compared on the first two
inner folds, the better half of them on twice as many, and so on; the last two on all. Only training people are looked
at, so this can cost a good candidate, but no honesty.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from data.base import files
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts.cohort import Cohort
from data.cohorts.folds import InnerFolds, inner_folds
from utils.runs.folders import described
from utils.runs.group import Group
from utils.runs.run import Job, Options, Run
from utils.scores.metrics import HEADLINES, Predictions, headline_of
from utils.scores.results import Estimate, Headline

STORE = "inner.json"
FIRST = 2  # inner folds on which all candidates are compared
LAST = 2  # candidates that are compared on all inner folds
Score = Callable[[str, Sequence[str]], float]  # of a candidate on these inner folds
Predicted = dict[str, float]  # probability of autism by file


@dataclass(frozen=True)
class Rung:
    """The scores of candidates that were compared on so many inner folds; the best ones stay."""

    folds: int
    scores: dict[str, float]

    @property
    def ranked(self) -> list[str]:
        """The best first; of equal ones the one that the user named first."""
        return sorted(self.scores, key=lambda name: -self.scores[name])


def halve(candidates: Sequence[str], folds: Sequence[str], score: Score) -> list[Rung]:
    """The rungs; the best of the last one, which compares the best two or more on all folds, is chosen."""
    left, used, rungs = list(candidates), min(FIRST, len(folds)), []
    while True:
        rungs.append(Rung(used, {name: score(name, folds[:used]) for name in left}))
        if used == len(folds):
            return rungs
        better = rungs[-1].ranked[: max(LAST, math.ceil(len(left) / 2))]
        left = [name for name in left if name in better]
        used = len(folds) if len(left) == LAST else min(2 * used, len(folds))


def trainings(candidates: int, folds: int) -> int:
    """How many trainings `halve` needs."""
    names = [str(number) for number in range(candidates)]
    rungs = halve(names, [str(number) for number in range(folds)], lambda *_: 0.0)
    used = {name: rung.folds for rung in rungs for name in rung.scores}
    return sum(used.values())


@dataclass(frozen=True)
class ChoiceOptions(Options):
    """`contenders` are the trainings of the candidates on one fold."""

    contenders: dict[str, Run]

    @property
    def cost(self) -> int:
        return trainings(len(self.contenders), EFFORT.inner_folds)


CHOOSE = Job(
    name="choose",
    help="compare candidates in inner folds",
    module="utils.choice.job",
    guards=(),
    outputs=(STORE,),
    needs_checkpoint=False,
    kept=STORE,
)


@dataclass(frozen=True)
class Chosen:
    """The candidate that was chosen, and the rungs that led to it."""

    name: str
    rungs: list[Rung]
    metric: str  # of the scores

    @property
    def scores(self) -> dict[str, float]:
        """The last score of each candidate."""
        return {name: score for rung in self.rungs for name, score in rung.scores.items()}


@dataclass(frozen=True)
class Store:
    """Predictions by candidate and inner fold, kept in a file if there is a `path`."""

    path: Path | None = None
    found: dict[str, dict[str, Predicted]] = field(default_factory=dict)

    def add(self, name: str, fold: str, predicted: Predicted) -> None:
        self.found.setdefault(name, {})[fold] = predicted
        if self.path:
            files.write_json(self.path, self.found)


def choose(run: Run) -> int:
    """Writes `inner.json` and who was chosen; returns the exit status."""
    kept = {} if run.override or not run.continues() else read_store(run.out_dir / STORE)
    if kept:
        run.write_manifest(finished=False)
    else:
        run.prepare_folder()
    assert isinstance(run.options, ChoiceOptions)
    contenders = {name: one.on(run.workers) for name, one in run.options.contenders.items()}
    chosen = choice(contenders, Store(run.out_dir / STORE, kept))
    title = f"{chosen.name} chosen, {HEADLINES[chosen.metric]} of inner folds (no interval)"
    run.finish(Headline(title, Estimate(chosen.scores[chosen.name], None, None)), chosen=asdict(chosen))
    return 0


def pool(group: Group) -> None:
    """Records that all folds have a choice."""
    group.whole.finish()


def choice(contenders: dict[str, Run], store: Store) -> Chosen:
    """Who of the candidates, which are runs that train on one fold, does best in inner folds of its training people."""
    from utils.training.fit import predicted

    first = next(iter(contenders.values()))
    assert first.folds
    inner = inner_folds(first.folds, first.cohort, first.seed)
    done = sum(map(len, store.found.values()))
    with progress("Choosing", trainings(len(contenders), len(inner.names)), done) as shown:

        def score(name: str, folds: Sequence[str]) -> float:
            for fold in folds:
                if fold not in store.found.get(name, {}):
                    run = contenders[name]
                    store.add(name, fold, predicted(replace(run, cohort=inner.cohort(fold, run.cohort))))
                    shown.advance(f"{name}, inner fold {fold}")
            return scored(inner, store.found[name], folds)[1]

        rungs = halve(list(contenders), inner.names, score)
    name = rungs[-1].ranked[0]
    return Chosen(name, rungs, scored(inner, store.found[name], inner.names[: rungs[-1].folds])[0])


def read_alike(run: Run, cohort: Cohort) -> Run:
    """The run on another cohort of the same records, whose volumes are read as before."""
    own = run.cohort
    cohort = cohort if own.connectomes else cohort.without_connectomes
    cohort = replace(cohort, standard=own.standard, moments=own.moments, kept_in=own.kept_in)
    return replace(run, cohort=cohort)


def scored(inner: InnerFolds, found: dict[str, Predicted], folds: Sequence[str]) -> tuple[str, float]:
    """The AUC that a verdict would rest on, by its name, of predictions in these inner folds."""
    rows = [row for row in inner.outer.rows if row.subject in inner.fold_of]
    label, subject, site = (np.array([getattr(row, of) for row in rows]) for of in ("label", "subject", "site"))
    fold_of = np.array([inner.fold_of[row.subject] for row in rows])
    values = np.array([found.get(of, {}).get(row.file, np.nan) for row, of in zip(rows, fold_of, strict=True)])
    return headline_of(Predictions(label, values, subject, fold_of, site).subset(np.isin(fold_of, folds)))


def read_store(path: Path) -> dict[str, dict[str, Predicted]]:
    """What an interrupted run has kept; nothing if there is no such file or it is damaged."""
    try:
        return files.read_json(path, dict[str, dict[str, Predicted]]) if path.is_file() else {}
    except InputError:
        return {}


def read_choice(run: Run) -> Chosen:
    """The choice of a fold that is done."""
    return files.typed(files.json_text(described(run.out_dir)["chosen"]), Chosen)
