"""What a simulated cohort is drawn from: the table of its subjects, the anatomy they share, and their volumes.

fALFF is simulated on the real AAL anatomy, with a group difference planted in four regions. Every value is drawn from a
seeded generator; nothing is taken from a real person. Sites, ages, sex and IQ are drawn to look like ABIDE's.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.images import atlas, brain, grids
from data.tables import phenotype as phenotype_table
from data.tables import vocabulary

PLANTED_REGIONS = ("Frontal_Mid_L", "Precuneus_R", "Temporal_Mid_R", "Cerebelum_Crus1_L")
# ABIDE's sites with their share of subjects and mean age in years, rounded
PERCENT_AND_MEAN_AGE_BY_SITE = {
    "NYU": (18, 15), "UM_1": (11, 13), "USM": (10, 22), "UCLA_1": (8, 13), "PITT": (6, 19), "YALE": (6, 13),
    "MAX_MUN": (6, 26), "KKI": (6, 10), "TRINITY": (5, 17), "STANFORD": (5, 10), "CALTECH": (4, 28), "OLIN": (4, 17),
    "SDSU": (4, 14), "LEUVEN_1": (3, 22), "SBL": (3, 34), "OHSU": (3, 11),
}  # fmt: skip
MALE_FRACTION = 0.85
HANDEDNESS_FREQUENCIES = {"R": 0.75, "L": 0.08, "Ambi": 0.02, "Mixed": 0.01, "": 0.14}  # shares
IQ_SCALES = ("FIQ", "VIQ", "PIQ")  # columns
IQ_TEST_FREQUENCIES = {"WASI": 0.5, "WISC_IV_FULL": 0.3, "WAIS_III": 0.1, "DAS_II_SA": 0.1}
MOTION_SEED = 1  # the stream of random numbers for head motion


@dataclass(frozen=True)
class Simulation:
    """What is drawn. Spreads and effects are in units of fALFF, which lies between 0 and 1."""

    subjects: int
    seed: int = 0
    effect: float = 0.05  # autism minus control in each planted region
    region_spread: float = 0.04  # between subjects, of a region's mean
    subject_spread: float = 0.02  # between subjects, of the whole brain
    voxel_spread: float = 0.04  # within a subject, smooth at about 12 mm
    unknown: float = 1.0  # how often IQ and handedness are unknown, relative to ABIDE


# 150 are tested, so that the difference in each region shows in half of them, too (docs/howto/cohort.md).
SIMULATIONS = {"full": Simulation(subjects=64), "reduced": Simulation(subjects=1500, effect=0.055, unknown=0.3)}


def make_subject_ids(simulation: Simulation) -> list[str]:
    """The subjects: `0000001`, ..."""
    return [f"{subject_number:07d}" for subject_number in range(1, simulation.subjects + 1)]


def draw_demographics(simulation: Simulation) -> pd.DataFrame:
    """ABIDE's columns as text, and subject, site, label; a row a subject. Head motion is unrelated to all else."""
    random_generator = np.random.default_rng(simulation.seed)  # the order of draws decides the values
    subject_count = simulation.subjects

    subject_sites = draw_sites(subject_count, random_generator)
    labels = random_generator.permutation(np.arange(subject_count) % 2)

    iq_values_per_scale = [random_generator.normal(108, 14, subject_count).round().astype(int) for _ in IQ_SCALES]

    site_mean_ages_years = np.array([PERCENT_AND_MEAN_AGE_BY_SITE[site][1] for site in subject_sites])  # (subjects,)
    ages_years = site_mean_ages_years * random_generator.lognormal(0, 0.2, subject_count)
    column_by_name = {
        "subject": make_subject_ids(simulation),
        "site": subject_sites,
        "label": labels.astype(float),
        "AGE_AT_SCAN": np.clip(ages_years, 6, 64).round(2),
        "SEX": np.where(random_generator.random(subject_count) < MALE_FRACTION, 1, 2),
    }

    column_by_name["HANDEDNESS_CATEGORY"] = draw_handedness(simulation, random_generator)
    has_handedness_score = random_generator.random(subject_count) < 0.2
    handedness_scores = random_generator.integers(-100, 101, subject_count)
    column_by_name["HANDEDNESS_SCORES"] = np.where(has_handedness_score, handedness_scores, -9999)

    for iq_scale, iq_values in zip(IQ_SCALES, iq_values_per_scale, strict=True):
        is_unknown_iq = random_generator.random(subject_count) < 0.1 * simulation.unknown
        column_by_name[iq_scale] = np.where(is_unknown_iq, -9999, iq_values)
    column_by_name["FIQ_TEST_TYPE"] = random_generator.choice(
        list(IQ_TEST_FREQUENCIES), subject_count, p=list(IQ_TEST_FREQUENCIES.values())
    )
    wisc_columns = [f"WISC_IV_{wisc_index}" for wisc_index in phenotype_table.WISC_INDICES]
    for wisc_column in wisc_columns:
        column_by_name[wisc_column] = random_generator.normal(104, 14, subject_count).round()

    column_by_name["EYE_STATUS_AT_SCAN"] = np.where(random_generator.random(subject_count) < 0.66, 1, 2)
    column_by_name["BMI"] = random_generator.normal(25, 4, subject_count).round(1)
    demographic_table = pd.DataFrame(column_by_name)
    demographic_table = demographic_table.astype(dict.fromkeys(phenotype_table.ABIDE_PHENOTYPE_COLUMNS, str))

    # few people have these
    demographic_table.loc[random_generator.random(subject_count) > 0.06, wisc_columns] = ""
    demographic_table.loc[random_generator.random(subject_count) > 0.03, "BMI"] = "-9999"

    head_motion_mm = np.random.default_rng([simulation.seed, MOTION_SEED]).lognormal(np.log(0.1), 0.5, subject_count)
    return demographic_table.assign(SITE_ID=subject_sites, func_mean_fd=head_motion_mm.round(4).astype(str))


def draw_sites(subject_count: int, random_generator: np.random.Generator) -> np.ndarray:
    """The site of each subject (subjects,), with ABIDE's shares."""
    site_percentages = np.array([percent for percent, _ in PERCENT_AND_MEAN_AGE_BY_SITE.values()], float)
    site_frequencies = site_percentages / site_percentages.sum()
    return random_generator.choice(list(PERCENT_AND_MEAN_AGE_BY_SITE), subject_count, p=site_frequencies)


def draw_handedness(simulation: Simulation, random_generator: np.random.Generator) -> np.ndarray:
    """The category of each subject (subjects,), empty where unknown."""
    category_weights = HANDEDNESS_FREQUENCIES | {"": simulation.unknown * HANDEDNESS_FREQUENCIES[""]}
    category_frequencies = np.array(list(category_weights.values())) / sum(category_weights.values())
    return random_generator.choice(list(category_weights), simulation.subjects, p=category_frequencies)


class Anatomy:
    """What all simulated subjects of a grid share: the brain, the regions and their mean fALFF, and which maps they
    have."""

    maps: tuple[str, ...] = ("falff",)

    def __init__(self, grid: grids.Grid, simulation: Simulation):
        from scipy import ndimage

        self.grid = grid
        self.simulation = simulation
        self.ndimage = ndimage
        self.atlas = atlas.load_atlas(None, grid)
        # (x, y, z) bool
        self.is_brain = ndimage.binary_closing(np.pad(self.atlas.region_labels > 0, 4), iterations=3)[4:-4, 4:-4, 4:-4]
        region_number_by_name = {
            region_name: region_number for region_number, region_name in self.atlas.name_by_region.items()
        }
        self.planted_region_numbers = [region_number_by_name[region_name] for region_name in PLANTED_REGIONS]
        random_generator = np.random.default_rng([simulation.seed, vocabulary.PHENOTYPE_SIZE])
        # (regions + 1,) by region number
        self.mean_falff_by_region = random_generator.normal(0.45, 0.05, len(self.atlas.name_by_region) + 1)
        self.mean_falff_by_region[0] = 0.30  # white matter has less slow signal than grey

    def draw_region_means(self, subject_index: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        """One subject's mean fALFF in each region (regions + 1,), and the generator that draws the rest."""
        simulation = self.simulation
        random_generator = np.random.default_rng([simulation.seed, subject_index + 1000])
        region_means = self.mean_falff_by_region + random_generator.normal(
            0, simulation.region_spread, self.mean_falff_by_region.shape
        )
        region_means[self.planted_region_numbers] += simulation.effect * (label - 0.5)
        return region_means, random_generator

    def draw_map_volumes(self, subject_index: int, label: float) -> list[np.ndarray]:
        """One subject's volume of each of `maps`."""
        return [self.draw_volume(subject_index, label)]

    def draw_volume(self, subject_index: int, label: float) -> np.ndarray:
        """One subject's normalised volume (x, y, z) float32; the same subject on either grid."""
        simulation = self.simulation
        region_means, random_generator = self.draw_region_means(subject_index, label)
        noise = self.ndimage.gaussian_filter(random_generator.normal(size=grids.REDUCED.shape), 0.85)
        noise *= simulation.voxel_spread / noise.std()
        if self.grid == grids.FULL:
            noise = self.ndimage.zoom(noise, grids.BLOCK_EDGE, order=1, grid_mode=True, mode="nearest")
            noise = noise[tuple(slice(1, 1 + axis_length) for axis_length in self.grid.shape)]
        # (x, y, z), before clipping and z-scoring
        falff_volume = (
            region_means[self.atlas.region_labels] + random_generator.normal(0, simulation.subject_spread) + noise
        )
        return brain.z_score_volume(np.where(self.is_brain, np.clip(falff_volume, 0, 1), 0))
