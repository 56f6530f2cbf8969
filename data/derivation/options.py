"""The options of `abide-data derive` that decide nothing of what a map holds, each a field."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from data.base.cli import MAX_JOBS, option, whole
from data.base.errors import shown, whole_number


def one_of_shares(text: str) -> tuple[int, int]:
    """`2/8` -> 2, 8."""
    parts = re.fullmatch("([0-9]+)/([0-9]+)", text)
    number, of = (whole_number(part) or 0 for part in parts.groups()) if parts else (0, 0)
    if not 1 <= number <= of:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; expected K/N from 1/N to N/N, such as 1/8")
    return number, of


@dataclass(frozen=True)
class DerivationOptions:
    """Which scans are read, and how the work is shared; what is made of them says `Derivation`."""

    like: Path | None = option(
        None, type=Path, metavar="COHORT", help="make the maps and series that this cohort has, in the same way"
    )
    only: str | None = option(None, metavar="GLOB,...", help="use only scans whose path matches, such as '*_run-1_*'")
    bold_column: str | None = option(None, metavar="NAME", help="column of a table with paths of scans in BOLD")
    table: Path | None = option(None, type=Path, help="CSV or TSV of people (default: the one beside the scans)")
    id_column: str | None = option(None, metavar="NAME", help="its column of subject IDs, for --boldColumn")
    jobs: int = option(1, type=whole(1, MAX_JOBS), metavar="N", help="people at a time, in processes (default 1)")
    share: tuple[int, int] = option(
        (1, 1), type=one_of_shares, metavar="K/N", help="only every N-th person, from the K-th: a task of an array"
    )
    dry_run: bool = option(
        False, action="store_true", help="say who and how long; derive one scan in memory, write nothing"
    )
