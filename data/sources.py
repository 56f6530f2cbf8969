"""What is on a researcher's disk -> a table of subjects with a map each.

Layout read: the Preprocessed Connectomes Project as `nilearn.datasets.fetch_abide_pcp` stores it,
`ABIDE_pcp/<pipeline>/<strategy>/<FILE_ID>_falff.nii.gz` beside `Phenotypic_*.csv`.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data import phenotype
from data.errors import InputError

MAP_SUFFIX = "_falff.nii.gz"
NO_FILENAME = "no_filename"  # the release's FILE_ID of a subject whose scan failed quality control


@dataclass(frozen=True)
class Source:
    """Subjects to convert, and those that cannot be.

    `subjects` has a row a subject: subject, site, label (1.0 autism, 0.0 control), map (Path). `phenotype` holds the
    same rows, 29 columns, NaN where unknown. `left_out` says for each reason which subjects have no record.
    """

    table: Path
    subjects: pd.DataFrame
    phenotype: pd.DataFrame
    left_out: dict[str, list[str]]


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV as text, nothing interpreted. Raises InputError, naming the file."""
    try:
        separator = "\t" if path.suffix == ".tsv" else ","
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable table: {error}. Expected comma- or tab-separated text.") from error


def only(paths: list[Path], what: str, where: Path) -> Path:
    """The single path found. Raises InputError that names what was found instead."""
    if len(paths) == 1:
        return paths[0]
    found = f"found {len(paths)}: {', '.join(map(str, paths))}. Name one of them" if paths else "found none"
    raise InputError(f"{where}: expected one {what}, {found}.")


def pcp(folder: Path) -> Source:
    """The Preprocessed Connectomes Project's layout; `folder` may be any level above the maps."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected the data_dir of nilearn.datasets.fetch_abide_pcp.")
    maps = {path.name.removesuffix(MAP_SUFFIX): path for path in sorted(folder.rglob(f"*{MAP_SUFFIX}"))}
    map_folder = only(sorted({path.parent for path in folder.rglob(f"*{MAP_SUFFIX}")}), "folder of fALFF maps", folder)
    tables = [path for parent in map_folder.parents[:2] for path in sorted(parent.glob("Phenotypic_*.csv"))]
    table_path = only(tables, "phenotype table Phenotypic_*.csv", map_folder.parent.parent)
    table = read_table(table_path)
    if absent := [name for name in ("SUB_ID", "FILE_ID", "SITE_ID", "DX_GROUP") if name not in table]:
        raise InputError(f"{table_path} lacks {', '.join(absent)}; expected ABIDE's phenotype table.")
    if (twice := table["SUB_ID"][table["SUB_ID"].duplicated()]).size:
        raise InputError(f"{table_path} names subject {twice.iloc[0]} twice; expected one row a subject.")
    named, mapped = table["FILE_ID"] != NO_FILENAME, table["FILE_ID"].isin(maps.keys())
    left_out = {
        f"FILE_ID is {NO_FILENAME}": table["SUB_ID"][~named].tolist(),
        "no map in the folder": table["SUB_ID"][named & ~mapped].tolist(),
        "a map without a row in the table": sorted(maps.keys() - set(table["FILE_ID"])),
    }
    rows = table[named & mapped].reset_index(drop=True)
    subjects = pd.DataFrame(
        {
            "subject": rows["SUB_ID"],
            "site": rows["SITE_ID"],
            "label": labels(rows["DX_GROUP"], "1", {"1", "2"}, table_path),
            "map": rows["FILE_ID"].map(maps),
        }
    )
    return Source(table_path, subjects, phenotype.abide_values(rows), left_out)


def labels(column: pd.Series, positive: str, known: set[str], table: Path) -> pd.Series:
    """1.0 where the column is `positive`, 0.0 for the other known value. Raises InputError for any other value."""
    text = column.str.strip()
    if (wrong := text[~text.isin(known)]).size:
        raise InputError(f"{table}: {column.name} holds {wrong.iloc[0]!r}; expected one of {', '.join(sorted(known))}.")
    return (text == positive).astype(float)
