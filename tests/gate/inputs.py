"""The people whom both codes work on, made up from a seed, each in the layout in which a lab would have them."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

SHAPE, VOLUMES, TR_S = (8, 10, 8), 100, 2.0
AFFINE = np.array([[-24.0, 0, 0, 84], [0, 24, 0, -120], [0, 0, 24, -66], [0, 0, 0, 1]])
FINE = np.array([[-6.0, 0, 0, 90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])
RIGHT_MM = [(46, 29, 13), (34, 31, 31), (40, -20, 52), (28, -62, 48), (52, -22, -6), (22, -78, 12)]
CENTRES_MM = np.array([(side * x, y, z) for x, y, z in RIGHT_MM for side in (-1, 1)])
PARCELS = len(CENTRES_MM)
SITES = ("PITT", "NYU", "USM", "YALE")
SETTINGS = "--set members=1 --set batch_size=8\n--set members=1 --set batch_size=4\n"


def make(home: Path) -> None:
    """All that the steps read, in a new folder."""
    write_lab(home / "lab", people(40, 50002))
    write_lab(home / "new", people(12, 60002))
    write_lab(home / "few", people(6, 70002))
    write_scans(home / "bold")
    save(home / "parcels.nii.gz", parcels(), FINE)
    (home / "candidates.txt").write_text(SETTINGS)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """A NIfTI file; a fourth axis is time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim > 3:
        image.header["pixdim"][4] = TR_S
    nibabel.save(image, path)


def brain() -> np.ndarray:
    """An ellipsoid (x, y, z) bool."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij")
    return sum(np.square(axes)) < 0.85


def parcels() -> np.ndarray:
    """Balls of 12 mm around the centres, (x, y, z) int16, from 1."""
    shape = (31, 37, 31)
    place_mm = nibabel.affines.apply_affine(FINE, np.moveaxis(np.indices(shape), 0, -1))
    distance_mm = np.linalg.norm(place_mm[..., None, :] - CENTRES_MM, axis=-1)
    return np.where(distance_mm.min(-1) <= 12, 1 + distance_mm.argmin(-1), 0).astype(np.int16)


def people(count: int, first: int) -> pd.DataFrame:
    """An ABIDE-like table of people of four sites, a fifth of whose values are missing, as an empty cell or -9999."""
    random, number = np.random.default_rng(first), np.arange(count)

    def some(values: object, missing: object = "") -> np.ndarray:
        return np.where(random.random(count) < 0.8, np.asarray(values, object), missing)

    table = {
        "SUB_ID": first + number,
        "SITE_ID": np.resize(SITES, count),
        "FILE_ID": [f"X_00{subject}" for subject in first + number],
        "DX_GROUP": 1 + number // len(SITES) % 2,
        "AGE_AT_SCAN": random.uniform(7, 40, count).round(2),
        "SEX": random.integers(1, 3, count),
        "HANDEDNESS_CATEGORY": some(random.choice(["R", "L", "Ambi"], count)),
        "HANDEDNESS_SCORES": some(random.integers(-100, 101, count), -9999),
        **{name: some(random.integers(80, 130, count)) for name in ("FIQ", "VIQ", "PIQ")},
        "FIQ_TEST_TYPE": some(random.choice(["WASI", "WISC_III", "WAIS_III"], count)),
        "EYE_STATUS_AT_SCAN": random.integers(1, 3, count),
        "BMI": some(random.uniform(17, 31, count).round(1), -9999),
        **{f"WISC_IV_{index}": some(random.integers(80, 120, count)) for index in ("VCI", "PRI", "WMI", "PSI")},
        "func_mean_fd": random.lognormal(-2.3, 0.5, count).round(5),
        "hand": random.choice(["right", "left", "both"], count),
        "iq": some(random.integers(80, 130, count)),
    }
    return pd.DataFrame(table)


def write_lab(folder: Path, table: pd.DataFrame) -> None:
    """The PCP layout of these people: two maps, and the series of the parcels. In autism left exceeds right in both
    maps, and two parcels agree."""
    folder.mkdir(parents=True)
    table.to_csv(folder / "Phenotypic.csv", index=False)
    for subject, name, group in zip(table["SUB_ID"], table["FILE_ID"], table["DX_GROUP"], strict=True):
        random, autism = np.random.default_rng(int(subject)), group == 1
        side = np.where(np.arange(SHAPE[0]) < SHAPE[0] // 2, 0.1, -0.1)[:, None, None]
        for scale, kind in ((1, "falff"), (50, "alff")):
            values = (random.uniform(0.2, 1, SHAPE).round(2) * (1 + autism * side)).clip(0.2, 1)
            save(folder / f"cpac/{name}_{kind}.nii.gz", (scale * values * brain()).astype(np.float32))
        series = random.normal(size=(60, PARCELS)) + random.normal(size=(60, 1))
        series[:, 1] += autism * series[:, 0]
        names = [f"#{number + 1}" for number in range(PARCELS)]
        pd.DataFrame(series, columns=names).to_csv(
            folder / f"cpac/{name}_rois_made.1D", sep="\t", index=False, float_format="%.5f"
        )


def write_scans(folder: Path) -> None:
    """What fMRIPrep leaves of four people: 4-D scans of noise that is partly slow and shared, masks, confounds."""
    mask = brain()
    for subject in range(1, 5):
        random = np.random.default_rng(subject)
        noise = random.normal(size=(*SHAPE, VOLUMES)) + random.normal(size=VOLUMES)
        slow = np.apply_along_axis(np.convolve, 3, noise, np.ones(5) / 5, "same")
        name = folder / f"sub-{subject}/func/sub-{subject}_task-rest"
        space = f"{name}_space-MNI152NLin6Asym_desc"
        save(Path(f"{space}-preproc_bold.nii.gz"), ((1000 + 5 * (noise + 3 * slow)) * mask[..., None]).astype("f4"))
        save(Path(f"{space}-brain_mask.nii.gz"), mask.astype(np.uint8))
        Path(f"{space}-preproc_bold.json").write_text(json.dumps({"RepetitionTime": TR_S}))
        of_scan = confounds(random)
        of_scan.to_csv(f"{name}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")
    groups = {"participant_id": [f"sub-{subject}" for subject in range(1, 5)], "group": [*"ACAC"]}
    pd.DataFrame(groups).to_csv(folder / "participants.tsv", sep="\t", index=False)


def confounds(random: np.random.Generator) -> pd.DataFrame:
    """The columns that nilearn's strategies read; two volumes moved too far."""
    table = pd.DataFrame({"framewise_displacement": random.uniform(0.05, 0.2, VOLUMES), "std_dvars": 1.0})
    table.loc[[20, 60], "framewise_displacement"] = 2.0
    for name in (*(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"), "csf", "white_matter"):
        table[name] = random.normal(size=VOLUMES)
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
    return table.assign(cosine00=np.cos(np.pi * (np.arange(VOLUMES) + 0.5) / VOLUMES))
