"""derive --like COHORT: new people's scans become what a cohort's would have, byte for byte, or the reason why not."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers import resealed, run_main, write_rows
from scans import REST, SHAPE, SPACE, confounds, image, save, write_confounds, write_people, write_person

from data.base import archive, files
from data.base.errors import InputError
from data.cohorts.stored import carry_tables, open_cohort
from data.conversion import template
from data.derivation.job import derivation_of

OLD, NEW = ("1", "2", "3"), ("4", "5")
OPTIONS = ("--maps", "falff,dual_regression", "--band", "0.02,0.08", "--smooth", "30", "--confounds", "simple")
CODING = ("--labelColumn", "group", "--positive", "A", "--grid", "reduced", "--phenotype", "")
CONVERTED = ("--maps", "falff,dual_regression", "--connectome", "seg-myatlas")


def scans_of(folder: Path, labels: tuple[str, ...]) -> Path:
    write_people(folder, labels)
    for label in labels:
        write_confounds(folder / f"sub-{label}/func/sub-{label}_{REST}.nii.gz", confounds(int(label)))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, data_cli) -> Path:
    """Scans of old and new people, a derivative and a cohort of the old ones."""
    home = tmp_path_factory.mktemp("like")
    random = np.random.default_rng(0)
    save(home / "nets.nii.gz", image(random.normal(size=(*SHAPE, 2)).astype(np.float32)))
    (home / "nets.txt").write_text("visual\nmotor\n")
    save(home / "my_atlas.nii.gz", image((np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5).astype(np.int16)))
    (home / "my_atlas.tsv").write_text("index\tname\n" + "".join(f"{at}\tparcel{at}\n" for at in range(1, 5)))
    scans_of(home / "old", OLD)
    scans_of(home / "new", NEW)
    images = ("--networks", home / "nets.nii.gz", "--series", home / "my_atlas.nii.gz")
    for name in ("old", "new"):  # the new ones by options, to compare with
        done = data_cli("derive", home / name, home / f"{name}_maps", *OPTIONS, *images)
        assert (done.status, done.err) == (0, "")
    done = data_cli("convert", home / "old_maps", home / "cohort", *CONVERTED, *CODING)
    assert done.status < 2, done.err
    return home


def contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of each file, but for the one that says where the scans lie."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "dataset_description.json"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_the_cohort_keeps_choices_and_images(home):
    kept = derivation_of(home / "cohort")
    assert kept.derivation.measures == ("falff", "dual_regression")
    assert (kept.derivation.band, kept.derivation.smoothing_mm) == ((0.02, 0.08), 30.0)
    assert (kept.derivation.confounds, kept.derivation.scans) == ("simple", "preprocessed")
    assert kept.networks.read_bytes() == (home / "nets.nii.gz").read_bytes()
    assert kept.parcels.read_bytes() == (home / "my_atlas.nii.gz").read_bytes()
    assert (home / "cohort/derivation/parcels.tsv").read_bytes() == (home / "my_atlas.tsv").read_bytes()


@pytest.mark.slow
def test_new_people_get_the_bytes_that_the_same_options_give(home, tmp_path, data_cli):
    """By what the cohort keeps alone; then they are converted like it."""
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", home / "cohort")
    assert (done.status, done.err) == (0, "")
    assert "maps falff, dual_regression, band 0.02-0.08 Hz, smoothing 30 mm, networks nets.nii.gz (SHA-256 " in done.out
    assert contents(tmp_path / "maps") == contents(home / "new_maps")
    converted = data_cli("convert", tmp_path / "maps", tmp_path / "cohort", "--like", home / "cohort")
    assert converted.status < 2, converted.err
    assert "compared" not in converted.out
    new = open_cohort(tmp_path / "cohort")
    assert new.metadata.derivation == open_cohort(home / "cohort").metadata.derivation
    assert contents(tmp_path / "cohort/derivation") == contents(home / "cohort/derivation")
    assert new.connectomes.parcels == tuple(f"parcel{at}" for at in range(1, 5))
    checked = data_cli("check", tmp_path / "cohort")
    assert "derived from scans: falff, dual_regression; band 0.02-0.08 Hz" in checked.out


@pytest.mark.slow
def test_a_packed_cohort_will_do(home, tmp_path, data_cli):
    assert data_cli("pack", home / "cohort", tmp_path / "zip", "--zip").status == 0
    assert contents(tmp_path / "zip/derivation") == contents(home / "cohort/derivation")
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", tmp_path / "zip")
    assert done.status == 0
    assert contents(tmp_path / "maps") == contents(home / "new_maps")


@pytest.mark.slow
def test_what_is_derived_otherwise_is_not_converted_alike(home, tmp_path, data_cli):
    images = ("--networks", home / "nets.nii.gz", "--series", home / "my_atlas.nii.gz")
    assert data_cli("derive", home / "new", tmp_path / "maps", *OPTIONS, *images, "--smooth", "29").status == 0
    done = data_cli("convert", tmp_path / "maps", tmp_path / "out", "--like", home / "cohort")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "The maps were derived with smoothing 29 mm, those of " in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_is_not_said_is_not_compared(home, tmp_path, data_cli):
    """Of maps without JSON files, as of other programs, but with the names of their volumes."""
    maps = shutil.copytree(home / "new_maps", tmp_path / "maps")
    for path in maps.rglob("func/*.json"):
        labels = {key: value for key, value in json.loads(path.read_text()).items() if key == "LabelMap"}
        path.write_text(json.dumps(labels))
    done = data_cli("convert", maps, tmp_path / "cohort", "--like", home / "cohort")
    assert done.status < 2, done.err
    assert "How the new maps were derived is not known, so that could not be compared." in done.out
    assert open_cohort(tmp_path / "cohort").metadata.derivation is None
    with pytest.raises(InputError, match="does not say how its maps were derived from scans"):
        derivation_of(tmp_path / "cohort")


@pytest.mark.parametrize(
    "options, words",
    [
        (("--band", "0.01,0.1"), "--band is chosen by --like: {home}/cohort has 0.02,0.08. Leave it out."),
        (("--maps", "alff"), "--maps is chosen by --like: {home}/cohort has falff,dual_regression. Leave it out."),
        (("--smooth", "6"), "--smooth is chosen by --like: {home}/cohort has 30. Leave it out."),
        (("--confounds", "none"), "--confounds is chosen by --like: {home}/cohort has simple. Leave it out."),
        (
            ("--series", "{home}/nets.nii.gz"),
            "--series is chosen by --like: {home}/cohort has my_atlas.nii.gz (SHA-256",
        ),
        (("--networks", "{home}/my_atlas.nii.gz"), "--networks is chosen by --like: {home}/cohort has nets.nii.gz"),
    ],
)
def test_an_option_that_differs_is_refused(options, words, home, tmp_path, data_cli):
    given = [word.format(home=home) for word in options]
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", home / "cohort", *given)
    assert done.status == 2 and done.err.count("\n") == 1
    assert words.format(home=home) in done.err
    assert not (tmp_path / "maps").exists()


def test_options_that_agree_are_accepted_and_lend_what_is_not_kept(home, tmp_path, data_cli):
    cohort = shutil.copytree(home / "cohort", tmp_path / "cohort")
    shutil.rmtree(cohort / "derivation")
    resealed(cohort)
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", cohort)
    assert f"{cohort} does not keep the networks nets.nii.gz; name the same file with --networks." in done.err
    for name in ("nets.nii.gz", "nets.txt", "my_atlas.nii.gz", "my_atlas.tsv"):
        shutil.copy(home / name, tmp_path / f"renamed_{name}")
    given = ("--networks", tmp_path / "renamed_nets.nii.gz", "--series", tmp_path / "renamed_my_atlas.nii.gz")
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", cohort, *OPTIONS, *given)
    assert (done.status, done.err) == (0, "")
    assert contents(tmp_path / "maps") == contents(home / "new_maps")  # files are named by the cohort's names


def test_scans_that_were_cleaned_before_are_refused(home, tmp_path, data_cli):
    for label in NEW:
        write_person(tmp_path / "xcpd", label, f"{SPACE}_desc-denoised_bold")
    done = data_cli("derive", tmp_path / "xcpd", tmp_path / "maps", "--like", home / "cohort")
    assert done.status == 2 and done.err.count("\n") == 1
    assert f"was cleaned of confounds before, the scans of {home}/cohort were not cleaned of confounds" in done.err
    assert not (tmp_path / "maps").exists()


def test_who_has_no_table_of_confounds_is_named_and_the_others_are_done(home, tmp_path, data_cli):
    shutil.copytree(home / "new", tmp_path / "new")
    next((tmp_path / "new/sub-5").rglob("*confounds*")).unlink()
    done = data_cli("derive", tmp_path / "new", tmp_path / "maps", "--like", home / "cohort")
    assert done.status == 2
    assert "sub-5: " in done.out and "no table of confounds for --confounds simple" in done.out
    assert "1 people derived, 0 were there, 1 failed." in done.out


@pytest.mark.slow
def test_people_of_a_cohort_who_differ_leave_the_choice_of_confounds(tmp_path, data_cli):
    scans_of(tmp_path / "old", OLD)
    next((tmp_path / "old/sub-3").rglob("*confounds*")).unlink()
    assert data_cli("derive", tmp_path / "old", tmp_path / "maps").status == 0
    done = data_cli("convert", tmp_path / "maps", tmp_path / "cohort", *CODING)
    assert "treated in several ways, confounds: none of 1 people, 3; simple of 2 people, 1, 2." in done.out
    done = data_cli("derive", tmp_path / "old", tmp_path / "again", "--like", tmp_path / "cohort", "--jobs", "1")
    assert done.status == 0, done.err
    assert f"The people of {tmp_path / 'cohort'} differ in confounds; here they are as without --like." in done.out
    assert contents(tmp_path / "again") == contents(tmp_path / "maps")


def test_damage_is_found_by_derive_by_check_and_as_it_is_carried(home, tmp_path, data_cli):
    cohort = shutil.copytree(home / "cohort", tmp_path / "cohort")
    path = cohort / "derivation/networks.nii.gz"
    path.write_bytes(path.read_bytes()[:-4])
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", cohort)
    assert f"{path} is not what was written" in done.err
    assert f"PROBLEM: {path} is not what was written" in data_cli("check", cohort).out
    with pytest.raises(InputError, match=r"networks\.nii\.gz is not what was written"):
        carry_tables(open_cohort(cohort), tmp_path)


@pytest.mark.parametrize(
    "key, value",
    [
        ("band", [0.1, 0.01]),
        ("band", [-1, 0.1]),
        ("smoothing_mm", 1e9),
        ("scans", "washed"),
        ("networks", "x" * 300),
        ("parcels", "x" * 300),
    ],
)
def test_what_no_option_could_say_is_damage(key, value, home, tmp_path, data_cli):
    cohort = shutil.copytree(home / "cohort", tmp_path / "cohort")
    metadata = json.loads((cohort / "cohort.json").read_text())
    metadata["derivation"][key] = value
    (cohort / "cohort.json").write_text(json.dumps(metadata))
    resealed(cohort)
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", cohort)
    assert done.status == 2 and done.err.count("\n") == 1
    assert f"{cohort} is damaged, in how its maps were derived: " in done.err


def test_a_cohort_that_was_not_derived_or_is_none(tmp_path, home, data_cli):
    rows = [{"participant_id": f"sub-{label}", "group": "AC"[int(label) % 2]} for label in OLD]
    write_rows(tmp_path / "maps/participants.tsv", rows)
    for label in OLD:
        found = next((home / "old_maps" / f"sub-{label}").rglob("*stat-falff*.nii.gz"))
        shutil.copy(found, tmp_path / f"maps/sub-{label}_falff.nii.gz")
    assert data_cli("convert", tmp_path / "maps", tmp_path / "cohort", *CODING).status < 2
    done = run_main("data.__main__", "data", ["derive", home / "new", tmp_path / "out", "--like", tmp_path / "cohort"])
    assert done.status == 2 and "does not say how its maps were derived from scans; expected a cohort" in done.err
    done = run_main("data.__main__", "data", ["derive", home / "new", tmp_path / "out", "--like", tmp_path / "nowhere"])
    assert "nowhere does not exist" in done.err


def bundle_of(cohort: Path, target: Path, **changes: bytes | None) -> Path:
    """What a bundle says of a cohort, with other images."""
    opened = open_cohort(cohort)
    parts = {
        template.DATA: files.json_text(asdict(template.of_cohort(opened))).encode(),
        **template.derivation_parts(opened),
    }
    parts |= {template.PARCELS: archive.npy(opened.connectomes.image.astype("<i2"))}
    archive.write(target, {name: content for name, content in (parts | changes).items() if content is not None})
    return target


@pytest.mark.slow
def test_a_bundle_of_the_cohort_does_as_well(home, tmp_path, data_cli):
    path = bundle_of(home / "cohort", tmp_path / "a.zip")
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", path)
    assert (done.status, done.err) == (0, "")
    assert contents(tmp_path / "maps") == contents(home / "new_maps")
    for name in ("by-cohort", "by-bundle"):
        of = path if name == "by-bundle" else home / "cohort"
        done = data_cli(
            "convert", home / "new_maps", tmp_path / name, "--like", of, "--labelColumn", "group", *CODING[2:4]
        )
        assert done.status == 0, done.err
    one, other = contents(tmp_path / "by-cohort"), contents(tmp_path / "by-bundle")
    assert one.keys() == other.keys()
    differ = {str(name) for name in one if one[name] != other[name]}
    assert differ <= {"cohort.json", "seal.json", "check.json", "SHA256SUMS"}  # which command wrote them, and when


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_bundle_of_other_images_is_refused(content, home, tmp_path, data_cli):
    path = bundle_of(home / "cohort", tmp_path / "a.zip", **{"derivation/networks.nii.gz": content})
    done = data_cli("derive", home / "new", tmp_path / "maps", "--like", path)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "networks" in done.err
    assert not (tmp_path / "maps").exists()
