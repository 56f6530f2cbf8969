"""People who share a scan: found whatever was done to the copy, never among others, and kept together."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import COARSE, LAS_6MM, an_identity, brain_map, cohort_of, row, run_of, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data.base.errors import InputError
from data.cohorts import atlas, records, resampling, stored, twins
from data.cohorts.division import by_column
from data.cohorts.folds import open_folds
from data.cohorts.rows import TOGETHER, Metadata, named_groups
from data.cohorts.stored import open_cohort, sealed
from data.cohorts.variants import resplit
from utils.runs import guards


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.mark.slow
@given(st.integers(3, 60), st.integers(1, 3), st.sampled_from([0, 1e-6, 1e-3, 1e-2]), st.integers(0, 99))
@settings(max_examples=30)
def test_copies_are_found_and_nobody_else(people, maps, noise, seed):
    """Region means of random people, of whom the last third, and once the first two, are copied with noise."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(116, maps)) + 0.2 * random.normal(size=(people, 116, maps))
    copied = means[-(people // 3) :] * 3 + 1  # in other units
    copied += noise * random.normal(size=copied.shape)
    found = twins.alike(names(people + people // 3), np.concatenate([means, copied]))
    expected = {(f"p{at}", f"p{at + people // 3}") for at in range(people - people // 3, people)}
    assert set(found.same_scan) == expected


@pytest.mark.parametrize("count, groups", [(0, 0), (1, 0), (2, 1), (9, 1)])
def test_a_cohort_of_nothing_but_copies_is_one_person(count, groups):
    random = np.random.default_rng(0)
    means = random.normal(size=(1, 116, 1)) + 1e-6 * random.normal(size=(count, 116, 1))
    assert len(twins.alike(names(count), means).same_scan) == groups


def test_people_are_compared_across_blocks(monkeypatch):
    """A chain of copies of copies is one group, whichever blocks its members are in; a likeness is listed only."""
    monkeypatch.setattr(twins, "BLOCK", 4)
    random = np.random.default_rng(1)
    means = random.normal(size=(30, 116, 1))
    means[[9, 21]] = means[2]
    means[28] = means[13] + 0.7 * random.normal(size=(116, 1))
    found = twins.alike(names(30), means)
    assert found.same_scan == (("p2", "p9", "p21"),)
    assert found.same_person == (("p13", "p28"),)
    assert found.notes() == ["possibly two sessions of one person, by region means: p13 and p28"]


def test_long_groups_are_cut():
    assert named_groups([["1", "2"], list("abcdef")]) == "1 and 2, a and b and c and d and 2 more"


def test_region_means_of_a_volume_are_those_of_its_block_means():
    """Those of a person's own values, each weighed by its square; the right regions are mirror images of the left."""
    volume = np.stack([brain_map(records.FULL.shape, seed) for seed in (0, 1)], -1)
    reduced = np.stack([resampling.block_mean(volume[..., at]) for at in (0, 1)], -1)
    np.testing.assert_allclose(twins.of_volume(volume), twins.of_volume(reduced), rtol=1e-5)
    inside = atlas.load_atlas(None, records.FULL).labels == 5
    for at, found in enumerate(twins.of_volume(reduced)[4]):
        values = resampling.repeat_blocks(reduced[..., at])[inside].astype(float)
        assert found == pytest.approx((values**3).sum() / (values**2).sum(), rel=1e-5)
    turned = twins.of_volume(reduced[::-1])
    np.testing.assert_allclose(turned[:108:2], twins.of_volume(reduced)[1:108:2], rtol=1e-5)
    np.testing.assert_allclose(turned[108:], twins.of_volume(reduced)[108:], rtol=1e-5)


def test_a_region_that_a_person_lacks_is_unknown():
    volume = brain_map(records.REDUCED.shape, 0)
    volume[:, :, :12] = 0
    means = twins.of_reduced(volume)
    cerebellum, frontal = means[90:108], means[:4]
    assert np.isnan(cerebellum).all() and np.isfinite(frontal).all()


def people_of(count: int) -> np.ndarray:
    """Whole brains of people on the reduced grid (people, maps, x, y, z): a common pattern, and one of each person."""
    random = np.random.default_rng(0)
    shape = records.REDUCED.shape
    distance = sum(
        np.square(axis) for axis in np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    )
    common, own = random.normal(size=(2, *shape)), random.normal(size=(count, 2, *shape))
    smooth = [ndimage.gaussian_filter(values, (0,) * (values.ndim - 3) + (1.5,) * 3) for values in (common, own)]
    values = 1 + 0.2 * sum(of / of.std() for of in smooth)
    return np.where(distance < 0.8, values, 0).astype(np.float32)


def cut(values: np.ndarray) -> np.ndarray:
    kept = np.zeros_like(values)
    kept[:, 3:-3, 3:-3, 7:-4] = values[:, 3:-3, 3:-3, 7:-4]
    return kept


CHANGES = {
    "another field of view": cut,
    "a mask smaller by 2 voxels": lambda values: np.where(
        ndimage.binary_erosion(values[0] != 0, iterations=2), values, 0
    ),
    "mirrored": lambda values: values[:, ::-1],
    "mirrored, of another field of view": lambda values: cut(values[:, ::-1]),
    "in other units, of another background": lambda values: np.where(values, 3 * values - 2, 0),
}


@pytest.fixture(scope="module")
def brains() -> np.ndarray:
    return people_of(61)


def means_of(volumes: Iterable[np.ndarray]) -> np.ndarray:
    """Region means (people, regions, maps) of volumes (maps, x, y, z), as a conversion has them."""
    return np.stack([twins.of_volume(records.normalise(np.moveaxis(values, 0, -1))) for values in volumes])


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("copies", [1, 10])
def test_copies_of_another_extent_or_side_are_found_and_nobody_else(brains, change, copies):
    found = twins.alike(names(60 + copies), means_of([*brains[:60], *map(change, brains[:copies])]))
    assert set(found.same_scan) == {(f"p{at}", f"p{60 + at}") for at in range(copies)}
    assert not found.same_person


@pytest.mark.slow
def test_one_map_of_several_is_enough(brains):
    """A person with nearly the first map of one and the second of another; all three share scans."""
    random = np.random.default_rng(3)
    mixed = np.stack([brains[4][0], brains[7][1]])
    mixed = np.where(mixed, mixed + 0.02 * random.normal(size=mixed.shape), 0)
    one = np.stack([mixed[0], brains[60][1]])
    found = twins.alike(names(61), means_of([*brains[:60], mixed]))
    assert found.same_scan == (("p4", "p7", "p60"),)
    assert twins.alike(names(61), means_of([*brains[:60], one])).same_scan == (("p4", "p60"),)


def test_simulated_people_and_swapped_copies_are_no_twins(cohort, data_cli, tmp_path):
    assert twins.find_twins(open_cohort(cohort)) == twins.Twins()
    assert data_cli("swap", cohort, tmp_path / "swapped", "--copies", 1, "--regions", 3).status == 0
    assert twins.find_twins(open_cohort(tmp_path / "swapped")) == twins.Twins()


@pytest.fixture
def bare(cohort, tmp_path) -> Path:
    """The first 20 people of the cohort, and each again, with noise, as 100 more, as a folder of records."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in sorted(cohort.glob("*.bin"))[:20]:
        shutil.copy(path, folder)
        values = np.fromfile(path, "<f4")
        values[30:] += 1e-6 * np.random.default_rng(0).normal(size=values.size - 30)
        values.tofile(folder / f"{int(path.stem) + 100}.bin")
    return folder


def test_copies_in_a_bare_folder_stay_in_one_fold(bare, tmp_path):
    folds = open_folds(bare, "4", 0, tmp_path / "saved")
    assert all(folds.fold_of[str(number)] == folds.fold_of[str(number + 100)] for number in range(1, 21))
    assert "share a scan are in one fold: 1 and 101, 2 and 102" in folds.notes[0]
    folds.write(tmp_path / "saved")
    again = open_folds(bare, "4", 0, tmp_path / "saved")
    assert (again.fold_of, again.groups) == (folds.fold_of, folds.groups)


def test_copies_in_a_bare_folder_take_one_split(bare, capsys):
    parted = {row.subject: row.split for row in open_cohort(bare).rows}
    assert any(parted[str(number)] != parted[str(number + 100)] for number in range(1, 21))
    split = {row.subject: row.split for row in sealed(bare).rows}
    assert all(split[str(number)] == split[str(number + 100)] == parted[str(number)] for number in range(1, 21))
    assert "share a scan, and were in train and test; they are in train now." in capsys.readouterr().out
    assert [row.split for row in sealed(bare, together=False).rows] == [*parted.values()]


def test_a_cohort_that_was_searched_is_sealed_without_another_search(bare, monkeypatch):
    monkeypatch.setattr(twins, "find_twins", lambda _: pytest.fail("all volumes were read"))
    searched = replace(open_cohort(bare), metadata=Metadata(copies=TOGETHER))
    monkeypatch.setattr(stored, "open_cohort", lambda _: searched)
    assert sealed(bare).rows == searched.rows


def test_what_copies_tell_of_labels_is_gone(bare, tmp_path):
    """Who is most alike among the people of other folds has the label of a tested one by chance, not by a copy."""
    folds = open_folds(bare, "4", 0, tmp_path / "saved")
    subjects, means = twins.of_cohort(folds.whole, range(40))
    label, fold = {row.subject: row.label for row in folds.whole.rows}, np.array([folds.fold_of[of] for of in subjects])
    total, _ = twins.compared([twins.embedded(means[..., 0])], slice(None), slice(None))
    cosines = np.where(fold == fold[:, None], -1, total)
    assert cosines.max() < twins.thresholds(40, 1)[1]
    right = np.mean(
        [label[subjects[at]] == label[subject] for subject, at in zip(subjects, cosines.argmax(1), strict=True)]
    )
    assert right < 0.8


def test_a_group_of_two_sites_is_tested_at_the_first(cohort, capsys):
    opened = open_cohort(cohort)
    site = {row.subject: row.site for row in opened.rows}
    one = opened.rows[0]
    other = next(row for row in opened.rows if row.site != one.site)
    fold_of = by_column(replace(opened, groups=((one.subject, other.subject),)), "site", 0)
    assert fold_of == site | {other.subject: one.site}
    assert f"tested there: {other.subject} ({other.site}) with {one.subject} ({one.site})." in capsys.readouterr().out


def test_a_split_of_one_scan_is_refused(cohort):
    opened = open_cohort(cohort)
    pair = ("0000001", "0000002")
    grouped = replace(opened, groups=(pair,))
    with pytest.raises(InputError, match=r"parts 0000001 and 0000002 of .*, who share a scan; keep them together"):
        resplit(grouped, {row.subject: "test" if row.subject == "0000002" else "train" for row in opened.rows})


PEOPLE = 12


def write_lab(folder: Path, people: dict[str, tuple[np.ndarray, str]]) -> Path:
    """Maps of 6 mm, named `<ID>_falff.nii`, and a table with a diagnosis, by ID."""
    folder.mkdir()
    for name, (values, _) in people.items():
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), LAS_6MM), folder / f"{name}_falff.nii")
    rows = [
        {"id": name, "file": f"{name}_falff.nii", "dx": dx, "age": 10 + at % 3}
        for at, (name, (_, dx)) in enumerate(people.items())
    ]
    write_rows(folder / "people.csv", rows)
    return folder


READ = ("--table", "people.csv", "--idColumn", "id", "--mapColumn", "file", "--labelColumn", "dx", "--positive", "ASD")
NEW = (*READ, "--grid", "reduced", "--phenotype", "age")


@pytest.fixture(scope="module")
def lab() -> dict[str, tuple[np.ndarray, str]]:
    """12 people, the first three again with noise as c0, c1, c2, c2 with the other diagnosis."""
    people = {f"p{at:02}": (brain_map((31, 37, 31), at), ("ASD", "TD")[at % 2]) for at in range(PEOPLE)}
    random = np.random.default_rng(5)
    for at in range(3):
        values, dx = people[f"p{at:02}"]
        noisy = values * (1 + 1e-4 * random.normal(size=values.shape))
        people[f"c{at}"] = (noisy, dx if at < 2 else "TD")
    return people


@pytest.mark.slow
def test_convert_keeps_copies_together_unless_told_otherwise(lab, data_cli, tmp_path, monkeypatch):
    source = write_lab(tmp_path / "lab", lab)
    monkeypatch.chdir(source)
    outcome = data_cli("convert", source, tmp_path / "cohort", *NEW)
    assert outcome.status < 2, outcome.err
    pairs = (("c0", "p00"), ("c1", "p01"), ("c2", "p02"))
    assert (
        "Subjects who share a scan, in one split, and in one fold: c0 and p00, c1 and p01, c2 and p02." in outcome.out
    )
    assert "Of these, c2 and p02 differ in their label; leave them out" in outcome.out
    opened = open_cohort(tmp_path / "cohort")
    assert opened.metadata.same_scan == pairs
    split = {row.subject: row.split for row in opened.rows}
    folds = open_folds(opened.path, "4", 0, tmp_path / "saved")
    assert all(split[one] == split[other] and folds.fold_of[one] == folds.fold_of[other] for one, other in pairs)
    assert twins.find_twins(opened).same_scan == pairs  # stored volumes tell the same as the maps
    outcome = data_cli("convert", source, tmp_path / "apart", *NEW, "--keepCopies")
    assert "Subjects who share a scan, kept apart by --keepCopies: c0 and p00" in outcome.out
    assert json.loads((tmp_path / "apart" / "cohort.json").read_text())["copies"] == "apart"
    assert open_folds(tmp_path / "apart", "4", 0, tmp_path / "other").groups == ()


def test_a_new_person_with_a_scan_of_the_training_is_refused_by_name(lab, data_cli, tmp_path, monkeypatch):
    own = {name: found for name, found in lab.items() if name.startswith("p")}
    source = write_lab(tmp_path / "lab", own)
    monkeypatch.chdir(source)
    assert data_cli("convert", source, tmp_path / "cohort", *NEW).status < 2
    trained = open_cohort(tmp_path / "cohort").subjects("train")[4]
    people = {"n1": (own[trained][0] * 1000, "TD"), "n2": (brain_map((31, 37, 31), 99), "ASD")}
    new = write_lab(tmp_path / "new", people)
    monkeypatch.chdir(new)
    outcome = data_cli("convert", new, tmp_path / "out", "--like", tmp_path / "cohort", *READ)
    assert outcome.status == 2
    assert f"cohort: n1 has that of {trained}; expected new people." in outcome.err
    assert "Leave them out: --exclude n1" in outcome.err
    assert not (tmp_path / "out").exists()
    outcome = data_cli("convert", new, tmp_path / "out", "--like", tmp_path / "cohort", *READ, "--keepCopies")
    assert (outcome.status, "--keepCopies is about splits" in outcome.err) == (2, True)


def test_one_file_under_many_names_is_refused_unless_kept_apart(data_cli, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    nibabel.save(nibabel.Nifti1Image(brain_map((8, 9, 7), 0), COARSE), maps / "fALFFMap_1.nii")
    for number in range(2, 9):
        shutil.copy(maps / "fALFFMap_1.nii", maps / f"fALFFMap_{number}.nii")
    lines = [f"{number},{number % 2},{20 + number % 5}" for number in range(1, 9)]
    (maps / "table.csv").write_text("\n".join(["ID,DX,age", *lines]))
    asked = ("convert", maps, tmp_path / "out", "--grid", "reduced", "--labelColumn", "DX", "--positive", "1")
    refused = data_cli(*asked, "--phenotype", "age")
    assert refused.status == 2
    assert "The maps of all 8 subjects are one scan; expected one each." in refused.err
    assert not (tmp_path / "out").exists()
    assert data_cli(*asked, "--phenotype", "age", "--keepCopies").status == 1  # they are in train and test


def test_a_noised_copy_of_a_training_subject_is_not_tested_under_another_name(cli, cohort, seen_two, tmp_path):
    """A network of the phenotype, too; the copy is in a cohort of its own, so that no split parts it."""
    training = [of.file for of in open_cohort(cohort).rows if of.split == "train"]
    (tmp_path / "new").mkdir()
    for number, file in enumerate(training, 5000):
        values = np.fromfile(cohort / file, "<f4")
        values[30:] += 0.01 * np.random.default_rng(number).normal(size=values.size - 30)
        values.tofile(tmp_path / "new" / f"{number}.bin")
    asked = ("--test", "--model", "nn", "--chkPointDir", seen_two / "ckpt", "--dataDir", tmp_path / "new")
    outcome = cli(*asked)
    assert outcome.status == 2
    assert re.search(r"At least \d test subjects of .*new have the scan of a training subject of this", outcome.err)
    assert re.search(r"with noise or exported again: 50\d\d has that of \d+", outcome.err)


def test_a_training_cohort_that_is_gone_is_told(capsys):
    saved = an_identity(records_sha256="0" * 64, cohort="gone")
    guards.no_near_copy(run_of(cohort=cohort_of(row("3", 1.0, "test"))), saved)
    assert (
        "Not compared, whether test subjects have nearly a training scan: gone is not as it was."
        in capsys.readouterr().out
    )
