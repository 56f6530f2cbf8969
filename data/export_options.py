"""The options of `abide-data export`."""

from dataclasses import dataclass
from pathlib import Path

from data.base.cli import option, parse_positive_int, parse_seed_option
from data.base.errors import InputError, compose_accents
from data.cohorts.division import WHOLE_SITES, check_division_flags
from data.cohorts.folds import check_seeds_suffice


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how participants are divided and labelled."""

    inputs: str | None = option(
        None, "some of maps,phenotype,connectome,covariates (default what the cohort has)", metavar="A,B"
    )
    atlas: Path | None = option(
        None, "average maps over the regions of this label image (default AAL)", type=Path, metavar="FILE"
    )
    folds: str | None = option(
        None,
        "the folds of run.py: N, or leaving out one value of COLUMN at a time",
        type=compose_accents,
        metavar="N|COLUMN",
    )
    whole_sites: bool = option(False, "with --folds N: a site's participants are all in one fold", action="store_true")
    repeats: int = option(
        1, "divide R times, each with the next seed (default 1)", type=parse_positive_int, metavar="R"
    )
    seed: int | None = option(None, "seed of the folds (default 0)", type=parse_seed_option, metavar="N")
    control: int | None = option(
        None,
        "permute the labels within sites by this seed: only a leak lets a model score well on these",
        type=parse_seed_option,
        metavar="SEED",
    )

    @property
    def first_seed(self) -> int:
        """The seed of the first repeat."""
        return self.seed or 0

    @property
    def division_name(self) -> str:
        """The name of the `Division`; empty without folds."""
        return f"{self.folds or ''}{WHOLE_SITES if self.whole_sites else ''}"

    def check(self) -> None:
        """Raises InputError for options that do not go together."""
        is_given_by_flag = {
            "--wholeSites": self.whole_sites,
            "--repeats": self.repeats > 1,
            "--seed": self.seed is not None,
        }
        for flag, is_given in is_given_by_flag.items():
            if is_given and not self.folds:
                raise InputError(f"{flag} goes with --folds; name that, too, or leave {flag} out.")
        if self.folds:
            check_division_flags(self.folds, self.whole_sites)
            check_seeds_suffice(self.first_seed, self.repeats)
