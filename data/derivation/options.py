"""The options of `abide-data derive`, each a field."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from data.base.cli import option, parse_names, parse_positive_int
from data.base.errors import parse_natural_number, quote_text
from data.cohorts.derivation import STRATEGY_BY_CONFOUNDS

MAX_SMOOTHING_MM = 30.0


def parse_band_hz(band_text: str) -> tuple[float, float]:
    """`0.01,0.1` -> 0.01, 0.1, in Hz."""
    try:
        low_hz, high_hz = map(float, band_text.split(","))
    except ValueError:
        low_hz = 0.0
        high_hz = 0.0
    if not 0 <= low_hz < high_hz <= 10:
        raise argparse.ArgumentTypeError(
            f"{quote_text(band_text)} is not allowed; expected LOW,HIGH in Hz, such as 0.01,0.1"
        )
    return low_hz, high_hz


def parse_smoothing_mm(width_text: str) -> float:
    try:
        width_mm = float(width_text)
    except ValueError:
        width_mm = 0.0
    if not 0 < width_mm <= MAX_SMOOTHING_MM:
        raise argparse.ArgumentTypeError(f"{quote_text(width_text)} is not allowed; expected a width in mm, such as 6")
    return width_mm


def parse_array_share(share_text: str) -> tuple[int, int]:
    """`2/8` -> 2, 8."""
    share_number = 0
    share_count = 0
    if share_match := re.fullmatch("([0-9]+)/([0-9]+)", share_text):
        share_number = parse_natural_number(share_match[1]) or 0
        share_count = parse_natural_number(share_match[2]) or 0
    if not 1 <= share_number <= share_count:
        raise argparse.ArgumentTypeError(
            f"{quote_text(share_text)} is not allowed; expected K/N from 1/N to N/N, such as 1/8"
        )
    return share_number, share_count


@dataclass(frozen=True)
class DerivationOptions:
    """What is made of which scans, and how the work is shared; None if it is not said."""

    # names of measures
    maps: tuple[str, ...] | None = option(
        None,
        type=parse_names,
        metavar="A,B,...",
        help="falff, alff, reho, degree_weighted, eigenvector_weighted, vmhc, dual_regression "
        "(default falff; none with --series alone)",
    )
    # ends in Hz
    band: tuple[float, float] | None = option(
        None, type=parse_band_hz, metavar="LOW,HIGH", help="in Hz (default 0.01,0.1)"
    )
    # full width at half maximum in mm
    smooth: float | None = option(
        None, type=parse_smoothing_mm, metavar="MM", help="smooth maps within the mask by this width (default: do not)"
    )
    # key of STRATEGY_BY_CONFOUNDS, or none
    confounds: str | None = option(
        None,
        choices=(*STRATEGY_BY_CONFOUNDS, "none"),
        help="what is regressed out, with 24, 12 or 6 parameters of head motion "
        "(default simple; none if scans were cleaned, or none has a table)",
    )
    networks: Path | None = option(None, type=Path, metavar="FILE", help="4-D maps of networks, for dual_regression")
    series: Path | None = option(None, type=Path, metavar="ATLAS", help="label image: write the mean series of parcels")
    # of a cohort or a bundle
    like: Path | None = option(
        None, type=Path, metavar="COHORT", help="make the maps and series that this cohort has, in the same way"
    )
    only: str | None = option(None, metavar="GLOB,...", help="use only scans whose path matches, such as '*_run-1_*'")
    bold_column: str | None = option(None, metavar="NAME", help="column of a table with paths of scans in BOLD")
    table: Path | None = option(None, type=Path, help="CSV or TSV of participants (default: the one beside the scans)")
    id_column: str | None = option(None, metavar="NAME", help="its column of participant IDs, for --boldColumn")
    jobs: int = option(1, type=parse_positive_int, metavar="N", help="participants at a time, in processes (default 1)")
    # K, N
    share: tuple[int, int] = option(
        (1, 1), type=parse_array_share, metavar="K/N", help="only every N-th person, from the K-th: a task of an array"
    )
    dry_run: bool = option(
        False, action="store_true", help="say who and how long; derive one scan in memory, write nothing"
    )
