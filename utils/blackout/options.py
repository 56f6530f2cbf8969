"""The options of --blackout, what they select, and what must hold before a blackout; without TensorFlow."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.base.cli import make_int_parser, option, parse_names, parse_positive_int
from data.base.errors import InputError
from data.base.tables import make_printable
from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import find_group_leaders
from data.cohorts.records import Grid
from data.cohorts.rows import RecordRow
from utils.runs.record import compute_sha256
from utils.runs.run import BundleOptions, Run
from utils.scores.results import MIN_SUBJECTS

if TYPE_CHECKING:
    import pandas as pd

    from data.cohorts.connectomes import Connectomes
    from utils.blackout.systems import Systems

CONNECTOME = "connectome"  # what networks call the edges that they read, and so does the table by map
TOGETHER = 16  # records at a time: bounds the memory
MAX_VERIFIED = 10_000  # people, each of whom takes seconds


@dataclass(frozen=True)
class BlackoutOptions(BundleOptions):
    """Which regions and maps are blacked out, and with whose regions."""

    maps: tuple[str, ...] | None = option(
        None, "regions of these maps only, the others stay (default all)", type=parse_names, metavar="A,B"
    )
    atlas: Path | None = option(None, "the regions of this label image (default AAL)", type=Path, metavar="FILE")
    systems: Path | None = option(
        None,
        "systems of regions, whose connections are tested: a label image, or a table of region and system (default the "
        "lobes of AAL)",
        type=Path,
        metavar="FILE",
    )
    donors: int = option(
        5, "participants whose regions fill each blackout (default 5)", type=parse_positive_int, metavar="N"
    )
    verify: int = option(
        0,
        "recompute N participants in full, print the largest difference",
        type=make_int_parser(1, MAX_VERIFIED),
        metavar="N",
    )

    def settings(self) -> dict[str, Any]:
        from data.cohorts.nifti import make_sidecar_path  # costs `--help` nothing

        paths = {name: str(path) if path else None for name, path in (("atlas", self.atlas), ("systems", self.systems))}
        given = [path for path in (self.atlas, self.systems) if path]
        named = [path for path in [*given, *(make_sidecar_path(path, ".txt") for path in given)] if path.is_file()]
        verified = {"verify": self.verify} if self.verify else {}
        return {"chosen_maps": self.maps, **paths, "sha256": compute_sha256(*named), "donors": self.donors} | verified

    def replaced_maps(self, cohort: Cohort) -> np.ndarray:
        """Which maps are replaced, (maps,) bool. Raises InputError for one that the cohort does not have."""
        if unknown := [name for name in self.maps or () if name not in cohort.map_names]:
            raise InputError(f"--maps {unknown[0]} is no map of {cohort.path}; it has {', '.join(cohort.map_names)}.")
        return np.array([self.maps is None or name in self.maps for name in cohort.map_names])

    def separate_maps(self, cohort: Cohort) -> list[int]:
        """The maps that are also replaced one at a time, by number: those that are replaced, if they are several, or
        edges are replaced, too."""
        replaced = np.flatnonzero(self.replaced_maps(cohort)).tolist()
        return replaced if len(replaced) + self.replaces_edges(cohort) > 1 else []

    def replaces_edges(self, cohort: Cohort) -> bool:
        """Whether the edges of a region are replaced with its voxels. It must be known in which region parcels lie, and
        `maps` must not say what is replaced."""
        connectomes = cohort.connectomes
        return connectomes is not None and connectomes.parcel_image is not None and self.maps is None

    def regions(self, grid: Grid) -> Atlas:
        """The regions to black out, with names that are safe to show. Raises InputError for what is no label image."""
        return loaded(self.atlas, grid)

    def systems_of(self, grid: Grid) -> "Systems":
        """The system of each region. Raises InputError for a file that does not tell it."""
        from utils.blackout.systems import systems_of  # costs a training nothing

        return systems_of(self.regions(grid), self.systems)


@lru_cache(4)
def loaded(path: Path | None, grid: Grid) -> Atlas:
    """The atlas, read once; a name of which nothing can be shown becomes a number, one of several regions has it."""
    atlas = load_atlas(path, grid)
    names = {region: make_printable(name) or f"region {region}" for region, name in atlas.name_by_region.items()}
    while often := [name for name, count in Counter(names.values()).items() if count > 1]:
        names = {region: f"{name} {region}" if name in often else name for region, name in names.items()}
    return replace(
        atlas,
        name_by_region=names,
        vanished_region_names=[make_printable(name) for name in atlas.vanished_region_names],
    )


def of(run: Run) -> BlackoutOptions:
    if not isinstance(run.options, BlackoutOptions):
        raise TypeError(f"a blackout needs BlackoutOptions, not {run.options}")
    return run.options


def cohort_of(run: Run) -> Cohort:
    """The cohort, without connectomes if the network reads none."""
    return run.cohort if CONNECTOME in run.model.list_inputs(run.config) else run.cohort.without_connectomes


def tables_of(cohort: Cohort) -> dict[str, "Connectomes"]:
    """What its batches hold beside volumes and phenotypes: the connectomes, if it has any."""
    return {CONNECTOME: cohort.connectomes} if cohort.connectomes is not None else {}


def covariates_of(cohort: Cohort, rows: Sequence[RecordRow]) -> "pd.DataFrame":
    """What is known of the subjects of these rows, sorted by name: site and covariates. Raises InputError."""
    from data.cohorts.covariates import load_all_covariates
    from utils.scores.features import covariates  # scikit-learn, which `--help` can do without

    site = {row.subject: row.site for row in reversed(rows)}
    names = sorted(site)
    return covariates(names, [site[name] for name in names], load_all_covariates(cohort))


def possible_blackout(run: Run) -> None:
    """The network reads more than connectomes. The labels of all test subjects are known, since an effect is that on
    the true class; `--maps` are maps of the cohort; there are two people or more, to predict one's region from
    another's; covariates and atlas can be read; `--systems` have edges to replace, and `--maps` and `--atlas` a
    volume."""
    cohort, options, inputs = run.cohort, of(run), run.model.list_inputs(run.config)
    if CONNECTOME in inputs and "volume" not in inputs:
        raise InputError(
            f"{run.model.model_name} reads connectomes and no maps, and there is no blackout of connectomes alone. "
            "Black out a network that reads both, such as --model mmnn."
        )
    tested = [cohort.rows[index] for index in cohort.split_indices("test")]
    if unknown := [row for row in tested if not row.known]:
        raise InputError(
            f"{len(unknown)} test records of {cohort.path} have no label, {unknown[0].file} among them; a blackout "
            "needs one of each. Leave these participants out when you convert (--exclude)."
        )
    if "volume" not in run.model.input_names and (options.maps or options.atlas):
        name = "maps" if options.maps else "atlas"
        raise InputError(f"--{name} tells of regions, and {run.model.model_name} reads no volume. Leave --{name} out.")
    options.replaced_maps(cohort)
    leader = find_group_leaders((row.subject for row in cohort.rows), cohort.groups)
    people = {leader[subject] for subject in cohort.split_subjects("train") or cohort.split_subjects("test")}
    if len(people) < MIN_SUBJECTS:
        raise InputError(
            f"{cohort.path} has {len(people)} participant to take regions from, relatives together; a blackout puts "
            f"another participant's region in the place of each and needs {MIN_SUBJECTS}. Add participants."
        )
    covariates_of(cohort, tested)
    if options.systems and not options.replaces_edges(cohort_of(run)):
        raise InputError(
            f"--systems {options.systems} tells of connections, and none is replaced here; expected a network that "
            "reads connectomes, a cohort that holds where parcels lie, and no --maps. Leave --systems out."
        )
    options.systems_of(cohort.grid)
