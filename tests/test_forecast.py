"""What a cohort can conclude, as docs/understand/planning.md says: against the people that a test compares, and
simulated studies."""

import re
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done

pytestmark = pytest.mark.slow

STUDIES = pd.read_csv(ROOT / "docs" / "evidence" / "planning.csv").query("question == 'chance' and participants < 150")
WAYS = {
    "sites left out": r"--folds (?:site|10 --wholeSites)",
    "ten folds": "--folds 10",
    "new participants": "a model of other",
}


def write_cohort(folder: Path, labels, sites, split: str = "train") -> Path:
    """A cohort as a script writes it: people of these labels and sites, in whose records nobody looks."""
    folder.mkdir(parents=True)
    record = bytearray(lab.record(1))
    rows = []
    for number, (label, site) in enumerate(zip(labels, sites, strict=True)):
        record[:4] = np.float32(label).tobytes()
        record[124:128] = np.float32(number).tobytes()
        (folder / f"{number}.bin").write_bytes(record)
        rows.append({"file": f"{number}.bin", "subject": f"{number}", "site": site, "label": label, "split": split})
    pd.DataFrame(rows).to_csv(folder / "subjects.csv", index=False)
    (folder / "cohort.json").write_text('{"grid": [31, 37, 31]}')
    return folder


def read_forecast(folder: Path) -> str:
    """The row of a check."""
    done("abide-data pack {of} {of}-packed --zip", of=folder)
    check_output = done("abide-data check {of}-packed", of=folder)
    (forecast_line,) = (line for line in check_output.splitlines() if line.startswith("forecast "))
    return forecast_line


def draw_labels_and_sites(count: int, sites: int) -> tuple[np.ndarray, list[str]]:
    label = (np.random.default_rng([0, count, sites]).random(count) < 0.5).astype(int)
    return label, [f"S{number % sites}" for number in range(count)]


@pytest.mark.parametrize("count, sites", STUDIES[["participants", "sites"]].drop_duplicates().values.tolist())
def test_the_auc_equals_simulated_studies(count, sites, tmp_path):
    """From which AUC on 8 of 10 studies find it."""
    labels_and_sites = draw_labels_and_sites(count, sites)
    forecast_lines = "; ".join(
        read_forecast(write_cohort(tmp_path / split, *labels_and_sites, split)) for split in ("train", "test")
    )
    match_by_way = {
        way: re.search(rf"{name} compares [^;]*? AUC of (0\.\d+)", forecast_lines) for way, name in WAYS.items()
    }
    for way, value in STUDIES.query("participants == @count and sites == @sites")[["way", "value"]].values:
        if match_by_way[way] and value == value:
            assert float(match_by_way[way][1]) == pytest.approx(value, abs=0.05), (way, forecast_lines)
    assert any(match_by_way.values())


CASES = [
    ((12, 1), {}, "too few for an interval", "Too few participants"),
    ((150, 15), {}, "--folds 10 --wholeSites compares 150 within 15 sites", "Use --folds 10 --wholeSites"),
    ((60, 6), {}, "--folds site compares 60 within 6 sites", "Use --folds site"),
    ((60, 2), {}, "10 compares 60 within 2 sites and", "expect no conclusion"),
    (
        (60, 2),
        {"split": "test"},
        "a model of other participants compares 60 within 2 sites",
        "own test had a higher AUC",
    ),
]


@pytest.mark.parametrize("count_and_sites, cohort_options, expected_forecast, expected_advice", CASES)
def test_two_lines_say_the_comparison_and_the_advice(
    count_and_sites, cohort_options, expected_forecast, expected_advice, tmp_path
):
    forecast_line = read_forecast(
        write_cohort(tmp_path / "of", *draw_labels_and_sites(*count_and_sites), **cohort_options)
    )
    assert expected_forecast in forecast_line and expected_advice in forecast_line, forecast_line


def test_people_compared_by_a_test_are_counted(on_folds, converted):
    """A site of one class is in no pair; asked folds are told alone."""
    dry_output = done("run.py --train --dryRun --folds 3 --dataDir {of} --chkPointDir {of}-ckpt", of=converted)
    compared = int(re.search(r"--folds 3 compares (\d+) within", dry_output)[1])
    table = lab.read_table(on_folds / "test/predictions.csv")
    groups = table.groupby(["fold", "site"])["label"]
    assert compared == sum(len(group_labels) for _, group_labels in groups if group_labels.nunique() == 2)
    assert "--folds site compares" not in dry_output


def test_where_ten_folds_compare_few_a_dry_run_advises_site_based_folds(tmp_path):
    """That advice can be followed, and compares so many: those at sites of both classes."""
    label, site = draw_labels_and_sites(120, 20)
    cohort_folder = write_cohort(tmp_path / "of", label, site)
    for number, file in enumerate(pd.read_csv(cohort_folder / "subjects.csv")["file"]):  # nobody shares a scan
        (cohort_folder / file).write_bytes(lab.record(number, label[number]))
    done("abide-data pack {of} {of}-packed", of=cohort_folder)
    dry_run = "run.py --train --model nn --dryRun --dataDir {of}-packed --chkPointDir {of}-ckpt --folds 10"
    dry_output = done(dry_run, of=cohort_folder)
    few, many = (int(re.search(rf"--folds {how} compares (\d+)", dry_output)[1]) for how in ("10", "10 --wholeSites"))
    classes = pd.DataFrame({"site": site, "label": label}).groupby("site")["label"].nunique()
    assert many == pd.Series(site).isin(classes.index[classes == 2]).sum() > 2 * few
    assert "Use --folds 10 --wholeSites" in dry_output
    followed = done(f"{dry_run} --wholeSites", of=cohort_folder)
    assert f"--folds 10 --wholeSites compares {many}" in followed and "--folds 10 compares" not in followed
