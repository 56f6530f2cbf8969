"""How volumes are standardised as they are read: against NumPy and scikit-learn, and what it means for a blackout."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers import SMALL_BATCH, read_rows, region_means, write_rows
from sklearn.preprocessing import StandardScaler

from data import swap
from data.base.errors import InputError
from data.cohorts import records, standards
from data.cohorts.atlas import AAL_REGIONS, load_atlas
from data.cohorts.stored import open_cohort
from data.grids import FULL, REDUCED
from utils.blackout.fills import Fills
from utils.blackout.options import BlackoutOptions

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def opened(cohort):
    """All people at two sites, told by their subjects' last digit."""
    found = open_cohort(cohort)
    rows = (dataclasses.replace(row, site=f"S{int(row.subject[-1]) % 2}") for row in found.rows)
    return dataclasses.replace(found, rows=tuple(rows))


def standardised(cohort, how):
    return standards.within_sites(cohort) if how == "site" else dataclasses.replace(cohort, standard=how)


def volumes(cohort, how) -> np.ndarray:
    return standardised(cohort, how).batch(np.arange(len(cohort.rows)))["volume"]


def within_brain(volume: np.ndarray) -> np.ndarray:
    """One map (x, y, z) by scikit-learn; its corner is no brain."""
    scores, brain = np.zeros(volume.shape), np.abs(volume - volume[0, 0, 0]) > 1e-3
    scores[brain] = StandardScaler().fit_transform(volume[brain].astype(float)[:, None])[:, 0]
    return scores


def test_moments_of_batches_are_those_of_all():
    values = np.random.default_rng(0).normal(1e4, 1, (50, 3, 2))
    values[:, 1, 1] = 7
    found = records.Moments()
    for batch in (values[:1], values[1:20], values[20:]):
        found.add(batch)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    expected = values.std(0)
    expected[1, 1] = 1  # does not vary
    np.testing.assert_allclose(found.spread, expected, rtol=1e-9)


def test_as_stored_nothing_changes(opened):
    stored = np.stack([opened.read(index)[2] for index in range(len(opened.rows))])
    assert (volumes(opened, "stored") == stored).all()


def test_within_the_brain_each_person_is_a_z_score_and_the_background_is_its_mean(opened):
    stored, found = volumes(opened, "stored"), volumes(opened, "brain")
    for one, other in zip(found, stored, strict=True):
        np.testing.assert_allclose(one[..., 0], within_brain(other[..., 0]), atol=1e-5)
        assert records.background(one[..., 0]) == 0 != records.background(other[..., 0])
    changed = records.within_brain(3 * stored[0] + 7)
    np.testing.assert_allclose(changed, found[0], atol=1e-4)  # the scale of a map does not count


def test_each_map_is_standardised_by_itself():
    several = np.random.default_rng(0).normal([0, 5, -3], [1, 2, 3], (*REDUCED.shape, 3)).astype(np.float32)
    several[:4], several[..., :4, :] = -9, -9
    several[:, :, -4:], several[..., 2] = -9, 4  # the last does not vary
    found = records.within_brain(several)
    for at in (0, 1):
        np.testing.assert_allclose(found[..., at], within_brain(several[..., at]), atol=1e-5)
    assert (found[..., 2] == 0).all()


def test_a_site_is_standardised_by_its_own_people_whatever_their_labels_and_split(opened):
    found, brains = volumes(opened, "site"), volumes(opened, "brain").astype(float)
    site = np.array([row.site for row in opened.rows])
    for name in ("S0", "S1"):
        own = brains[site == name].reshape(sum(site == name), -1)
        np.testing.assert_allclose(
            found[site == name].reshape(own.shape), StandardScaler().fit_transform(own), atol=1e-4
        )
    flipped = tuple(dataclasses.replace(row, label=1 - row.label) for row in opened.rows)
    assert (volumes(dataclasses.replace(opened, rows=flipped), "site") == found).all()


def test_swapped_records_say_nothing_of_their_site(opened):
    rows = (*opened.rows, dataclasses.replace(opened.rows[0], file="0_swap_0.bin"))
    metadata = dataclasses.replace(opened.metadata, provenance={"swap": {"regions": 1}})
    more = dataclasses.replace(opened, rows=rows, entries=(*opened.entries, opened.entries[0]), metadata=metadata)
    assert (volumes(more, "site")[:-1] == volumes(opened, "site")).all()


def test_a_site_of_few_people_cannot_be_standardised_by_itself(opened):
    rows = tuple(dataclasses.replace(row, site="far" if at < 4 else row.site) for at, row in enumerate(opened.rows))
    with pytest.raises(InputError, match="4 people of site far; standardise=site needs 5 of each"):
        standardised(dataclasses.replace(opened, rows=rows), "site")


@pytest.mark.parametrize("how", ["brain", "voxel", "site"])
def test_a_blackout_of_the_background_sets_a_region_to_zero(opened, how):
    cohort = standardised(opened, how)
    options = BlackoutOptions(donors=2)
    filled = Fills(cohort, load_atlas(None, REDUCED), opened.indices("test")[:2], options, seed=0)
    batch, [(shown, background, _), *_] = filled.of(opened.indices("test")[:2])
    assert (background == 0).all() and shown is batch["volume"]
    assert (shown == cohort.batch(opened.indices("test")[:2])["volume"]).all()
    np.testing.assert_allclose(filled.means, region_means(load_atlas(None, REDUCED), volumes(opened, how)), atol=1e-6)


def test_the_atlas_has_as_many_regions_as_are_said():
    assert {len(load_atlas(None, grid).regions) for grid in (FULL, REDUCED)} == {AAL_REGIONS}


def test_swapped_regions_come_from_others_of_the_batch_with_the_same_label():
    """Each volume holds its own number in all voxels, so that each voxel tells where it came from."""
    label, atlas = np.array([0, 1, 0, 1, 0]), load_atlas(None, REDUCED)
    volume = np.broadcast_to(np.arange(5.0).reshape(5, 1, 1, 1, 1), (5, *REDUCED.shape, 2))
    givers = set()
    for seed in range(4):
        found = swap.swapped_within(volume, label, atlas.voxels, 13, np.random.default_rng(seed))
        for index in range(5):
            assert (found[index][atlas.labels == 0] == index).all()
            origin = [np.unique(found[index].reshape(-1, 2)[own]) for own in atlas.voxels]
            assert all(len(from_) == 1 and label[int(from_[0])] == label[index] for from_ in origin)
            assert sum(int(from_[0]) != index for from_ in origin) == 13
            givers |= {(index, int(from_[0])) for from_ in origin}
    assert givers == {(one, other) for one in range(5) for other in range(5) if label[one] == label[other]}
    alone = swap.swapped_within(volume[:2], label[:2], atlas.voxels, 13, np.random.default_rng(0))
    assert (alone == volume[:2]).all()


@pytest.mark.slow
def test_voxels_are_standardised_by_the_training_records_in_the_first_layer(opened, cohort, cli, tmp_path):
    """Mean and spread are weights, from training subjects only, and no step changes them."""
    import tensorflow as tf

    from utils.runs.checkpoints import CheckpointFolder

    arguments = ("--model", "cnn", "--preset", "linear", "--numIters", 3, *SMALL_BATCH, "--dataDir", cohort)
    outcome = cli("--train", *arguments, "--chkPointDir", tmp_path / "ckpt")
    assert outcome.status == 0, outcome.err
    reader = tf.train.load_checkpoint(str(CheckpointFolder(tmp_path / "ckpt" / "cnn").latest()))
    shapes = reader.get_variable_to_shape_map()
    found = {
        kind: reader.get_tensor(next(name for name in shapes if f"/{kind}/" in name and len(shapes[name]) == 4))
        for kind in ("mean", "spread")
    }
    training = StandardScaler().fit(volumes(opened, "brain")[opened.indices("train")].reshape(36, -1).astype(float))
    np.testing.assert_allclose(found["mean"].ravel(), training.mean_, atol=1e-5)
    np.testing.assert_allclose(found["spread"].ravel(), training.scale_, atol=1e-5)


@pytest.mark.slow
def test_what_looked_at_tested_people_says_so_everywhere(cohort, cli, tmp_path):
    """Terminal, JSON, report, runs.csv."""
    at_one_site = tmp_path / "cohort"
    shutil.copytree(cohort, at_one_site)
    rows = read_rows(at_one_site / "subjects.csv")
    write_rows(at_one_site / "subjects.csv", [row | {"site": "X"} for row in rows])
    places = ("--model", "cnn", "--chkPointDir", tmp_path / "ckpt", "--dataDir", at_one_site)
    more = ("--set", "standardise=site", "--set", "members=1", "--numIters", 2, *SMALL_BATCH)
    trained = cli("--train", *places, *more, "--outDir", tmp_path / "train")
    assert trained.status == 0, trained.err
    outcome = cli("--test", *places, "--outDir", tmp_path / "test")
    assert outcome.status == 0, outcome.err
    assert (
        "TRANSDUCTIVE: each of 1 site is standardised by its own people, tested ones too" in outcome.out
        and "SIMULATED, TRANSDUCTIVE)" in outcome.out
    )
    assert json.loads((tmp_path / "test/metrics.json").read_text())["transductive"] is True
    assert json.loads((tmp_path / "test/run.json").read_text())["transductive"] is True
    assert "TRANSDUCTIVE: each site" in (tmp_path / "test/report.html").read_text()
    assert all("TRANSDUCTIVE" in row["cohort"] for row in read_rows(tmp_path / "runs.csv"))
