"""What convert refuses: maps, tables, likeness to another cohort."""

import gzip
import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pandas as pd
from commands import done
from scipy.io import savemat

from refusals import Row, row


def small_cohort(path: Path) -> None:
    """Of six people at three sites."""
    source = lab.pcp(path.with_name("lab-of-six"), lab.people(6))
    done("abide-data convert {source} {to} --grid reduced", source=source, to=path)


def written_by_a_script(name: str, change: Any) -> Callable[[Path], None]:
    """A cohort with another file than abide-data wrote, which `pack` has sealed as it is."""

    def spoil(folder: Path) -> None:
        for file, fault in {name: change, "SHA256SUMS": "gone"}.items():
            lab.edit(folder / file, fault)
        script = folder.rename(folder.with_name("script"))
        done("abide-data pack {script} {to} --bin", script=script, to=folder)

    return spoil


def broken_link(folder: Path) -> None:
    """What git-annex leaves in place of a file that was not fetched."""
    path = folder / "cpac/X_0050003_falff.nii.gz"
    path.unlink()
    path.symlink_to("nowhere")


def pipe(name: str) -> Callable[[Path], None]:
    """A named pipe in place of a file: who opens it waits for somebody who writes."""

    def replace(folder: Path) -> None:
        path = folder / name
        path.unlink()
        os.mkfifo(path)

    return replace


def with_column(**columns: Sequence[str] | str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A table with these columns, whose values are repeated down to its end."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: list(islice(cycle(values), len(table))) for name, values in columns.items()})

    return change


def with_cell(column: str, value: str, row_index: int = 1) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**{column: [*table[column][:row_index], value, *table[column][row_index + 1 :]]})


def drop_columns(*names: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=[*names])


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """A map with other values (x, y, z)."""
    return lambda values, affine: (change(values), affine)


def edit_matching(pattern: str, change: Any) -> Callable[[Path], None]:
    """The same fault in all files of a folder of this pattern."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob(pattern)):
            lab.edit(path, change)

    return spoil


def make_gradient(values: np.ndarray) -> np.ndarray:
    return np.where(values, np.indices(values.shape, "f4").sum(0), 0)


def renumber_maps(folder: Path) -> None:
    """Maps without the IDs of the people, from 1."""
    for number, path in enumerate(sorted(folder.rglob("*_falff.nii.gz")), 1):
        path.rename(path.with_name(f"{number}_falff.nii.gz"))


def copy_training_scans(folder: Path) -> None:
    """One map of each person is that of somebody of the laboratory, most of whom are training people."""
    for number, path in enumerate(sorted(folder.rglob("*_falff.nii.gz"))):
        lab.save(path, lab.make_map(lab.person(number, f"{50002 + number}")))


def label_volumes(*names: str, people: slice = slice(None)) -> Callable[[Path], None]:
    """Names beside each 4-D file, as BIDS has them."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob("*_net.nii.gz"))[people]:
            Path(str(path).replace(".nii.gz", ".json")).write_text(json.dumps({"LabelMap": names}))

    return spoil


def series_file(rows: str, header: str = "a\tb\n", volume_count: int = 0) -> bytes:
    return (header + "1\t2\n" * volume_count + rows).encode()


def matrix_file(values: np.ndarray) -> bytes:
    """A table of this matrix, whose header numbers the columns."""
    lines = ["\t".join(f"#{number}" for number in range(1, len(values) + 1))]
    lines += ["\t".join(f"{value:.4f}" for value in row) for row in values]
    return "\n".join(lines).encode()


def with_matrices(change: Callable[[np.ndarray], np.ndarray] = np.copy) -> Callable[[Path], None]:
    """A matrix of r a person, of whom the second has another."""

    def spoil(folder: Path) -> None:
        for number in range(6):
            matrix = np.atleast_2d(np.corrcoef(lab.make_series(lab.person(number, f"{50002 + number}")).T))
            np.save(folder / f"{50002 + number}_toy.npy", change(matrix) if number == 1 else matrix)

    return spoil


def with_matrix_texts(change: Callable[[str], str]) -> Callable[[Path], None]:
    """The same as text without names."""

    def spoil(folder: Path) -> None:
        with_matrices()(folder)
        for number, path in enumerate(sorted(folder.glob("*_toy.npy"))):
            text = "\n".join(",".join(f"{value:.5f}" for value in row) for row in np.load(path))
            path.with_suffix(".csv").write_text(change(text) if number == 1 else text)
            path.unlink()

    return spoil


def with_matlab_files(variables: dict[str, Any] | None) -> Callable[[Path], None]:
    """A file a person, which holds these variables; None: no file of MATLAB."""

    def spoil(folder: Path) -> None:
        for number in range(6):
            path = folder / f"{50002 + number}_toy.mat"
            if variables is None:
                path.write_bytes(b"")
            else:
                savemat(path, variables)

    return spoil


def with_edge_table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """A table of three edges a person."""

    def spoil(folder: Path) -> None:
        edges = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 3)).round(3)
        table = pd.DataFrame(edges, columns=["a--b", "a--c", "b--c"])
        table.insert(0, "subject", [str(50002 + number) for number in range(6)])
        change(table).to_csv(folder / "edges.csv", index=False)

    return spoil


def number_edges(table: pd.DataFrame, parcel_count: int) -> pd.DataFrame:
    """A table of the lower triangle of this many parcels, row by row, with the diagonal."""
    matrices = np.random.default_rng(0).uniform(-0.5, 0.5, (len(table), parcel_count, parcel_count))
    matrices[:, range(parcel_count), range(parcel_count)] = 1
    numbered_edges = pd.DataFrame([matrix[np.tril_indices(parcel_count)] for matrix in matrices])
    return pd.concat([table[["subject"]], numbered_edges], axis=1)


def with_names(names_text: str) -> Callable[[Path], None]:
    """A file of names of parcels."""

    def spoil(folder: Path) -> None:
        (folder / "names.txt").write_text(names_text)

    return spoil


def with_stack(folder: Path) -> None:
    """The matrices of all people in one array."""
    np.save(folder / "stack.npy", np.stack([np.eye(12)] * 6))


def mark_pair(first: int, second: int) -> np.ndarray:
    """A matrix of 12 parcels that is true for this pair."""
    is_pair = np.zeros((12, 12), bool)
    is_pair[first, second] = is_pair[second, first] = True
    return is_pair


RANDOM_MATRIX = np.random.default_rng(0).normal(size=(30, 60))
TABLE, MAP_FILE, SERIES_FILE = (
    "few/Phenotypic.csv",
    "few/cpac/X_0050003_falff.nii.gz",
    "few/cpac/X_0050002_rois_made.1D",
)
NET_FILE = "networks/cpac/X_0050003_net.nii.gz"
FROM = "abide-data convert {few} {missing}"
CONVERT_BY_DX = f"{FROM} --labelColumn dx --positive"
CONVERT_LIKE = "abide-data convert {others} {missing} --like {converted}"
CONVERT_NETS = "abide-data convert {networks} {missing} --maps net"
SPELLING_VARIANTS = ("ASD", "TD", "asd", "td")
FOUR_DIAGNOSES = ("ASD", "TD", "3", "ADHD")
PATHS = {
    original: [f"cpac/X_{50002 + number:07}_{original}.nii.gz" for number in range(6)] for original in ("falff", "alff")
}
PACK, SITES = "abide-data pack --zip", "run.py --train --model cnn --set standardise=site --chkPointDir {missing}"
FOLD_RUN_OPTIONS = "--folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --outDir {missing}"
UNSEALED = {"converted/SHA256SUMS": "gone"}
PATH_COLUMNS = {TABLE: with_column(**PATHS, one=PATHS["falff"][:1])}
CONVERT: list[Row] = [
    row("abide-data convert {missing} {empty}/new", "{missing}", "not a folder"),
    row("abide-data convert {lab} {repository}", "{repository} exists", "another folder"),
    row("abide-data convert {lab} {converted} --dryRun", "{converted} exists", "another folder"),
    row(f"{FROM} --seed -1", "--seed", "-1"),
    # what a folder holds
    row(FROM, "holds no falff maps", "It holds alff", spoil={"few": edit_matching("*_falff.nii.gz", "gone")}),
    row(f"{FROM} --maps falff,reho", "holds no reho maps", "*_reho.nii.gz"),
    row("abide-data convert {scans} {missing}", "abide-data derive makes maps", "surfaces to volumes"),
    row("abide-data convert {analyze} {missing}", "of other formats, such as .img", "converted to NIfTI"),
    row("abide-data convert {native} {missing}", "1 in space T1w", "--mapColumn"),
    row(f"{FROM} --only '*ses-9*'", "--only '*ses-9*' matches none", "cpac/X_0050002"),
    row(f"{FROM} --maps falff,alff --only '*_falff*'", "matches none", "_alff.nii.gz"),
    row(f"{FROM} --maps alff,alff", "expected each once", "--maps"),
    row(f"{FROM} --maps alff,../x", "'../x'", "--maps"),
    row(f"{FROM} --mapColumn falff --only '*'", "--only", "--mapColumn", spoil=PATH_COLUMNS),
    row(
        f"{FROM} --mapColumn falff,alff --maps alff", "names 1 maps, alff", "a name for each column", spoil=PATH_COLUMNS
    ),
    row(
        f"{FROM} --mapColumn alff,alff --maps a,b",
        "X_0050002_alff.nii.gz to 50002 and 50002",
        "one of each",
        spoil=PATH_COLUMNS,
    ),
    row(f"{FROM} --mapColumn one", "gives the map", "--mapColumn", spoil=PATH_COLUMNS),
    row(f"{FROM} --mapColumn SEX", "expected paths of maps", "SEX"),
    row(f"{FROM} --mapColumn one,three", "no column three", "it has", spoil=PATH_COLUMNS),
    # a map
    row(FROM, "X_0050003_falff.nii.gz", "not a readable NIfTI map", spoil={MAP_FILE: "cut"}),
    row(FROM, "X_0050003_falff.nii.gz", "not a readable NIfTI map", spoil={MAP_FILE: gzip.compress(b"this is text")}),
    row(
        f"{FROM} --maps alff,falff",
        "2 of 6 cannot be used",
        "X_0050004_falff",
        spoil={
            MAP_FILE: "cut",
            "few/cpac/X_0050004_falff.nii.gz": "cut",
        },
    ),
    row(
        FROM,
        "expected one 3-D map",
        "(8, 10, 8, 2)",
        spoil={MAP_FILE: with_values(lambda original: np.stack([original, original], -1))},
    ),
    row(
        FROM,
        "X_0050003",
        "infinite",
        spoil={MAP_FILE: with_values(lambda original: np.where(original == original.max(), np.inf, original))},
    ),
    row(FROM, "X_0050003", "empty or constant", spoil={MAP_FILE: with_values(np.zeros_like)}),
    row(
        FROM,
        "X_0050003",
        "outside the MNI grid",
        spoil={MAP_FILE: lambda original, affine: (original, affine + 90 * np.eye(4, k=2))},
    ),
    row(FROM, "X_0050003", "has no affine", spoil={MAP_FILE: lambda original, affine: (original, np.eye(4))}),
    row(
        "abide-data convert {lab} {missing} --maps falff,alff",
        "alff: The maps separate",
        "mean (AUC",
        spoil={
            "lab": edit_matching(
                "*_alff.nii.gz",
                with_values(lambda original: original * (1 + (original[:4].mean() > original[4:].mean()))),
            )
        },
    ),
    # the table
    row(
        FROM,
        "6 participants to convert have one scan",
        "--keepDuplicates",
        spoil={"few": edit_matching("*_falff.nii.gz", with_values(make_gradient))},
    ),
    row(FROM, "no table of participants", "--table", spoil={TABLE: "gone"}),
    row(
        FROM,
        "several tables",
        "--table",
        spoil={"few": lambda original: shutil.copy(original / "Phenotypic.csv", original / "b.csv")},
    ),
    row(FROM, "No column of", "such as X_0050002", spoil={TABLE: b"SUB_ID,DX_GROUP\nP1,1\nP2,2\n"}),
    row(f"{FROM} --idColumn SEX", "The column SEX of", "such as X_0050002"),
    row(FROM, "--idColumn DX_GROUP, which holds 2 of 6", spoil={"few": renumber_maps}),
    row(f"{FROM} --idColumn DX_GROUP", "column DX_GROUP of", "1_falff.nii.gz to", spoil={"few": renumber_maps}),
    row(FROM, "column B twice", "Rename", spoil={TABLE: b"A,B,B \n1,2,3\n"}),
    row(FROM, "not a readable table", "line 2", spoil={TABLE: b"FILE_ID,DX_GROUP\nX_0050002,1,\nx,2,\n"}),
    row(FROM, "not a readable table", "UTF-8", spoil={TABLE: b'FILE_ID,DX_GROUP\n"X_0050002,1\n'}),
    row(FROM, "'50002' (2 times)", "--where", spoil={TABLE: with_cell("SUB_ID", "50002")}),
    row(
        FROM,
        "'a b', 'c/d'",
        "'ä' and 'Ä'",
        spoil={TABLE: lambda table: table.assign(SUB_ID=["a b", "c/d", "ä", "Ä", *table["SUB_ID"][4:]])},
    ),
    row(FROM, "1 to 100 letters", "ä", spoil={TABLE: with_cell("SUB_ID", "ä" * 101)}),
    row(f"{FROM} --where 'AGE_AT_SCAN > 200'", "Nobody of", "--where AGE_AT_SCAN > 200 is false"),
    *(
        row(f"{FROM} --where {shlex.quote(text)}", *words)
        for text, *words in (
            ("AGE < 18", "no column AGE", "AGE_AT_SCAN"),
            ("AGE_AT_SCAN = 18", "--where", "Expected columns"),
            ("SEX", "SEX is no comparison"),
            ("1 < 2", "expected a column in each comparison"),
            ("AGE_AT_SCAN < '18'", "holds numbers", "compared with numbers"),
            ("SITE_ID == 3", "SITE_ID holds text", "in quotes"),
            ("SEX in 3", "in and brackets"),
            ("__import__('os').system('true') == 0", "neither a column nor a value"),
        )
    ),
    # sites
    row(FROM, "The SITE_ID of 1 of 6 participants", "--exclude", spoil={TABLE: with_cell("SITE_ID", "n/a")}),
    row(f"{FROM} --siteColumn DX_GROUP", "--siteColumn DX_GROUP", "cannot be both"),
    row(
        FROM,
        "CENTRE, MRI_system",
        "--siteColumn ''",
        spoil={TABLE: lambda table: with_column(MRI_system="ABC")(table).rename(columns={"SITE_ID": "CENTRE"})},
    ),
    # labels
    row(
        FROM,
        "is the diagnosis",
        "--labelColumn",
        spoil={TABLE: lambda original: original.rename(columns={"DX_GROUP": "dx"})},
    ),
    row(f"{FROM} --labelColumn SEX", "is the diagnosis", "--positive"),
    row(f"{FROM} --labelColumn dx --positive 1", "no column dx (--labelColumn)", "it has"),
    row(FROM, "DX_GROUP holds 1, 2, 3", "--negative", spoil={TABLE: with_cell("DX_GROUP", "3")}),
    row(f"{CONVERT_BY_DX} autism", "dx holds ASD, TD", "autism", spoil={TABLE: with_column(dx=("ASD", "TD"))}),
    row(f"{CONVERT_BY_DX} ASD", "ASD", "--negative", spoil={TABLE: with_column(dx=FOUR_DIAGNOSES)}),
    row(
        f"{CONVERT_BY_DX} ASD,TD,3,ADHD",
        "expected two values",
        "--negative",
        spoil={TABLE: with_column(dx=FOUR_DIAGNOSES)},
    ),
    row(
        f"{CONVERT_BY_DX} ASD --negative ASD,TD",
        "--negative ASD,TD",
        "none of",
        spoil={TABLE: with_column(dx=FOUR_DIAGNOSES)},
    ),
    row(
        f"{CONVERT_BY_DX} ASD --negative healthy",
        "--negative healthy",
        "dx",
        spoil={TABLE: with_column(dx=FOUR_DIAGNOSES)},
    ),
    row(f"{CONVERT_BY_DX} ASD", "ASD and asd", "--positive ASD,asd", spoil={TABLE: with_column(dx=SPELLING_VARIANTS)}),
    row(
        f"{CONVERT_BY_DX} ASD --negative TD",
        "ASD and asd",
        "--positive ASD,asd",
        spoil={TABLE: with_column(dx=SPELLING_VARIANTS)},
    ),
    # phenotype and covariates
    row(
        f"{FROM} --phenotype age",
        "age 999 (2) participants",
        "--missing age=999",
        spoil={TABLE: with_column(age=("999", "8", "999.0", "14", "11", "9"))},
    ),
    row(f"{FROM} --phenotype SEX --missing SEX=998", "nobody", "NAME=VALUE"),
    row(
        f"{FROM} --phenotype {','.join(f'x{number}' for number in range(30))}",
        "30 values",
        "at most 29",
        spoil={TABLE: with_column(**{f"x{number}": ("1", "2", "4") for number in range(30)})},
    ),
    row(f"{FROM} --phenotype shoe_size,IQ", "no column shoe_size (--phenotype), IQ", "Did you mean FIQ, VIQ, PIQ"),
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
    row(
        CONVERT_NETS,
        "holds 2 volumes, the net",
        "3 other participants 3",
        spoil={NET_FILE: with_values(lambda original: original[..., :2])},
    ),
    row(CONVERT_NETS, "holds 1 volumes", "--exclude", spoil={NET_FILE: with_values(lambda original: original[..., 0])}),
    row(
        CONVERT_NETS,
        "holds 66 volumes",
        "abide-data derive",
        spoil={NET_FILE: with_values(lambda original: np.tile(original, 22))},
    ),
    row(
        CONVERT_NETS,
        "volume 1 is empty",
        "X_0050003_net",
        spoil={NET_FILE: with_values(lambda original: original * [1, 0, 1])},
    ),
    row(
        CONVERT_NETS,
        "name their volumes differently",
        "LabelMap",
        spoil={"networks": label_volumes("x", "y", "z", people=slice(3))},
    ),
    row(CONVERT_NETS, "names 2 volumes", "expected 3 different names", spoil={"networks": label_volumes("x", "y")}),
    row(CONVERT_NETS, "'x', 'y', 'y'", "expected 3", spoil={"networks": label_volumes("x", "y", "y")}),
    row(
        CONVERT_NETS,
        "net.txt names 3 volumes",
        "'b c'",
        spoil={"networks": lambda folder: (folder / "net.txt").write_text("a\nb c\nd")},
    ),
    row(f"{CONVERT_NETS}_7", "holds no net_7 maps", "holds net_0, net_1, net_2"),
    row(f"{CONVERT_NETS}_", "holds no net_ maps", "holds net_0, net_1, net_2"),
    row(f"{CONVERT_NETS},net_1", "expected each once", "'net_2', 'net_1'"),
    row("abide-data convert {networks} {missing} --maps falff_7", "holds no falff_7 maps", "holds falff"),
    # series
    row(f"{FROM} --connectome seg-AAL", "holds no seg-AAL series", "It holds X_0050002_rois_made.1D"),
    row(f"{FROM} --parcels {{few}}/parcels.nii.gz", "--parcels", "--connectome"),
    row(
        f"{FROM} --connectome rois_made --parcels {{few}}/parcels.nii.gz",
        "no label for 1 of 12 parcels",
        "12",
        spoil={"few/parcels.nii.gz": with_values(lambda original: np.where(original == 12, 0, original))},
    ),
    *(
        row(f"{FROM} --connectome rois_made", "X_0050002_rois_made.1D", words, spoil={SERIES_FILE: content})
        for words, content in (
            ("expected the names of 2 to", b""),
            ("names b b (3 times), a (2 times)", series_file("1\t2\n", '"b b"\ta\tb b\tc\tb b\ta\n')),
            ("no name for column 1 of 3", series_file("0\t1\t2\n", "\ta\tb\n")),
            ("no name for column 2 of 3", series_file("1,2,3\n", "a,,b\n")),
            ("has 1 columns", series_file("1\n" * 30, "a\n")),
            ("in its first line", series_file("1\t2\n", "0.5\t0.25\n")),
            ("not the series of 2 parcels", series_file("1\tx\n")),
            ("has 3 columns, its header 2 names", series_file("1\t2\t3\n")),
            ("missing or infinite", series_file("1\n", volume_count=30)),
            ("missing or infinite", series_file("inf\t1\n", volume_count=30)),
            ("has 9 volumes that are not censored", series_file("n/a\tn/a\n" * 20, volume_count=9)),
            ("has other parcels than the rest", series_file("1\t2\n", volume_count=30)),
            ("is a matrix of 30 parcels", matrix_file(np.atleast_2d(np.corrcoef(RANDOM_MATRIX)))),
            ("is a matrix of 30 parcels", matrix_file(np.cov(RANDOM_MATRIX))),
            ("is a matrix of 30 parcels", matrix_file(np.triu(RANDOM_MATRIX[:, :30], 1))),
        )
    ),
    # matrices, tables of edges, series without names
    *(
        row(f"{FROM} --connectome toy{options}", words, "50003", spoil={"few": with_matrices(change)})
        for options, words, change in (
            ("", "holds 12 x 11 numbers", lambda r: r[:, :11]),
            ("", "is not symmetric", lambda r: np.triu(r)),
            ("", "in its diagonal", lambda r: r * np.arange(1, 13) * np.arange(1, 13)[:, None]),
            ("", "lacks 1 values", lambda r: np.where(mark_pair(0, 5), np.nan, r)),
            ("", "no two parcels with a signal", np.zeros_like),
            ("", "by its diagonal of 1", lambda r: np.where(mark_pair(0, 5), 3, r)),
            (" --edges r", "holds 3, as 1 of 6", lambda r: np.where(mark_pair(0, 5), 3, r)),
            ("", "neither r nor Fisher z", lambda r: np.where(mark_pair(0, 5), 300, r)),
            ("", "has 11 parcels, the rest 12", lambda r: r[:11, :11]),
            ("", "real numbers", lambda r: r.astype(complex)),
            ("", "expected the table of one person", lambda r: np.stack([r, r])),
        )
    ),
    row(f"{FROM} --connectome toy --transpose", "--transpose is about series", spoil={"few": with_matrices()}),
    row(f"{FROM} --connectome toy:r", "alone has variables", spoil={"few": with_matrices()}),
    row(f"{FROM} --connectome rois_made --edges r", "--edges is about matrices"),
    *(row(f"{FROM} {option}", option.split()[0], "--connectome") for option in ("--transpose", "--edges z")),
    *(
        row(f"{FROM} --connectome toy", words, "50003_toy.csv", spoil={"few": with_matrix_texts(change)})
        for words, change in (
            ("Is a header among them", lambda text: "0.9" + ",0.1" * 11 + "\n" + text),
            ("holds 'x' in line 2", lambda text: text.replace("\n1.0,", "\nx,") if "\n1.0," in text else "1,1\n1,x\n"),
            ("has 1 columns in line 3", lambda text: "\n".join([*text.splitlines()[:2], "1"])),
            ("has other parcels than the rest", lambda text: ",".join("abcdefghijkl") + "\n" + text),
            ("names a (2 times)", lambda text: ",".join("abcdefghijka") + "\n" + text),
            ("holds no numbers", lambda text: "\n"),
        )
    ),
    *(
        row(f"{FROM} --connectome toy{variable}", words, "50002_toy.mat", spoil={"few": with_matlab_files(variables)})
        for variable, words, variables in (
            ("", "holds several matrices, r (12 x 12), z (12 x 12)", {"r": np.eye(12), "z": np.eye(12)}),
            (":p", "has no matrix p", {"r": np.eye(12)}),
            ("", "holds no matrix of numbers", {}),
            ("", "but note", {"note": "text"}),
            ("", "cannot be read as a file of MATLAB", None),
        )
    ),
    *(
        row(f"{FROM} --connectome {{few}}/edges.csv", words, "edges.csv", spoil={"few": with_edge_table(change)})
        for words, change in (
            ("has no column of IDs", lambda table: table.drop(columns="subject")),
            ("no edges, 'age'", lambda table: table.assign(age="5")),
            ("has several rows of 50002", lambda table: table.assign(subject="50002")),
            ("has no subject in line 3", lambda table: table.assign(subject=["1", None, *"3456"])),
            ("has 2 edges of 3 parcels, not that of b and c", lambda table: table.drop(columns="b--c")),
            ("not a table of edges", lambda table: table.assign(**{"a--b": "x"})),
            ("has 2 columns of edges", lambda table: table.set_axis(["subject", "1", "2", "b--c"], axis=1).iloc[:, :3]),
            ("in another order than 1, 2, 3", lambda table: table.set_axis(["subject", "1", "3", "2"], axis=1)),
            ("edges.csv, 50003, lacks 1 values", lambda table: table.assign(**{"a--b": [0.1, None, *[0.2] * 4]})),
            ("where the diagonal of the", lambda table: number_edges(table, 6)),
        )
    ),
    row(f"{FROM} --connectome {{few}}/stack.npy", "holds rows without IDs", spoil={"few": with_stack}),
    *(
        row(
            f"{FROM} --connectome rois_made --parcelNames {{few}}/names.txt{options}",
            *words,
            spoil={"few": with_names(names)},
        )
        for options, names, words in (
            ("", "a\nb\n", ("--parcelNames a, b", "expected files without names")),
            (" --transpose", "\n".join(map(str, range(1, 13))), ("60 rows and 12 columns", "Leave that out")),
            ("", "a\n0.5\n", ("names.txt", "'0.5' in a line")),
        )
    ),
    # new people like those of a cohort
    *(
        row(f"{CONVERT_LIKE} {words}", words.split()[0], "does not go with --like")
        for words in (
            "--grid full",
            "--covariates ''",
            "--maps alff,falff",
            "--keepDuplicates",
        )
    ),
    row(
        CONVERT_LIKE, "lacks FIQ, BMI", "the phenotype of", spoil={"others/Phenotypic.csv": drop_columns("FIQ", "BMI")}
    ),
    row(
        CONVERT_LIKE,
        "alff: The maps are",
        "unlike those of",
        spoil={
            "others": edit_matching(
                "*_alff.nii.gz",
                with_values(lambda original: np.where(original, (original - original[original > 0].mean()) / 9, 0)),
            )
        },
    ),
    row(
        CONVERT_LIKE,
        "alff: The maps are",
        "unlike those of",
        spoil={"others": edit_matching("*_alff.nii.gz", with_values(lambda original: original / 50))},
    ),
    row(f"{CONVERT_LIKE}", "holds no alff maps", "alff", spoil={"others": edit_matching("*_alff.nii.gz", "gone")}),
    row(f"{CONVERT_LIKE}", "holds no rois_made series", "rois_", spoil={"others": edit_matching("*.1D", "gone")}),
    row(f"{CONVERT_LIKE} --labelColumn SEX", "is the diagnosis", "--positive"),
    row(
        f"{CONVERT_LIKE} --labelColumn dx --positive asd",
        "dx holds ASD",
        "asd",
        spoil={"others/Phenotypic.csv": with_column(dx=["ASD"])},
    ),
    row(
        f"{CONVERT_LIKE} --labelColumn dx --positive ASD",
        "dx holds TD only",
        "--negative TD",
        spoil={"others/Phenotypic.csv": with_column(dx=["TD"])},
    ),
    row(
        "abide-data convert {others} {missing} --like {bundle}",
        "holds no alff maps",
        "alff",
        spoil={"others": edit_matching("*_alff.nii.gz", "gone")},
    ),
    row("abide-data convert {others} {missing} --like {cohort}", "does not say how its records were made", "{cohort}"),
    row(CONVERT_LIKE, "have a scan of training participants", "--exclude 7000", spoil={"others": copy_training_scans}),
    row(
        CONVERT_LIKE,
        "has other parcels than the rest",
        "a, b",
        spoil={"others/cpac/X_0070002_rois_made.1D": series_file("", volume_count=30)},
    ),
    row(
        "abide-data convert {others} {missing} --like {bundle}",
        "falff: The maps are from 0 to above 1",  # one typical person is no minority
        "unlike those of the cohort or bundle, from 0 to 1",
        spoil={
            "others": edit_matching(
                "*_falff.nii.gz", with_values(lambda original: np.where(original, 30 * original - 10, 0))
            )
        },
    ),
    *(
        row(CONVERT_LIKE, words, "{converted}", spoil={"converted": written_by_a_script("cohort.json", change)})
        for words, change in (
            ("volumes of an encoder", {"reduction": "encoder abc"}),
            ("does not say how its records were made", {"phenotype_scale": None}),
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
    row(FROM, "X_0050003_falff.nii.gz", "pipe", spoil={"few": pipe("cpac/X_0050003_falff.nii.gz")}),
    row("abide-data check {few}", "X_0050003_falff.nii.gz", "pipe", spoil={"few": pipe("cpac/X_0050003_falff.nii.gz")}),
    row(FROM, "Phenotypic.csv", "pipe", spoil={"few": pipe("Phenotypic.csv")}),
    row(
        f"{FROM} --connectome rois_made",
        "X_0050003_rois_made.1D",
        "pipe",
        spoil={"few": pipe("cpac/X_0050003_rois_made.1D")},
    ),
    row(
        f"{PACK} {{converted}} {{missing}}",
        "says 1 maps",
        "hold 2",
        spoil={"converted/cohort.json": {"maps": ["falff"]}, **UNSEALED},
    ),
    row(
        f"{PACK} {{converted}} {{missing}}",
        "connectomes.h5 missing",
        "Copy",
        spoil={"converted/connectomes.h5": "gone"},
    ),
    row(
        f"{PACK} {{converted}} {{missing}}",
        "connectomes.h5",
        "connectomes",
        spoil={"converted/connectomes.h5": b"no", **UNSEALED},
    ),
    row("run.py --train --dataDir {nameless} --chkPointDir {missing}", "has the label nan", "1.bin"),
    row(
        "run.py --test --everybody --dataDir {records} --chkPointDir {everybody}/ckpt",
        "has no connectomes",
        "--connectome",
    ),
    row(f"{SITES} --dataDir {{records}}", "names no sites", "standardise=brain"),
    row(f"{SITES} --dataDir {{small}}", "2 participants of site", "needs 5 of each"),
    row(f"run.py --blackout --maps alff,reho {FOLD_RUN_OPTIONS}", "--maps reho", "falff, alff"),
    row(f"run.py --test --maps alff {FOLD_RUN_OPTIONS}", "--maps goes with --blackout", "leave it out"),
]

PLACES: dict[str, Callable[[Path], object]] = {
    "few": lambda path: lab.pcp(path, lab.people(6), ("falff", "alff"), series=True),
    "others": lambda path: lab.pcp(path, lab.people(4, 70002), ("falff", "alff"), series=True),  # whom nobody knows
    "networks": lambda path: lab.write_network_maps(path, lab.people(4)),
    "analyze": lambda path: lab.write_maps_under_names(path, ["fALFFMap_1.img"]),
    "nameless": lambda path: lab.edit(lab.records(path) / "1.bin", lab.record(1, float("nan"))),
    "small": small_cohort,
    "native": lambda path: lab.write_maps_under_names(path, ["sub-1_space-T1w_falff.nii.gz"]),
}
ROWS = [*CONVERT]
