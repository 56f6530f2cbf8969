"""`run.py --test --bundle FILE.zip`: a test of the networks of a bundle, with nothing of who trained them at hand."""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from data.base.errors import InputError
from data.cohorts.cohort import Cohort, Standard
from data.cohorts.folds import digest_over
from data.cohorts.resplit import with_phenotype
from data.cohorts.standards import within_sites
from data.cohorts.stored import sealed
from models import MODELS
from utils.bundle.model import SPLIT, Bundle, BundleFolder, Member
from utils.runs.checkpoints import Caveats, Choices
from utils.runs.guards import check
from utils.runs.run import Job, Options, Run
from utils.runs.validate import Request, report, report_simulated


def bundle_of(run: Run) -> Bundle | None:
    """The bundle whose networks do the job; None if those of a checkpoint do."""
    return run.checkpoints.bundle if isinstance(run.checkpoints, BundleFolder) else None


def networks_of(run: Run) -> list[tuple[Run, Any]]:
    """Each network that does the job, and the run on the cohort as this network reads it. TensorFlow must have been
    started."""
    if (bundle := bundle_of(run)) is None:
        from utils.training.inference import restored_network

        return [(run, restored_network(run))]
    members = enumerate(bundle.model.members)
    return [(replace(run, cohort=read_by(of, run.cohort)), network_of(bundle, at, run)) for at, of in members]


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


def bundled_run(asked: Request) -> Run:
    """The test of a bundle. Raises InputError for the first thing that is wrong."""
    bundle = Bundle.open(asked.args.bundle)
    bundle.check_prevalence(asked.args.prevalence)
    out_dir = asked.out_dir(None)
    cohort = sealed(asked.data_dir)
    report_simulated(cohort)
    run = on_cohort(bundle, cohort, asked.job, asked.options, out_dir)
    run = replace(run, data_dir=asked.args.dataDir)
    print("\n".join(bundle.lines()))
    report(run, run.cohort)
    check(run, bundle.identity)
    return run


def on_cohort(bundle: Bundle, cohort: Cohort, job: Job, options: Options, out_dir: Path) -> Run:
    """A job by the networks of a bundle. Raises InputError for a cohort that they cannot read, or that trained them."""
    saved = bundle.identity
    model = MODELS[saved.model]
    config = model.settings(saved.config)
    check_cohort(bundle, cohort, model.inputs(config))
    standard: Standard = getattr(config, "standardise", "stored")
    return Run(
        job=job,
        choices=Choices(**{field.name: getattr(saved, field.name) for field in fields(Choices)}),
        config=config,
        options=options,
        cohort=within_sites(cohort) if standard == "site" else replace(cohort, standard=standard),
        data_dir=cohort.path,
        checkpoints=BundleFolder(bundle.path, "python -m utils.bundle", bundle=bundle),
        out_dir=out_dir,
        num_iters=saved.step,
        cross_validation=saved.internal,
        trained_with=trained_with(bundle),
    )


def trained_with(bundle: Bundle) -> Caveats:
    """What must stand beside whatever its networks say: the caveats of the cohort that trained them."""
    its = bundle.model.caveats
    problems = tuple(f"of the training people: {text}" for text in its.problems)
    return replace(its, problems=problems, transductive=False)


def check_cohort(bundle: Bundle, cohort: Cohort, reads: Sequence[str]) -> None:
    """Raises InputError for a cohort that the networks cannot read, or that trained them, as far as this is known."""
    own, its, like = cohort.connectomes, bundle.like.cohort, f"convert it --like {bundle.path}"
    same = cohort.records_sha256 == bundle.model.records_sha256 and bundle.model.trained_on != SPLIT
    if same or digest_over(sorted(cohort.scans("test"))) == bundle.model.scans_sha256:
        raise InputError(f"{cohort.path} trained {bundle.path}, so that results would be too good; test other people.")
    if "volume" in reads and (cohort.grid, cohort.maps) != (its.grid, its.maps):
        raise InputError(
            f"{cohort.path} has the maps {', '.join(cohort.maps)}, {cohort.grid}; {bundle.path} reads "
            f"{', '.join(its.maps)}, {its.grid}. Use a cohort that has these: {like}."
        )
    if "connectome" in reads and (own is None or its.connectomes is None or own.parcels != its.connectomes.parcels):
        what = "no connectomes" if own is None else "connectomes of other parcels"
        raise InputError(f"{cohort.path} has {what}, which {bundle.path} reads; {like}.")
