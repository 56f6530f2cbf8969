"""abide-data convert: every value of a record against an independent reading of maps and table."""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done, listing
from lab import load_image, read_record, read_table
from oracles import EXPECTED_VALUES, PCP_COLUMNS, PCP_ROWS
from scipy import ndimage

COUNT, NO_FILENAME, NO_MAP = 12, "50098", "50099"
FULL = (91, 109, 91)
TO_MM = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
REDUCED = "abide-data convert {source} {to} --grid reduced"
THAT_DIFFER = ("cohort.json", "SHA256SUMS", "check.json")  # by the command and by the time


def oblique() -> np.ndarray:
    """An affine of 8 mm whose axes are turned by 20 degrees about z, and lie as PSR."""
    turn = np.deg2rad(20)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 8 * turned @ np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]])
    affine[:3, 3] = [0, -18, 8] - affine[:3, :3] @ (np.array([24, 20, 20]) - 1) / 2
    return affine


LAS_3MM, RAS_5MM = np.diag([-3.0, 3, 3, 1]), np.diag([5.0, 5, 5, 1])
LAS_3MM[:3, 3], RAS_5MM[:3, 3] = (90, -126, -72), (-80, -110, -60)
STORED = {"50003": (LAS_3MM, (61, 73, 61)), "50004": (RAS_5MM, (33, 37, 31)), "50006": (oblique(), (24, 20, 20))}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """12 people whose phenotype is written in all of ABIDE's ways, four ways of storing a map; of two others one has no
    file name, and one no map."""
    table = labs.people(COUNT).drop(columns=["func_mean_fd", "hand", "iq"])
    table[PCP_COLUMNS] = [PCP_ROWS[number % len(PCP_ROWS)] for number in range(COUNT)]
    folder = labs.pcp(tmp_path_factory.mktemp("source") / "lab", table)
    for person_row in table[table["SUB_ID"].isin([*STORED])].to_dict("records"):
        affine, shape = STORED[person_row["SUB_ID"]]
        labs.save(folder / f"cpac/{person_row['FILE_ID']}_falff.nii.gz", labs.make_map(person_row, 0, shape), affine)
    more = [{"SUB_ID": NO_FILENAME, "FILE_ID": "no_filename"}, {"SUB_ID": NO_MAP, "FILE_ID": f"NYU_00{NO_MAP}"}]
    extra_rows = [table.iloc[0].to_dict() | person_row for person_row in more]
    labs.edit(folder / "Phenotypic.csv", lambda rows: pd.concat([rows, pd.DataFrame(extra_rows)]))
    return folder


@pytest.fixture(scope="module")
def full(source, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("full") / "cohort"
    done("abide-data convert {source} {to}", source=source, to=to)
    return to


@pytest.fixture(scope="module")
def reduced(source, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("reduced") / "cohort"
    done(REDUCED, source=source, to=to)
    return to


def map_path(source: Path, subject: str) -> Path:
    return source / f"cpac/X_00{subject}_falff.nii.gz"


def content(cohort: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cohort.iterdir() if path.name not in THAT_DIFFER}


def cohort_json(cohort: Path) -> dict:
    return json.loads((cohort / "cohort.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["50002", *STORED])
def test_volumes_against_scipy(subject, source, full):
    """Trilinear sampling at the millimetres of the full grid by the stored affine, then z-scores, by SciPy alone."""
    image = load_image(map_path(source, subject))
    millimetres = TO_MM[:3, :3] @ np.indices(FULL).reshape(3, -1) + TO_MM[:3, 3:]
    places = np.linalg.solve(image.affine[:3, :3], millimetres - image.affine[:3, 3:])
    sampled = ndimage.map_coordinates(np.asarray(image.dataobj, float), places, order=1).reshape(FULL)
    volume = read_record(full / f"{subject}.bin", 1, FULL)[2][0]
    np.testing.assert_allclose(volume, (sampled - sampled.mean()) / sampled.std(), atol=2e-4)
    assert volume[0, 0, 0] == volume.min() != volume[45, 54, 45]  # the background


@pytest.mark.slow
def test_labels_sites_and_exclusions_against_the_table(source, full):
    rows = read_table(full / "subjects.csv").set_index("subject")
    table = read_table(source / "Phenotypic.csv").set_index("SUB_ID").drop([NO_FILENAME, NO_MAP])
    assert rows.index.tolist() == table.index.tolist()
    assert rows["site"].equals(table["SITE_ID"].rename("site"))
    assert rows["label"].tolist() == table["DX_GROUP"].map({"1": "1", "2": "0"}).tolist()
    for subject, label in rows["label"].items():
        assert read_record(full / f"{subject}.bin", 1, FULL)[0] == float(label)
    assert rows["split"].tolist().count("test") == 2  # one in ten, at least one of each label
    left_out = {reason: names for reason, names in cohort_json(full)["provenance"]["left_out"].items() if names}
    assert left_out == {"no map": [NO_FILENAME, NO_MAP]}


@pytest.mark.slow
def test_phenotypes_are_scaled_by_training_subjects_only(full):
    """Medians, means and spreads by the statistics module over the rows read by hand."""
    rows = read_table(full / "subjects.csv").to_dict("records")
    raw = [EXPECTED_VALUES[(int(row["subject"]) - 50002) % len(PCP_ROWS)] for row in rows]
    training = [values for values, row in zip(raw, rows, strict=True) if row["split"] == "train"]
    assert 0 < len(training) < len(raw)
    stored_phenotypes = np.array([read_record(full / row["file"], 1, FULL)[1] for row in rows])
    assert len(cohort_json(full)["phenotype"]) == 29
    for place in range(29):
        measured_values = [row[place] for row in training if row[place] == row[place]]
        median = statistics.median(measured_values) if measured_values else 0.0
        filled = [row[place] if row[place] == row[place] else median for row in training]
        mean, spread = statistics.fmean(filled), statistics.pstdev(filled) or 1.0
        values = [row[place] if row[place] == row[place] else median for row in raw]
        assert stored_phenotypes[:, place] == pytest.approx([(value - mean) / spread for value in values], abs=1e-5)


@pytest.mark.slow
def test_the_reduced_grid_holds_block_means(full, reduced):
    full_table, reduced_table = (
        labs.read_table(folder / "subjects.csv").drop(columns="volume_sha256") for folder in (full, reduced)
    )
    assert full_table.equals(reduced_table)
    for name in ("50002.bin", "50006.bin"):
        label, phenotype, (volume,) = read_record(full / name, 1, FULL)
        small = read_record(reduced / name)
        assert small[0] == label and (small[1] == phenotype).all()
        for i, j, k in [(0, 0, 0), (15, 18, 15), (30, 36, 30), (7, 20, 11)]:
            block = volume[max(3 * i - 1, 0) : 3 * i + 2, max(3 * j - 1, 0) : 3 * j + 2, max(3 * k - 1, 0) : 3 * k + 2]
            assert small[2][0, i, j, k] == pytest.approx(block.astype(float).mean(), rel=1e-5)


@pytest.mark.slow
def test_metadata_describe_the_records_and_inputs(source, full, reduced):
    for cohort, shape, spacing in ((full, FULL, 2), (reduced, labs.REDUCED_GRID, 6)):
        metadata = cohort_json(cohort)
        affine = [[spacing, 0, 0, -90], [0, spacing, 0, -126], [0, 0, spacing, -72], [0, 0, 0, 1]]
        assert (tuple(metadata["grid"]), metadata["affine"], metadata["maps"]) == (shape, affine, ["falff"])
    columns = "file,subject,site,label,split,volume_sha256"  # and none of connectomes, nor of several maps
    assert (reduced / "subjects.csv").read_text().splitlines()[0] == columns
    digest = hashlib.sha256()
    for path in (source / "Phenotypic.csv", *(map_path(source, str(50002 + number)) for number in range(COUNT))):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert cohort_json(reduced)["provenance"]["input_sha256"] == digest.hexdigest()
    columns = "subject,background,mean,sd,min,max,coverage,x_mm,y_mm,z_mm,voxel_mm3"
    columns += ",common_value,common_share,sides_differ"
    assert (reduced / "maps.csv").read_text().splitlines()[0] == columns


@pytest.mark.slow
def test_another_seed_gives_another_split_for_the_same_volumes(source, reduced, tmp_path):
    splits = {tuple(read_table(reduced / "subjects.csv")["split"])}
    for seed in (1, 2):
        done(f"{REDUCED} --seed {seed}", source=source, to=tmp_path / f"{seed}")
        splits.add(tuple(read_table(tmp_path / f"{seed}/subjects.csv")["split"]))
    assert len(splits) > 1
    assert (tmp_path / "1/50004.bin").read_bytes()[120:] == (reduced / "50004.bin").read_bytes()[120:]


def test_a_dry_run_lists_people_and_writes_nothing(source, reduced, tmp_path):
    before = listing(source.parent), listing(tmp_path)
    convert_output = done("abide-data convert {source} {to} --dryRun", source=source, to=tmp_path / "new")
    assert (listing(source.parent), listing(tmp_path)) == before
    splits = read_table(reduced / "subjects.csv")["split"].value_counts()
    for split, count in splits.items():
        assert f"{split} {count} (" in convert_output


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 6])
def test_interrupted_for_real_it_leaves_nothing_and_is_repeated(times, source, reduced, tmp_path):
    """Ctrl-C, once or by an impatient person, reaches the command and its processes."""
    command = [sys.executable, "-m", "data", "convert", source, "out", "--grid", "reduced"]
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": os.environ | {"PYTHONPATH": str(ROOT)},
        "text": True,
        "start_new_session": True,
    }
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job inherits it ignored
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, preexec_fn=heard, **pipes, **options)
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".unfinished.out/*/*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    for _ in range(times):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (130, "abide-data: interrupted; repeat the command.\n")
    assert not [*tmp_path.iterdir()]
    done(REDUCED, source=source, to=tmp_path / "out")
    assert content(tmp_path / "out") == content(reduced)


def write_few_people(folder: Path, count: int) -> Path:
    return labs.pcp(folder, labs.people(count))


@pytest.mark.slow
def test_nan_in_a_map_counts_as_outside_the_brain(source, full, tmp_path):
    places = {"source": labs.copy(source, tmp_path / "lab"), "to": tmp_path / "out"}
    labs.edit(map_path(places["source"], "50006"), lambda values, affine: (np.where(values, values, np.nan), affine))
    done("abide-data convert {source} {to}", **places)
    assert (tmp_path / "out/50006.bin").read_bytes() == (full / "50006.bin").read_bytes()


# Who


def convert_people(folder: Path, people: pd.DataFrame, words: str) -> tuple[Path, str]:
    """The cohort of these people by further options, and what was printed."""
    places = {"source": labs.pcp(folder / "lab", people), "to": folder / "out"}
    return folder / "out", done(f"{REDUCED} {words}", **places)


def read_left_out(cohort: Path) -> dict[str, set[str]]:
    return {why: set(names) for why, names in cohort_json(cohort)["provenance"]["left_out"].items() if names}


@pytest.mark.slow
def test_people_are_left_out_by_name_and_by_a_condition(tmp_path):
    """Counted apart where the condition depends on a missing value; whom --exclude does not find is told."""
    people, condition = labs.people(40), "AGE_AT_SCAN < 30 and iq > 90"
    cohort, convert_output = convert_people(tmp_path, people, f"--exclude 50002,X_0050003,99999 --where '{condition}'")
    assert "neither a row nor a map: 99999" in convert_output
    excluded_ids = {"50002", "50003"}
    remaining_people = people[~people["SUB_ID"].isin(excluded_ids)]
    age, iq = pd.to_numeric(remaining_people["AGE_AT_SCAN"]), pd.to_numeric(remaining_people["iq"])
    false = {*remaining_people["SUB_ID"][(age >= 30) | (iq <= 90)]}
    unknown = {*remaining_people["SUB_ID"][iq.isna()]} - false
    assert false and unknown
    assert read_left_out(cohort) == {
        "named by --exclude": excluded_ids,
        f"--where {condition} is false": false,
        f"--where {condition} depends on a missing value": unknown,
    }
    assert {*read_table(cohort / "subjects.csv")["subject"]} == {*remaining_people["SUB_ID"]} - false - unknown


@pytest.mark.slow
def test_people_with_a_record_are_not_reported_as_left_out(tmp_path):
    """Two rows, of which one is of another diagnosis, and a second map under the bare ID."""
    people = labs.people(12)
    twice = people.iloc[:1].assign(DX_GROUP="3", FILE_ID=people["SUB_ID"][0])
    coding = "--labelColumn DX_GROUP --positive 1 --negative 2"
    cohort, convert_output = convert_people(tmp_path, pd.concat([people, twice]), coding)
    assert read_left_out(cohort) == {} and len(read_table(cohort / "subjects.csv")) == 12
    assert "another row or map of 50002" in convert_output


@pytest.mark.slow
def test_rows_without_a_map_and_maps_without_a_row_are_listed(tmp_path):
    folder = write_few_people(tmp_path / "lab", 12)
    labs.edit(map_path(folder, "50004"), "gone")
    label = ["-9999", *labs.people(12)["DX_GROUP"][1:]]
    labs.edit(folder / "Phenotypic.csv", lambda table: table.assign(DX_GROUP=label).drop(index=[5]))
    done(REDUCED, source=folder, to=tmp_path / "out")
    assert read_left_out(tmp_path / "out") == {
        "no map": {"50004"},
        "a map without a row in the table": {"X_0050007"},
        "DX_GROUP unknown": {"50002"},
    }
    assert len(read_table(tmp_path / "out/subjects.csv")) == 9


# The phenotype and covariates of the user's own


@pytest.mark.slow
def test_user_columns_are_encoded_in_order(tmp_path):
    """Numbers, numbers with gaps, and text of which test people have one word more; scaled by training people."""
    people = labs.people(24).assign(hand=[*"RLR"] * 8)
    words = "--phenotype iq,hand,AGE_AT_SCAN --covariates hand,iq"
    first, _ = convert_people(tmp_path / "first", people, words)
    tested = read_table(first / "subjects.csv")["split"] == "test"
    people["hand"] = np.where(tested, "both", people["hand"])  # which nobody learns from
    cohort, convert_output = convert_people(tmp_path / "again", people, words)
    assert (
        "hand is text and became 2 categories: L, R" in convert_output and "AGE_AT_SCAN is text" not in convert_output
    )
    iq, age = (pd.to_numeric(people[name]) for name in ("iq", "AGE_AT_SCAN"))
    columns = {"iq": iq, "iq_missing": iq.isna(), "hand_L": people["hand"] == "L", "hand_R": people["hand"] == "R"}
    raw = pd.DataFrame(columns | {"AGE_AT_SCAN": age}).astype(float)
    assert cohort_json(cohort)["phenotype"] == [*raw, *(f"unused_{number}" for number in range(6, 30))]
    stored = read_table(cohort / "phenotype.csv")[[*raw]].apply(pd.to_numeric)
    pd.testing.assert_frame_equal(stored.astype(float), raw, check_exact=False)
    filled = raw.fillna(raw[~tested].median())
    expected = (filled - filled[~tested].mean()) / filled[~tested].std(ddof=0)
    stored_phenotypes = np.array([read_record(cohort / f"{name}.bin")[1] for name in people["SUB_ID"]])
    np.testing.assert_allclose(stored_phenotypes[:, :5], expected, atol=1e-5)
    assert (stored_phenotypes[:, 5:] == 0).all()
    covariates = read_table(cohort / "covariates.csv")
    assert [*covariates] == ["subject", "SITE_ID", "hand", "iq"]  # the column of sites is always kept
    assert covariates["iq"].equals(people["iq"]) and covariates["hand"].equals(people["hand"])


@pytest.mark.slow
def test_no_phenotype_and_a_leaking_covariate(tmp_path):
    people = labs.people(12).assign(ADOS_TOTAL=[str(9 + number % 3) for number in range(12)])
    words = "--phenotype '' --siteColumn hand --covariates ADOS_TOTAL --allowLeak"
    cohort, _ = convert_people(tmp_path, people, words)
    metadata = cohort_json(cohort)
    assert metadata["phenotype"] == [f"unused_{number}" for number in range(1, 30)] and "phenotype_auc" not in metadata
    assert (read_record(cohort / "50002.bin")[1] == 0).all()
    assert [*read_table(cohort / "covariates.csv")] == ["subject", "hand", "ADOS_TOTAL"]
    assert metadata["accepted_leaks"] == ["ADOS_TOTAL"]
    assert read_table(cohort / "subjects.csv")["site"].equals(people["hand"].rename("site"))


@pytest.mark.slow
def test_missing_value_codes_are_requested(tmp_path):
    """See the refusal without --missing in test_refusals."""
    people = labs.people(12).assign(age=["999", "8", "999.0", "14", "11", "9", *map(str, range(10, 16))])
    cohort, _ = convert_people(tmp_path / "named", people, "--phenotype age --missing age=999")
    assert read_table(cohort / "phenotype.csv")["age"].tolist() == ["", "8.0", "", "14.0", "11.0", "9.0"] + [
        f"{age}.0" for age in range(10, 16)
    ]
    cohort, convert_output = convert_people(tmp_path / "right", people, "--phenotype age --missing ''")
    assert "999.0" in read_table(cohort / "phenotype.csv")["age"].tolist()
    assert "note          codes of a missing value" in convert_output
