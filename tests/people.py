"""A made-up lab: an ABIDE-like table of people and their coarse maps, in the layout of PCP."""

from pathlib import Path

import nibabel
import numpy as np
from helpers import COARSE, brain_map, write_rows

COUNT = 40


def phenotype_rows() -> list[dict]:
    """An ABIDE-like table of 40 people with random values, some missing; `hand` and `iq` are for --phenotype."""
    random, rows = np.random.default_rng(7), []
    for number in range(COUNT):
        known = random.random(8) < 0.8
        rows.append(
            {
                "SUB_ID": str(50002 + number),
                "SITE_ID": ("PITT", "NYU", "USM")[number % 3],
                "FILE_ID": f"X_00{50002 + number}",
                "DX_GROUP": str(1 + number // 2 % 2),
                "AGE_AT_SCAN": f"{random.uniform(7, 40):.2f}",
                "SEX": str(random.integers(1, 3)),
                "HANDEDNESS_CATEGORY": random.choice(["R", "L", "Ambi", ""]),
                "HANDEDNESS_SCORES": str(random.integers(-100, 101)) if known[0] else "-9999",
                **{
                    name: str(random.integers(80, 130)) if known[at] else ""
                    for at, name in enumerate(("FIQ", "VIQ", "PIQ"), 1)
                },
                "FIQ_TEST_TYPE": random.choice(["WASI", "WISC_III", "WAIS_III", ""]),
                "EYE_STATUS_AT_SCAN": str(random.integers(1, 3)),
                "BMI": f"{random.uniform(17, 31):.1f}" if known[4] else "-9999",
                **{f"WISC_IV_{index}": "" for index in ("VCI", "PRI", "WMI", "PSI")},
                "func_mean_fd": f"{random.lognormal(-2.3, 0.5):.5f}",
                "hand": random.choice(["right", "left", "both"]),
                "iq": str(random.integers(80, 130)) if known[5] else "",
            }
        )
    return rows


ROWS = phenotype_rows()


def renamed(count: int, first: int = 60002) -> list[dict]:
    """Rows of people whom nobody has seen, with new IDs."""
    return [row | {"SUB_ID": str(first + at), "FILE_ID": f"X_00{first + at}"} for at, row in enumerate(ROWS[:count])]


def write_people(folder: Path, rows: list[dict], drop: tuple = (), change=lambda values: values) -> Path:
    """The PCP layout of these rows, without the columns to `drop`, maps of 24 mm changed by `change`."""
    maps = folder / "cpac"
    maps.mkdir(parents=True)
    for row in rows:
        values = change(brain_map((8, 10, 8), int(row["SUB_ID"])))
        nibabel.save(nibabel.Nifti1Image(values, COARSE), maps / f"{row['FILE_ID']}_falff.nii.gz")
    kept = [{name: value for name, value in row.items() if name not in drop} for row in rows]
    write_rows(folder / "Phenotypic.csv", kept)
    return folder


SHAPE, PARCELS = (8, 10, 8), 12


def write_lab(folder: Path, rows: list[dict]) -> Path:
    """These people with two maps, and the series of 12 parcels `rois_made`; returns the image of the parcels. In autism
    left exceeds right, and two parcels agree."""
    write_people(folder, rows)
    for row in rows:
        random, autism = np.random.default_rng(int(row["SUB_ID"])), row["DX_GROUP"] == "1"
        sides = 1 + autism * np.where(np.arange(SHAPE[0]) < SHAPE[0] // 2, 0.08, -0.08)[:, None, None]
        for number, name in enumerate(("falff", "alff")):
            drawn = brain_map(SHAPE, 1000 * number + int(row["SUB_ID"]))
            values = (1 + 49 * number) * np.clip(sides * drawn, 0.2 * (drawn > 0), 1)  # the extremes tell nothing
            nibabel.save(nibabel.Nifti1Image(values, COARSE), folder / f"cpac/{row['FILE_ID']}_{name}.nii.gz")
        series = random.normal(size=(60, PARCELS)) + random.normal(size=(60, 1))
        series[:, 1] += autism * series[:, 0]
        names = "\t".join(f"#{number}" for number in range(1, PARCELS + 1))
        np.savetxt(folder / f"cpac/{row['FILE_ID']}_rois_made.1D", series, "%.5f", "\t", header=names, comments="")
    parcel = np.indices(SHAPE) // np.reshape((4, 4, 4), (3, 1, 1, 1))
    labels = 1 + np.ravel_multi_index(tuple(parcel), (2, 3, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, COARSE), folder / "parcels.nii.gz")
    return folder / "parcels.nii.gz"
