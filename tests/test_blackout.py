"""--blackout: effects against a loop by hand, their sign, and what is written."""

import h5py
import numpy as np
import pytest
from conftest import read_rows

from data import atlas
from data.cohort import open_cohort
from data.grids import REDUCED
from models import cnn
from models.settings import from_json
from utils.checkpoints import CheckpointFolder, restore_weights

NUM_REGIONS = 116


@pytest.fixture(scope="module")
def blacked_out(cli, trained, cohort, tmp_path_factory):
    """The folder of a blackout of the tiny cnn, and what it printed."""
    folder = tmp_path_factory.mktemp("blackout")
    places = ("--chkPointDir", trained, "--dataDir", cohort, "--outDir", folder)
    outcome = cli("--blackout", "--model", "cnn", *places)
    assert outcome.status == 0, outcome.err
    return folder, outcome


@pytest.fixture(scope="module")
def stored(blacked_out) -> dict[str, np.ndarray]:
    with h5py.File(blacked_out[0] / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items()}


@pytest.fixture(scope="module")
def logits_of(trained):
    """Volume (x, y, z) -> logits of (control, autism) of the trained network, one at a time."""
    folder = CheckpointFolder(trained / "cnn")
    network = cnn.build(from_json(cnn.Config, folder.identity()["config"]), REDUCED)
    restore_weights(folder, network)
    return lambda volume: network({"volume": volume[None, ..., None]}, training=False).numpy()[0].astype(float)


def outer_median(volume: np.ndarray) -> float:
    """The median of the outermost voxels."""
    faces = [volume[0], volume[-1], volume[:, 0], volume[:, -1], volume[:, :, 0], volume[:, :, -1]]
    return float(np.median(np.concatenate([face.ravel() for face in faces])))


def probability_of(logits: np.ndarray, label: int) -> float:
    return float(np.exp(logits[label]) / np.exp(logits).sum())


def test_the_file_holds_what_the_contract_says(stored, cohort):
    test = [row for row in read_rows(cohort / "subjects.csv") if row["split"] == "test"]
    assert {"delta_logit", "delta_probability", "probability", "subject", "label", "region", "atlas"} <= stored.keys()
    assert stored["delta_logit"].shape == stored["delta_probability"].shape == (len(test), NUM_REGIONS)
    assert [subject.decode() for subject in stored["subject"]] == [row["subject"] for row in test]
    assert stored["label"].tolist() == [float(row["label"]) for row in test]
    assert stored["region"].tolist() == list(range(1, NUM_REGIONS + 1))
    assert (stored["atlas"] == atlas.load_atlas(None, REDUCED).labels).all()


@pytest.mark.parametrize("region", [1, 68, 91, 116])
def test_effects_against_a_loop_by_hand(region, stored, cohort, logits_of):
    """Shown minus occluded, of the true class; the logit is log(p / (1 - p)) of that class."""
    opened, labels = open_cohort(cohort), atlas.load_atlas(None, REDUCED).labels
    for row, index in enumerate(opened.indices("test")):
        label, _, volume = opened.read(index)
        occluded = volume.copy()
        for place in np.argwhere(labels == region):
            occluded[tuple(place)] = outer_median(volume)
        shown = probability_of(logits_of(volume), int(label))
        hidden = probability_of(logits_of(occluded), int(label))
        assert stored["delta_probability"][row, region - 1] == pytest.approx(shown - hidden, abs=2e-6)
        logit = np.log(shown / (1 - shown)) - np.log(hidden / (1 - hidden))
        assert stored["delta_logit"][row, region - 1] == pytest.approx(logit, abs=1e-5)
        assert stored["probability"][row] == pytest.approx(probability_of(logits_of(volume), 1), abs=1e-6)


def test_effects_are_not_all_nothing(stored):
    assert (np.abs(stored["delta_logit"]).max(1) > 1e-4).all()


@pytest.mark.parametrize("label, sign", [(1.0, 1), (0.0, -1)])
def test_a_region_that_speaks_for_the_true_class_counts_as_positive(label, sign):
    """Autism's logit is 2 with everything shown, and falls to 0.5 without region 0: region 0 speaks for autism."""
    from utils.blackout import true_class_effects

    shown = np.array([[0.0, 2.0]])
    occluded = np.array([[[0.0, 0.5], [0.0, 2.0]]])
    effects = true_class_effects(shown, occluded, np.array([label]))
    assert effects["delta_logit"] == pytest.approx(np.array([[sign * 1.5, 0.0]]))
    change = 1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(-0.5))
    assert effects["delta_probability"] == pytest.approx(np.array([[sign * change, 0.0]]))


def test_the_table_ranks_the_mean_over_subjects(blacked_out, stored):
    folder, outcome = blacked_out
    rows = read_rows(folder / "regions.csv")
    assert len(rows) == NUM_REGIONS
    assert {"region", "name", "voxels", "delta_logit", "delta_probability"} <= rows[0].keys()
    aal = atlas.load_atlas(None, REDUCED)
    for row in rows:
        region = int(row["region"])
        assert row["name"] == aal.names[region]
        assert int(row["voxels"]) == np.count_nonzero(aal.labels == region)
        assert float(row["delta_logit"]) == pytest.approx(stored["delta_logit"][:, region - 1].mean(), abs=1e-5)
    effects = [float(row["delta_logit"]) for row in rows]
    assert effects == sorted(effects, reverse=True)
    assert rows[0]["name"] in outcome.out
