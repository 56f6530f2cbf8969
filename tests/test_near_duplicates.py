"""People who share a scan: found whatever was done to the copy, never among others, and kept together."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_atlas import aal

from data.cohorts import near_duplicates


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.mark.slow
@given(st.integers(3, 60), st.integers(1, 3), st.sampled_from([0, 1e-6, 1e-3, 1e-2]), st.integers(0, 99))
@settings(max_examples=30)
def test_copies_are_detected_and_nobody_else(people, maps, noise, seed):
    """Region means of random people, of whom the last third, and once the first two, are copied with noise."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(116, maps)) + 0.2 * random.normal(size=(people, 116, maps))
    copied = means[-(people // 3) :] * 3 + 1  # in other units
    copied += noise * random.normal(size=copied.shape)
    duplicates = near_duplicates.find_near_duplicates(names(people + people // 3), np.concatenate([means, copied]))
    expected = {
        (f"p{person_index}", f"p{person_index + people // 3}") for person_index in range(people - people // 3, people)
    }
    assert set(duplicates.same_scan_groups) == expected


@pytest.mark.parametrize("count, groups", [(0, 0), (1, 0), (2, 1)])
def test_a_cohort_with_nothing_but_copies_is_a_single_person(count, groups):
    random = np.random.default_rng(0)
    means = random.normal(size=(1, 116, 1)) + 1e-6 * random.normal(size=(count, 116, 1))
    assert len(near_duplicates.find_near_duplicates(names(count), means).same_scan_groups) == groups


@pytest.mark.slow
def test_people_are_compared_across_blocks():
    """A chain of copies of copies is one group, whichever blocks its members are in; a likeness is listed only."""
    random = np.random.default_rng(1)
    means = random.normal(size=(1100, 116, 1))
    means[[600, 1099]] = means[2]
    means[1030] = means[13] + 1.0 * random.normal(size=(116, 1))
    duplicates = near_duplicates.find_near_duplicates(names(1100), means)
    assert duplicates.same_scan_groups == (("p2", "p600", "p1099"),) and duplicates.same_person_pairs == (
        ("p13", "p1030"),
    )
    assert duplicates.make_same_person_warnings() == [
        "possibly two sessions of one participant, by region means: p13 and p1030"
    ]


@pytest.mark.slow
def test_region_means_by_volume_equal_means_by_blocks():
    """Those of a person's own values, each weighed by its square; the right regions are mirror images of the left."""
    volume = np.stack(
        [lab.make_map({"SUB_ID": f"{seed}", "DX_GROUP": "2"}, shape=(91, 109, 91)) for seed in (1, 2)], -1
    )
    share = ndimage.uniform_filter(np.ones(volume.shape[:3]), 3, mode="constant")[::3, ::3, ::3, None]
    sums = [ndimage.uniform_filter(volume[..., map_index].astype(float), 3, mode="constant") for map_index in (0, 1)]
    reduced = (np.stack(sums, -1)[::3, ::3, ::3] / share).astype(np.float32)
    means = near_duplicates.average_volume_regions(reduced)
    np.testing.assert_allclose(near_duplicates.average_volume_regions(volume), means, rtol=1e-4)
    inside = aal() == 5
    blocks = np.repeat(np.repeat(np.repeat(reduced, 3, 0), 3, 1), 3, 2)[1:92, 1:110, 1:92]
    for map_index, region_mean in enumerate(means[4]):
        values = blocks[inside][:, map_index].astype(float)
        assert region_mean == pytest.approx((values**3).sum() / (values**2).sum(), rel=1e-4)
    turned = near_duplicates.average_volume_regions(reduced[::-1])
    np.testing.assert_allclose(turned[:108:2], means[1:108:2], rtol=1e-5)
    np.testing.assert_allclose(turned[108:], means[108:], rtol=1e-5)
    reduced[:, :, :12] = 0
    lacking = near_duplicates.average_volume_regions(reduced)
    assert np.isnan(lacking[90:108]).all() and np.isfinite(lacking[:4]).all()  # cerebellum, frontal


@pytest.fixture(scope="module")
def brains() -> np.ndarray:
    """61 whole brains on the reduced grid (people, maps, x, y, z): a common pattern, and one of each person."""
    random = np.random.default_rng(0)
    common, person_patterns = random.normal(size=(2, *lab.REDUCED_GRID)), random.normal(size=(61, 2, *lab.REDUCED_GRID))
    smooth = [
        ndimage.gaussian_filter(values, (0,) * (values.ndim - 3) + (1.5,) * 3) for values in (common, person_patterns)
    ]
    values = 1 + 0.2 * sum(pattern / pattern.std() for pattern in smooth)
    return np.where(lab.make_brain(lab.REDUCED_GRID), values, 0).astype(np.float32)


def crop_field(values: np.ndarray) -> np.ndarray:
    cropped = np.zeros_like(values)
    cropped[:, 3:-3, 3:-3, 7:-4] = values[:, 3:-3, 3:-3, 7:-4]
    return cropped


def erode_mask(values: np.ndarray) -> np.ndarray:
    return np.where(ndimage.binary_erosion(values[0] != 0, iterations=2), values, 0)


CHANGES = {
    "another field of view": crop_field,
    "a mask smaller by 2 voxels": erode_mask,
    "mirrored, of another field of view": lambda values: crop_field(values[:, ::-1]),
    "in other units, of another background": lambda values: np.where(values, 3 * values - 2, 0),
}


def compute_means(volumes: Iterable[np.ndarray]) -> np.ndarray:
    """Region means (people, regions, maps) of volumes (maps, x, y, z), as a conversion has them."""
    maps_last = [np.moveaxis(values, 0, -1) for values in volumes]
    return np.stack(
        [
            near_duplicates.average_volume_regions((volume - volume.mean((0, 1, 2))) / volume.std((0, 1, 2)))
            for volume in maps_last
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("copies", [1, 10])
def test_copies_with_another_extent_or_side_are_detected_and_nobody_else(brains, change, copies):
    duplicates = near_duplicates.find_near_duplicates(
        names(60 + copies), compute_means([*brains[:60], *map(change, brains[:copies])])
    )
    assert set(duplicates.same_scan_groups) == {
        (f"p{person_index}", f"p{60 + person_index}") for person_index in range(copies)
    }
    assert not duplicates.same_person_pairs


# By commands


TRAIN = "run.py --train --model nn --numIters 1 --set members=1"
CONVERT = "abide-data convert {of} {to} --grid reduced --maps all --connectome rois_made --parcels {of}/parcels.nii.gz"
DONORS_BY_COPY = {"60001": ("50002", "50006", None), "60002": ("50003", "50007", None), "60003": (None, None, "50008")}
SAME_SCAN_GROUPS = {
    frozenset(pair) for pair in (("60001", "50002", "50006"), ("60002", "50003", "50007"), ("60003", "50008"))
}
KINDS = ("falff.nii.gz", "alff.nii.gz", "rois_made.1D")


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A lab of 24 people. Two new IDs have the first map of one person and the second of another, with noise; a third
    has maps of its own, and the series of somebody at another site. Who shares has one label."""
    folder = tmp_path_factory.mktemp("copied") / "lab"
    table = pd.concat([lab.people(24), lab.people(3, 60001)])
    table.loc[table["SUB_ID"] == "60003", "SITE_ID"] = "ELSEWHERE"
    lab.pcp(folder, table.replace("USM", "US/M"), ("falff", "alff"), series=True)
    for new, donors in DONORS_BY_COPY.items():
        for kind, donor in zip(KINDS, donors, strict=True):
            if donor:
                shutil.copyfile(folder / f"cpac/X_00{donor}_{kind}", folder / f"cpac/X_00{new}_{kind}")
    noisy = folder / "cpac/X_0060001_falff.nii.gz"
    random = np.random.default_rng(5)
    lab.edit(noisy, lambda values, affine: (values * (1 + 1e-4 * random.normal(size=values.shape)), affine))
    return folder


@pytest.fixture(scope="module")
def made(copied, tmp_path_factory) -> tuple[Path, str]:
    """The cohort, and what the command printed."""
    to = tmp_path_factory.mktemp("made") / "cohort"
    return to, done(CONVERT, of=copied, to=to)


def pairs_in(printed_text: str) -> set[frozenset]:
    match = re.search(r"one scan under several IDs: (.+)", printed_text)
    return {frozenset(re.findall(r"(\S+) \(\w+\)", group)) for group in match[1].split(", ")}


def are_together(groups, place: pd.Series) -> bool:
    return all(place[list(group)].nunique() == 1 for group in groups)


def train_on_folds(cohort_folder: Path, to: Path, fold_option: str) -> tuple[pd.Series, str]:
    printed_text = done(
        f"{TRAIN} --folds {fold_option} --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}/out",
        of=cohort_folder,
        to=to,
    )
    return lab.read_table(to / f"ckpt/nn/folds-{fold_option}/folds.csv").set_index("subject")["fold"], printed_text


@pytest.mark.slow
def test_sharing_a_map_or_the_connectome_means_the_same_split_and_fold(made, tmp_path):
    folder, printed_text = made
    assert pairs_in(printed_text) == SAME_SCAN_GROUPS
    assert "PROBLEM       one scan" not in printed_text
    assert are_together(SAME_SCAN_GROUPS, lab.read_table(folder / "subjects.csv").set_index("subject")["split"])
    fold, _ = train_on_folds(folder, tmp_path / "3", "3")
    assert are_together(SAME_SCAN_GROUPS, fold)
    fold, printed_text = train_on_folds(folder, tmp_path / "site", "site")
    assert are_together(SAME_SCAN_GROUPS, fold) and fold["60003"] != "ELSEWHERE"
    assert {path.name for path in (tmp_path / "site/ckpt/nn/folds-site").iterdir()} >= {"NYU", "PITT", "US%2FM"}
    site = lab.read_table(folder / "subjects.csv").set_index("subject")["site"]
    assert fold["60003"] == site["50008"] and "tested there: 50006 (NYU) to PITT" in printed_text


def flip_last_label(table: pd.DataFrame) -> pd.DataFrame:
    """The last person."""
    table.iloc[-1, list(table).index("DX_GROUP")] = "2" if table["DX_GROUP"].iloc[-1] == "1" else "1"
    return table


@pytest.mark.slow
def test_keep_duplicates_separates_copies(copied, tmp_path):
    lab_copy = lab.copy(copied, tmp_path / "lab")
    lab.edit(lab_copy / "Phenotypic.csv", flip_last_label)
    printed_text = done(f"{CONVERT} --keepDuplicates", of=lab_copy, to=tmp_path / "apart")
    assert "which folds may part" in printed_text and re.search("PROBLEM       .*60003.* both labels", printed_text)
    _, printed_text = train_on_folds(tmp_path / "apart", tmp_path, "2")
    assert "share a scan" not in printed_text


@pytest.mark.slow
def test_new_people_with_a_map_from_the_training_are_refused_by_name(copied, tmp_path):
    """Also if it is in other units."""
    done(f"{CONVERT} --exclude {','.join(DONORS_BY_COPY)}", of=copied, to=tmp_path / "first")
    first = lab.read_table(tmp_path / "first/subjects.csv").set_index("subject")["split"]
    people = lab.copy(copied, tmp_path / "lab")
    lab.edit(people / "cpac/X_0060002_falff.nii.gz", lambda values, affine: (values * 1000, affine))
    convert_command = "abide-data convert {of} {to} --like {first} --exclude "
    outcome = run(
        convert_command + ",".join(sorted({*first.index})), of=people, to=tmp_path / "new", first=tmp_path / "first"
    )
    copied_ids = [
        name for name, donors in DONORS_BY_COPY.items() if "train" in first[list(filter(None, donors))].tolist()
    ]
    assert outcome.status == 2 and copied_ids and not (tmp_path / "new").exists()
    assert all(f"{name} has that of" in outcome.err for name in copied_ids) and "--exclude" in outcome.err
    printed_text = done(f"{CONVERT} --keepSplit {{first}}", of=copied, to=tmp_path / "kept", first=tmp_path / "first")
    assert "27 participants as in" in printed_text  # one of whom has nothing but the series in common


@pytest.mark.slow
def test_simulated_people_and_swapped_copies_are_no_twins(cohort, tmp_path):
    done("abide-data swap {of} {to} --copies 1 --regions 3", of=cohort, to=tmp_path / "swapped")
    for cohort_folder in (lab.copy(cohort, tmp_path / "of"), tmp_path / "swapped"):
        assert "share a scan" not in done("abide-data check {of}", of=cohort_folder)


def copy_with_noise(path: Path, to: Path, noise: float) -> None:
    """The record with noise in its volume, under another name."""
    volume = lab.read_record(path)[2]
    volume = volume + noise * np.random.default_rng(0).normal(size=volume.shape)
    to.write_bytes(path.read_bytes()[:120] + volume.astype("<f4").tobytes())


@pytest.fixture(params=[0, 1e-6])
def bare(request, cohort, tmp_path) -> Path:
    """The first 20 people of the cohort, and each again, perhaps with noise, as 100 more, as a folder of records."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in sorted(cohort.glob("*.bin"))[:20]:
        shutil.copy(path, folder)
        copy_with_noise(path, folder / f"{int(path.stem) + 100}.bin", request.param)
    return folder


@pytest.mark.slow
def test_copies_in_a_bare_folder_take_the_same_split_and_fold(bare, tmp_path):
    pairs = [(f"{number}", f"{number + 100}") for number in range(1, 21)]
    fold, printed_text = train_on_folds(bare, tmp_path, "4")
    assert are_together(pairs, fold) and "are in one fold: 1 and 101, 2 and 102" in printed_text
    printed_text = done(f"{TRAIN} --dataDir {{of}} --chkPointDir {{to}}/c --outDir {{to}}/o", of=bare, to=tmp_path)
    assert "share a scan, and were in train and test; they are in train now." in printed_text


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise, expected_text", [(0, "By their scans, whatever their names"), (0.01, "with noise or exported")]
)
def test_a_training_subject_is_not_tested_under_another_name(noise, expected_text, cohort, seen_two, tmp_path):
    """By a network of the phenotype, too, from a cohort of its own, so that no split parts them."""
    table = lab.read_table(cohort / "subjects.csv")
    (tmp_path / "new").mkdir()
    for number, name in enumerate(table["file"][table["split"] == "train"], 5000):
        copy_with_noise(cohort / name, tmp_path / f"new/{number}.bin", noise)
    command = "run.py --test --model nn --chkPointDir {of}/ckpt --dataDir {to}/new --outDir {to}/out"
    outcome = run(command, of=seen_two, to=tmp_path)
    assert outcome.status == 2 and expected_text in outcome.err and re.search(r"50\d\d", outcome.err)
    assert not (tmp_path / "out").exists()


def test_constant_maps_tie_nobody(tmp_path):
    """The second map of everybody is empty."""
    for path in lab.records(tmp_path / "of").iterdir():
        lab.edit(path, path.read_bytes() + bytes(4 * np.prod(lab.REDUCED_GRID)))
    assert "share a scan" not in run("abide-data check {of}", of=tmp_path / "of").out
