"""Inner folds: nobody whom the outer fold tests is in them, groups stay together, constants are of training people."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import cohort_of, row

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.folds import Folds, by_column, by_number, open_folds
from data.cohorts.inner_folds import MOST, InnerFolds, inner_folds
from data.cohorts.rows import ASIDE
from data.cohorts.stored import open_cohort


def inner_of(folds: Folds, name: str, seed: int = 0) -> InnerFolds:
    return inner_folds(folds, folds.cohort(name), seed)


def by_split(cohort: Cohort) -> dict[str, set[str]]:
    return {split: {of.subject for of in cohort.rows if of.split == split} for split in ("train", "test", ASIDE)}


@pytest.mark.parametrize("how", ["3", "12", "site", "SEX"])
def test_whom_the_outer_fold_tests_are_in_no_split(how, cohort, tmp_path):
    folds = open_folds(cohort, how, 0, tmp_path / "saved")
    if how == "SEX":  # one value is left in each
        with pytest.raises(
            InputError, match=r"in 2 inner folds at least, and without one fold .* has 1 value of SEX left"
        ):
            inner_of(folds, "1")
        return
    for name in folds.names[:4]:
        outer = folds.cohort(name)
        inner = inner_of(folds, name)
        assert 2 <= len(inner.names) <= MOST
        tested = []
        for fold in inner.names:
            splits = by_split(inner.cohort(fold, outer))
            assert splits[ASIDE] == set(outer.subjects("test"))
            assert splits["train"] | splits["test"] == set(outer.subjects("train"))
            assert splits["train"] and splits["test"]
            tested += splits["test"]
        assert sorted(tested) == outer.subjects("train")


def test_a_site_is_in_one_inner_fold(cohort, tmp_path):
    folds = open_folds(cohort, "site", 0, tmp_path / "saved")
    inner = inner_of(folds, "NYU")
    assert len(inner.names) == MOST
    for site in folds.names:
        assert len({inner.fold_of[of.subject] for of in inner.outer.rows if of.site == site and site != "NYU"}) < 2


def made_up(labels: str, sites: str, **metadata) -> Cohort:
    """A cohort of people called 0, 1, ... with these labels and sites."""
    return cohort_of(
        *(row(f"{at}", float(label), site=site) for at, (label, site) in enumerate(zip(labels, sites, strict=True))),
        **metadata,
    )


GROUPS = (("0", "1", "2"), ("4", "9"))


@pytest.mark.parametrize("how", ["2", "site"])
def test_groups_who_share_a_scan_stay_together(how):
    whole = made_up("01" * 12, "abcabcabcdabcdabcdabcdab", same_scan=GROUPS)
    fold_of = by_number(whole, how, 1, GROUPS) if how == "2" else by_column(whole, how, 1, GROUPS)
    folds = Folds(how, whole, "d" * 64, fold_of, same_scan=GROUPS)
    found = 0
    for name in folds.names:
        inner = inner_of(folds, name)
        for group in GROUPS:
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
    inner = inner_of(Folds("2", whole, "d" * 64, fold_of, same_scan=groups), "1")
    assert len(inner.names) == 4


def test_the_phenotype_is_scaled_on_inner_training_people_only(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    outer = folds.cohort("1")
    one = inner_of(folds, "1").cohort("0", outer)
    raw = open_cohort(cohort).raw_phenotype
    training = raw.loc[one.subjects("train")].to_numpy()
    median = np.array(
        [np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else 0 for column in training.T]
    )
    filled = np.where(np.isnan(training), median, training)
    spread = filled.std(0)
    assert (spread > 0).sum() > 5
    for at, of in enumerate(one.rows):
        own = raw.loc[of.subject].to_numpy()
        centred = np.where(np.isnan(own), median, own) - filled.mean(0)
        wanted = np.divide(centred, spread, out=np.zeros_like(spread), where=np.ptp(filled, axis=0) > 0)
        np.testing.assert_allclose(one.batch([at], volumes=False)["phenotype"][0], wanted, rtol=1e-4, atol=1e-5)
    assert one.digest != outer.digest


def test_the_seed_decides(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    assert inner_of(folds, "0").fold_of == inner_of(folds, "0").fold_of != inner_of(folds, "0", seed=1).fold_of


def test_volumes_are_standardised_as_the_candidate_reads_them(cohort, tmp_path):
    folds = open_folds(cohort, "3", 0, tmp_path / "saved")
    outer = folds.cohort("0")
    inner = inner_folds(folds, outer, 0)
    for standard in ("stored", "brain", "voxel"):
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
