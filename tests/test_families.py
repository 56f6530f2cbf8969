"""`convert --family COLUMN`: the people of a family are one group, in splits, folds, files of results and numbers."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL, cohort_of, read_rows, row, write_rows
from people import ROWS, renamed, write_people

from data.base.errors import InputError
from data.cohorts.folds import Folds, open_folds, permuted_labels
from data.cohorts.stored import open_cohort, sealed
from data.conversion.families import notes_like
from data.conversion.split import assign_splits
from utils.scores.metrics import Predictions, with_intervals

GRID = ("--grid", "reduced")
OF_ROW = {0: "A", 1: "A", 2: "A", 5: "B", 6: "B", 7: "7", 9: "7.0", 11: "C", 13: "D", 30: "n/a"}  # others: empty
FAMILIES = [("50002", "50003", "50004"), ("50007", "50008"), ("50009", "50011")]  # the first of three sites


def with_families(rows: list[dict], of_row: dict[int, str]) -> list[dict]:
    return [row | {"FAM": of_row.get(at, "")} for at, row in enumerate(rows)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("lab") / "pcp", with_families(ROWS, OF_ROW))


@pytest.fixture(scope="module")
def made(lab, data_cli, tmp_path_factory):
    """The lab's maps as a cohort, and what the command printed."""
    target = tmp_path_factory.mktemp("made") / "cohort"
    outcome = data_cli("convert", lab, target, *GRID, "--family", "FAM")
    assert outcome.status < 2, outcome.err
    return target, outcome.out


def parted(groups, of: dict[str, str]) -> list:
    return [group for group in groups if len({of[one] for one in group}) > 1]


def test_a_column_makes_groups_and_what_is_guessed_is_named(made, data_cli):
    opened = open_cohort(made[0])
    assert opened.metadata.groups == opened.groups == tuple(FAMILIES)
    assert opened.metadata.families["C"] == ("50013",)  # so that a relative is known who comes later
    assert "FAM" not in (*opened.metadata.covariate_columns, *opened.metadata.phenotype_columns)
    assert opened.covariates is not None and "FAM" not in opened.covariates
    told = "Families by FAM: 3 of 2 to 3 people, 7 of 40 in all. Each is in one split, and in one fold. The largest is "
    assert told + "A: 50002 and 50003 and 50004." in made[1]
    assert "31 of 40 people have no value of FAM; each is taken to have no relatives." in made[1]
    assert "families by FAM: 3 of 2 to 3 people, 7 of 40 in all" in data_cli("check", made[0]).out
    assert "share a scan" not in made[1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("KIN", r"has no column KIN \(--family\); it has SUB_ID"),
        ("SUB_ID", "has no value twice among 40 people; expected one value for all of a family"),
        ("SEX", "for 2[0-9] of 40 people; expected one for each family"),
        ("DX_GROUP", "is also the site, the diagnosis"),
        ("SITE_ID", "is also the site, the diagnosis"),
        ("AGE_AT_SCAN", "is also the site, the diagnosis, or of the phenotype or the covariates"),
        ("FAM", "is also the site, the diagnosis, or of the phenotype or the covariates"),
    ],
)
def test_columns_of_something_else_are_refused(column, message, lab, data_cli, tmp_path):
    more = {"FAM": ("--covariates", "FAM"), "SEX": ("--covariates", "", "--phenotype", "")}.get(column, ())
    outcome = data_cli("convert", lab, tmp_path / "cohort", *GRID, "--family", column, *more)
    assert outcome.status == 2 and not (tmp_path / "cohort").exists()
    assert pd.Series(outcome.err).str.contains(message).all(), outcome.err


def test_a_column_that_looks_like_families_is_told(lab, data_cli, tmp_path):
    outcome = data_cli("convert", lab, tmp_path / "out", *GRID, "--dryRun")
    assert outcome.status == 0 and "FAM looks like a column of families" in outcome.out and "--family" in outcome.out


def test_families_are_in_one_split_whatever_the_seed():
    """With pairs of both labels at two sites, as often tested as those who have no relatives."""
    names = [f"{at:03}" for at in range(120)]
    table = pd.DataFrame({"subject": names, "site": ["a", "b"] * 60, "label": [0.0, 1.0, 1.0] * 40})
    pairs = tuple((names[at], names[at + 1]) for at in range(0, 60, 2))
    tested = Counter()
    for seed in range(200):
        split = assign_splits(table, seed, pairs)
        assert not parted(pairs, split)
        tested.update(name for name, of in split.items() if of == "test")
    of_pairs, others = (np.mean([tested[name] for name in of]) / 200 for of in (names[:60], names[60:]))
    assert of_pairs == pytest.approx(0.1, abs=0.02) and others == pytest.approx(0.1, abs=0.02)


def test_folds_keep_a_family_across_sites(made, tmp_path, capsys):
    for seed in range(3):
        folds = open_folds(made[0], "5", seed, tmp_path / str(seed))
        assert not parted(FAMILIES, folds.fold_of)
        for name in folds.names:
            assert not parted(FAMILIES, {row.subject: row.split for row in folds.cohort(name).rows})
    assert folds.notes[0] == (
        "Subjects who are of one family are in one fold: 50002 and 50003 and 50004, 50007 and 50008, 50009 and 50011."
    )
    of_sites = open_folds(made[0], "site", 0, tmp_path / "sites")
    assert not parted(FAMILIES, of_sites.fold_of)
    assert "Subjects who are of one family with one of another site, and are tested there: 50003 (NYU) with 50002 " in (
        capsys.readouterr().out
    )
    true = {row.subject: row.label for row in folds.whole.rows}
    every = [permuted_labels(folds, np.random.default_rng(seed)) for seed in range(60)]
    assert all(Counter(of.values()) == Counter(true.values()) for of in every)
    site = {row.subject: row.site for row in folds.whole.rows}
    for of in every:
        counted = (Counter((site[one], labels[one]) for one in labels) for labels in (of, true))
        assert next(counted) == next(counted)


def test_labels_of_a_family_at_one_site_are_permuted_within_it():
    """As of siblings of whom the first has autism: units alone would all be exchanged for equal ones."""
    rows = [row(str(at), float(at % 2 == 0)) for at in range(12)]
    pairs = tuple((str(at), str(at + 1)) for at in range(0, 12, 2))
    folds = Folds("2", cohort_of(*rows, families={str(at): pair for at, pair in enumerate(pairs)}), "d" * 64, {})
    seen = {tuple(permuted_labels(folds, np.random.default_rng(seed)).values()) for seed in range(500)}
    assert len(seen) == 2**6
    assert all(of[at] + of[at + 1] == 1 for of in seen for at in range(0, 12, 2))


def test_other_forms_and_corrections_keep_families(made, data_cli, tmp_path):
    assert data_cli("pack", made[0], tmp_path / "packed", "--zip").status == 0
    assert sealed(tmp_path / "packed").groups == tuple(FAMILIES)
    write_rows(tmp_path / "table.csv", [{"subject": "50003", "site": "USM"}])
    assert data_cli("correct", made[0], tmp_path / "table.csv", tmp_path / "corrected").status == 0
    assert sealed(tmp_path / "corrected").groups == tuple(FAMILIES)
    assert data_cli("swap", made[0], tmp_path / "swapped", "--copies", "1").status == 0
    assert sealed(tmp_path / "swapped").groups == tuple(FAMILIES)


def test_an_edited_family_breaks_the_seal(made, data_cli, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    metadata = json.loads((folder / "cohort.json").read_text())
    metadata["families"]["A"] = ["50002"]
    (folder / "cohort.json").write_text(json.dumps(metadata))
    outcome = data_cli("check", folder)
    assert outcome.status == 2 and "is not what was sealed: cohort.json" in outcome.err


def test_a_kept_split_gives_way_to_families_and_says_so(lab, data_cli, tmp_path):
    plain = data_cli("convert", lab, tmp_path / "plain", *GRID)
    assert plain.status < 2 and "Families by" not in plain.out
    before = {row["subject"]: row["split"] for row in read_rows(tmp_path / "plain" / "subjects.csv")}
    tested, trained = ([name for name, of in before.items() if of == split] for split in ("test", "train"))
    related = [row | {"FAM": "X" if row["SUB_ID"] in (tested[0], trained[0]) else ""} for row in ROWS]
    folder = write_people(tmp_path / "related", related)
    outcome = data_cli(
        "convert", folder, tmp_path / "kept", *GRID, "--family", "FAM", "--keepSplit", tmp_path / "plain"
    )
    assert outcome.status < 2, outcome.err
    after = {row["subject"]: row["split"] for row in read_rows(tmp_path / "kept" / "subjects.csv")}
    assert after[tested[0]] == after[trained[0]] == "train"
    assert f"Not kept: {tested[0]}, test subjects there, are of one family with training subjects and" in outcome.out


def test_new_people_have_families_of_their_own_and_relatives_of_training_people_are_named(made, data_cli, tmp_path):
    training = set(open_cohort(made[0]).subjects("train"))
    trained = next((name, of) for name, of in (("A", FAMILIES[0]), ("B", FAMILIES[1])) if training & {*of})
    new = write_people(tmp_path / "new", with_families(renamed(5), {0: trained[0], 1: "N", 2: "N", 3: "M"}))
    outcome = data_cli("convert", new, tmp_path / "cohort", "--like", made[0])
    assert outcome.status < 2, outcome.err
    assert f"Relatives of training people of {made[0]}, by FAM: 60002 of {trained[1][0]}. Scores" in outcome.out
    assert open_cohort(tmp_path / "cohort").metadata.groups == (("60003", "60004"),)
    renamed_column = write_people(tmp_path / "other", [row | {"kin": "N"} for row in renamed(3)])
    outcome = data_cli("convert", renamed_column, tmp_path / "lacking", "--like", made[0])
    assert "lacks FAM, so families are not known; --family names a column." in outcome.out
    outcome = data_cli("convert", renamed_column, tmp_path / "named", "--like", made[0], "--family", "kin")
    assert open_cohort(tmp_path / "named").metadata.groups == (("60002", "60003", "60004"),), outcome.err


@pytest.fixture(scope="module")
def tested(made, cli, undrawn, no_floors, tmp_path_factory) -> Path:
    """The folder of a `nn` trained and tested on five folds of the families,"""
    folder = tmp_path_factory.mktemp("tested")
    places = ("--model", "nn", "--folds", "5", "--dataDir", made[0], "--chkPointDir", folder / "ckpt")
    for job, more in (("--train", ("--numIters", 4, *SMALL["nn"])), ("--test", ())):
        outcome = cli(job, *places, "--outDir", folder / job.strip("-"), *more)
        assert outcome.status == 0, outcome.err
        assert outcome.out.count("Subjects who are of one family are in one fold: 50002") == 1
    return folder


@pytest.mark.slow
def test_predictions_name_the_first_of_a_family_who_is_drawn_with_the_others(tested, made):
    table = pd.read_csv(tested / "test" / "predictions.csv", dtype={"subject": str, "same_scan": str})
    first = {one: family[0] for family in FAMILIES for one in family}
    assert table["same_scan"].tolist() == [first.get(one, one) for one in table["subject"]]
    assert not parted(FAMILIES, dict(zip(table["subject"], table["fold"], strict=True)))
    run = json.loads((tested / "test" / "run.json").read_text())
    found = json.loads((tested / "test" / "metrics.json").read_text())
    predictions = Predictions.of(table)
    assert predictions.units(predictions.label >= 0) == 36
    assert found["brier"] == pytest.approx(with_intervals(predictions, run["seed"])["brier"].columns())
    alone = with_intervals(replace(predictions, person=None), run["seed"])["brier"]
    assert found["brier"]["low"] != alone.low
    assert (run["prepared"]["same_scan"], run["prepared"]["families"], run["prepared"]["family_column"]) == (
        0,
        3,
        "FAM",
    )
    page = " ".join((tested / "test" / "report.html").read_text().split())
    assert "3 families of two people or more, by the column FAM, were each kept in one fold and drawn as one" in page
    assert "who share a scan were kept" not in page


@pytest.mark.slow
def test_a_cohort_converted_again_with_families_is_not_taken_for_the_one_of_before(
    tested, lab, data_cli, cli, tmp_path
):
    plain = data_cli("convert", lab, tmp_path / "plain", *GRID)
    assert plain.status < 2, plain.err
    places = ("--model", "nn", "--folds", "5", "--dataDir", tmp_path / "plain", "--chkPointDir", tested / "ckpt")
    outcome = cli("--test", *places, "--outDir", tmp_path / "out")
    assert outcome.status == 2 and "belongs to other data than" in outcome.err


def test_folds_that_were_edited_and_part_a_group_are_refused(made, tmp_path):
    folds = open_folds(made[0], "5", 0, tmp_path)
    folds.write(tmp_path)
    other = next(of for of in folds.names if of != folds.fold_of["50002"])
    fold_of = folds.fold_of | {"50002": other}
    write_rows(tmp_path / "folds.csv", [{"subject": one, "fold": of} for one, of in fold_of.items()])
    with pytest.raises(InputError, match=r"folds.csv parts subjects who are of one family: 50002 and 50003 and 50004"):
        open_folds(made[0], "5", 0, tmp_path)


def test_intervals_need_ten_families_of_each_class():
    label, probability = np.repeat([0.0, 1.0], 16), np.linspace(0, 1, 32) % 0.7
    one = Predictions(label, probability, np.arange(32), person=np.arange(32) // 2)
    assert with_intervals(one, 0)["auc"].low is None
    assert with_intervals(replace(one, person=None), 0)["auc"].low is not None


def test_intervals_of_several_folds_are_made_wider_by_their_families():
    """As if each family were one person; a family is in one fold."""
    family = np.arange(120) // 2
    label, fold, site = family % 2, family % 5, np.repeat(["a", "b"], 60)
    twice = Predictions(label, np.linspace(0, 1, 120), np.arange(120), fold, site, person=family)
    once = twice.subset(np.arange(120) % 2 == 0)
    fewer = np.sqrt((1 - 5 / 120) / (1 - 5 / 60))  # degrees of freedom of the bootstrap, one a fold
    for name in ("auc", "auc_sites", "auc_folds"):
        assert twice.widening(name) == pytest.approx(replace(once, tested=()).widening(name) * fewer)


def test_relatives_of_test_people_are_named_since_they_train_a_model_of_everybody():
    subjects = pd.DataFrame({"subject": ["5", "6"], "family": ["A", ""]})
    source = SimpleNamespace(family_column="FAM", subjects=subjects, table="t.csv")
    split = {"train": ["1"], "test": ["2"]}
    metadata = SimpleNamespace(family_column="FAM", families={"A": ("2", "3")})
    like = SimpleNamespace(metadata=metadata, path="cohort", subjects=split.__getitem__)
    told = notes_like(source, like)[-1]
    assert told.startswith("Relatives of test people of cohort, by FAM: 5 of 2.") and "a model of everybody" in told
