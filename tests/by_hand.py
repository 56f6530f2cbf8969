"""A blackout as its formats say, and statistics by hand: what a table says of effects is compared with these."""

from pathlib import Path

import h5py
import lab
import nibabel
import numpy as np
import pandas as pd

HOSTILE = '<b>"front"</b> $\\frac{1}$ </script><script>alert(1)</script>'
REGIONS = {3: HOSTILE, 4: "Frontal 4", 5: "Frontal 5", 8: "region 8"}
IN_FILE = {**REGIONS, 4: "Frontal", 5: "Frontal", 8: "\x07"}  # names that are alike, and one that cannot be shown
SYSTEM = {3: "front", 4: "front", 5: "front", 8: "core"}
OUTSIDE = "outside the regions"
PLACE = np.array([0, 1, 4, 4, 4, 4, 2, 4, 4, 4, 4, 4])  # of each parcel's region; region 8 holds no parcel
EDGES = np.column_stack(np.triu_indices(len(PLACE), 1))


def few_regions(folder: Path) -> Path:
    """A folder with an atlas of four regions, three of which are parcels, one a few voxels in another parcel; and
    systems."""
    parcels = np.asarray(nibabel.load(lab.parcels(folder / "parcels.nii.gz")).dataobj)
    labels = np.select([parcels == 1, parcels == 2, parcels == 7], [3, 4, 5], 0)
    labels[2:4, 5:7, 5:7] = 8
    lab.save(folder / "own.nii.gz", labels.astype(np.int16))
    (folder / "own.txt").write_text("".join(f"{region} {name}\n" for region, name in IN_FILE.items()))
    pd.Series(SYSTEM, name="system").rename_axis("region").to_csv(folder / "systems.csv")
    return folder


def stored(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `blackout.h5`."""
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items()}


def read(folder: Path, name: str) -> pd.DataFrame:
    """A table of results; an empty text is no missing number."""
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])


def difference(value: np.ndarray, label: np.ndarray, site: np.ndarray) -> float:
    """Autism minus control within sites, in standard deviations within site and class."""
    sites = (site[:, None] == np.unique(site)).astype(float)
    slope = np.linalg.lstsq(np.column_stack([label, sites]), value, rcond=None)[0][0]
    cells = pd.Series(value).groupby([label, site])
    return slope / np.sqrt(((value - cells.transform("mean")) ** 2).sum() / (len(value) - cells.ngroups))


def family_wise(
    effect: np.ndarray, label: np.ndarray, widening: float, unit: np.ndarray | None = None, count: int = 2000
) -> np.ndarray:
    """p-values of effects (people, things) on the true class: how often the largest studentised covariance with labels
    that are permuted reaches a thing's own (Winkler et al. 2014), of which the spread is so many times wider. People of
    a unit, which are one or two, are exchanged together."""
    unit, random = np.arange(len(label)) if unit is None else unit, np.random.default_rng(1)
    on_autism = np.where(label == 1, 1, -1)[:, None] * effect.astype(float)
    on_autism, apart = on_autism - on_autism.mean(0), label - label.mean()
    member = (unit == np.unique(unit)[:, None]).astype(float)
    of_size = [np.argwhere(member[member.sum(1) == size])[:, 1].reshape(-1, size) for size in (1, 2)]

    def covariance(order: np.ndarray) -> np.ndarray:
        sums = member @ (apart[order][:, None] * on_autism)
        return sums.sum(0) / np.sqrt(len(member) * np.square(sums).sum(0))

    def permuted() -> np.ndarray:
        order = np.arange(len(label))
        for people in of_size:
            order[people] = random.permuted(random.permutation(people), axis=1)
        return order

    own = covariance(np.arange(len(label)))
    own /= np.hypot(own, widening * np.sqrt(1 - np.square(own)))
    return np.mean([covariance(permuted()).max() >= own for _ in range(count)], axis=0)


def within_sites(one: np.ndarray, other: np.ndarray, site: np.ndarray) -> float:
    """Pearson's correlation of what the means of sites leave."""
    left = pd.DataFrame({"one": one, "other": other}).groupby(site).transform(lambda of: of - of.mean())
    return left["one"].corr(left["other"])


def covariates(cohort: Path) -> pd.DataFrame:
    """What is known of people, sorted by name: site, covariates, and what the phenotype tells beside them."""
    site, known, phenotype = (
        lab.read_table(cohort / f"{name}.csv").set_index("subject").sort_index().replace("", np.nan)
        for name in ("subjects", "covariates", "phenotype")
    )
    hand = phenotype.filter(regex="^handedness_(right|left|ambidextrous|mixed)$").astype(float)
    numbers = known[["AGE_AT_SCAN", "SEX"]].astype(float)
    return numbers.assign(
        site=site["site"],
        **{"log func_mean_fd": np.log(known["func_mean_fd"].astype(float)), "fiq": phenotype["fiq"].astype(float)},
        handedness=hand.idxmax(axis=1).str.removeprefix("handedness_").where(hand.any(axis=1)),
    )[["site", "AGE_AT_SCAN", "SEX", "log func_mean_fd", "fiq", "handedness"]]
