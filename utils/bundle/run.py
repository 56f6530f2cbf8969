"""`run.py --test --bundle FILE.zip`: a test of the networks of a bundle, with nothing of who trained them at hand."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from data.base.errors import InputError
from data.cohorts.cohort import Cohort, identified, open_cohort
from data.cohorts.resplit import with_phenotype
from data.cohorts.twins import kept_together
from models import MODELS
from utils.bundle.model import SPLIT, Bundle, BundleFolder, Member
from utils.runs.caveats import Caveats
from utils.runs.folded import fields_of
from utils.runs.run import Run
from utils.runs.validate import Request, check, report, report_simulated


@dataclass(frozen=True, kw_only=True)
class BundledRun(Run):
    """A job by the networks of a bundle."""

    bundle: Bundle

    @property
    def networks(self) -> Iterator[tuple[Run, Any]]:
        """Each network, and the run on the cohort as this network reads it. TensorFlow must have been started."""
        for number, member in enumerate(self.bundle.model.members):
            yield replace(self, cohort=read_by(member, self.cohort)), network_of(self.bundle, number, self)

    @cached_property
    def caveats(self) -> Caveats:  # type: ignore[override]
        """Those of this cohort, and of the one that trained the networks."""
        own, its = super().caveats, self.bundle.model.caveats
        return Caveats(
            simulated=own.simulated or its.simulated,
            problems=(*own.problems, *(f"of the training people: {text}" for text in its.problems)),
            accepted_leaks=tuple(dict.fromkeys([*own.accepted_leaks, *its.accepted_leaks])),
            shuffled_labels=own.shuffled_labels or its.shuffled_labels,
            transductive=own.transductive,
        )


def read_by(member: Member, cohort: Cohort) -> Cohort:
    """The cohort, with the phenotype as a network reads it."""
    return with_phenotype(cohort, member.phenotype_scale, member.phenotype_shift) if member.phenotype_scale else cohort


def network_of(bundle: Bundle, number: int, run: Run) -> Any:
    """A trained network of a bundle. Raises InputError if its weights are of another network."""
    network = run.model.build(run.config, run.cohort)
    weights = bundle.weights(number)
    if [values.shape for values in weights] != [values.shape for values in network.weights]:
        raise bundle.of_another_network()
    network.set_weights(weights)
    return network


def with_model(args: argparse.Namespace, given: set[str]) -> None:
    """Sets the model to that of the bundle. Raises InputError if the user names another, or what a bundle decides."""
    model = Bundle.open(args.bundle).model.model
    if "model" in given and args.model != model:
        raise InputError(f"{args.bundle} is of {model}, not {args.model}; leave --model out.")
    for name in ("folds", "choose", "repeats", "everybody", "preset", "set", "chkPointDir", "permutations"):
        if name in given:
            raise InputError(f"--{name} is not for --bundle, which holds trained networks; leave it out.")
    args.model = model


def bundled_run(asked: Request) -> BundledRun:
    """Raises InputError for the first thing that is wrong."""
    bundle = Bundle.open(asked.args.bundle)
    folder, saved = BundleFolder(bundle.path, "python -m utils.bundle", bundle), bundle.identity
    out_dir = asked.out_dir(saved)
    cohort = kept_together(identified(open_cohort(asked.data_dir)))
    report_simulated(cohort)
    check_cohort(bundle, cohort)
    run = asked.run(folder, saved, cohort, out_dir)
    own = {"cohort": replace(run.cohort, kept_in=None), "internal": bundle.model.internal, "bundle": bundle}
    bundled = BundledRun(**fields_of(run) | own)
    print("\n".join(bundle.lines()))
    report(bundled, bundled.cohort)
    check(bundled, saved)
    return bundled


def check_cohort(bundle: Bundle, cohort: Cohort) -> None:
    """Raises InputError for the cohort that trained the networks, as far as that can be known."""
    if cohort.records_sha256 == bundle.model.records_sha256 and bundle.model.trained_on != SPLIT:
        raise InputError(f"{cohort.path} trained {bundle.path}, so that results would be too good; test other people.")
    needs = MODELS[bundle.model.model].inputs(MODELS[bundle.model.model].settings(bundle.model.config))
    its, own = bundle.like.cohort.connectomes, cohort.connectomes
    if "connectome" in needs and its is not None and own is not None and its.parcels != own.parcels:
        raise InputError(f"{cohort.path} has connectomes of other parcels than {bundle.path}; convert it --like that.")
