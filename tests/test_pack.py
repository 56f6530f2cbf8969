"""A cohort packed with edited tables says what they say; nothing of the old one changes. Refusals: test_refusals.py."""

import json
from collections.abc import Callable
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run
from test_phenotype import scaled, stored, training_of, values_of

pytestmark = pytest.mark.slow
HANDS = ("right", "left", "ambidextrous", "mixed")
Edit = Callable[[pd.DataFrame], pd.DataFrame]


def table_of(folder: Path, name: str = "subjects.csv") -> pd.DataFrame:
    return lab.read_table(folder / name).set_index("subject")


def cell(subject: str, column: str, text: str) -> Edit:
    return lambda table: table.assign(**{column: table[column].where(table["subject"] != subject, text)})


def packed(cohort: Path, to: Path, **edits: Edit) -> str:
    """What is printed when the cohort is packed with these of its tables, edited."""
    edited = to.with_name(f"{to.name}-tables")
    edited.mkdir()
    for name, edit in edits.items():
        (edited / f"{name}.csv").write_bytes((cohort / f"{name}.csv").read_bytes())
        lab.edit(edited / f"{name}.csv", edit)
    return done("abide-data pack {of} {to} --tables {edited}", of=cohort, to=to, edited=edited)


def wrong(told: str) -> list[str]:
    """The problems among these lines, but for the one that the made-up people have."""
    lines = [line for line in told.splitlines() if line.startswith("PROBLEM")]
    planted = ("whole connectomes separate", "whole maps separate the training labels by x_mm")  # as people are made up
    return [line for line in lines if not any(words in line for words in planted)]


def test_a_label_and_a_site_change_in_tables_and_records_and_are_kept_in_the_metadata(converted, tmp_path):
    before = {path.name: path.read_bytes() for path in converted.iterdir()}
    done("abide-data pack {of} {to}/zip --zip", of=converted, to=tmp_path)
    own = table_of(converted).loc["50003", "label"]
    other = str(1 - int(own))
    told = packed(
        tmp_path / "zip",
        tmp_path / "out",
        subjects=lambda table: cell("50003", "label", other)(cell("50002", "site", "UCLA")(table)).iloc[::-1],
        covariates=cell("50002", "SITE_ID", "UCLA"),
    )
    for line in (f"50003 label: {own} -> {other}", "50002 site: PITT -> UCLA", "50002 SITE_ID: PITT -> UCLA"):
        assert f"{line}\n" in told
    expected = table_of(converted)
    expected.loc["50002", "site"], expected.loc["50003", "label"] = "UCLA", other
    pd.testing.assert_frame_equal(table_of(tmp_path / "out"), expected)
    done("abide-data pack {to}/out {to}/bin --bin", to=tmp_path)
    for name in expected["file"]:
        now, then = ((folder / name).read_bytes() for folder in (tmp_path / "bin", converted))
        assert now[4:] == then[4:] and (now[:4] != then[:4]) == (name == "50003.bin")
    provenance = json.loads((tmp_path / "out/cohort.json").read_text())["provenance"]
    change = {"subject": "50003", "column": "label", "before": own, "after": other}
    assert change in provenance["pack"]["changed"] and len(provenance["pack"]["changed"]) == 3
    assert not wrong(told)
    assert {path.name: path.read_bytes() for path in converted.iterdir()} == before


def test_the_phenotype_is_scaled_anew_as_a_conversion_would(converted, tmp_path):
    """On the training people, who may be others, too. A value that is not known any more, or is now, is marked."""
    values, subject = values_of(converted), training_of(converted)[0]
    known, tested = values.index[values["fiq"].notna()][0], table_of(converted).query("split == 'test'").index[0]
    told = packed(
        converted,
        tmp_path / "out",
        subjects=cell(tested, "split", "train"),
        phenotype=lambda table: cell(subject, "age", "44.5")(cell(known, "fiq", "")(table)),
        covariates=cell(subject, "AGE_AT_SCAN", "44.50"),
    )
    after = values_of(tmp_path / "out")
    assert after.loc[subject, "age"] == 44.5 and not wrong(told)
    assert np.isnan(after.loc[known, "fiq"]) and after.loc[known, "fiq_missing"] == 1
    assert {*training_of(tmp_path / "out")} == {*training_of(converted), tested}
    np.testing.assert_allclose(stored(tmp_path / "out"), scaled(after, training_of(tmp_path / "out")), atol=1e-4)


def test_what_says_that_values_are_unknown_follows_them(converted, tmp_path):
    values = values_of(converted)
    subject, other = (values.index[values["handedness_unknown"] == of][0] for of in (1, 0))
    none = [cell(other, name, "0") for name in values if name.startswith("handedness_") and name[11:] in HANDS]

    def edit(table: pd.DataFrame) -> pd.DataFrame:
        for change in (cell(subject, "handedness_left", "1"), *none, cell(other, "wisc_psi", "101")):
            table = change(table)
        return table

    packed(converted, tmp_path / "out", phenotype=edit)
    after = values_of(tmp_path / "out")
    assert after.loc[[subject, other], "handedness_unknown"].tolist() == [0, 1]
    assert after.loc[other, "wisc_missing"] == 0 and (after["wisc_missing"].drop(other) == 1).all()


def test_values_that_no_conversion_gives_are_a_problem(converted, tmp_path):
    of = unsealed(converted, tmp_path / "of", phenotype=cell("50003", "eyes_open", "7"))
    outcome = run("abide-data pack {of} {to}", of=of, to=tmp_path / "to")
    assert outcome.status == 1
    again = done("abide-data check {of} --html {of}/check.html", of=tmp_path / "to")
    assert "PROBLEM" in again and "eyes_open of 50003 is 7; expected 1 for one of" in again


def test_tables_that_then_differ_are_told(converted, tmp_path):
    told = packed(converted, tmp_path / "out", covariates=cell("50005", "AGE_AT_SCAN", "50"))
    assert ["differ in the age of 50005" in line for line in wrong(told)] == [True]
    assert not wrong(packed(tmp_path / "out", tmp_path / "both", phenotype=cell("50005", "age", "50")))


UNSEALED = "sealed without SHA256SUMS"


def unsealed(cohort: Path, to: Path, **edits: Edit) -> Path:
    """A copy of the cohort without sums, these of its tables edited in place."""
    lab.copy(cohort, to)
    lab.edit(to / "SHA256SUMS", "gone")
    for name, edit in edits.items():
        lab.edit(to / f"{name}.csv", edit)
    return to


def test_tables_without_sums_are_held_against_the_records(converted, tmp_path):
    """Each cell is named, now and whenever the new cohort is checked, until it says again what the record said."""
    own, age = table_of(converted).loc["50003", "label"], values_of(converted).loc["50005", "age"]
    other = str(1 - int(own))
    edits = {"subjects": cell("50003", "label", other), "phenotype": cell("50005", "age", "44.5")}
    of = unsealed(converted, tmp_path / "of", **edits, covariates=cell("50006", "SITE_ID", "PITT"))
    places = {"of": of, "to": tmp_path}
    outcome = run("abide-data pack {of} {to}/new", **places)
    assert outcome.status == 1 and UNSEALED in outcome.out and "site, split and covariates cannot" in outcome.out
    again = run("abide-data check {to}/new", **places)
    for told in (outcome, again):
        assert f"50003 label ({own} in the record, {other} in the table)" in told.out and told.status == 1
        assert f"50005 age ({age:.6g} in the record, 44.5 in the table)" in told.out
        assert "differ in the site of 50006" in told.out
    said = json.loads((tmp_path / "new/cohort.json").read_text())["provenance"]
    assert said["sealed_without_sums"] is True
    assert [(of["subject"], of["column"]) for of in said["unlike_records"]] == [("50003", "label"), ("50005", "age")]

    back = {"subjects": cell("50003", "label", own), "phenotype": cell("50005", "age", str(age))}
    told = packed(tmp_path / "new", tmp_path / "back", **back, covariates=cell("50006", "SITE_ID", "NYU"))
    assert not wrong(told) and UNSEALED in told


def test_tables_without_sums_count_if_they_are_named(converted, tmp_path):
    """Then what they say otherwise than the records is a change; what is read from elsewhere is compared likewise."""
    own = table_of(converted).loc["50003", "label"]
    other = str(1 - int(own))
    of = unsealed(converted, tmp_path / "of", subjects=cell("50003", "label", other))
    told = done("abide-data pack {of} {to} --tables {of}", of=of, to=tmp_path / "named")
    assert f"changed       50003 label: {own} -> {other}\n" in told and UNSEALED in told and not wrong(told)
    told = packed(of, tmp_path / "elsewhere", covariates=cell("50005", "func_mean_fd", "0.5"))
    assert f"50003 label ({own} in the record, {other} in the table)" in told and "50005 func_mean_fd: " in told


def test_tables_without_sums_that_nobody_edited_are_only_told(converted, tmp_path):
    told = done("abide-data pack {of} {to}", of=unsealed(converted, tmp_path / "of"), to=tmp_path / "to")
    assert UNSEALED in told and not wrong(told)
    np.testing.assert_array_equal(stored(tmp_path / "to"), stored(converted))


def saved_by_a_spreadsheet(path: Path, other: str) -> None:
    """With a byte-order mark, other line ends, quotes, numbers written otherwise, and one other age."""
    table = cell("50005", "AGE_AT_SCAN", other)(lab.read_table(path))
    table = table.map(lambda text: f"{float(text):.12G}" if "." in text and text[-1].isdigit() else text)
    lab.edit(path, b"\xef\xbb\xbf" + table.to_csv(index=False, quoting=1, lineterminator="\r\n").encode())


def test_a_table_with_semicolons_and_decimal_commas_is_read(converted, tmp_path):
    def european(table: pd.DataFrame) -> bytes:
        points = cell("50005", "AGE_AT_SCAN", "35.5")(table)
        return (
            points.assign(AGE_AT_SCAN=points["AGE_AT_SCAN"].str.replace(".", ",")).to_csv(sep=";", index=False).encode()
        )

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/covariates.csv").write_bytes(european(lab.read_table(converted / "covariates.csv")))
    told = done("abide-data pack {of} {to}/new --tables {to}/tables", of=converted, to=tmp_path)
    assert next(line for line in told.splitlines() if line.startswith("changed")).endswith(" -> 35.5")
    assert told.count("\nchanged ") == 1
    before, after = (table_of(folder, "covariates.csv").drop("50005") for folder in (converted, tmp_path / "new"))
    pd.testing.assert_frame_equal(after, before)


def test_a_table_that_was_edited_in_place_is_told_and_taken_if_it_is_named(converted, tmp_path):
    of = lab.copy(converted, tmp_path / "of")
    saved_by_a_spreadsheet(of / "covariates.csv", "50")
    told = done("abide-data pack {of} {to} --tables {of}", of=of, to=tmp_path / "to")
    assert "covariates.csv was edited in place: what it said before is not known" in told
    assert table_of(tmp_path / "to", "covariates.csv").loc["50005", "AGE_AT_SCAN"] == "50"
    tables = lab.copy(of, tmp_path / "tables")
    done("abide-data pack {of} {to} --tables {tables}", of=converted, to=tmp_path / "again", tables=tables)
    changed = json.loads((tmp_path / "again/cohort.json").read_text())["provenance"]["pack"]["changed"]
    assert [(of["subject"], of["column"]) for of in changed] == [("50005", "AGE_AT_SCAN")]
