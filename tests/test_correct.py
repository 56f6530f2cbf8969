"""A correction makes a new, sealed cohort that says what was corrected; nothing of the old one changes.

What is refused stands in test_refusals.py.
"""

import json
import os
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done
from test_phenotype import scaled, stored, training_of, values_of

pytestmark = pytest.mark.slow


def table_of(folder: Path, name: str = "subjects.csv") -> pd.DataFrame:
    return lab.read_table(folder / name).set_index("subject")


def corrected(cohort: Path, folder: Path, *lines: str, name: str = "out") -> tuple[Path, str]:
    """The cohort with a table of corrections, and what the command printed."""
    (folder / f"{name}.csv").write_text("\n".join([*lines, ""]))
    told = done("abide-data correct {of} {to}/{name}.csv {to}/{name}", of=cohort, to=folder, name=name)
    return folder / name, told


def test_a_site_is_corrected_in_both_tables_and_kept_in_the_metadata(converted, tmp_path):
    before = {path.name: path.read_bytes() for path in converted.iterdir()}
    out, told = corrected(converted, tmp_path, "subject,SITE_ID", "50002,UCLA")
    assert "1 values corrected" in told and "50002 site PITT -> UCLA" in told
    expected = table_of(converted)
    expected.loc["50002", "site"] = "UCLA"
    pd.testing.assert_frame_equal(table_of(out), expected)
    assert table_of(out, "covariates.csv").loc[["50002", "50003"], "SITE_ID"].tolist() == ["UCLA", "NYU"]
    change = {"subject": "50002", "column": "site", "before": "PITT", "after": "UCLA"}
    assert json.loads((out / "cohort.json").read_text())["corrections"] == [change]
    assert {path.name: path.read_bytes() for path in converted.iterdir()} == before
    assert "PROBLEM: covariates" not in done("abide-data check {of}", of=out)
    assert os.stat(out / "50004.bin").st_ino == os.stat(converted / "50004.bin").st_ino  # no copy


def test_a_label_is_corrected_in_records_of_chunks(converted, tmp_path):
    done("abide-data pack {of} {to}/packed --zip", of=converted, to=tmp_path)
    own = table_of(converted).loc["50003", "label"]
    lines = ("subject,label,site", f"50003,{1 - int(own)},", "50004,,")
    out, told = corrected(tmp_path / "packed", tmp_path, *lines)
    assert f"50003 label {own} -> {1 - int(own)}" in told
    done("abide-data pack {to}/out {to}/again --bin", to=tmp_path)
    for name in table_of(converted)["file"]:
        now, then = ((folder / name).read_bytes() for folder in (tmp_path / "again", converted))
        assert now[4:] == then[4:] and (now[:4] != then[:4]) == (name == "50003.bin")
    assert table_of(out).loc["50003", "label"] == str(1 - int(own))


def test_a_value_of_the_phenotype_is_scaled_again_as_a_conversion_would(converted, tmp_path):
    subject = training_of(converted)[0]
    out, told = corrected(converted, tmp_path, "subject,age,AGE_AT_SCAN", f"{subject},44.5,44.5")
    values = values_of(out)
    assert values.loc[subject, "age"] == 44.5 and "PROBLEM: covariates" not in told
    np.testing.assert_allclose(stored(out), scaled(values, training_of(out)), atol=1e-4)
    assert not np.allclose(stored(out), stored(converted), atol=1e-4)


def test_tables_that_then_differ_are_told(converted, tmp_path):
    out, told = corrected(converted, tmp_path, "subject,AGE_AT_SCAN", "50005,50")
    differ = "PROBLEM: covariates.csv and phenotype.csv differ in the age of 50005; correct both"
    assert differ in told
    differ = differ.partition(";")[0]
    assert differ in done("abide-data check {of}", of=out)
    both, _ = corrected(out, tmp_path, "subject,age", "50005,50", name="both")
    assert differ not in done("abide-data check {of}", of=both)
    assert len(json.loads((both / "cohort.json").read_text())["corrections"]) == 2
    male = values_of(converted).query("sex_male == 1").index[0]
    _, told = corrected(converted, tmp_path, "subject,sex_female", f"{male},1", name="two")
    assert f"PROBLEM: covariates.csv and phenotype.csv differ in the sex_female of {male}" in told


def test_ids_count_however_they_are_spelt_and_unknown_values_are_marked(converted, tmp_path):
    values = values_of(converted)
    subject = values.index[values["fiq"].notna()][0]
    lines = ("subject,site,AGE_AT_SCAN,fiq", "sub-0050002,NA,-9999,", "50004.0,,N/A,")
    out, _ = corrected(converted, tmp_path, *lines)
    covariates = table_of(out, "covariates.csv")
    assert covariates.loc["50002", ["SITE_ID", "AGE_AT_SCAN"]].tolist() == ["", ""]
    assert covariates.loc["50004", "AGE_AT_SCAN"] == "" and table_of(out).loc["50002", "site"] == "unknown"
    out, told = corrected(converted, tmp_path, "subject,fiq", f"{subject},n/a", name="less")
    assert f"{subject} fiq_missing 0 -> 1" in told and values_of(out).loc[subject, "fiq_missing"] == 1
    out, _ = corrected(out, tmp_path, "subject,fiq", f"{subject},100", name="more")
    assert values_of(out).loc[subject, ["fiq", "fiq_missing"]].tolist() == [100, 0]
