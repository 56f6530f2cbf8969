"""The folder of a step -> its results: (folder, table, column, row) -> a number, a text, or an array.

Files are known by what they hold: a table here may be called by several names, and each row by what it is of.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd

Name = tuple[str, str, str, str]
Found = Iterator[tuple[Name, object]]

SYNONYMS = {  # of files, columns and rows; an earlier word -> that of today
    "floor": "baseline",
    "comes_out": "replicates",
    "in_the_other": "positive_agreement",
    "named": "significant",
    "unlike": "out_of_distribution",
    "missing values alike": "missingness masked",
    "people": "participants",
}
TABLES = {  # the columns that say what a row is of -> the tables
    ("subject",): "subjects phenotype covariates series predictions participants baseline_predictions "
    "out_of_distribution",
    ("subject", "map"): "maps",
    ("repeat", "subject"): "folds",
    ("repeat", "fold", "step"): "history training",
    ("fold", "candidate"): "choices candidates",
    ("baseline",): "baselines",
    ("kind", "group"): "groups values",
    ("kind", "measure"): "confounds external",
    ("repeat",): "repeats",
    ("permutation",): "permutations",
    ("a", "b", "site"): "compare compare_sites sites",
    ("variable", "site", "category"): "table1",
    ("covariate",): "adjusted",
    ("region", "map"): "regions regions_by_map",
    ("level", "a", "b"): "connections",
    ("between", "family", "thing"): "replication",
    (): "checkpoint_results",
}
KEYS = {table: columns for columns, tables in TABLES.items() for table in tables.split()}
TEXTS = {"subjects", "covariates"}  # tables whose words count; elsewhere they follow from numbers
NO_RESULT = re.compile(r"samples_per_s|file|.*_sha256")  # columns
NO_RESULTS = re.compile(  # files that hold paths, times, digests or words, or parts of what is read beside them
    r"^(runs|digests|derived|tripod_ai|permutation-\d+|inner|ckpt\w*)\.csv$|^participants\.tsv$|_desc-confounds_timeseries\.tsv$"
)
OF_PART = re.compile(r"^(fold|repeat|candidate)-\d+$")  # folders whose results are told again above them
HEADER = 30  # float32 of a record before its volume: the label, and the scaled phenotype


def results(folder: Path) -> dict[Name, object]:
    """All results below the folder of a step; equal names are numbered. An error where nothing reads a file."""
    found: dict[Name, object] = {}
    times: Counter[Name] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for name, value in of_file(path, path.relative_to(folder)):
            times[name] += 1
            again = f" #{times[name]}" if times[name] > 1 else ""
            found[(*name[:3], name[3] + again)] = value
    return found


def of_file(path: Path, place: Path) -> Found:
    """What one file holds, by the folder that a command named."""
    folder = re.sub(r"-[0-9a-f]{12}$", "", place.parent.name) if "cache" in place.parts else place.parts[0]
    is_table = path.suffix in (".csv", ".tsv", ".h5") or path.name in ("metrics.json", "run.json")
    if is_table and path.stem != "folds" and any(OF_PART.match(part) for part in place.parts):
        return
    if path.name == "subjects.csv":
        yield from of_records(path, folder)
    if path.name.endswith(".nii.gz"):
        image = nibabel.load(path)
        yield (folder, "image", "voxels", str(place)), np.asarray(image.dataobj)
        yield (folder, "image", "affine", str(place)), image.affine
    elif path.suffix == ".h5":
        yield from of_arrays(path, folder)
    elif path.name == "metrics.json":
        yield from of_json(json.loads(path.read_text()), folder, ())
    elif path.name == "run.json":
        content = json.loads(path.read_text())
        told = content.get("permutations") or content.get("told", {}).get("permutations")
        yield from of_json(told or {}, folder, ("permutations",))
    elif path.suffix in (".csv", ".tsv") and not NO_RESULTS.search(path.name):
        yield from of_table(path, folder, place)


def today(word: str) -> str:
    for earlier, now in SYNONYMS.items():
        word = word.replace(earlier, now)
    return word


def of_table(path: Path, folder: str, place: Path) -> Found:
    """Its numbers, row by row."""
    if path.name.endswith("_timeseries.tsv"):
        for name, values in pd.read_csv(path, sep="\t").items():
            yield (folder, "series of parcels", str(name), path.name), values.to_numpy()
        return
    table, frame = today(path.stem), pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=today)
    if table not in KEYS:
        raise SystemExit(f"{path}: say in extract.py what its rows are of, or that it is no result")
    if "subject" in KEYS[table] and "subject" not in frame:
        frame["subject"] = [Path(file).stem for file in frame["file"]]
    if repeat := re.search(r"repeat-(\d+)", str(place)):
        frame["repeat"] = repeat[1]
    elif "subject" in KEYS[table] and "repeat" in frame:
        frame = mean_of_repeats(frame)
    if table == "permutations":
        frame = frame.rename(columns=lambda name: "score" if name.startswith("auc") else name)
    keys = [key for key in KEYS[table] if key in frame]
    for row in frame.to_dict("records"):
        key = today("/".join(str(row.pop(key)) for key in keys))
        for column, cell in row.items():
            value = number(cell)
            if not NO_RESULT.fullmatch(str(column)) and (table in TEXTS or value is not None):
                yield (folder, table, str(column), key), cell if value is None else value


def mean_of_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a subject: the mean of the numbers of all repeats."""
    numbers = frame.drop(columns=["repeat", "fold"], errors="ignore").set_index("subject").map(number)
    parts = [of for _, of in numbers.groupby(frame["repeat"].to_numpy())]
    mean = sum((part.loc[parts[0].index] for part in parts[1:]), parts[0]) / len(parts)
    return mean.dropna(axis=1).map("{:.8g}".format).reset_index()  # as tables have them


def number(cell: str) -> float | None:
    """What a cell says; nothing is not a number, and a text is none."""
    try:
        return float(cell or "nan")
    except ValueError:
        return None


def of_json(value: object, folder: str, parts: tuple[str, ...]) -> Found:
    """The numbers in nested dictionaries."""
    if isinstance(value, dict):
        for name, within in value.items():
            yield from of_json(within, folder, (*parts, today(name)))
    elif isinstance(value, int | float):
        yield (folder, "metrics", "/".join(parts), ""), float(value)
    elif value is None:
        yield (folder, "metrics", "/".join(parts), ""), np.nan


def of_arrays(path: Path, folder: str) -> Found:
    """The arrays of an HDF5 file; of those with a row a subject, the row of each."""
    with h5py.File(path) as file:
        arrays = {today(name): item[()] for name, item in file.items()}
    arrays = {name: values.astype(str) if values.dtype.kind in "OS" else values for name, values in arrays.items()}
    subjects = arrays.pop("subject")
    for name, values in arrays.items():
        rows = zip(subjects, values, strict=True) if len(values) == len(subjects) else [("", values)]
        yield from (((folder, path.stem, name, subject), row) for subject, row in rows)


def of_records(table: Path, folder: str) -> Found:
    """Of each subject of a cohort label, scaled phenotype and volume, bit by bit."""
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    contents = {path.name: path.read_bytes() for path in table.parent.glob("*.bin")}
    for path in table.parent.iterdir():
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as chunk:
                contents |= {name: chunk.read(name) for name in chunk.namelist() if name.endswith(".bin")}
    for file, subject in zip(frame["file"], frame["subject"], strict=True):
        values = np.frombuffer(contents[Path(file).name], "<f4")
        yield (folder, "record", "label", subject), values[:1]
        yield (folder, "record", "scaled phenotype", subject), values[1:HEADER]
        yield (folder, "record", "volume", subject), values[HEADER:]
