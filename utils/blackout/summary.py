"""Results of a blackout -> sentences for the terminal, the page and the figure, and the terminal's table."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.base.progress import tell
from data.base.tables import printable
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils.blackout.effects import RELIANCE, UNIQUE, Effects
from utils.blackout.fills import Fills
from utils.figures import interval, number, shortened
from utils.statistics import ALPHA, CHANCE

FEW = 5  # regions to name in a sentence
UNEQUAL = 0.4  # share of a class; at 0.3 and with a skewness of 2, three times as many false regions as there should be
NAME_WIDTH = 23  # letters of a region's name in the terminal
TOP = 10  # regions in the terminal
LINE = "{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}"  # of its table
HEADINGS = ("region", "reliance", "p", "unique", "p", "background", "size percentile")
DONORS = {"train": "training subjects", "test": "tested subjects"}  # by split


def donors_sentence(fills: Fills) -> str:
    """Who the donors are."""
    origins: Counter = Counter()
    for (split, site), count in fills.subjects_of_origin.items():
        origins[f"{DONORS[split]} of {'any' if site is None else 'the same'} site"] += count
    subjects = origins.total()
    several = "; ".join(f"for {count} of {subjects} subjects {who}" for who, count in origins.items())
    return f"Donors: {fills.count} per record, {several if len(origins) > 1 else next(iter(origins))}."


def maps_sentence(maps: Sequence[str], replaced: np.ndarray) -> str:
    """Which of a cohort's maps were replaced, (maps,) bool; nothing if all were."""
    if replaced.all():
        return ""
    chosen, kept = (", ".join(map(printable, np.array(maps)[which])) for which in (replaced, ~replaced))
    return f"Only {chosen} of each region was replaced; {kept} stayed."


def blobs_sentence(effects: Effects) -> str:
    """How many blobs a region is compared with, and on how many records each."""
    groups, records = np.unique(effects.group, return_counts=True)
    placed = ~np.isnan(effects.blob_excess).all(1)  # (records, blobs)
    blobs = sum(int(placed[effects.group == group].any(0).sum()) for group in groups)
    size = " to ".join(map(str, sorted({records.min(), records.max()})))
    return f"Size percentile: among {blobs} blobs per region, each on {size} records."


def beats_chance(auc: dict[str, float | None]) -> bool | None:
    """Whether an AUC's interval is above chance; None where there is no interval."""
    return None if auc["low"] is None else auc["low"] > CHANCE


def accuracy_sentence(auc: dict[str, float | None], name: str) -> str:
    """How well the network predicts the subjects whose regions were occluded."""
    unknown = "whether the network is better than chance is not known"
    if auc["value"] is None:
        return f"{name} on these subjects is undefined, since they are of one class: {unknown}."
    if auc["low"] is None:
        return f"{name} on these subjects {auc['value']:.2f}, without an interval: {unknown}."
    known = f"{name} on these subjects {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})"
    if beats_chance(auc):
        return f"{known}."
    return f"{known}: the network is not better than chance, so there is nothing for the regions to explain."


def evidence_sentence(table: pd.DataFrame, label: np.ndarray) -> str:
    """Which regions are significant, given the table of regions and the labels (subjects,)."""
    level = f"family-wise p < {ALPHA:g}"
    if table[f"p_{RELIANCE}"].isna().any():
        return "No p-values: the subjects are of one class."
    if 0.5 ** len(label) >= ALPHA:
        return f"{len(label)} subjects are too few for {level}."
    reliance, unique = (table["name"][table[f"p_{kind}"] < ALPHA].tolist() for kind in (RELIANCE, UNIQUE))
    if not reliance and not unique:
        return f"None of {len(table)} regions is significant at {level}: nothing here says where autism is."
    verb = {0: "is shown to say", 1: "says"}.get(len(unique), "say")
    sentence = (
        f"The network's evidence rests on {counted(reliance)} of {len(table)} regions (reliance, {level}); "
        f"{counted(unique)} {verb} what the rest of the brain does not (unique)."
    )
    rarer = min(np.mean(label == value) for value in range(len(CLASSES)))
    if rarer < UNEQUAL:
        sentence += f" Only {rarer:.0%} are of one class: where effects are skewed, p is too small."
    return sentence


def counted(regions: Sequence[str]) -> str:
    """How many regions, and which if they are few."""
    if len(regions) in range(1, FEW + 1):
        return f"{len(regions)} ({', '.join(regions)})"
    return str(len(regions) or "none")


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance, and which regions have no size percentile."""
    tell(LINE.format(*HEADINGS))
    for row in table.head(TOP).to_dict("records"):
        reliance = f"{row['reliance']:.4f} ({interval(row['reliance_low'], row['reliance_high'])})"
        cells = (
            shortened(row["name"], NAME_WIDTH), reliance, number(row["p_reliance"], ".4f"), f"{row['unique']:.4f}",
            number(row["p_unique"], ".4f"), f"{row['background']:.4f}", number(row["size_percentile"], ".0f"),
        )  # fmt: skip
        tell(LINE.format(*cells))
    unplaced = table[table["size_percentile"].isna()].itertuples()
    if regions := listed([f"{shortened(row.name, NAME_WIDTH)} ({row.voxels} voxels)" for row in unplaced]):
        tell(f"No size percentile, since no connected part of the brain has room for a blob of the size of: {regions}.")
