"""What leaves enough of a scan of which confounds, or the band, leave too little: other options, tried out on it."""

import math
from dataclasses import replace

from data.base.errors import InputError
from data.cohorts.derivation import STRATEGY_BY_CONFOUNDS, Derivation
from data.derivation.bold import Bold, Confounds, confounds_of
from data.derivation.cleaning import Sampling, band_basis, unit_regressors
from data.derivation.scans import ScanFile

WIDEST = 0.8  # of half the sampling rate: the end of a band that is advised


def left_by(derivation: Derivation, scan: ScanFile, bold: Bold) -> tuple[Confounds, int]:
    """The confounds of a scan, and how many directions in the band they leave. Raises InputError as `confounds_of` and
    `band_basis`, naming the table or the scan."""
    confounds = confounds_of(scan, derivation.confounds, bold.volumes)
    sampling = Sampling(confounds.kept, bold.tr_s, derivation.band)
    try:
        return confounds, band_basis(sampling, unit_regressors(confounds.regressors, sampling)).shape[1]
    except InputError as error:
        raise type(error)(f"{scan.path}: {error}") from error


def advice(derivation: Derivation, scan: ScanFile, bold: Bold, least: int) -> str:
    """Which other option leaves at least so many directions of this scan; that none does."""
    for option, other in others(derivation, bold):
        try:
            enough = left_by(other, scan, bold)[1] >= least
        except InputError:
            continue
        if enough:
            return f"{option} serves: take it for all, in another folder (without --like), or move the scan away."
    return "Neither another --confounds nor another --band serves: move the scan away."


def others(derivation: Derivation, bold: Bold) -> list[tuple[str, Derivation]]:
    """Other options to try, first those that change least: of confounds, which are then those of everybody, the
    strategy simple, then 6 parameters of head motion; else twice the band or half of it."""
    wanted = list[tuple[str, Derivation]]()
    if derivation.confounds in STRATEGY_BY_CONFOUNDS:
        name, motion = STRATEGY_BY_CONFOUNDS[derivation.confounds]
        strategies = {strategy: key for key, strategy in STRATEGY_BY_CONFOUNDS.items()}
        first = [strategies["simple", motion], strategies[name, "basic"], strategies["simple", "basic"]]
        for key in dict.fromkeys([*first, *STRATEGY_BY_CONFOUNDS]):
            wanted.append((f"--confounds {key}", replace(derivation, confounds=key)))
    low, high = derivation.band
    # A band of nearly all frequencies would say nothing of the slow ones: their share, fALFF, would be 1 everywhere.
    widest = min(2 * high, math.floor(WIDEST * 500 / bold.tr_s) / 1000)
    for end in (widest, (low + high) / 2):
        if end > low:
            wanted.append((f"--band {low:g},{end:g}", replace(derivation, band=(low, end))))
    return wanted
