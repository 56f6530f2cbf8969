"""python -m data: everything that is done to cohorts before a model sees them."""

import argparse
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from data.base.cli import Parser, guarded, positive, seed
from data.base.errors import InputError
from data.base.signals import ignore_interrupts

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort

INTERRUPTED = 130
SHOWN = 10  # subjects named on the terminal; cohort.json names them all


def command() -> str:
    return shlex.join(["python", "-m", "data", *sys.argv[1:]])


def named(subjects: list[str]) -> str:
    more = f" and {len(subjects) - SHOWN} more, named in cohort.json" if len(subjects) > SHOWN else ""
    return ", ".join(subjects[:SHOWN]) + more


def names(text: str | None) -> list[str] | None:
    """The columns that `A,B` names; none for nothing, None where nothing was said."""
    return None if text is None else [name for name in text.split(",") if name]


def check_like_flags(args: argparse.Namespace) -> None:
    """Raises InputError for a choice that --like makes."""
    chosen = [name for name in ("grid", "phenotype", "covariates", "seed") if getattr(args, name) is not None]
    if args.like and chosen:
        raise InputError(f"--{chosen[0]} is chosen by --like: everything is as in {args.like}. Leave it out.")


def chosen_maps(args: argparse.Namespace, like: "Cohort | None") -> tuple[str, ...] | None:
    """Those of --maps, or of the cohort that --like names; None where nothing says. Raises InputError where they
    contradict each other."""
    given = None if args.maps is None else tuple(args.maps.split(","))
    if like is None or not like.metadata.maps:
        return given
    if given not in (None, like.maps):
        raise InputError(f"--maps {args.maps} is not what {args.like} has, {', '.join(like.maps)}. Leave it out.")
    return like.maps


def convert(args: argparse.Namespace) -> int:
    check_like_flags(args)
    from data import grids
    from data.cohorts.cohort import open_cohort
    from data.cohorts.records import CLASSES
    from data.conversion import layouts
    from data.conversion.convert import convert as run
    from data.conversion.convert import convert_like

    like = open_cohort(args.like) if args.like else None
    columns = layouts.Columns(
        args.table,
        args.idColumn,
        args.labelColumn,
        args.positive,
        args.siteColumn,
        args.mapColumn,
        args.negative,
        args.only,
        chosen_maps(args, like),
    )
    source = layouts.read_source(args.source, columns, optional=like is not None)
    print("\n".join(source.notes))
    for reason, subjects in source.left_out.items():
        if subjects:
            print(f"{len(subjects)} left out, {reason}: {named(subjects)}")
    if like:
        table, metadata, notes = convert_like(source, args.cohort, like, command())
    else:
        grid, choice = grids.GRIDS[args.grid or "full"], (names(args.phenotype), names(args.covariates))
        table, metadata, notes = run(source, args.cohort, grid, args.seed or 0, *choice, args.allowLeak, command())
    print("\n".join(notes))
    for name, values in metadata.phenotype_categories.items():
        print(f"{name} is text and became {len(values)} categories: {', '.join(values[:SHOWN])}")
    for name, auc in list(metadata.phenotype_auc.items())[:1]:
        print(f"Phenotype: no value separates the training labels better than {name}, AUC {auc:.2f}.")
    counts = Counter(f"{row.split} {CLASSES[int(row.label)] if row.known else 'unknown'}" for row in table)
    shown = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{len(table)} records in {args.cohort}: {shown}")
    return 0


def check(args: argparse.Namespace) -> int:
    from data import check as checks
    from data.base import files
    from data.cohorts.cohort import open_cohort

    if args.html:
        checks.check_page(args.html)
    findings = checks.full(open_cohort(args.cohort))
    print("\n".join(findings.lines()))
    if args.html:
        with files.replacing(args.html, encoding="utf-8") as file:
            file.write(checks.html(findings, str(args.cohort)))
    return 1 if findings.problems else 0


def swap(args: argparse.Namespace) -> int:
    from data.cohorts.cohort import open_cohort
    from data.swap import swap as run

    table = run(open_cohort(args.cohort), args.out, args.regions, args.copies, args.seed)
    print(f"{len(table)} records in {args.out}")
    return 0


def pack(args: argparse.Namespace) -> int:
    from data.cohorts.cohort import open_cohort
    from data.pack import pack as run

    run(open_cohort(args.cohort), args.out, args.form)
    print(f"Packed as {args.form}: {args.out}")
    return 0


def export(args: argparse.Namespace) -> int:
    from data.cohorts.cohort import open_cohort
    from data.pack import export as run

    run(open_cohort(args.cohort), args.subject, args.out, args.map)
    print(f"Written: {args.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m data", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("convert", help="NIfTI maps and a table -> a cohort")
    verb.set_defaults(run=convert)
    add = verb.add_argument
    add("source", type=Path, help="folder of maps: BIDS, PCP (nilearn's fetch_abide_pcp), DPABI, or see --mapColumn")
    add("cohort", type=Path, help="folder to write; repeat an interrupted command to complete it")
    add("--like", type=Path, metavar="COHORT", help="convert new people as this cohort was; their labels are optional")
    add("--grid", choices=("full", "reduced"), help="91x109x91 (default), or 3x3x3 block means of it")
    add("--table", type=Path, help="CSV or TSV with a row a subject (default: the one beside the maps)")
    add("--idColumn", metavar="NAME", help="column of subject IDs (default: the one that matches the maps)")
    add("--labelColumn", metavar="NAME", help="column of the diagnosis (ABIDE's own table: DX_GROUP)")
    add("--positive", metavar="A,B,...", help="its value, or values, for autism (ABIDE's own table: 1)")
    add(
        "--negative",
        metavar="A,B,...",
        help="its values for control; the others are left out (default: the one other)",
    )
    add("--siteColumn", metavar="NAME", help="column of sites (default SITE_ID or site, if there is one)")
    add(
        "--maps",
        metavar="A,B,...",
        help="maps of a record, such as falff,alff,reho,degree_weighted,degree_binarize (default falff)",
    )
    add("--mapColumn", metavar="A,B,...", help="columns of paths, relative to the folder, one for each map")
    add(
        "--only",
        metavar="GLOB",
        help="use only the maps whose path in the folder fits, such as '*/zfALFF*'",
    )
    add("--phenotype", metavar="A,B,...", help="columns to use instead of ABIDE's 29 values; '' for none")
    add("--covariates", metavar="A,B,...", help="columns to keep beside (default: the site; ABIDE's age, sex, motion)")
    add("--allowLeak", action="store_true", help="accept phenotype columns, or maps as wholes, that tell the diagnosis")
    add("--seed", type=seed, metavar="N", help="seed of the split (default 0)")
    verb = verbs.add_parser("check", help="what a cohort holds and what is wrong with it; exit 1 if anything is")
    verb.set_defaults(run=check)
    verb.add_argument("cohort", type=Path)
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page, too")
    verb = verbs.add_parser("swap", help="augment: swap regions between training subjects of the same label")
    verb.set_defaults(run=swap)
    verb.add_argument("cohort", type=Path)
    verb.add_argument("out", type=Path, help="cohort to write")
    verb.add_argument("--regions", type=positive, default=13, metavar="N", help="AAL regions swapped (default 13)")
    verb.add_argument(
        "--copies", type=positive, default=10, metavar="N", help="new records a training record (default 10)"
    )
    verb.add_argument("--seed", type=seed, default=0, metavar="N", help="(default 0)")
    verb = verbs.add_parser("pack", help="write a cohort in another form, bit by bit the same")
    verb.set_defaults(run=pack)
    verb.add_argument("cohort", type=Path)
    verb.add_argument("out", type=Path, help="folder to write")
    form = verb.add_mutually_exclusive_group(required=True)
    for name, what in (("zip", "zip chunks of about 250 MB"), ("hdf5", "one cohort.h5"), ("bin", "a file a record")):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=what)
    verb = verbs.add_parser("export", help="one volume as NIfTI, with its true affine")
    verb.set_defaults(run=export)
    verb.add_argument("cohort", type=Path)
    verb.add_argument("subject", help="a subject, or a record's file name")
    verb.add_argument("out", type=Path, help="a .nii or .nii.gz file")
    verb.add_argument("--map", metavar="NAME", help="which of several maps")
    return top


def interrupt_once(*_) -> None:
    """Ctrl-C that is heard once: the rest is ending well."""
    ignore_interrupts()
    raise KeyboardInterrupt


def main() -> int:
    args = parser().parse_args()
    heard = signal.getsignal(signal.SIGINT)
    if heard is signal.default_int_handler:  # not in a background job, which inherits it ignored
        signal.signal(signal.SIGINT, interrupt_once)
    status = guarded("python -m data", lambda: args.run(args))
    if status != INTERRUPTED:
        signal.signal(signal.SIGINT, heard)
    return status


if __name__ == "__main__":
    sys.exit(main())
