"""Folds, inner ones and those of permuted labels: who is tested when, and that nobody who is tested was seen."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers import cohort_of, read_rows, row

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.division import by_column, by_number, check_classes, folder_name
from data.cohorts.folds import (
    Folds,
    InnerFolds,
    inner_folds,
    open_folds,
    permuted_folds,
    permuted_labels,
    repeated,
)
from data.cohorts.rows import HELD_OUT
from data.cohorts.stored import open_cohort
from data.cohorts.variants import resplit


def by_split(cohort: Cohort) -> dict[str, set[str]]:
    return {split: {of.subject for of in cohort.rows if of.split == split} for split in ("train", "test", HELD_OUT)}


def made_up(labels: str, sites: str, **metadata) -> Cohort:
    """A cohort of people called 0, 1, ... with these labels and sites."""
    return cohort_of(
        *(row(f"{at}", float(label), site=site) for at, (label, site) in enumerate(zip(labels, sites, strict=True))),
        **metadata,
    )


@pytest.fixture
def opened(cohort, tmp_path):
    """`opened("5")` are the folds of the small cohort; those that were saved are used again."""
    return lambda how, seed=0: open_folds(cohort, how, seed, tmp_path / "saved")


def test_every_subject_is_tested_once_in_proportion_over_labels(opened, cohort):
    folds = opened("4")
    assert folds.names == ["0", "1", "2", "3"]
    assert folds.notes == []
    for name in folds.names:
        tested = {subject for subject, fold in folds.fold_of.items() if fold == name}
        assert by_split(folds.cohort(name)) == {"train": folds.fold_of.keys() - tested, "test": tested, HELD_OUT: set()}
    rows = open_cohort(cohort).rows
    assert set(folds.fold_of) == {row.subject for row in rows}
    label = {row.subject: row.label for row in rows}
    for name in folds.names:
        labels = Counter(label[subject] for subject, fold in folds.fold_of.items() if fold == name)
        assert all(abs(labels[value] - sum(v == value for v in label.values()) / 4) <= 1 for value in (0, 1))


def test_more_than_ten_folds_are_in_the_order_of_their_numbers(opened):
    assert opened("12").names == [str(number) for number in range(12)]


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
    assert other.fold_of == opened("4", 1).fold_of != folds.fold_of == opened("4").fold_of
    assert other.whole is folds.whole
    reduced = replace(folds, reduced={"0": folds.whole})
    assert repeated(reduced, 1, tmp_path / "other") is reduced


def test_folds_of_another_cohort_are_never_used(opened, cohort, tmp_path):
    replace(opened("4"), digest="0" * 64).write(tmp_path / "saved")
    with pytest.raises(InputError, match=r"folds\.csv belongs to other data than .*; use another --chkPointDir"):
        opened("4")


@pytest.mark.parametrize("content", [b"", b"subject\n1\n", b"fold,subject\n", b"\xff\xfe", b"subject,fold\n1\n"])
def test_a_damaged_table_is_told(content, opened, tmp_path):
    opened("4").write(tmp_path / "saved")
    (tmp_path / "saved" / "folds.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"folds\.csv (is damaged|line 2 has 1 values)"):
        opened("4")


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda lines: lines[:-1], "or .* lacks .*Was it edited"),
        (lambda lines: [*lines, "stranger,0"], "or .* lacks stranger"),
        (lambda lines: [*lines, lines[-1].replace(",3", ",0")], "is damaged; expected .* a row a subject"),
    ],
)
def test_a_table_of_other_people_names_itself(edit, words, opened, tmp_path):
    folds = opened("4")
    last = next(subject for subject, fold in folds.fold_of.items() if fold == "3")
    in_order = {name: fold for name, fold in folds.fold_of.items() if name != last} | {last: "3"}
    replace(folds, fold_of=in_order).write(tmp_path / "saved")
    path = tmp_path / "saved" / "folds.csv"
    path.write_text("\n".join([*edit(path.read_text().splitlines()), ""]))
    with pytest.raises(InputError, match=rf"saved/folds\.csv {words}"):
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
    with pytest.raises(InputError, match="too long for names of folders"):
        by_column(replace(long, tables=None), "site", 0)
    for one, other, told in (
        ("Süd", "SÜD", "'SÜD' and 'Süd'"),
        ("Süd", "Su\u0308d", r"'Su\\u0308d' and 'S\\xfcd'"),
    ):
        alike = replace(opened, rows=tuple(replace(row, site=(one, other)[row.label == 1]) for row in opened.rows))
        with pytest.raises(InputError, match=f"differ only in capitals or accents' encoding, {told}; expected"):
            by_column(replace(alike, tables=None), "site", 0)
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


def inner_of(folds: Folds, name: str, seed: int = 0) -> InnerFolds:
    return inner_folds(folds, folds.cohort(name), seed)


@pytest.mark.parametrize("how", ["3", "12", "site", "SEX"])
def test_whom_the_outer_fold_tests_are_in_no_split(how, cohort, tmp_path):
    folds = open_folds(cohort, how, 0, tmp_path / "saved")
    if how == "SEX":  # one value is left in each
        with pytest.raises(
            InputError, match=r"into 2 inner folds at least. Without one fold, .* has 1 value of SEX left"
        ):
            inner_of(folds, "1")
        return
    for name in folds.names[:4]:
        outer = folds.cohort(name)
        inner = inner_of(folds, name)
        assert 2 <= len(inner.names) <= EFFORT.inner_folds
        tested = []
        for fold in inner.names:
            splits = by_split(inner.cohort(fold, outer))
            assert splits[HELD_OUT] == set(outer.subjects("test"))
            assert splits["train"] | splits["test"] == set(outer.subjects("train"))
            assert splits["train"] and splits["test"]
            tested += splits["test"]
        assert sorted(tested) == outer.subjects("train")


def test_a_site_is_in_one_inner_fold(cohort, tmp_path):
    folds = open_folds(cohort, "site", 0, tmp_path / "saved")
    inner = inner_of(folds, "NYU")
    assert len(inner.names) == EFFORT.inner_folds
    for site in folds.names:
        assert len({inner.fold_of[of.subject] for of in inner.outer.rows if of.site == site and site != "NYU"}) < 2


SHARED = (("0", "1", "2"), ("4", "9"))


@pytest.mark.parametrize("how", ["2", "site"])
def test_groups_who_share_a_scan_stay_together(how):
    whole = made_up("01" * 12, "abcabcabcdabcdabcdabcdab", same_scan=SHARED)
    fold_of = (by_number if how == "2" else by_column)(whole, how, 1)
    folds = Folds(how, whole, "d" * 64, fold_of)
    found = 0
    for name in folds.names:
        inner = inner_of(folds, name)
        for group in SHARED:
            together = {inner.fold_of.get(subject) for subject in group}
            assert len(together) == 1
            found += together != {None}
        for fold in inner.names:
            inner.cohort(fold, folds.cohort(name))  # which refuses groups that are parted
    assert found > 1


def test_a_group_counts_once_where_people_are_few():
    """Two of the five controls share a scan, so that there are four inner folds of as many."""
    groups = (("0", "2"),)
    whole = made_up("01" * 5 + "01" * 5, "a" * 20, same_scan=groups)
    fold_of = {f"{at}": "0" if at < 10 else "1" for at in range(20)}
    inner = inner_of(Folds("2", whole, "d" * 64, fold_of), "1")
    assert len(inner.names) == 4


def test_the_phenotype_is_scaled_on_inner_training_people_only(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    outer = folds.cohort("1")
    one = inner_of(folds, "1").cohort("0", outer)
    trained = set(one.subjects("train"))
    split = {of.subject: "train" if of.subject in trained else "test" for of in outer.rows}
    assert one.metadata == resplit(open_cohort(cohort), split).metadata != outer.metadata
    assert one.digest != outer.digest


def test_the_seed_decides_inner_folds(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    assert inner_of(folds, "0").fold_of == inner_of(folds, "0").fold_of != inner_of(folds, "0", seed=1).fold_of


def test_volumes_are_standardised_as_the_candidate_reads_them(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    outer = folds.cohort("0")
    inner = inner_folds(folds, outer, 0)
    for standard in ("stored", "brain"):
        assert inner.cohort("1", replace(outer, standard=standard)).standard == standard


@pytest.mark.parametrize(
    "labels, sites, how, words",
    [
        ("00110111", "ccccaaaa", "2", "has 1 subjects of a class left; use fewer or other --folds."),
        ("000011110011", "aaaabbbbcccc", "site", "into inner folds. Without fold .* has one class only; cut it"),
        ("01010101", "ccccaaaa", "site", "has 1 value of site left; use fewer or other --folds."),
    ],
)
def test_too_few_are_told_in_one_line(labels, sites, how, words):
    """Of a fold that tests the site c."""
    whole = made_up(labels, sites)
    folds = Folds(how, whole, "d" * 64, {of.subject: of.site for of in whole.rows})
    with pytest.raises(InputError, match=words) as told:
        inner_of(folds, "c")
    assert "\n" not in str(told.value)


def labels_of(cohort: Cohort) -> dict[str, float]:
    return {of.subject: of.label for of in cohort.rows}


def by_site(cohort: Cohort, label: dict[str, float]) -> Counter:
    site = {of.subject: of.site for of in cohort.rows}
    return Counter((site[subject], of) for subject, of in label.items())


def test_each_site_keeps_its_labels(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    true = labels_of(folds.whole)
    for seed in range(20):
        drawn = permuted_labels(folds, np.random.default_rng(seed))
        assert drawn.keys() == true.keys()
        assert by_site(folds.whole, drawn) == by_site(folds.whole, true)
        assert drawn != true


GROUPS = (("0", "3"), ("4", "7"), ("8", "9"), ("10", "11", "12"))


@pytest.fixture
def grouped() -> Folds:
    """People of two sites, of whom pairs share a scan, with labels that differ within a pair, and three, too."""
    whole = made_up("0110100101101001011010010110", "a" * 16 + "b" * 12, same_scan=GROUPS)
    return Folds("2", whole, "d" * 64, by_number(whole, "2", 0))


def test_units_of_a_shared_scan_are_exchanged_as_a_whole(grouped):
    """The pairs (0, 3), (4, 7) and (8, 9) are exchanged with each other; the only three of the site stay."""
    true = labels_of(grouped.whole)
    pairs = [("0", "3"), ("4", "7"), ("8", "9")]
    there = Counter(true[one] + true[other] for one, other in pairs)
    seen = set()
    for seed in range(200):
        drawn = permuted_labels(grouped, np.random.default_rng(seed))
        assert Counter(drawn[one] + drawn[other] for one, other in pairs) == there
        assert sorted(drawn[of] for of in ("10", "11", "12")) == sorted(true[of] for of in ("10", "11", "12"))
        assert by_site(grouped.whole, drawn) == by_site(grouped.whole, true)
        seen.add(tuple(drawn[of] for pair in pairs for of in pair))
    assert len(there) == 3 and len(seen) == 6 * 2  # orders of the pairs, and of the one with both labels


def test_every_order_of_a_site_is_equally_likely():
    """Four people, two of each label, by a chi-square over the six orders."""
    whole = made_up("0101", "aaaa")
    folds = Folds("2", whole, "d" * 64, {})
    random = np.random.default_rng(0)
    drawn = Counter(tuple(permuted_labels(folds, random).values()) for _ in range(3000))
    assert len(drawn) == 6
    assert sum((count - 500) ** 2 / 500 for count in drawn.values()) < 20.5  # the 0.999 quantile of five degrees


def test_all_records_of_a_person_take_the_label():
    rows = [row(f"{at}", float(at % 2), site="a") for at in range(12)]
    rows += [row("5", 1.0, file="other.bin", site="a")]
    whole = cohort_of(*rows)
    folds = Folds("2", whole, "d" * 64, by_number(whole, "2", 0))
    for number in range(10):
        found = permuted_folds(folds, 0, number).whole
        assert len({of.label for of in found.rows if of.subject == "5"}) == 1


def test_numbered_folds_are_cut_anew_and_those_of_a_column_stay(cohort, tmp_path):
    folds = open_folds(cohort, "3", 7, tmp_path / "saved")
    found = permuted_folds(folds, 7, 1)
    assert found.fold_of == by_number(found.whole, "3", 7) != folds.fold_of
    for name in found.names:
        tested = [of.label for of in found.cohort(name).rows if of.split == "test"]
        assert abs(sum(tested) - sum(labels_of(folds.whole).values()) / 3) <= 1
    sites = open_folds(cohort, "site", 7, tmp_path / "sites")
    assert permuted_folds(sites, 7, 1).fold_of == sites.fold_of


def test_the_number_and_the_seed_tell_permutations(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    drawn = [labels_of(permuted_folds(folds, *of).whole) for of in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert drawn[0] == drawn[1]
    assert len({tuple(of.items()) for of in drawn}) == 3


def test_what_is_read_stays_but_for_the_label(cohort, tmp_path):
    folds = open_folds(cohort, "site", 0, tmp_path / "saved")
    name = folds.names[0]
    before, after = folds.cohort(name), permuted_folds(folds, 0, 1).cohort(name)
    at = [
        index for index, pair in enumerate(zip(before.rows, after.rows, strict=True)) if pair[0].label != pair[1].label
    ]
    assert at
    one, other = before.batch(at), after.batch(at)
    np.testing.assert_array_equal(one["volume"], other["volume"])
    np.testing.assert_array_equal(one["phenotype"], other["phenotype"])
    assert (one["label"] == 1 - other["label"]).all()
    assert open_cohort(cohort).rows[at[0]].label == one["label"][0]
