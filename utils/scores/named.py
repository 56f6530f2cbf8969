"""Names of baselines and what a network reads -> the baseline that the verdict rests on, named before any score is
known."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.scores.baselines import CONNECTOME, LOGISTIC, MEAN, PARTS, RIDGE, SVM
from utils.scores.results import MAJORITY, NAMED, OTHER

READ = {"covariates": "covariates", "phenotype": "phenotype", "regions": "maps", CONNECTOME: "connectome"}  # by word
OF_ALL = ("covariates", "phenotype", "regions")  # what baselines of `all` read, if there are baselines of these alone
STRONGEST = (PARTS, MEAN, SVM, RIDGE, LOGISTIC)  # of classifiers of the same features, the one to be named first


@dataclass(frozen=True)
class NamedBaseline:
    """A baseline, what it `lacks` of what the network reads, and what it reads `besides`."""

    name: str
    lacks: list[str]
    besides: list[str]


def named(baselines: Sequence[str], inputs: Sequence[str]) -> NamedBaseline | None:
    """The one of the baselines that reads what a network with these inputs reads. If there are several, the STRONGEST
    classifier; if there is none, the one that lacks the fewest inputs, and of these the one that reads the least
    besides. None if no baseline reads any of the inputs."""
    wanted = ["maps" if name == "volume" else name for name in inputs]
    parts = {baseline: baseline.partition(", ") for baseline in baselines}
    of_all = [kind for kind, *_ in parts.values() if kind in OF_ALL]
    places = {name: place for place, name in enumerate(STRONGEST)}
    found = []
    for baseline, (kind, _, classifier) in parts.items():
        words = " ".join(of_all) if kind == "all" else kind
        reads = [of for word, of in READ.items() if word in words]
        lacks, besides = [of for of in wanted if of not in reads], [of for of in reads if of not in wanted]
        if len(lacks) < len(wanted):
            order = len(lacks), len(besides), places.get(classifier, len(places))
            found.append((order, NamedBaseline(baseline, lacks, besides)))
    return min(found, key=lambda one: one[0])[1] if found else None


def roles(rows: Sequence[str], inputs: Sequence[str]) -> dict[str, str]:
    """Of the rows of `baselines.csv` that are baselines, which is pre-specified, and which are the others."""
    baselines = [name for name in rows if name != MAJORITY]
    first = named(baselines, inputs)
    return {name: NAMED if first and name == first.name else OTHER for name in baselines}
