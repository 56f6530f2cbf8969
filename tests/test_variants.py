"""Cohorts read otherwise than they are stored: nothing of a tested person reaches training, volumes are standardised as
by scikit-learn. What a network was given is read in its checkpoint."""

import json
from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest
from conftest import CONVERT_OPTIONS, TINY_TRAINING
from helpers import assert_bit_equal, read_variables
from lab import read_record, read_table
from sklearn.preprocessing import StandardScaler

CUBES, EDGES = (11, 13, 11, 2), (66,)  # shapes of the moments of a network that reads two maps, and a connectome


def read_moments(folder: Path, shape: tuple[int, ...], spread: str = "spread") -> tuple[np.ndarray, np.ndarray]:
    """The mean and the spread by which a network standardises values of this shape."""
    values_by_moment = {
        name.split("/")[-3]: values for name, values in read_variables(folder).items() if values.shape == shape
    }
    return values_by_moment["mean"], values_by_moment[spread]


def read_record_volumes(cohort: Path, names: list[str]) -> np.ndarray:
    """(records, x, y, z, maps) float64."""
    return np.moveaxis(np.array([read_record(cohort / name, 2)[2] for name in names]), 1, -1).astype(float)


def check_moments(folder: Path, cubes: np.ndarray) -> None:
    """Those by which a network standardises cubes are those of these, but for cubes at the border."""
    mean, spread, cubes = (
        cube_values[..., 1:-1, 1:-1, 1:-1, :] for cube_values in (*read_moments(folder, CUBES), cubes)
    )
    np.testing.assert_allclose(mean, cubes.mean(0), atol=1e-4)
    varied = cubes.std(0) > 0.01
    assert varied.sum() > 500
    np.testing.assert_allclose(spread[varied], cubes.std(0)[varied], rtol=1e-3)


def standardise_within_brains(volumes: np.ndarray) -> np.ndarray:
    """Each map of each record by scikit-learn; its corner is no brain."""
    scores = np.zeros(volumes.shape)
    for record, map_index in np.ndindex(len(volumes), 2):
        volume = volumes[record, ..., map_index]
        brain = np.abs(volume - volume[0, 0, 0]) > 1e-4 * np.ptp(volume)
        scores[record, brain, map_index] = StandardScaler().fit_transform(volume[brain][:, None])[:, 0]
    return scores


def compute_cube_means(volumes: np.ndarray) -> np.ndarray:
    """Means of cubes of three voxels on the grid with a voxel more on each side, which holds the background."""
    outside = volumes[:, :1, :1, :1]
    padded = np.tile(outside, (1, 33, 39, 33, 1))
    padded[:, 1:-1, 1:-1, 1:-1] = volumes
    return padded.reshape(len(volumes), 11, 3, 13, 3, 11, 3, 2).mean((2, 4, 6))


@pytest.mark.slow
@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_is_prepared_on_training_people_only(fold, converted, on_folds):
    """Phenotype, volumes and connectomes, against the tables and records of the cohort."""
    folder = on_folds / f"ckpt/mmnn/folds-3/{fold}"
    saved = read_manifest(folder)
    rows = read_table(converted / "subjects.csv").set_index("subject")
    training = saved["people"]["subjects"]
    assert 20 < len(training) < 30 and {*training} < {*rows.index}
    raw = read_table(converted / "phenotype.csv").set_index("subject").loc[training].apply(pd.to_numeric)
    median = raw.median().fillna(0)
    filled, prepared = raw.fillna(median), saved["preparation"]
    assert prepared["phenotype_median"] == pytest.approx(median.tolist())
    assert prepared["phenotype_mean"] == pytest.approx(filled.mean().tolist())
    assert prepared["phenotype_scale"] == pytest.approx(filled.std(ddof=0).tolist())
    cubes = compute_cube_means(
        standardise_within_brains(read_record_volumes(converted, rows["file"][training].tolist()))
    )
    check_moments(folder, cubes)
    with h5py.File(converted / "connectomes.h5") as file:
        edges = pd.DataFrame(file["z"][:], [name.decode() for name in file["subject"]]).loc[training].astype(float)
    np.testing.assert_allclose(read_moments(folder, EDGES, "scale")[0], edges.mean(), atol=1e-5)


@pytest.mark.slow
def test_changes_to_tested_people_change_no_weight(lab, on_folds, tmp_path):
    """Their phenotype tells the label, their maps and series are those of others."""
    training = read_manifest(on_folds / "ckpt/mmnn/folds-3/1")["people"]["subjects"]
    people = labs.people(40)
    tested = ~people["SUB_ID"].isin(training)
    people.loc[tested, "AGE_AT_SCAN"] = people["DX_GROUP"].map({"1": "10", "2": "30"})
    folder = labs.pcp(tmp_path / "lab", people, ("falff", "alff"), series=True)
    for of in people[tested].to_dict("records"):
        stranger = of | {"SUB_ID": f"9{of['SUB_ID']}"}
        for number, name in enumerate(("falff", "alff")):
            labs.save(folder / f"cpac/{of['FILE_ID']}_{name}.nii.gz", labs.make_map(stranger, number))
        series = labs.make_series(stranger)
        series.to_csv(folder / f"cpac/{of['FILE_ID']}_rois_made.1D", sep="\t", index=False)
    done(f"abide-data convert {{lab}} {{to}}/cohort {CONVERT_OPTIONS}", lab=folder, to=tmp_path)
    places = "--dataDir {to}/cohort --chkPointDir {to}/ckpt --outDir {to}/train"
    done(f"run.py --train {TINY_TRAINING} --folds 3 --fold 1 {places}", to=tmp_path)
    assert_bit_equal(*(of / "ckpt/mmnn/folds-3/1" for of in (tmp_path, on_folds)))


# Standards of volumes


def load_standardised(cohort: Path, how: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The records of a cohort and their volumes. A site is standardised by its own people whatever their labels and
    split, swapped records not among them."""
    rows = read_table(cohort / "subjects.csv")
    volumes = read_record_volumes(cohort, rows["file"].tolist())
    if how == "stored":
        return rows, volumes
    volumes = standardise_within_brains(volumes)
    if how == "site":
        people, site = ~rows["file"].str.contains("_swap_"), rows["site"]
        for name in site.unique():
            scaler = StandardScaler().fit(volumes[people & (site == name)].reshape(sum(people & (site == name)), -1))
            site_volumes = volumes[site == name]
            volumes[site == name] = scaler.transform(site_volumes.reshape(len(site_volumes), -1)).reshape(
                site_volumes.shape
            )
    return rows, volumes


@pytest.fixture(scope="module")
def swapped_maps(converted, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("swapped") / "cohort"
    done("abide-data swap {of} {to} --copies 1 --regions 20", of=converted, to=to)
    return to


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, name", [("stored", "converted"), ("brain", "converted"), ("site", "converted"), ("site", "swapped_maps")]
)
def test_volumes_are_standardised_as_by_scikit_learn(how, name, request, tmp_path):
    """Seen by the moments of cubes over the training records."""
    cohort = request.getfixturevalue(name)
    words = f"--model cnn --numIters 1 --set batch_size=8 --set members=1 --set standardise={how}"
    places = "--dataDir {of} --chkPointDir {to}/ckpt"
    done(f"run.py --train {words} {places} --outDir {{to}}/train", of=cohort, to=tmp_path)
    rows, volumes = load_standardised(cohort, how)
    cubes = compute_cube_means(volumes[rows["split"] == "train"])
    check_moments(tmp_path / "ckpt/cnn", cubes)
    if (how, name) == ("site", "converted"):  # which looked at tested people, and says so
        printed_text = done(f"run.py --test --model cnn {places} --outDir {{to}}/test", of=cohort, to=tmp_path)
        assert "TRANSDUCTIVE" in printed_text and "TRANSDUCTIVE" in (tmp_path / "test/report.html").read_text()
        assert read_manifest(tmp_path / "test")["transductive"] is True
        assert json.loads((tmp_path / "test/metrics.json").read_text())["transductive"] is True
        assert all("TRANSDUCTIVE" in text for text in read_table(tmp_path / "runs.csv")["cohort"])
