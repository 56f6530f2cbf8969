"""Labels permuted within sites: as many of each, people who share a scan together, folds as for the true labels."""

from collections import Counter

import numpy as np
import pytest
from helpers import cohort_of, row

from data.cohorts.cohort import Cohort
from data.cohorts.folds import Folds, by_number, open_folds
from data.cohorts.permuted import permuted_folds, permuted_labels
from data.cohorts.stored import open_cohort


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
    rows = [row(f"{at}", float("0110100101101001011010010110"[at]), site="ab"[at > 15]) for at in range(28)]
    whole = cohort_of(*rows, same_scan=GROUPS)
    return Folds("2", whole, "d" * 64, by_number(whole, "2", 0, GROUPS), same_scan=GROUPS)


def test_units_of_a_shared_scan_are_exchanged_as_a_whole(grouped):
    """The pairs (0, 3), (4, 7) and (8, 9) are exchanged with each other; the only three of the site stays."""
    true = labels_of(grouped.whole)
    pairs = [("0", "3"), ("4", "7"), ("8", "9")]
    there = Counter((true[one], true[other]) for one, other in pairs)
    seen = set()
    for seed in range(200):
        drawn = permuted_labels(grouped, np.random.default_rng(seed))
        assert Counter((drawn[one], drawn[other]) for one, other in pairs) == there
        assert [drawn[of] for of in ("10", "11", "12")] == [true[of] for of in ("10", "11", "12")]
        assert by_site(grouped.whole, drawn) == by_site(grouped.whole, true)
        seen.add(tuple(drawn[of] for pair in pairs for of in pair))
    assert len(seen) == len(set(there)) if len(there) < 3 else len(seen) == 6


def test_every_order_of_a_site_is_equally_likely():
    """Four people, two of each label, by a chi-square over the six orders."""
    whole = cohort_of(*(row(f"{at}", float(at % 2), site="a") for at in range(4)))
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
