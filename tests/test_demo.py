"""The demo cohort: seeded, made once, said to be simulated; a difference in four regions, and plausible people."""

import json
import os
import re
import sys
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done
from pages import README, read_page_source
from scipy import stats
from test_atlas import reduced_aal
from tried import run_system_command

pytestmark = pytest.mark.slow

README_TEXT = " ".join(read_page_source(README).split())
TRAIN = "run.py --train --model nn --set members=1 --chkPointDir {to}/ckpt --outDir {to}/out"


def read_labels_and_means(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the mean of each region, (people, regions)."""
    labels, names = reduced_aal(), lab.read_table(folder / "subjects.csv")
    records = [lab.read_record(folder / name) for name in names["file"]]
    means = [[record[2][0][labels == region].mean() for region in range(1, 117)] for record in records]
    return np.array([record[0] for record in records]), np.array(means)


def test_only_the_planted_regions_differ_between_groups(cohort, blackout):
    """By t-tests of 40 people: four of 116 regions."""
    label, means = read_labels_and_means(cohort)
    planted = json.loads((cohort / "cohort.json").read_text())["provenance"]["planted"]
    names = pd.read_csv(blackout / "regions.csv").set_index("region").sort_index()["name"]
    t = stats.ttest_ind(means[label == 1], means[label == 0]).statistic
    is_planted = names.isin(planted).to_numpy()
    assert is_planted.sum() == len(planted) == 4
    assert (
        t[is_planted].min() > 1.5
        and t[is_planted].mean() > 2.5
        and abs(t[~is_planted].mean()) < 0.5
        and np.quantile(abs(t[~is_planted]), 0.9) < 2.2
    )


def test_people_resemble_abide_and_keep_the_drawn_values(cohort):
    covariates, table = (lab.read_table(cohort / name) for name in ("covariates.csv", "subjects.csv"))
    values = pd.read_csv(cohort / "phenotype.csv")
    age, motion = covariates["AGE_AT_SCAN"].astype(float), covariates["func_mean_fd"].astype(float)
    assert covariates.columns.tolist() == ["subject", "SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd"]
    assert covariates["subject"].tolist() == table["subject"].tolist() and table["subject"].is_unique
    assert covariates["SITE_ID"].tolist() == table["site"].tolist()
    assert 12 < age.mean() < 22 and age.between(6, 64).all() and 0.7 < (covariates["SEX"] == "1").mean() < 1
    assert 0.05 < motion.median() < 0.2 and 0 < motion.min() < motion.max() < 1
    assert (table["label"] == "1").mean() == 0.5 and table["site"].value_counts().idxmax() == "NYU"
    assert values["age"].tolist() == age.tolist() and values.shape == (40, 30)
    assert (values["fiq"].isna() == values["fiq_missing"].astype(bool)).all()


def test_without_data_a_simulated_cohort_is_made_once_with_the_same_bytes(tmp_path, monkeypatch):
    """It is said to be simulated; two caches hold the same."""
    made = []
    for name in ("one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        train_output = done(f"{TRAIN} --numIters 1", to=tmp_path / name)
        assert "SIMULATED" in train_output.upper()
        (folder,) = (tmp_path / name / "falff-demo").iterdir()
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        done(f"{TRAIN} --numIters 2", to=tmp_path / name)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
        made.append({path.name: path.read_bytes() for path in folder.glob("*.bin")})
        assert json.loads((folder / "cohort.json").read_text())["simulated"]
    assert made[0] == made[1] and len(made[0]) == 20  # as conftest says


DEMO_SCRIPT = """
import sys

import run

for job in ("train", "test", "blackout"):
    sys.argv = ["run.py", f"--{job}", "--chkPointDir", "ckpt", "--outDir", job]
    if run.main() > 0:
        sys.exit(f"--{job} failed")
"""


@pytest.fixture(scope="module")
def full_demo(tmp_path_factory) -> Path:
    """The folder with what `make demo` makes, by as much computation as for a user, and the cache; in one process,
    which starts TensorFlow once."""
    folder = tmp_path_factory.mktemp("whole")
    environment = {name: value for name, value in os.environ.items() if name != "ABIDE_EFFORT"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    run_system_command(sys.executable, "-c", DEMO_SCRIPT, cwd=folder, env=environment)
    return folder


def test_the_readme_says_how_well_the_demo_does(full_demo):
    """Another processor may change the last digit, but not what is concluded."""
    measures = json.loads((full_demo / "test/metrics.json").read_text())
    baseline = pd.read_csv(full_demo / "test/baselines.csv").set_index("role").loc["pre-specified"]
    model_auc = [measures["auc_sites"][end] for end in ("value", "low", "high")]
    baseline_auc, difference = (
        [baseline[f"{name}auc_sites{end}"] for end in ("", "_low", "_high")] for name in ("", "model_minus_baseline_")
    )
    (readme_sentence,) = re.findall(r"The AUC within sites is .+? no difference is shown \(.+?\)", README_TEXT)
    numbers = [float(number) for number in re.findall(r"-?\d\.\d\d", readme_sentence)]
    assert numbers == pytest.approx([*model_auc, *baseline_auc, *difference], abs=0.02)
    assert model_auc[1] > 0.8 and difference[1] <= 0 <= difference[2]


def test_the_readme_lists_the_demo_findings(full_demo):
    (cohort,) = (full_demo / "cache/falff-demo").iterdir()
    tested = lab.read_table(cohort / "subjects.csv")["split"] == "test"
    assert f"{len(tested):,} simulated participants, {tested.sum()} of whom are tested" in README_TEXT
    planted = json.loads((cohort / "cohort.json").read_text())["provenance"]["planted"]
    regions, halves = (pd.read_csv(full_demo / f"blackout/{name}.csv") for name in ("regions", "replication"))
    significant, replicated = regions["name"][regions["p_reliance"] < 0.05], halves["thing"][halves["replicates"] > 0.5]
    assert sorted({*significant} & {*replicated}) == sorted(planted)
    assert "These four, and no others, are significant, also with half of the participants" in README_TEXT
