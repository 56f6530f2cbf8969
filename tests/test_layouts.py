"""abide-data convert: the same people in every layout, orientation and form of a table have the same records."""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import lab as labs
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done, refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import read_table
from nibabel import orientations

PEOPLE = labs.people(8)
THAT_DIFFER = ("cohort.json", "SHA256SUMS", "check.json")  # by the command, its input, and the time
ALL = range(1, 5)


def convert_to_bytes(source: Path, words: str = "", **places: Path) -> dict[str, bytes]:
    """The files of the reduced cohort of a folder that must convert."""
    to = source.with_name(f"cohort-{source.name}")
    done(f"abide-data convert {{source}} {{to}} --grid reduced {words}", source=source, to=to, **places)
    return {path.name: path.read_bytes() for path in to.iterdir() if path.name not in THAT_DIFFER}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    """Of the layout of the Preprocessed Connectomes Project."""
    bytes_by_name = convert_to_bytes(labs.pcp(tmp_path_factory.mktemp("reference") / "pcp", PEOPLE))
    tables = {"subjects.csv", "covariates.csv", "phenotype.csv", "maps.csv"}
    assert bytes_by_name.keys() == tables | {f"{name}.bin" for name in PEOPLE["SUB_ID"]}
    return bytes_by_name


def drop_covariates(bytes_by_name: dict[str, bytes]) -> dict[str, bytes]:
    """Without what tells how the columns of covariates were called, or in which order they stood."""
    return {name: content for name, content in bytes_by_name.items() if name != "covariates.csv"}


# Layouts


@pytest.mark.slow
def test_all_layouts_give_the_same_records(reference, tmp_path):
    labels = "--labelColumn group --positive A"
    assert drop_covariates(convert_to_bytes(labs.bids(tmp_path / "bids", PEOPLE), labels)) == drop_covariates(reference)
    flat = labs.flat(tmp_path / "flat", PEOPLE)
    assert convert_to_bytes(flat, "--table {table}", table=tmp_path / "flat.csv") == reference
    column_options = "--mapColumn path --labelColumn diagnosis --positive ASD"
    assert drop_covariates(
        convert_to_bytes(labs.write_maps_by_column(tmp_path / "named", PEOPLE), column_options)
    ) == drop_covariates(reference)


def make_reorientation(codes: str) -> Callable:
    """The same map with its axes stored as `codes` says: LPS, or PSR for rotated axes."""

    def change(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = nibabel.Nifti1Image(values, affine)
        target_orientation = orientations.axcodes2ornt(codes)
        turned = image.as_reoriented(
            orientations.ornt_transform(orientations.io_orientation(affine), target_orientation)
        )
        assert "".join(orientations.aff2axcodes(turned.affine)) == codes != "LAS"
        return np.asarray(turned.dataobj), turned.affine

    return change


@pytest.mark.slow
def test_the_orientation_on_disk_does_not_matter(reference, tmp_path):
    folder = labs.pcp(tmp_path / "turned", PEOPLE)
    for path, codes in zip(sorted(folder.rglob("*.nii.gz")), ("RAS", "LPS", "PSR", "ILA") * 2, strict=True):
        labs.edit(path, make_reorientation(codes))
    assert convert_to_bytes(folder) == reference


@pytest.mark.slow
def test_a_folder_with_much_else_gives_the_same_records(reference, tmp_path):
    """Both compressions, links to folders, one that leads back up, what macOS leaves, other spaces and names."""
    folder = labs.bids(tmp_path / "bids", PEOPLE)
    lab = folder / "derivatives/lab"
    first, second, third, *_ = sorted(lab.iterdir())
    first.rename(tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    (second / "back").symlink_to(folder)
    (path,) = third.rglob("*.nii.gz")
    nibabel.save(nibabel.load(path), path.with_suffix(""))
    path.unlink()
    for name in ("sub-50002/func/._sub-50002_task-rest_falff.nii.gz", "sub-50003/sub-50003_space-T1w_falff.nii.gz"):
        (lab / name).write_bytes(b"no map")
    (folder / "fALFFMap_1.nii").write_bytes(b"no map")
    (folder / "participants.tsv").rename(folder / "people.tsv")
    (folder / "derived.csv").write_text("participant,status\n50002,done\n")  # as `derive` leaves it beside the table
    words = "--labelColumn group --positive A"
    assert drop_covariates(convert_to_bytes(folder, words)) == drop_covariates(reference)
    dry_output = run(f"abide-data convert {{folder}} {{to}} --dryRun {words}", folder=folder, to=tmp_path / "x").out
    assert re.search("left alone: 1 in space T1w, such as .*, 1 of DPABI, such as fALFFMap_1.nii", dry_output)


# Tables


def make_european(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


def as_saved(text: str) -> str:
    """A byte-order mark, Windows line ends, blanks, and another word for "unknown"."""
    header, *lines = text.replace("-9999", "`").replace(",,", ",-9999.0,").splitlines()
    return "\ufeff" + "\r\n".join([header, *(re.sub(r",([^,]*)", r", \1 ", line) for line in lines)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [make_european, lambda text: "sep=;\n" + make_european(text), as_saved, lambda text: text + "60001\n\n"]
)
def test_a_table_saved_differently_gives_the_same_records(change, reference, tmp_path):
    folder = labs.pcp(tmp_path / "pcp", PEOPLE)
    (folder / "Phenotypic.csv").write_text(change((folder / "Phenotypic.csv").read_text()), newline="")
    assert convert_to_bytes(folder) == reference


@pytest.mark.slow
@pytest.mark.parametrize(
    "values, words, expected",
    [
        (["ASD", "TD"], "TD", "01"),
        (["1.0", "2"], "' 1 '", "10"),
        (["01", "2"], "1", "10"),
        (["TD", "Asperger, mild"], "'Asperger, mild'", "01"),
        (["ASD", "TD", "asd", "td"], "ASD,asd --negative TD,td", "1010"),
        (["ASD", "TD", "3", "ADHD"], "ASD,3.0 --negative TD", "101."),
        (["ASD", "TD", "ASD", "-9999"], "ASD", "101."),
    ],
)
def test_the_listed_values_decide_labels(values, words, expected, tmp_path):
    folder = labs.pcp(tmp_path / "pcp", PEOPLE)
    labs.edit(folder / "Phenotypic.csv", lambda table: table.assign(DX_GROUP=values * (8 // len(values))))
    convert_to_bytes(folder, f"--labelColumn DX_GROUP --positive {words}")
    rows = read_table(tmp_path / "cohort-pcp/subjects.csv").set_index("subject")["label"]
    label_pairs = zip(PEOPLE["SUB_ID"], expected * (8 // len(expected)), strict=True)
    assert rows.to_dict() == {subject: label for subject, label in label_pairs if label != "."}


@pytest.mark.slow
def test_the_site_follows_the_options(tmp_path):
    folder = labs.pcp(tmp_path / "pcp", PEOPLE.assign(MRI_system=[*"ABCD"] * 2, deviation=PEOPLE.index.astype(str)))

    rename = {"SITE_ID": "CENTRE"}
    labs.edit(folder / "Phenotypic.csv", lambda table: table.replace("NYU", " New  York ").rename(columns=rename))
    dry_output = done("abide-data convert {of} {to} --siteColumn CENTRE --dryRun", of=folder, to=tmp_path / "x")
    assert "CENTRE, 3 sites; MRI_system looks like a site" in dry_output
    convert_to_bytes(folder, "--siteColumn CENTRE")
    expected = PEOPLE["SITE_ID"].replace("NYU", "New York").tolist()
    assert read_table(tmp_path / "cohort-pcp/subjects.csv")["site"].tolist() == expected
    nowhere = tmp_path / "nowhere"
    assert "Site is unknown" in done("abide-data convert {of} {to} --siteColumn ''", of=folder, to=nowhere)
    assert len({*read_table(nowhere / "subjects.csv")["site"]}) == 1
    assert "CENTRE" not in read_table(nowhere / "covariates.csv")


# Which of several maps


SEVERAL = [
    [f"{kind}fALFFMap_{n}.nii" for n in ALL for kind in ("", "m", "z")],
    [f"Results/{variant}/fALFFMap_{n}.nii" for n in ALL for variant in ("fALFF_ARWC", "fALFF_ARglobalWC")],
    [f"sub-0{n}/ses-{s}/func/sub-0{n}_ses-{s}_falff.nii.gz" for n in ALL for s in "12"],
    [f"sub-{n}/sub-{n}_space-MNI_desc-{d}_falff.nii.gz" for n in ALL for d in ("raw", "smooth")],
    [f"sub-{n}/sub-{n}_space-MNI152NLin{s}Asym_falff.nii.gz" for n in ALL for s in ("6", "2009c")],
    [f"{p}/filt_global/NYU_{n}_falff.nii.gz" for n in ALL for p in ("cpac", "dparsf")],
    [f"fALFFMap_Sub_00{n}_ses-{s}.nii" for n in ALL for s in "12"],
    [f"NYU_00{n}_session_{s}_falff.nii.gz" for n in ALL for s in "12"],
    [f"{n}_falff{suffix}" for n in ALL for suffix in (".nii", ".nii.gz")],
    [f"{variant}/{n}_falff.nii" for n in ALL for variant in ("old [1]", "new")],
]
KINDS = [  # each of other people
    [f"{kind}fALFFMap_{n}.nii" for n, kind in enumerate("mmzz")],
    [f"sub-{n}/ses-{s}/func/sub-{n}_ses-{s}_falff.nii.gz" for n, s in enumerate("1122")],
    [f"{p}/NYU_{n}_falff.nii.gz" for n, p in enumerate(["cpac/filt_global", "cpac/nofilt_global"])],
    [f"{p}/NYU_{n}_falff.nii.gz" for n, p in enumerate(["cpac/x", "dparsf/x"])],
    [f"fALFFMap_{n}{s}.nii" for n, s in enumerate(["_ses1", "_ses1", "_ses2"])],
]
XCP = "sub-{n}/sub-{n}_stat-{map}_{rest}boldmap.nii.gz"
TWO, SMOOTHED = (
    [XCP.format(n=n, map=variant, rest=rest) for n in ALL for variant in ("alff", "reho")]
    for rest in ("", "desc-smooth_")
)


def write_empty_files(folder: Path, names: list[str]) -> Path:
    """Empty files; which are chosen is told by their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


NO_TABLE = "has no table of participants"  # what is lacking once the maps are clear


def read_error(folder: Path, words: str = "") -> str:
    return run(f"abide-data convert {{folder}} {{folder}}-to {words}", folder=folder).err


@pytest.mark.parametrize(
    "names, maps",
    [
        *((names, "falff") for names in (*SEVERAL, *KINDS)),
        *((names, "alff,reho") for names in (TWO + SMOOTHED[::2], TWO + SMOOTHED)),
    ],
)
def test_with_several_maps_none_is_guessed_and_the_advice_works(names, maps, tmp_path):
    """The glob that is advised chooses as many of each map as it says, and is not refused."""
    folder = write_empty_files(tmp_path / "maps", names)
    words = (
        "several maps",
        "each for other participants" if names in KINDS else "expected one a participant",
        "--mapColumn",
    )
    line = refused(f"abide-data convert {{folder}} {{folder}}-to --maps {maps}", *words, folder=folder)
    ((quoted, count),) = re.findall(r"--only ('.+?')(?: \((\d+) participants\))?", line)
    (only,) = shlex.split(quoted)
    chosen = [name for name in names if any(fnmatchcase(name, glob) for glob in {only, *only.split(",")})]
    assert len(chosen) == int(count or 1) * len(maps.split(","))
    assert NO_TABLE in read_error(folder, f"--maps {maps} --only {quoted}")


@pytest.mark.parametrize(
    "names, words",
    [
        ([f"sub-{n}/sub-{n}_falff.nii.gz" for n in ("0012", "12", "13", "14", "15")], "for 0012 of 4 participants"),
        ([f"sub-{n}{'_res-1' * (n == 4)}_falff.nii.gz" for n in ALL], "each for other participants"),
    ],
)
def test_a_glob_losing_most_people_is_no_advice(names, words, tmp_path):
    """One ID is spelt in two ways; one person has another resolution."""
    folder = write_empty_files(tmp_path / "maps", names)
    line = refused("abide-data convert {folder} {folder}-to", words, "Remove or rename one", folder=folder)
    assert "--only" not in line


def test_sites_in_folders_and_both_compressions_are_a_single_kind(tmp_path):
    folder = write_empty_files(tmp_path / "maps", ["NYU/1_falff.nii", "NYU/2_falff.nii.gz", "USM/3_falff.nii.gz"])
    assert NO_TABLE in read_error(folder)


ENTITIES = [f"_{name}-{value}" for name, value in (("ses", 1), ("ses", 2), ("run", 1), ("run", 2), ("desc", "smooth"))]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_glob_from_a_refusal_always_works(data):
    """For all maps together, of people who have several each: sessions, runs, smoothed or compressed, in folders."""
    kinds = st.tuples(st.lists(st.sampled_from(ENTITIES), unique=True, max_size=2), st.sampled_from(["", ".gz"]))
    maps = data.draw(st.sampled_from([("alff",), ("alff", "reho"), ("falff", "alff", "reho")]))
    entities_by_map = {name: data.draw(st.lists(kinds, min_size=1, max_size=3, unique_by=str)) for name in maps}
    place = data.draw(st.sampled_from(["sub-{n}/func/", "", "old's [1]/"]))
    names = [
        f"{place.format(n=n)}sub-{n}{''.join(entities)}_{name}.nii{end}"
        for name, several in entities_by_map.items()
        for entities, end in several
        for n in ("01", "02", "11")
    ]
    with tempfile.TemporaryDirectory() as top:
        folder = write_empty_files(Path(top) / "no/table/above/maps", names)
        words = f"--maps {','.join(maps)}"
        line = read_error(folder, words)
        if advised_glob := re.findall(r"such as with --only (.*) \(3 participants\), or", line):
            assert NO_TABLE in read_error(folder, f"{words} --only {advised_glob[0]}")
        else:
            assert NO_TABLE in line or "Remove or rename one, or name each" in line


@pytest.mark.slow
def test_the_users_choice(reference, tmp_path):
    folder = labs.flat(tmp_path / "flat", PEOPLE)
    for path in list(folder.glob("*.nii")):
        path.with_name(path.name.replace("zf", "mf")).write_bytes(b"not chosen")
    assert convert_to_bytes(folder, "--table {table} --only 'zf*'", table=tmp_path / "flat.csv") == reference


DEGREES = ("Weighted", "Binarized")


@pytest.mark.parametrize(
    "name, map_pattern, decoy_pattern",
    [
        ("alff", "sub-{n}/sub-{n}_space-MNI_stat-alff_boldmap.nii.gz", "sub-{n}/sub-{n}_stat-falff_boldmap.nii.gz"),
        ("reho", "sub-{n}/sub-{n}_stat-reho_desc-smooth_boldmap.nii", "sub-{n}/sub-{n}_stat-alff_boldmap.nii"),
        ("degree_weighted", "NYU_{n}_degree_weighted.nii.gz", "NYU_{n}_degree_binarize.nii.gz"),
        ("alff", "Results/ALFFMap_{n}.nii", "Results/fALFFMap_{n}.nii"),
        ("reho", "szReHoMap_{n}.nii", "szALFFMap_{n}.nii"),
        ("degree_weighted", *(f"sub-{{n}}_degree{variant}.nii" for variant in DEGREES)),
        ("degree_weighted", *(f"DegreeCentrality_Positive{variant}SumBrainMap_{{n}}.nii" for variant in DEGREES)),
        ("dual_regression", "NYU_{n}_dual_regression.nii.gz", "NYU_{n}_falff.nii.gz"),
        ("dual_regression", "sub-{n}/sub-{n}_stat-dualregression_boldmap.nii.gz", "sub-{n}/sub-{n}_bold.nii.gz"),
        ("dual_regression", "sub-{n}_space-template_desc-DualReg_correlations.nii.gz", "sub-{n}_desc-MultReg_x.nii"),
        (
            "degree_weighted",
            *(f"sub-{{n}}_desc-{variant}_degree-centrality.nii" for variant in ("weighted", "binarized")),
        ),
        (
            "eigenvector_weighted",
            *(f"sub-{{n}}_desc-weighted_{variant}-centrality.nii" for variant in ("eigen", "degree")),
        ),
    ],
)
def test_a_map_is_recognised_by_name_in_all_layouts(name, map_pattern, decoy_pattern, tmp_path):
    """Those of other names could not be read."""
    folder = labs.write_maps_under_names(tmp_path / "maps", [map_pattern.format(n=f"00{n}") for n in ALL])
    write_empty_files(folder, [decoy_pattern.format(n=f"00{n}") for n in ALL])
    table = pd.DataFrame({"ID": [f"00{n}" for n in ALL], "FILE_ID": [f"NYU_00{n}" for n in ALL], "dx": [*"abab"]})
    table.to_csv(folder / "people.csv", index=False)
    words = f"--maps {name} --labelColumn dx --positive a --phenotype '' --grid reduced --dryRun"
    dry_output = done(f"abide-data convert {{folder}} {{to}} {words}", folder=folder, to=tmp_path / "to")
    assert ": 4 maps" in dry_output and "train 2 (" in dry_output


@pytest.mark.slow
def test_tensorflow_is_never_imported(tmp_path):
    """A conversion, which ends with a check, in a process that fails if anything imports TensorFlow."""
    labs.pcp(tmp_path / "pcp", PEOPLE)
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "data", "convert", "pcp", "cohort", "--grid", "reduced"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode in (0, 1) and "forecast" in finished.stdout, finished.stderr


def apart(text: str) -> str:
    """With accents in characters of their own, as a Mac stores names of files."""
    return unicodedata.normalize("NFD", text)


def test_both_accent_spellings_are_equal(tmp_path):
    """In sites, categories, IDs, names of columns and of files, on disk, in the table or as typed."""
    table = labs.people(24).rename(columns={"SITE_ID": "Größe"})
    table["Größe"] = [spelt("Zürich") for spelt in (apart, str) * 12]
    table["hand"] = [spelt(hand) for spelt in (apart, str, str) for hand in ("größer", "á", "á", "größer") * 2]
    table["FILE_ID"] = [apart(f"Zoë{number}") for number in range(24)]
    labs.pcp(tmp_path / "named", table)
    table["FILE_ID"] = table["FILE_ID"].map(lambda name: unicodedata.normalize("NFC", name))
    table["path"] = [f"cpac/{name}_falff.nii.gz" for name in table["FILE_ID"]]
    table.drop(columns="SUB_ID").to_csv(tmp_path / "named/Phenotypic.csv", index=False)
    words = f"--labelColumn DX_GROUP --positive 1 --siteColumn {apart('Größe')} --phenotype hand"
    by_name = convert_to_bytes(tmp_path / "named", words)
    rows = pd.read_csv(io.BytesIO(by_name["subjects.csv"]))
    assert {*rows["site"]} == {"Zürich"} and {*rows["subject"]} == {f"Zoë{number}" for number in range(24)}
    header = by_name["phenotype.csv"].decode().splitlines()[0]
    assert header.startswith("subject,hand_größer,hand_á,unused_3,")
    (tmp_path / "named").rename(tmp_path / "by_column")
    assert convert_to_bytes(tmp_path / "by_column", f"{words} --mapColumn path --idColumn FILE_ID") == by_name


def test_a_script_cohort_has_a_single_site_for_both_spellings(tmp_path):
    labs.records(tmp_path / "script", 4)
    (tmp_path / "script/4.bin").rename(tmp_path / f"script/{apart('Zoë')}.bin")
    names = ["1", "2", "3", apart("Zoë")]
    spellings: tuple[Callable[[str], str], ...] = (apart, str) * 2
    lines = [
        f"{name}.bin,{name},{spell('Zürich')},{int(number % 2 == 0)},train"
        for number, (name, spell) in enumerate(zip(names, spellings, strict=True))
    ]
    (tmp_path / "script/subjects.csv").write_text("\n".join(["file,subject,site,label,split", *lines, ""]))
    (tmp_path / "script/cohort.json").write_text('{"grid": [31, 37, 31]}')
    done("abide-data pack {of}/script {of}/sealed", of=tmp_path)
    rows = read_table(tmp_path / "sealed/subjects.csv")
    assert {*rows["site"]} == {"Zürich"} and rows["file"].tolist() == ["1.bin", "2.bin", "3.bin", "Zoë.bin"]
    assert "Zürich 2/2" in done("abide-data check {of}/sealed", of=tmp_path)


def test_the_table_above_with_the_people_counts(tmp_path):
    """Of maps that were not converted, too; others are as good as none, and --table names one, as is then advised."""
    maps = tmp_path / "study/maps"
    labs.flat(maps, PEOPLE)
    (tmp_path / "study/maps.csv").rename(tmp_path / "people.csv")
    (tmp_path / "study/budget.csv").write_text("year,costs\n2,30000\n3,40000\n")
    for command in ("check {maps}", "convert {maps} {maps}/to --grid reduced --dryRun"):
        assert "people.csv" in done(f"abide-data {command}", maps=maps)
        (tmp_path / "people.csv").rename(tmp_path / "others")
        refused(f"abide-data {command}", "no table of participants", "--table", maps=maps)
        assert "others" in done(f"abide-data {command} --table {tmp_path}/others", maps=maps)
        (tmp_path / "others").rename(tmp_path / "people.csv")


def test_maps_from_a_column_are_checked(tmp_path):
    folder = labs.write_maps_by_column(tmp_path / "named", labs.people(12))
    refused("abide-data check {of}", "--mapColumn", of=folder)
    check_output = done("abide-data check {of} --mapColumn path --where 'AGE_AT_SCAN > 0'", of=folder)
    assert "12 participants, not converted" in check_output
