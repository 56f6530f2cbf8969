"""Results of a blackout -> sentences for the terminal, the page and the figure, and the terminal's table."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from data.base.progress import tell
from data.base.tables import printable
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils.blackout import options
from utils.blackout.adjustment import Adjustment
from utils.blackout.edges import MAX_PEOPLE, regions_of_parcels
from utils.blackout.effects import ONE_SUBJECT, RELIANCE, SUPPRESSOR, UNIQUE, Effects
from utils.blackout.fills import Fills
from utils.figures import number, shortened
from utils.runs.run import Run
from utils.scores import results
from utils.scores.results import ALPHA, CHANCE, MIN_PER_CLASS, Estimate

NAME_WIDTH = 23  # letters of a region's name in the terminal
TOP = 10  # regions in the terminal
LINE = "{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}"  # of its table
HEADINGS = ("region", "reliance", "p", "unique", "p", "background", "size percentile")
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.globals.update(statistics=results)
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


def edges_sentence(run: Run, atlas: Atlas) -> str:
    """Whether the edges of regions were replaced, and which regions have some; nothing if the network reads none."""
    cohort, regions = options.cohort_of(run), len(atlas.regions)
    if (connectomes := cohort.connectomes) is None:
        return ""
    if not options.of(run).replaces_edges(cohort):
        return said("edges_stay", named=connectomes.image is not None)
    region_of = regions_of_parcels(connectomes, atlas)
    within = region_of[region_of < regions].tolist()
    capped = len({row.subject for row in run.cohort.rows}) > MAX_PEOPLE
    counts = {"parcels": len(region_of), "within": len(within), "having": len(set(within)), "regions": regions}
    return said("edges", **counts, people=f"{MAX_PEOPLE:,}" if capped else "")


def blobs_sentence(effects: Effects) -> str:
    """How many blobs a region is compared with, and on how many records each."""
    groups, records = np.unique(effects.group, return_counts=True)
    placed = ~np.isnan(effects.blob_excess).all(1)  # (records, blobs)
    blobs = sum(int(placed[effects.group == group].any(0).sum()) for group in groups)
    size = " to ".join(map(str, sorted({records.min(), records.max()})))
    return f"Size percentile: among {blobs} blobs per region, each on {size} records."


def beats_chance(auc: Estimate) -> bool | None:
    """Whether an AUC's interval is above chance; None where there is no interval."""
    return None if auc.low is None else auc.low > CHANCE


def accuracy_sentence(auc: Estimate, name: str) -> str:
    """How well the network predicts the subjects whose regions were occluded."""
    return said("accuracy", auc=auc, score=name)


def evidence_sentence(table: pd.DataFrame, adjusted: Adjustment) -> str:
    """Which regions are significant, given the table of regions, and beside which covariates."""
    chosen = {kind: table["name"][table[f"p_{kind}"] < ALPHA].tolist() for kind in (RELIANCE, UNIQUE)}
    before = {kind: int((table[f"p_{kind}_plain"] < ALPHA).sum()) for kind in (RELIANCE, UNIQUE)}
    alone = table["name"][table["remark"] == SUPPRESSOR].tolist()
    rarer = np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min()
    counts = {"total": len(table), "rarer": int(rarer), "share": rarer / len(adjusted.label)}
    return said("evidence", chosen=chosen, before=before, alone=alone, adjusted=adjusted, **counts)


def by_map_sentence(table: pd.DataFrame, adjusted: Adjustment) -> str:
    """Which pairs of region and map are significant, given `by_map.map_table`; nothing if too few people have a p."""
    if np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min() < MIN_PER_CLASS:
        return ""
    chosen = table[table[f"p_{RELIANCE}"] < ALPHA]
    pairs = [f"{row.name} in {row.map}" for row in chosen[["name", "map"]].itertuples(index=False)]
    before = int((table[f"p_{RELIANCE}_plain"] < ALPHA).sum())
    return said("by_map", pairs=pairs, before=before, total=f"{len(table):,}", adjusted=adjusted)


def said(macro: str, **values: object) -> str:
    """The text of a macro of `sentences.jinja` on one line; not escaped for HTML."""
    return " ".join(getattr(TEMPLATES.get_template("sentences.jinja").module, macro)(**values).split())


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance, and which regions have no size percentile."""
    tell(LINE.format(*HEADINGS))
    for row in table.head(TOP).to_dict("records"):
        reliance = Estimate.in_row(row, RELIANCE).text(".4f", no_interval=ONE_SUBJECT)
        cells = (
            shortened(row["name"], NAME_WIDTH), reliance, number(row["p_reliance"], ".4f"), f"{row['unique']:.4f}",
            number(row["p_unique"], ".4f"), f"{row['background']:.4f}", number(row["size_percentile"], ".0f"),
        )  # fmt: skip
        tell(LINE.format(*cells))
    unplaced = table[table["size_percentile"].isna()].itertuples()
    if regions := listed([f"{shortened(row.name, NAME_WIDTH)} ({row.voxels} voxels)" for row in unplaced]):
        tell(f"No size percentile, since no connected part of the brain has room for a blob of the size of: {regions}.")
