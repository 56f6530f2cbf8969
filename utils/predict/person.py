"""One person's maps, phenotype and series -> a cohort of one in a temporary folder -> what networks of a bundle say.

The files are converted as `abide-data convert --like BUNDLE` does, and predicted as `run.py --test --bundle` does.
Regions are then replaced in turn by the background: the blackout that needs nobody else.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from data.base.errors import InputError
from data.base.terminal import quietly
from data.cohorts import records
from data.cohorts.atlas import load_atlas
from data.cohorts.cohort import Cohort
from data.cohorts.rows import listed
from data.cohorts.stored import sealed
from data.conversion.convert import convert_like
from data.conversion.edges import lacking_parcels
from data.likeness.reference import compared
from utils.blackout.edges import edges_of_regions, regions_of_parcels
from utils.blackout.options import CONNECTOME
from utils.bundle.model import Bundle
from utils.bundle.run import (
    LEVEL,
    NOT_COMPARED,
    PersonPrediction,
    labels_of,
    networks_of,
    on_cohort,
    predictions_of,
    promises_of,
)
from utils.jobs import TEST
from utils.machines.devices import start_on_cpu
from utils.predict.given import Given, linked, naming, source_of
from utils.runs.checkpoints import Caveats
from utils.runs.run import Options, Run

PROGRAM = "abide-predict"
MEANING = ("this person is unlike both classes", "", "this person could be of either")  # by the number of labels


@dataclass(frozen=True)
class Predicted:
    """What is said of a person: `unlike`, reasons why training people were otherwise, None if that is not known;
    `effects` (regions,) of a blackout by the background on the logit of autism, None if no volume is read; `notes`;
    `doubt`, why all this may be chance."""

    person: PersonPrediction
    networks: int
    unlike: tuple[str, ...] | None
    effects: np.ndarray | None
    notes: tuple[str, ...]
    caveats: Caveats
    doubt: str = ""

    @property
    def marks(self) -> str:
        return self.caveats.marks

    def lines(self) -> list[str]:
        """For a terminal."""
        return [f"For research, not a diagnosis{self.marks}.", *self.prediction, self.likeness, *self.notes]

    @property
    def prediction(self) -> list[str]:
        """In sentences; of networks that are not shown to be better than chance no number and no region."""
        person = self.person
        if self.doubt:
            return [self.doubt, "So no probability, set of labels or region is shown; the other files hold them."]
        if person.probability is None:
            return [f"Probability of autism, not calibrated: {person.raw:.2f}."]
        labels = f"{labels_of(person)}{', so that ' if self.meaning else ''}{self.meaning}"
        single = f", of single networks {self.range}" if self.range else ""
        return [
            f"Probability of autism: {person.probability:.2f} (before calibration {person.raw:.2f}{single}).",
            f"Set of labels at {LEVEL:.0%}, however common autism is: {labels}.",
        ]

    @property
    def meaning(self) -> str:
        """What the size of the set of labels says, where it is not one."""
        return MEANING[len(self.person.labels or ())] if self.person.labels is not None else ""

    @property
    def range(self) -> str:
        """The calibrated probabilities of single networks, if there are several."""
        known = self.networks > 1 and self.person.low is not None
        return f"{self.person.low:.2f} to {self.person.high:.2f}" if known else ""

    @property
    def likeness(self) -> str:
        """Whether the person is like the training people."""
        if self.unlike is None:
            return NOT_COMPARED
        if self.unlike:
            return f"UNLIKE the training people, so do not rely on this: {'; '.join(self.unlike)}."
        return "Nothing looked at is unlike the training people."


def predicted(bundle: Bundle, given: Given, prevalence: float | None) -> Predicted:
    """Raises InputError for files or values that the bundle cannot read, or if it cannot predict one person alone."""
    check_alone(bundle)
    bundle.check_prevalence(prevalence)
    links = linked(bundle, given)
    with TemporaryDirectory() as place, quietly():
        folder = Path(place)
        with naming(links, folder / "source"):
            source, notes = source_of(bundle, given, links, folder / "source")
            convert_like(source, folder / "cohort", bundle.like, PROGRAM)
        cohort = sealed(folder / "cohort")
        notes += lacking(cohort)
        run = on_cohort(bundle, cohort, TEST, Options(), folder / "results")
        each, effects = measured(run)
        reasons = compared(bundle.reference, cohort, [0]).reasons[0] if bundle.reference else None
    (person,) = predictions_of(bundle.calibration, each, prevalence)
    notes += [note for note in bundle.notes if note != bundle.doubt]
    notes += [] if bundle.doubt else [promises_of(bundle.calibration, prevalence)]
    return Predicted(person, len(each), reasons, effects, tuple(notes), run.caveats, bundle.doubt)


def lacking(cohort: Cohort) -> list[str]:
    """A note on parcels in which the series of the one person have no signal."""
    if not (known := cohort.connectomes):
        return []
    names = [known.parcels[at] for at in lacking_parcels(known[[0]][0], known.pairs)]
    of = f"{len(names)} of {len(known.parcels)} parcels"
    return [f"The series have no signal in {of}, so that their edges are unknown: {listed(names)}."] if names else []


def check_alone(bundle: Bundle) -> None:
    """Raises InputError for networks that read people of one site together."""
    if bundle.model.config.get("standardise") == "site":
        raise InputError(
            f"{bundle.path} standardises the maps of a person by those of others of the same site (standardise=site), "
            "so that it predicts nobody alone; use run.py --test --bundle on people of one site."
        )


def measured(run: Run) -> tuple[np.ndarray, np.ndarray | None]:
    """The probabilities of autism by each network (networks, 1), and the mean effects of a blackout (regions,)."""
    start_on_cpu()
    from utils.training.network import (  # TensorFlow, once nothing is wrong with the files
        outputs_of,
        probability_of_autism,
    )

    each, effects = [], []
    with run.fresh():
        for of_network, network in networks_of(run):
            ((_, _, logits),) = outputs_of(of_network, network, [np.array([0])])
            each.append(probability_of_autism(logits))
            if "volume" in run.model.reads:
                effects.append(background_effects(network, of_network.cohort))
    return np.stack(each), np.mean(effects, axis=0) if effects else None


def background_effects(network: Any, cohort: Cohort) -> np.ndarray:
    """How far the logit of autism of the first record falls with each region of AAL replaced, (regions,) float64. All
    maps are replaced, and edges unknown. Positive: the region speaks for autism."""
    from utils.blackout.occlusion import Occlusion
    from utils.training.network import logit_of_autism

    atlas, occlusion = load_atlas(None, cohort.grid), Occlusion(network)
    batch = cohort.batch([0], tables={CONNECTOME: cohort.connectomes} if occlusion.edges else {})
    kept = occlusion.keep(batch)
    outside = [records.background(values) for values in np.moveaxis(batch["volume"][0], -1, 0)]
    fill = np.array(outside, np.float32)[None, None, None, None]
    masks = [atlas.labels == region for region in atlas.regions]
    shown = logit_of_autism(occlusion.logits(kept))
    effects = shown - logit_of_autism(occlusion.occluded_logits(kept, fill, masks))[:, 0]
    if occlusion.edges is None or cohort.connectomes is None:
        return effects
    region_of = regions_of_parcels(cohort.connectomes, atlas)
    replaced = np.repeat(batch[CONNECTOME], len(masks), axis=0)
    for row, own in zip(replaced, edges_of_regions(region_of, cohort.connectomes.pairs, len(masks)), strict=True):
        row[own] = np.nan
    return effects + (logit_of_autism(occlusion.edges(batch[CONNECTOME])) - logit_of_autism(occlusion.edges(replaced)))
