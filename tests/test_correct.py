"""A correction makes a new, sealed cohort that says what was corrected; nothing of the old one changes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import read_rows

from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.stored import open_cohort
from data.cohorts.variants import resplit


def write(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def people_of(folder: Path) -> dict[str, dict]:
    return {of["subject"]: of for of in read_rows(folder / "subjects.csv")}


@pytest.fixture(scope="module")
def converted(pcp, data_cli, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "cohort"
    assert data_cli("convert", pcp, target, "--grid", "reduced").status < 2
    return target


def test_a_site_is_corrected_in_both_tables_and_kept_in_the_metadata(converted, data_cli, tmp_path):
    before = {path.name: path.read_bytes() for path in converted.iterdir() if path.is_file()}
    table = write(tmp_path / "new.csv", "subject,SITE_ID", "50002,UCLA")
    outcome = data_cli("correct", converted, table, tmp_path / "out")
    assert outcome.status == 0 and "1 values corrected" in outcome.out and "50002 site PITT -> UCLA" in outcome.out
    assert people_of(tmp_path / "out") == people_of(converted) | {
        "50002": people_of(converted)["50002"] | {"site": "UCLA"}
    }
    covariates = {of["subject"]: of["SITE_ID"] for of in read_rows(tmp_path / "out" / "covariates.csv")}
    assert covariates["50002"] == "UCLA" and covariates["50004"] == "NYU"
    opened = open_cohort(tmp_path / "out")
    change = {"subject": "50002", "column": "site", "before": "PITT", "after": "UCLA"}
    assert opened.metadata.corrections == (change,) and opened.seal.sha256
    assert opened.digest != open_cohort(converted).digest
    assert {path.name: path.read_bytes() for path in converted.iterdir() if path.is_file()} == before
    assert "PROBLEM: covariates" not in data_cli("check", tmp_path / "out").out
    assert os.stat(tmp_path / "out" / "50004.bin").st_ino == os.stat(converted / "50004.bin").st_ino  # no copy


def test_a_label_is_corrected_in_records_of_chunks(converted, data_cli, tmp_path):
    assert data_cli("pack", converted, tmp_path / "packed", "--zip").status == 0
    own = people_of(converted)["50003"]["label"]
    other = str(1 - int(own))
    table = write(tmp_path / "new.csv", "subject,label,site", f"50003,{other},", "50004,,")
    outcome = data_cli("correct", tmp_path / "packed", table, tmp_path / "out")
    assert outcome.status == 0 and f"50003 label {own} -> {other}" in outcome.out
    opened, known = open_cohort(tmp_path / "out"), open_cohort(converted)
    for index, row in enumerate(opened.rows):
        label, phenotype, volume = opened.read(index)
        assert label == row.label == (float(other) if row.subject == "50003" else known.rows[index].label)
        np.testing.assert_array_equal(phenotype, known.read(index)[1])
        np.testing.assert_array_equal(volume, known.read(index)[2])


def test_a_value_of_the_phenotype_is_scaled_again_as_a_conversion_would(converted, data_cli, tmp_path):
    subject = open_cohort(converted).subjects("train")[0]
    table = write(tmp_path / "new.csv", "subject,age,AGE_AT_SCAN", f"{subject},44.5,44.5")
    outcome = data_cli("correct", converted, table, tmp_path / "out")
    assert outcome.status == 0 and "PROBLEM" not in outcome.out
    opened = open_cohort(tmp_path / "out")
    assert opened.raw_phenotype.loc[subject, "age"] == 44.5  # which compares records with the table
    refitted = resplit(opened, {row.subject: row.split for row in opened.rows})
    for index in range(len(opened.rows)):
        assert opened.header(index) == refitted.header(index)
    assert len(opened.metadata.phenotype_median) == PHENOTYPE_SIZE
    assert [of["column"] for of in opened.metadata.corrections] == ["age", "AGE_AT_SCAN"]


def test_files_that_then_differ_are_told(converted, data_cli, tmp_path):
    table = write(tmp_path / "new.csv", "subject,AGE_AT_SCAN", "50005,50")
    outcome = data_cli("correct", converted, table, tmp_path / "out")
    told = "covariates.csv and phenotype.csv differ in the age of 50005"
    assert outcome.status == 1 and f"PROBLEM: {told}; correct both" in outcome.out
    assert f"PROBLEM: {told}" in data_cli("check", tmp_path / "out").out
    again = write(tmp_path / "again.csv", "subject,age", "50005,50")
    assert data_cli("correct", tmp_path / "out", again, tmp_path / "both").status == 0
    assert told not in data_cli("check", tmp_path / "both").out
    assert len(json.loads((tmp_path / "both" / "cohort.json").read_text())["corrections"]) == 2


def test_ids_count_however_they_are_spelt_and_missing_values_however_marked(converted, data_cli, tmp_path):
    table = write(tmp_path / "new.csv", "subject,site,AGE_AT_SCAN", "sub-0050002,NA,-9999", "50004.0,,N/A")
    assert data_cli("correct", converted, table, tmp_path / "out").status == 0
    covariates = {of["subject"]: of for of in read_rows(tmp_path / "out" / "covariates.csv")}
    assert [covariates["50002"][name] for name in ("SITE_ID", "AGE_AT_SCAN")] == ["", ""]
    assert covariates["50004"]["AGE_AT_SCAN"] == "" and people_of(tmp_path / "out")["50002"]["site"] == "unknown"


def test_a_value_that_becomes_unknown_is_marked_as_missing(converted, data_cli, tmp_path):
    subject = next(of for of, value in open_cohort(converted).raw_phenotype["fiq"].items() if value == value)
    table = write(tmp_path / "new.csv", "subject,fiq", f"{subject},n/a")
    outcome = data_cli("correct", converted, table, tmp_path / "out")
    assert outcome.status == 0 and f"{subject} fiq_missing 0 -> 1" in outcome.out
    assert open_cohort(tmp_path / "out").raw_phenotype.loc[subject, "fiq_missing"] == 1
    again = write(tmp_path / "again.csv", "subject,fiq", f"{subject},100")
    assert data_cli("correct", tmp_path / "out", again, tmp_path / "known").status == 0
    assert open_cohort(tmp_path / "known").raw_phenotype.loc[subject, "fiq_missing"] == 0


def test_a_person_of_two_sexes_is_told(converted, data_cli, tmp_path):
    values = open_cohort(converted).raw_phenotype
    subject = values.index[values["sex_male"] == 1][0]
    table = write(tmp_path / "new.csv", "subject,sex_female", f"{subject},1")
    outcome = data_cli("correct", converted, table, tmp_path / "out")
    told = f"covariates.csv and phenotype.csv differ in the sex_female of {subject}"
    assert f"PROBLEM: {told}; correct both" in outcome.out and told in data_cli("check", tmp_path / "out").out
    assert "differ in" not in data_cli("check", converted).out


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("subject,IQ,eyes", "50002,1,2", "has the columns subject, IQ, eyes; expected subject, and columns to correct"),
        ("id,site", "50002,1", "has the columns id, site; expected subject"),
        ("subject,site", "7,A\n8,A", "names 7, 8, who are not in"),
        ("subject,site", "50002,A\n50002,B", "names 50002, who are not in .* or stand there twice"),
        ("subject,label", "50002,2", "gives 50002 the label 2; expected 1 .autism., 0 .control. or n/a"),
        ("subject,label", "TRAINING,n/a", "takes the label from TRAINING, who are training subjects"),
        ("subject,site", "50002,PITT", "says what .* says already"),
        ("subject,age", "50002,old\n50003,13+", r"holds age 'old' .50002., age '13.' .50003.; expected numbers"),
        ("subject,AGE_AT_SCAN", "50002,high\n50003,inf", r"AGE_AT_SCAN 'high' .50002., AGE_AT_SCAN 'inf' .50003."),
        ("subject,AGE_AT_SCAN", '50002,"0,13"', "AGE_AT_SCAN '0,13' .50002.; expected numbers"),
        ("subject,label", "50002,2\n50003,ASD", "gives 50002 the label 2, 50003 the label ASD; expected"),
        ("subject,site", "50002,A\nsub-0050002,B", "names 50002, who are not in .* or stand there twice"),
        ("subject,site,SITE_ID", "50002,A,B", "gives 50002 the site A and B; expected one value"),
        ("subject,fiq_missing", "50002,1", "expected subject, and columns to correct"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(header, row, words, converted, refused, tmp_path):
    training = open_cohort(converted).subjects("train")[0]
    table = write(tmp_path / "new.csv", header, row.replace("TRAINING", training))
    refused(words.replace("TRAINING", training), "correct", converted, table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def refused(data_cli):
    """Whether a command ends with one line that has these words."""
    import re

    def check(words: str, *command: object) -> None:
        outcome = data_cli(*command)
        assert outcome.status == 2 and outcome.err.count("\n") == 1, outcome
        assert re.search(words, outcome.err), outcome.err

    return check
