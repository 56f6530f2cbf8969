"""python -m data: everything that is done to cohorts before a model sees them."""

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from data.errors import InputError

SHOWN = 10  # subjects named on the terminal; cohort.json names them all


def convert(args: argparse.Namespace) -> None:
    from data import grids, records, sources
    from data.convert import convert as run

    source = sources.pcp(args.source)
    for reason, subjects in source.left_out.items():
        if subjects:
            more = f" and {len(subjects) - SHOWN} more, named in cohort.json" if len(subjects) > SHOWN else ""
            print(f"{len(subjects)} left out, {reason}: {', '.join(subjects[:SHOWN])}{more}")
    table = run(
        source, args.cohort, grids.GRIDS[args.grid], args.seed, shlex.join(["python", "-m", "data", *sys.argv[1:]])
    )
    counts = Counter((record.split, records.CLASSES[int(record.label)]) for record in table)
    print(
        f"{len(table)} records in {args.cohort}: "
        + ", ".join(f"{split} {name} {n}" for (split, name), n in sorted(counts.items()))
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m data", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("convert", help="NIfTI maps and a phenotype table -> a cohort")
    verb.set_defaults(run=convert)
    verb.add_argument("source", type=Path, help="data_dir of nilearn.datasets.fetch_abide_pcp")
    verb.add_argument("cohort", type=Path, help="folder to write; repeat an interrupted command to complete it")
    verb.add_argument("--grid", choices=("full", "reduced"), default="full", help="91x109x91, or 3x3x3 block means")
    verb.add_argument("--seed", type=int, default=0, help="seed of the split (default %(default)s)")
    return top


def main() -> int:
    args = parser().parse_args()
    try:
        args.run(args)
    except InputError as error:
        print(f"python -m data: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"python -m data: error: {error.filename or 'input or output'}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m data: interrupted; repeat the command to complete it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
