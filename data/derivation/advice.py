"""What leaves enough of a scan of which confounds, or the band, leave too little: other options, tried out on it."""

import math
from dataclasses import replace

from data.base.errors import InputError
from data.cohorts.derivation import STRATEGY_BY_CONFOUNDS, Derivation
from data.derivation.bold import Bold, Confounds, load_confounds
from data.derivation.cleaning import Sampling, make_band_basis, orthonormalise_regressors
from data.derivation.scans import ScanFile

WIDEST_BAND_FRACTION = 0.8  # of half the sampling rate: the end of a band that is advised


def load_confounds_and_direction_count(
    derivation: Derivation, scan_file: ScanFile, bold: Bold
) -> tuple[Confounds, int]:
    """The confounds of a scan, and how many directions in the band they leave. Raises InputError as `load_confounds`
    and `make_band_basis`, naming the table or the scan."""
    confounds = load_confounds(scan_file, derivation.confounds, bold.volume_count)
    sampling = Sampling(confounds.is_retained, bold.tr_s, derivation.band)
    try:
        orthonormal_regressors = orthonormalise_regressors(confounds.regressors, sampling)
        band_basis = make_band_basis(sampling, orthonormal_regressors)  # (kept, directions)
    except InputError as error:
        raise type(error)(f"{scan_file.path}: {error}") from error
    return confounds, band_basis.shape[1]


def suggest_option(derivation: Derivation, scan_file: ScanFile, bold: Bold, min_directions: int) -> str:
    """Which other option leaves at least so many directions of this scan, or that none does."""
    for option_text, alternative_derivation in list_alternative_options(derivation, bold):
        try:
            _, direction_count = load_confounds_and_direction_count(alternative_derivation, scan_file, bold)
        except InputError:
            continue
        if direction_count >= min_directions:
            return f"{option_text} serves: take it for all, in another folder (without --like), or move the scan away."
    return "Neither another --confounds nor another --band serves: move the scan away."


def list_alternative_options(derivation: Derivation, bold: Bold) -> list[tuple[str, Derivation]]:
    """Other options to try, first those that change least: of confounds, which are then those of everybody, the
    strategy simple, then 6 parameters of head motion; else twice the band or half of it."""
    alternative_options = list[tuple[str, Derivation]]()
    if derivation.confounds in STRATEGY_BY_CONFOUNDS:
        nilearn_strategy_name, nilearn_motion_name = STRATEGY_BY_CONFOUNDS[derivation.confounds]
        confounds_key_by_strategy = {
            strategy_and_motion: confounds_key for confounds_key, strategy_and_motion in STRATEGY_BY_CONFOUNDS.items()
        }
        preferred_confounds_keys = [
            confounds_key_by_strategy["simple", nilearn_motion_name],
            confounds_key_by_strategy[nilearn_strategy_name, "basic"],
            confounds_key_by_strategy["simple", "basic"],
        ]
        for confounds_key in dict.fromkeys([*preferred_confounds_keys, *STRATEGY_BY_CONFOUNDS]):
            alternative_options.append((f"--confounds {confounds_key}", replace(derivation, confounds=confounds_key)))
    low_hz, high_hz = derivation.band
    # A band of nearly all frequencies would say nothing of the slow ones: their share, fALFF, would be 1 everywhere.
    widest_end_hz = min(2 * high_hz, math.floor(WIDEST_BAND_FRACTION * 500 / bold.tr_s) / 1000)
    for band_end_hz in (widest_end_hz, (low_hz + high_hz) / 2):
        if band_end_hz > low_hz:
            alternative_options.append(
                (f"--band {low_hz:g},{band_end_hz:g}", replace(derivation, band=(low_hz, band_end_hz)))
            )
    return alternative_options
