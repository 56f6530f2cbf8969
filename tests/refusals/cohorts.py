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


def of_one_label(path: Path) -> None:
    lab.records(path, 4)
    for number in range(1, 5):
        lab.edit(path / f"{number}.bin", lab.record(number, 1.0))


def with_sites(path: Path) -> None:
    """The same with covariates, whose column of sites is called so."""
    script = path.with_name("script")
    scripted(script)
    (script / "covariates.csv").write_text("subject,site,age\n" + "".join(f"{at},NYU,1{at}\n" for at in range(1, 5)))
    done("abide-data pack {of} {to}", of=script, to=path)


def twice(path: Path) -> None:
    path.write_bytes(path.with_name("compressed_0").read_bytes())


CONVERT_LAB = "abide-data convert {lab} {missing} --grid reduced"
TABLE = "lab/Phenotypic.csv"


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

# Of people, which a conversion reads: their form, IDs, numbers, what tells the diagnosis, the split
TABLES: list[Row] = [
    row(CONVERT_LAB, "Phenotypic.csv", "No columns", spoil={TABLE: "empty"}),
    row(CONVERT_LAB, "not a readable table", spoil={TABLE: b"ID,DX_GROUP\nM\xfcnchen,1\n"}),
    row(CONVERT_LAB, "No column of", "the IDs of the maps", spoil={TABLE: b"ID,a;b\n1,2\n1;2;3\n"}),
    row(FLAT, "number the rows", "--idColumn", spoil=of_ids(row=lambda at: at + 1, code=lambda at: f"P{at}")),
    row(FLAT, "as shifted numbers do", "--idColumn", spoil=of_ids(ID=lambda at: at)),
    row(FLAT, "ID and code", "--idColumn", spoil=of_ids(ID=lambda at: at + 1, code=lambda at: f"P{at * 7 % 24 + 1}")),
    row(FLAT, "No column", "such as 1", spoil=of_ids(ID=lambda at: 900 + at)),
    row(
        f"{OF_ANY} --phenotype iq --covariates subject",
        "column subject cannot be kept",
        spoil=more(subject=lambda at: at % 9),
    ),
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
    row("abide-data convert {lab} {missing} --like {converted}", "expected new participants", "--exclude"),
]

CHECKED = "run.py --train --dataDir {converted} --chkPointDir {missing}"
BARE = "run.py --train --model nn --dataDir {records} --chkPointDir {missing}"
PACK = "abide-data pack {records} {missing} --zip"
TABLES_OF = "abide-data pack {converted} {missing} --tables {edited}"
IN_PLACE = "abide-data pack {converted} {missing} --tables {converted}"
SCRIPTED = PACK.replace("records", "scripted")
ROWS_OF = "scripted/subjects.csv"
FOLDS = "run.py --test --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --outDir {missing}"
CUT_INTO = "run.py --train --model nn --dataDir {converted} --chkPointDir {missing} --folds"
FOLD_TABLE = "on_folds/ckpt/mmnn/folds-3/folds.csv"


def exchanged(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(split=table["split"].map({"train": "test", "test": "train"}))


def in_another_fold(table: pd.DataFrame) -> pd.DataFrame:
    """Folds of which the first person is in the next one."""
    first, *others = table["fold"]
    return table.assign(fold=[str((int(first) + 1) % 3), *others])


def site_of_one(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(SITE_ID=["USM", *table["SITE_ID"][1:]])


def with_another(path: Path) -> None:
    shutil.copy(path / "50002.bin", path / "1.bin")


def emptied(path: Path) -> None:
    for table in path.iterdir():
        table.unlink()


def of_first(column: str, text: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Another cell in the first row."""
    return lambda table: table.assign(**{column: [text, *table[column][1:]]})


def of_both_sexes(table: pd.DataFrame) -> pd.DataFrame:
    return of_first("sex_female", "1")(of_first("sex_male", "1")(table))


def contradicted(table: pd.DataFrame) -> pd.DataFrame:
    return of_first("fiq_missing", str(1 - float(table["fiq_missing"][0])))(table)


def told_by_bmi(table: pd.DataFrame) -> pd.DataFrame:
    """Everybody's BMI by the label, which alternates in pairs."""
    return table.assign(bmi=[("20", "21", "30", "31")[at % 4] for at in range(len(table))], bmi_missing="0")


def with_value(place: int, value: float) -> bytes:
    """A record with another number in one place."""
    values = np.frombuffer(lab.record(3), "<f4").copy()
    values[place] = value
    return values.tobytes()


COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
    row(BARE, "3.bin", "short of a 31x37x31 record", spoil={"records/3.bin": "cut"}),
    row(BARE, "3.bin", "holds 0 bytes", spoil={"records/3.bin": "empty"}),
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
    row(SCRIPTED, "the label nan", spoil={ROWS_OF: lambda table: table.assign(label="")}),  # nobody can learn from it
    row("abide-data check {converted} --table {file}", "--table is about a folder of maps", "Leave it out"),
    row(CHECKED.replace("converted", "scripted"), "no SHA256SUMS", "abide-data pack {scripted}"),
    row(SCRIPTED, "format 2", "format 1", spoil={"scripted/cohort.json": b'{"format": 2, "grid": [31, 37, 31]}'}),
    row(CHECKED, "subjects.csv missing", "Copy it again", spoil={"converted/subjects.csv": "gone"}),
    row(CHECKED, "cohort.json edited", "Copy it again", spoil={"converted/cohort.json": {"simulated": True}}),
    row(CHECKED, "no SHA256SUMS", "abide-data pack {converted}", spoil={"converted/SHA256SUMS": "gone"}),
    row(CHECKED, "SHA256SUMS", "Copy it again", spoil={"converted/SHA256SUMS": "cut"}),
    row(CHECKED, "subjects.csv edited", "--tables {converted}", spoil={"converted/subjects.csv": exchanged}),
    row(PACK.replace("records", "converted"), "covariates.csv edited", spoil={"converted/covariates.csv": site_of_one}),
    row(CHECKED, "50002.bin missing", "Copy it again", spoil={"converted/50002.bin": "gone"}),
    row(CHECKED, "1.bin added", "Copy it again", spoil={"converted": with_another}),
    row("abide-data pack {converted} {missing} --zip", "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row("abide-data swap {converted} {missing}", "50002.bin", "volume", spoil={"converted/50002.bin": "flipped"}),
    row(f"{CUT_INTO} 1", "--folds 1", "expected 2 to"),
    row(f"{CUT_INTO} 400", "--folds 400"),
    row(f"{CUT_INTO} 3".replace("converted", "of_one_label"), "two participants of each class", "has 0"),
    row(f"{CUT_INTO} AGE_AT_SCAN", "values among 40 participants", "expected two groups"),
    row(f"{CUT_INTO} planet", "--folds planet", "neither a number nor a column"),
    row(f"{CUT_INTO} planet".replace("converted", "with_sites"), "it has site, age"),
    row(f"{CUT_INTO} DX_GROUP", "--folds DX_GROUP", "neither a number nor a column"),
    row(f"{CUT_INTO} 3 --fold 7", "--fold 7", "none of the folds"),
    row(f"{BARE} --folds site", "has 1 values", "unknown"),
    row(f"{CUT_INTO} 4 --wholeSites", "It has 3 sites", "Use --folds 3 --wholeSites"),
    row(f"{CUT_INTO} 1 --wholeSites", "--folds 1 --wholeSites", "expected 2 to 3"),
    row(f"{BARE} --folds 2 --wholeSites", "It has 1 site;", "Use --folds"),
    row(f"{CUT_INTO} 3".replace("converted", "swapped"), "augmented by swapping", "{swapped}"),
    row(FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: lambda table: table[:-1]}),
    row(FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: lambda table: table.replace("50002", "other")}),
    row(FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: "empty"}),
    row(FOLDS, "folds.csv", "not what was written", spoil={FOLD_TABLE: in_another_fold}),
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
    row("abide-data export {records} nobody {empty}/x.nii", "0 records of nobody", "name one"),
    row("abide-data export {records} 3 {empty}/x.img", "x.img", ".nii.gz"),
    row("abide-data export {records} 3 {missing}/x.nii", "{missing}", "no folder"),
    row(TABLES_OF, "none of subjects.csv", "expected tables", spoil={"edited": emptied}),
    row(TABLES_OF.replace("converted", "records"), "no tables", "without --tables"),
    row(TABLES_OF, "other rows", "50002", spoil={"edited/covariates.csv": lambda table: table[1:]}),
    row(TABLES_OF, "other rows", "50002", spoil={"edited/phenotype.csv": of_first("subject", "50003")}),
    row(TABLES_OF, "other columns", "age", spoil={"edited/phenotype.csv": lambda table: table.drop(columns="age")}),
    row(TABLES_OF, "other values of volume_sha256", spoil={"edited/subjects.csv": of_first("volume_sha256", "0")}),
    row(TABLES_OF, "has the label 2", "50002", spoil={"edited/subjects.csv": of_first("label", "2")}),
    row(TABLES_OF, "the label nan", "expected", spoil={"edited/subjects.csv": lambda table: table.assign(label="")}),
    row(TABLES_OF, "says already", "Correct the tables"),
    row(TABLES_OF, "age holds 'old'", "expected numbers", spoil={"edited/phenotype.csv": of_first("age", "old")}),
    row(TABLES_OF, "'0,13'", "expected numbers", spoil={"edited/covariates.csv": of_first("AGE_AT_SCAN", "0,13")}),
    row(TABLES_OF, "SEX holds 3", "expected 1, 2", spoil={"edited/covariates.csv": of_first("SEX", "3")}),
    row(TABLES_OF, "age 999 (1)", "leave cells empty", spoil={"edited/phenotype.csv": of_first("age", "999")}),
    row(TABLES_OF, "AGE_AT_SCAN 9999", spoil={"edited/covariates.csv": of_first("AGE_AT_SCAN", "9999")}),
    row(TABLES_OF, "sex_male of 50002 is 7", "0 for", spoil={"edited/phenotype.csv": of_first("sex_male", "7")}),
    row(TABLES_OF, "eyes_open of 50002 is empty", spoil={"edited/phenotype.csv": of_first("eyes_open", "")}),
    row(TABLES_OF, "50002 has several", "sex_female", spoil={"edited/phenotype.csv": of_both_sexes}),
    row(TABLES_OF, "fiq_missing of 50002 is", "expected 1 if fiq", spoil={"edited/phenotype.csv": contradicted}),
    row(TABLES_OF, "separates the training labels: bmi", spoil={"edited/phenotype.csv": told_by_bmi}),
    row(TABLES_OF, "The site of 1 of 40", "Fill it in", spoil={"edited/subjects.csv": of_first("site", "")}),
    row(IN_PLACE, "AGE_AT_SCAN 9999", spoil={"converted/covariates.csv": of_first("AGE_AT_SCAN", "9999")}),
    row(IN_PLACE, "age holds 'old'", "expected numbers", spoil={"converted/phenotype.csv": of_first("age", "old")}),
    row(IN_PLACE, "50002.bin", "sum", spoil={"converted/50002.bin": "flipped"}),
    row(IN_PLACE, "other rows", "50002", spoil={"converted/covariates.csv": lambda table: table[1:]}),
]

NETWORK = "on_folds/ckpt/mmnn/folds-3/1"
DAMAGE: list[Row] = [  # of results, a checkpoint, a bundle; any other in test_damage.py
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "cut"}),
    row("abide-report {on_folds}/test", "run.json", spoil={"on_folds/test/run.json": "gone"}),
    row("abide-report {on_folds}/test", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(FOLDS, "ckpt-4", spoil={f"{NETWORK}/ckpt-4.index": "gone"}),
    row(FOLDS, "ckpt-4", spoil={f"{NETWORK}/ckpt-4.data-00000-of-00001": "flipped"}),
    row(FOLDS, "ckpt-4.json", spoil={f"{NETWORK}/ckpt-4.json": "cut"}),
    row("run.py --test --bundle {bundle} --dataDir {newcomers}", "{bundle}", spoil={"bundle": "cut"}),
]

PLACES: dict[str, Callable[[Path], object]] = {
    "two": lambda path: lab.records(path, 2),
    "chunks": lab.chunks,
    "colliding": colliding,
    "scripted": scripted,
    "of_one_label": of_one_label,
    "with_sites": with_sites,
    "flat": lambda path: lab.flat(path, lab.people(24, 1)),
}
ROWS = [*TABLES, *COHORTS, *DAMAGE]
