"""Words and sizes of the tables of people that need no pandas: classes, sites, the phenotype's size."""

from collections.abc import Iterable

UNKNOWN_SITE = "unknown"  # of people of whom no column tells it
SITE_UNKNOWN_MARK = "SITE UNKNOWN"  # the mark of a result
SITE_UNKNOWN_SENTENCE = "Site is unknown, and may be the whole result"


def find_recorded_sites(sites: Iterable[str]) -> list[str]:
    """Each site that is known, sorted: people whose site is unknown must not count as one site."""
    return sorted({*sites} - {UNKNOWN_SITE, ""})


PHENOTYPE_SIZE = 29
CLASS_NAMES = ("control", "autism")  # label 0.0, label 1.0
INPUT_KINDS = ("maps", "phenotype", "connectome", "covariates")  # what a cohort may have of a person
