"""Regions of an atlas, each replaced in the records of tested people by every fill: the family of regions, and that of
regions in one map alone.

Effects are on the logit of the true class, log(p / (1 - p)), for probabilities saturate. For two classes it is the
difference of the network's two outputs.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from data.base.processes import read_ahead
from data.base.tables import make_printable
from data.base.terminal import open_progress_bar
from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.rows import join_names
from utils.blackout import options
from utils.blackout.direction import DIRECTION
from utils.blackout.donors import control_variate_mean
from utils.blackout.edge_logits import EdgeLogits
from utils.blackout.edges import MAX_PEOPLE, regions_of_parcels
from utils.blackout.families import Blackout, Family, Kind
from utils.blackout.fills import BACKGROUND, FILL_OF, FILLS, RELIANCE, Filled, Fills
from utils.blackout.options import CONNECTOME, TOGETHER
from utils.blackout.setup import Check, Measured, OfVolume, Setup
from utils.training.network import check_network_finite, compute_autism_logit

OF_MAPS = (
    "A sum over maps is the reliance on the region only if each network reads one map. As the map connectome, edges "
    "alone are replaced."
)
LEVEL_REMOVED = "Each map was z-scored, which removed its global level: lower is lower relative to the rest of the map."
ONE_SIDED = 0.7  # share of a region's voxels in one hemisphere that makes it left or right


class LogOdds(NamedTuple):
    """The log odds of autism with one of `FILLS`, by record and donor.

    `shown`: (records, donors), before anything was replaced.
    `occluded`: (records, donors, regions), after the voxels of a region were replaced.
    `by_edges`: (records, donors, regions), what it adds to replace the region's edges, too; 0 if they stay.
    `by_map`: (records, donors, regions, maps), after a region was replaced in one of `Fills.separate` alone; of
        `RELIANCE` only, others have no maps.
    """

    shown: np.ndarray
    occluded: np.ndarray
    by_edges: np.ndarray
    by_map: np.ndarray

    @property
    def fall(self) -> np.ndarray:
        """How far it falls with the voxels, (records, donors, regions)."""
        return self.shown[..., None] - self.occluded


def measure(setup: Setup) -> Measured:
    """Replaces each region in all tested records."""
    if setup.volume is None:
        return Measured()
    fills, tested = setup.volume.fills, setup.donors.tested
    parts, batches = [], np.array_split(tested, math.ceil(len(tested) / TOGETHER))
    substitutions = sum(setup.donors.count if fill.by_donor else 1 for fill in FILLS)
    with open_progress_bar("Blacking out", len(batches) * substitutions) as bar:
        for filled in read_ahead(fills.of, batches):
            found = occluded(setup.volume, setup.edges, filled, bar.advance)
            check_network_finite(setup.run, "outputs", found)
            parts.append(found)
    every = {name: LogOdds(*map(np.concatenate, zip(*(of[name] for of in parts), strict=True))) for name in parts[0]}
    return Measured(effects_of(setup, fills, every), partial(checks, setup, fills, every))


def occluded(
    volume: OfVolume, edges: EdgeLogits | None, filled: Filled, advance: Callable[[], None]
) -> dict[str, LogOdds]:
    """With each fill in the records of a batch. `advance` is called after each donor of a fill."""
    fills, occlusion = volume
    own, found = occlusion.keep(filled.batch), dict[str, LogOdds]()
    for name, of_donors in filled.by_fill.items():
        parts = list[tuple[np.ndarray, ...]]()
        for one in of_donors:
            shown, given = {of: replaced.shown for of, replaced in one.items()}, cast(np.ndarray, one["volume"].given)
            kept = own if shown["volume"] is filled.batch["volume"] else occlusion.keep(filled.batch | shown)
            if name == RELIANCE:
                in_all, in_one = occlusion.logits_by_map(kept, given, fills.masks, fills.separate)
            else:
                in_all = occlusion.occluded_logits(kept, given, fills.masks)
                in_one = np.zeros((*in_all.shape[:2], 0, 2))
            after = compute_autism_logit(in_all).T
            by_edges = edges.changes(one[CONNECTOME]) if edges and fills.edges else np.zeros(after.shape)
            by_map = compute_autism_logit(in_one).swapaxes(0, 1).astype(np.float32)
            parts.append((compute_autism_logit(occlusion.logits(kept)), after, by_edges, by_map))
            advance()
        found[name] = LogOdds(*(np.stack(of_donors, axis=1) for of_donors in zip(*parts, strict=True)))
    return found


def effects_of(setup: Setup, fills: Fills, every: dict[str, LogOdds]) -> dict[str, np.ndarray]:
    """The arrays of `Effects`."""
    sign, arrays = setup.sign, dict[str, np.ndarray]()
    for fill in FILLS:
        logits = every[fill.name]
        fall = logits.fall.mean(1)
        if fill.level:
            fall = control_variate_mean(logits.fall, fills.deviations(fill.level(fills)))
        fall = fall - logits.by_edges.mean(1)
        arrays[fill.stored] = -sign * fall if fill.rises else sign * fall
    shown = every[BACKGROUND].shown
    after = expit(shown - sign * arrays[FILL_OF[BACKGROUND].stored])  # the background in place of each region
    return arrays | {
        "delta_probability": sign * (expit(shown) - after),
        "reliance_by_map": (sign[..., None] * falls_by_map(fills, every[RELIANCE])).astype(np.float32),
        "region_means": fills.means[fills.donors.tested].astype(np.float32),
        "probability": expit(shown[:, 0]),
    }


def falls_by_map(fills: Fills, logits: LogOdds) -> np.ndarray:
    """How far the log odds fall if a region is replaced in one map alone, a mean over donors: (records, regions, maps).
    If edges are replaced, these alone are one map more."""
    deviations = fills.deviations(fills.means)
    found = np.empty((len(logits.shown), *logits.by_map.shape[2:]))
    for at in range(found.shape[-1]):  # one after another, to save memory
        fall = logits.shown[..., None] - logits.by_map[..., at]
        found[..., at] = control_variate_mean(fall, deviations[..., [at]])
    return np.concatenate([found, -logits.by_edges.mean(1)[..., None]], axis=-1) if fills.edges else found


def checks(
    setup: Setup, fills: Fills, every: dict[str, LogOdds], at: int, random: np.random.Generator
) -> Iterable[Check]:
    """A region of a record replaced by every fill, in each map alone, and its edges alone."""
    region = int(random.integers(len(fills.masks)))
    filled = fills.of(setup.donors.tested[[at]])
    for name, of_donors in filled.by_fill.items():
        logits = every[name]
        for donor, one in enumerate(of_donors):
            shown = filled.batch | {of: replacement.shown for of, replacement in one.items()}
            replaced = {of: replacement.replaced(region) for of, replacement in one.items()}
            of_edges = logits.by_edges[at, donor, region]
            yield Check(shown | replaced, logits.occluded[at, donor, region] + of_edges)
            if name != RELIANCE:
                continue
            for place, number in enumerate(fills.separate):
                chosen = np.arange(len(fills.replaced)) == number
                volume = np.where(chosen, replaced["volume"], shown["volume"])
                yield Check(shown | {"volume": volume}, logits.by_map[at, donor, region, place])
            if fills.edges:
                yield Check(shown | {CONNECTOME: replaced[CONNECTOME]}, logits.shown[at, donor] + of_edges)


def family(of: Blackout) -> Family | None:
    """Its values are known if one map is replaced: several have no direction together."""
    if RELIANCE not in of.effects:
        return None
    atlas, means = of.atlas, of.of_subjects("region_means")[..., options.of(of.run).replaced_maps(of.cohort)]
    effects = [of.effect(fill, of.of_subjects(fill.stored)) for fill in FILLS]
    told = (vanished_sentence(atlas), maps_sentence(of), edges_sentence(of))
    value = means[..., 0] if means.shape[2] == 1 else np.full(means.shape[:2], np.nan)
    return Family(
        REGIONS,
        [atlas.name_by_region[region] for region in atlas.region_numbers],
        pd.DataFrame([region_place(atlas, region) for region in atlas.region_numbers]),
        effects,
        value,
        atlas=atlas,
        notes=({"name": said} if (said := " ".join(filter(None, told))) else {}) | {DIRECTION: LEVEL_REMOVED},
        stored={"region": np.array(atlas.region_numbers, np.int32), "atlas": atlas.region_labels},
    )


def family_by_map(of: Blackout) -> Family | None:
    """Its values are means over a region; edges that are replaced alone have none."""
    chosen, cohort = options.of(of.run), of.cohort
    maps = [make_printable(cohort.map_names[at]) for at in chosen.separate_maps(cohort)]
    maps += [CONNECTOME] if chosen.replaces_edges(cohort) else []
    if RELIANCE not in of.effects or not maps:
        return None
    of_subjects = of.of_subjects("reliance_by_map")
    means = of.of_subjects("region_means")[..., chosen.separate_maps(cohort)]
    value = np.full(of_subjects.shape, np.nan)
    value[..., : means.shape[2]] = means
    pairs = [(region, of.atlas.name_by_region[region], name) for region in of.atlas.region_numbers for name in maps]
    effect = of.effect(FILL_OF[RELIANCE], of_subjects.reshape(len(of_subjects), -1))
    return Family(
        BY_MAP,
        [f"{region} in {name}" for _, region, name in pairs],
        pd.DataFrame(pairs, columns=["region", "name", "map"]),
        [effect],
        value.reshape(len(value), -1),
        axes=("name", "map"),
        notes={"map": OF_MAPS, DIRECTION: LEVEL_REMOVED},
        stored={"map": np.array(maps, object)},
    )


def region_place(atlas: Atlas, region: int) -> dict:
    """Number, name, hemisphere, voxels on the volume's grid, and centre in mm of MNI space."""
    affine = np.array(records.FULL.affine)
    mm = np.argwhere(atlas.full_region_labels == region) @ affine[:3, :3].T + affine[:3, 3]
    left, right = (mm[:, 0] < 0).mean(), (mm[:, 0] > 0).mean()
    return {
        "region": region,
        "name": atlas.name_by_region[region],
        "hemisphere": "left" if left > ONE_SIDED else "right" if right > ONE_SIDED else "both",
        "voxels": int((atlas.region_labels == region).sum()),
        **dict(zip(("x_mm", "y_mm", "z_mm"), mm.mean(0).round(1), strict=True)),
    }


def vanished_sentence(atlas: Atlas) -> str:
    """Which regions are lost on a coarse grid; nothing if none is."""
    lost = atlas.vanished_region_names
    return f"{len(lost)} more have no voxel on the {atlas.grid} grid: {join_names(lost)}." if lost else ""


def maps_sentence(of: Blackout) -> str:
    """Which of a cohort's maps were replaced; nothing if all were."""
    replaced = options.of(of.run).replaced_maps(of.cohort)
    if replaced.all():
        return ""
    chosen, kept = (
        ", ".join(map(make_printable, np.array(of.cohort.map_names)[which])) for which in (replaced, ~replaced)
    )
    return f"Only {chosen} of each region was replaced; {kept} stayed."


def edges_sentence(of: Blackout) -> str:
    """Whether the edges of regions were replaced, and which regions have some; nothing if the network reads none."""
    if (connectomes := of.cohort.connectomes) is None:
        return ""
    if connectomes.parcel_image is None:
        return "Its edges stayed, as it is not known where parcels lie (convert with --parcels FILE replaces them)."
    if not options.of(of.run).replaces_edges(of.cohort):
        return "Its edges of the connectome stayed, since --maps says what was replaced."
    regions, place = len(of.atlas.region_numbers), regions_of_parcels(connectomes, of.atlas)
    within = place[place < regions]
    told = (
        f"Its edges of the connectome were replaced with it: {len(within)} of {len(place)} parcels lie in "
        f"{len(np.unique(within))} of {regions} regions, the others have no edges. The background of edges is the "
        "training participants' mean."
    )
    many = len({row.subject for row in of.run.cohort.rows}) > MAX_PEOPLE
    return f"{told} Expected edges are fitted on at most {MAX_PEOPLE:,} participants." if many else told


REGIONS = Kind(
    "regions",
    "regions",
    "regions",
    family,
    measure,
    about="Each region is replaced, by another participant's or as the columns say",
    none="No region is shown to matter alone; many may matter together.",
    shown=("name",),
)
BY_MAP = Kind(
    "maps",
    "regions_by_map",
    "regions in one map",
    family_by_map,
    about="Each region is replaced by another participant's in one map alone; the other maps stay",
    none="No region is shown to matter in one map alone; it may matter in several maps together.",
    shown=("name", "map"),
)
