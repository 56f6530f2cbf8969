"""Cohorts without maps: of connectomes and a table, or of a table alone, as those with maps of the same people."""

import json
import subprocess
from pathlib import Path

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, read_page_text, refused, run
from lab import read_table

PEOPLE = labs.people()
TINY = "--numIters 2 --set members=1 --set batch_size=8"
TABLES = {"cohort.json", "subjects.csv", "covariates.csv", "phenotype.csv", "check.json", "SHA256SUMS"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A folder with `lab`, of 40 parcels, and its `cohort`. Of 50003 there are three copies under other IDs: 50010 has
    the same series, of 50020 and 50030 the series of 12 parcels are noise, and so half of the edges."""
    folder = tmp_path_factory.mktemp("copied")
    labs.pcp(folder / "lab", PEOPLE, (), series=True)
    for subject in PEOPLE["SUB_ID"]:
        is_copy = subject in ("50010", "50020", "50030")
        series = make_wide_series(50003 if is_copy else int(subject))
        if subject in ("50020", "50030"):
            series[:, 28:] = np.random.default_rng(int(subject)).normal(size=(len(series), 12))
        write_series(folder / "lab", subject, series)
    done("abide-data convert {to}/lab {to}/cohort --maps none --connectome rois_made", to=folder)
    return folder


def make_wide_series(seed: int, volume_count: int = 80) -> np.ndarray:
    """Series of 40 parcels with networks that all people share, (volumes, parcels)."""
    random = np.random.default_rng(seed)
    network_signals = random.normal(size=(volume_count, 5)) @ np.random.default_rng(0).normal(size=(5, 40))
    return network_signals + 2 * random.normal(size=(volume_count, 40))


def write_series(source: Path, subject: str, series: np.ndarray) -> None:
    columns = [f"#{number}" for number in range(1, series.shape[1] + 1)]
    table = pd.DataFrame(series, columns=columns)
    table.to_csv(source / f"cpac/X_00{subject}_rois_made.1D", sep="\t", index=False)


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_connectomes_and_tables_are_those_beside_maps(only_connectomes, converted):
    cohort = only_connectomes / "cohort"
    assert list_files(cohort) == {*TABLES, "connectomes.h5", "series.csv"}
    for name in ("connectomes.h5", "series.csv", "covariates.csv", "phenotype.csv"):
        assert (cohort / name).read_bytes() == (converted / name).read_bytes(), name
    columns = ["subject", "site", "label", "split", "connectome_sha256"]
    assert read_table(cohort / "subjects.csv")[columns].equals(read_table(converted / "subjects.csv")[columns])
    assert json.loads((cohort / "cohort.json").read_text())["maps"] == []
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=cohort, check=True)


def test_a_table_alone_is_a_cohort(only_table):
    cohort = only_table / "cohort"
    assert list_files(cohort) == TABLES
    subjects = read_table(cohort / "subjects.csv")
    assert subjects["subject"].tolist() == PEOPLE["SUB_ID"].tolist()
    assert subjects["label"].tolist() == PEOPLE["DX_GROUP"].map({"1": "1", "2": "0"}).tolist()
    assert subjects["row_sha256"].is_unique and subjects["row_sha256"].str.len().eq(64).all()
    ages = read_table(cohort / "phenotype.csv")["AGE_AT_SCAN"].astype(float)
    np.testing.assert_allclose(ages, PEOPLE["AGE_AT_SCAN"].astype(float))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=cohort, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["only_connectomes", "only_table"])
def test_a_network_of_the_phenotype_is_trained_and_one_of_maps_refused(kind, request, tmp_path):
    cohort = request.getfixturevalue(kind) / "cohort"
    done(
        f"run.py --train --model nn {TINY} --dataDir {{of}} --chkPointDir {{to}} --outDir {{to}}/out",
        of=cohort,
        to=tmp_path,
    )
    assert "no maps" in refused(
        f"run.py --train --model cnn {TINY} --dataDir {{of}} --chkPointDir {{to}}", of=cohort, to=tmp_path
    )


def test_copies_of_a_connectome_are_found_and_kept_together(copied):
    cohort = copied / "cohort"
    metadata = json.loads((cohort / "cohort.json").read_text())
    assert metadata["same_scan"] == [["50003", "50010", "50020", "50030"]]
    split_by_subject = read_table(cohort / "subjects.csv").set_index("subject")["split"]
    assert split_by_subject[metadata["same_scan"][0]].nunique() == 1
    assert "one scan under several IDs: 50003 (" in run("abide-data check {of}", of=cohort).out
    done("abide-data export {of} {to} --folds 4", of=cohort, to=copied / "arrays")
    participants = read_table(copied / "arrays/participants.csv").set_index("id")
    same_scan_rows = participants.loc[metadata["same_scan"][0]]
    assert same_scan_rows["cluster"].tolist() == ["50003"] * 4 and same_scan_rows["fold"].nunique() == 1
    assert participants["cluster"].nunique() == len(PEOPLE) - 3


def test_the_page_of_a_check_shows_no_pictures(only_connectomes, tmp_path):
    run("abide-data check {of} --html {to}/check.html", of=only_connectomes / "cohort", to=tmp_path)
    page_text = read_page_text(tmp_path / "check.html")
    assert "rois_made, 12 parcels of 40 participants" in page_text and "picture" not in page_text


def test_equal_rows_of_a_table_alone_are_a_note(tmp_path):
    people = PEOPLE.copy()
    people.loc[7, people.columns.drop(["SUB_ID", "DX_GROUP"])] = people.loc[4]
    labs.participants(tmp_path, people)
    command = (
        "abide-data convert {to} {to}/cohort --maps none --phenotype AGE_AT_SCAN,hand --labelColumn group --positive A"
    )
    outcome = run(command, to=tmp_path)
    assert outcome.status == 0 and "perhaps one participant twice: 50006 and 50009" in outcome.out


@pytest.mark.parametrize("kind", ["only_connectomes", "only_table"])
def test_tables_are_packed_as_they_are_or_edited(kind, request, tmp_path):
    cohort = request.getfixturevalue(kind) / "cohort"
    assert "as tables" in done("abide-data pack {of} {to} --zip", of=cohort, to=tmp_path / "packed")
    for name in list_files(cohort) - {"check.json"}:
        assert (tmp_path / "packed" / name).read_bytes() == (cohort / name).read_bytes(), name

    (tmp_path / "edited").mkdir()
    subjects = read_table(cohort / "subjects.csv")
    subjects["label"] = subjects["label"].mask(subjects["subject"] == "50003", "0")
    subjects.to_csv(tmp_path / "edited/subjects.csv", index=False)
    command = "abide-data pack {of} {to}/relabelled --tables {to}/edited"
    assert "50003 label: 1 -> 0" in done(command, of=cohort, to=tmp_path)
    assert read_table(tmp_path / "relabelled/subjects.csv").equals(subjects)


@pytest.mark.parametrize("kind", ["only_connectomes", "only_table"])
def test_an_export_has_what_there_is(kind, request, tmp_path):
    cohort = request.getfixturevalue(kind) / "cohort"
    done("abide-data export {of} {to} --folds 4", of=cohort, to=tmp_path / "arrays")
    files = {"participants.csv", "phenotype.csv", "covariates.csv", "SHA256SUMS"}
    array_files = {"connectome.npy", "connectome.csv"} if kind == "only_connectomes" else set()
    assert list_files(tmp_path / "arrays") == files | array_files
    phenotype = read_table(tmp_path / "arrays/phenotype.csv")
    assert phenotype["file"].tolist() == PEOPLE["SUB_ID"].tolist()
    participants = read_table(tmp_path / "arrays/participants.csv")
    assert participants.groupby("fold")["id"].count().between(9, 11).all()


@pytest.mark.parametrize("verb", ["swap {of} {to}/out", "volume {of} 50003 {to}/out.nii.gz"])
def test_what_is_about_volumes_is_refused(verb, only_connectomes, tmp_path):
    refused(f"abide-data {verb}", "has no maps", of=only_connectomes / "cohort", to=tmp_path)


def test_new_people_are_prepared_like_others(only_connectomes, tmp_path):
    labs.pcp(tmp_path / "lab", labs.people(12, 60002), (), series=True)
    done("abide-data convert {to}/lab {to}/cohort --like {of}", of=only_connectomes / "cohort", to=tmp_path)
    new, old = tmp_path / "cohort", only_connectomes / "cohort"
    assert read_table(new / "subjects.csv")["split"].eq("test").all() and not [*new.glob("*.bin")]
    assert json.loads((new / "cohort.json").read_text())["maps"] == []
    for field in ("phenotype_median", "phenotype_mean", "phenotype_scale", "parcels_sha256"):
        assert (
            json.loads((new / "cohort.json").read_text())[field] == json.loads((old / "cohort.json").read_text())[field]
        )


@pytest.mark.parametrize("noisy_parcels", [0, 12])
def test_a_training_connectome_under_another_id_is_refused(noisy_parcels, copied, tmp_path):
    subjects = read_table(copied / "cohort/subjects.csv")
    trained = next(subject for subject in subjects["subject"][subjects["split"] == "train"] if subject > "50031")
    newcomers = labs.people(12, 60002)
    labs.pcp(tmp_path / "lab", newcomers, (), series=True)
    for subject in newcomers["SUB_ID"]:
        series = make_wide_series(int(trained) if subject == "60005" else int(subject))
        if subject == "60005":
            series[:, 40 - noisy_parcels :] = np.random.default_rng(1).normal(size=(len(series), noisy_parcels))
        write_series(tmp_path / "lab", subject, series)
    command = "abide-data convert {to}/lab {to}/cohort --like {of}"
    refused(command, f"60005 has that of {trained}", "--exclude 60005", of=copied / "cohort", to=tmp_path)
    done(f"{command} --exclude 60005", of=copied / "cohort", to=tmp_path)


def test_a_table_alone_of_new_people_may_not_name_those_who_train(only_table, tmp_path):
    labs.participants(tmp_path, labs.people(4, 50002))
    command = "abide-data convert {to} {to}/cohort --like {of} --labelColumn group --positive A"
    refused(command, "are training participants", of=only_table / "cohort", to=tmp_path)
    labs.participants(tmp_path, labs.people(4, 60002))
    done(command, of=only_table / "cohort", to=tmp_path)
    assert read_table(tmp_path / "cohort/subjects.csv")["subject"].tolist() == ["60002", "60003", "60004", "60005"]


def test_a_split_is_preserved_by_connectome(only_connectomes, tmp_path):
    """Of the same people under other IDs."""
    renamed = PEOPLE.assign(SUB_ID=[str(70000 + number) for number in range(len(PEOPLE))])
    folder = labs.copy(only_connectomes / "lab", tmp_path / "lab")
    labs.edit(folder / "Phenotypic.csv", renamed.to_csv(index=False).encode())
    command = "abide-data convert {to}/lab {to}/cohort --maps none --connectome rois_made --keepSplit {of}"
    done(command, of=only_connectomes / "cohort", to=tmp_path)
    splits = read_table(only_connectomes / "cohort/subjects.csv")["split"]
    assert read_table(tmp_path / "cohort/subjects.csv")["split"].tolist() == splits.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["only_connectomes", "only_table"])
def test_new_people_are_prepared_like_a_bundle(kind, request, tmp_path):
    cohort = request.getfixturevalue(kind) / "cohort"
    training = f"run.py --train --everybody --model nn {TINY} --dataDir {{of}} --chkPointDir {{to}}/ckpt"
    done(f"{training} --outDir {{to}}/out", of=cohort, to=tmp_path)
    done("abide-bundle {to}/ckpt/nn/everybody {to}/model.zip --licence CC-BY-4.0", to=tmp_path)
    options = ""
    if kind == "only_table":
        (tmp_path / "lab").mkdir()
        labs.participants(tmp_path / "lab", labs.people(12, 60002))
        options = "--labelColumn group --positive A"
    else:
        labs.pcp(tmp_path / "lab", labs.people(12, 60002), (), series=True)
    for name, template in (("by_cohort", cohort), ("by_bundle", tmp_path / "model.zip")):
        done(f"abide-data convert {{to}}/lab {{to}}/{name} --like {{of}} {options}", of=template, to=tmp_path)
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv"):
        assert (tmp_path / "by_bundle" / name).read_bytes() == (tmp_path / "by_cohort" / name).read_bytes(), name


def test_a_column_whose_name_says_so_has_the_ids_of_a_table_alone(tmp_path):
    labs.participants(tmp_path, PEOPLE)
    labs.edit(tmp_path / "participants.tsv", lambda table: table.rename(columns={"participant_id": "Patient ID"}))
    options = "--phenotype iq --labelColumn group --positive A --dryRun"
    assert "Patient ID" in done(f"abide-data convert {{to}} {{to}}/cohort --maps none {options}", to=tmp_path)
    assert list_files(tmp_path) == {"participants.tsv"}


def test_head_motion_is_known_by_series(derived, tmp_path):
    """Beside which `derive` writes it, as beside maps; the table has none."""
    labs.copy(derived, tmp_path / "maps")
    labs.edit(tmp_path / "maps/participants.tsv", lambda table: table.drop(columns="func_mean_fd"))
    command = "abide-data convert {to}/maps --connectome seg-myatlas --labelColumn group --positive A --phenotype ''"
    done(f"{command} {{to}}/by_maps --grid reduced", to=tmp_path)
    done(f"{command} {{to}}/by_series --maps none", to=tmp_path)
    covariates = read_table(tmp_path / "by_series/covariates.csv")
    assert "mean_fd" in covariates and covariates.equals(read_table(tmp_path / "by_maps/covariates.csv"))
