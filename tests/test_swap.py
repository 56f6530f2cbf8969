"""abide-data swap: every new record against a brute-force search for where each of its regions came from."""

import json
from pathlib import Path

import lab
import numpy as np
import pytest
from commands import done
from test_atlas import aal, reduced_aal

pytestmark = pytest.mark.slow

COPIES = 2  # of `swapped`
BLANK_FILE_COLUMNS = {"file": "", "volume_sha256": ""}


def read_subject_rows(folder: Path) -> list[dict]:
    return lab.read_table(folder / "subjects.csv").to_dict("records")


def new_rows(folder: Path, originals: list[dict]) -> list[dict]:
    names = {row["file"] for row in originals}
    return [row for row in read_subject_rows(folder) if row["file"] not in names]


def check_swap(source: Path, target: Path, region_labels: np.ndarray, num_regions: int) -> tuple[int, set[str]]:
    """Holds every new record to the contract; gives how many there are and who gave regions."""
    originals, shape = read_subject_rows(source), region_labels.shape
    bases = {Path(row["file"]).stem: row for row in originals}
    volumes = {row["file"]: lab.read_record(source / row["file"], shape=shape)[2][0] for row in originals}
    added, givers = new_rows(target, originals), set()
    for row in added:
        base = bases[row["file"].split("_swap_")[0]]
        assert base["split"] == "train" and {**row, **BLANK_FILE_COLUMNS} == {**base, **BLANK_FILE_COLUMNS}
        assert (target / row["file"]).read_bytes()[:120] == (source / base["file"]).read_bytes()[:120]
        volume = lab.read_record(target / row["file"], shape=shape)[2][0]
        changed = set(np.unique(region_labels[volume != volumes[base["file"]]]).tolist())
        assert len(changed) == num_regions and 0 not in changed
        donor_rows = [
            donor_row
            for donor_row in originals
            if donor_row["label"] == row["label"] and donor_row["subject"] != row["subject"]
        ]
        for region in changed:
            inside = region_labels == region
            [giver] = [
                donor_row["file"]
                for donor_row in donor_rows
                if (volumes[donor_row["file"]][inside] == volume[inside]).all()
            ]
            givers.add(giver)
    return len(added), givers


def test_new_records_equal_their_base_but_for_13_foreign_regions(cohort, swapped):
    count, givers = check_swap(cohort, swapped, reduced_aal(), 13)
    training = {row["file"] for row in read_subject_rows(cohort) if row["split"] == "train"}
    assert count == 36 * COPIES and givers <= training
    assert f"{40 + 36 * COPIES} records in" in (swapped.parent / "swap.out").read_text()
    assert len(givers) > 30  # a donor is drawn for each region, among all


def test_full_size(full_cohort, tmp_path):
    done("abide-data swap {of} {to} --copies 1 --regions 5 --seed 3", of=full_cohort, to=tmp_path / "out")
    training = [row for row in read_subject_rows(full_cohort) if row["split"] == "train"]
    assert check_swap(full_cohort, tmp_path / "out", aal(), 5)[0] == len(training)


def test_the_originals_stay_and_the_result_records_the_options(cohort, swapped):
    rows = read_subject_rows(cohort)
    assert [row for row in read_subject_rows(swapped) if "swap" not in row["file"]] == rows
    assert all((swapped / row["file"]).read_bytes() == (cohort / row["file"]).read_bytes() for row in rows)
    for name in ("covariates.csv", "phenotype.csv"):
        assert (swapped / name).read_bytes() == (cohort / name).read_bytes()
    before, after = (json.loads((folder / "cohort.json").read_text()) for folder in (cohort, swapped))
    assert after["simulated"] and after["phenotype"] == before["phenotype"]
    made = after["provenance"]["swap"]
    assert {name: made[name] for name in ("regions", "copies", "seed")} == {"regions": 13, "copies": COPIES, "seed": 0}


def test_the_seed_decides(cohort, swapped, tmp_path):
    names = [row["file"] for row in new_rows(swapped, read_subject_rows(cohort))]
    for seed in (0, 1):
        done(f"abide-data swap {{of}} {{to}}/{seed} --copies {COPIES} --seed {seed}", of=cohort, to=tmp_path)
    first = {name: (swapped / name).read_bytes() for name in names}
    assert first == {name: (tmp_path / "0" / name).read_bytes() for name in names}
    assert all(first[name] != (tmp_path / "1" / name).read_bytes() for name in names)
    assert len(set(first.values())) == len(names)


def test_two_scans_from_a_subject_never_exchange_regions(tmp_path):
    """Of each label three people, of whom one has eight scans: these take from the two others only."""
    (tmp_path / "of").mkdir()
    for number in range(20):
        label, scan = number % 2, number // 2
        name = f"{label + 1}_scan{scan}.bin" if scan < 8 else f"{10 * scan + label}.bin"
        (tmp_path / "of" / name).write_bytes(lab.record(number, float(label)))
    done("abide-data pack {of}/of {of}/packed --bin", of=tmp_path)
    lab.edit(tmp_path / "packed/subjects.csv", lambda table: table.assign(split="train"))
    (tmp_path / "packed/SHA256SUMS").unlink()
    done("abide-data pack {of}/packed {of}/source --bin", of=tmp_path)
    done("abide-data swap {of}/source {of}/out --copies 1", of=tmp_path)
    count, givers = check_swap(tmp_path / "source", tmp_path / "out", reduced_aal(), 13)
    assert count == 20 and len(givers) > 4
