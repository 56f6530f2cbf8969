"""`convert --family COLUMN`: the people of a family are one group, in splits, folds, files of results and numbers."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import done, read_manifest, refused
from lab import edit, pcp, people, read_table
from sklearn.metrics import brier_score_loss

from data.cohorts.stored import open_cohort

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

OF_ROW = {0: "A", 1: "A", 2: "A", 5: "B", 6: "B", 7: "7", 9: "7.0", 11: "C", 13: "D", 30: "n/a"}  # others: empty
FAMILIES = [["50002", "50003", "50004"], ["50007", "50008"], ["50009", "50011"]]  # the first of three sites
CONVERT = "abide-data convert {lab} {to} --grid reduced"


def related(count: int = 40, first: int = 50002, of_row: dict[int, str] = OF_ROW) -> pd.DataFrame:
    return people(count, first).assign(FAM=[of_row.get(row, "") for row in range(count)])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return pcp(tmp_path_factory.mktemp("source") / "lab", related())


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> tuple[Path, str]:
    """Its maps as a cohort, and what was printed."""
    folder = tmp_path_factory.mktemp("made") / "cohort"
    return folder, done(f"{CONVERT} --family FAM", lab=source, to=folder)


def families_of(cohort: Path) -> list[list[str]]:
    """Those of two people or more."""
    return [of for of in json.loads((cohort / "cohort.json").read_text())["families"].values() if len(of) > 1]


def parted(groups: list, table: pd.DataFrame, column: str) -> list:
    of = table.set_index("subject")[column]
    return [group for group in groups if of[group].nunique() > 1]


def test_a_column_makes_groups_that_each_form_keeps(made, tmp_path):
    cohort, said = made
    assert families_of(cohort) == FAMILIES and parted(FAMILIES, read_table(cohort / "subjects.csv"), "split") == []
    told = json.loads((cohort / "cohort.json").read_text())
    assert told["families"]["C"] == ["50013"]  # so that a relative is known who comes later
    assert "FAM" not in (*told["covariate_columns"], *told["phenotype_columns"])
    assert "FAM" not in read_table(cohort / "covariates.csv")
    assert "3 of two participants or more, 7 of 40 in all" in said and "50002 and 50003 and 50004" in said
    assert "31 of 40 participants have no value" in said
    assert "3 of two participants or more, 7 of 40 in all" in done("abide-data check {of}", of=cohort)
    for verb in ("pack {of} {to} --zip", "swap {of} {to} --copies 1"):
        to = tmp_path / verb[:4]
        done(f"abide-data {verb}", of=cohort, to=to)
        assert families_of(to) == FAMILIES
    swapped = open_cohort(tmp_path / "swap")
    files = [
        swapped.rows[at].file for at in swapped.find_unswapped_indices()
    ]  # whose regions are their own, such as of donors
    assert files == read_table(cohort / "subjects.csv")["file"].tolist() and len(swapped.rows) > len(files)


def test_a_column_that_looks_like_families_is_told(source, tmp_path):
    assert "FAM looks like their column" in done(f"{CONVERT} --dryRun", lab=source, to=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--family KIN", ("no column KIN", "SUB_ID")),
        ("--family SUB_ID", ("no value for more than 1 of 40 participants", "one for each family")),
        ("--family SEX --covariates '' --phenotype ''", ("of 40 participants", "not of most")),
        ("--family DX_GROUP", ("also the site, the diagnosis",)),
        ("--family FAM --covariates FAM", ("also the site, the diagnosis",)),
    ],
)
def test_columns_of_something_else_are_refused(options, words, source, tmp_path):
    refused(f"{CONVERT} {options}", *words, lab=source, to=tmp_path / "cohort")


@pytest.mark.parametrize("seed", [1, 2])
def test_families_are_in_one_split_whatever_the_seed(seed, source, tmp_path):
    done(f"{CONVERT} --family FAM --seed {seed}", lab=source, to=tmp_path / "cohort")
    table = read_table(tmp_path / "cohort" / "subjects.csv")
    assert parted(FAMILIES, table, "split") == [] and (table["split"] == "test").sum() >= 4


def test_a_kept_split_gives_way_to_families_and_says_so(source, tmp_path):
    done(CONVERT, lab=source, to=tmp_path / "plain")
    before = read_table(tmp_path / "plain" / "subjects.csv").set_index("split")["subject"]
    tested, trained = before["test"].iloc[0], before["train"].iloc[0]
    folder = shutil.copytree(source, tmp_path / "lab")
    edit(folder / "Phenotypic.csv", lambda of: of.assign(FAM=of["SUB_ID"].map({tested: "X", trained: "X"}).fillna("")))
    command = f"{CONVERT} --family FAM --keepSplit {{before}}"
    said = done(command, lab=folder, to=tmp_path / "kept", before=tmp_path / "plain")
    after = read_table(tmp_path / "kept" / "subjects.csv").set_index("subject")["split"]
    assert after[tested] == after[trained] == "train" and f"not kept: {tested}" in said


def test_new_people_have_families_of_their_own_and_relatives_of_training_people_are_named(made, tmp_path):
    split = read_table(made[0] / "subjects.csv").set_index("subject")["split"]
    name, member = next((name, of[0]) for name, of in zip("AB", FAMILIES, strict=False) if split[of[0]] == "train")
    pcp(tmp_path / "new", related(5, 60002, {0: name, 1: "N", 2: "N", 3: "M"}))
    like = "abide-data convert {lab} {to} --like {of}"
    said = done(like, lab=tmp_path / "new", to=tmp_path / "cohort", of=made[0])
    assert re_found(said, "relatives of participants of ") == ["60002", member]
    assert families_of(tmp_path / "cohort") == [["60003", "60004"]]
    pcp(tmp_path / "other", people(3, 60002).assign(kin="N"))
    said = done(like, lab=tmp_path / "other", to=tmp_path / "lacking", of=made[0])
    assert "lacks FAM" in said and "--family" in said
    done(f"{like} --family kin", lab=tmp_path / "other", to=tmp_path / "named", of=made[0])
    assert families_of(tmp_path / "named") == [["60002", "60003", "60004"]]


def re_found(said: str, words: str) -> list[str]:
    """The IDs in the line that has these words."""
    line = said.partition(words)[2]
    return [word.strip(".,") for word in line.split() if word.strip(".,").isdigit()][:2]


@pytest.fixture(scope="module")
def tested(made, tmp_path_factory) -> Path:
    """The folder of a `nn` trained and tested on five folds of the families."""
    folder = tmp_path_factory.mktemp("tested")
    places = "--model nn --folds 5 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
    settings = "--numIters 4 --set members=1 --set batch_size=8"
    done(f"run.py --train {settings} {places}train", of=made[0], to=folder)
    done(f"run.py --test {places}test", of=made[0], to=folder)
    return folder


def test_a_family_is_in_one_fold_and_drawn_as_one(tested, made):
    table = pd.read_csv(tested / "test" / "predictions.csv", dtype={"subject": str, "same_scan": str})
    first = {one: family[0] for family in FAMILIES for one in family}
    assert table["same_scan"].tolist() == [first.get(one, one) for one in table["subject"]]
    assert parted(FAMILIES, table, "fold") == []
    found = json.loads((tested / "test" / "metrics.json").read_text())["brier"]
    assert found["value"] == pytest.approx(brier_score_loss(table["label"], table["probability"]), abs=1e-5)
    prepared = read_manifest(tested / "test")["prepared"]
    assert [prepared[name] for name in ("same_scan", "families", "family_column")] == [0, 3, "FAM"]


def test_a_cohort_converted_again_with_families_is_not_taken_for_the_one_of_before(tested, source, tmp_path):
    done(CONVERT, lab=source, to=tmp_path / "plain")
    command = "run.py --test --model nn --folds 5 --dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    refused(command, "belongs to other data", of=tmp_path / "plain", by=tested, to=tmp_path / "out")
