"""Folds, inner ones and those of permuted labels: who is tested when, and that nobody who is tested was seen."""

from collections import Counter
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, refused

from data.base.errors import InputError
from data.cohorts import folds
from data.cohorts.division import assign_site_folds

GROUPS = (("50002", "50005"), ("50006", "50009"), ("50010", "50011"), ("50012", "50013", "50014"))
LABELS, SITES = "0110100101101001011010010110", "A" * 16 + "B" * 12


@pytest.fixture(scope="module")
def people(converted) -> pd.DataFrame:
    """The table of records of 40 people, by subject."""
    return lab.read_table(converted / "subjects.csv").set_index("subject")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory) -> Path:
    """A cohort of 28 people of two sites, of whom three pairs and three people share a map, whatever their labels."""
    folder = tmp_path_factory.mktemp("grouped")
    table = lab.people(28).assign(SITE_ID=list(SITES), DX_GROUP=[str(2 - int(label_digit)) for label_digit in LABELS])
    lab.pcp(folder / "lab", table)
    maps = {subject: folder / f"lab/cpac/X_00{subject}_falff.nii.gz" for subject in table["SUB_ID"]}
    for first, *remaining_members in GROUPS:
        for member in remaining_members:
            maps[member].write_bytes(maps[first].read_bytes())
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --seed 1", of=folder)
    return folder / "cohort"


@pytest.fixture
def make_folds(tmp_path):
    """`make_folds(cohort, "4")` are the folds of a cohort; those that were saved are used again."""
    return lambda cohort, how, seed=0: folds.open_folds(cohort, how, seed, tmp_path / "saved")


def group_by_split(cohort) -> dict[str, set[str]]:
    subjects_by_split: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in cohort.rows:
        subjects_by_split.setdefault(row.split, set()).add(row.subject)
    return subjects_by_split


def label_by_subject(cohort) -> dict[str, float]:
    return {row.subject: row.label for row in cohort.rows}


def test_all_subjects_are_tested_once_in_proportion_over_labels(on_folds, people):
    """By the tables that a training and a test leave."""
    table = lab.read_table(on_folds / "ckpt/mmnn/folds-3/folds.csv")
    assert table["subject"].tolist() == people.index.tolist() and set(table["fold"]) == {"0", "1", "2"}
    fold = table.set_index("subject")["fold"]
    for label, label_rows in people.groupby("label"):
        sizes = fold[label_rows.index].value_counts()
        assert ((sizes - len(label_rows) / 3).abs() < 2).all(), label  # of whole people at three sites
    predictions = lab.read_table(on_folds / "test/predictions.csv").set_index("subject")
    assert predictions["fold"].to_dict() == fold.to_dict()


@pytest.mark.parametrize("how", ["site", "SEX"])
def test_column_values_are_left_out_in_turn(how, make_folds, converted, people):
    covariates = lab.read_table(converted / "covariates.csv").set_index("subject")
    cohort_folds = make_folds(converted, how)
    assert cohort_folds.fold_by_subject == (people if how == "site" else covariates)[how].to_dict()
    assert cohort_folds.fold_names == sorted(set(cohort_folds.fold_by_subject.values()))
    assert cohort_folds.resolve_fold_name("1") == ("1" if how == "SEX" else cohort_folds.fold_names[1])


@pytest.mark.slow
def test_sites_equal_to_classes_cannot_be_left_out(tmp_path):
    table = lab.people(12)
    lab.pcp(tmp_path / "lab", table.assign(SITE_ID="S" + table["DX_GROUP"]))
    done("abide-data convert {of}/lab {of}/cohort --grid reduced", of=tmp_path)
    command = "run.py --train --model nn --folds site --dataDir {of}/cohort --chkPointDir {of}/ckpt"
    refused(command, "one class only", "cut it", of=tmp_path)


def test_more_than_ten_folds_are_in_numerical_order(make_folds, converted):
    assert make_folds(converted, "12").fold_names == [str(number) for number in range(12)]


def test_folds_are_saved_and_used_again(make_folds, converted, tmp_path):
    cohort_folds = make_folds(converted, "4")
    cohort_folds.write_folds(tmp_path / "saved")
    assert (
        lab.read_table(tmp_path / "saved/folds.csv").set_index("subject")["fold"].to_dict()
        == cohort_folds.fold_by_subject
    )
    assert make_folds(converted, "4").fold_by_subject == cohort_folds.fold_by_subject
    with pytest.raises(InputError, match="another --seed"):
        make_folds(converted, "4", seed=5)
    assert folds.open_repeat_folds(cohort_folds, 1, tmp_path / "other").fold_by_subject != cohort_folds.fold_by_subject


def test_a_folds_phenotype_is_scaled_on_training_people(make_folds, converted):
    """Against medians, means and spreads by NumPy."""
    fold_cohort = make_folds(converted, "3").make_fold_cohort("1")
    raw = pd.read_csv(converted / "phenotype.csv", dtype={"subject": str}).set_index("subject")
    training = raw.loc[sorted(group_by_split(fold_cohort)["train"])]
    filled = raw.fillna(training.median()).fillna(0)
    spread = filled.loc[training.index].std(ddof=0)
    expected = ((filled - filled.loc[training.index].mean()) / spread.where(spread > 1e-9)).fillna(0)
    scaled_phenotype = fold_cohort.make_batch(range(len(fold_cohort.rows)), with_volumes=False)["phenotype"]
    np.testing.assert_allclose(scaled_phenotype, expected.loc[[row.subject for row in fold_cohort.rows]], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["3", "12", "site"])
def test_whom_the_outer_fold_tests_are_in_no_split(how, make_folds, converted):
    cohort_folds = make_folds(converted, how)
    for name in cohort_folds.fold_names[:3]:
        outer = cohort_folds.make_fold_cohort(name)
        inner = folds.divide_into_inner_folds(cohort_folds, outer, 0)
        assert len(inner.fold_names) == 2  # as conftest says
        tested: list[str] = []
        for fold in inner.fold_names:
            splits = group_by_split(inner.make_inner_cohort(fold, outer))
            excluded_subjects = set.union(
                *(subjects for split, subjects in splits.items() if split not in ("train", "test"))
            )
            assert excluded_subjects == group_by_split(outer)["test"] and splits["train"] and splits["test"]
            assert splits["train"] | splits["test"] == group_by_split(outer)["train"]
            tested += splits["test"]
        assert sorted(tested) == sorted(group_by_split(outer)["train"])
        if how == "site":
            sites = {row.site for row in outer.rows if row.subject in inner.inner_fold_by_subject}
            assert (
                len(
                    {(row.site, inner.inner_fold_by_subject.get(row.subject)) for row in outer.rows if row.site != name}
                )
                == 2
            )
            assert len(sites) == 2


def test_the_seed_decides_inner_folds_and_their_phenotype_is_scaled_on_inner_training_people(make_folds, converted):
    cohort_folds = make_folds(converted, "3")
    outer = cohort_folds.make_fold_cohort("1")
    inner, repeated, reseeded = (folds.divide_into_inner_folds(cohort_folds, outer, seed) for seed in (0, 0, 1))
    assert inner.inner_fold_by_subject == repeated.inner_fold_by_subject != reseeded.inner_fold_by_subject
    inner_cohort = inner.make_inner_cohort("0", outer)
    trained = inner_cohort.make_batch(
        [index for index, row in enumerate(inner_cohort.rows) if row.split == "train"], with_volumes=False
    )["phenotype"]
    np.testing.assert_allclose(trained.mean(0), 0, atol=1e-4)
    assert abs(outer.make_batch(range(20), with_volumes=False)["phenotype"].mean(0)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["2", "3"])
def test_groups_sharing_a_scan_stay_together(how, make_folds, grouped):
    cohort_folds = make_folds(grouped, how)
    assert {frozenset(group) for group in cohort_folds.groups} == set(map(frozenset, GROUPS))
    for name in cohort_folds.fold_names:
        inner = folds.divide_into_inner_folds(cohort_folds, cohort_folds.make_fold_cohort(name), 0)
        for group in GROUPS:
            assert len({cohort_folds.fold_by_subject[subject] for subject in group}) == 1
            assert len({inner.inner_fold_by_subject.get(subject) for subject in group}) == 1


# Whole sites

TEN, LINKED = [f"SITE{number}" for number in range(10)], ("SITE0", "SITE7")


@pytest.mark.parametrize("sizes", [[3, 8] * 20, [100, 82, 61, 56, 55, 42, 38, 36, 35, 30, 30, 28, 27, 25, 23, 20, 16]])
def test_sites_stay_undivided_and_folds_are_alike(sizes):
    """In size, as far as whole sites can be: a greedy division leaves no more than the last site between two folds."""
    site, drawn = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(0)
    for seed in range(10):
        label = (drawn.random(len(site)) < drawn.uniform(0.3, 0.7, len(sizes))[site]).astype(float)
        fold = assign_site_folds(label, site, 5, seed)
        assert (pd.Series(fold).groupby(site).nunique() == 1).all() and set(fold) == set(range(5))
        assert np.ptp(np.bincount(fold)) <= max(sizes) / 3
        assert abs(pd.Series(label).groupby(fold).mean() - label.mean()).max() < 0.2
        assert (fold == assign_site_folds(label, site, 5, seed)).all()
    divisions = [tuple(assign_site_folds(label, site, 5, seed)) for seed in range(5)]
    assert len(set(divisions)) > 1 or len(set(sizes)) > 2


@pytest.mark.parametrize("label", [[0.0] * 3 + [1.0] * 3, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
def test_as_many_folds_as_sites_have_single_sites(label):
    assert sorted(assign_site_folds(np.array(label), np.arange(6), 6, 0)) == list(range(6))


@pytest.fixture(scope="module")
def ten_sites(tmp_path_factory) -> Path:
    """A cohort of 40 people of ten sites, of whom two of different sites share a map."""
    folder = tmp_path_factory.mktemp("sites")
    table = lab.people(40).assign(
        SITE_ID=[TEN[person_number // 4] for person_number in range(40)], DX_GROUP=list("1122") * 10
    )
    lab.pcp(folder / "lab", table)
    first_path, second_path = (
        folder / f"lab/cpac/X_00{table['SUB_ID'][person_number]}_falff.nii.gz" for person_number in (1, 30)
    )
    second_path.write_bytes(first_path.read_bytes())
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --seed 1", of=folder)
    return folder / "cohort"


@pytest.mark.slow
def test_sites_sharing_a_scan_share_outer_and_inner_folds(make_folds, ten_sites):
    cohort_folds = make_folds(ten_sites, "4-wholeSites")
    site = {row.subject: row.site for row in cohort_folds.full_cohort.rows}
    table = pd.DataFrame({"site": site, "fold": cohort_folds.fold_by_subject})
    assert (table.groupby("site")["fold"].nunique() == 1).all() and cohort_folds.fold_names == list("0123")
    assert table.loc[table["site"].isin(LINKED), "fold"].nunique() == 1
    assert any(all(name in note for name in LINKED) for note in cohort_folds.fold_warnings)
    assert folds.open_repeat_folds(cohort_folds, 1, Path("nowhere")).fold_by_subject != cohort_folds.fold_by_subject
    permuted = folds.permute_folds(cohort_folds, 0, 1)
    assert (
        permuted.fold_by_subject
        == cohort_folds.fold_by_subject
        == folds.make_new_folds(permuted.full_cohort, "4-wholeSites", 0).fold_by_subject
    )
    assert label_by_subject(permuted.full_cohort) != label_by_subject(cohort_folds.full_cohort)
    for name in cohort_folds.fold_names:
        inner = folds.divide_into_inner_folds(cohort_folds, cohort_folds.make_fold_cohort(name), 0)
        assert set(inner.inner_fold_by_subject) == set(table.index[table["fold"] != name])
        inner_sites = table["site"][list(inner.inner_fold_by_subject)]
        assert (pd.Series(inner.inner_fold_by_subject).groupby(inner_sites).nunique() == 1).all()


@pytest.mark.slow
def test_more_folds_than_sites_are_refused_with_a_possible_number(make_folds, ten_sites):
    with pytest.raises(InputError, match=r"9 sites.*count once.*Use --folds 9 --wholeSites"):
        make_folds(ten_sites, "10-wholeSites")
    assert len(make_folds(ten_sites, "9-wholeSites").fold_names) == 9


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "no_baselines")
def test_a_training_and_test_by_sites_are_apart_from_folds_by_people(ten_sites, tmp_path):
    """In their own folders, and told as what holds sites out."""
    places = {"of": ten_sites, "to": tmp_path}
    command = (
        "run.py --{} --model nn --folds 3 --wholeSites --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}/{}"
    )
    train = "--numIters 2 --set members=1 --set batch_size=8"
    done(f"{command.format('train', 'train')} {train} --jobs 2", **places)
    test_output = done(f"{command.format('test', 'test')} --permutations 2", **places)
    assert "3-wholeSites" in test_output
    assert {path.name for path in (tmp_path / "ckpt/nn").iterdir()} == {"folds-3-wholeSites"}
    fold = lab.read_table(tmp_path / "ckpt/nn/folds-3-wholeSites/folds.csv").set_index("subject")["fold"]
    predictions = lab.read_table(tmp_path / "test/predictions.csv")
    assert predictions.set_index("subject")["fold"].to_dict() == fold.to_dict()
    assert (predictions.groupby("site")["fold"].nunique() == 1).all() and predictions["subject"].is_unique
    page = (tmp_path / "test/report.html").read_text()
    assert "model that had not seen it" in page and "3 folds of whole sites" in page
    refused(command.format("test", "test").replace(" --wholeSites", ""), "folds-3-wholeSites", "--wholeSites", **places)
    done(f"{command.format('train', 'people').replace(' --wholeSites', '')} {train}", **places)
    assert {path.name for path in (tmp_path / "ckpt/nn").iterdir()} == {"folds-3", "folds-3-wholeSites"}
    scored = "run.py --train --everybody --score {to}/test --model nn --dataDir {of} --chkPointDir {to}/ckpt"
    assert "in 3 folds of whole sites" in done(f"{scored} --outDir {{to}}/everybody", **places)


# Permuted labels


def count_labels_by_site(cohort, label: dict[str, float]) -> Counter:
    site = {row.subject: row.site for row in cohort.rows}
    return Counter((site[subject], subject_label) for subject, subject_label in label.items())


def test_clusters_sharing_a_scan_are_exchanged_together(make_folds, grouped):
    """Of the three pairs of a site with each other; the only three keep their labels, in any order. Each site keeps
    its labels."""
    cohort_folds = make_folds(grouped, "2")
    true, pairs, three = label_by_subject(cohort_folds.full_cohort), GROUPS[:3], GROUPS[3]
    pair_sum_counts = Counter(true[first_member] + true[second_member] for first_member, second_member in pairs)
    seen = set()
    for seed in range(200):
        drawn = folds.permute_labels(cohort_folds.full_cohort, np.random.default_rng(seed))
        assert drawn.keys() == true.keys() and drawn != true
        assert (
            Counter(drawn[first_member] + drawn[second_member] for first_member, second_member in pairs)
            == pair_sum_counts
        )
        assert sorted(drawn[member] for member in three) == sorted(true[member] for member in three)
        assert count_labels_by_site(cohort_folds.full_cohort, drawn) == count_labels_by_site(
            cohort_folds.full_cohort, true
        )
        seen.add(tuple(drawn[member] for pair in pairs for member in pair))
    mixed = sum(true[first_member] != true[second_member] for first_member, second_member in pairs)
    orders = {(1, 1, 1): 6, (2, 1): 3, (3,): 1}[tuple(sorted(pair_sum_counts.values(), reverse=True))]
    assert len(seen) == orders * 2**mixed


@pytest.mark.slow
def test_all_orders_within_a_site_are_equally_likely(tmp_path, make_folds):
    """Four people of a site, two of each label, by a chi-square over the six orders."""
    table = lab.people(8).assign(SITE_ID=list("AAAABBBB"), DX_GROUP=list("12121212"))
    lab.pcp(tmp_path / "lab", table)
    done("abide-data convert {of}/lab {of}/cohort --grid reduced", of=tmp_path)
    cohort_folds, random = make_folds(tmp_path / "cohort", "2"), np.random.default_rng(0)
    drawn = [folds.permute_labels(cohort_folds.full_cohort, random) for _ in range(3000)]
    counts = Counter(tuple(permuted_label[subject] for subject in table["SUB_ID"][:4]) for permuted_label in drawn)
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5  # the 0.999 quantile of five degrees


def test_numbered_folds_are_divided_anew_and_column_folds_stay(make_folds, converted):
    cohort_folds = make_folds(converted, "3", 7)
    first_permutation, same_permutation, second_permutation, reseeded_permutation = (
        folds.permute_folds(cohort_folds, *permutation) for permutation in ((7, 1), (7, 1), (7, 2), (8, 1))
    )
    assert (
        label_by_subject(first_permutation.full_cohort) == label_by_subject(same_permutation.full_cohort)
        and first_permutation.fold_by_subject == same_permutation.fold_by_subject != cohort_folds.fold_by_subject
    )
    assert (
        len(
            {
                tuple(label_by_subject(permutation.full_cohort).items())
                for permutation in (first_permutation, second_permutation, reseeded_permutation)
            }
        )
        == 3
    )
    for name in first_permutation.fold_names:
        tested = [row.label for row in first_permutation.make_fold_cohort(name).rows if row.split == "test"]
        assert abs(sum(tested) - sum(label_by_subject(cohort_folds.full_cohort).values()) / 3) <= 1
    sites = make_folds(converted, "site", 7)
    assert folds.permute_folds(sites, 7, 1).fold_by_subject == sites.fold_by_subject


def test_inputs_stay_except_the_label(make_folds, converted):
    cohort_folds = make_folds(converted, "site")
    name = cohort_folds.fold_names[0]
    before, after = cohort_folds.make_fold_cohort(name), folds.permute_folds(cohort_folds, 0, 1).make_fold_cohort(name)
    changed_indices = [index for index, row in enumerate(before.rows) if row.label != after.rows[index].label]
    original_batch, permuted_batch = before.make_batch(changed_indices), after.make_batch(changed_indices)
    assert changed_indices and (original_batch["label"] == 1 - permuted_batch["label"]).all()
    for input_name in ("volume", "phenotype"):
        np.testing.assert_array_equal(original_batch[input_name], permuted_batch[input_name])
