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

FAMILY_BY_ROW = {0: "A", 1: "A", 2: "A", 5: "B", 6: "B", 7: "7", 9: "7.0", 11: "C", 13: "D", 30: "n/a"}  # others: empty
FAMILIES = [["50002", "50003", "50004"], ["50007", "50008"], ["50009", "50011"]]  # the first of three sites
CONVERT = "abide-data convert {lab} {to} --grid reduced"


def make_relatives(count: int = 40, first: int = 50002, family_by_row: dict[int, str] = FAMILY_BY_ROW) -> pd.DataFrame:
    return people(count, first).assign(FAM=[family_by_row.get(row, "") for row in range(count)])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return pcp(tmp_path_factory.mktemp("source") / "lab", make_relatives())


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> tuple[Path, str]:
    """Its maps as a cohort, and what was printed."""
    folder = tmp_path_factory.mktemp("made") / "cohort"
    return folder, done(f"{CONVERT} --family FAM", lab=source, to=folder)


def read_families(cohort: Path) -> list[list[str]]:
    """Those of two people or more."""
    return [
        members for members in json.loads((cohort / "cohort.json").read_text())["families"].values() if len(members) > 1
    ]


def find_divided_groups(groups: list, table: pd.DataFrame, column: str) -> list:
    value_by_subject = table.set_index("subject")[column]
    return [group for group in groups if value_by_subject[group].nunique() > 1]


def test_a_column_makes_groups_preserved_by_all_forms(made, tmp_path):
    cohort, convert_output = made
    assert (
        read_families(cohort) == FAMILIES
        and find_divided_groups(FAMILIES, read_table(cohort / "subjects.csv"), "split") == []
    )
    metadata = json.loads((cohort / "cohort.json").read_text())
    assert metadata["families"]["C"] == ["50013"]  # so that a relative is known who comes later
    assert "FAM" not in (*metadata["covariate_columns"], *metadata["phenotype_columns"])
    assert "FAM" not in read_table(cohort / "covariates.csv")
    assert (
        "3 of two participants or more, 7 of 40 in all" in convert_output
        and "50002 and 50003 and 50004" in convert_output
    )
    assert "31 of 40 participants have no value" in convert_output
    assert "3 of two participants or more, 7 of 40 in all" in done("abide-data check {of}", of=cohort)
    for verb in ("pack {of} {to} --zip", "swap {of} {to} --copies 1"):
        to = tmp_path / verb[:4]
        done(f"abide-data {verb}", of=cohort, to=to)
        assert read_families(to) == FAMILIES
    swapped = open_cohort(tmp_path / "swap")
    files = [
        swapped.rows[index].file for index in swapped.find_unswapped_record_indices()
    ]  # whose regions are their own, such as of donors
    assert files == read_table(cohort / "subjects.csv")["file"].tolist() and len(swapped.rows) > len(files)


def test_a_column_resembling_families_is_reported(source, tmp_path):
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
def test_columns_unsuitable_for_families_are_refused(options, words, source, tmp_path):
    refused(f"{CONVERT} {options}", *words, lab=source, to=tmp_path / "cohort")


@pytest.mark.parametrize("seed", [1, 2])
def test_families_are_in_a_single_split_whatever_the_seed(seed, source, tmp_path):
    done(f"{CONVERT} --family FAM --seed {seed}", lab=source, to=tmp_path / "cohort")
    table = read_table(tmp_path / "cohort" / "subjects.csv")
    assert find_divided_groups(FAMILIES, table, "split") == [] and (table["split"] == "test").sum() >= 4


def test_an_earlier_split_gives_way_to_families_which_is_reported(source, tmp_path):
    done(CONVERT, lab=source, to=tmp_path / "plain")
    before = read_table(tmp_path / "plain" / "subjects.csv").set_index("split")["subject"]
    tested, trained = before["test"].iloc[0], before["train"].iloc[0]
    folder = shutil.copytree(source, tmp_path / "lab")
    edit(
        folder / "Phenotypic.csv",
        lambda table: table.assign(FAM=table["SUB_ID"].map({tested: "X", trained: "X"}).fillna("")),
    )
    command = f"{CONVERT} --family FAM --keepSplit {{before}}"
    convert_output = done(command, lab=folder, to=tmp_path / "kept", before=tmp_path / "plain")
    after = read_table(tmp_path / "kept" / "subjects.csv").set_index("subject")["split"]
    assert after[tested] == after[trained] == "train" and f"not kept: {tested}" in convert_output


def test_new_people_have_separate_families_and_relatives_from_training_are_listed(made, tmp_path):
    split = read_table(made[0] / "subjects.csv").set_index("subject")["split"]
    name, member = next(
        (name, members[0]) for name, members in zip("AB", FAMILIES, strict=False) if split[members[0]] == "train"
    )
    pcp(tmp_path / "new", make_relatives(5, 60002, {0: name, 1: "N", 2: "N", 3: "M"}))
    convert_command = "abide-data convert {lab} {to} --like {of}"
    convert_output = done(convert_command, lab=tmp_path / "new", to=tmp_path / "cohort", of=made[0])
    assert find_ids(convert_output, "relatives of participants of ") == ["60002", member]
    assert read_families(tmp_path / "cohort") == [["60003", "60004"]]
    pcp(tmp_path / "other", people(3, 60002).assign(kin="N"))
    convert_output = done(convert_command, lab=tmp_path / "other", to=tmp_path / "lacking", of=made[0])
    assert "lacks FAM" in convert_output and "--family" in convert_output
    done(f"{convert_command} --family kin", lab=tmp_path / "other", to=tmp_path / "named", of=made[0])
    assert read_families(tmp_path / "named") == [["60002", "60003", "60004"]]


def find_ids(printed: str, words: str) -> list[str]:
    """The IDs in the line that has these words."""
    line = printed.partition(words)[2]
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


def test_a_family_is_in_a_single_fold_and_drawn_together(tested, made):
    table = pd.read_csv(tested / "test" / "predictions.csv", dtype={"subject": str, "same_scan": str})
    first = {member: family[0] for family in FAMILIES for member in family}
    assert table["same_scan"].tolist() == [first.get(member, member) for member in table["subject"]]
    assert find_divided_groups(FAMILIES, table, "fold") == []
    brier_score = json.loads((tested / "test" / "metrics.json").read_text())["brier"]
    assert brier_score["value"] == pytest.approx(brier_score_loss(table["label"], table["probability"]), abs=1e-5)
    prepared = read_manifest(tested / "test")["prepared"]
    assert [prepared[name] for name in ("same_scan", "families", "family_column")] == [0, 3, "FAM"]


def test_a_cohort_converted_again_with_families_is_not_taken_for_the_earlier_cohort(tested, source, tmp_path):
    done(CONVERT, lab=source, to=tmp_path / "plain")
    command = "run.py --test --model nn --folds 5 --dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    refused(command, "belongs to other data", of=tmp_path / "plain", by=tested, to=tmp_path / "out")
