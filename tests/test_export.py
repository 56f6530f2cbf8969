"""`abide-data export`: values, rows, folds and permuted labels are what a user computes of the same people."""

from collections import Counter
from pathlib import Path

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import done, refused
from helpers import compute_region_means

from data.images import atlas, grids

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

FAMILY_BY_ROW = {  # two people of one site each: both with autism, both control, one of each; and at another site
    **{0: "A", 12: "A", 3: "B", 15: "B", 6: "C", 9: "C"},
    **{1: "D", 4: "D"},
}
REDUCED_AFFINE = np.array([[6.0, 0, 0, -90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])
DIVIDED = "--folds 3 --repeats 2 --seed 5"


def make_relatives() -> pd.DataFrame:
    return lab.people().assign(FAM=[FAMILY_BY_ROW.get(row, "") for row in range(40)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`lab`, people with relatives among them; `cohort`; and of that `whole`, `divided` and `control`."""
    folder = tmp_path_factory.mktemp("export")
    lab.pcp(folder / "lab", make_relatives(), ("falff", "alff"), series=True)
    options = "--grid reduced --maps all --connectome rois_made --family FAM"
    done(f"abide-data convert {{of}}/lab {{of}}/cohort {options}", of=folder)
    done("abide-data export {of}/cohort {of}/whole", of=folder)
    done(f"abide-data export {{of}}/cohort {{of}}/divided {DIVIDED}", of=folder)
    done(f"abide-data export {{of}}/cohort {{of}}/control {DIVIDED} --control 2", of=folder)
    return folder


def read_columns(folder: Path, kind: str) -> pd.DataFrame:
    """An array with the names of its columns."""
    return pd.DataFrame(np.load(folder / f"{kind}.npy"), columns=lab.read_table(folder / f"{kind}.csv")["name"])


def read_volumes(cohort: Path, maps: int) -> np.ndarray:
    """Those of all records in the order of the table, (records, x, y, z, maps)."""
    files = lab.read_table(cohort / "subjects.csv")["file"]
    return np.stack([np.moveaxis(lab.read_record(cohort / file, maps)[2], 0, -1) for file in files])


def count_labels_by_site(participants: pd.DataFrame) -> Counter:
    return Counter(zip(participants["site"], participants["label"], strict=True))


def count_family_labels(participants: pd.DataFrame) -> Counter:
    """How often relatives of a site have which labels."""
    families = [group for _, group in participants.groupby("cluster") if len(group) > 1]
    return Counter((group["site"].iloc[0], *sorted(group["label"])) for group in families)


def test_maps_are_the_raw_means_of_regions(folder):
    regions = atlas.load_aal(grids.REDUCED)
    expected_means = compute_region_means(regions, read_volumes(folder / "cohort", 2))
    table = read_columns(folder / "whole", "maps")
    assert table.shape == (40, 2 * len(regions.region_numbers)) and (table.dtypes == np.float32).all()
    for map_number, map_name in enumerate(("falff", "alff")):
        names = [f"map {map_name} {regions.name_by_region[region]}" for region in regions.region_numbers]
        np.testing.assert_allclose(table[names], expected_means[:, :, map_number], rtol=1e-4, atol=1e-5)


def test_an_own_atlas_of_voxels_of_the_cohort(folder, tmp_path):
    """Its labels lie on the cohort's own grid, so that no resampling is between."""
    labels = np.zeros((31, 37, 31), np.int16)
    labels[5:15, 8:28, 8:20], labels[16:26, 8:28, 8:20] = 3, 7
    nibabel.save(nibabel.Nifti1Image(labels, REDUCED_AFFINE), tmp_path / "own.nii.gz")
    (tmp_path / "own.txt").write_text("3 left half\n7 right half\n")
    command = "abide-data export {of}/cohort {to}/out --inputs maps --atlas {to}/own.nii.gz"
    done(command, of=folder, to=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("participants.csv", "maps.npy", "maps.csv", "SHA256SUMS")
    }
    volumes, table = read_volumes(folder / "cohort", 2), read_columns(tmp_path / "out", "maps")
    for label, name in ((3, "left half"), (7, "right half")):
        expected_means = volumes[:, labels == label].mean(1, dtype=float)
        np.testing.assert_allclose(table[[f"map falff {name}", f"map alff {name}"]], expected_means, rtol=1e-4)


def test_edges_are_fisher_z_of_the_series(folder):
    table = read_columns(folder / "whole", "connectome")
    for row, person in enumerate(make_relatives()["FILE_ID"]):
        series = pd.read_csv(folder / f"lab/cpac/{person}_rois_made.1D", sep="\t").to_numpy()
        correlations = np.corrcoef(series.T)
        for first in range(lab.PARCELS):
            for second in range(first + 1, lab.PARCELS):
                expected_edge = np.arctanh(correlations[first, second])
                assert table.loc[row, f"edge {first + 1} {second + 1}"] == pytest.approx(expected_edge, abs=1e-5)


def test_phenotype_and_covariates_are_those_of_the_table(folder):
    people = make_relatives().replace("-9999", "")
    sexes = people["SEX"].map({"1": "male", "2": "female"})
    phenotype = lab.read_table(folder / "whole/phenotype.csv")
    assert phenotype["phenotype sex"].tolist() == sexes.tolist()
    assert phenotype["phenotype iq_test"].str.upper().tolist() == people["FIQ_TEST_TYPE"].str[:4].tolist()
    assert not phenotype.columns.str.contains("missing|unknown|unused").any()
    covariates = lab.read_table(folder / "whole/covariates.csv")
    assert covariates["covariate SITE_ID"].tolist() == people["SITE_ID"].tolist()
    numbers = {"age": "AGE_AT_SCAN", "fiq": "FIQ", "handedness_score": "HANDEDNESS_SCORES", "bmi": "BMI"}
    for name, column in numbers.items():
        exported_numbers = pd.to_numeric(phenotype[f"phenotype {name}"]).to_numpy()
        np.testing.assert_array_equal(exported_numbers, pd.to_numeric(people[column]).to_numpy())
    np.testing.assert_array_equal(
        pd.to_numeric(covariates["covariate func_mean_fd"]), pd.to_numeric(people["func_mean_fd"])
    )


def test_all_rows_are_the_records_in_their_order(folder):
    records = lab.read_table(folder / "cohort/subjects.csv")
    for name in ("whole", "divided", "control"):
        for table in ("phenotype", "covariates"):
            assert lab.read_table(folder / name / f"{table}.csv")["file"].tolist() == records["file"].tolist()
    whole, divided = (lab.read_table(folder / name / "participants.csv") for name in ("whole", "divided"))
    pd.testing.assert_frame_equal(
        whole.drop(columns="cluster"),
        records[["subject", "file", "label", "site", "split"]].set_axis(
            ["id", "file", "label", "site", "split"], axis=1
        ),
    )
    assert divided["file"].tolist() == 2 * records["file"].tolist()
    assert divided["repeat"].tolist() == ["0"] * 40 + ["1"] * 40
    labels = make_relatives()["DX_GROUP"].map({"1": "1", "2": "0"})  # the order of the table, too
    assert whole["id"].tolist() == make_relatives()["SUB_ID"].tolist() and whole["label"].tolist() == labels.tolist()


def test_a_second_record_of_a_person_is_a_row_of_the_same_cluster(folder, tmp_path):
    done("abide-data swap {of}/cohort {to}/more --copies 1", of=folder, to=tmp_path)
    done("abide-data export {to}/more {to}/out --inputs phenotype", to=tmp_path)
    participants, phenotype = (lab.read_table(tmp_path / f"out/{name}.csv") for name in ("participants", "phenotype"))
    assert len(participants) > 40 == participants["id"].nunique()
    assert (participants.groupby("id")["cluster"].nunique() == 1).all()
    values = phenotype.drop(columns="file").assign(id=participants["id"]).drop_duplicates()
    assert len(values) == 40


def test_folds_are_those_of_a_training(folder, tmp_path):
    command = f"run.py --train --model nn --numIters 1 --set members=1 --set batch_size=8 {DIVIDED}"
    done(f"{command} --dataDir {{of}}/cohort --chkPointDir {{to}}/ckpt --outDir {{to}}/out", of=folder, to=tmp_path)
    participants = lab.read_table(folder / "divided/participants.csv")
    tables = [lab.read_table(path) for path in sorted((tmp_path / "ckpt").rglob("folds.csv"))]
    assert len(tables) == 2 and not tables[0].equals(tables[1])
    for repeat, table in enumerate(tables):
        rows = participants[participants["repeat"] == str(repeat)]
        assert dict(zip(rows["id"], rows["fold"], strict=True)) == dict(
            zip(table["subject"], table["fold"], strict=True)
        )


def test_relatives_are_one_cluster_in_one_fold(folder):
    participants = lab.read_table(folder / "divided/participants.csv")
    family_by_id = make_relatives().set_index("SUB_ID")["FAM"]
    first_member_by_family = {family: family_by_id.index[family_by_id == family][0] for family in "ABCD"}
    families = participants["id"].map(family_by_id)
    assert participants["cluster"].tolist() == families.map(first_member_by_family).fillna(participants["id"]).tolist()
    assert (participants.groupby(["repeat", "cluster"])["fold"].nunique() == 1).all()


@pytest.mark.parametrize("options, column", [("--folds site", "site"), ("--folds 2 --wholeSites", "site")])
def test_sites_stay_whole(options, column, folder, tmp_path):
    printed = done(
        f"abide-data export {{of}}/cohort {{to}} {options} --inputs phenotype", of=folder, to=tmp_path / "out"
    )
    participants = lab.read_table(tmp_path / "out/participants.csv")
    assert (participants.groupby(column)["fold"].nunique() == 1).all() and "folds" in printed
    assert participants["fold"].nunique() == (3 if options == "--folds site" else 2)


def test_a_control_exchanges_labels_within_sites_and_between_families(folder, tmp_path):
    divided, control = (lab.read_table(folder / f"{name}/participants.csv") for name in ("divided", "control"))
    pd.testing.assert_frame_equal(divided.drop(columns="label"), control.drop(columns=["label", "control"]))
    assert set(control["control"]) == {"2"} and "control" not in divided
    assert (control["label"] != divided["label"]).any()
    assert control["label"][:40].tolist() == control["label"][40:].tolist()  # the same people in each repeat
    assert count_labels_by_site(control) == count_labels_by_site(divided)
    assert count_family_labels(control) == count_family_labels(divided)
    for path in (folder / "divided").iterdir():
        if path.name not in ("participants.csv", "SHA256SUMS"):
            assert path.read_bytes() == (folder / "control" / path.name).read_bytes()

    # Without folds they are the same labels, and another seed gives others
    for seed in (2, 3):
        command = f"abide-data export {{of}}/cohort {{to}}/{seed} --control {seed} --inputs phenotype"
        assert "CONTROL" in done(command, of=folder, to=tmp_path)
    same, other = (lab.read_table(tmp_path / f"{seed}/participants.csv") for seed in (2, 3))
    assert same["label"].tolist() == control["label"][:40].tolist() != other["label"].tolist()
    assert same["split"].tolist() == lab.read_table(folder / "cohort/subjects.csv")["split"].tolist()


def test_unknown_labels_are_empty_and_cannot_be_permuted(folder, tmp_path):
    people = lab.people(8, 60002).assign(FAM=["E", "E", *[""] * 6])
    people.loc[[1, 4], "DX_GROUP"] = ""
    lab.pcp(tmp_path / "lab", people, ("falff", "alff"), series=True)
    done("abide-data convert {to}/lab {to}/new --like {of}/cohort", of=folder, to=tmp_path)
    done("abide-data export {to}/new {to}/out --inputs phenotype", to=tmp_path)
    labels = people["DX_GROUP"].map({"1": "1", "2": "0", "": ""})
    assert lab.read_table(tmp_path / "out/participants.csv")["label"].tolist() == labels.tolist()
    refused("abide-data export {to}/new {to}/x --control 1", "2 records without a label", "need one", to=tmp_path)


def test_a_table_beyond_the_bound_is_refused(folder, tmp_path, effort):
    effort(input_table_gib=1e-5)
    command = "abide-data export {of}/cohort {to}/out"
    refused(command, "232 of maps and 66 of connectome", "coarser atlas", of=folder, to=tmp_path)
    assert not (tmp_path / "out").exists()
    done(f"{command} --inputs phenotype,connectome", of=folder, to=tmp_path)
