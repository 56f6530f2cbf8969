"""abide-data: everything that is done to cohorts before a model sees them."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.base.cli import Parser, add_options, flag_of, guarded, options_of, positive, seed
from data.base.errors import InputError
from data.base.files import check_new
from data.base.terminal import Fact, joined, participants, print_facts, start
from data.conversion.options import ConversionOptions, SourceOptions
from data.derivation.options import DerivationOptions

if TYPE_CHECKING:
    from data.conversion.plan import PlannedCohort

DECIDED_BY_LIKE = (
    *("maps", "connectome", "parcels", "grid", "phenotype", "covariates"),
    *("seed", "keepSplit", "keepDuplicates", "allowLeak"),
)  # options of convert
EXAMPLES = {
    "derive": {
        "four maps and the series of an atlas, of what fMRIPrep left": "fmriprep maps "
        "--maps falff,alff,reho,degree_weighted --series atlas.nii.gz --jobs 4",
        "who that would be; nothing is written": "fmriprep maps --dryRun",
        "new participants, as those of a cohort": "new_fmriprep new_maps --like cohort",
    },
    "convert": {
        "maps and connectomes for mmnn": "maps cohort --grid reduced --maps all --connectome seg-atlas "
        "--labelColumn group --positive ASD",
        "who that would be; nothing is written": "maps cohort --grid reduced --dryRun",
        "children of two sites of ABIDE": "abide cohort --where \"AGE_AT_SCAN < 18 and SITE_ID in ('NYU', 'USM')\"",
    },
    "check": {
        "what is wrong with a cohort": "cohort",
        "maps before they are converted, as a page": "maps --html check.html",
    },
    "swap": {
        "ten more records for each training record": "cohort larger",
        "fewer, with more regions swapped": "cohort larger --copies 3 --regions 20",
    },
    "pack": {
        "chunks that can be sent": "cohort packed --zip",
        "a file a record again": "packed cohort --bin",
        "with the values of edited tables": "cohort corrected --tables edited",
    },
    "export": {
        "the volume of a participant": "cohort 51572 51572.nii.gz",
        "one of several maps": "cohort 51572 51572_reho.nii.gz --map reho",
    },
}


def convert(args: argparse.Namespace) -> int:
    options, source_options = options_of(args, ConversionOptions), options_of(args, SourceOptions)
    if args.like and (taken := [name for name in DECIDED_BY_LIKE if getattr(args, name) not in (None, False)]):
        raise InputError(f"--{taken[0]} does not go with --like: all is as in {args.like}. Leave it out.")
    check_new(args.cohort)
    from data import check as checks
    from data.cohorts.stored import open_cohort
    from data.conversion import convert as conversion
    from data.conversion.source import read_source
    from data.conversion.template import TemplateCohort

    like, likeness = TemplateCohort.of(args.like) if args.like else None, None
    if like:
        from data.likeness.reference import parts_like

        likeness = partial(parts_like, like)
    source = read_source(args.source, source_options, like)
    print_facts(joined(source.facts))
    command, target = shlex.join(["abide-data", *sys.argv[1:]]), None if options.dry_run else args.cohort
    planned, facts = conversion.convert(source, target, options, command, like, likeness)
    print_facts(joined([*of_columns(planned), *facts]))
    if options.dry_run:
        from data.conversion.preview import preview

        print_facts(preview(source, planned, args.cohort))
        return 0
    findings = checks.full_and_stored(open_cohort(args.cohort))
    people = "; ".join([f"{len(planned.rows)} records", *findings.participants.counts])
    written = f"{args.cohort}: {people}"
    print_facts([("cohort", written), *findings.judged(args.cohort), ("checked", findings.conclusion)])
    return 1 if findings.every("problems") else 0


def of_columns(planned: "PlannedCohort") -> Iterator[Fact]:
    """Covariates, what became of texts, and the value that separates labels best."""
    from data.cohorts import covariates
    from data.cohorts.records import CLASSES
    from data.cohorts.rows import MIN_PER_CLASS, listed

    metadata = planned.metadata
    yield "covariates", covariates.told(planned.covariates, planned.phenotype, planned.rows, metadata.covariates_named)
    for name, values in metadata.phenotype_categories.items():
        yield "phenotype", f"{name} is text and became {len(values)} categories: {listed(values)}"
    training = Counter(int(row.label) for row in planned.rows if row.split == "train" and row.known)
    fewest = min(range(len(CLASSES)), key=lambda label: training[label])
    for name, auc in list(metadata.phenotype_auc.items())[:1]:
        if training[fewest] < MIN_PER_CLASS:
            few = f"{participants(training[fewest], 'training')} of {CLASSES[fewest]}; {MIN_PER_CLASS} are needed"
            yield "phenotype", f"whether a value separates the training labels is not known, since {few}"
        else:
            yield "phenotype", f"no value separates the training labels better than {name}, AUC {auc:.2f}"


def derive(args: argparse.Namespace) -> None:
    from data.cohorts.rows import listed
    from data.derivation import job

    options = options_of(args, DerivationOptions)
    planned = job.plan(args.bold, args.out, options)
    print_facts(joined(planned.facts))
    if options.dry_run:
        from data.derivation.preview import preview

        print_facts(preview(planned))
        return
    facts, failed = job.run(planned)
    print_facts(facts)
    if failed:
        raise InputError(
            f"{participants(len(failed))} failed, for the reasons above: {listed(failed)}. Do what these say, then "
            "repeat the command."
        )


def check(args: argparse.Namespace) -> int:
    from data import check as checks
    from data import check_page
    from data.cohorts.pictures import Pictures
    from data.cohorts.stored import open_cohort

    if args.html:
        check_page.check_place(args.html)
    maps, options = checks.holds_maps(args.cohort), options_of(args, SourceOptions)
    if not maps and (given := [name for name, value in vars(options).items() if value is not None]):
        raise InputError(
            f"--{flag_of(given[0])} is about a folder of maps and their table; {args.cohort} is none. Leave it out."
        )
    with checks.read_maps(args.cohort, options) if maps else nullcontext(open_cohort(args.cohort)) as cohort:
        pictures = Pictures(cohort.maps, len({row.subject for row in cohort.rows})) if args.html else None
        findings = (checks.of_folder if maps else checks.full_and_stored)(cohort, pictures)
        print_facts([*findings.counted(), *findings.judged(args.cohort), ("checked", findings.conclusion)])
        if pictures:
            check_page.write(args.html, cohort, findings, pictures)
    return 1 if findings.every("problems") else 0


def swap(args: argparse.Namespace) -> None:
    from data.cohorts.stored import open_cohort
    from data.swap import swap_regions

    table = swap_regions(open_cohort(args.cohort), args.out, args.regions, args.copies, args.seed)
    print(f"{len(table)} records in {args.out}")


def pack(args: argparse.Namespace) -> int:
    from data.cohorts.stored import open_cohort
    from data.pack import is_unsealed, opened
    from data.pack import pack as run

    cohort = opened(args.cohort, args.tables)
    form, changes = run(cohort, args.out, args.form, args.tables)
    print_facts([*(("changed", change) for change in changes), ("packed", f"as {form}: {args.out}")])
    if not args.tables and not is_unsealed(cohort):
        return 0
    from data import check as checks  # which a mere copy can do without

    findings = checks.full_and_stored(open_cohort(args.out))
    findings.forecast = []
    print_facts([*findings.judged(args.out), ("checked", findings.conclusion)])
    return 1 if findings.every("problems") else 0


def export(args: argparse.Namespace) -> None:
    from data.cohorts.stored import open_cohort
    from data.pack import export as run

    run(open_cohort(args.cohort), args.subject, args.out, args.map)
    print(f"Written: {args.out}")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="abide-data", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(run: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(run.__name__, help=help, description=help, examples=EXAMPLES[run.__name__])
        added.set_defaults(run=run)
        return added

    made = verb(derive, "preprocessed 4-D scans -> NIfTI maps, and series of parcels")
    made.add_argument("bold", type=Path, help="folder of scans: fMRIPrep, XCP-D, C-PAC, PCP, or see --boldColumn")
    made.add_argument("out", type=Path, help="folder to write; a repeated command does what is missing")
    add_options(made, DerivationOptions)
    new = verb(convert, "NIfTI maps and a table -> a cohort; exit 1 if anything is wrong with it, as check says")
    add = new.add_argument
    add("source", type=Path, help="folder of maps: BIDS, PCP (nilearn's fetch_abide_pcp), DPABI, or see --mapColumn")
    add("cohort", type=Path, help="new folder to write")
    like = "prepare new participants as in a cohort or bundle; labels are optional"
    add("--like", type=Path, metavar="COHORT", help=like)
    add_options(new, SourceOptions)
    add_options(new, ConversionOptions)
    checked = verb(check, "what is in a cohort or a folder of maps, and wrong with it; exit 1 if anything is")
    checked.add_argument("cohort", type=Path, help="a cohort, or a folder of maps as convert reads it")
    checked.add_argument("--html", type=Path, metavar="FILE", help="write a page, too, with pictures of everybody")
    add_options(
        checked, SourceOptions, "of a folder of maps, as for convert", without=("connectome", "parcels", "missing")
    )
    add = verb(swap, "augment: swap regions between training participants of the same label").add_argument
    add("cohort", type=Path)
    add("out", type=Path, help="cohort to write")
    add("--regions", type=positive, default=13, metavar="N", help="AAL regions swapped (default 13)")
    copies = "new records for each training record (default 10)"
    add("--copies", type=positive, default=10, metavar="N", help=copies)
    add("--seed", type=seed, default=0, metavar="N", help="(default 0)")
    packed = verb(
        pack, "write a cohort in another form, or with edited tables; exit 1 if anything is then wrong with it"
    )
    packed.add_argument("cohort", type=Path)
    packed.add_argument("out", type=Path, help="folder to write, in the form of the cohort without --zip or --bin")
    form = packed.add_mutually_exclusive_group()
    for name, what in (("zip", "zip chunks of about 250 MB"), ("bin", "a file a record")):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=what)
    edited = "folder with edited subjects.csv, covariates.csv or phenotype.csv: the phenotype is scaled anew"
    packed.add_argument("--tables", type=Path, metavar="FOLDER", help=edited)
    add = verb(export, "one volume as NIfTI, with its true affine").add_argument
    add("cohort", type=Path)
    add("subject", help="a participant, or a record's file name")
    add("out", type=Path, help="a .nii or .nii.gz file")
    add("--map", metavar="NAME", help="which of several maps")
    return top


def execute() -> int:
    args = parser().parse_args()
    return args.run(args) or 0


def main() -> int:
    return guarded("abide-data", execute)


if __name__ == "__main__":
    start(main, "abide-data")
