"""Cohorts without maps: of connectomes and a table, or of a table alone, as those with maps of the same people."""

import json
import subprocess
from pathlib import Path

import lab as labs
import numpy as np
import pytest
from commands import done, refused
from lab import read_table

PEOPLE = labs.people()
TINY = "--numIters 2 --set members=1 --set batch_size=8"
TABLES = {"cohort.json", "subjects.csv", "covariates.csv", "phenotype.csv", "check.json", "SHA256SUMS"}


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
