"""An atlas -> the system that each of its regions belongs to; connections are tested between each two systems.

AAL's systems are the lobes of table 2 of Tzourio-Mazoyer et al. (2002, NeuroImage 15:273, doi:10.1006/nimg.2001.0978),
each by hemisphere. Beside the four lobes these are the central region, the limbic lobe, the insula and the grey nuclei.
The cerebellum is divided into its two sides and the vermis. Other atlases need a label image or a table of systems.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.tables import make_printable
from data.images.atlas import Atlas, read_label_image
from data.images.parcels import find_dominant_places

OUTSIDE_SYSTEM = "outside the regions"  # the system of parcels that lie in no region
IMAGE_SUFFIXES = (".nii", ".nii.gz")
SYSTEM_TABLE_COLUMNS = ("region", "system")
HEMISPHERE_BY_SUFFIX = {"L": "left", "R": "right"}
REGION_STEMS_BY_LOBE = {  # names of regions without their hemisphere
    "central": "Precentral Rolandic_Oper Postcentral",
    "frontal": (
        "Frontal_Sup Frontal_Sup_Orb Frontal_Mid Frontal_Mid_Orb Frontal_Inf_Oper Frontal_Inf_Tri Frontal_Inf_Orb "
        "Supp_Motor_Area Olfactory Frontal_Sup_Medial Frontal_Med_Orb Rectus Paracentral_Lobule"
    ),
    "temporal": "Heschl Temporal_Sup Temporal_Mid Temporal_Inf",
    "parietal": "Parietal_Sup Parietal_Inf SupraMarginal Angular Precuneus",
    "occipital": "Calcarine Cuneus Lingual Occipital_Sup Occipital_Mid Occipital_Inf Fusiform",
    "limbic": (
        "Cingulum_Ant Cingulum_Mid Cingulum_Post Hippocampus ParaHippocampal Temporal_Pole_Sup Temporal_Pole_Mid"
    ),
    "insula": "Insula",
    "subcortical": "Amygdala Caudate Putamen Pallidum Thalamus",
    "cerebellum": (
        "Cerebelum_Crus1 Cerebelum_Crus2 Cerebelum_3 Cerebelum_4_5 Cerebelum_6 Cerebelum_7b Cerebelum_8 Cerebelum_9 "
        "Cerebelum_10"
    ),
}
VERMIS_REGION_NAMES = "Vermis_1_2 Vermis_3 Vermis_4_5 Vermis_6 Vermis_7 Vermis_8 Vermis_9 Vermis_10"
AAL_SYSTEM_BY_REGION = {  # the system of each region, by its name
    f"{region_stem}_{hemisphere_suffix}": f"{lobe} {hemisphere}"
    for lobe, lobe_regions in REGION_STEMS_BY_LOBE.items()
    for hemisphere_suffix, hemisphere in HEMISPHERE_BY_SUFFIX.items()
    for region_stem in lobe_regions.split()
} | dict.fromkeys(VERMIS_REGION_NAMES.split(), "vermis")


@dataclass(frozen=True, eq=False)
class RegionSystems:
    """The systems of an atlas's regions, in the order of `atlas.make_region_parcels`."""

    system_names: tuple[str, ...]  # in order; the last is that outside the regions
    system_index_by_region: np.ndarray  # (regions + 1,) int; the last is that outside the regions

    @property
    def system_name_by_region(self) -> list[str]:
        """The name of the system of each region, at the end that of no region."""
        return [self.system_names[system_index] for system_index in self.system_index_by_region]

    @property
    def is_system_per_region(self) -> bool:
        """Whether each region is a system of its own."""
        return len(np.unique(self.system_index_by_region)) == len(self.system_index_by_region) == len(self.system_names)

    @property
    def unplaced_region_positions(self) -> np.ndarray:
        """The places of regions that are in no system."""
        return np.flatnonzero(self.system_index_by_region[:-1] == self.system_index_by_region[-1])


def load_region_systems(atlas: Atlas, systems_path: Path | None) -> RegionSystems:
    """The systems that a file defines; without a file those of AAL are its lobes, and in other atlases each region is
    its own. Raises InputError for a file that is neither a label image nor a table of all regions."""
    if systems_path is not None:
        is_image = systems_path.name.lower().endswith(IMAGE_SUFFIXES)
        return (
            assign_systems_by_majority(atlas, *read_label_image(systems_path))
            if is_image
            else read_system_table(atlas, systems_path)
        )
    region_names = [atlas.name_by_region[region_number] for region_number in atlas.region_numbers]
    if AAL_SYSTEM_BY_REGION.keys() >= set(region_names):
        return make_region_systems(
            [AAL_SYSTEM_BY_REGION[region_name] for region_name in region_names],
            [AAL_SYSTEM_BY_REGION[region_name] for region_name in AAL_SYSTEM_BY_REGION if region_name in region_names],
        )
    return RegionSystems((*region_names, OUTSIDE_SYSTEM), np.arange(len(region_names) + 1))


def make_region_systems(region_system_names: Sequence[str], ordered_system_names: Iterable[str]) -> RegionSystems:
    """The systems, from the name of each region's system, and from the known systems in their order."""
    system_names = [
        *dict.fromkeys(system_name for system_name in ordered_system_names if system_name != OUTSIDE_SYSTEM),
        OUTSIDE_SYSTEM,
    ]
    return RegionSystems(
        tuple(system_names),
        np.array([system_names.index(system_name) for system_name in (*region_system_names, OUTSIDE_SYSTEM)]),
    )


def assign_systems_by_majority(atlas: Atlas, system_image: np.ndarray, name_by_label: dict[int, str]) -> RegionSystems:
    """A region belongs to the system that contains more of its voxels on the full grid than any other, and more than
    lie outside. Without such a system it is outside. Labels of `system_image` (91, 109, 91) that have one name are one
    system."""
    system_name_by_label = {
        label_number: make_printable(label_name) or f"system {label_number}"
        for label_number, label_name in name_by_label.items()
    }
    system_names = [*dict.fromkeys(system_name_by_label.values())]
    label_values, label_positions = np.unique(system_image, return_inverse=True)
    system_position_by_label = np.array(
        [
            system_names.index(system_name_by_label[label_number]) if label_number else len(system_names)
            for label_number in label_values.tolist()
        ]
    )
    system_position_by_region = find_dominant_places(
        atlas.full_region_indices,
        len(atlas.region_numbers),
        system_position_by_label[label_positions].reshape(system_image.shape),
        len(system_names),
    )
    return make_region_systems(
        [[*system_names, OUTSIDE_SYSTEM][system_position] for system_position in system_position_by_region],
        system_names,
    )


def read_system_table(atlas: Atlas, table_path: Path) -> RegionSystems:
    """The systems of a table (CSV or TSV) with the columns region, its name or number, and system. Raises InputError
    for a region that is unknown, there twice, or missing."""
    from data.tables.people import read_text_table, select_column  # pandas, which `--help` can do without

    system_table = read_text_table(table_path)
    system_name_by_region_number = dict[int, str]()
    region_number_by_name = {str(region_number): region_number for region_number in atlas.region_numbers} | {
        name: atlas_region_number for atlas_region_number, name in atlas.name_by_region.items()
    }
    for name, system_name in zip(
        *(select_column(system_table, name, table_path) for name in SYSTEM_TABLE_COLUMNS), strict=True
    ):
        if name not in region_number_by_name:
            raise InputError(f"{table_path} names the region {name}; expected one of the atlas, or its number.")
        if region_number_by_name[name] in system_name_by_region_number:
            raise InputError(f"{table_path} names the region {name} twice; expected each once. Remove a row.")
        if not system_name:
            raise InputError(f"{table_path} has no system for the region {name}; expected a name. Fill it in.")
        system_name_by_region_number[region_number_by_name[name]] = make_printable(system_name)
    if missing_region_texts := [
        f"{region_number} {name}"
        for region_number, name in sorted(atlas.name_by_region.items())
        if region_number not in system_name_by_region_number
    ]:
        raise InputError(
            f"{table_path} lacks {len(missing_region_texts)} of the {len(atlas.name_by_region)} regions "
            f"({join_names(missing_region_texts)}); expected each. "
            f'Add them; those in no system have the system "{OUTSIDE_SYSTEM}".'
        )
    return make_region_systems(
        [system_name_by_region_number[region_number] for region_number in atlas.region_numbers],
        system_name_by_region_number.values(),
    )
