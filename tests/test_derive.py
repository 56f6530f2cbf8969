"""abide-data derive: scans as pipelines leave them, on tiny grids, through the command; what is wrong with them is
one line, and does not keep others from being done."""

import gzip
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import listing, read_rows, run_main, write_rows
from scans import (
    AFFINE,
    REST,
    SHAPE,
    SPACE,
    TR_S,
    VOLUMES,
    bold,
    confounds,
    image,
    inside,
    save,
    write_confounds,
    write_people,
    write_person,
)

from data.cohorts.derivation import Derivation, DerivationWithImages
from data.cohorts.stored import open_cohort
from data.derivation import job
from data.derivation.cleaning import Acquisition, scan_of
from data.derivation.measures import MEASURES
from data.derivation.options import DerivationOptions

DERIVED = f"{SPACE}_stat-falff_boldmap"


@pytest.fixture
def scans(tmp_path) -> Path:
    return write_people(tmp_path / "fmriprep")


@pytest.fixture
def derive(tmp_path, data_cli):
    """Runs the command on a folder; what it leaves is in `out`."""
    return lambda scans, *options: data_cli("derive", scans, tmp_path / "out", *options)


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def facts(folder: Path, label: str) -> dict:
    return json.loads(one(folder, f"sub-{label}_*stat-falff*.json").read_text())


def values_of(folder: Path, label: str, name: str = "falff") -> np.ndarray:
    return nibabel.load(one(folder, f"sub-{label}_*stat-{name}_boldmap.nii.gz")).get_fdata(dtype=np.float32)


def expected(series: np.ndarray, mask: np.ndarray, kept=None, regressors=None, name: str = "falff") -> np.ndarray:
    kept = np.ones(len(series), bool) if kept is None else kept
    scan = scan_of(series, Acquisition(mask, AFFINE, kept, TR_S, (0.01, 0.1)), regressors)
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = MEASURES[name](scan)
    return volume


# What is written


@pytest.mark.slow
def test_a_folder_of_fmriprep_becomes_a_derivative_that_convert_reads(tmp_path, scans, derive, data_cli):
    """Three maps, the networks and the series; motion of people with a table of confounds; then a cohort of them."""
    for label in "12":
        write_confounds(one(scans, f"sub-{label}_{REST}.nii.gz"), confounds(int(label)))
    random = np.random.default_rng(0)
    networks = save(tmp_path / "nets.nii.gz", image(random.normal(size=(*SHAPE, 2)).astype(np.float32)))
    (tmp_path / "nets.txt").write_text("visual\nmotor\n")
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5
    labels[0, 0, 0] = 9  # outside the mask of everybody
    atlas = save(tmp_path / "my_atlas.nii.gz", image(labels.astype(np.int16)))
    maps = "falff,degree_weighted,dual_regression"
    done = derive(scans, "--maps", maps, "--networks", networks, "--series", atlas)
    assert (done.status, done.err) == (0, "")
    assert "No table of confounds: 1 people, 3; nothing is regressed out" in done.out
    out = tmp_path / "out"
    assert (out / "participants.tsv").read_bytes() == (scans / "participants.tsv").read_bytes()
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert (out / "atlases/atlas-myatlas/atlas-myatlas_dseg.nii.gz").read_bytes() == atlas.read_bytes()
    table = pd.read_csv(one(out, f"sub-1_{SPACE}_seg-myatlas_stat-mean_timeseries.tsv"), sep="\t")
    assert list(table) == ["1", "2", "3", "4", "9"]
    assert len(table) == VOLUMES and table["9"].isna().all() and table["1"].notna().all()
    said = json.loads(one(out, "sub-1_*dualregression*.json").read_text())
    assert (said["LabelMap"], said["Networks"]) == (["visual", "motor"], "nets.nii.gz")
    assert values_of(out, "1", "dualregression").shape == (*SHAPE, 2)
    assert facts(out, "3")["MeanFramewiseDisplacement"] is None
    assert facts(out, "1")["Confounds"] == "simple"
    coding = ("--labelColumn", "group", "--positive", "A", "--grid", "reduced", "--phenotype", "")
    converted = data_cli("convert", out, tmp_path / "cohort", "--maps", maps, *coding)
    assert converted.status < 2, converted.err
    assert "Head motion: mean_fd, mm, by the JSON beside the maps of 2 of 3 people." in converted.out
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.maps == ("falff", "degree_weighted", "dual_regression_visual", "dual_regression_motor")
    moved = confounds(1)["framewise_displacement"].mean()
    assert float(cohort.covariates.loc["1", "mean_fd"]) == pytest.approx(moved, rel=1e-4)
    assert cohort.covariates.loc["3", "mean_fd"] == ""
    every = data_cli("convert", out, tmp_path / "all", "--maps", "all", *coding)
    assert "Maps that all 3 people have: falff, degree_weighted, dual_regression" in every.out


def test_values_are_those_of_the_measures_with_nilearns_confounds_and_without_unsteady_volumes(scans, derive, tmp_path):
    path = one(scans, f"sub-1_{REST}.nii.gz")
    table = confounds(1, unsteady=3, moved=[30])
    write_confounds(path, table)
    assert derive(scans, "--maps", "falff,alff").status == 0
    kept = np.arange(VOLUMES) >= 3
    names = [name for name in table if re.match("trans|rot|cosine|csf$|white_matter$", name)]
    regressors = table[names].bfill(limit=1).to_numpy()
    series, mask = bold(1)[inside()].T, inside()
    for name in ("falff", "alff"):
        wanted = expected(series, mask, kept, regressors, name)
        np.testing.assert_allclose(values_of(tmp_path / "out", "1", name), wanted, rtol=2e-4)
    said = facts(tmp_path / "out", "1")
    assert (said["NumberOfVolumes"], said["NumberOfVolumesKept"]) == (VOLUMES, VOLUMES - 3)
    assert said["MeanFramewiseDisplacement"] == pytest.approx(table["framewise_displacement"].mean(), abs=1e-6)


@pytest.mark.slow
def test_scrubbing_leaves_volumes_out_and_none_regresses_nothing(scans, derive, tmp_path):
    for label in "123":
        write_confounds(one(scans, f"sub-{label}_{REST}.nii.gz"), confounds(1, moved=range(20, 80, 7)))
    done = derive(scans, "--confounds", "none")
    assert "Confounds: none." in done.out and "NOT CLEANED" in done.out and "without --confounds none" in done.out
    np.testing.assert_allclose(values_of(tmp_path / "out", "2"), expected(bold(2)[inside()].T, inside()), rtol=1e-5)
    for more in ((), ("--maps", "alff")):  # which one cohort would mix with what is there
        again = derive(scans, "--confounds", "scrubbing", *more)
        assert again.status == 2
        assert "was made with Confounds none, not scrubbing; choose the same options, or another folder" in again.err
    shutil.rmtree(tmp_path / "out")
    assert derive(scans, "--confounds", "scrubbing", "--maps", "alff").status == 0
    said = json.loads(one(tmp_path / "out", "sub-1_*stat-alff*.json").read_text())
    assert said["NumberOfVolumesKept"] == VOLUMES - 9


def test_runs_and_sessions_are_averaged_by_volumes_kept_and_their_series_joined(tmp_path, derive):
    scans = tmp_path / "fmriprep"
    write_person(scans, "1", f"ses-1_{REST}")
    write_person(scans, "1", f"ses-2_{REST}", volumes=160)
    atlas = save(tmp_path / "atlas.nii.gz", image(inside().astype(np.int16)))
    done = derive(scans, "--maps", "falff", "--series", atlas)
    assert done.status == 0
    assert "1 people have several runs or sessions, whose maps are averaged, by the volumes kept: 1." in done.out
    runs = [(120, bold(1)), (160, bold(1, 160))]
    wanted = sum(count * expected(values[inside()].T, inside()) for count, values in runs) / 280
    np.testing.assert_allclose(values_of(tmp_path / "out", "1"), wanted, rtol=1e-4)
    series = pd.read_csv(one(tmp_path / "out", f"sub-1_{SPACE}_seg-atlas*.tsv"), sep="\t")["1"].to_numpy()
    for run in (series[:120], series[120:]):
        assert (run.mean(), run.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    chosen = derive(scans, "--only", "*_ses-1_*", "--maps", "falff")
    assert chosen.status == 2
    assert "was made of other files than the scan has now" in chosen.out


def test_smoothing_is_within_the_mask(scans, derive, tmp_path):
    assert derive(scans, "--smooth", "30").status == 0
    found, plain = values_of(tmp_path / "out", "1"), expected(bold(1)[inside()].T, inside())
    assert (found != 0)[inside()].all() and not found[~inside()].any()
    assert found[inside()].std() < 0.7 * plain[inside()].std()
    assert facts(tmp_path / "out", "1")["SmoothingFWHM"] == 30


# Repeated, shared, killed


@pytest.mark.slow
def test_repeated_it_does_what_is_missing_and_maps_can_be_added(scans, derive, tmp_path):
    derive(scans)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "out/sub-2/func").joinpath(f"sub-2_{DERIVED}.nii.gz").unlink()
    leftover = tmp_path / "out/sub-2/func/.unfinished.x.nii.gz"
    leftover.write_text("of a killed process")
    done = derive(scans, "--maps", "falff,alff")
    assert "3 people derived, 0 were there, 0 failed." in done.out
    assert not leftover.exists()
    again = derive(scans, "--maps", "falff,alff", "--jobs", "2")
    assert "0 people derived, 3 were there, 0 failed." in again.out
    kept = [path for path in first if "sub-2" not in path.name and path.name != "derive.html"]
    assert all(path.stat().st_mtime_ns == first[path] for path in kept)
    assert not list(tmp_path.rglob("*.lock"))
    assert re.search("Band .* not .*choose the same options", derive(scans, "--band", "0.02,0.1").err)
    save(one(scans, f"sub-3_{REST}.nii.gz"), image(bold(33)))
    changed = derive(scans)
    assert changed.status == 2
    assert "sub-3: " in changed.out and "was made of other files" in changed.out


def test_a_dry_run_says_who_and_how_long_and_writes_nothing(scans, derive, tmp_path):
    one(scans, f"sub-2_{REST}.nii.gz").write_bytes(b"no image")
    before = listing(tmp_path)
    options = ("--maps", "falff,reho", "--jobs", "2")
    dry = derive(scans, *options, "--dryRun")
    assert listing(tmp_path) == before and not dry.status
    for line in (
        r"sub-2: .*sub-2_.*",
        "People: 2 to derive, 0 are there, 1 cannot be derived[.]",
        "Of each: falff, reho[.]",
        r"Time: about \d+ s, 2 at a time; sub-1_.* took [\d.]+ s[.]",
        "Dry run: nothing was written[.]",
    ):
        assert re.search(f"^{line}$", dry.out, re.MULTILINE), line
    derive(scans, *options)
    assert "People: 0 to derive, 2 are there, 1 cannot be derived." in derive(scans, *options, "--dryRun").out


def test_a_dry_run_finds_people_in_the_table_whatever_zeros_their_ids_begin_with(derive, tmp_path):
    scans = write_people(tmp_path / "fmriprep", ("01", "02"))
    (scans / "participants.tsv").write_text("participant_id\tsite\nsub-01\tA\n")
    told = derive(scans, "--dryRun").out
    assert "convert leaves them out: 1 people, 02." in told and "Sites by site: A 1." in told


def test_of_two_at_once_with_other_options_the_second_is_refused(scans, tmp_path):
    """Both were planned before either had written anything."""
    plans = []
    for band in ((0.01, 0.1), (0.02, 0.08)):
        derivation = DerivationWithImages(Derivation(band=band))
        plans.append(job.plan(scans, tmp_path / "out", derivation, DerivationOptions()))
    assert not (tmp_path / "out").exists()
    for plan in plans:
        plan.begin()
    done, failed = job.run(plans[0])
    assert not failed and "3 people derived" in done[-1]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    done, failed = job.run(plans[1])
    assert failed == ["1", "2", "3"] and "0 were there, 3 failed" in done[-1]
    assert done[0].startswith("sub-1, sub-2, sub-3: ") and "was made with Band [0.01, 0.1], not [0.02, 0.08]" in done[0]
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()}


def test_people_of_the_same_names_in_another_dataset_are_told_before_anybody_is_derived(scans, derive, tmp_path):
    derive(scans, "--only", "*sub-[12]_*")
    others = shutil.copytree(scans, tmp_path / "others")
    for number in (1, 2):
        save(one(others, f"sub-{number}_{REST}.nii.gz"), image(bold(20 + number)))
    for more in ((), ("--maps", "falff,alff")):
        clash = derive(others, *more)
        assert clash.status == 2
        assert re.search("sub-1, sub-2: .* was made of other files than the scan has now", clash.out)
        assert "2 people: Nobody is derived before this is settled: 1, 2." in clash.out
        assert {path.name for path in (tmp_path / "out").glob("sub-*")} == {"sub-1", "sub-2"}
    assert not list((tmp_path / "out").rglob("*stat-alff*"))


@pytest.mark.parametrize("first, again", [("study", "study/derivatives/fmriprep"), ("derivatives/fmriprep", "..")])
def test_scans_are_known_however_the_command_names_their_folder(tmp_path, monkeypatch, data_cli, first, again):
    """From other folders, too."""
    study = tmp_path / "study"
    write_people(study / "derivatives" / "fmriprep")
    places = {"study": tmp_path, "derivatives": study, "..": study / "derivatives"}
    for folder in (first, again):
        monkeypatch.chdir(places[folder.split("/")[0]])
        done = data_cli("derive", folder, tmp_path / "out")
        assert (done.status, done.err) == (0, "")
    assert "0 people derived, 3 were there, 0 failed." in done.out
    scan = one(study, f"sub-2_{REST}.nii.gz")
    file = one(tmp_path / "out", "sub-2_*stat-falff*.json")
    monkeypatch.chdir(tmp_path)
    said = json.loads(file.read_text())
    dataset = json.loads((tmp_path / "out/dataset_description.json").read_text())["DatasetLinks"]["bold"]
    assert (tmp_path / "out" / dataset / said["Sources"][0].removeprefix("bids:bold:")).resolve() == scan
    one(tmp_path / "out", "sub-3_*.nii.gz").unlink()
    done = data_cli("derive", study / "derivatives/fmriprep", tmp_path / "out")
    assert "1 people derived, 2 were there, 0 failed." in done.out
    source = facts(tmp_path / "out", "3")["Sources"][0].removeprefix("bids:bold:")
    assert (tmp_path / "out" / dataset / source).resolve() == one(study, f"sub-3_{REST}.nii.gz")


@pytest.mark.slow
def test_shares_and_jobs_write_the_same_bytes_as_one_process(scans, tmp_path, data_cli):
    atlas = save(tmp_path / "atlas.nii.gz", image(inside().astype(np.int16)))
    options = ("--maps", "falff,vmhc", "--series", atlas)
    data_cli("derive", scans, tmp_path / "one", *options)
    data_cli("derive", scans, tmp_path / "jobs", *options, "--jobs", "2")
    for share in ("2/2", "1/2"):
        done = data_cli("derive", scans, tmp_path / "shares", *options, "--share", share)
        assert f"Share {share[0]} of 2: {3 - int(share[0])} of 3 people." in done.out
    run_main("data.__main__", "data", ["derive", scans, tmp_path / "processes", *options, "--jobs", "2"])
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")}
    assert len(files) == 2 + 3 * 8 + 1 + 1
    for name in ("jobs", "shares", "processes"):
        assert {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")} == files
        assert all((tmp_path / name / path).read_bytes() == (tmp_path / "one" / path).read_bytes() for path in files)


# Layouts and spaces


def test_pcp_needs_no_confounds_and_carries_its_table(tmp_path, derive):
    scans = tmp_path / "abide/ABIDE_pcp/cpac/nofilt_noglobal"
    for label in ("0050002", "0050003"):
        save(scans / f"Pitt_{label}_func_preproc.nii.gz", image(bold(int(label)) - 1000 * inside()[..., None]))
        save(scans / f"Pitt_{label}_func_mask.nii.gz", image(inside().astype(np.uint8)))
    rows = [{"SUB_ID": "50002", "FILE_ID": "Pitt_0050002", "DX_GROUP": "1"}]
    write_rows(tmp_path / "abide/ABIDE_pcp/Phenotypic_V1.csv", rows)
    done = derive(tmp_path / "abide")
    assert (done.status, done.err) == (0, "")
    assert "Layout: PCP, 2 scans of 2 people in space MNI152." in done.out
    assert "Confounds: none, since the scans were cleaned before." in done.out and "NOT CLEANED" not in done.out
    assert read_rows(tmp_path / "out/Phenotypic_V1.csv") == rows
    assert one(tmp_path / "out", "sub-0050003_space-MNI152_stat-falff_boldmap.nii.gz")
    assert "leave it out" in derive(tmp_path / "abide", "--confounds", "simple").err


def test_xcp_ds_censored_volumes_are_left_out_of_the_spectrum(tmp_path, derive):
    scans, moved = tmp_path / "xcp_d", np.isin(np.arange(VOLUMES), [20, 21, 40])
    path = write_person(scans, "1", f"{SPACE}_desc-denoised_bold", mask=False)
    save(path, image(bold(1)[..., ~moved]))
    for name, values in (("outliers", moved.astype(int)), ("motion", np.full(VOLUMES, 0.25))):
        table = pd.DataFrame({"framewise_displacement": values})
        table.to_csv(path.with_name(f"sub-1_task-rest_{name}.tsv"), sep="\t", index=False)
    done = derive(scans)
    assert done.status == 0, done.err
    assert "No mask: 1 people, 1; voxels that vary are taken" in done.out
    wanted = expected(bold(1)[inside()].T, inside(), ~moved)
    np.testing.assert_allclose(values_of(tmp_path / "out", "1"), wanted, rtol=1e-4)
    assert facts(tmp_path / "out", "1")["MeanFramewiseDisplacement"] == 0.25


def test_of_a_slab_in_which_nilearn_finds_no_brain_all_voxels_that_vary_are_taken(tmp_path, derive):
    path = write_person(tmp_path / "fmriprep", "1", mask=False)
    save(path, image(1000 + np.random.default_rng(0).normal(size=(*SHAPE, VOLUMES)).astype(np.float32)))
    done = derive(tmp_path / "fmriprep")
    assert done.status == 0, done.err
    assert "1 people: compute_epi_mask finds no brain, so all voxels that vary are taken: 1." in done.out
    assert (values_of(tmp_path / "out", "1") > 0).all()


def test_a_column_names_scans_whose_space_is_taken_to_be_mni(tmp_path, derive):
    scans = tmp_path / "lab"
    for label in "12":
        save(scans / f"p{label}.nii", image(bold(int(label))))
    rows = [{"id": label, "path": f"p{label}.nii"} for label in ("1", "2", "3")]
    write_rows(scans / "people.csv", rows)
    done = derive(scans, "--boldColumn", "path", "--idColumn", "id")
    assert (done.status, done.err) == (0, "")
    assert "1 rows without a scan: 3." in done.out
    assert "The names of 2 scans do not say their space; it is taken to be MNI152." in done.out
    np.testing.assert_allclose(values_of(tmp_path / "out", "2"), expected(bold(2)[inside()].T, inside()), rtol=1e-4)
    write_rows(scans / "people.csv", [{"id": label, "path": "p1.nii"} for label in ("P-1", "P2", "P 3")])
    odd = derive(scans, "--boldColumn", "path", "--idColumn", "id")
    assert "has the subjects 'P-1', 'P 3'; expected letters and digits" in odd.err


def test_a_real_scan_that_nibabel_ships_says_why_not(tmp_path, derive):
    """Two volumes of a head; its name says no space."""
    scan = Path(nibabel.__file__).parent / "tests/data/example4d.nii.gz"
    write_rows(tmp_path / "lab/people.csv", [{"id": "1", "path": str(scan)}])
    done = derive(tmp_path / "lab", "--boldColumn", "path", "--idColumn", "id")
    assert done.status == 2
    assert re.search("sub-1: .*example4d.nii.gz.*(2 volumes|repetition time)", done.out)


def rename(scans: Path, old: str, new: str) -> None:
    for path in list(scans.rglob(f"*{old}*")):
        path.rename(path.with_name(path.name.replace(old, new)))


def add_space(scans: Path) -> None:
    for label in "12":
        write_person(scans, label, "task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold")


def add_task(scans: Path) -> None:
    for label in "12":
        write_person(scans, label, REST.replace("rest", "nback"))


def add_layout(scans: Path) -> None:
    write_person(scans, "4", f"{SPACE}_desc-denoised_bold")


@pytest.mark.parametrize(
    "change, words, only",
    [
        (lambda scans: rename(scans, "space-MNI152NLin6Asym", "space-T1w"), "3 in space T1w", None),
        (lambda scans: rename(scans, "_space-MNI152NLin6Asym", ""), "3 in no space", None),
        (lambda scans: rename(scans, "bold.nii", "boldref.nii"), "holds no preprocessed scans by their names", None),
        (
            add_space,
            r"which scans to take of 3 people: 2 people, 1, 2, have several scans that differ in space; .*--only "
            r"'\*_space-MNI152NLin2009cAsym_\*' or --only '\*_space-MNI152NLin6Asym_\*'\.$",
            "*_space-MNI152NLin6Asym_*",
        ),
        (add_task, r"2 people, 1, 2, have several scans that differ in task; .*--only '\*_task-n", "*_task-rest_*"),
        (
            add_layout,
            r"several kinds, each of other people \(BIDS .*: 1, 2, 3; XCP-D, MNI152NLin6Asym: 4\).*--only",
            "*_desc-preproc_*",
        ),
    ],
)
def test_a_choice_that_is_not_clear_is_refused_with_the_glob_that_makes_it(
    change, words, only, scans, derive, tmp_path
):
    change(scans)
    done = derive(scans)
    assert (done.status, done.out) == (2, "")
    assert re.search(words, done.err) and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    if only:
        assert derive(scans, "--only", only).status == 0


def test_people_whose_scan_is_not_clear_fail_together_and_the_others_are_done(derive, tmp_path):
    """Two resolutions of two people, two echoes of another: one line for each kind, whose advice does the rest."""
    scans = write_people(tmp_path / "fmriprep", "1234567")
    for label in "12":
        write_person(scans, label, REST.replace("_desc", "_res-2_desc"))
    for echo in "12":
        write_person(scans, "3", REST.replace("_space", f"_echo-{echo}_space"))
    one(scans, f"sub-3_{REST}.nii.gz").unlink()
    done = derive(scans)
    assert done.status == 2
    assert re.search(r"(?m)^sub-1, sub-2: several scans that differ in res; .*--only '\*_res-2_\*'\.$", done.out)
    assert re.search(r"(?m)^sub-3: several scans that differ in echo; .*--only '\*_echo-1_\*' or --only", done.out)
    assert "4 people derived, 0 were there, 3 failed." in done.out
    assert "3 people failed, for the reasons above: 1, 2, 3. Do what these say, then repeat the command" in done.err
    chosen = derive(scans, "--only", "*_echo-1_*")
    assert "1 people derived, 0 were there, 0 failed." in chosen.out
    assert derive(scans, "--only", "*_res-2_*").status == 0
    names = {path.name.replace(path.parts[-3], "sub") for path in (tmp_path / "out").rglob("sub-*.nii.gz")}
    assert len(names) == 1, "convert refuses maps of several kinds"
    again = derive(scans)
    assert again.status == 0, again.err
    assert "Scans of 3 people as --only chose them before: 1, 2, 3." in again.out
    assert "0 people derived, 7 were there, 0 failed." in again.out
    assert derive(scans, "--maps", "alff").status == 0
    sources = json.loads(one(tmp_path / "out", "sub-1_*stat-alff*.json").read_text())["Sources"]
    assert sources and all("_res-2_" in of for of in sources if of.endswith(".nii.gz"))


def test_people_without_a_table_of_confounds_are_one_line(scans, derive):
    write_confounds(one(scans, f"sub-2_{REST}.nii.gz"), confounds(2))
    done = derive(scans, "--confounds", "simple-6")
    assert re.search("(?m)^sub-1, sub-3: no table of confounds for --confounds simple-6; ", done.out)
    assert "1 people derived, 0 were there, 2 failed." in done.out


def test_only_chooses_among_scans_that_a_column_names(scans, derive, tmp_path):
    """As the error says, when a table names two scans of a person."""
    write_person(scans, "1", REST.replace("rest", "nback"))
    paths = [str(path.relative_to(scans)) for path in sorted(scans.rglob("*_desc-preproc_bold.nii.gz"))]
    table = tmp_path / "people.csv"
    write_rows(table, [{"id": re.findall("sub-(.)", path)[0], "bold": path} for path in paths])
    how = ("--boldColumn", "bold", "--table", table, "--idColumn", "id")
    assert "sub-1: several scans that differ in task" in derive(scans, *how).out
    assert derive(scans, *how, "--only", "*_task-rest_*").status == 0
    write_rows(table, [{"id": "1", "bold": paths[0]}, {"id": "1", "bold": paths[0]}])
    assert "names one scan twice for 1; expected it once" in derive(scans, *how).err


MOTION_6 = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
MOTION_12 = [*MOTION_6, *(f"{name}_derivative1" for name in MOTION_6)]


@pytest.mark.parametrize("choice, motion", [("simple-12", MOTION_12), ("simple-6", MOTION_6)])
def test_fewer_parameters_of_motion_are_regressed_out(choice, motion, scans, derive, tmp_path):
    table = confounds(1)
    write_confounds(one(scans, f"sub-1_{REST}.nii.gz"), table)
    assert "1 people derived" in derive(scans, "--confounds", choice).out
    regressors = table[[*motion, "csf", "white_matter", "cosine00"]].bfill(limit=1).to_numpy()
    wanted = expected(bold(1)[inside()].T, inside(), regressors=regressors)
    np.testing.assert_allclose(values_of(tmp_path / "out", "1"), wanted, rtol=2e-4)
    assert facts(tmp_path / "out", "1")["Confounds"] == choice


def test_a_short_scan_is_told_to_take_fewer_confounds_and_then_is_done(tmp_path, derive):
    """48 volumes have 18 sinusoids in the band: 27 confounds leave nothing of them, 9 leave enough."""
    scans = write_people(tmp_path / "fmriprep", "12", volumes=48)
    for label in "12":
        write_confounds(one(scans, f"sub-{label}_{REST}.nii.gz"), confounds(int(label), volumes=48))
    refused = derive(scans)
    assert "with 27 confounds leave 0 degrees of freedom" in refused.out
    assert "Take fewer confounds (--confounds simple-6, or none)" in refused.out
    assert derive(scans, "--confounds", "simple-6").status == 0


def test_native_scans_beside_are_left_alone(scans, derive):
    for label in "123":
        write_person(scans, label, "task-rest_space-T1w_desc-preproc_bold")
    done = derive(scans)
    assert done.status == 0
    assert "Left alone: 3 in space T1w." in done.out


# Wrong scans


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def tr_of(path: Path, tr_s: float, unit: str, said: object = None) -> None:
    save(path, image(bold(2), tr_s=tr_s, unit=unit))
    beside = path.with_name(path.name.replace(".nii.gz", ".json"))
    beside.write_text(json.dumps({} if said is None else {"RepetitionTime": said}))


def of_mask(path: Path, values: np.ndarray, affine=AFFINE) -> None:
    save(path.with_name(path.name.replace("preproc_bold", "brain_mask")), image(values, affine))


def filtered(path: Path) -> None:
    times = 2 * np.pi * 0.05 * TR_S * np.arange(VOLUMES)
    random = np.random.default_rng(0).normal(size=(*SHAPE, 2))
    save(path, image(inside()[..., None] * (random @ [np.sin(times), np.cos(times)]).astype(np.float32)))


FAULTS = {
    "cut off": (cut, "is not a readable NIfTI map"),
    "3-D": (lambda path: save(path, image(bold(2)[..., 0])), "is 3-D"),
    "no repetition time": (lambda path: tr_of(path, 0, "sec"), "does not say its repetition time.*RepetitionTime in"),
    "milliseconds without a unit": (lambda path: tr_of(path, 2000, "unknown"), "does not say its repetition time"),
    "milliseconds in the JSON": (lambda path: tr_of(path, 2, "sec", 2000), "RepetitionTime is 2000; expected seconds"),
    "empty mask": (lambda path: of_mask(path, np.zeros(SHAPE, np.uint8)), "brain_mask.* is empty"),
    "mask of another shape": (lambda path: of_mask(path, np.ones((9, 9, 8), np.uint8)), "has another grid"),
    "mask of another affine": (lambda path: of_mask(path, np.ones(SHAPE, np.uint8), 2 * AFFINE), "has another grid"),
    "nothing varies": (lambda path: save(path, image(0 * bold(2))), "holds nothing that varies"),
    "no number": (lambda path: save(path, image(np.nan * bold(2))), "NaN or infinity in 168 of 168 voxels"),
    "four volumes": (lambda path: save(path, image(bold(2)[..., :4])), "(no frequency|degrees of freedom)"),
    "confounds of another length": (lambda path: write_confounds(path, confounds(2, 50)), "50 rows, .* 120 volumes"),
    "confounds without columns": (
        lambda path: write_confounds(path, confounds(2)[["csf", "cosine00"]]),
        "does not serve --confounds simple: .*Take another of --confounds",
    ),
    "confounds with text": (
        lambda path: write_confounds(path, confounds(2).assign(csf="x")),
        "holds 'x' in the column csf; expected numbers, or n/a",
    ),
    "values too large": (lambda path: save(path, image(bold(2) * 1e30)), "varies by .*Was it scaled by mistake"),
    "values too small": (lambda path: save(path, image(bold(2) * 1e-30)), "varies by .*Was it scaled by mistake"),
    "filtered": (filtered, "was filtered before, so fALFF says nothing"),
}


@pytest.mark.slow
def test_a_wrong_scan_is_a_line_and_the_others_are_done(derive, tmp_path):
    labels = {fault: str(number) for number, fault in enumerate(FAULTS, 2)}
    scans = write_people(tmp_path / "fmriprep", ["1", *labels.values()])
    for fault, (spoil, _) in FAULTS.items():
        spoil(one(scans, f"sub-{labels[fault]}_{REST}.nii.gz"))
    done = derive(scans)
    assert done.status == 2
    for fault, (_, words) in FAULTS.items():
        assert re.search(f"(?m)^sub-{labels[fault]}: .*{words}", done.out), fault
    assert done.err.startswith("abide-data: error: 17 people failed, for the reasons above: 10, 11, 12, 13, 14, 15, ")
    advice = ". Do what these say, then repeat the command; until then, convert leaves these people out.\n"
    assert done.err.endswith(advice) and done.err.count("\n") == 1
    assert "1 people derived, 0 were there, 17 failed." in done.out
    assert (
        not list((tmp_path / "out").glob("sub-*[02-9]/func")) and len(list((tmp_path / "out").rglob("*.nii.gz"))) == 1
    )


def test_no_volume_is_kept(scans, derive):
    for label in "123":
        moved = range(VOLUMES) if label == "2" else ()
        write_confounds(one(scans, f"sub-{label}_{REST}.nii.gz"), confounds(int(label), moved=moved))
    assert re.search(
        "(?m)^sub-2: .*no volume is kept by --confounds scrubbing", derive(scans, "--confounds", "scrubbing").out
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (("--maps", "falff,lfcd"), "--maps lfcd is not known; expected of falff, alff"),
        (("--maps", "dual_regression"), "go together"),
        (("--networks", "nets.nii.gz"), "go together"),
        (("--band", "0.1,0.01"), "expected LOW,HIGH in Hz"),
        (("--share", "3/2"), "expected K/N"),
        (("--smooth", "0"), "expected a width in mm"),
        (("--only", "*ses-9*"), "matches none of 3 scans"),
        (("--series", "participants.tsv"), "is no NIfTI map by its name"),
        (("--table", "nowhere.csv"), "is no file"),
        (("--idColumn", "id"), "goes with --boldColumn"),
    ],
)
def test_options_that_cannot_be(options, words, scans, derive, tmp_path):
    done = derive(scans, *options)
    assert done.status == 2
    assert words in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_not_written(scans, data_cli):
    done = data_cli("derive", scans, scans)
    assert done.status == 2
    assert "is not empty and was not written by this command" in done.err


# What is read rightly


def nearly(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=1e-4)


def scaled(path: Path) -> None:
    """int16 with a slope."""
    made = image((bold(2) / 0.05).round().astype(np.int16))
    made.header.set_slope_inter(0.05, 0)
    save(path, made)


OBLIQUE = AFFINE @ nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1, 0.05, 0.2))
SAME = {
    "int16 with a slope": (scaled, None),
    "milliseconds in the header": (lambda path: tr_of(path, 2000, "msec"), None),
    "no JSON": (lambda path: path.with_name(path.name.replace(".nii.gz", ".json")).unlink(), None),
    "header and JSON differ": (
        lambda path: tr_of(path, 3, "sec", TR_S),
        "1 people: header and JSON differ in the repetition time; that of the JSON is taken: 2.",
    ),
}


@pytest.mark.parametrize("change, words", SAME.values(), ids=SAME)
def test_forms_of_the_same_scan_give_the_same_map(change, words, scans, derive, tmp_path):
    change(one(scans, f"sub-2_{REST}.nii.gz"))
    done = derive(scans)
    assert (done.status, done.err) == (0, "")
    nearly(values_of(tmp_path / "out", "2"), expected(bold(2)[inside()].T, inside()))
    assert words is None or words in done.out


def test_voxels_without_numbers_are_left_out_and_named(scans, derive, tmp_path):
    values = bold(2)
    values[4, 4, 4, 7] = np.nan
    save(one(scans, f"sub-2_{REST}.nii.gz"), image(values))
    done = derive(scans)
    assert "1 people: voxels without a number in some volume are left out of the mask: 2." in done.out
    found, rest = values_of(tmp_path / "out", "2"), inside()
    rest[4, 4, 4] = False
    nearly(found, expected(bold(2)[rest].T, rest))
    assert facts(tmp_path / "out", "2")["NumberOfVoxels"] == rest.sum()


@pytest.mark.parametrize(
    "affine", [OBLIQUE, np.diag([-1, 1, 1, 1.0]) @ AFFINE, AFFINE / 6], ids=["oblique", "RAS", "4 mm"]
)
def test_affines_are_kept(affine, tmp_path, derive):
    scans = tmp_path / "fmriprep"
    path = write_person(scans, "1", mask=False)
    affine = np.array(affine)
    affine[3] = 0, 0, 0, 1
    save(path, image(bold(1), affine))
    networks = save(tmp_path / "nets.nii.gz", image(np.random.default_rng(0).normal(size=(*SHAPE, 2)), AFFINE))
    done = derive(scans, "--maps", "falff,vmhc,dual_regression", "--networks", networks)
    assert done.status == 0, done.out
    found = nibabel.load(one(tmp_path / "out", "*stat-falff_boldmap.nii.gz"))
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    assert found.header["sform_code"] == 4
    nearly(found.get_fdata(), expected(bold(1)[inside()].T, inside()))


def test_a_damaged_end_of_a_compressed_scan_is_found(scans, derive):
    """Its checksum, which nibabel does not read."""
    path = one(scans, f"sub-2_{REST}.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(path.read_bytes())
    assert re.search("(?m)^sub-2: .*CRC check failed", derive(scans).out)


@pytest.mark.slow
def test_a_scan_that_was_not_masked_is_measured_in_the_mask_of_its_mean(tmp_path, derive):
    """Head in a noisy background, larger than the other scans, since nilearn opens the mask."""
    scans, shape = tmp_path / "fmriprep", (20, 22, 20)
    path = write_person(scans, "1", mask=False, shape=shape)
    noise = np.random.default_rng(0).normal(50, 5, (*shape, VOLUMES)).astype(np.float32)
    save(path, image(np.where(inside(shape)[..., None], bold(1, shape=shape), noise), np.diag([8.0, 8, 8, 1])))
    assert derive(scans).status == 0
    found = values_of(tmp_path / "out", "1") != 0
    assert (found & inside(shape)).sum() > 0.9 * inside(shape).sum() and (
        found & ~inside(shape)
    ).sum() < 0.1 * found.sum()


def test_scans_whose_names_do_not_say_whose_they_are_are_named_and_left_alone(scans, derive, tmp_path):
    """A label of other characters than letters and digits; the first part of one would be another person's."""
    for folder in (scans, tmp_path / "odd"):
        for odd in ("AB_1", "A.1", "A 1"):
            save(folder / f"sub-{odd}" / f"sub-{odd}_{REST}.nii.gz", image(bold(1)))
    assert "'sub-AB_1_" in derive(tmp_path / "odd").err
    ran = derive(scans)
    assert "Left alone: 3 scans whose names do not say whose they are: " in ran.out and "sub-AB_1_" in ran.out
    assert not (tmp_path / "out" / "sub-AB").exists()


def test_a_name_of_a_parcel_that_a_table_cannot_hold_is_refused(tmp_path, scans, derive):
    atlas = save(tmp_path / "atlas.nii.gz", image(np.ones(SHAPE, np.int16)))
    (tmp_path / "atlas.tsv").write_text('index\tname\n1\t"left\tright"\n')
    assert "has the name of a parcel 'left\\tright'; expected one line" in derive(scans, "--series", atlas).err
    assert not (tmp_path / "out").exists()
