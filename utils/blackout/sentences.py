"""Results of a blackout -> sentences, by the macros of `sentences.jinja`."""

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from data.base.tables import printable
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from data.cohorts.rows import known_sites
from utils.blackout import options
from utils.blackout.connections import Connections
from utils.blackout.donors import Donors
from utils.blackout.edges import MAX_PEOPLE, regions_of_parcels
from utils.blackout.effects import Adjusted
from utils.blackout.families import Family
from utils.blackout.fills import RELIANCE, TESTED
from utils.blackout.tables import SUPPRESSOR
from utils.runs.run import Run
from utils.scores import results
from utils.scores.metrics import HEADLINES
from utils.scores.results import ALPHA, MIN_PER_CLASS, Headline

DONORS = {"train": "training subjects", "test": "tested subjects"}  # by split
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.globals.update(results=results)


def donors_sentence(donors: Donors) -> str:
    """Who the donors are."""
    origins: Counter = Counter()
    for (split, site), count in donors.subjects_of_origin.items():
        where = "any" if site is None else "the same" if known_sites([site]) else "unknown"
        origins[f"{DONORS[split]} of {where} site"] += count
    subjects = origins.total()
    several = "; ".join(f"for {count} of {subjects} subjects {who}" for who, count in origins.items())
    return f"Donors: {donors.count} per record, {several if len(origins) > 1 else next(iter(origins))}."


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


def accuracy_sentence(judged: Headline) -> str:
    """How well the network predicts the subjects whose regions were occluded."""
    return said("accuracy", auc=judged.score, score=HEADLINES[judged.metric])


def evidence_sentence(table: pd.DataFrame, adjusted: Adjusted) -> str:
    """Which regions are significant, given the table of regions, and beside which covariates."""
    named = [fill.name for fill in TESTED]
    chosen = {kind: table["name"][table[f"p_{kind}"] < ALPHA].tolist() for kind in named}
    before = {kind: int((table[f"p_{kind}_plain"] < ALPHA).sum()) for kind in named}
    alone = table["name"][table["remark"] == SUPPRESSOR].tolist()
    rarer = np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min()
    counts = {"total": len(table), "rarer": int(rarer), "people": len(adjusted.label)}
    return said("evidence", chosen=chosen, before=before, alone=alone, adjusted=adjusted.beside, **counts)


def basis_sentence(adjusted: Adjusted) -> str:
    """Beside which covariates p stands where no evidence is named; nothing without p."""
    share = min(adjusted.label.mean(), 1 - adjusted.label.mean())
    return said("basis", adjusted=adjusted.beside, share=share) if share else ""


def by_map_sentence(table: pd.DataFrame, adjusted: Adjusted) -> str:
    """Which pairs of region and map are significant, given `tables.map_table`; nothing if too few people have a p."""
    if np.bincount(adjusted.label.astype(int), minlength=len(CLASSES)).min() < MIN_PER_CLASS:
        return ""
    chosen = table[table[f"p_{RELIANCE}"] < ALPHA]
    pairs = [f"{row.name} in {row.map}" for row in chosen[["name", "map"]].itertuples(index=False)]
    before = int((table[f"p_{RELIANCE}_plain"] < ALPHA).sum())
    return said("by_map", pairs=pairs, before=before, total=f"{len(table):,}", adjusted=adjusted.beside)


def systems_sentence(found: Connections) -> str:
    """In which systems parcels lie, and what lies in none."""
    systems, outside = found.systems, len(found.regions)
    having = np.setdiff1d(systems.of_region[np.unique(found.region_of)], len(systems.names) - 1)
    counts = {"having": len(having), "systems": len(systems.names) - 1, "parcels": len(found.region_of)}
    unplaced = [found.regions[at] for at in systems.unplaced]
    told = {"outside": int((found.region_of == outside).sum()), "unplaced": unplaced, "alone": systems.are_regions}
    return said("systems", **counts, **told)


def connections_sentence(found: Connections) -> str:
    """Which pairs of systems, and of regions within them, are significant; nothing if nothing is concluded."""
    if not found.people.concludes:
        return ""
    family, within = found.of_systems, found.of_regions
    pairs, regions = (list(compress(one.things, one.named)) if one else [] for one in (family, within))
    counts = {"before": int((family.plain < ALPHA).sum()), "total": f"{len(family.things):,}"}
    inner = {"regions": regions, "inner": f"{len(found.chosen):,}"}
    return said("connections", pairs=pairs, **counts, **inner, adjusted=found.people.adjusted.beside)


def said(macro: str, **values: object) -> str:
    """The text of a macro of `sentences.jinja` on one line; not escaped for HTML."""
    return " ".join(getattr(TEMPLATES.get_template("sentences.jinja").module, macro)(**values).split())


def values_sentence(family: Family) -> str:
    """Which groups of the phenotype's values are significant; nothing if nothing is concluded."""
    if not family.people.concludes:
        return ""
    before, named = int((family.plain < ALPHA).sum()), list(compress(family.things, family.named))
    adjusted = family.people.adjusted.beside
    return said("values", groups=named, before=before, total=len(family.things), adjusted=adjusted)
