"""abide-data convert: every value of the records against an independent reading of maps and table."""

import gzip
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import (
    BY_HAND,
    LAS_6MM,
    PCP_NO_FILENAME,
    PCP_NO_MAP,
    PCP_ROWS,
    PCP_SUBJECTS,
    ROOT,
    listing,
    read_rows,
    run_main,
    write_pcp,
)
from scipy import ndimage

from data.base import files
from data.base.errors import InputError
from data.cohorts.records import FULL, REDUCED
from data.cohorts.stored import open_cohort


@pytest.fixture(scope="module")
def converted(pcp, data_cli, tmp_path_factory):
    """The tiny PCP folder, converted at full size, and what the command printed."""
    target = tmp_path_factory.mktemp("converted") / "full"
    outcome = data_cli("convert", pcp, target)
    assert outcome.status < 2, outcome.err
    return target, outcome


def test_a_dry_run_says_who_and_how_long_and_writes_nothing(pcp, data_cli, converted, tmp_path):
    before, target = listing(pcp.parent), tmp_path / "new"
    dry = data_cli("convert", pcp, target, "--dryRun")
    assert not dry.status and listing(pcp.parent) == before and not list(tmp_path.iterdir())
    written, outcome = converted
    beginnings = ("Label", "Covariates", "Forecast", "Advice")
    said = [line for line in outcome.out.splitlines() if "left out" in line or line.startswith(beginnings)]
    assert len(said) > 5 and set(said) <= set(dry.out.splitlines())
    (split,) = re.findall(r"^  train: (\d+) subjects", dry.out, re.MULTILINE)
    assert int(split) == sum(row.split == "train" for row in open_cohort(written).rows)
    assert re.search(r"^Time: about \d+ s on \d+ cores to read the maps; .* took [\d.]+ s[.]$", dry.out, re.MULTILINE)


def test_a_dry_run_of_a_folder_that_is_not_free_says_so(pcp, data_cli, tmp_path):
    (tmp_path / "mine.txt").touch()
    assert "is not empty and holds no cohort" in data_cli("convert", pcp, tmp_path, "--dryRun").err


@pytest.fixture(scope="module")
def reduced(pcp, data_cli, tmp_path_factory):
    """The same on the reduced grid."""
    target = tmp_path_factory.mktemp("converted") / "reduced"
    assert data_cli("convert", pcp, target, "--grid", "reduced").status < 2
    return target


def map_path(folder, subject: str):
    return next(folder.rglob(f"*_00{subject}_falff.nii.gz"))


def independent_volume(path) -> np.ndarray:
    """Trilinear sampling of the stored map at the millimetre places of the full grid, then z-scores, by SciPy alone."""
    image = nibabel.load(path)
    voxels = np.indices(FULL.shape).reshape(3, -1)
    millimetres = 2.0 * voxels + np.array([[-90.0], [-126.0], [-72.0]])
    linear, offset = image.affine[:3, :3], image.affine[:3, 3:]
    places = np.linalg.solve(linear, millimetres - offset)
    sampled = ndimage.map_coordinates(np.asarray(image.dataobj, float), places, order=1).reshape(FULL.shape)
    return (sampled - sampled.mean()) / sampled.std()


@pytest.mark.slow
@pytest.mark.parametrize("position", [0, 1, PCP_SUBJECTS - 1])
def test_volumes_against_scipy(position, pcp, converted):
    """The first map has 3 mm voxels, the others 6 mm."""
    opened = open_cohort(converted[0])
    subject = str(50002 + position)
    index = [record.subject for record in opened.rows].index(subject)
    volume = opened.read(index)[2][..., 0]
    np.testing.assert_allclose(volume, independent_volume(map_path(pcp, subject)), atol=2e-4)
    assert volume[0, 0, 0] == volume.min()  # the background
    assert volume[45, 54, 45] != volume.min()


@pytest.mark.slow
def test_labels_and_sites_against_the_table(pcp, converted):
    rows = read_rows(next(pcp.rglob("*.csv")))
    expected = {row["SUB_ID"]: (row["SITE_ID"], {"1": 1.0, "2": 0.0}[row["DX_GROUP"]]) for row in rows}
    opened = open_cohort(converted[0])
    for index, record in enumerate(opened.rows):
        assert (record.site, record.label) == expected[record.subject]
        assert opened.read(index)[0] == record.label
    assert {record.label for record in opened.rows} == {0.0, 1.0}


@pytest.mark.slow
def test_phenotypes_are_scaled_by_training_subjects_only(converted):
    """Medians, means and spreads by the statistics module over the rows read by hand in test_phenotype."""
    opened = open_cohort(converted[0])
    raw = [BY_HAND[(int(record.subject) - 50002) % len(PCP_ROWS)] for record in opened.rows]
    training = [row for row, record in zip(raw, opened.rows, strict=True) if record.split == "train"]
    assert 0 < len(training) < len(raw)
    for place in range(29):
        known = [row[place] for row in training if row[place] == row[place]]
        median = statistics.median(known) if known else 0.0
        filled = [row[place] if row[place] == row[place] else median for row in training]
        mean, spread = statistics.fmean(filled), statistics.pstdev(filled) or 1.0
        for index, row in enumerate(raw):
            value = row[place] if row[place] == row[place] else median
            assert opened.read(index)[1][place] == pytest.approx((value - mean) / spread, abs=1e-5)


@pytest.mark.slow
def test_the_reduced_grid_holds_block_means(converted, reduced):
    full, small = open_cohort(converted[0]), open_cohort(reduced)
    assert small.grid == REDUCED
    assert small.rows == full.rows
    volume, means = full.read(2)[2], small.read(2)[2]
    for i, j, k in [(0, 0, 0), (15, 18, 15), (30, 36, 30), (7, 20, 11)]:
        block = volume[max(3 * i - 1, 0) : 3 * i + 2, max(3 * j - 1, 0) : 3 * j + 2, max(3 * k - 1, 0) : 3 * k + 2]
        assert means[i, j, k] == pytest.approx(block.astype(float).mean(), rel=1e-5)
    assert (small.read(2)[1] == full.read(2)[1]).all()


@pytest.mark.slow
def test_subjects_without_a_record_are_counted_and_named(converted):
    target, outcome = converted
    assert f"1 left out, FILE_ID is no_filename: {PCP_NO_FILENAME}" in outcome.out
    assert re.search(f"1 left out, no map.*: {PCP_NO_MAP}", outcome.out)
    left_out = json.loads((target / "cohort.json").read_text())["provenance"]["left_out"]
    assert [PCP_NO_FILENAME] in left_out.values()
    assert [PCP_NO_MAP] in left_out.values()
    assert not {PCP_NO_FILENAME, PCP_NO_MAP} & {row["subject"] for row in read_rows(target / "subjects.csv")}


@pytest.mark.slow
def test_metadata_says_what_the_records_are(converted):
    metadata = json.loads((converted[0] / "cohort.json").read_text())
    assert metadata["grid"] == [91, 109, 91]
    assert metadata["affine"] == [[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]
    assert len(metadata["phenotype"]) == 29
    assert "convert" in metadata["provenance"]["converted_by"]
    assert re.fullmatch("[0-9a-f]{64}", metadata["provenance"]["input_sha256"])


@pytest.mark.slow
def test_the_split_is_stored_one_subject_in_ten(converted):
    splits = [row["split"] for row in read_rows(converted[0] / "subjects.csv")]
    assert splits.count("test") in (1, 2)
    assert len(splits) == PCP_SUBJECTS


@pytest.mark.slow
def test_another_seed_gives_another_split_of_the_same_volumes(reduced, pcp, data_cli, tmp_path):
    splits = {tuple(row["split"] for row in read_rows(reduced / "subjects.csv"))}
    for seed in (1, 2):
        assert data_cli("convert", pcp, tmp_path / str(seed), "--grid", "reduced", "--seed", seed).status < 2
        splits.add(tuple(row["split"] for row in read_rows(tmp_path / str(seed) / "subjects.csv")))
    assert len(splits) > 1
    name = "50004.bin"
    assert (tmp_path / "1" / name).read_bytes()[120:] == (reduced / name).read_bytes()[120:]


class Conversion:
    """The user's command with its processes, in a group of its own as a terminal has it, begun to write."""

    def __init__(self, pcp, folder):
        self.command = [sys.executable, "-m", "data", "convert", str(pcp), "out", "--grid", "reduced"]
        self.folder, self.target = folder, folder / "out"
        self.options = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job inherits it ignored
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "preexec_fn": heard}
        self.process = subprocess.Popen(self.command, start_new_session=True, **pipes, **self.options)
        wait_until(lambda: any(self.target.glob(".unfinished.records/*")) or self.process.poll() is not None)

    def workers(self) -> list[int]:
        process = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]

    def repeat(self, reduced, data_cli=None) -> None:
        """The same command again completes the cohort, in processes of its own unless `data_cli` is to run it."""
        with pytest.raises(InputError, match=r"conversion was interrupted|holds no records|does not exist"):
            open_cohort(self.target)
        if data_cli:
            assert data_cli(*self.command[3:]).status < 2
        else:
            done = subprocess.run(self.command, capture_output=True, timeout=120, **self.options)
            assert done.returncode < 2, done.stderr
        names = sorted(path.name for path in reduced.iterdir())
        assert sorted(path.name for path in self.target.iterdir()) == names
        for name in names:
            if name not in ("cohort.json", "seal.json", "check.json"):  # the command differs, and so does the time
                assert (self.target / name).read_bytes() == (reduced / name).read_bytes()


def wait_until(true, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 6])
def test_interrupted_for_real_and_repeated(times, pcp, reduced, data_cli, tmp_path):
    """Ctrl-C, once or by an impatient person, reaches the command and its workers."""
    conversion = Conversion(pcp, tmp_path)
    for _ in range(times):
        with suppress(ProcessLookupError):
            os.killpg(conversion.process.pid, signal.SIGINT)
        time.sleep(0.05)
    error = conversion.process.communicate(timeout=60)[1]
    assert conversion.process.returncode == 130, error
    assert error == "abide-data: interrupted; repeat the command.\n"
    conversion.repeat(reduced, data_cli)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the workers")
def test_killed_with_its_workers_and_repeated(pcp, reduced, tmp_path):
    conversion = Conversion(pcp, tmp_path)
    workers = conversion.workers()
    assert workers
    conversion.process.kill()
    conversion.process.communicate(timeout=60)
    assert wait_until(lambda: not any(map(running, workers)), 20)
    for name in (".unfinished.50003.bin", ".unfinished.cohort.json"):
        (conversion.target / name).write_bytes(b"half")
    conversion.repeat(reduced)


@pytest.mark.slow
def test_a_second_conversion_into_one_folder_is_refused(pcp, data_cli, tmp_path):
    with files.locked(tmp_path / "out"):
        outcome = data_cli("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert outcome.status == 2
    assert re.search(rf"out is being written by process {os.getpid()} on .*; wait for it to end", outcome.err)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.lock").write_text("process 1 on elsewhere")  # of a process that died
    assert data_cli("convert", pcp, tmp_path / "out", "--grid", "reduced").status < 2


def die(path) -> None:
    os._exit(9)


def test_a_worker_that_dies_ends_in_one_line(pcp, monkeypatch, tmp_path):
    monkeypatch.setattr("data.conversion.measures.of_image", die)
    outcome = run_main("data.__main__", "data", ("convert", pcp, tmp_path / "out"))
    assert outcome.status == 2
    assert "A process of this command was killed" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_repeating_makes_only_what_is_missing(pcp, data_cli, tmp_path):
    command = ("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert data_cli(*command).status < 2

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "check.json"}

    before = content()
    (tmp_path / "out" / "subjects.csv").unlink()
    (tmp_path / "out" / "50003.bin").unlink()
    (tmp_path / "out" / "50005.bin").write_bytes(b"cut off")
    kept = (tmp_path / "out" / "50002.bin").stat().st_mtime_ns
    assert data_cli(*command).status < 2
    assert content() == before
    assert (tmp_path / "out" / "50002.bin").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_how_a_command_was_typed_decides_nothing(pcp, reduced, data_cli, tmp_path, monkeypatch):
    """Not which folder stands here, nor the name of the program."""
    target = shutil.copytree(reduced, tmp_path / "out")
    (target / "subjects.csv").unlink()
    said = json.loads((target / "cohort.json").read_text())
    said["provenance"]["converted_by"] = "typed otherwise"
    (target / "cohort.json").write_text(json.dumps(said))
    monkeypatch.chdir(pcp)
    assert data_cli("convert", ".", target, "--grid", "reduced").status == 0
    one, other = open_cohort(reduced), open_cohort(target)
    assert (one.digest, one.records_sha256) == (other.digest, other.records_sha256)
    assert one.metadata.command != other.metadata.command


@pytest.mark.slow
def test_a_cohort_that_was_converted_differently_is_told_before_maps_are_read(pcp, reduced, data_cli, tmp_path):
    """Other options, other people, or other maps of the same people."""
    others = shutil.copytree(pcp, tmp_path / "others")
    path = map_path(others, "50003")
    nibabel.save(nibabel.Nifti1Image(nibabel.load(path).get_fdata() + 1, nibabel.load(path).affine), path)
    before = {path.name: path.read_bytes() for path in reduced.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.conversion.convert.read_maps", lambda *_: pytest.fail("maps were read"))
        for source, *more in ((pcp, "--phenotype", ""), (pcp, "--exclude", "50003"), (others,)):
            outcome = data_cli("convert", source, reduced, "--grid", "reduced", *more)
            assert outcome.status == 2
            assert "holds a cohort converted differently; choose another folder or remove it" in outcome.err
    assert {path.name: path.read_bytes() for path in reduced.iterdir()} == before


def few_subjects(folder, count: int = 2):
    """A PCP folder with maps for `count` subjects only."""
    write_pcp(folder)
    for path in sorted(folder.rglob("*.nii.gz"), key=lambda path: path.name[-21:])[count:]:
        path.unlink()
    return folder


def spoil_table(folder, old: str, new: str) -> None:
    path = next(folder.rglob("*.csv"))
    path.write_text(path.read_text().replace(old, new))


def spoil_map(folder, values: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), LAS_6MM), sorted(folder.rglob("*.nii.gz"))[-1])


def cut_map(folder) -> None:
    path = sorted(folder.rglob("*.nii.gz"))[-1]
    path.write_bytes(path.read_bytes()[:2000])


def no_map_at_all(folder) -> None:
    path = sorted(folder.rglob("*.nii.gz"))[-1]
    path.write_bytes(gzip.compress(b"this is text"))


def with_infinity() -> np.ndarray:
    values = np.ones((31, 37, 31))
    values[3, 3, 3] = np.inf
    return values


@pytest.mark.parametrize(
    "spoil, words",
    [
        (cut_map, r"_falff\.nii\.gz is not a readable NIfTI map"),
        (no_map_at_all, r"_falff\.nii\.gz is not a readable NIfTI map"),
        (
            lambda folder: spoil_map(folder, np.ones((31, 37, 31, 2))),
            r"has the shape \(31, 37, 31, 2\); expected one 3-D",
        ),
        (lambda folder: spoil_map(folder, with_infinity()), "holds infinite values"),
        (lambda folder: spoil_map(folder, np.zeros((31, 37, 31))), "is empty or constant"),
        (lambda folder: spoil_table(folder, "DX_GROUP", "DIAGNOSIS"), r"Phenotypic\S*\.csv .*diagnosis"),
        (
            lambda folder: spoil_table(folder, "50003,", "50002,"),
            r"names subjects more than once: '50002' \(2 times\); expected one row a subject, .*--where",
        ),
        (
            lambda folder: spoil_table(folder, "PITT_0050002,1", "PITT_0050002,3"),
            "DX_GROUP holds .*3.*; expected",
        ),
        (lambda folder: shutil.rmtree(folder / "ABIDE_pcp"), "holds no fALFF maps; expected"),
        (shutil.rmtree, "is not a folder; expected fALFF maps"),
    ],
)
def test_input_that_cannot_be_converted(spoil, words, data_cli, tmp_path):
    folder = few_subjects(tmp_path / "pcp")
    spoil(folder)
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced")
    assert outcome.status == 2
    assert outcome.err.startswith("abide-data: error: ")
    assert outcome.err.count("\n") == 1
    assert re.search(words, outcome.err)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_with_ids_is_one_line(data_cli, tmp_path):
    """Three that are not plain, one too long, two pairs that some file systems take for one, both spellings shown."""
    folder = few_subjects(tmp_path / "pcp", 9)
    ids = ["a b", "c/d", "e:f", "ä" * 101, "ä", "Ä", "ö", "o\u0308", "g"]
    for number, identifier in enumerate(ids):
        spoil_table(folder, f"\n{50002 + number},", f"\n{identifier},")
    outcome = data_cli("convert", folder, tmp_path / "out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"has the subjects '{'ä' * 101}'; expected at most 200 bytes" in outcome.err
    assert "It has the subjects 'a b', 'c/d', 'e:f', 'o\u0308'; expected letters, digits" in outcome.err
    assert r"names subjects more than once: 'ä' and 'Ä', '\xf6' and 'o\u0308'; expected" in outcome.err


def test_all_maps_that_cannot_be_read_are_one_line(data_cli, tmp_path):
    folder = few_subjects(tmp_path / "pcp", 4)
    cut = sorted(folder.rglob("*.nii.gz"))[1:]
    for path in cut:
        path.write_bytes(path.read_bytes()[:2000])
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced")
    assert outcome.err.startswith("abide-data: error: 3 of 4 cannot be used. ")
    assert all(f"{path} is not a readable NIfTI map: " in outcome.err for path in cut)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)


FUNC = "fmriprep/sub-1/func/sub-1_task-rest_"


@pytest.mark.parametrize(
    "names, words",
    [
        (["space-MNI152NLin6Asym_desc-preproc_bold.nii.gz", "hemi-L_space-fsaverage5_bold.func.gii"], "; make maps of"),
        (["space-fsLR_den-91k_bold.dtseries.nii"], "; preprocess them to volumes in MNI space and make maps of"),
    ],
)
def test_a_folder_of_scans_is_told_what_makes_maps_of_them(names, words, data_cli, tmp_path):
    for name in names:
        path = tmp_path / f"{FUNC}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outcome = data_cli("convert", tmp_path / "fmriprep", tmp_path / "out")
    told = f"holds no fALFF maps but scans, such as {Path(FUNC).name}{names[0]}{words} these first: abide-data derive"
    assert told in outcome.err and "converted to NIfTI" not in outcome.err


@pytest.mark.slow
def test_problems_are_an_exit_status_as_check_has_it(data_cli, tmp_path):
    """Three people cannot be trained and tested on."""
    outcome = data_cli("convert", few_subjects(tmp_path / "pcp", 3), tmp_path / "out", "--grid", "reduced")
    assert (outcome.status, outcome.err) == (1, "")
    told = f"{tmp_path / 'out'} is written all the same; the exit status is 1, as that of check."
    assert re.search(rf"\d problems? invalidates? results\.\n{told}\n$", outcome.out)
    assert data_cli("check", tmp_path / "out").status == 1


@pytest.mark.slow
def test_nan_in_a_map_counts_as_outside_the_brain(data_cli, tmp_path):
    folder = few_subjects(tmp_path / "pcp")
    path = sorted(folder.rglob("*.nii.gz"))[-1]
    values = np.asarray(nibabel.load(path).dataobj)
    spoil_map(folder, np.where(values == 0, np.nan, values))
    assert data_cli("convert", folder, tmp_path / "nan").status < 2
    spoil_map(folder, values)
    assert data_cli("convert", folder, tmp_path / "zero").status < 2
    for record in sorted((tmp_path / "nan").glob("*.bin")):
        assert record.read_bytes() == (tmp_path / "zero" / record.name).read_bytes()


@pytest.mark.parametrize("content", ['{"grid": [1]}', "{ damaged"])
def test_a_folder_with_another_cohort_is_left_alone(content, data_cli, tmp_path):
    folder = few_subjects(tmp_path / "pcp")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cohort.json").write_text(content)
    outcome = data_cli("convert", folder, tmp_path / "out")
    assert outcome.status == 2
    assert str(tmp_path / "out") in outcome.err
    assert outcome.err.count("\n") == 1
    assert (tmp_path / "out" / "cohort.json").read_text() == content


def test_a_folder_with_other_files_is_left_alone(data_cli, tmp_path):
    folder = few_subjects(tmp_path / "pcp")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    outcome = data_cli("convert", folder, tmp_path / "out")
    assert outcome.status == 2
    assert "is not empty and holds no cohort; choose another folder" in outcome.err


def test_a_negative_seed_is_a_mistake_not_a_traceback(data_cli, tmp_path):
    outcome = data_cli("convert", few_subjects(tmp_path / "pcp"), tmp_path / "out", "--seed", "-1")
    assert outcome.status == 2
    assert "seed" in outcome.err
