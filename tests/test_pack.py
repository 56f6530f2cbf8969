"""A cohort packed with edited tables says what they say; nothing of the old one changes. Refusals: test_refusals.py."""

import json
from collections.abc import Callable
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run
from test_phenotype import find_training_subjects, impute_and_scale, read_raw_phenotype, read_stored_phenotype

pytestmark = pytest.mark.slow
HANDS = ("right", "left", "ambidextrous", "mixed")
Edit = Callable[[pd.DataFrame], pd.DataFrame]


def read_indexed_table(folder: Path, name: str = "subjects.csv") -> pd.DataFrame:
    return lab.read_table(folder / name).set_index("subject")


def edit_cell(subject: str, column: str, text: str) -> Edit:
    return lambda table: table.assign(**{column: table[column].where(table["subject"] != subject, text)})


def pack_edited(cohort: Path, to: Path, **edits: Edit) -> str:
    """What is printed when the cohort is packed with these of its tables, edited."""
    edited_tables = to.with_name(f"{to.name}-tables")
    edited_tables.mkdir()
    for name, edit in edits.items():
        (edited_tables / f"{name}.csv").write_bytes((cohort / f"{name}.csv").read_bytes())
        lab.edit(edited_tables / f"{name}.csv", edit)
    return done("abide-data pack {of} {to} --tables {edited}", of=cohort, to=to, edited=edited_tables)


def find_problems(printed_text: str) -> list[str]:
    """The problems among these lines, but for the one that the made-up people have."""
    lines = [line for line in printed_text.splitlines() if line.startswith("PROBLEM")]
    planted = ("whole connectomes separate", "whole maps separate the training labels by x_mm")  # as people are made up
    return [line for line in lines if not any(words in line for words in planted)]


def test_a_label_and_a_site_change_in_tables_and_records_and_stay_in_the_metadata(converted, tmp_path):
    before = {path.name: path.read_bytes() for path in converted.iterdir()}
    done("abide-data pack {of} {to}/zip --zip", of=converted, to=tmp_path)
    old_label = read_indexed_table(converted).loc["50003", "label"]
    new_label = str(1 - int(old_label))
    printed_text = pack_edited(
        tmp_path / "zip",
        tmp_path / "out",
        subjects=lambda table: edit_cell("50003", "label", new_label)(edit_cell("50002", "site", "UCLA")(table)).iloc[
            ::-1
        ],
        covariates=edit_cell("50002", "SITE_ID", "UCLA"),
    )
    for line in (f"50003 label: {old_label} -> {new_label}", "50002 site: PITT -> UCLA", "50002 SITE_ID: PITT -> UCLA"):
        assert f"{line}\n" in printed_text
    expected = read_indexed_table(converted)
    expected.loc["50002", "site"], expected.loc["50003", "label"] = "UCLA", new_label
    pd.testing.assert_frame_equal(read_indexed_table(tmp_path / "out"), expected)
    done("abide-data pack {to}/out {to}/bin --bin", to=tmp_path)
    for name in expected["file"]:
        now, then = ((folder / name).read_bytes() for folder in (tmp_path / "bin", converted))
        assert now[4:] == then[4:] and (now[:4] != then[:4]) == (name == "50003.bin")
    provenance = json.loads((tmp_path / "out/cohort.json").read_text())["provenance"]
    change = {"subject": "50003", "column": "label", "before": old_label, "after": new_label}
    assert change in provenance["pack"]["changed"] and len(provenance["pack"]["changed"]) == 3
    assert not find_problems(printed_text)
    assert {path.name: path.read_bytes() for path in converted.iterdir()} == before


def test_the_phenotype_is_scaled_anew_as_a_conversion_would(converted, tmp_path):
    """On the training people, who may be others, too. A value that is not known any more, or is now, is marked."""
    values, subject = read_raw_phenotype(converted), find_training_subjects(converted)[0]
    subject_with_iq, tested = (
        values.index[values["fiq"].notna()][0],
        read_indexed_table(converted).query("split == 'test'").index[0],
    )
    printed_text = pack_edited(
        converted,
        tmp_path / "out",
        subjects=edit_cell(tested, "split", "train"),
        phenotype=lambda table: edit_cell(subject, "age", "44.5")(edit_cell(subject_with_iq, "fiq", "")(table)),
        covariates=edit_cell(subject, "AGE_AT_SCAN", "44.50"),
    )
    after = read_raw_phenotype(tmp_path / "out")
    assert after.loc[subject, "age"] == 44.5 and not find_problems(printed_text)
    assert np.isnan(after.loc[subject_with_iq, "fiq"]) and after.loc[subject_with_iq, "fiq_missing"] == 1
    assert {*find_training_subjects(tmp_path / "out")} == {*find_training_subjects(converted), tested}
    np.testing.assert_allclose(
        read_stored_phenotype(tmp_path / "out"),
        impute_and_scale(after, find_training_subjects(tmp_path / "out")),
        atol=1e-4,
    )


def test_marks_for_unknown_values_follow_the_values(converted, tmp_path):
    values = read_raw_phenotype(converted)
    subject, handed_subject = (values.index[values["handedness_unknown"] == is_unknown][0] for is_unknown in (1, 0))
    none = [
        edit_cell(handed_subject, name, "0") for name in values if name.startswith("handedness_") and name[11:] in HANDS
    ]

    def edit(table: pd.DataFrame) -> pd.DataFrame:
        for change in (edit_cell(subject, "handedness_left", "1"), *none, edit_cell(handed_subject, "wisc_psi", "101")):
            table = change(table)
        return table

    pack_edited(converted, tmp_path / "out", phenotype=edit)
    after = read_raw_phenotype(tmp_path / "out")
    assert after.loc[[subject, handed_subject], "handedness_unknown"].tolist() == [0, 1]
    assert after.loc[handed_subject, "wisc_missing"] == 0 and (after["wisc_missing"].drop(handed_subject) == 1).all()


def test_values_no_conversion_gives_are_a_problem(converted, tmp_path):
    unsealed_cohort = copy_unsealed(converted, tmp_path / "of", phenotype=edit_cell("50003", "eyes_open", "7"))
    outcome = run("abide-data pack {of} {to}", of=unsealed_cohort, to=tmp_path / "to")
    assert outcome.status == 1
    again = done("abide-data check {of} --html {of}/check.html", of=tmp_path / "to")
    assert "PROBLEM" in again and "eyes_open of 50003 is 7; expected 1 for one of" in again


def test_tables_differing_then_are_reported(converted, tmp_path):
    printed_text = pack_edited(converted, tmp_path / "out", covariates=edit_cell("50005", "AGE_AT_SCAN", "50"))
    assert ["differ in the age of 50005" in line for line in find_problems(printed_text)] == [True]
    assert not find_problems(
        pack_edited(tmp_path / "out", tmp_path / "both", phenotype=edit_cell("50005", "age", "50"))
    )


UNSEALED = "sealed without SHA256SUMS"


def copy_unsealed(cohort: Path, to: Path, **edits: Edit) -> Path:
    """A copy of the cohort without sums, these of its tables edited in place."""
    lab.copy(cohort, to)
    lab.edit(to / "SHA256SUMS", "gone")
    for name, edit in edits.items():
        lab.edit(to / f"{name}.csv", edit)
    return to


def test_tables_without_sums_are_checked_against_the_records(converted, tmp_path):
    """Each cell is named, now and whenever the new cohort is checked, until it says again what the record said."""
    old_label, age = (
        read_indexed_table(converted).loc["50003", "label"],
        read_raw_phenotype(converted).loc["50005", "age"],
    )
    new_label = str(1 - int(old_label))
    edits = {"subjects": edit_cell("50003", "label", new_label), "phenotype": edit_cell("50005", "age", "44.5")}
    of = copy_unsealed(converted, tmp_path / "of", **edits, covariates=edit_cell("50006", "SITE_ID", "PITT"))
    places = {"of": of, "to": tmp_path}
    outcome = run("abide-data pack {of} {to}/new", **places)
    assert outcome.status == 1 and UNSEALED in outcome.out and "site, split and covariates cannot" in outcome.out
    again = run("abide-data check {to}/new", **places)
    for report in (outcome, again):
        assert f"50003 label ({old_label} in the record, {new_label} in the table)" in report.out and report.status == 1
        assert f"50005 age ({age:.6g} in the record, 44.5 in the table)" in report.out
        assert "differ in the site of 50006" in report.out
    provenance = json.loads((tmp_path / "new/cohort.json").read_text())["provenance"]
    assert provenance["sealed_without_sums"] is True
    assert [(of["subject"], of["column"]) for of in provenance["unlike_records"]] == [
        ("50003", "label"),
        ("50005", "age"),
    ]

    back = {"subjects": edit_cell("50003", "label", old_label), "phenotype": edit_cell("50005", "age", str(age))}
    printed = pack_edited(tmp_path / "new", tmp_path / "back", **back, covariates=edit_cell("50006", "SITE_ID", "NYU"))
    assert not find_problems(printed) and UNSEALED in printed


def test_tables_without_sums_count_with_the_option(converted, tmp_path):
    """Then what they say otherwise than the records is a change; what is read from elsewhere is compared likewise."""
    old_label = read_indexed_table(converted).loc["50003", "label"]
    new_label = str(1 - int(old_label))
    unsealed_cohort = copy_unsealed(converted, tmp_path / "of", subjects=edit_cell("50003", "label", new_label))
    printed_text = done("abide-data pack {of} {to} --tables {of}", of=unsealed_cohort, to=tmp_path / "named")
    assert (
        f"changed       50003 label: {old_label} -> {new_label}\n" in printed_text
        and UNSEALED in printed_text
        and not find_problems(printed_text)
    )
    printed_text = pack_edited(
        unsealed_cohort, tmp_path / "elsewhere", covariates=edit_cell("50005", "func_mean_fd", "0.5")
    )
    assert (
        f"50003 label ({old_label} in the record, {new_label} in the table)" in printed_text
        and "50005 func_mean_fd: " in printed_text
    )


def test_unedited_tables_without_sums_are_only_reported(converted, tmp_path):
    printed_text = done("abide-data pack {of} {to}", of=copy_unsealed(converted, tmp_path / "of"), to=tmp_path / "to")
    assert UNSEALED in printed_text and not find_problems(printed_text)
    np.testing.assert_array_equal(read_stored_phenotype(tmp_path / "to"), read_stored_phenotype(converted))


def save_as_spreadsheet(path: Path, new_age: str) -> None:
    """With a byte-order mark, other line ends, quotes, numbers written otherwise, and one other age."""
    table = edit_cell("50005", "AGE_AT_SCAN", new_age)(lab.read_table(path))
    table = table.map(lambda text: f"{float(text):.12G}" if "." in text and text[-1].isdigit() else text)
    lab.edit(path, b"\xef\xbb\xbf" + table.to_csv(index=False, quoting=1, lineterminator="\r\n").encode())


def test_a_table_with_semicolons_and_decimal_commas_is_read(converted, tmp_path):
    def european(table: pd.DataFrame) -> bytes:
        points = edit_cell("50005", "AGE_AT_SCAN", "35.5")(table)
        return (
            points.assign(AGE_AT_SCAN=points["AGE_AT_SCAN"].str.replace(".", ",")).to_csv(sep=";", index=False).encode()
        )

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/covariates.csv").write_bytes(european(lab.read_table(converted / "covariates.csv")))
    printed_text = done("abide-data pack {of} {to}/new --tables {to}/tables", of=converted, to=tmp_path)
    assert next(line for line in printed_text.splitlines() if line.startswith("changed")).endswith(" -> 35.5")
    assert printed_text.count("\nchanged ") == 1
    before, after = (
        read_indexed_table(folder, "covariates.csv").drop("50005") for folder in (converted, tmp_path / "new")
    )
    pd.testing.assert_frame_equal(after, before)


def test_a_table_edited_in_place_is_reported_and_taken_with_the_option(converted, tmp_path):
    of = lab.copy(converted, tmp_path / "of")
    save_as_spreadsheet(of / "covariates.csv", "50")
    printed_text = done("abide-data pack {of} {to} --tables {of}", of=of, to=tmp_path / "to")
    assert "covariates.csv was edited in place: what it said before is not known" in printed_text
    assert read_indexed_table(tmp_path / "to", "covariates.csv").loc["50005", "AGE_AT_SCAN"] == "50"
    tables = lab.copy(of, tmp_path / "tables")
    done("abide-data pack {of} {to} --tables {tables}", of=converted, to=tmp_path / "again", tables=tables)
    changed = json.loads((tmp_path / "again/cohort.json").read_text())["provenance"]["pack"]["changed"]
    assert [(of["subject"], of["column"]) for of in changed] == [("50005", "AGE_AT_SCAN")]
