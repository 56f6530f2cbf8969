"""The options of --blackout, what they select, and what must hold before a blackout; without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.base.cli import make_int_parser, option, parse_names, parse_positive_int
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.groups import find_group_leaders
from data.cohorts.rows import RecordRow
from data.images.atlas import Atlas, load_printable_atlas
from data.images.grids import Grid
from utils.runs.network import NetworkPredictor
from utils.runs.record import compute_sha256
from utils.runs.run import PredictorOptions, Run
from utils.scores.results import MIN_BOOTSTRAP_SUBJECTS

if TYPE_CHECKING:
    import pandas as pd

    from data.cohorts.connectomes import Connectomes
    from utils.blackout.systems import RegionSystems

CONNECTOME_INPUT = "connectome"  # what networks call the edges that they read, and so does the table by map
RECORDS_PER_BATCH = 16  # records at a time: bounds the memory
MAX_VERIFIED_PEOPLE = 10_000  # people, each of whom takes seconds


@dataclass(frozen=True)
class BlackoutOptions(PredictorOptions):
    """Which regions and maps are blacked out, and with whose regions."""

    maps: tuple[str, ...] | None = option(
        None, "regions of these maps only, the others stay (default all)", type=parse_names, metavar="A,B"
    )
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
        type=make_int_parser(1, MAX_VERIFIED_PEOPLE),
        metavar="N",
    )

    def select_result_settings(self) -> dict[str, Any]:
        from data.images.nifti import make_sidecar_path  # costs `--help` nothing

        # Files are hashed with the names of their labels beside them
        chosen_paths = [file_path for file_path in (self.atlas, self.systems) if file_path]
        sidecar_paths = [make_sidecar_path(file_path, ".txt") for file_path in chosen_paths]
        hashed_paths = [file_path for file_path in [*chosen_paths, *sidecar_paths] if file_path.is_file()]
        result_settings = {
            "chosen_maps": self.maps,
            "atlas": str(self.atlas) if self.atlas else None,
            "systems": str(self.systems) if self.systems else None,
            "sha256": compute_sha256(*hashed_paths),
            "donors": self.donors,
        }
        if self.verify:
            result_settings["verify"] = self.verify
        if self.estimator is not None:
            result_settings["inputs"] = self.inputs
        return result_settings

    def make_replaced_map_mask(self, cohort: Cohort) -> np.ndarray:
        """Which maps are replaced, (maps,) bool. Raises InputError for one that the cohort does not have."""
        if unknown_map_names := [map_name for map_name in self.maps or () if map_name not in cohort.map_names]:
            raise InputError(
                f"--maps {unknown_map_names[0]} is no map of {cohort.path}; it has {', '.join(cohort.map_names)}."
            )
        return np.array([self.maps is None or map_name in self.maps for map_name in cohort.map_names], bool)

    def find_separate_map_indices(self, cohort: Cohort) -> list[int]:
        """The maps that are also replaced one at a time, by number: those that are replaced, if they are several, or
        edges are replaced, too."""
        replaced_map_indices = np.flatnonzero(self.make_replaced_map_mask(cohort)).tolist()
        return replaced_map_indices if len(replaced_map_indices) + self.replaces_edges(cohort) > 1 else []

    def replaces_edges(self, cohort: Cohort) -> bool:
        """Whether the edges of a region are replaced with its voxels. It must be known in which region parcels lie, and
        `maps` must not say what is replaced."""
        connectomes = cohort.connectomes
        return connectomes is not None and connectomes.parcel_image is not None and self.maps is None

    def load_regions(self, grid: Grid) -> Atlas:
        """The regions to black out, with names that are safe to show. Raises InputError for what is no label image."""
        return load_printable_atlas(self.atlas, grid)

    def load_systems(self, grid: Grid) -> "RegionSystems":
        """The system of each region. Raises InputError for a file that does not say it."""
        from utils.blackout.systems import load_region_systems  # costs a training nothing

        return load_region_systems(self.load_regions(grid), self.systems)


def get_blackout_options(run: Run) -> BlackoutOptions:
    if not isinstance(run.options, BlackoutOptions):
        raise TypeError(f"a blackout needs BlackoutOptions, not {run.options}")
    return run.options


def select_network_cohort(run: Run) -> Cohort:
    """The cohort, without connectomes and without maps if the network reads none."""
    input_names = run.predictor.input_names
    network_cohort = run.cohort
    if CONNECTOME_INPUT not in input_names:
        network_cohort = network_cohort.without_connectomes
    return network_cohort if "volume" in input_names else network_cohort.without_maps


def make_connectome_tables(cohort: Cohort) -> dict[str, "Connectomes"]:
    """What a cohort's batches contain besides volumes and phenotypes: the connectomes, if it has any."""
    return {CONNECTOME_INPUT: cohort.connectomes} if cohort.connectomes is not None else {}


def load_blackout_covariates(cohort: Cohort, record_rows: Sequence[RecordRow]) -> "pd.DataFrame":
    """What is known of the subjects of these rows, sorted by name: site and covariates. Raises InputError."""
    from data.cohorts.covariates import load_all_covariates
    from utils.scores.features import make_covariate_table  # scikit-learn, which `--help` can do without

    site_by_subject = {record_row.subject: record_row.site for record_row in reversed(record_rows)}
    subjects = sorted(site_by_subject)
    return make_covariate_table(
        subjects, [site_by_subject[subject] for subject in subjects], load_all_covariates(cohort)
    )


def check_blackout_possible(run: Run) -> None:
    """Raises InputError unless all of this holds: a network that reads connectomes alone is linear in them, and it is
    known where the parcels of a model that reads nothing else lie; the labels of all test subjects are known, since an
    effect is that on the true class; `--maps` are maps of the cohort; there are two people or more, to predict one's
    region from another's; covariates and atlas can be read; with `--systems` there are edges to replace, with `--maps`
    a volume, with `--atlas` one of the two."""
    cohort = run.cohort
    blackout_options = get_blackout_options(run)
    input_names = run.predictor.input_names
    is_network = isinstance(run.predictor, NetworkPredictor)
    replaces_edges = blackout_options.replaces_edges(select_network_cohort(run))
    if is_network and CONNECTOME_INPUT in input_names and "volume" not in input_names:
        check_edges_replaceable(run)
    if not is_network and {*input_names} == {CONNECTOME_INPUT} and not replaces_edges:
        raise InputError(
            f"{run.predictor.name} reads connectomes alone, and it is not known in which regions the parcels of "
            f"{cohort.path} lie; expected their label image. Convert again with --parcels FILE, and leave --maps out."
        )
    test_rows = [cohort.rows[record_index] for record_index in cohort.find_split_record_indices("test")]
    if unlabelled_rows := [record_row for record_row in test_rows if not record_row.is_labelled]:
        raise InputError(
            f"{len(unlabelled_rows)} test records of {cohort.path} have no label, {unlabelled_rows[0].file} among "
            "them; a blackout needs one of each. Leave these participants out when you convert (--exclude)."
        )
    names_unread_regions = blackout_options.maps or (blackout_options.atlas and not replaces_edges)
    if "volume" not in input_names and names_unread_regions:
        option_name = "maps" if blackout_options.maps else "atlas"
        raise InputError(
            f"--{option_name} tells of regions, and {run.predictor.name} reads no volume. Leave --{option_name} out."
        )
    blackout_options.make_replaced_map_mask(cohort)
    leader_by_subject = find_group_leaders((record_row.subject for record_row in cohort.rows), cohort.groups)
    donor_people = {
        leader_by_subject[subject]
        for subject in cohort.list_split_subjects("train") or cohort.list_split_subjects("test")
    }
    if len(donor_people) < MIN_BOOTSTRAP_SUBJECTS:
        raise InputError(
            f"{cohort.path} has {len(donor_people)} participant to take regions from, relatives together; a blackout "
            f"puts another participant's region in the place of each and needs {MIN_BOOTSTRAP_SUBJECTS}. Add "
            "participants."
        )
    load_blackout_covariates(cohort, test_rows)
    if blackout_options.systems and not replaces_edges:
        raise InputError(
            f"--systems {blackout_options.systems} tells of connections, and none is replaced here; expected a model "
            "that reads connectomes, a cohort that holds where parcels lie, and no --maps. Leave --systems out."
        )
    blackout_options.load_systems(cohort.region_grid)


def check_edges_replaceable(run: Run) -> None:
    """Raises InputError for a network that reads connectomes and no maps if its edges cannot be replaced: only a linear
    layer of edges is exact, and there must be something to replace."""
    if run.model.loss_name != "cross_entropy" or CONNECTOME_INPUT not in run.model.optional_input_names:
        raise InputError(
            f"{run.predictor.name} reads connectomes and no maps, and is not known to be linear in them; a blackout "
            "needs that. Black out a network such as --model mmnn."
        )
    connectomes = run.cohort.connectomes
    if {*run.predictor.input_names} == {CONNECTOME_INPUT} and connectomes and connectomes.parcel_image is None:
        raise InputError(
            f"{run.predictor.name} reads connectomes alone, and {run.cohort.path} does not say where their parcels "
            "lie; expected their label image. Convert again with --parcels FILE."
        )
