"""Bad input is refused: a row a mistake, with two key words of the line that tells it.

`commands.refused` holds each to what every refusal promises. What follows an advice to its end stands in test_roads.
"""

import gzip
import io
import json
import shutil
from collections.abc import Callable, Sequence
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from bundles import parts_of, rebuilt
from commands import done, refused
from helpers import resealed
from commands import done, refused


@dataclass(frozen=True)
class Row:
    """A command with {places} in it: rungs of the ladder (see conftest.py), or some of PLACES. `spoil` is done to a
    copy before: by file, such as "converted/subjects.csv", a change as `lab.edit` takes it, or a function of it."""

    command: str
    words: tuple[str, ...]
    spoil: dict[str, object]

    @property
    def names(self) -> set[str]:
        fields = {part.partition("}")[0] for part in self.command.split("{")[1:]}
        return fields | {name.partition("/")[0] for name in self.spoil}


def row(command: str, *words: str, spoil: dict[str, object] | None = None) -> Row:
    return Row(command, words, spoil or {})


def folder_with(name: str, content: bytes = b"precious") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_bytes(content)

    return make


SEAL = ("seal.json", "digests.csv", "SHA256SUMS", "check.json")
def colliding(path: Path) -> None:
    """A chunk whose records would be one file in one folder."""
    path.mkdir()
    with zipfile.ZipFile(path / "compressed_0", "w") as chunk:
        for number, name in enumerate(("a/1.bin", "b/1.bin", "3.bin", "4.bin")):
            chunk.writestr(name, lab.record(number))


def scripted(path: Path) -> None:
    """Records with the tables of a script, which nothing has sealed."""
    lab.records(path, 4)
    lines = [f"{number}.bin,{number},NYU,{number % 2},train" for number in range(1, 5)]
    (path / "subjects.csv").write_text("\n".join(["file,subject,site,label,split", *lines, ""]))
    (path / "cohort.json").write_text('{"grid": [31, 37, 31]}')


def twice(path: Path) -> None:
    path.write_bytes(path.with_name("compressed_0").read_bytes())


PLACES: dict[str, Callable[[Path], object]] = {  # by name, made anew for each row; else what is missing
    "empty": Path.mkdir,
    "file": lambda path: path.write_bytes(b"precious"),
    "repository": folder_with("analysis.py"),
    "records": lab.records,
    "systems": lambda path: path.write_text("region,system\nPrecentral_L,a\n"),
    "two": lambda path: lab.records(path, 2),
    "chunks": lab.chunks,
    "colliding": colliding,
    "scripted": scripted,
    "flat": lambda path: lab.flat(path, lab.people(24, 1)),
    "missing": lambda path: None,
    "few": lambda path: lab.pcp(path, lab.people(6), ("falff", "alff"), series=True),
    "others": lambda path: lab.pcp(path, lab.people(4, 70002), ("falff", "alff"), series=True),  # whom nobody knows
    "networks": lambda path: lab.networks(path, lab.people(4)),
    "volumes": lambda path: lab.named(path, ["sub-1_task-rest_bold.nii.gz", "sub-1_hemi-L_bold.func.gii"]),
    "surfaces": lambda path: lab.named(path, ["sub-1_space-fsLR_bold.dtseries.nii"]),
    "analyze": lambda path: lab.named(path, ["fALFFMap_1.img"]),
    "nameless": lambda path: lab.edit(lab.records(path) / "1.bin", lab.record(1, float("nan"))),
    "small": lambda path: small_cohort(path),
    "native": lambda path: lab.named(path, ["sub-1_space-T1w_falff.nii.gz"]),
    "table": Path.touch,
    "page": lambda path: None,
    "settings": lambda path: path.write_text("--preset combined\n--set mebmers=2\n"),
    "alike": lambda path: path.write_text("--preset combined\n--set members=4\n"),
}


def small_cohort(path: Path) -> None:
    """Of six people at three sites."""
    source = lab.pcp(path.with_name("lab-of-six"), lab.people(6))
    done("abide-data convert {source} {to} --grid reduced", source=source, to=path)


def written_by_a_script(name: str, change: object) -> Callable[[Path], None]:
    """A cohort with another file than abide-data wrote, which `pack` has sealed as it is."""

    def spoil(folder: Path) -> None:
        for file, fault in {name: change, **dict.fromkeys(SEAL, "gone")}.items():
            lab.edit(folder / file, fault)
        script = folder.rename(folder.with_name("script"))
        done("abide-data pack {script} {to} --bin", script=script, to=folder)

    return spoil


def broken_link(folder: Path) -> None:
    """What git-annex leaves in place of a file that was not fetched."""
    path = folder / "cpac/X_0050003_falff.nii.gz"
    path.unlink()
    path.symlink_to("nowhere")


def with_column(**columns: Sequence[str] | str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A table with these columns, whose values are repeated down to its end."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: list(islice(cycle(values), len(table))) for name, values in columns.items()})


def renamed(old: str, new: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        for path in [path for path in folder.rglob(f"*{old}*") if path.is_file()]:
            path.rename(path.with_name(path.name.replace(old, new)))

    return rename


def beside(page: Path) -> None:
    """Somebody's folder where that of a page would lie."""
    folder_with("01_b.webp")(page.with_name("page_files"))


def of_one_class(folder: Path) -> None:
    for name in lab.read_table(folder / "subjects.csv").query("label == '1'")["file"]:
        (folder / name).unlink()
    for name in ("subjects", "phenotype", "covariates"):
        controls = lab.read_table(folder / "subjects.csv").query("label == '0'")["subject"]
        lab.edit(folder / f"{name}.csv", lambda table, known=controls: table[table["subject"].isin(known)])
    resealed(folder)


def derivation(**changes: object) -> Callable[[Path], None]:
    """Of a cohort, in its sealed table."""

    def change(folder: Path) -> None:
        before = json.loads((folder / "cohort.json").read_text())
        lab.edit(folder / "cohort.json", {"derivation": before["derivation"] | changes})
        resealed(folder)

    return change


def with_cell(column: str, value: str, at: int = 1) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**{column: [*table[column][:at], value, *table[column][at + 1 :]]})


def without(*names: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=[*names])


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """A map with other values (x, y, z)."""
    return lambda values, affine: (change(values), affine)


def each(pattern: str, change: object) -> Callable[[Path], None]:
    """The same fault in all files of a folder of this pattern."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob(pattern)):
            lab.edit(path, change)

    return spoil


def numbered_anew(folder: Path) -> None:
    """Maps without the IDs of the people, from 1."""
    for number, path in enumerate(sorted(folder.rglob("*_falff.nii.gz")), 1):
        path.rename(path.with_name(f"{number}_falff.nii.gz"))


def scans_of_training(folder: Path) -> None:
    """One map of each person is that of somebody of the laboratory, most of whom are training people."""
    for number, path in enumerate(sorted(folder.rglob("*_falff.nii.gz"))):
        lab.save(path, lab.map_of(lab.person(number, f"{50002 + number}")))


def labels_of_volumes(*names: str, people: slice = slice(None)) -> Callable[[Path], None]:
    """Names beside each 4-D file, as BIDS has them."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob("*_net.nii.gz"))[people]:
            Path(str(path).replace(".nii.gz", ".json")).write_text(json.dumps({"LabelMap": names}))

    return spoil


def series_file(rows: str, header: str = "a\tb\n", more: int = 0) -> bytes:
    return (header + "1\t2\n" * more + rows).encode()


TABLE, MAP, SERIES = "few/Phenotypic.csv", "few/cpac/X_0050003_falff.nii.gz", "few/cpac/X_0050002_rois_made.1D"
NET = "networks/cpac/X_0050003_net.nii.gz"
FROM = "abide-data convert {few} {missing}"
NAMED = f"{FROM} --labelColumn dx --positive"
LIKE = "abide-data convert {others} {missing} --like {converted}"
OF_NETS = "abide-data convert {networks} {missing} --maps net"
SPELT = ("ASD", "TD", "asd", "td")
SIDES = ("ASD", "TD", "3", "ADHD")
SAME = "abide-data convert {lab} {converted} --grid reduced"
SAME_ALL = f"{SAME} --maps all --connectome rois_made --parcels {{lab}}/parcels.nii.gz"
PATHS = {of: [f"cpac/X_{50002 + number:07}_{of}.nii.gz" for number in range(6)] for of in ("falff", "alff")}
PACK, SITES = "abide-data pack --zip", "run.py --train --model cnn --set standardise=site --chkPointDir {missing}"
OF_FOLDS = "--folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --outDir {missing}"
UNSEALED = {f"converted/{name}": "gone" for name in SEAL}
BY_COLUMN = {TABLE: with_column(**PATHS, one=PATHS["falff"][:1])}

CONVERT: list[Row] = [
    row("abide-data convert {missing} {empty}/new", "{missing}", "not a folder"),
    row("abide-data convert {lab} {repository}", "{repository}", "holds no cohort"),
    row("abide-data convert {lab} {repository} --dryRun", "{repository}", "holds no cohort"),
    row(SAME, "converted differently", "{converted}"),
    row(f"{SAME} --phenotype ''", "converted differently", "{converted}"),
    row(
        SAME_ALL,
        "converted differently",
        "{converted}",
        spoil={"lab/cpac/X_0050003_falff.nii.gz": with_values(lambda of: of / 2)},
    ),
    row(SAME, "converted differently", "{converted}", spoil={"converted/cohort.json": b"{ damaged"}),
    row(f"{FROM} --seed -1", "--seed", "-1"),
    # what a folder holds
    row(FROM, "holds no fALFF maps", "--maps alff", spoil={"few": each("*_falff.nii.gz", "gone")}),
    row(f"{FROM} --maps falff,reho", "holds no reho maps", "*_reho.nii.gz"),
    row("abide-data convert {volumes} {missing}", "make maps of these first", "abide-data derive"),
    row("abide-data convert {surfaces} {missing}", "preprocess them to volumes", "abide-data derive"),
    row("abide-data convert {analyze} {missing}", "fALFFMap_1.img", "converted to NIfTI"),
    row("abide-data convert {native} {missing}", "1 in space T1w", "--mapColumn"),
    row(f"{FROM} --only '*ses-9*'", "--only '*ses-9*' matches none", "cpac/X_0050002"),
    row(f"{FROM} --maps falff,alff --only '*_falff*'", "matches none", "_alff.nii.gz"),
    row(f"{FROM} --maps alff,alff", "one twice", "--maps"),
    row(f"{FROM} --maps alff,../x", "'../x'", "--maps"),
    row(f"{FROM} --mapColumn falff --only '*'", "--only", "--mapColumn", spoil=BY_COLUMN),
    row(f"{FROM} --mapColumn falff --maps all", "--maps all", "--mapColumn", spoil=BY_COLUMN),
    row(
        f"{FROM} --mapColumn falff,alff --maps alff", "2 columns for the maps alff", "a name a column", spoil=BY_COLUMN
    ),
    row(
        f"{FROM} --mapColumn alff,alff --maps a,b",
        "X_0050002_alff.nii.gz to 50002 for two maps",
        "one of each",
        spoil=BY_COLUMN,
    ),
    row(f"{FROM} --mapColumn one", "gives the map", "--mapColumn", spoil=BY_COLUMN),
    row(f"{FROM} --mapColumn SEX", "expected paths of maps", "SEX"),
    row(f"{FROM} --mapColumn one,three", "no column three", "it has", spoil=BY_COLUMN),
    # a map
    row(FROM, "X_0050003_falff.nii.gz", "not a readable NIfTI map", spoil={MAP: "cut"}),
    row(FROM, "X_0050003_falff.nii.gz", "not a readable NIfTI map", spoil={MAP: "flipped"}),
    row(FROM, "X_0050003_falff.nii.gz", "not a readable NIfTI map", spoil={MAP: gzip.compress(b"this is text")}),
    row(
        f"{FROM} --maps alff,falff",
        "2 of 6 cannot be used",
        "X_0050004_falff",
        spoil={
            MAP: "cut",
            "few/cpac/X_0050004_falff.nii.gz": "cut",
        },
    ),
    row(FROM, "expected one 3-D map", "(8, 10, 8, 2)", spoil={MAP: with_values(lambda of: np.stack([of, of], -1))}),
    row(FROM, "X_0050003", "infinite", spoil={MAP: with_values(lambda of: np.where(of == of.max(), np.inf, of))}),
    row(FROM, "X_0050003", "empty or constant", spoil={MAP: with_values(np.zeros_like)}),
    row(FROM, "X_0050003", "outside the MNI grid", spoil={MAP: lambda of, affine: (of, affine + 90 * np.eye(4, k=2))}),
    row(FROM, "X_0050003", "has no affine", spoil={MAP: lambda of, affine: (of, np.eye(4))}),
    row(
        "abide-data convert {lab} {missing} --maps falff,alff",
        "alff: The maps separate",
        "mean (AUC",
        spoil={"lab": each("*_alff.nii.gz", with_values(lambda of: of * (1 + (of[:4].mean() > of[4:].mean()))))},
    ),
    # the table
    row(FROM, "no table of subjects", "--table", spoil={TABLE: "gone"}),
    row(FROM, "several tables", "--table", spoil={"few": lambda of: shutil.copy(of / "Phenotypic.csv", of / "b.csv")}),
    row(FROM, "No column of", "such as X_0050002", spoil={TABLE: b"SUB_ID,DX_GROUP\nP1,1\nP2,2\n"}),
    row(f"{FROM} --idColumn SEX", "The column SEX of", "such as X_0050002"),
    row(FROM, "--idColumn", "IDs of the maps", spoil={"few": numbered_anew}),
    row(f"{FROM} --idColumn DX_GROUP", "column DX_GROUP of", "1_falff.nii.gz to", spoil={"few": numbered_anew}),
    row(FROM, "column B twice", "Rename", spoil={TABLE: b"A,B,B \n1,2,3\n"}),
    row(FROM, "line 2 has 3 values", "2 columns", spoil={TABLE: b"FILE_ID,DX_GROUP\nX_0050002,1,\nx,2,\n"}),
    row(FROM, "not a readable table", "UTF-8", spoil={TABLE: b'FILE_ID,DX_GROUP\n"X_0050002,1\n'}),
    row(FROM, "'50002' (2 times)", "--where", spoil={TABLE: with_cell("SUB_ID", "50002")}),
    row(
        FROM,
        "'a b', 'c/d'",
        "'ä' and 'Ä'",
        spoil={TABLE: lambda table: table.assign(SUB_ID=["a b", "c/d", "ä", "Ä", *table["SUB_ID"][4:]])},
    ),
    row(FROM, "at most 200 bytes", "ä", spoil={TABLE: with_cell("SUB_ID", "ä" * 101)}),
    row(f"{FROM} --where 'AGE_AT_SCAN > 200'", "Nobody of", "--where AGE_AT_SCAN > 200 is false"),
    # sites
    row(FROM, "The SITE_ID of 1 of 6 people", "--exclude", spoil={TABLE: with_cell("SITE_ID", "n/a")}),
    row(f"{FROM} --siteColumn DX_GROUP", "--siteColumn DX_GROUP", "cannot be both"),
    row(
        FROM,
        "CENTRE, MRI_system",
        "--siteColumn ''",
        spoil={TABLE: lambda table: with_column(MRI_system="ABC")(table).rename(columns={"SITE_ID": "CENTRE"})},
    ),
    # labels
    row(FROM, "is the diagnosis", "--labelColumn", spoil={TABLE: lambda of: of.rename(columns={"DX_GROUP": "dx"})}),
    row(f"{FROM} --labelColumn SEX", "is the diagnosis", "--positive"),
    row(f"{FROM} --positive 1", "is the diagnosis", "--labelColumn"),
    row(f"{FROM} --labelColumn dx --positive 1", "no column dx (--labelColumn)", "it has"),
    row(FROM, "DX_GROUP holds 1, 2, 3", "--negative", spoil={TABLE: with_cell("DX_GROUP", "3")}),
    row(f"{NAMED} autism", "dx holds ASD, TD", "autism", spoil={TABLE: with_column(dx=("ASD", "TD"))}),
    row(f"{NAMED} ASD", "ASD", "--negative", spoil={TABLE: with_column(dx=SIDES)}),
    row(f"{NAMED} ASD,TD,3,ADHD", "expected two values", "--negative", spoil={TABLE: with_column(dx=SIDES)}),
    row(f"{NAMED} ASD --negative ASD,TD", "--negative ASD,TD", "none of", spoil={TABLE: with_column(dx=SIDES)}),
    row(f"{NAMED} ASD --negative healthy", "--negative healthy", "dx", spoil={TABLE: with_column(dx=SIDES)}),
    row(f"{NAMED} ASD", "ASD and asd", "--positive ASD,asd", spoil={TABLE: with_column(dx=SPELT)}),
    row(f"{NAMED} ASD --negative TD", "ASD and asd", "--positive ASD,asd", spoil={TABLE: with_column(dx=SPELT)}),
    # phenotype and covariates
    row(
        f"{FROM} --phenotype age",
        "age 999 (2) people",
        "--missing 'age=999'",
        spoil={TABLE: with_column(age=("999", "8", "999.0", "14", "11", "9"))},
    ),
    row(f"{FROM} --phenotype SEX --missing SEX=998", "nobody", "NAME=VALUE"),
    row(
        f"{FROM} --phenotype {','.join(f'x{number}' for number in range(30))}",
        "30 values",
        "at most 29",
        spoil={TABLE: with_column(**{f"x{number}": ("1", "2", "4") for number in range(30)})},
    ),
    row(f"{FROM} --phenotype shoe_size,IQ", "no columns shoe_size, IQ (--phenotype)", "Did you mean FIQ, VIQ, PIQ"),
    row(f"{FROM} --phenotype AGE_AT_SCAN", "AGE_AT_SCAN", "inf", spoil={TABLE: with_cell("AGE_AT_SCAN", "inf")}),
    row(f"{FROM} --phenotype SEX --covariates weight", "no column weight (--covariates)", "it has"),
    row(f"{FROM} --covariates DX_GROUP", "--covariates DX_GROUP", "the label itself"),
    row(
        f"{FROM} --covariates ADOS_TOTAL",
        "--covariates ADOS_TOTAL",
        "follows from",
        spoil={TABLE: with_column(ADOS_TOTAL="789")},
    ),
    # volumes of 4-D files
    row(OF_NETS, "holds 2 volumes, the net", "3 other people 3", spoil={NET: with_values(lambda of: of[..., :2])}),
    row(OF_NETS, "holds 1 volumes", "--exclude", spoil={NET: with_values(lambda of: of[..., 0])}),
    row(OF_NETS, "holds 66 volumes", "abide-data derive", spoil={NET: with_values(lambda of: np.tile(of, 22))}),
    row(OF_NETS, "volume 1 is empty", "X_0050003_net", spoil={NET: with_values(lambda of: of * [1, 0, 1])}),
    row(
        OF_NETS,
        "name their volumes differently",
        "LabelMap",
        spoil={"networks": labels_of_volumes("x", "y", "z", people=slice(3))},
    ),
    row(OF_NETS, "names 2 volumes", "expected 3 different names", spoil={"networks": labels_of_volumes("x", "y")}),
    row(OF_NETS, "'y' twice", "expected 3", spoil={"networks": labels_of_volumes("x", "y", "y")}),
    row(
        OF_NETS,
        "net.txt names 3 volumes",
        "'b c'",
        spoil={"networks": lambda folder: (folder / "net.txt").write_text("a\nb c\nd")},
    ),
    row(f"{OF_NETS}_7", "holds no net_7 maps", "holds 0, 1, 2"),
    row(f"{OF_NETS},net_1", "one twice", "net_0, net_1, net_2, net_1"),
    row("abide-data convert {networks} {missing} --maps falff_7", "holds no falff_7 maps", "is 3-D"),
    # series
    row(f"{FROM} --connectome seg-AAL", "holds no seg-AAL series", "It holds rois_made"),
    row(f"{FROM} --parcels {{few}}/parcels.nii.gz", "--parcels", "--connectome"),
    row(
        f"{FROM} --connectome rois_made --parcels {{few}}/parcels.nii.gz",
        "no label for 1 of 12 parcels",
        "12",
        spoil={"few/parcels.nii.gz": with_values(lambda of: np.where(of == 12, 0, of))},
    ),
    *(
        row(f"{FROM} --connectome rois_made", "X_0050002_rois_made.1D", words, spoil={SERIES: content})
        for words, content in (
            ("a header of 0 names", b""),
            ("one of them twice", series_file("1\t2\n", "#1\t#1\n")),
            ("in its first line", series_file("1\t2\n", "0.5\t0.25\n")),
            ("not the series of 2 parcels", series_file("1\tx\n")),
            ("has 3 columns, its header 2 names", series_file("1\t2\t3\n")),
            ("missing or infinite", series_file("1\n", more=30)),
            ("missing or infinite", series_file("inf\t1\n", more=30)),
            ("has 9 volumes that are not censored", series_file("n/a\tn/a\n" * 20, more=9)),
            ("has other parcels than the rest", series_file("1\t2\n", more=30)),
        )
    ),
    # new people like those of a cohort
    *(row(f"{LIKE} {words}", words.split()[0], "chosen by --like") for words in ("--grid full", "--covariates ''")),
    row(LIKE, "lacks FIQ, BMI", "the phenotype of", spoil={"others/Phenotypic.csv": without("FIQ", "BMI")}),
    row(
        LIKE,
        "alff: The maps are",
        "unlike those of",
        spoil={"others": each("*_alff.nii.gz", with_values(lambda of: np.where(of, (of - of[of > 0].mean()) / 9, 0)))},
    ),
    row(
        LIKE,
        "alff: The maps are",
        "unlike those of",
        spoil={"others": each("*_alff.nii.gz", with_values(lambda of: of / 50))},
    ),
    row(f"{LIKE}", "holds no alff maps", "alff", spoil={"others": each("*_alff.nii.gz", "gone")}),
    row(f"{LIKE}", "holds no rois_made series", "rois_", spoil={"others": each("*.1D", "gone")}),
    row(f"{LIKE} --connectome rois_aal", "is not what", "rois_aal"),
    row(f"{LIKE} --labelColumn SEX", "is the diagnosis", "--positive"),
    row(
        f"{LIKE} --labelColumn dx --positive asd",
        "dx holds ASD",
        "asd",
        spoil={"others/Phenotypic.csv": with_column(dx=["ASD"])},
    ),
    row(
        "abide-data convert {others} {missing} --like {bundle}",
        "holds no alff maps",
        "alff",
        spoil={"others": each("*_alff.nii.gz", "gone")},
    ),
    row("abide-data convert {others} {missing} --like {cohort}", "does not say that it was made of maps", "{cohort}"),
    row(LIKE, "have a scan of training subjects", "--exclude 7000", spoil={"others": scans_of_training}),
    row(f"{LIKE} --maps alff,falff", "--maps alff,falff is not what", "falff, alff"),
    row(
        LIKE,
        "has other parcels than the rest",
        "a, b",
        spoil={"others/cpac/X_0070002_rois_made.1D": series_file("", more=30)},
    ),
    row(
        "abide-data convert {others} {missing} --like {bundle}",
        "falff: The maps are from 0 to above 1",  # one typical person is no minority
        "unlike those of the cohort or bundle, from 0 to 1",
        spoil={"others": each("*_falff.nii.gz", with_values(lambda of: np.where(of, 30 * of - 10, 0)))},
    ),
    *(
        row(LIKE, words, "{converted}", spoil={"converted": written_by_a_script("cohort.json", change)})
        for words, change in (
            ("volumes of an encoder", {"reduction": "encoder abc"}),
            ("of which columns its phenotype", {"phenotype": [f"x{number}" for number in range(29)]}),
            ("of which columns its phenotype", {"phenotype_scale": None}),
        )
    ),
    # several maps, connectomes and phenotypes of cohorts
    row(
        f"{FROM} --maps all",
        "No map is there for everybody",
        "lack, 50002",
        spoil={"few/cpac/X_0050002_falff.nii.gz": "gone", "few/cpac/X_0050003_alff.nii.gz": "gone"},
    ),
    row(FROM, "X_0050003_falff.nii.gz", "No such file", spoil={"few": broken_link}),
    row(
        f"{PACK} {{converted}} {{missing}}",
        "names 1 maps (falff)",
        "hold 2",
        spoil={"converted/cohort.json": {"maps": ["falff"]}, **UNSEALED},
    ),
    row(
        f"{PACK} {{converted}} {{missing}}", "lacks connectomes.h5", "Copy", spoil={"converted/connectomes.h5": "gone"}
    ),
    row(
        f"{PACK} {{converted}} {{missing}}",
        "connectomes.h5",
        "connectomes",
        spoil={"converted/connectomes.h5": b"no", **UNSEALED},
    ),
    row(
        "run.py --train --folds 3 --dataDir {converted} --chkPointDir {missing}",
        "phenotype.csv is not what the records hold",
        "age of",
        spoil={"converted": written_by_a_script("phenotype.csv", with_column(age=("9", "30")))},
    ),
    row("run.py --train --dataDir {nameless} --chkPointDir {missing}", "has the label nan", "1.bin"),
    row(
        "run.py --test --everybody --dataDir {records} --chkPointDir {everybody}/ckpt",
        "has no connectomes",
        "--connectome",
    ),
    row(f"{SITES} --dataDir {{records}}", "names no sites", "standardise=brain"),
    row(f"{SITES} --dataDir {{small}}", "2 people of site", "needs 5 of each"),
    row(f"run.py --blackout --maps alff,reho {OF_FOLDS}", "--maps reho", "falff, alff"),
    row(f"run.py --test --maps alff {OF_FOLDS}", "--maps goes with --blackout", "leave it out"),
]
OF_DERIVED = (
    "abide-data convert {derived} {missing} --maps falff,dual_regression --labelColumn group --positive A "
    "--phenotype '' --grid reduced"
)
FALFF, DUAL = (f"derived/sub-2/func/sub-2_{lab.SPACE}_stat-{of}_boldmap.json" for of in ("falff", "dualregression"))
NAMED = "abide-data derive {scans} {missing} --boldColumn bold --idColumn id --table {table}"


def scans_named(*labels: str) -> Callable[[Path], None]:
    """A table that says that this scan is that of each."""
    rows = "".join(f"{label},sub-1/func/sub-1_{lab.REST}.nii.gz\n" for label in labels)
    return lambda path: path.write_text(f"id,bold\n{rows}")


NEW = "abide-data derive {scans} {missing}"
LIKE = f"{NEW} --like {{of_scans}}"
CHOSEN = "is chosen by --like: {of_scans} has"
DERIVE: list[Row] = [
    row(f"{NEW} --maps falff,lfcd", "--maps lfcd", "expected of falff, alff"),
    row(f"{NEW} --maps dual_regression", "--networks", "go together"),
    row(f"{NEW} --networks {{scans}}/nets.nii.gz", "--networks", "go together"),
    row(f"{NEW} --band 0.1,0.01", "--band", "expected LOW,HIGH in Hz"),
    row(f"{NEW} --share 3/2", "--share", "expected K/N"),
    row(f"{NEW} --smooth 0", "--smooth", "expected a width in mm"),
    row(f"{NEW} --only '*ses-9*'", "--only '*ses-9*'", "matches none of 3 scans"),
    row(f"{NEW} --series {{scans}}/participants.tsv", "participants.tsv", "no NIfTI map by its name"),
    row(f"{NEW} --series {{scans}}/nets.nii.gz", "nets.nii.gz", "no label image"),
    row(f"{NEW} --maps dual_regression --networks {{scans}}/my_atlas.nii.gz", "my_atlas", "3-D", "several networks"),
    row("abide-data derive {missing} {empty}/new", "{missing}", "not a folder"),
    row("abide-data derive {scans} {file}", "{file}", "is a file"),
    row(f"{NEW} --table nowhere.csv", "--table nowhere.csv", "is no file"),
    row(f"{NEW} --idColumn id", "--idColumn", "--boldColumn"),
    row("abide-data derive {scans} {scans}", "{scans}", "not written by this command"),
    row("abide-data derive {scans} {derived}", "sub-1", "was made with Band [0.02, 0.08], not [0.01, 0.1]"),
    row(
        "abide-data derive {scans} {derived} --band 0.02,0.08 --smooth 30 --maps alff --confounds scrubbing",
        "was made with Confounds simple, not scrubbing",
    ),
    row(NEW, "no scan in MNI space: 3 in space T1w", spoil={"scans": renamed("space-MNI152NLin6Asym", "space-T1w")}),
    row(NEW, "no scan in MNI space: 3 in no space", spoil={"scans": renamed("_space-MNI152NLin6Asym", "")}),
    row(NEW, "{scans}", "no preprocessed scans by their names", spoil={"scans": renamed("bold.nii", "boldref.nii")}),
    row(NEW, "{scans}", "whose names do not say whose", spoil={"scans": renamed("sub-", "sub-A_")}),
    row(NAMED, "has the subjects 'P-1', 'P 3'", "letters", spoil={"table": scans_named("P-1", "P2", "P 3")}),
    row(NAMED, "names one scan twice for 1", spoil={"table": scans_named("1", "1")}),
    row(
        f"{NEW} --series {{scans}}/my_atlas.nii.gz",
        "does not name each parcel",
        "(2)",
        spoil={"scans/my_atlas.tsv": b"index\tname\n1\tleft\n"},
    ),
    row(
        f"{NEW} --series {{scans}}/my_atlas.nii.gz",
        "the name of a parcel 'left\\tright'",
        spoil={"scans/my_atlas.tsv": b'index\tname\n1\t"left\tright"\n'},
    ),
    row(f"{LIKE} --band 0.01,0.1", f"--band {CHOSEN} 0.02,0.08."),
    row(f"{LIKE} --maps alff", f"--maps {CHOSEN} falff,dual_regression."),
    row(f"{LIKE} --confounds none", f"--confounds {CHOSEN} simple."),
    row(f"{LIKE} --series {{scans}}/nets.nii.gz", f"--series {CHOSEN} my_atlas.nii.gz (SHA-256"),
    row(f"{NEW} --like {{cohort}}", "{cohort}", "does not say how its maps were derived"),
    row(f"{NEW} --like {{empty}}/nowhere", "{empty}/nowhere", "does not exist"),
    row(LIKE, "cleaned of confounds before, the scans of", "were not", spoil={"scans": renamed("preproc", "denoised")}),
    row(LIKE, "networks.nii.gz", "not what was written", spoil={"of_scans/derivation/networks.nii.gz": "cut"}),
    row(LIKE, "{of_scans} is damaged, in how its maps", "LOW,HIGH", spoil={"of_scans": derivation(band=[0.1, 0.01])}),
    row(LIKE, "{of_scans} is damaged, in how its maps", "the scans", spoil={"of_scans": derivation(scans="washed")}),
    row(
        OF_DERIVED,
        "People's falff was derived in several ways: band 0.01-0.1 Hz of 2; band 0.02-0.08 Hz of 2 others",
        spoil={FALFF: {"Band": [0.01, 0.1]}},
    ),
    row(OF_DERIVED, "several ways: networks nets.nii.gz (SHA-256 cccccc", spoil={DUAL: {"NetworksSHA256": "c" * 64}}),
    row(OF_DERIVED, "sub-2", "is damaged", spoil={FALFF: {"Band": "0.01"}}),
    row(
        OF_DERIVED,
        "MeanFramewiseDisplacement is '-1'",
        "expected millimetres",
        spoil={
            FALFF: {"MeanFramewiseDisplacement": -1},
            "derived/participants.tsv": lambda table: table.drop(columns="func_mean_fd"),
        },
    ),
]
COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
    row("abide-data check {cohort}", "0000001.bin", spoil={"cohort/0000001.bin": "gone"}),
    row("abide-data check {cohort} --html {file}", "{file}", "no page of a check"),
    row("abide-data check {cohort} --html {missing}/x.html", "{missing}", "is no place"),
    row("abide-data check {cohort} --html {empty}", "{empty}", "is no place"),
    row("abide-data check {cohort} --html {page}.html", "{page}_files", "holds something else", spoil={"page": beside}),
    row(
        "run.py --train --model nn --dataDir {cohort} --chkPointDir {missing}",
        "{cohort}",
        "one class only among its training subjects",
        spoil={"cohort": of_one_class},
    ),
DERIVE: list[Row] = []
CONVERT_LAB = "abide-data convert {lab} {missing} --grid reduced"
TABLE = "lab/Phenotypic.csv"
MAP = "lab/cpac/X_0050002_falff.nii.gz"
FLAT = "abide-data convert {flat} {missing} --table {file} --labelColumn DX --positive ASD --phenotype ''"
OF_ANY = f"{CONVERT_LAB} --labelColumn DX_GROUP --positive 1"


def more(**columns: Callable[[int], object]) -> dict[str, Callable]:
    """The table of the people with more columns, by the place of a row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: [str(of(at)) for at in range(len(table))] for name, of in columns.items()})

    return {TABLE: change}


def by_label(autism: str, control: str) -> dict[str, Callable]:
    return more(GROUP2=lambda at: control if at // 2 % 2 else autism)


def of_ids(**columns: Callable[[int], object]) -> dict[str, bytes]:
    """A table of 24 people with the label and these columns, by the place of a row."""
    made = pd.DataFrame({name: [of(at) for at in range(24)] for name, of in columns.items()})
    return {"file": made.assign(DX=[("ASD", "TD")[at // 2 % 2] for at in range(24)]).to_csv(index=False).encode()}


NOTHING = more(
    comments=lambda at: f"moved, see note {at}",
    scan_date=lambda at: f"2011-03-{at % 28 + 1:02}",
    tesla=lambda at: ("3", "3.0")[at % 2],
    ticket=lambda at: 500 + at * 7 % 40,
)
TABLES: list[
    Row
] = [  # of people, which a conversion reads: their form, IDs, numbers, what tells the diagnosis, the split
    row(CONVERT_LAB, "Phenotypic.csv", "empty", spoil={TABLE: "empty"}),
    row(CONVERT_LAB, "line 2 has 4 values", spoil={TABLE: b"ID,DX_GROUP\n1,1,2,3\n"}),
    row(CONVERT_LAB, "not a readable table", spoil={TABLE: b'ID,DX_GROUP\n"1,1\n'}),
    row(CONVERT_LAB, "not a readable table", spoil={TABLE: b"ID,DX_GROUP\nM\xfcnchen,1\n"}),
    row(CONVERT_LAB, "column ID twice", spoil={TABLE: b"ID,ID\n1,1\n"}),
    row(CONVERT_LAB, "separated by", "expected one", spoil={TABLE: b"ID,a;b\n1,2\n1;2;3\n"}),
    row(FLAT, "number the rows", "--idColumn", spoil=of_ids(row=lambda at: at + 1, code=lambda at: f"P{at}")),
    row(FLAT, "all but the ends", "--idColumn", spoil=of_ids(ID=lambda at: at)),
    row(FLAT, "ID and code", "--idColumn", spoil=of_ids(ID=lambda at: at + 1, code=lambda at: f"P{at * 7 % 24 + 1}")),
    row(FLAT, "No column", "such as 1", spoil=of_ids(ID=lambda at: 900 + at)),
    row(CONVERT_LAB, "X_0050002_falff.nii.gz", "not a readable NIfTI map", spoil={MAP: "cut"}),
    row(
        CONVERT_LAB,
        "X_0050002_falff.nii.gz",
        "infinite",
        spoil={MAP: lambda values, affine: (np.where(values > 0.9, np.inf, values), affine)},
    ),
    row(
        CONVERT_LAB,
        "X_0050002_falff.nii.gz",
        "empty or constant",
        spoil={MAP: lambda values, affine: (0 * values, affine)},
    ),
    row(
        CONVERT_LAB,
        "X_0050002_falff.nii.gz",
        "holds 2 volumes",
        spoil={MAP: lambda values, affine: (np.stack([values] * 2, 3), affine)},
    ),
    row(
        f"{OF_ANY} --phenotype iq --covariates subject",
        "column subject cannot be kept",
        spoil=more(subject=lambda at: at % 9),
    ),
    row(CONVERT_LAB, "lacks FIQ, BMI", spoil={TABLE: lambda table: table.drop(columns=["FIQ", "BMI"])}),
    row(
        CONVERT_LAB, "FIQ holds 'high'", "expected numbers", spoil=more(FIQ=lambda at: "high" if at == 3 else 100 + at)
    ),
    row(CONVERT_LAB, "SEX", "expected", spoil=more(SEX=lambda at: 0)),
    row(CONVERT_LAB, "HANDEDNESS_CATEGORY", "Right", spoil=more(HANDEDNESS_CATEGORY=lambda at: "Right")),
    row(
        f"{OF_ANY} --phenotype dose",
        "dose holds '>18'",
        "numbers",
        spoil=more(dose=lambda at: ">18" if at == 3 else at % 9),
    ),
    row(f"{OF_ANY} --phenotype dose", "dose", "with a point", spoil=more(dose=lambda at: f"{at % 9},5")),
    row(f"{OF_ANY} --phenotype dose", "inf", "numbers", spoil=more(dose=lambda at: "inf" if at == 3 else at % 9)),
    row(
        f"{OF_ANY} --phenotype AGE_AT_SCAN,ADOS_TOTAL", "ADOS", "--allowLeak", spoil=more(ADOS_TOTAL=lambda at: at % 9)
    ),
    row(f"{OF_ANY} --phenotype medication", "medication", "--allowLeak", spoil=more(medication=lambda at: at % 3)),
    row(f"{OF_ANY} --phenotype DX_GROUP", "DX_GROUP is the label itself", "leave it out"),
    row(f"{OF_ANY} --phenotype GROUP2", "GROUP2", "AUC 1.00", spoil=by_label("patient", "healthy")),
    row(f"{OF_ANY} --phenotype GROUP2,AGE_AT_SCAN", "GROUP2 (AUC 1.00)", spoil=by_label("7", "4")),
    row(
        f"{OF_ANY} --phenotype GROUP2",
        "GROUP2",
        "--allowLeak",
        spoil=more(GROUP2=lambda at: "" if at // 2 % 2 else at % 3),
    ),
    row(
        f"{OF_ANY} --phenotype ''".replace("1 --", "2 --"),
        "flipped",
        "ADOS_MODULE",
        spoil=more(ADOS_MODULE=lambda at: 1 + at % 3 if at // 2 % 2 == 0 else -9999),
    ),
    row(
        f"{OF_ANY} --phenotype comments,scan_date,ticket",
        *("comments (text", "scan_date (dates)", "ticket (IDs", "Leave"),
        spoil=NOTHING,
    ),
    row(
        f"{OF_ANY} --phenotype AGE_AT_SCAN,tesla --covariates scan_date,tesla",
        "--phenotype tesla (one",
        "--covariates scan_date",
        spoil=NOTHING,
    ),
    row(f"{CONVERT_LAB} --keepSplit {{records}}", "nobody of those to convert", "50002"),
    row(f"{CONVERT_LAB} --keepSplit {{empty}}/none", "none", "expected a cohort"),
    row("abide-data convert {lab} {missing} --like {newcomers} --keepSplit {newcomers}", "--keepSplit", "--like"),
    row("abide-data convert {lab} {missing} --like {converted}", "expected new people", "--exclude"),
    row("abide-data convert {lab} {missing} --like {converted} --keepCopies", "--keepCopies is about splits"),
]


CHECKED = "run.py --train --dataDir {converted} --chkPointDir {missing}"
BARE = "run.py --train --model nn --dataDir {records} --chkPointDir {missing}"
PACK = "abide-data pack {records} {missing} --zip"
CORRECT = "abide-data correct {converted} {file} {missing}"
SCRIPTED = PACK.replace("records", "scripted")
ROWS_OF = "scripted/subjects.csv"
FOLDS = "run.py --test --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --outDir {missing}"
CUT_INTO = "run.py --train --model nn --dataDir {converted} --chkPointDir {missing} --folds"
FOLD_TABLE = "on_folds/ckpt/mmnn/folds-3/folds.csv"


def exchanged(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(split=table["split"].map({"train": "test", "test": "train"}))


def site_of_one(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(SITE_ID=["USM", *table["SITE_ID"][1:]])


def header_flipped(path: Path) -> None:
    content = path.read_bytes()
    lab.edit(path, content[:50] + bytes([content[50] ^ 1]) + content[51:])


def with_value(place: int, value: float) -> bytes:
    """A record with another number in one place."""
    values = np.frombuffer(lab.record(3), "<f4").copy()
    values[place] = value
    return values.tobytes()


COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
    row(BARE, "3.bin", "short of a 31x37x31 record", spoil={"records/3.bin": "cut"}),
    row(BARE, "3.bin", "empty", spoil={"records/3.bin": "empty"}),
    row(BARE, "3.bin", "more than a 31x37x31 record", spoil={"records/3.bin": lab.record(3) + b"abcd"}),
    row(BARE, "3.bin", "expected one grid", spoil={"records/3.bin": bytes(3_610_636)}),
    row(BARE, "3.bin", "has the label 0.5", spoil={"records/3.bin": lab.record(3, 0.5)}),
    row(PACK, "3.bin", "nan as phenotype value 0", spoil={"records/3.bin": with_value(1, np.nan)}),
    row(PACK, "3.bin", "-inf as volume value 35556", spoil={"records/3.bin": with_value(-1, -np.inf)}),
    row(PACK, "3.bin", "as volume value 0", spoil={"records/3.bin": with_value(30, 1e30)}),
    row(BARE.replace("records", "chunks"), "compressed_1", "not a readable", spoil={"chunks/compressed_1": "cut"}),
    row(PACK.replace("records", "chunks"), "cannot be read", "compressed_1", spoil={"chunks/compressed_1": "flipped"}),
    row(BARE.replace("records", "chunks"), "same record", "once", spoil={"chunks/compressed_1": twice}),
    row(PACK.replace("records", "colliding"), "a/1.bin", "one file"),
    row("abide-data swap {colliding} {missing}", "a/1.bin", "one file"),
    row(SCRIPTED, "subjects.csv", "lacks the columns site", spoil={ROWS_OF: lambda table: table.drop(columns="site")}),
    row(SCRIPTED, "subjects.csv", "lacks the columns", spoil={ROWS_OF: "empty"}),
    row(SCRIPTED, "line 3 has 1 values", spoil={ROWS_OF: b"file,subject,site,label,split\n1.bin,1,A,1,train\n2.bin\n"}),
    row(SCRIPTED, "the label 'x'", spoil={ROWS_OF: lambda table: table.assign(label="x")}),
    row(SCRIPTED, "the split 'dev'", spoil={ROWS_OF: lambda table: table.assign(split="dev")}),
    row(SCRIPTED, "names a file twice", spoil={ROWS_OF: lambda table: table.replace("2.bin", "1.bin")}),
    row(SCRIPTED, "4.bin", "lacks", spoil={"scripted/4.bin": "gone"}),
    row(SCRIPTED, "no row for 4.bin", spoil={ROWS_OF: lambda table: table[:3]}),
    row(
        SCRIPTED,
        "in train and in test",
        spoil={ROWS_OF: lambda table: table.assign(subject="1", split=["test", *["train"] * 3])},
    ),
    row(SCRIPTED, "has the label 1", "says 0", spoil={ROWS_OF: lambda table: table.assign(label="0")}),
    row(SCRIPTED, "the label nan", spoil={ROWS_OF: lambda table: table.assign(label="")}),  # nobody can learn from it
    row(CHECKED.replace("converted", "scripted"), "no seal.json", "abide-data pack {scripted}"),
    row(CHECKED, "no subjects.csv", "interrupted", spoil={"converted/subjects.csv": "gone"}),
    row(CHECKED, "no cohort.json", "interrupted", spoil={"converted/cohort.json": "gone"}),
    row(CHECKED, "cohort.json", "damaged", spoil={"converted/cohort.json": "cut"}),
    row(CHECKED, "no seal.json", "abide-data pack {converted}", spoil={"converted/seal.json": "gone"}),
    row(CHECKED, "format 2", "format 1", spoil={"converted/seal.json": {"format": 2}}),
    row(CHECKED, "sealed", "subjects.csv", spoil={"converted/subjects.csv": exchanged}),
    row("abide-data check {converted}", "sealed", "cohort.json", spoil={"converted/cohort.json": {"simulated": True}}),
    row("abide-data check {converted}", "sealed", "covariates.csv", spoil={"converted/covariates.csv": site_of_one}),
    row(CHECKED, "covariates.csv", spoil={"converted/covariates.csv": "gone"}),
    row(FOLDS, "50002.bin is not what was written", "label", spoil={"converted/50002.bin": header_flipped}),
    row("abide-data pack {converted} {missing} --zip", "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row("abide-data swap {converted} {missing}", "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row(f"{CUT_INTO} 1", "--folds 1", "expected 2 to"),
    row(f"{CUT_INTO} 400", "--folds 400"),
    row(f"{CUT_INTO} AGE_AT_SCAN", "values among 40 subjects", "expected groups"),
    row(f"{CUT_INTO} planet", "--folds planet", "neither a number nor a column"),
    row(f"{CUT_INTO} DX_GROUP", "--folds DX_GROUP", "neither a number nor a column"),
    row(f"{CUT_INTO} 3 --fold 7", "--fold 7", "none of the folds"),
    row(f"{BARE} --folds site", "one value", "unknown"),
    row(f"{CUT_INTO} 3".replace("converted", "swapped"), "augmented by swapping", "{swapped}"),
    row(FOLDS, "lacks", "Was it edited", spoil={FOLD_TABLE: lambda table: table[:-1]}),
    row(FOLDS, "lacks 50002", spoil={FOLD_TABLE: lambda table: table.replace("50002", "stranger")}),
    row(FOLDS, "folds.csv", "damaged", spoil={FOLD_TABLE: "empty"}),
    row(FOLDS, "folds.csv", spoil={FOLD_TABLE: lambda table: table.assign(fold=table["fold"].sample(frac=1).values)}),
    row("abide-data pack {converted} {missing}", "--zip", "--bin"),
    row("abide-data pack {converted} {repository} --zip", "{repository}", "remove it or name another"),
    row("abide-data swap {converted} {repository}", "{repository}", "remove it or name another"),
    row("abide-data swap {converted} {missing} --regions 117", "--regions 117", "at most 116"),
    row("abide-data swap {converted} {missing} --copies many", "many", "a whole number"),
    row("abide-data swap {two} {missing}", "no other training subject", "{two}"),
    row("abide-data swap {swapped} {missing}", "already holds", "the cohort that it was made from"),
    row("abide-data export {records} nobody {empty}/x.nii", "0 records of nobody", "name one"),
    row("abide-data export {records} 3 {empty}/x.img", "x.img", ".nii.gz"),
    row("abide-data export {records} 3 {missing}/x.nii", "{missing}", "no folder"),
    row(CORRECT, "IQ, eyes", "expected subject", spoil={"file": b"subject,IQ,eyes\n50002,1,2\n"}),
    row(CORRECT, "names 7, 8", "are not in", spoil={"file": b"subject,site\n7,A\n8,A\n"}),
    row(CORRECT, "50002", "twice", spoil={"file": b"subject,site\n50002,A\nsub-0050002,B\n"}),
    row(CORRECT, "the label 2", "expected 1", spoil={"file": b"subject,label\n50002,2\n"}),
    row(CORRECT, "label", "training subjects", spoil={"file": b"subject,label\n50002,n/a\n50003,n/a\n50004,n/a\n"}),
    row(CORRECT, "says already", spoil={"file": b"subject,site\n50002,PITT\n"}),
    row(CORRECT, "age 'old'", "expected numbers", spoil={"file": b"subject,age\n50002,old\n"}),
    row(CORRECT, "'0,13'", "expected numbers", spoil={"file": b'subject,AGE_AT_SCAN\n50002,"0,13"\n'}),
    row(CORRECT, "A and B", "expected one value", spoil={"file": b"subject,site,SITE_ID\n50002,A,B\n"}),
    row(CORRECT, "expected subject", spoil={"file": b"subject,fiq_missing\n50002,1\n"}),
]
NETWORK = "on_folds/ckpt/mmnn/folds-3/1"
DAMAGE: list[Row] = [  # of results, a checkpoint, a bundle; any other in test_damage.py
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "cut"}),
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "gone"}),
    row("abide-report {on_folds}/test", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(FOLDS, "ckpt-1", spoil={f"{NETWORK}/ckpt-1.index": "gone"}),
    row(FOLDS, "ckpt-1", spoil={f"{NETWORK}/ckpt-1.data-00000-of-00001": "flipped"}),
    row(FOLDS, "run.json", spoil={f"{NETWORK}/run.json": "cut"}),
    row("run.py --test --bundle {bundle} --dataDir {newcomers}", "{bundle}", spoil={"bundle": "cut"}),
]


def within(part: str, **changes: object) -> Callable[[Path], None]:
    """Changes keys in a part of what a checkpoint says of itself, as if it were of another cohort."""

    def change(path: Path) -> None:
        lab.edit(path, {part: json.loads(path.read_text())[part] | changes, "cohort_sha256": "0" * 64})

    return change


def learnt(name: str, zeros: bool = True) -> Callable[[Path], None]:
    """A checkpoint that says that it, or its encoder, was trained on all people of its cohort, by names or scans."""

    def change(path: Path) -> None:
        cohort = Path(json.loads(path.read_text())["cohort"])
        subjects = [name if zeros else name.lstrip("0") for name in lab.read_table(cohort / "subjects.csv")["subject"]]
        scans = [scan[:16] for scan in lab.read_table(cohort / "digests.csv")["volume_sha256"]]
        lab.edit(path, {name: scans if "volumes" in name else subjects})

    return change


def as_another_model(path: Path) -> None:
    path.rename(path.with_name("nn"))


def as_run_json(path: Path) -> None:
    path.write_text('{"job": "train"}')
    path.rename(path.with_name("run.json"))


def in_another_fold(table: pd.DataFrame) -> pd.DataFrame:
    """Folds of which the first person is in the next one."""
    first, *others = table["fold"]
    return table.assign(fold=[str((int(first) + 1) % 3), *others])


DATA = "--dataDir {cohort} --chkPointDir"
TEST = f"run.py --test --model cnn {DATA} {{trained}}"
AGAIN = f"run.py --train --model cnn --numIters 9 {DATA} {{trained}}"
WRITES = f"run.py --train --model nn {DATA}"
NEW = f"{WRITES} {{missing}}"
EVERYBODY = "run.py --test --everybody --chkPointDir {everybody}/ckpt --dataDir {converted}"
FOLDS = "--chkPointDir {on_folds}/ckpt --dataDir {converted}"
SCORED = "run.py --train --everybody --score {on_folds}/test --chkPointDir {missing} --dataDir {converted}"
ITS_JSON, ITS_DATA = "trained/cnn/run.json", "trained/cnn/ckpt-1.data-00000-of-00001"
CUT = "on_folds/ckpt/mmnn/folds-3/folds.csv"
RUNS: list[Row] = [
    # Options
    row("run.py --train --test", "--train", "not allowed"),
    row("run.py --train --dryRun", "name it with --dataDir"),
    row("run.py --chkPointDir {missing}", "only cae", "run.py --train --model mmnn"),
    row("run.py --train --model gpt", "'gpt'", "mmnn"),
    row("run.py --train --numIters 0", "'0'", "whole number from 1 to"),
    row("run.py --train --seed 4294967296", "4294967296", "--seed"),
    row("run.py --train --precision float8", "'float8'", "mixed_bfloat16"),
    row("run.py --train --quality 3", "--quality 3", "--help"),
    row("run.py --train --outDri x", "--outDri", "--outDir"),
    row("run.py --blackout --atlas ''", "--atlas", "nothing as its value"),
    row("run.py --train --dataDir 'a\nb'", "not allowed", "one line"),
    row("run.py --test --numIters 9", "--numIters goes with --train", "--test"),
    row("run.py --train --donors 9", "--donors goes with --blackout", "--train"),
    row("run.py --model cae --verify 3", "--verify", "the full pass"),
    row("run.py --blackout --model ae", "ae cannot be blacked out", "mmnn"),
    row("run.py --train --model nn --set depth=3", "--set depth", "learning_rate"),
    row("run.py --train --model nn --set phenotype_units=1000000000", "1000000000", "4096"),
    row("run.py --train --model cae --preset deep", "deep", "stride3-bn, stride3, stride1"),
    row(f"{WRITES} {{empty}}/a*", "*", "pattern"),
    row("run.py --train --fold 1", "--fold 1", "--folds"),
    row("run.py --train --jobs 2", "--jobs 2", "--folds"),
    row("run.py --train --folds 2 --fold 0 --jobs 2", "--jobs 2", "--fold"),
    row("run.py --train --repeats 2", "--repeats 2", "--folds"),
    row("run.py --train --folds 2 --repeats 0", "--repeats", "'0'"),
    row("run.py --model cae --folds 2 --repeats 2", "--repeats 2", "the full pass"),
    row(f"{NEW} --folds 2 --repeats 2 --seed 4294967295", "4294967295", "leaves no seeds"),
    row(f"{NEW} --folds 3 --fold 7", "--fold 7", "0, 1, 2"),
    row("run.py --train --everybody --folds 3", "--everybody", "--folds"),
    row("run.py --test --everybody --choose", "--choose", "within folds"),
    row("run.py --train --score {empty}", "--score", "--everybody"),
    row("run.py --test --everybody --score {empty}", "--score goes with --train", "--test"),
    # Folders
    row(f"{TEST} --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST} --outDir {{repository}}", "holds run.json", spoil={"repository/analysis.py": as_run_json}),
    row(f"{NEW} --folds 2 --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST} --outDir {{file}}", "{file} is a file", "--outDir"),
    row(f"{TEST} --outDir {{file}}/x", "{file} is a file", "--outDir"),
    row(f"{WRITES} {{file}}/ckpt", "{file}/ckpt/nn cannot be written", "--chkPointDir"),
    row(f"{NEW} --outDir {{missing}}", "the same folder, {missing}", "name two"),
    row(f"{TEST} --outDir {{cohort}}", "{cohort} is a cohort", "--outDir"),
    row(f"{TEST} --outDir {{cohort}}/out", "{cohort}/out lies in {cohort}, a cohort", "--outDir"),
    row(f"{TEST} --outDir {{trained}}/cnn/a/b", "lies in {trained}/cnn", "a folder of checkpoints"),
    row(f"{WRITES} {{cohort}}/ckpt", "--chkPointDir {cohort}/ckpt/nn lies in {cohort}", "a cohort"),
    row(f"{WRITES} {{trained}}/cnn", "{trained}/cnn/nn lies in {trained}/cnn", "a folder of checkpoints"),
    row(f"{WRITES} {{on_folds}}/test/ckpt", "lies in {on_folds}/test", "a folder of results"),
    row(f"{NEW} --outDir {{on_folds}}/test", "the results of another run (test of mmnn)", "train of nn"),
    row(f"{NEW} --outDir {{on_folds}}/test", "format 2", "format 1", spoil={"on_folds/test/run.json": {"format": 2}}),
    row("abide-data swap {cohort} / --copies 1", "/ cannot be written", "name a folder"),
    # Data
    row("run.py --train --dataDir {missing}", "{missing}", "does not exist"),
    row("run.py --train --dataDir {file}", "{file}", "expected a folder"),
    row("run.py --train --dataDir {records}", "{records}/3.bin", "31x37x31 record", spoil={"records/3.bin": "cut"}),
    row("run.py --train --dataDir {records}", "3.bin", "label 0.5", spoil={"records/3.bin": lab.record(3, 0.5)}),
    row("run.py --train --model cnn --dataDir {full_cohort}", "91x109x91", "run.py --model cae --dataDir"),
    row("run.py --train --model cae --dataDir {cohort}", "31x37x31", "--grid full"),
    row(
        "run.py --train --model nn --dataDir {records}",
        "one class only",
        "expected two",
        spoil={f"records/{odd}.bin": lab.record(odd, 0.0) for odd in (1, 3, 5, 7)},
    ),
    row(f"{NEW.replace('nn', 'mmnn', 1)} --set connectome=true", "no connectomes", "leave it out"),
    # Checkpoints
    row("run.py --test --model nn --chkPointDir {empty} --dataDir {cohort}", "{empty}/nn", "run.py --train"),
    row(f"run.py --test --folds 3 --repeats 2 {FOLDS}", "repeat-0/0 holds no checkpoint", "--repeats 2"),
    row(f"run.py --test --everybody {DATA} {{trained}}", "holds no checkpoint", "--everybody"),
    row(f"run.py --test --model nn {DATA} {{trained}}", "of model cnn", "nn", spoil={"trained/cnn": as_another_model}),
    row(TEST, "of grid full", "of grid reduced", spoil={ITS_JSON: {"grid": "full"}}),
    row(TEST, "{trained}/cnn", "is not there or not as it was saved", spoil={"trained/cnn/ckpt-1.index": "gone"}),
    row(TEST, "is not there or not as it was saved", spoil={ITS_DATA: "flipped"}),
    row(TEST, "{trained}/cnn/run.json", "damaged", spoil={ITS_JSON: b"{"}),
    row(TEST, "{trained}/cnn/run.json", "training_volumes", spoil={ITS_JSON: {"training_volumes": None}}),
    row(TEST, "damaged", "depth", spoil={ITS_JSON: within("config", depth=3)}),
    row(TEST, "damaged", "filters.1", spoil={ITS_JSON: within("config", filters=[2, "three"])}),
    row(TEST, "batch_size is 0", "expected 1 to", spoil={ITS_JSON: within("config", batch_size=0)}),
    row(TEST, "has the format 2", "train again", spoil={ITS_JSON: {"format": 2}}),
    row(f"{AGAIN} --preset plain", "residual", "--overrideChkpt"),
    row(f"{AGAIN} --set learning_rate=0.5", "learning_rate=0.001 there", "learning_rate=0.5"),
    row(f"{AGAIN} --seed 5", "of seed 0", "of seed 5"),
    row(f"{AGAIN} --precision mixed_float16", "of precision float32", "of precision mixed_float16"),
    row(f"{AGAIN.replace('{cohort}', '{records}')}", "trained on other data", "--overrideChkpt"),
    row(AGAIN, "other records of the same names", "--overrideChkpt", spoil={ITS_JSON: {"records_sha256": "0" * 64}}),
    # Whom and what the model was trained on
    row(TEST, "4 of 4 test subjects", "this checkpoint", spoil={ITS_JSON: learnt("training_subjects")}),
    row(TEST, "4 of 4 test subjects", "--keepSplit", spoil={ITS_JSON: learnt("training_subjects", zeros=False)}),
    row(TEST, "By their scans", "all of them", spoil={ITS_JSON: learnt("training_volumes")}),
    row(TEST, "the encoder behind this checkpoint", spoil={ITS_JSON: learnt("encoder_subjects")}),
    row(TEST, "the encoder behind", "By their scans", spoil={ITS_JSON: learnt("encoder_volumes")}),
    row(TEST, "does not say which scans", spoil={ITS_JSON: {"training_volumes": []}}),
    row(EVERYBODY, "4 of 4 test subjects", "Test other people"),
    row(f"run.py --test --folds 3 {FOLDS}", "was trained on data with", "made", spoil={CUT: in_another_fold}),
    row(TEST, "normalisation none", "has z-scored", spoil={ITS_JSON: within("preparation", normalisation="none")}),
    row(TEST, "maps reho as entry 1", "falff as entry 1", spoil={ITS_JSON: within("preparation", maps=["reho"])}),
    row(TEST, "records of 2 maps", "1 map", spoil={ITS_JSON: {"num_maps": 2, "cohort_sha256": "0" * 64}}),
    # The score of everybody
    row(f"{SCORED} --model nn", "of model mmnn", "nn"),
    row(f"{SCORED} --set batch_size=4", "--set batch_size 8", "asks for 4"),
    row(f"{SCORED} --numIters 5", "--numIters 4", "asks for 5"),
    row(SCORED.replace("{converted}", "{cohort}"), "of other records than {cohort}", "on folds of these"),
    row(SCORED.replace("test", "test/fold-0"), "of one split", "on folds"),
    row(SCORED.replace("test", "train"), "no predictions.csv", "run.py --test"),
    row(SCORED, "predictions.csv", "Copy it again", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(SCORED, "sites.csv is not as it was written", spoil={"on_folds/test/sites.csv": lambda table: table[::-1]}),
    row(SCORED, "is not finished", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(SCORED, "metrics.json", spoil={"on_folds/test/metrics.json": "gone"}),
    row(SCORED.replace("{on_folds}/test", "{empty}"), "{empty}", "no predictions.csv"),
]
SETTINGS: list[Row] = [
    row(f"run.py --train {said} --chkPointDir {{missing}} --dataDir {{cohort}}", *words)
    for said, *words in (
        ("--model cnn --set depth=3", "depth is unknown", "cubes"),
        ("--model nn --set filters=1", "filters is unknown", "phenotype_units"),
        ("--model cnn --set batch_size", "batch_size has no '='", "KEY=VALUE"),
        ("--model cnn --set batch_size=two", "batch_size=two", "whole number"),
        ("--model nn --set batch_size=٣", "batch_size", "whole number"),
        ("--model cnn --set learning_rate=fast", "learning_rate=fast", "a number"),
        ("--model cnn --set learning_rate=nan", "learning_rate is nan", "1e-12"),
        ("--model nn --set learning_rate=1e-60", "learning_rate is 1e-60", "1e-12"),
        ("--model nn --set half_rate_after=" + "9" * 400, "half_rate_after is 999", "1e+09"),
        ("--model cnn --preset residual --set batch_norm=1", "batch_norm", "true or false"),
        ("--model cnn --set batch_size=0", "batch_size is 0", "1 to 4096"),
        ("--model cnn --set standardise=scanner", "standardise", "stored, brain, site"),
        ("--model cnn --preset residual --set filters=8", "filters, kernels", "differ in length"),
        ("--model cnn --preset residual --set pools=0,0,-1", "pools is 0,0,-1", "0 to 31"),
        ("--model ae --set units=", "units is empty", "at least one layer"),
        ("--model nn --set phenotype_units=" + ",".join("1" * 99), "phenotype_units has 99", "64"),
        ("--model cnn --set region_units=4096,4096,4096", "weights", "100,000,000"),
        ("--model cnn --preset residual --set dropout=0.5", "dropout=0.5", "it needs global_average=false"),
        ("--model cnn --preset regions --set region_units= --set batch_norm=true", "changes nothing", "region_units"),
        ("--model nn --set initializer=he_normal", "changes nothing", "a second layer"),
    )
]
ON_FOLDS = "--folds 2 --model cnn --dataDir {cohort} --chkPointDir {missing}"
TWO_TESTS = "abide-compare {on_folds}/test {nn_on_folds}/test --outDir {missing}"
WHOM = "abide-data convert {lab} {missing} --grid reduced"
SCORES: list[Row] = [  # report, compare, choice, permutations
    row("abide-report {missing}", "{missing}", "no folder"),
    row("abide-report {on_folds}/train", "predictions.csv", "run.py --test"),
    row("abide-report {on_folds}/test", "run.json", "damaged", spoil={"on_folds/test/run.json": {"seed": "3"}}),
    row("abide-report {on_folds}/test", "not as", "floors.csv", spoil={"on_folds/test/floors.csv": "cut"}),
    row("abide-compare {on_folds}/test", "nothing to compare", "{on_folds}/test"),
    row("abide-compare {on_folds}/test {on_folds}/test", "same folder", "name two"),
    row("abide-compare" + 11 * " {on_folds}/test", "11 runs", "10 at most"),
    row("abide-compare {on_folds}/test {on_folds}/train", "train of mmnn", "run.py --test"),
    row("abide-compare {on_folds}/test {missing}", "{missing}", "not there"),
    row("abide-compare {on_folds}/test {split}/test", "differ in people", "such rows"),
    row(TWO_TESTS, "only", "such rows", spoil={"on_folds/test/run.json": {"folds": "site"}}),
    row(TWO_TESTS, "not as it was written", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(TWO_TESTS, "not finished", "{on_folds}", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(TWO_TESTS, "test of cae", "classifier", spoil={"on_folds/test/run.json": {"model": "cae"}}),
    row(TWO_TESTS, "repeat-0", "not there", spoil={"on_folds/test/run.json": {"repeats": 2}}),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/test/new", "folder of results", "folders of their own"),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/train", "train of mmnn", "--outDir"),
    row(f"{TWO_TESTS} --outDir {{file}}", "{file}", "name a folder"),
    row(f"run.py --train {ON_FOLDS} --choose combined", "one candidate", "2 to 64"),
    row(f"run.py --train {ON_FOLDS} --choose combined,sinus", "sinus", "combined, regions"),
    row(f"run.py --train {ON_FOLDS} --choose {{settings}}", "{settings} line 2", "mebmers"),
    row(f"run.py --train {ON_FOLDS} --choose {{alike}}", "same settings twice", "leave one out"),
    row(f"run.py --train {ON_FOLDS} --choose {{file}}", "{file} line 1", "--preset NAME"),
    row(f"run.py --train {ON_FOLDS} --choose --preset combined", "--choose", "leave --preset out"),
    row(f"run.py --train {ON_FOLDS} --choose --repeats 2", "one seed", "--repeats"),
    row(f"run.py --train {ON_FOLDS} --choose --model ae", "--choose", "ae"),
    row(f"run.py --test {ON_FOLDS} --choose", "no checkpoint", "--choose"),
    row(f"run.py --train {ON_FOLDS} --choose --folds SEX", "Without one fold", "--folds"),
    row("run.py --train --model cnn --dataDir {cohort} --chkPointDir {missing} --choose", "--choose", "--folds"),
    row("run.py --test --model nn --dataDir {cohort} --permutations 5", "--permutations 5", "--folds"),
    row(f"run.py --test {ON_FOLDS} --permutations 0", "--permutations", "from 1 to 100000"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --fold 1", "all folds", "--fold 1"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --repeats 2", "one run", "--repeats 2"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --model ae", "labels", "ae"),
    row(f"run.py --train {ON_FOLDS} --permutations 5", "--permutations", "--test"),
    row(f'{WHOM} --where "AGE < 18"', "no column AGE", "AGE_AT_SCAN"),
    row(f'{WHOM} --where "SEX = 1"', "--where", "columns"),
    row(f'{WHOM} --where "SITE_ID == 3"', "SITE_ID holds text", "quotes"),
    row(f"{WHOM} --where \"__import__('os').system('x') == 0\"", "--where", "neither a column nor a value"),
    row(f"{WHOM} --exclude {{lab}}/Phenotypic.csv", "Phenotypic.csv", "one ID a line"),
    row(f"{WHOM} --exclude absent.txt", "absent.txt", "no file"),
]
BLACKOUT: list[Row] = []
SYSTEMS: list[Row] = [
    row(
        "run.py --blackout --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --systems {systems}",
        "{systems}",
        *words,
        spoil={"systems": table} if table else None,
    )
    for table, *words in (
        (None, "lacks 115 of the 116 regions", "expected each"),
        (b"region,system\nPrecentral_L,a\nup,b\n", "names the region up", "the atlas"),
        (b"region,system\nPrecentral_L,a\nPrecentral_L,b\n", "Precentral_L twice", "Remove"),
        (b"region,system\nPrecentral_L,\n", "no system for the region Precentral_L", "Fill it in"),
        (b"area,system\nPrecentral_L,a\n", "region"),
    )
]
OF_BUNDLE = "run.py --blackout --bundle {bundle} --dataDir {newcomers}"
BLACKOUT: list[Row] = [
    row(f"{OF_BUNDLE} --maps reho", "--maps reho", "falff, alff"),
    row(f"{OF_BUNDLE} --donors 0", "--donors"),
    row(f"{OF_BUNDLE} --folds 2", "--folds is not for --bundle"),
    row(f"{OF_BUNDLE} --prevalence 0.1", "--prevalence goes with --test"),
    row(f"{OF_BUNDLE} --atlas {{file}}", "{file}"),
    row(f"{OF_BUNDLE} --systems {{file}}", "{file}"),
    row(f"{OF_BUNDLE} --maps falff --systems {{file}}", "--systems {file}", "Leave --systems out"),
    row("run.py --blackout --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --blackout --folds 3 --chkPointDir {empty} --dataDir {converted}", "{empty}", "run.py --train"),
    row(
        "run.py --blackout --model nn --chkPointDir {seen_two}/ckpt --dataDir {cohort} --atlas {file}",
        *("--atlas tells of regions", "nn reads no volume"),
    ),
]
EVERYBODY, FOLDS = "everybody/ckpt/mmnn/everybody", "on_folds/ckpt/mmnn/folds-3"
OF_EVERYBODY = "abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.zip"
OF_FOLDS = "abide-bundle {on_folds}/ckpt/mmnn/folds-3 {empty}/a.zip"
BY_BUNDLE = "run.py --test --bundle {bundle} --dataDir {newcomers}"


def model_with(**changes: object) -> Callable[[Path], None]:
    """A bundle of which these keys of `model.json` are others, as a program of another version writes them."""

    def change(path: Path) -> None:
        model = json.loads(parts_of(path)["model.json"]) | changes
        rebuilt(path, path, {"model.json": json.dumps(model).encode()})

    return change


def pickled(path: Path) -> None:
    weights = io.BytesIO()
    np.save(weights, np.array([{}], object))
    rebuilt(path, path, {"weights/0.npy": weights.getvalue()})


BUNDLES: list[Row] = [
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.txt", "a.txt", ".zip"),
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {bundle}", "{bundle} exists"),
    row("abide-bundle {everybody}/ckpt {empty}/a.zip", "holds no checkpoint", "CKPT/mmnn/everybody"),
    row(f"{OF_EVERYBODY} --score {{on_folds}}/train", "{on_folds}/train"),
    row(f"{OF_EVERYBODY} --score {{on_folds}}/test", "report.html", spoil={"on_folds/test/report.html": "flipped"}),
    row(OF_EVERYBODY, "gone or was changed", spoil={f"{EVERYBODY}/run.json": {"cohort": "gone"}}),
    row(OF_EVERYBODY, "predicts no label", spoil={f"{EVERYBODY}/run.json": {"model": "ae"}}),
    row(OF_EVERYBODY, "not as it was saved", spoil={f"{EVERYBODY}/ckpt-1.data-00000-of-00001": "cut"}),
    row(OF_FOLDS, "differ in preset", spoil={f"{FOLDS}/1/run.json": {"preset": "regions"}}),
    row(OF_FOLDS, "lacks a checkpoint of fold 1", spoil={f"{FOLDS}/1": shutil.rmtree}),
    row(BY_BUNDLE, "{bundle}", "Copy it again", spoil={"bundle": "cut"}),
    row(BY_BUNDLE, "{bundle}", "no bundle", spoil={"bundle": b"PK precious"}),
    row(BY_BUNDLE, "format 2", "format 1", spoil={"bundle": model_with(format=2)}),
    row(BY_BUNDLE, "another AAL", spoil={"bundle": model_with(aal_sha256="0" * 64)}),
    row(BY_BUNDLE, "weights/0.npy", "array of float32", spoil={"bundle": pickled}),
    row("run.py --test --bundle {missing} --dataDir {newcomers}", "{missing}", "does not exist"),
    row("run.py --test --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --test --bundle {bundle} --dataDir {cohort}", "{cohort}", "--like {bundle}"),
    row("run.py --train --bundle {bundle} --dataDir {newcomers}", "--bundle goes with"),
    row("run.py --test --prevalence 0.1 --dataDir {newcomers}", "--prevalence goes with --bundle"),
    row(f"{BY_BUNDLE} --set l2=1", "--set is not for --bundle"),
    row(f"{BY_BUNDLE} --model cnn", "is of mmnn, not cnn"),
    row(f"{BY_BUNDLE} --prevalence 1", "expected a share between 0 and 1"),
]
ROWS = [*CONVERT, *DERIVE, *COHORTS, *RUNS, *SETTINGS, *SCORES, *BLACKOUT, *SYSTEMS, *BUNDLES]
BUNDLES: list[Row] = []
ROWS = [*CONVERT, *TABLES, *DERIVE, *COHORTS, *DAMAGE, *RUNS, *SETTINGS, *SCORES, *BLACKOUT, *SYSTEMS, *BUNDLES]


@pytest.fixture(scope="session")
def swapped(once, cohort) -> Path:
    """A cohort of simulated people, with one record more for each training subject."""
    command = "abide-data swap {of} {to}/swapped --copies 1"
    return once("swapped", lambda folder: done(command, of=cohort, to=folder)) / "swapped"


@pytest.mark.parametrize("of", ROWS, ids=lambda of: f"{' '.join(of.words)}: {of.command}"[:90])
def test_it_is_refused_in_one_line(of, request, tmp_path):
    spoilt = {name.partition("/")[0] for name in of.spoil}
    places = {}
    for name in sorted(of.names):
        places[name] = tmp_path / name
        if name in PLACES:
            PLACES[name](places[name])
        elif name not in spoilt:
            places[name] = request.getfixturevalue(name)
        else:
            lab.copy(request.getfixturevalue(name), places[name])
    for name, change in of.spoil.items():
        path = tmp_path / name
        if callable(change) and path.suffix not in lab.READ:
            change(path)
        else:
            lab.edit(path, change)
    refused(of.command, *of.words, **places)
