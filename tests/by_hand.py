"""A blackout as its formats say, and statistics by hand: what a table says of effects is compared with these."""

from pathlib import Path

import h5py
import lab
import numpy as np
import pandas as pd

HOSTILE = '<b>"front"</b> $\\frac{1}$ </script><script>alert(1)</script>'
REGION_NAMES = {3: HOSTILE, 4: "Frontal 4", 5: "Frontal 5", 8: "region 8"}
NAMES_IN_FILE = {
    **REGION_NAMES,
    4: "Frontal",
    5: "Frontal",
    8: "\x07",
}  # names that are alike, and one that cannot be shown
SYSTEM_BY_REGION = {3: "front", 4: "front", 5: "front", 8: "core"}
OUTSIDE_SYSTEM = "outside the regions"
REGION_PLACE_BY_PARCEL = np.array(
    [0, 1, 4, 4, 4, 4, 2, 4, 4, 4, 4, 4]
)  # of each parcel's region; region 8 holds no parcel
PARCEL_PAIRS = np.column_stack(np.triu_indices(len(REGION_PLACE_BY_PARCEL), 1))


def write_few_regions(folder: Path) -> Path:
    """A folder with an atlas of four regions, three of which are parcels, one a few voxels in another parcel; and
    systems."""
    parcels = np.asarray(lab.load_image(lab.parcels(folder / "parcels.nii.gz")).dataobj)
    labels = np.select([parcels == 1, parcels == 2, parcels == 7], [3, 4, 5], 0)
    labels[2:4, 5:7, 5:7] = 8
    lab.save(folder / "own.nii.gz", labels.astype(np.int16))
    (folder / "own.txt").write_text("".join(f"{region} {name}\n" for region, name in NAMES_IN_FILE.items()))
    pd.Series(SYSTEM_BY_REGION, name="system").rename_axis("region").to_csv(folder / "systems.csv")
    return folder


def read_blackout_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `blackout.h5`."""
    with h5py.File(folder / "blackout.h5") as file:
        return {name: dataset[()] for name, dataset in file.items()}


def read(folder: Path, name: str) -> pd.DataFrame:
    """A table of results; an empty text is no missing number."""
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])


def compute_difference(value: np.ndarray, label: np.ndarray, site: np.ndarray) -> float:
    """Autism minus control within sites, in standard deviations within site and class."""
    site_columns = (site[:, None] == np.unique(site)).astype(float)
    slope = np.linalg.lstsq(np.column_stack([label, site_columns]), value, rcond=None)[0][0]
    cells = pd.Series(value).groupby([label, site])
    return slope / np.sqrt(((value - cells.transform("mean")) ** 2).sum() / (len(value) - cells.ngroups))


def compute_family_wise_p(
    effect: np.ndarray,
    label: np.ndarray,
    widening: float,
    cluster: np.ndarray | None = None,
    permutation_count: int = 2000,
) -> np.ndarray:
    """p-values of effects (people, things) on the true class: how often the largest studentised covariance with labels
    that are permuted reaches a thing's own (Winkler et al. 2014), of which the spread is so many times wider. People of
    a unit, which are one or two, are exchanged together."""
    cluster, random = np.arange(len(label)) if cluster is None else cluster, np.random.default_rng(1)
    on_autism = np.where(label == 1, 1, -1)[:, None] * effect.astype(float)
    on_autism, centred_label = on_autism - on_autism.mean(0), label - label.mean()
    is_member = (cluster == np.unique(cluster)[:, None]).astype(float)
    members_by_unit_size = [np.argwhere(is_member[is_member.sum(1) == size])[:, 1].reshape(-1, size) for size in (1, 2)]

    def covariance(order: np.ndarray) -> np.ndarray:
        sums = is_member @ (centred_label[order][:, None] * on_autism)
        return sums.sum(0) / np.sqrt(len(is_member) * np.square(sums).sum(0))

    def permuted() -> np.ndarray:
        order = np.arange(len(label))
        for member_groups in members_by_unit_size:
            order[member_groups] = random.permuted(random.permutation(member_groups), axis=1)
        return order

    observed = covariance(np.arange(len(label)))
    observed /= np.hypot(observed, widening * np.sqrt(1 - np.square(observed)))
    return np.mean([covariance(permuted()).max() >= observed for _ in range(permutation_count)], axis=0)


def correlate_within_sites(first_values: np.ndarray, second_values: np.ndarray, site: np.ndarray) -> float:
    """Pearson's correlation of what the means of sites leave."""
    residuals = (
        pd.DataFrame({"one": first_values, "other": second_values})
        .groupby(site)
        .transform(lambda site_values: site_values - site_values.mean())
    )
    return residuals["one"].corr(residuals["other"])


def read_covariates(cohort: Path) -> pd.DataFrame:
    """What is known of people, sorted by name: site, covariates, and what the phenotype tells beside them."""
    subject_table, covariate_table, phenotype = (
        lab.read_table(cohort / f"{name}.csv").set_index("subject").sort_index().replace("", np.nan)
        for name in ("subjects", "covariates", "phenotype")
    )
    handedness = phenotype.filter(regex="^handedness_(right|left|ambidextrous|mixed)$").astype(float)
    numbers = covariate_table[["AGE_AT_SCAN", "SEX"]].astype(float)
    return numbers.assign(
        site=subject_table["site"],
        **{
            "log func_mean_fd": np.log(covariate_table["func_mean_fd"].astype(float)),
            "fiq": phenotype["fiq"].astype(float),
        },
        handedness=handedness.idxmax(axis=1).str.removeprefix("handedness_").where(handedness.any(axis=1)),
    )[["site", "AGE_AT_SCAN", "SEX", "log func_mean_fd", "fiq", "handedness"]]
