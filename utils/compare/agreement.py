"""Folders of finished blackouts of the same people -> what all of them show: the rows of `agreement.csv`.

A thing is significant in all if the largest of its p-values is small (Berger 1982, Technometrics 24:295).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import stats

from data.base.errors import InputError
from utils.blackout.connections import SYSTEM_LEVEL, format_pair_name
from utils.blackout.fills import RELIANCE_FILL
from utils.blackout.job import BLACKOUT_STORE_FILE
from utils.runs.record import Manifest, read_finished_manifest, read_manifest
from utils.scores.results import FAMILYWISE_ALPHA

EXPECTED_FOLDER_TEXT = "expected the folder of a finished `run.py --blackout`"
REGION_FAMILY = "regions"
SYSTEM_FAMILY = "pairs of systems"
VALUE_FAMILY = "groups of values"
P_COLUMN = f"p_{RELIANCE_FILL}"
MIN_RANKED_THINGS = 3  # of fewer a rank correlation says nothing


@dataclass(frozen=True, eq=False)
class FinishedBlackout:
    """A finished blackout, named by its folder as the user gave it. The tables by family have a row a thing, by its
    name, with `reliance` and `p_reliance`."""

    folder: Path
    manifest: Manifest
    table_by_family: dict[str, pd.DataFrame]
    subjects: list[str]  # one a record, fold after fold
    labels: np.ndarray  # (records,)
    region_labels: np.ndarray | None  # (x, y, z), the regions on the grid of the cohort; None without regions

    @property
    def is_concluded(self) -> bool:
        return self.manifest.blackout is not None and self.manifest.blackout.concluded


def are_all_blackouts(run_folders: Sequence[Path]) -> bool:
    """Whether all folders hold results of a blackout, finished or not. Raises InputError for a damaged `run.json`."""
    manifests = [read_manifest(run_folder) if run_folder.is_dir() else None for run_folder in run_folders]
    return all(manifest is not None and manifest.job == "blackout" for manifest in manifests)


def open_blackouts(blackout_folders: Sequence[Path]) -> list[FinishedBlackout]:
    """Raises InputError for a folder that is no finished blackout, and for blackouts that cannot be compared."""
    blackouts = [read_finished_blackout(blackout_folder) for blackout_folder in blackout_folders]
    for blackout in blackouts[1:]:
        check_same_people(blackouts[0], blackout)
        check_same_things(blackouts[0], blackout)
    return blackouts


def read_finished_blackout(blackout_folder: Path) -> FinishedBlackout:
    """Raises InputError unless a blackout was finished there, and its files are unchanged."""
    manifest = read_finished_manifest(blackout_folder, EXPECTED_FOLDER_TEXT)
    with h5py.File(blackout_folder / BLACKOUT_STORE_FILE) as store:
        subjects = store["subject"].asstr()[:].tolist()
        labels = store["label"][:]
        region_labels = store["atlas"][:] if "atlas" in store else None

    table_by_family = {}
    if (regions_path := blackout_folder / "regions.csv").is_file():
        table_by_family[REGION_FAMILY] = read_family_table(regions_path).set_index("name")
    if (connections_path := blackout_folder / "connections.csv").is_file():
        pair_table = read_family_table(connections_path)
        system_table = pair_table[pair_table["level"] == SYSTEM_LEVEL]
        pair_names = map(format_pair_name, system_table["a"], system_table["b"])
        table_by_family[SYSTEM_FAMILY] = system_table.set_index(pd.Index(pair_names))
    if (values_path := blackout_folder / "values.csv").is_file():
        table_by_family[VALUE_FAMILY] = read_family_table(values_path).set_index("group")
    return FinishedBlackout(blackout_folder, manifest, table_by_family, subjects, labels, region_labels)


def read_family_table(table_path: Path) -> pd.DataFrame:
    """A table of features; an empty text is no missing number, nor is a name such as NA."""
    return pd.read_csv(table_path, keep_default_na=False, na_values={RELIANCE_FILL: [""], P_COLUMN: [""]})


def check_same_people(first_blackout: FinishedBlackout, second_blackout: FinishedBlackout) -> None:
    """Raises InputError unless both are of the same cohort, people, labels, folds and repeats."""
    first_manifest = first_blackout.manifest
    second_manifest = second_blackout.manifest
    is_same_by_topic = {
        "the cohort": first_manifest.cohort_sha256 == second_manifest.cohort_sha256,
        "the folds": first_manifest.folds == second_manifest.folds and first_manifest.fold == second_manifest.fold,
        "the repeats": first_manifest.repeats == second_manifest.repeats,
        "participants, or their folds": first_blackout.subjects == second_blackout.subjects,
    }
    differing_topics = [topic for topic, is_same in is_same_by_topic.items() if not is_same]
    if not differing_topics and not np.array_equal(first_blackout.labels, second_blackout.labels):
        differing_topics.append("labels")
    if differing_topics:
        raise InputError(
            f"{first_blackout.folder} and {second_blackout.folder} differ in {differing_topics[0]}; expected blackouts "
            "of the same participants in the same folds. Give run.py the same --dataDir, --folds, --repeats, --seed."
        )


def check_same_things(first_blackout: FinishedBlackout, second_blackout: FinishedBlackout) -> None:
    """Raises InputError unless both have the same regions and systems, as far as both have some, and anything in
    common."""
    folders_text = f"{first_blackout.folder} and {second_blackout.folder}"
    first_labels = first_blackout.region_labels
    second_labels = second_blackout.region_labels
    if first_labels is not None and second_labels is not None and not np.array_equal(first_labels, second_labels):
        raise InputError(
            f"{folders_text} have other regions; expected those of one atlas. Give run.py the same --atlas."
        )
    for family_name, option_text in ((REGION_FAMILY, "--atlas"), (SYSTEM_FAMILY, "--atlas and --systems")):
        if family_name not in first_blackout.table_by_family or family_name not in second_blackout.table_by_family:
            continue
        first_names = {*first_blackout.table_by_family[family_name].index}
        second_names = {*second_blackout.table_by_family[family_name].index}
        if first_names != second_names:
            raise InputError(
                f"{folders_text} have other {family_name}: only one of them has {min(first_names ^ second_names)}; "
                f"expected the same. Give run.py the same {option_text}."
            )
    if not find_shared_things([first_blackout, second_blackout]):
        raise InputError(
            f"{folders_text} have no regions, pairs of systems or groups of values in common; expected models that "
            "read the same kind of input. Compare others."
        )


def find_shared_things(blackouts: Sequence[FinishedBlackout]) -> dict[str, list[str]]:
    """By family, the names of the things that all blackouts have, in the order of the first."""
    shared_names_by_family = {}
    for family_name, first_table in blackouts[0].table_by_family.items():
        tables = [blackout.table_by_family.get(family_name, pd.DataFrame()) for blackout in blackouts]
        shared_names = [name for name in first_table.index if all(name in table.index for table in tables)]
        if shared_names:
            shared_names_by_family[family_name] = shared_names
    return shared_names_by_family


def make_agreement_table(blackouts: Sequence[FinishedBlackout]) -> pd.DataFrame:
    """A row a thing: `family`, `thing`, `p_all` (the largest p), `significant_in` (in how many blackouts, none of which
    nothing is concluded), `in_all`; and of each blackout, by its number from 1, `reliance_1`, `p_1`. Those that are
    significant in most come first in each family."""
    family_tables = []
    for family_name, shared_names in find_shared_things(blackouts).items():
        family_table = pd.DataFrame({"family": family_name, "thing": shared_names})
        p_columns = []
        significance_columns = []
        for blackout_number, blackout in enumerate(blackouts, 1):
            blackout_table = blackout.table_by_family[family_name].loc[shared_names]
            family_table[f"{RELIANCE_FILL}_{blackout_number}"] = blackout_table[RELIANCE_FILL].to_numpy(float)
            family_wise_p = blackout_table[P_COLUMN].to_numpy(float)
            family_table[f"p_{blackout_number}"] = family_wise_p
            p_columns.append(family_wise_p)
            significance_columns.append((family_wise_p < FAMILYWISE_ALPHA) & blackout.is_concluded)
        family_table.insert(2, "p_all", np.max(p_columns, axis=0))
        family_table.insert(3, "significant_in", np.sum(significance_columns, axis=0))
        family_table.insert(4, "in_all", np.all(significance_columns, axis=0).astype(int))
        family_tables.append(
            family_table.sort_values(["significant_in", "p_all"], ascending=[False, True], kind="stable")
        )
    return pd.concat(family_tables, ignore_index=True)


def make_correlation_table(blackouts: Sequence[FinishedBlackout], agreement_table: pd.DataFrame) -> pd.DataFrame:
    """A row a family and pair of blackouts: Spearman's rank correlation of mean effects (`rank_correlation`) over
    `things`; no row of fewer than `MIN_RANKED_THINGS`, or where all effects of a blackout are equal."""
    correlation_rows = list[dict[str, Any]]()
    for family_name, family_table in agreement_table.groupby("family", sort=False):
        if len(family_table) < MIN_RANKED_THINGS:
            continue
        for first_number, second_number in combinations(range(1, len(blackouts) + 1), 2):
            first_effects = family_table[f"{RELIANCE_FILL}_{first_number}"]
            second_effects = family_table[f"{RELIANCE_FILL}_{second_number}"]
            if first_effects.nunique() == 1 or second_effects.nunique() == 1:  # such as of what a model does not read
                continue
            rank_correlation = stats.spearmanr(first_effects, second_effects).statistic
            correlation_rows.append(
                {
                    "family": family_name,
                    "first": str(blackouts[first_number - 1].folder),
                    "second": str(blackouts[second_number - 1].folder),
                    "rank_correlation": rank_correlation,
                    "things": len(family_table),
                }
            )
    columns = ["family", "first", "second", "rank_correlation", "things"]
    return pd.DataFrame(correlation_rows, columns=columns)
