"""What is refused of the people whom a conversion reads, of a cohort that is opened, and of what was damaged."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import lab
import numpy as np
import pandas as pd
from commands import done

from refusals import Row, row


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


def write_single_label(path: Path) -> None:
    lab.records(path, 4)
    for number in range(1, 5):
        lab.edit(path / f"{number}.bin", lab.record(number, 1.0))


def with_sites(path: Path) -> None:
    """The same with covariates, whose column of sites is called so."""
    script = path.with_name("script")
    scripted(script)
    (script / "covariates.csv").write_text(
        "subject,site,age\n" + "".join(f"{number},NYU,1{number}\n" for number in range(1, 5))
    )
    done("abide-data pack {of} {to}", of=script, to=path)


def repeat_chunk(path: Path) -> None:
    path.write_bytes(path.with_name("compressed_0").read_bytes())


CONVERT_LAB = "abide-data convert {lab} {missing} --grid reduced"
TABLE = "lab/Phenotypic.csv"


CONVERT_FLAT = "abide-data convert {flat} {missing} --table {file} --labelColumn DX --positive ASD --phenotype ''"
CONVERT_BY_GROUP = f"{CONVERT_LAB} --labelColumn DX_GROUP --positive 1"


def add_columns(**columns: Callable[[int], object]) -> dict[str, Callable]:
    """The table of the people with more columns, by the place of a row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(
            **{
                name: [str(make_cell(row_index)) for row_index in range(len(table))]
                for name, make_cell in columns.items()
            }
        )

    return {TABLE: change}


def add_label_column(autism: str, control: str) -> dict[str, Callable]:
    return add_columns(GROUP2=lambda row_index: control if row_index // 2 % 2 else autism)


def make_id_table(**columns: Callable[[int], object]) -> dict[str, bytes]:
    """A table of 24 people with the label and these columns, by the place of a row."""
    id_table = pd.DataFrame(
        {name: [make_cell(row_index) for row_index in range(24)] for name, make_cell in columns.items()}
    )
    return {
        "file": id_table.assign(DX=[("ASD", "TD")[row_index // 2 % 2] for row_index in range(24)])
        .to_csv(index=False)
        .encode()
    }


USELESS_COLUMNS = add_columns(
    comments=lambda row_index: f"moved, see note {row_index}",
    scan_date=lambda row_index: f"2011-03-{row_index % 28 + 1:02}",
    tesla=lambda row_index: ("3", "3.0")[row_index % 2],
    ticket=lambda row_index: 500 + row_index * 7 % 40,
)

# Of people, which a conversion reads: their form, IDs, numbers, what tells the diagnosis, the split
TABLES: list[Row] = [
    row(CONVERT_LAB, "Phenotypic.csv", "No columns", spoil={TABLE: "empty"}),
    row(CONVERT_LAB, "not a readable table", spoil={TABLE: b"ID,DX_GROUP\nM\xfcnchen,1\n"}),
    row(CONVERT_LAB, "No column of", "the IDs of the maps", spoil={TABLE: b"ID,a;b\n1,2\n1;2;3\n"}),
    row(
        CONVERT_FLAT,
        "number the rows",
        "--idColumn",
        spoil=make_id_table(row=lambda row_index: row_index + 1, code=lambda row_index: f"P{row_index}"),
    ),
    row(CONVERT_FLAT, "as shifted numbers do", "--idColumn", spoil=make_id_table(ID=lambda row_index: row_index)),
    row(
        CONVERT_FLAT,
        "ID and code",
        "--idColumn",
        spoil=make_id_table(ID=lambda row_index: row_index + 1, code=lambda row_index: f"P{row_index * 7 % 24 + 1}"),
    ),
    row(CONVERT_FLAT, "No column", "such as 1", spoil=make_id_table(ID=lambda row_index: 900 + row_index)),
    row(
        f"{CONVERT_BY_GROUP} --phenotype iq --covariates subject",
        "column subject cannot be kept",
        spoil=add_columns(subject=lambda row_index: row_index % 9),
    ),
    row(
        CONVERT_LAB,
        "FIQ holds 'high'",
        "expected numbers",
        spoil=add_columns(FIQ=lambda row_index: "high" if row_index == 3 else 100 + row_index),
    ),
    row(CONVERT_LAB, "SEX", "expected", spoil=add_columns(SEX=lambda row_index: 0)),
    row(CONVERT_LAB, "HANDEDNESS_CATEGORY", "Right", spoil=add_columns(HANDEDNESS_CATEGORY=lambda row_index: "Right")),
    row(
        f"{CONVERT_BY_GROUP} --phenotype dose",
        "dose holds '>18'",
        "numbers",
        spoil=add_columns(dose=lambda row_index: ">18" if row_index == 3 else row_index % 9),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype dose",
        "dose",
        "with a point",
        spoil=add_columns(dose=lambda row_index: f"{row_index % 9},5"),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype dose",
        "inf",
        "numbers",
        spoil=add_columns(dose=lambda row_index: "inf" if row_index == 3 else row_index % 9),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype AGE_AT_SCAN,ADOS_TOTAL",
        "ADOS",
        "--allowLeak",
        spoil=add_columns(ADOS_TOTAL=lambda row_index: row_index % 9),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype medication",
        "medication",
        "--allowLeak",
        spoil=add_columns(medication=lambda row_index: row_index % 3),
    ),
    row(f"{CONVERT_BY_GROUP} --phenotype GROUP2", "GROUP2", "AUC 1.00", spoil=add_label_column("patient", "healthy")),
    row(f"{CONVERT_BY_GROUP} --phenotype GROUP2,AGE_AT_SCAN", "GROUP2 (AUC 1.00)", spoil=add_label_column("7", "4")),
    row(
        f"{CONVERT_BY_GROUP} --phenotype GROUP2",
        "GROUP2",
        "--allowLeak",
        spoil=add_columns(GROUP2=lambda row_index: "" if row_index // 2 % 2 else row_index % 3),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype ''".replace("1 --", "2 --"),
        "flipped",
        "ADOS_MODULE",
        spoil=add_columns(ADOS_MODULE=lambda row_index: 1 + row_index % 3 if row_index // 2 % 2 == 0 else -9999),
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype comments,scan_date,ticket",
        *("comments (text", "scan_date (dates)", "ticket (IDs", "Leave"),
        spoil=USELESS_COLUMNS,
    ),
    row(
        f"{CONVERT_BY_GROUP} --phenotype AGE_AT_SCAN,tesla --covariates scan_date,tesla",
        "--phenotype tesla (one",
        "--covariates scan_date",
        spoil=USELESS_COLUMNS,
    ),
    row(f"{CONVERT_LAB} --keepSplit {{records}}", "nobody of those to convert", "50002"),
    row(f"{CONVERT_LAB} --keepSplit {{empty}}/none", "none", "expected a cohort"),
    row("abide-data convert {lab} {missing} --like {newcomers} --keepSplit {newcomers}", "--keepSplit", "--like"),
    row("abide-data convert {lab} {missing} --like {converted}", "expected new participants", "--exclude"),
]

TRAIN_CONVERTED = "run.py --train --dataDir {converted} --chkPointDir {missing}"
TRAIN_RECORDS = "run.py --train --model nn --dataDir {records} --chkPointDir {missing}"
PACK_RECORDS = "abide-data pack {records} {missing} --zip"
EXPORT = "abide-data export {converted} {missing}"
PACK_EDITED_TABLES = "abide-data pack {converted} {missing} --tables {edited}"
PACK_IN_PLACE = "abide-data pack {converted} {missing} --tables {converted}"
PACK_SCRIPTED = PACK_RECORDS.replace("records", "scripted")
SCRIPTED_ROWS = "scripted/subjects.csv"
TEST_FOLDS = "run.py --test --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --outDir {missing}"
TRAIN_ON_FOLDS = "run.py --train --model nn --dataDir {converted} --chkPointDir {missing} --folds"
FOLD_TABLE = "on_folds/ckpt/mmnn/folds-3/folds.csv"


def swap_splits(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(split=table["split"].map({"train": "test", "test": "train"}))


def move_first_fold(table: pd.DataFrame) -> pd.DataFrame:
    """Folds of which the first person is in the next one."""
    first_fold, *later_folds = table["fold"]
    return table.assign(fold=[str((int(first_fold) + 1) % 3), *later_folds])


def move_first_site(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(SITE_ID=["USM", *table["SITE_ID"][1:]])


def add_stray_record(path: Path) -> None:
    shutil.copy(path / "50002.bin", path / "1.bin")


def empty_folder(path: Path) -> None:
    for table in path.iterdir():
        table.unlink()


def edit_first_cell(column: str, text: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Another cell in the first row."""
    return lambda table: table.assign(**{column: [text, *table[column][1:]]})


def set_both_sexes(table: pd.DataFrame) -> pd.DataFrame:
    return edit_first_cell("sex_female", "1")(edit_first_cell("sex_male", "1")(table))


def contradict_missing(table: pd.DataFrame) -> pd.DataFrame:
    return edit_first_cell("fiq_missing", str(1 - float(table["fiq_missing"][0])))(table)


def encode_label_in_bmi(table: pd.DataFrame) -> pd.DataFrame:
    """Everybody's BMI by the label, which alternates in pairs."""
    return table.assign(
        bmi=[("20", "21", "30", "31")[row_index % 4] for row_index in range(len(table))], bmi_missing="0"
    )


def record_with_value(value_index: int, value: float) -> bytes:
    """A record with another number in one place."""
    values = np.frombuffer(lab.record(3), "<f4").copy()
    values[value_index] = value
    return values.tobytes()


COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
    row(TRAIN_RECORDS, "3.bin", "short of a 31x37x31 record", spoil={"records/3.bin": "cut"}),
    row(TRAIN_RECORDS, "3.bin", "holds 0 bytes", spoil={"records/3.bin": "empty"}),
    row(TRAIN_RECORDS, "3.bin", "more than a 31x37x31 record", spoil={"records/3.bin": lab.record(3) + b"abcd"}),
    row(TRAIN_RECORDS, "3.bin", "expected one grid", spoil={"records/3.bin": bytes(3_610_636)}),
    row(TRAIN_RECORDS, "3.bin", "has the label 0.5", spoil={"records/3.bin": lab.record(3, 0.5)}),
    row(PACK_RECORDS, "3.bin", "nan as phenotype value 0", spoil={"records/3.bin": record_with_value(1, np.nan)}),
    row(PACK_RECORDS, "3.bin", "-inf as volume value 35556", spoil={"records/3.bin": record_with_value(-1, -np.inf)}),
    row(PACK_RECORDS, "3.bin", "as volume value 0", spoil={"records/3.bin": record_with_value(30, 1e30)}),
    row(
        TRAIN_RECORDS.replace("records", "chunks"),
        "compressed_1",
        "not a readable",
        spoil={"chunks/compressed_1": "cut"},
    ),
    row(
        PACK_RECORDS.replace("records", "chunks"),
        "cannot be read",
        "compressed_1",
        spoil={"chunks/compressed_1": "flipped"},
    ),
    row(TRAIN_RECORDS.replace("records", "chunks"), "same record", "once", spoil={"chunks/compressed_1": repeat_chunk}),
    row(PACK_RECORDS.replace("records", "colliding"), "a/1.bin", "one file"),
    row("abide-data swap {colliding} {missing}", "a/1.bin", "one file"),
    row(
        PACK_SCRIPTED,
        "subjects.csv",
        "lacks the columns site",
        spoil={SCRIPTED_ROWS: lambda table: table.drop(columns="site")},
    ),
    row(PACK_SCRIPTED, "subjects.csv", "lacks the columns", spoil={SCRIPTED_ROWS: "empty"}),
    row(
        PACK_SCRIPTED,
        "line 3 has 1 values",
        spoil={SCRIPTED_ROWS: b"file,subject,site,label,split\n1.bin,1,A,1,train\n2.bin\n"},
    ),
    row(PACK_SCRIPTED, "the label 'x'", spoil={SCRIPTED_ROWS: lambda table: table.assign(label="x")}),
    row(PACK_SCRIPTED, "the split 'dev'", spoil={SCRIPTED_ROWS: lambda table: table.assign(split="dev")}),
    row(PACK_SCRIPTED, "names a file twice", spoil={SCRIPTED_ROWS: lambda table: table.replace("2.bin", "1.bin")}),
    row(PACK_SCRIPTED, "4.bin", "lacks", spoil={"scripted/4.bin": "gone"}),
    row(PACK_SCRIPTED, "no row for 4.bin", spoil={SCRIPTED_ROWS: lambda table: table[:3]}),
    row(
        PACK_SCRIPTED,
        "in train and in test",
        spoil={SCRIPTED_ROWS: lambda table: table.assign(subject="1", split=["test", *["train"] * 3])},
    ),
    row(
        PACK_SCRIPTED, "the label nan", spoil={SCRIPTED_ROWS: lambda table: table.assign(label="")}
    ),  # nobody can learn from it
    row("abide-data check {converted} --table {file}", "--table is about a folder of maps", "Leave it out"),
    row(TRAIN_CONVERTED.replace("converted", "scripted"), "no SHA256SUMS", "abide-data pack {scripted}"),
    row(PACK_SCRIPTED, "format 3", "format 2", spoil={"scripted/cohort.json": b'{"format": 3, "grid": [31, 37, 31]}'}),
    row(TRAIN_CONVERTED, "subjects.csv missing", "Copy it again", spoil={"converted/subjects.csv": "gone"}),
    row(TRAIN_CONVERTED, "cohort.json edited", "Copy it again", spoil={"converted/cohort.json": {"simulated": True}}),
    row(TRAIN_CONVERTED, "no SHA256SUMS", "abide-data pack {converted}", spoil={"converted/SHA256SUMS": "gone"}),
    row(TRAIN_CONVERTED, "SHA256SUMS", "Copy it again", spoil={"converted/SHA256SUMS": "cut"}),
    row(TRAIN_CONVERTED, "subjects.csv edited", "--tables {converted}", spoil={"converted/subjects.csv": swap_splits}),
    row(
        PACK_RECORDS.replace("records", "converted"),
        "covariates.csv edited",
        spoil={"converted/covariates.csv": move_first_site},
    ),
    row(TRAIN_CONVERTED, "50002.bin missing", "Copy it again", spoil={"converted/50002.bin": "gone"}),
    row(TRAIN_CONVERTED, "1.bin added", "Copy it again", spoil={"converted": add_stray_record}),
    row("abide-data pack {converted} {missing} --zip", "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row("abide-data swap {converted} {missing}", "50002.bin", "volume", spoil={"converted/50002.bin": "flipped"}),
    row(f"{TRAIN_ON_FOLDS} 1", "--folds 1", "expected 2 to"),
    row(f"{TRAIN_ON_FOLDS} 400", "--folds 400"),
    row(f"{TRAIN_ON_FOLDS} 3".replace("converted", "of_one_label"), "two participants of each class", "has 0"),
    row(f"{TRAIN_ON_FOLDS} AGE_AT_SCAN", "values among 40 participants", "expected two groups"),
    row(f"{TRAIN_ON_FOLDS} planet", "--folds planet", "neither a number nor a column"),
    row(f"{TRAIN_ON_FOLDS} planet".replace("converted", "with_sites"), "it has site, age"),
    row(f"{TRAIN_ON_FOLDS} DX_GROUP", "--folds DX_GROUP", "neither a number nor a column"),
    row(f"{TRAIN_ON_FOLDS} 3 --fold 7", "--fold 7", "none of the folds"),
    row(f"{TRAIN_RECORDS} --folds site", "has 1 values", "unknown"),
    row(f"{TRAIN_ON_FOLDS} 4 --wholeSites", "It has 3 sites", "Use --folds 3 --wholeSites"),
    row(f"{TRAIN_ON_FOLDS} 1 --wholeSites", "--folds 1 --wholeSites", "expected 2 to 3"),
    row(f"{TRAIN_RECORDS} --folds 2 --wholeSites", "It has 1 site;", "Use --folds"),
    row(f"{TRAIN_ON_FOLDS} 3".replace("converted", "swapped"), "augmented by swapping", "{swapped}"),
    row(TEST_FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: lambda table: table[:-1]}),
    row(
        TEST_FOLDS,
        "folds.csv",
        "not what was written",
        spoil={FOLD_TABLE: lambda table: table.replace("50002", "other")},
    ),
    row(TEST_FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: "empty"}),
    row(TEST_FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: move_first_fold}),
    row("abide-data pack {converted} {missing} --zip --bin", "--zip", "--bin"),
    row("abide-data pack {converted} {repository} --zip", "{repository}", "remove it or name another"),
    row("abide-data swap {converted} {repository}", "{repository}", "remove it or name another"),
    row("abide-data swap {cohort} {converted}", "is complete", "abide-data check {converted}"),
    row("abide-data pack {cohort} /proc/x", "/proc/x cannot be written", "another folder"),
    row("abide-data derive {scans} /proc/x", "/proc/x cannot be written", "another folder"),
    row("abide-data swap {converted} {missing} --regions 117", "--regions 117", "at most 116"),
    row("abide-data swap {converted} {missing} --copies many", "many", "a whole number"),
    row("abide-data swap {two} {missing}", "no other training participant", "{two}"),
    row("abide-data swap {swapped} {missing}", "already holds", "the cohort that it was made from"),
    row(f"{EXPORT} --inputs maps,brain", "'brain'", "connectome,covariates"),
    row(f"{EXPORT.replace('converted', 'records')} --inputs phenotype", "no phenotype", "--inputs maps"),
    row(f"{EXPORT} --inputs phenotype --atlas {{file}}", "--atlas", "leave it out"),
    row(f"{EXPORT} --atlas {{file}}", "{file}", "NIfTI"),
    row(f"{EXPORT} --repeats 2", "--repeats", "goes with --folds"),
    row(f"{EXPORT} --wholeSites", "--wholeSites", "goes with --folds"),
    row(f"{EXPORT} --seed 1", "--seed", "goes with --folds"),
    row(f"{EXPORT} --folds site --wholeSites", "not with --folds site", "leave it out"),
    row(f"{EXPORT} --folds 2 --repeats 2 --seed {2**32 - 1}", "no seeds for 2 repeats", "smaller"),
    row(f"{EXPORT} --folds 21", "--folds 21 cannot cut", "expected 2 to 20"),
    row(f"{EXPORT} --folds hair", "--folds hair", "it has site"),
    row(f"{EXPORT.replace('converted', 'swapped')} --control 1", "augmented by swapping", "was made from"),
    row(f"{EXPORT.replace('missing', 'repository')}", "{repository}", "remove it or name another"),
    row("abide-data volume {records} nobody {empty}/x.nii", "0 records of nobody", "name one"),
    row("abide-data volume {records} 3 {empty}/x.img", "x.img", ".nii.gz"),
    row("abide-data volume {records} 3 {missing}/x.nii", "{missing}", "no folder"),
    row(PACK_EDITED_TABLES, "none of subjects.csv", "expected tables", spoil={"edited": empty_folder}),
    row(PACK_EDITED_TABLES.replace("converted", "records"), "no tables", "without --tables"),
    row(PACK_EDITED_TABLES, "other rows", "50002", spoil={"edited/covariates.csv": lambda table: table[1:]}),
    row(PACK_EDITED_TABLES, "other rows", "50002", spoil={"edited/phenotype.csv": edit_first_cell("subject", "50003")}),
    row(
        PACK_EDITED_TABLES,
        "other columns",
        "age",
        spoil={"edited/phenotype.csv": lambda table: table.drop(columns="age")},
    ),
    row(
        PACK_EDITED_TABLES,
        "other values of volume_sha256",
        spoil={"edited/subjects.csv": edit_first_cell("volume_sha256", "0")},
    ),
    row(PACK_EDITED_TABLES, "has the label 2", "50002", spoil={"edited/subjects.csv": edit_first_cell("label", "2")}),
    row(
        PACK_EDITED_TABLES,
        "the label nan",
        "expected",
        spoil={"edited/subjects.csv": lambda table: table.assign(label="")},
    ),
    row(PACK_EDITED_TABLES, "says already", "Correct the tables"),
    row(
        PACK_EDITED_TABLES,
        "age holds 'old'",
        "expected numbers",
        spoil={"edited/phenotype.csv": edit_first_cell("age", "old")},
    ),
    row(
        PACK_EDITED_TABLES,
        "'0,13'",
        "expected numbers",
        spoil={"edited/covariates.csv": edit_first_cell("AGE_AT_SCAN", "0,13")},
    ),
    row(
        PACK_EDITED_TABLES, "SEX holds 3", "expected 1, 2", spoil={"edited/covariates.csv": edit_first_cell("SEX", "3")}
    ),
    row(
        PACK_EDITED_TABLES,
        "age 999 (1)",
        "leave cells empty",
        spoil={"edited/phenotype.csv": edit_first_cell("age", "999")},
    ),
    row(
        PACK_EDITED_TABLES, "AGE_AT_SCAN 9999", spoil={"edited/covariates.csv": edit_first_cell("AGE_AT_SCAN", "9999")}
    ),
    row(
        PACK_EDITED_TABLES,
        "sex_male of 50002 is 7",
        "0 for",
        spoil={"edited/phenotype.csv": edit_first_cell("sex_male", "7")},
    ),
    row(
        PACK_EDITED_TABLES,
        "eyes_open of 50002 is empty",
        spoil={"edited/phenotype.csv": edit_first_cell("eyes_open", "")},
    ),
    row(PACK_EDITED_TABLES, "50002 has several", "sex_female", spoil={"edited/phenotype.csv": set_both_sexes}),
    row(
        PACK_EDITED_TABLES,
        "fiq_missing of 50002 is",
        "expected 1 if fiq",
        spoil={"edited/phenotype.csv": contradict_missing},
    ),
    row(PACK_EDITED_TABLES, "separates the training labels: bmi", spoil={"edited/phenotype.csv": encode_label_in_bmi}),
    row(
        PACK_EDITED_TABLES,
        "The site of 1 of 40",
        "Fill it in",
        spoil={"edited/subjects.csv": edit_first_cell("site", "")},
    ),
    row(PACK_IN_PLACE, "AGE_AT_SCAN 9999", spoil={"converted/covariates.csv": edit_first_cell("AGE_AT_SCAN", "9999")}),
    row(
        PACK_IN_PLACE,
        "age holds 'old'",
        "expected numbers",
        spoil={"converted/phenotype.csv": edit_first_cell("age", "old")},
    ),
    row(PACK_IN_PLACE, "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row(PACK_IN_PLACE, "other rows", "50002", spoil={"converted/covariates.csv": lambda table: table[1:]}),
]

NETWORK = "on_folds/ckpt/mmnn/folds-3/1"
DAMAGE: list[Row] = [  # of results, a checkpoint, a bundle; any other in test_damage.py
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "cut"}),
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "gone"}),
    row("abide-report {on_folds}/test", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(TEST_FOLDS, "ckpt-4", spoil={f"{NETWORK}/ckpt-4.index": "gone"}),
    row(TEST_FOLDS, "ckpt-4", spoil={f"{NETWORK}/ckpt-4.data-00000-of-00001": "flipped"}),
    row(TEST_FOLDS, "ckpt-4.json", spoil={f"{NETWORK}/ckpt-4.json": "cut"}),
    row("run.py --test --bundle {bundle} --dataDir {newcomers}", "{bundle}", spoil={"bundle": "cut"}),
]

PLACES: dict[str, Callable[[Path], object]] = {
    "two": lambda path: lab.records(path, 2),
    "chunks": lab.write_chunks,
    "colliding": colliding,
    "scripted": scripted,
    "of_one_label": write_single_label,
    "with_sites": with_sites,
    "flat": lambda path: lab.flat(path, lab.people(24, 1)),
}
ROWS = [*TABLES, *COHORTS, *DAMAGE]
