"""Cohorts whose truth is known: simulated people with planted differences, and with covariates that things carry.

Each maker writes a cohort into a new folder, from a seed. Connectomes have a parcel for each region of AAL; a
difference, or what edges carry, is added to the Fisher z of edges between chosen pairs of regions.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import pandas as pd
from scipy.stats import zscore

from data import demo
from data.cohorts import connectomes
from data.cohorts.cohort import Cohort
from data.cohorts.records import RECORD_DTYPE
from data.cohorts.stored import copy_side_tables, open_cohort, write_cohort_tables
from data.images.atlas import Atlas, load_atlas
from data.images.grids import BLOCK_EDGE, FULL, REDUCED
from data.simulation import draw_demographics
from utils.blackout.systems import AAL_SYSTEM_BY_REGION

PEOPLE = 240
EFFECT = demo.Simulation(PEOPLE).effect  # of the volume of a planted region
CORRELATION = 0.8
CARRIER = "Postcentral_L"  # of a covariate
RANDOM_STREAM = 2  # of random numbers
PLANTED_EDGES = tuple(product(("Frontal_Sup_L", "Frontal_Mid_L"), ("Temporal_Sup_R", "Temporal_Mid_R")))
CARRYING_EDGES = tuple(product(("Precuneus_L", "Parietal_Inf_L"), ("Calcarine_R", "Lingual_R")))
EDGE_EFFECT = 0.2  # autism minus control in Fisher z of an edge; what a standard deviation of a covariate adds
IQ_EFFECT = 9  # points that autism is lower
Pairs = tuple[tuple[str, str], ...]
VOLUME_COUNT, NETWORK_COUNT = 150, 12
PEOPLE_SPREAD, SITE_SPREAD, MOTION_EFFECT = (
    0.25,
    0.15,
    0.3,
)  # spread of how much of a network, and of the global signal, is there


def mirror(name: str) -> str:
    """The region on the other side."""
    return name[:-1] + {"L": "R", "R": "L"}[name[-1]]


class Suppressed(demo.Anatomy):
    """Regions correlated with their mirror images; a planted difference does not reach the mirror image."""

    inherits = False

    def draw_region_means(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        value_by_region, random = super().draw_region_means(subject, label)
        region_by_name = {name: value for value, name in self.atlas.name_by_region.items()}
        deviation = value_by_region - self.mean_falff_by_region
        for name, leading in region_by_name.items():
            is_leading = name in demo.PLANTED_REGIONS or (
                name.endswith("_L") and mirror(name) not in demo.PLANTED_REGIONS
            )
            if not is_leading or name[-1] not in "LR":
                continue
            planted_effect = (
                self.simulation.effect * (label - 0.5) * (name in demo.PLANTED_REGIONS) * (not self.inherits)
            )
            residual = deviation[region_by_name[mirror(name)]] * np.sqrt(1 - CORRELATION**2)
            deviation[region_by_name[mirror(name)]] = CORRELATION * (deviation[leading] - planted_effect) + residual
        return self.mean_falff_by_region + deviation, random


class Inherited(Suppressed):
    """The same, but the mirror image follows the planted region."""

    inherits = True


class Confounded(demo.Anatomy):
    """One more region carries a covariate alone, which goes with the diagnosis; `share` has autism.

    `strength`: log odds of autism, and spreads of the region, a standard deviation of the covariate.
    """

    share, strength = 0.5, 1.5

    @classmethod
    def covariate(cls, table: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
        """What the region carries and the diagnosis goes with, (subjects,), as it stands in the table."""
        raise NotImplementedError

    @classmethod
    def people(cls, simulation: demo.Simulation) -> tuple[pd.DataFrame, np.ndarray]:
        """The table, with labels that go with the covariate, and the covariate as z-scores (subjects,)."""
        table, random = draw_demographics(simulation), np.random.default_rng([simulation.seed, RANDOM_STREAM])
        values = zscore(cls.covariate(table, random))
        risk = cls.strength * values + random.logistic(size=len(values))
        return table.assign(label=(risk > np.quantile(risk, 1 - cls.share)).astype(float)), values

    def __init__(self, grid, simulation: demo.Simulation):
        super().__init__(grid, simulation)
        self.carried_values = self.people(simulation)[1]
        self.carrier_region = next(number for number, name in self.atlas.name_by_region.items() if name == CARRIER)

    def draw_region_means(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        region, random = super().draw_region_means(subject, label)
        region[self.carrier_region] += self.strength * self.simulation.region_spread * self.carried_values[subject]
        return region, random


class Age(Confounded):
    strength = 1.2  # more of it would be refused as a leak

    @classmethod
    def covariate(cls, table, random):
        years = random.lognormal(np.log(15), 0.35, len(table)).round(2)  # of all sites, so that donors differ in age
        table["AGE_AT_SCAN"] = years.astype(str)
        return years


class Motion(Confounded):
    @classmethod
    def covariate(cls, table, random):
        return np.log(table["func_mean_fd"].to_numpy(float))


class Site(Confounded):
    @classmethod
    def covariate(cls, table, random):
        codes, _ = pd.factorize(table["site"])
        return random.normal(size=codes.max() + 1)[codes]


class SexByAge(Age):
    """Neither sex nor age goes with the diagnosis: what age does to one sex it undoes to the other."""

    @classmethod
    def covariate(cls, table, random):
        female = random.random(len(table)) < 0.5
        table["SEX"] = np.where(female, "2", "1")
        return zscore(np.log(super().covariate(table, random))) * np.where(female, 1, -1)


class AgeBySite(Age):
    @classmethod
    def covariate(cls, table, random):
        codes, _ = pd.factorize(table["site"])
        return zscore(np.log(super().covariate(table, random))) * random.normal(size=codes.max() + 1)[codes]


class Skewed(Age):
    """Three tenths have autism, more at some sites than at others, and age goes with it; means of regions are skewed,
    and one of them carries age."""

    share = 0.3

    @classmethod
    def people(cls, simulation: demo.Simulation) -> tuple[pd.DataFrame, np.ndarray]:
        table, random = draw_demographics(simulation), np.random.default_rng([simulation.seed, RANDOM_STREAM])
        values = zscore(cls.covariate(table, random))
        codes, _ = pd.factorize(table["site"])
        risk = cls.strength * values + random.normal(size=codes.max() + 1)[codes] + random.logistic(size=len(values))
        return table.assign(label=(risk > np.quantile(risk, 1 - cls.share)).astype(float)), values

    def draw_region_means(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        region, random = super().draw_region_means(subject, label)
        tail = np.random.default_rng([self.simulation.seed, RANDOM_STREAM, subject]).exponential(size=region.shape)
        return region + 2 * self.simulation.region_spread * (tail - 1), random


class Quarter(Confounded):
    """Nothing is carried, and nothing goes with the diagnosis."""

    share = 0.25

    @classmethod
    def covariate(cls, table, random):
        return random.normal(size=len(table))

    def draw_region_means(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        return demo.Anatomy.draw_region_means(self, subject, label)


class LowerIQ(demo.Anatomy):
    """Nothing differs but the IQ of all three scales, which is lower in autism."""

    @classmethod
    def people(cls, simulation: demo.Simulation) -> tuple[pd.DataFrame, None]:
        table = draw_demographics(simulation)
        for name in ("FIQ", "VIQ", "PIQ"):
            is_measured = table[name] != "-9999"
            lower_values = table[name].astype(int) - (IQ_EFFECT * table["label"]).astype(int)
            table[name] = table[name].where(~is_measured, lower_values.astype(str))
        return table, None


def simulate_kind(folder: Path, seed: int, kind: type[demo.Anatomy], effect: float = EFFECT) -> None:
    draw_people = (lambda simulation: kind.people(simulation)[0]) if hasattr(kind, "people") else draw_demographics
    with mock.patch.object(demo, "draw_demographics", draw_people):
        demo.simulate_cohort(folder, REDUCED, demo.Simulation(PEOPLE, seed, effect), kind)


def draw_edges(atlas: Atlas, covariates: pd.DataFrame, seed: int) -> np.ndarray:
    """Fisher z (people, edges) float32 of people with these `site` and `func_mean_fd`.

    A region of AAL is a parcel. Series of all parcels share networks, which people express to different degrees and
    sites alike, and a global signal that grows with head motion; correlations of so few volumes err, together where
    edges share a parcel.
    """
    random, parcels = np.random.default_rng(seed), len(atlas.region_numbers)
    upper_triangle = np.triu_indices(parcels, 1)
    loading = random.normal(0, 0.5, (parcels, NETWORK_COUNT)) * (random.random((parcels, NETWORK_COUNT)) < 0.4)
    expression_by_site = {
        site: random.normal(0, SITE_SPREAD, NETWORK_COUNT) for site in sorted(set(covariates["site"]))
    }
    motion = np.log(covariates["func_mean_fd"].astype(float)).to_numpy()
    edges = np.empty((len(covariates), len(upper_triangle[0])), np.float32)
    for person_index, site in enumerate(covariates["site"]):
        person_loading = loading * (1 + expression_by_site[site] + random.normal(0, PEOPLE_SPREAD, NETWORK_COUNT))
        person_loading += random.normal(0, 0.1, person_loading.shape)
        global_signal_size = np.exp(
            MOTION_EFFECT * (motion[person_index] - motion.mean()) + random.normal(0, PEOPLE_SPREAD)
        )
        series = random.normal(
            size=(VOLUME_COUNT, NETWORK_COUNT)
        ) @ person_loading.T + global_signal_size * random.normal(0, 0.5, (VOLUME_COUNT, 1))
        series += random.normal(size=series.shape)
        edges[person_index] = np.arctanh(np.corrcoef(series.T)[upper_triangle])
    return edges


def select_edges(atlas: Atlas, pairs: Pairs) -> np.ndarray:
    """Which edges (edges,) bool lie between the regions of a pair."""
    index_by_name = {
        atlas.name_by_region[region]: region_index for region_index, region in enumerate(atlas.region_numbers)
    }
    pair_indices = np.sort([[index_by_name[name] for name in pair] for pair in pairs], axis=1).T
    is_chosen = np.zeros((len(index_by_name), len(index_by_name)), bool)
    is_chosen[tuple(pair_indices)] = True
    return is_chosen[np.triu_indices(len(index_by_name), 1)]


def add_connectomes(
    folder: Path, seed: int, shift_by_pairs: Mapping[Pairs, Callable[[np.ndarray], np.ndarray]]
) -> Cohort:
    """Gives the cohort in a folder such connectomes. `shift_by_pairs` tells of pairs of regions what is added to their
    edges, (people,), given the labels (people,)."""
    cohort, atlas = open_cohort(folder), load_atlas(None, FULL)
    row_by_subject = {row.subject: row for row in cohort.rows}
    covariates = cohort.covariates.assign(site=[row.site for row in row_by_subject.values()])
    values, label = draw_edges(atlas, covariates, seed), np.array([row.label for row in row_by_subject.values()])
    for pairs, compute_shift in shift_by_pairs.items():
        values[:, select_edges(atlas, pairs)] += compute_shift(label)[:, None]
    names, image = (
        tuple(atlas.name_by_region[region] for region in atlas.region_numbers),
        atlas.find_region_indices(atlas.region_labels) + 1,
    )
    image[image > len(names)] = 0
    connectomes.write_connectomes(folder / connectomes.CONNECTOMES_FILE, [*row_by_subject], names, image, values)
    parcels_sha256 = connectomes.compute_parcels_sha256(names, image, "simulated")
    metadata = replace(cohort.metadata, connectome="simulated", parcels_sha256=parcels_sha256)
    write_cohort_tables(folder, cohort.rows, metadata)
    return open_cohort(folder)


def simulate_connected(
    folder: Path, seed: int, kind: type[demo.Anatomy] = demo.Anatomy, edges: Pairs = (), effect: float = 0.0
) -> None:
    """People with connectomes. The `edges` between pairs of regions differ; `CARRYING_EDGES` carry a covariate that
    people of the kind have; the volumes of planted regions differ by `effect`."""
    simulate_kind(folder, seed, kind, effect)
    shift_by_pairs = {edges: lambda label: EDGE_EFFECT * (label - 0.5)} if edges else {}
    if issubclass(kind, Confounded):
        _, values = kind.people(demo.Simulation(subjects=PEOPLE, seed=seed))
        shift_by_pairs[CARRYING_EDGES] = lambda _: EDGE_EFFECT * values
    add_connectomes(folder, seed, shift_by_pairs)


def permute_labels(folder: Path, seed: int, real: Path) -> None:
    """A real cohort with its labels permuted over subjects."""
    cohort = open_cohort(real)
    label_by_subject = {row.subject: row.label for row in cohort.rows}
    new_label_by_subject = dict(
        zip(
            label_by_subject,
            np.random.default_rng(seed).permutation(list(label_by_subject.values())).tolist(),
            strict=True,
        )
    )
    relabel_cohort(
        folder,
        cohort,
        {record_index: new_label_by_subject[row.subject] for record_index, row in enumerate(cohort.rows)},
    )


def relabel_cohort(folder: Path, cohort: Cohort, label_by_index: Mapping[int, float]) -> None:
    """Writes the records of a cohort that have a new `label_by_index`, by their place, into a new folder."""
    folder.mkdir()
    rows = [replace(cohort.rows[record_index], label=new_label) for record_index, new_label in label_by_index.items()]
    for record_index, row in zip(label_by_index, rows, strict=True):
        content = (
            np.array(row.label, RECORD_DTYPE).tobytes() + cohort.entries[record_index].read()[RECORD_DTYPE.itemsize :]
        )
        (folder / row.file).write_bytes(content)
    copy_side_tables(cohort, folder)
    write_cohort_tables(folder, rows, cohort.metadata)


class OneMap(demo.Anatomy):
    """Maps that are drawn apart; one region of one of them differs, by twice the usual effect."""

    maps = tuple(f"map_{map_number}" for map_number in range(5))
    planted_map, planted_region = "map_3", "Precuneus_R"

    def __init__(self, grid, simulation: demo.Simulation):
        super().__init__(grid, simulation)
        effects = [2 * simulation.effect * (name == self.planted_map) for name in self.maps]
        seeds = [1000 + 100 * simulation.seed + map_number for map_number in range(len(self.maps))]
        map_simulations = [
            replace(simulation, seed=seed, effect=map_setting) for seed, map_setting in zip(seeds, effects, strict=True)
        ]
        self.anatomies = [demo.Anatomy(grid, map_setting) for map_setting in map_simulations]
        for anatomy in self.anatomies:
            anatomy.planted_region_numbers = [
                number for number, name in self.atlas.name_by_region.items() if name == self.planted_region
            ]

    def draw_map_volumes(self, subject: int, label: float) -> list[np.ndarray]:
        return [anatomy.draw_volume(subject, label) for anatomy in self.anatomies]


KIND_BY_SCENARIO = {"motion": Motion, "site": Site, "sex-age": SexByAge, "age-site": AgeBySite, "25/75": Quarter}


def write_few_aal(folder: Path, count: int) -> Path:
    """A label image of so many regions of AAL: those that differ or carry something first, then one of each system."""
    atlas, edge_regions = load_atlas(None, FULL), [name for pair in (*PLANTED_EDGES, *CARRYING_EDGES) for name in pair]
    first_regions = dict.fromkeys((*demo.PLANTED_REGIONS, CARRIER, *edge_regions, *map(mirror, demo.PLANTED_REGIONS)))
    ordered_regions = list(dict.fromkeys((*first_regions, *atlas.name_by_region.values())))
    region_by_system = {AAL_SYSTEM_BY_REGION[name]: name for name in reversed(ordered_regions)}
    names = list(dict.fromkeys((*first_regions, *region_by_system.values(), *ordered_regions)))[:count]
    chosen = [region for region, name in atlas.name_by_region.items() if name in names]
    reduced = load_atlas(
        None, REDUCED
    ).region_labels  # whose blocks it fills: else regions grow where others are left out
    blocks = reduced[np.ix_(*((np.arange(length) + 1) // BLOCK_EDGE for length in FULL.shape))]
    image = nibabel.Nifti1Image(np.where(np.isin(blocks, chosen), blocks, 0).astype(np.int16), FULL.affine)
    nibabel.save(image, folder / "few.nii.gz")
    (folder / "few.txt").write_text("".join(f"{region} {atlas.name_by_region[region]}\n" for region in chosen))
    return folder / "few.nii.gz"
