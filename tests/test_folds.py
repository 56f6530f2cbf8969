"""Folds: who is tested when, and that nobody who is tested was seen."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from helpers import read_rows

from data.base.errors import InputError
from data.cohorts.folds import Folds, by_column, check_classes, folder_name, open_folds, repeated
from data.cohorts.stored import open_cohort


@pytest.fixture
def opened(cohort, tmp_path):
    """`opened("5")` are the folds of the small cohort; those that were saved are used again."""
    return lambda how, seed=0: open_folds(cohort, how, seed, tmp_path / "saved")


def test_every_subject_is_tested_once_in_proportion_over_labels(opened, cohort):
    folds = opened("4")
    assert folds.names == ["0", "1", "2", "3"]
    assert folds.notes == []
    rows = open_cohort(cohort).rows
    assert set(folds.fold_of) == {row.subject for row in rows}
    label = {row.subject: row.label for row in rows}
    for name in folds.names:
        labels = Counter(label[subject] for subject, fold in folds.fold_of.items() if fold == name)
        assert all(abs(labels[value] - sum(v == value for v in label.values()) / 4) <= 1 for value in (0, 1))


def test_a_fold_is_the_cohort_with_another_split(opened):
    folds = opened("4")
    for name in folds.names:
        cohort = folds.cohort(name)
        assert {row.subject for row in cohort.rows if row.split == "test"} == {
            subject for subject, fold in folds.fold_of.items() if fold == name
        }
        assert not set(cohort.subjects("train")) & set(cohort.subjects("test"))


def test_more_than_ten_folds_are_in_the_order_of_their_numbers(opened):
    assert opened("12").names == [str(number) for number in range(12)]


def test_the_seed_decides(opened):
    assert opened("4").fold_of == opened("4").fold_of != opened("4", seed=1).fold_of


def test_one_site_is_left_out_at_a_time(opened, cohort):
    folds = opened("site")
    assert folds.fold_of == {row.subject: row.site for row in open_cohort(cohort).rows}
    assert folds.names == sorted({row.site for row in open_cohort(cohort).rows})
    assert folds.named("1") == folds.names[1]
    with pytest.raises(InputError, match=r"--fold NOWHERE is none of the folds .* \(or 0 to"):
        folds.named("NOWHERE")


def test_any_covariate_makes_folds(opened, cohort):
    folds = opened("SEX")
    sex = {row["subject"]: row["SEX"] for row in read_rows(cohort / "covariates.csv")}
    assert folds.fold_of == sex
    assert set(folds.names) == {"1", "2"}


@pytest.mark.parametrize(
    "how, message",
    [
        ("1", "expected 2 to"),
        ("0", "expected 2 to"),
        ("400", "whose|its smaller class has"),
        ("AGE_AT_SCAN", "values among 40 subjects of .*; expected groups"),
        ("planet", "neither a number nor a column of .*; it has site, "),
    ],
)
def test_what_cannot_be_cut_is_told(how, message, opened):
    with pytest.raises(InputError, match=message):
        opened(how)


def test_folds_are_saved_and_used_again(opened, cohort, tmp_path):
    folds = opened("4")
    folds.write(tmp_path / "saved")
    assert read_rows(tmp_path / "saved" / "folds.csv") == [
        {"subject": subject, "fold": fold} for subject, fold in folds.fold_of.items()
    ]
    assert json.loads((tmp_path / "saved" / "folds.json").read_text())["cohort_sha256"] == open_cohort(cohort).digest
    assert opened("4", seed=5).fold_of == folds.fold_of


def test_a_repeat_cuts_numbered_folds_anew_unless_encoders_are_bound_to_them(opened, tmp_path):
    folds = opened("4")
    other = repeated(folds, 1, tmp_path / "other")
    assert other.fold_of == opened("4", 1).fold_of != folds.fold_of and other.whole is folds.whole
    reduced = replace(folds, reduced={"0": folds.whole})
    assert repeated(reduced, 1, tmp_path / "other") is reduced


def test_folds_of_another_cohort_are_never_used(opened, cohort, tmp_path):
    replace(opened("4"), digest="0" * 64).write(tmp_path / "saved")
    with pytest.raises(InputError, match=r"folds\.csv is of other data than .*; use another --chkPointDir"):
        opened("4")


@pytest.mark.parametrize("content", [b"", b"subject\n1\n", b"fold,subject\n", b"\xff\xfe", b"subject,fold\n1\n"])
def test_a_damaged_table_is_told(content, opened, tmp_path):
    opened("4").write(tmp_path / "saved")
    (tmp_path / "saved" / "folds.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"folds\.csv (is damaged|line 2 has 1 values)"):
        opened("4")


def test_a_run_checks_the_table_that_it_left(opened, tmp_path):
    folds = opened("4")
    folds.write(tmp_path / "saved")
    folds.check(tmp_path / "saved", "1", folds.cohort("1"))
    moved = next(subject for subject, fold in folds.fold_of.items() if fold == "1")
    Folds(folds.how, folds.whole, folds.digest, {**folds.fold_of, moved: "2"}).write(tmp_path / "saved")
    with pytest.raises(InputError, match=f"has {moved} in another fold"):
        folds.check(tmp_path / "saved", "1", folds.cohort("1"))


@pytest.mark.slow
def test_a_swapped_cohort_is_refused(cohort, data_cli, tmp_path):
    assert data_cli("swap", cohort, tmp_path / "swapped", "--copies", 1, "--regions", 3).status == 0
    assert data_cli("pack", tmp_path / "swapped", tmp_path / "packed", "--zip").status == 0
    with pytest.raises(InputError, match="augmented by swapping regions"):
        open_folds(tmp_path / "packed", "4", 0, tmp_path / "saved")


def test_a_bare_folder_has_folds_by_number_and_site_only(cohort, tmp_path):
    for path in cohort.glob("*.bin"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        (tmp_path / "bare" / path.name).write_bytes(path.read_bytes())
    folds = open_folds(tmp_path / "bare", "4", 0, tmp_path / "saved")
    assert len(folds.names) == 4
    assert "the phenotype as it is stored" in folds.notes[0]
    with pytest.raises(InputError, match=r"one value in .*, unknown"):
        open_folds(tmp_path / "bare", "site", 0, tmp_path / "saved")


def test_a_value_of_its_own_for_each_subject_is_no_group(cohort, tmp_path):
    opened = open_cohort(cohort)
    alone = replace(opened, rows=tuple(replace(row, site=row.subject) for row in opened.rows))
    with pytest.raises(InputError, match="has 40 values among 40 subjects"):
        by_column(alone, "site", 0)


def test_a_value_that_cannot_name_a_folder_is_refused(cohort):
    opened = open_cohort(cohort)
    long = replace(opened, rows=tuple(replace(row, site=("東" * 40, "B")[row.label == 1]) for row in opened.rows))
    with pytest.raises(InputError, match="too long for the name of a folder"):
        by_column(replace(long, tables=None), "site", 0)
    assert Folds("3", long, "", {"a": "10", "b": "9", "c": "x"}).names == ["x", "9", "10"]


def test_a_fold_of_one_class_among_all_others_is_refused(cohort, tmp_path):
    opened = open_cohort(cohort)
    fold_of = {row.subject: str(int(row.label)) for row in opened.rows}
    with pytest.raises(InputError, match="one class only"):
        check_classes(opened, fold_of)


@pytest.mark.parametrize(
    "name, folder", [("NYU", "NYU"), ("a b", "a b"), ("../x", "%2E.%2Fx"), ("..", "%2E."), ("São", "S%C3%A3o")]
)
def test_a_site_of_any_name_has_a_folder(name, folder):
    assert folder_name(name) == folder
