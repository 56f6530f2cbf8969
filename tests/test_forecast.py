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


def cohort_of(folder: Path, labels, sites, split: str = "train") -> Path:
    """A cohort as a script writes it: people of these labels and sites, in whose records nobody looks."""
    folder.mkdir(parents=True)
    record = bytearray(lab.record(1))
    rows = []
    for at, (label, site) in enumerate(zip(labels, sites, strict=True)):
        record[:4] = np.float32(label).tobytes()
        record[124:128] = np.float32(at).tobytes()
        (folder / f"{at}.bin").write_bytes(record)
        rows.append({"file": f"{at}.bin", "subject": f"{at}", "site": site, "label": label, "split": split})
    pd.DataFrame(rows).to_csv(folder / "subjects.csv", index=False)
    (folder / "cohort.json").write_text('{"grid": [31, 37, 31]}')
    return folder


def forecast_of(folder: Path) -> str:
    """The row of a check."""
    done("abide-data pack {of} {of}-packed --zip", of=folder)
    told = done("abide-data check {of}-packed", of=folder)
    (found,) = (line for line in told.splitlines() if line.startswith("forecast "))
    return found


def drawn(count: int, sites: int) -> tuple[np.ndarray, list[str]]:
    label = (np.random.default_rng([0, count, sites]).random(count) < 0.5).astype(int)
    return label, [f"S{at % sites}" for at in range(count)]


@pytest.mark.parametrize("count, sites", STUDIES[["participants", "sites"]].drop_duplicates().values.tolist())
def test_the_auc_is_that_of_simulated_studies(count, sites, tmp_path):
    """From which AUC on 8 of 10 studies find it."""
    of = drawn(count, sites)
    told = "; ".join(forecast_of(cohort_of(tmp_path / split, *of, split)) for split in ("train", "test"))
    found = {way: re.search(rf"{name} compares [^;]*? AUC of (0\.\d+)", told) for way, name in WAYS.items()}
    for way, value in STUDIES.query("participants == @count and sites == @sites")[["way", "value"]].values:
        if found[way] and value == value:
            assert float(found[way][1]) == pytest.approx(value, abs=0.05), (way, told)
    assert any(found.values())


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


@pytest.mark.parametrize("of, how, told, advised", CASES)
def test_two_lines_say_who_is_compared_and_what_to_do(of, how, told, advised, tmp_path):
    found = forecast_of(cohort_of(tmp_path / "of", *drawn(*of), **how))
    assert told in found and advised in found, found


def test_those_whom_a_test_compares_are_counted(on_folds, converted):
    """A site of one class is in no pair; asked folds are told alone."""
    told = done("run.py --train --dryRun --folds 3 --dataDir {of} --chkPointDir {of}-ckpt", of=converted)
    compared = int(re.search(r"--folds 3 compares (\d+) within", told)[1])
    table = lab.read_table(on_folds / "test/predictions.csv")
    groups = table.groupby(["fold", "site"])["label"]
    assert compared == sum(len(of) for _, of in groups if of.nunique() == 2)
    assert "--folds site compares" not in told


def test_where_ten_folds_compare_few_a_dry_run_advises_folds_of_whole_sites(tmp_path):
    """That advice can be followed, and compares so many: those at sites of both classes."""
    label, site = drawn(120, 20)
    of = cohort_of(tmp_path / "of", label, site)
    for number, file in enumerate(pd.read_csv(of / "subjects.csv")["file"]):  # nobody shares a scan
        (of / file).write_bytes(lab.record(number, label[number]))
    done("abide-data pack {of} {of}-packed", of=of)
    dry_run = "run.py --train --model nn --dryRun --dataDir {of}-packed --chkPointDir {of}-ckpt --folds 10"
    told = done(dry_run, of=of)
    few, many = (int(re.search(rf"--folds {how} compares (\d+)", told)[1]) for how in ("10", "10 --wholeSites"))
    classes = pd.DataFrame({"site": site, "label": label}).groupby("site")["label"].nunique()
    assert many == pd.Series(site).isin(classes.index[classes == 2]).sum() > 2 * few
    assert "Use --folds 10 --wholeSites" in told
    followed = done(f"{dry_run} --wholeSites", of=of)
    assert f"--folds 10 --wholeSites compares {many}" in followed and "--folds 10 compares" not in followed
