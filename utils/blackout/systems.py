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
from data.base.tables import make_printable
from data.cohorts.atlas import Atlas, find_dominant_places, read_label_image
from data.cohorts.rows import join_names

OUTSIDE = "outside the regions"  # the system of parcels that lie in no region
IMAGES = (".nii", ".nii.gz")
COLUMNS = ("region", "system")
HEMISPHERES = {"L": "left", "R": "right"}
LOBES = {  # names of regions without their hemisphere
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
VERMIS = "Vermis_1_2 Vermis_3 Vermis_4_5 Vermis_6 Vermis_7 Vermis_8 Vermis_9 Vermis_10"
AAL = {  # the system of each region, by its name
    f"{region}_{side}": f"{lobe} {hemisphere}"
    for lobe, regions in LOBES.items()
    for side, hemisphere in HEMISPHERES.items()
    for region in regions.split()
} | dict.fromkeys(VERMIS.split(), "vermis")


@dataclass(frozen=True, eq=False)
class Systems:
    """`names` in order, the last is that of parcels outside all regions. `of_region` (regions + 1,) int is the system
    of each region by its place in `atlas.make_region_parcels`, at the end that of no region."""

    names: tuple[str, ...]
    of_region: np.ndarray

    @property
    def of_each(self) -> list[str]:
        """The name of the system of each region, at the end that of no region."""
        return [self.names[at] for at in self.of_region]

    @property
    def are_regions(self) -> bool:
        """Whether each region is a system of its own."""
        return len(np.unique(self.of_region)) == len(self.of_region) == len(self.names)

    @property
    def unplaced(self) -> np.ndarray:
        """The places of regions that no system holds."""
        return np.flatnonzero(self.of_region[:-1] == self.of_region[-1])


def systems_of(atlas: Atlas, path: Path | None) -> Systems:
    """The systems that a file tells; of AAL its lobes; else each region is its own. Raises InputError for a file that
    is neither a label image nor a table of all regions."""
    if path is not None:
        is_image = path.name.lower().endswith(IMAGES)
        return by_majority(atlas, *read_label_image(path)) if is_image else by_table(atlas, path)
    names = [atlas.name_by_region[region] for region in atlas.region_numbers]
    if AAL.keys() >= set(names):
        return systems([AAL[name] for name in names], [AAL[name] for name in AAL if name in names])
    return Systems((*names, OUTSIDE), np.arange(len(names) + 1))


def systems(of_regions: Sequence[str], known: Iterable[str]) -> Systems:
    """Of the name of each region's system, and of the known systems in their order."""
    names = [*dict.fromkeys(name for name in known if name != OUTSIDE), OUTSIDE]
    return Systems(tuple(names), np.array([names.index(name) for name in (*of_regions, OUTSIDE)]))


def by_majority(atlas: Atlas, labels: np.ndarray, named: dict[int, str]) -> Systems:
    """A region belongs to the system that holds more of its voxels on the full grid than any other, and than lie
    outside. Without such a system it is outside. `labels` (91, 109, 91) of one name are one system."""
    names = {label: make_printable(name) or f"system {label}" for label, name in named.items()}
    known = [*dict.fromkeys(names.values())]
    values, at = np.unique(labels, return_inverse=True)
    places = np.array([known.index(names[label]) if label else len(known) for label in values.tolist()])
    held = find_dominant_places(
        atlas.full_region_indices, len(atlas.region_numbers), places[at].reshape(labels.shape), len(known)
    )
    return systems([[*known, OUTSIDE][place] for place in held], known)


def by_table(atlas: Atlas, path: Path) -> Systems:
    """A table (CSV or TSV) with the columns region, its name or number, and system. Raises InputError for a region that
    is unknown, there twice, or missing."""
    from data.conversion.tables import read_text_table, select_column  # pandas, which `--help` can do without

    table, found = read_text_table(path), dict[int, str]()
    regions = {str(region): region for region in atlas.region_numbers} | {
        name: one for one, name in atlas.name_by_region.items()
    }
    for name, system in zip(*(select_column(table, name, path) for name in COLUMNS), strict=True):
        if name not in regions:
            raise InputError(f"{path} names the region {name}; expected one of the atlas, or its number.")
        if regions[name] in found:
            raise InputError(f"{path} names the region {name} twice; expected each once. Remove a row.")
        if not system:
            raise InputError(f"{path} has no system for the region {name}; expected a name. Fill it in.")
        found[regions[name]] = make_printable(system)
    if missing := [f"{region} {name}" for region, name in sorted(atlas.name_by_region.items()) if region not in found]:
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(atlas.name_by_region)} regions ({join_names(missing)}); expected "
            "each. "
            f'Add them; those in no system have the system "{OUTSIDE}".'
        )
    return systems([found[region] for region in atlas.region_numbers], found.values())
