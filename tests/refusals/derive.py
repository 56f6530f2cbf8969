"""What derive and check refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lab
from helpers import reseal

from refusals import Row, row


def rename_files(old: str, new: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        for path in [path for path in folder.rglob(f"*{old}*") if path.is_file()]:
            path.rename(path.with_name(path.name.replace(old, new)))

    return rename


def rename_as_before(folder: Path) -> None:
    """As fMRIPrep did until 1.1."""
    for path in list(folder.rglob(f"*_{lab.REST_BOLD}.nii.gz")):
        path.rename(path.with_name(path.name.replace(lab.REST_BOLD, f"task-rest_bold_{lab.SPACE}_preproc")))


def copy_scans(old: str, new: str) -> Callable[[Path], None]:
    """Another scan of two of three people."""

    def copy(folder: Path) -> None:
        for label in (1, 2):
            path = folder / f"sub-{label}/func/sub-{label}_{lab.REST_BOLD}.nii.gz"
            shutil.copy(path, path.with_name(path.name.replace(old, new)))

    return copy


def add_third_atlas(folder: Path) -> None:
    lab.edit(
        lab.copy(folder / "my_atlas.nii.gz", folder / "third.nii.gz"),
        lambda atlas_values, affine: (atlas_values % 3, affine),
    )


def remove_derivation(folder: Path) -> None:
    shutil.rmtree(folder / "derivation")
    reseal(folder)


def keep_single_class(folder: Path) -> None:
    for name in lab.read_table(folder / "subjects.csv").query("label == '1'")["file"]:
        (folder / name).unlink()
    for name in ("subjects", "phenotype", "covariates"):
        controls = lab.read_table(folder / "subjects.csv").query("label == '0'")["subject"]
        lab.edit(folder / f"{name}.csv", lambda table, control_ids=controls: table[table["subject"].isin(control_ids)])
    reseal(folder)


def edit_derivation(measure: str, **changes: object) -> Callable[[Path], None]:
    """The JSON of a map of one person says that it was derived otherwise."""

    def change(folder: Path) -> None:
        path = folder / f"sub-2/func/sub-2_{lab.SPACE}_stat-{measure}_boldmap.json"
        lab.edit(path, {"Derivation": json.loads(path.read_text())["Derivation"] | changes})

    return change


CONVERT_DERIVED = (
    "abide-data convert {derived} {missing} --maps falff,dual_regression --labelColumn group --positive A "
    "--phenotype '' --grid reduced"
)

FALFF_JSON = f"derived/sub-2/func/sub-2_{lab.SPACE}_stat-falff_boldmap.json"
DERIVE_BY_TABLE = "abide-data derive {scans} {missing} --boldColumn bold --idColumn id --table {table}"


def list_scans(*labels: str) -> Callable[[Path], object]:
    """A table that says that this scan is that of each."""
    rows = "".join(f"{label},sub-1/func/sub-1_{lab.REST_BOLD}.nii.gz\n" for label in labels)
    return lambda path: path.write_text(f"id,bold\n{rows}")


DERIVE_NEW = "abide-data derive {scans} {missing}"
DERIVE_LIKE = f"{DERIVE_NEW} --like {{scan_cohort}}"
DERIVED_DIFFERENTLY = "--like {scan_cohort} was derived otherwise"
DERIVE: list[Row] = [
    row(f"{DERIVE_NEW} --maps falff,lfcd", "--maps lfcd", "expected of falff, alff"),
    row(f"{DERIVE_NEW} --maps dual_regression", "--networks", "go together"),
    row(f"{DERIVE_NEW} --networks {{scans}}/nets.nii.gz", "--networks", "go together"),
    row(f"{DERIVE_NEW} --band 0.1,0.01", "--band", "expected LOW,HIGH in Hz"),
    row(f"{DERIVE_NEW} --share 3/2", "--share", "expected K/N"),
    row(f"{DERIVE_NEW} --smooth 0", "--smooth", "expected a width in mm"),
    row(f"{DERIVE_NEW} --only '*ses-9*'", "--only '*ses-9*'", "matches none of the 3 scans"),
    row(f"{DERIVE_NEW} --series {{scans}}/participants.tsv", "participants.tsv", "not a readable NIfTI map"),
    row(f"{DERIVE_NEW} --series {{scans}}/nets.nii.gz", "nets.nii.gz", "no label image"),
    row(
        f"{DERIVE_NEW} --maps dual_regression --networks {{scans}}/my_atlas.nii.gz",
        "my_atlas",
        "3-D",
        "several networks",
    ),
    row("abide-data derive {missing} {empty}/new", "{missing}", "not a folder"),
    row("abide-data derive {scans} {file}", "{file}", "is a file"),
    row(f"{DERIVE_NEW} --table nowhere.csv", "--table nowhere.csv", "is no file"),
    row(f"{DERIVE_NEW} --idColumn id", "--idColumn", "--boldColumn"),
    row("abide-data derive {scans} {scans}", "{scans}", "not written by this command"),
    row(
        "abide-data derive {scans} {derived}",
        "band 0.02-0.08 Hz, not 0.01-0.1 Hz, of 1, 2, 3; smoothing 30 mm, not none",
    ),
    row(
        "abide-data derive {scans} {derived} --band 0.02,0.08 --smooth 30 --maps alff --confounds scrubbing",
        "{derived} was derived with confounds simple, not scrubbing, of 1, 2, 3",
    ),
    row(
        DERIVE_NEW,
        "no scans in MNI space: 3 in space T1w",
        spoil={"scans": rename_files("space-MNI152NLin6Asym", "space-T1w")},
    ),
    row(
        DERIVE_NEW, "no scans in MNI space: 3 in no space", spoil={"scans": rename_files("_space-MNI152NLin6Asym", "")}
    ),
    row(DERIVE_NEW, "no scans but 3 of fMRIPrep 1.0", "Preprocess them again", spoil={"scans": rename_as_before}),
    row(
        DERIVE_NEW, "{scans}", "holds no scans by their names", spoil={"scans": rename_files("bold.nii", "boldref.nii")}
    ),
    row(DERIVE_NEW, "{scans}", "whose names do not say whose", spoil={"scans": rename_files("sub-", "sub-A_")}),
    row(
        DERIVE_NEW,
        "for 1, 2 of 3 participants",
        "differ in space",
        "--only",
        spoil={"scans": copy_scans("6Asym", "2009cAsym")},
    ),
    row(
        DERIVE_NEW,
        "differ in task (nback, rest)",
        "--only '*_task-",
        spoil={"scans": copy_scans("task-rest", "task-nback")},
    ),
    row(
        DERIVE_NEW,
        "each for other participants",
        "XCP-D",
        "--only",
        spoil={"scans/sub-3": rename_files("preproc", "denoised")},
    ),
    row(
        DERIVE_BY_TABLE, "has the participants 'P-1', 'P 3'", "letters", spoil={"table": list_scans("P-1", "P2", "P 3")}
    ),
    row(DERIVE_BY_TABLE, "for 1 of 1 participant,", "alike in name", "Remove", spoil={"table": list_scans("1", "1")}),
    row(
        f"{DERIVE_NEW} --series {{scans}}/my_atlas.nii.gz",
        "does not name each parcel",
        "(2)",
        spoil={"scans/my_atlas.tsv": b"index\tname\n1\tleft\n"},
    ),
    row(f"{DERIVE_LIKE} --band 0.01,0.1", "band 0.01-0.1 Hz, not 0.02-0.08 Hz", DERIVED_DIFFERENTLY),
    row(DERIVE_LIKE, "does not keep the networks nets.nii.gz", spoil={"scan_cohort": remove_derivation}),
    row(
        f"{DERIVE_LIKE} --maps alff,dual_regression",
        "maps alff, dual_regression, not falff, dual_regression",
        DERIVED_DIFFERENTLY,
    ),
    row(f"{DERIVE_LIKE} --confounds none", "confounds none, not simple", DERIVED_DIFFERENTLY),
    row(
        f"{DERIVE_LIKE} --series {{scans}}/third.nii.gz",
        "not my_atlas.nii.gz (SHA-256",
        spoil={"scans": add_third_atlas},
    ),
    row(f"{DERIVE_NEW} --like {{cohort}}", "{cohort}", "does not say how its maps were derived"),
    row(f"{DERIVE_NEW} --like {{empty}}/nowhere", "{empty}/nowhere", "does not exist"),
    row(
        DERIVE_LIKE,
        "scans cleaned, not preprocessed",
        DERIVED_DIFFERENTLY,
        spoil={"scans": rename_files("preproc", "denoised")},
    ),
    row(
        DERIVE_LIKE, "networks.nii.gz edited", "Copy it again", spoil={"scan_cohort/derivation/networks.nii.gz": "cut"}
    ),
    row(
        CONVERT_DERIVED,
        "Participants' maps were derived in several ways: band 0.01-0.1 Hz, not 0.02-0.08 Hz, of 2",
        "--exclude",
        spoil={"derived": edit_derivation("falff", band=[0.01, 0.1])},
    ),
    row(
        CONVERT_DERIVED,
        "several ways: networks nets.nii.gz (SHA-256 cccccc",
        spoil={"derived": edit_derivation("dualregression", networks={"file": "nets.nii.gz", "sha256": "c" * 64})},
    ),
    row(CONVERT_DERIVED, "sub-2", "is damaged", spoil={"derived": edit_derivation("falff", band="0.01")}),
    row(
        CONVERT_DERIVED,
        "MeanFramewiseDisplacement is '-1'",
        "expected millimetres",
        spoil={
            FALFF_JSON: {"MeanFramewiseDisplacement": -1},
            "derived/participants.tsv": lambda table: table.drop(columns="func_mean_fd"),
        },
    ),
]

CHECK: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
    row("abide-data check {cohort}", "0000001.bin", spoil={"cohort/0000001.bin": "gone"}),
    row("abide-data check {cohort} --html {file}", "{file}", "no page of a check"),
    row("abide-data check {cohort} --html {missing}/x.html", "{missing}", "is no place"),
    row("abide-data check {cohort} --html {empty}", "{empty}", "is no place"),
    row(
        "run.py --train --model nn --dataDir {cohort} --chkPointDir {missing}",
        "{cohort}",
        "one class only among its training participants",
        spoil={"cohort": keep_single_class},
    ),
]

PLACES: dict[str, Callable[[Path], object]] = {
    "table": Path.touch,
    "page": lambda path: None,
}
ROWS = [*DERIVE, *CHECK]
