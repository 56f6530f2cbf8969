"""abide-data swap: every new record against a brute-force search for where each of its regions came from."""

import re
import shutil

import numpy as np
import pytest
from helpers import bare_records, read_rows, resealed

from data.cohorts import atlas, records
from data.cohorts.stored import open_cohort

COPIES = 2


def values_of(path) -> np.ndarray:
    return np.fromfile(path, "<f4")


@pytest.fixture(scope="module")
def swapped(cohort, data_cli, tmp_path_factory):
    """The reduced cohort with 13 regions swapped in two new records a training record."""
    target = tmp_path_factory.mktemp("swapped") / "out"
    outcome = data_cli("swap", cohort, target, "--copies", COPIES)
    assert outcome.status == 0, outcome.err
    assert f"{40 + 36 * COPIES} records in" in outcome.out
    return target


def new_rows(folder, originals) -> list[dict]:
    names = {row["file"] for row in originals}
    return [row for row in read_rows(folder / "subjects.csv") if row["file"] not in names]


def changed_regions(volume, base, labels) -> set[int]:
    """The regions in which two volumes differ. Fails if they differ outside every region."""
    found = set(np.unique(labels[volume != base]).tolist())
    assert 0 not in found
    return found


def donors(volume, region_of, region, candidates) -> list[str]:
    """The records that hold this region of a volume, voxel by voxel."""
    inside = region_of == region
    return [name for name, other in candidates.items() if (other[inside] == volume[inside]).all()]


def check_swap(source, target, grid, num_regions) -> tuple[int, set[str]]:
    """Holds every new record to the contract; gives how many there are and who gave regions."""
    originals = {row["subject"]: row for row in read_rows(source / "subjects.csv")}
    volumes = {row["file"]: values_of(source / row["file"])[30:].reshape(grid.shape) for row in originals.values()}
    region_of = atlas.load_atlas(None, grid).labels
    added, givers = new_rows(target, originals.values()), set()
    for row in added:
        base = originals[row["subject"]]
        assert base["split"] == "train"
        assert {**row, "file": ""} == {**base, "file": ""}
        content = values_of(target / row["file"])
        assert (content[:30] == values_of(source / base["file"])[:30]).all()
        volume = content[30:].reshape(grid.shape)
        changed = changed_regions(volume, volumes[base["file"]], region_of)
        assert len(changed) == num_regions
        candidates = {
            other["file"]: volumes[other["file"]]
            for other in originals.values()
            if other["label"] == row["label"] and other["subject"] != row["subject"]
        }
        for region in changed:
            [giver] = donors(volume, region_of, region, candidates)
            givers.add(giver)
    return len(added), givers


@pytest.mark.slow
def test_each_new_record_is_its_base_with_13_regions_of_others(cohort, swapped):
    count, givers = check_swap(cohort, swapped, records.REDUCED, 13)
    training = {row["file"] for row in read_rows(cohort / "subjects.csv") if row["split"] == "train"}
    assert count == 36 * COPIES
    assert givers <= training
    assert len(givers) > 30  # a donor is drawn for each region, among all


def test_the_originals_are_kept_bit_by_bit(cohort, swapped):
    rows = read_rows(cohort / "subjects.csv")
    assert [row for row in read_rows(swapped / "subjects.csv") if "swap" not in row["file"]] == rows
    for row in rows:
        assert (swapped / row["file"]).read_bytes() == (cohort / row["file"]).read_bytes()


def test_the_result_is_a_cohort_that_says_how_it_was_made(cohort, swapped):
    source, result = open_cohort(cohort), open_cohort(swapped)
    assert result.subjects("test") == source.subjects("test")
    assert len(result.indices("test")) == len(source.indices("test"))
    assert result.simulated
    assert result.metadata.phenotype == source.metadata.phenotype
    provenance = result.metadata.provenance
    assert provenance["swap"] == {"regions": 13, "copies": COPIES, "seed": 0, "source_sha256": source.digest}


@pytest.mark.slow
def test_at_full_size(full_cohort, data_cli, tmp_path):
    outcome = data_cli("swap", full_cohort, tmp_path / "out", "--copies", 1, "--regions", 5, "--seed", 3)
    assert outcome.status == 0, outcome.err
    training = [row for row in read_rows(full_cohort / "subjects.csv") if row["split"] == "train"]
    assert check_swap(full_cohort, tmp_path / "out", records.FULL, 5)[0] == len(training)


@pytest.mark.slow
def test_the_seed_decides(cohort, swapped, data_cli, tmp_path):
    names = [row["file"] for row in new_rows(swapped, read_rows(cohort / "subjects.csv"))]
    for seed in (0, 1):
        assert data_cli("swap", cohort, tmp_path / str(seed), "--copies", COPIES, "--seed", seed).status == 0
    first = {name: (swapped / name).read_bytes() for name in names}
    assert first == {name: (tmp_path / "0" / name).read_bytes() for name in names}
    assert all(first[name] != (tmp_path / "1" / name).read_bytes() for name in names)
    assert len(set(first.values())) == len(names)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--regions", 117], "--regions 117 is more than the atlas has; expected at most 116"),
        (["--regions", 0], "'0' is not allowed; expected a whole number from 1 to"),
        (["--copies", 10**8], "'100000000' is not allowed; expected a whole number from 1 to 10000"),
        (["--copies", "many"], "'many' is not allowed; expected a whole number from 1 to"),
    ],
)
def test_impossible_numbers(arguments, words, cohort, data_cli, tmp_path):
    outcome = data_cli("swap", cohort, tmp_path / "out", *arguments)
    assert outcome.status == 2
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_label_of_one_training_subject_has_no_donor(data_cli, tmp_path):
    """Labels alternate, so two training subjects are one a label."""
    (tmp_path / "bare").mkdir()
    for name, content in bare_records([1, 2]).items():
        (tmp_path / "bare" / name).write_bytes(content)
    assert {record.split for record in open_cohort(tmp_path / "bare").rows} == {"train"}
    outcome = data_cli("swap", tmp_path / "bare", tmp_path / "out")
    assert outcome.status == 2
    assert "has no other training subject with the label of 1; add some" in outcome.err
    assert list(tmp_path.glob("*out*")) == []


@pytest.mark.slow
def test_two_scans_of_a_subject_never_give_to_each_other(cohort, data_cli, tmp_path):
    """All training subjects but two of each label become one subject a label: its scans take from the others only."""
    source = shutil.copytree(cohort, tmp_path / "scans")
    rows = read_rows(source / "subjects.csv")
    lines = [",".join(rows[0])]
    others = {"0": [], "1": []}
    for row in rows:
        if row["split"] == "train" and len(others[row["label"]]) < 2:
            others[row["label"]].append(row["file"])
        elif row["split"] == "train":
            row["subject"] = f"many{row['label']}"
        lines.append(",".join(row.values()))
    (source / "subjects.csv").write_text("\n".join(lines) + "\n")
    resealed(source)
    assert data_cli("swap", source, tmp_path / "out", "--copies", 1).status == 0
    volumes = {row["file"]: values_of(source / row["file"])[30:].reshape(records.REDUCED.shape) for row in rows}
    region_of = atlas.load_atlas(None, records.REDUCED).labels
    added = [row for row in new_rows(tmp_path / "out", rows) if row["subject"].startswith("many")]
    assert len(added) == 32
    for row in added:
        volume = values_of(tmp_path / "out" / row["file"])[30:].reshape(records.REDUCED.shape)
        base = volumes[row["file"].replace("_swap_0", "")]
        for region in changed_regions(volume, base, region_of):
            assert donors(volume, region_of, region, volumes)[0] in others[row["label"]]


def test_swapping_what_was_swapped_overwrites_nothing(swapped, data_cli, tmp_path):
    outcome = data_cli("swap", swapped, tmp_path / "again", "--copies", 1)
    assert outcome.status == 2
    assert re.search(r"already holds .*_swap_0\.bin.*swap the cohort that it was made from", outcome.err)
    assert not (tmp_path / "again").exists()
