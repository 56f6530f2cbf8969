"""A person is known by every part of the scan: an equal map, or an equal connectome, makes two subjects one group."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import COARSE, brain_map, cohort_of, pcp_table, resealed, row, write_rows

from data.cohorts.folds import open_folds
from data.cohorts.records import Digests
from data.cohorts.rows import sharing, united
from data.cohorts.seal import Seal
from data.cohorts.stored import open_cohort, sealed, with_groups
from utils.blackout.effects import Effects
from utils.scores.metrics import Predictions

PEOPLE, VOLUMES, PARCELS = 12, 20, 5
NEW = {"60001": ("50002", "50004", None), "60002": ("50003", "50005", None), "60003": (None, None, "50006")}
PAIRS = {frozenset(pair) for pair in (("60001", "50002", "50004"), ("60002", "50003", "50005"), ("60003", "50006"))}
CONVERT = ("--grid", "reduced", "--maps", "falff,alff", "--connectome", "rois_cc5")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A PCP folder of 12 people with two maps and series. Two new IDs have the fALFF of one person and the ALFF of
    another; a third has maps of its own, and the series of somebody."""
    folder = tmp_path_factory.mktemp("scans") / "pcp"
    rows = [of for of in pcp_table() if of["FILE_ID"] != "no_filename"][:PEOPLE]
    for number, of in enumerate(rows):
        write_person(folder, of["FILE_ID"], number)
    of_subject = {of["SUB_ID"]: of for of in rows}
    for number, (new, parts) in enumerate(NEW.items()):
        name = f"NYU_00{new}"
        write_person(folder, name, 50 + number)
        for part, subject in zip(("falff.nii.gz", "alff.nii.gz", "rois_cc5.1D"), parts, strict=True):
            if subject:
                shutil.copyfile(folder / f"{of_subject[subject]['FILE_ID']}_{part}", folder / f"{name}_{part}")
        rows.append(of_subject[max(filter(None, parts))] | {"SUB_ID": new, "FILE_ID": name, "SITE_ID": "NYU"})
    write_rows(folder / "Phenotypic_V1_0b_preprocessed1.csv", rows)
    return folder


def write_person(folder: Path, name: str, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    for at, (kind, scale) in enumerate((("falff", 1), ("alff", 50))):
        values = scale * brain_map((8, 10, 8), 100 * at + seed)
        nibabel.save(nibabel.Nifti1Image(values, COARSE), folder / f"{name}_{kind}.nii.gz")
    series = np.random.default_rng(seed).normal(size=(VOLUMES, PARCELS)).round(6)
    header = "\t".join(f"#{number + 1}" for number in range(PARCELS))
    lines = ["\t".join(map(str, values)) for values in series]
    (folder / f"{name}_rois_cc5.1D").write_text("\n".join([header, *lines, ""]))


@pytest.fixture(scope="module")
def made(scans, data_cli, tmp_path_factory):
    """The folder converted, and what the command printed."""
    target = tmp_path_factory.mktemp("made") / "cohort"
    outcome = data_cli("convert", scans, target, *CONVERT)
    assert outcome.status < 2, outcome.err
    return target, outcome.out


def together(groups, fold_of: dict[str, str]) -> bool:
    return all(len({fold_of[one] for one in group}) == 1 for group in groups)


def test_who_shares_one_map_or_the_connectome_is_one_group(made, tmp_path):
    opened = open_cohort(made[0])
    assert set(map(frozenset, opened.metadata.same_scan)) == PAIRS
    assert "Subjects who share a scan, in one split, and in one fold:" in made[1]
    assert "PROBLEM: identical" not in made[1]
    assert together(PAIRS, {of.subject: of.split for of in opened.rows})
    assert together(PAIRS, open_folds(made[0], "3", 0, tmp_path / "saved").fold_of)


def test_equal_maps_are_known_by_digests_alone(made, data_cli, tmp_path):
    """Of groups that the metadata lack."""
    folder = shutil.copytree(made[0], tmp_path / "copy")
    metadata = json.loads((folder / "cohort.json").read_text())
    metadata["same_scan"] = []
    (folder / "cohort.json").write_text(json.dumps(metadata))
    opened = with_groups(sealed(resealed(folder), together=False))
    assert set(map(frozenset, opened.groups)) == PAIRS
    assert data_cli("check", folder).out.count("which folds may part") == 0


def test_new_people_with_a_map_of_the_training_are_refused(scans, data_cli, tmp_path):
    new = ",".join(NEW)
    first = data_cli("convert", scans, tmp_path / "first", *CONVERT, "--exclude", new)
    assert first.status < 2, first.err
    training = set(open_cohort(tmp_path / "first").subjects("train"))
    people = ",".join(sorted({"50002", *(of["SUB_ID"] for of in pcp_table())} - {"x"}))
    outcome = data_cli("convert", scans, tmp_path / "new", "--like", tmp_path / "first", "--exclude", people)
    known = [name for name, parts in NEW.items() if training & set(filter(None, parts))]
    assert outcome.status == 2 and f"At least {len(known)} of" in outcome.err
    assert all(f"{name} has that of" in outcome.err for name in known)


def test_constant_maps_tie_nobody():
    own = Digests("h", "v" * 64, maps=("a" * 64,))
    assert own.scans == {"v" * 16, "a" * 16}
    volume = np.zeros((2, 31, 37, 31), "<f4")
    volume[1, 0, 0, 0] = 1
    from data.cohorts.records import digests_of

    found = digests_of(bytes(120) + volume.tobytes())
    assert len(found.maps) == 1


def test_groups_with_a_member_in_common_are_one():
    assert united([("a", "b"), ("c", "d"), ("b", "c"), ("e", "f")]) == (("a", "b", "c", "d"), ("e", "f"))
    assert sharing([("a", "xy"), ("b", "y"), ("c", "z"), ("d", "zx")]) == (("a", "d", "b", "c"),)


def test_who_shares_a_scan_is_drawn_as_one_person(all_resamples):
    """Everybody twice, as pairs: the interval is that of everybody once, which is wider than that of as many people."""
    random = np.random.default_rng(0)
    label = np.repeat([0.0, 1.0], 30)
    probability = 1 / (1 + np.exp(-(label - 0.5 + random.normal(size=60))))
    name = np.array([f"{at:02}" for at in range(60)])
    once = Predictions(label, probability, name)
    twice = Predictions(
        *(np.tile(of, 2) for of in (label, probability)), np.concatenate([name, "x" + name.astype("<U3")])
    )
    as_one = replace(twice, person=np.tile(name, 2))

    def mean(of):
        return lambda weight: (weight * of.probability).sum(1) / weight.sum(1)

    widths = [np.ptp(of.bootstrap(mean(of), 0, 2000)) for of in (once, twice, as_one)]
    assert widths[2] == pytest.approx(widths[0]) and widths[1] < 0.8 * widths[0]


def test_who_shares_a_scan_is_one_unit_of_a_blackout():
    """Whatever the labels; records of a subject are averaged first."""
    rows = [row("5"), row("2"), row("3", 0.0), row("4", 0.0), row("1"), row("5")]
    effects = Effects({"probability": np.arange(6.0)}, rows, (("1", "2"), ("3", "5")))
    assert effects.first.tolist() == ["3", "1", "3", "4", "1", "3"]
    np.testing.assert_array_equal(effects.unit, [0, 0, 1, 2, 1])
    np.testing.assert_array_equal(effects.of_subjects(effects["probability"]), [4, 1, 2, 3, 2.5])


def test_only_groups_tie_the_people_of_a_cohort():
    people = [row(str(number)) for number in range(4)]
    cohort = replace(
        cohort_of(*people, copies="together"), seal=Seal(tuple(Digests("h", str(at // 2) * 64) for at in range(4)))
    )
    assert cohort.equal_scans() == (("0", "1"), ("2", "3"))
    assert cohort.keeps_together(["0", "1"]) and not cohort.keeps_together(["1", "2"])
    apart = replace(cohort, metadata=replace(cohort.metadata, copies="apart"))
    assert not apart.keeps_together(["0", "1"]) and with_groups(apart).groups == ()
