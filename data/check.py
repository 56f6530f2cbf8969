"""python -m data check: every record of a cohort -> what is in it, and what would invalidate a result on it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from data import grids
from data.base import sums
from data.base.errors import InputError
from data.base.progress import progress
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort
from data.cohorts.rows import LISTED as SHOWN
from data.cohorts.rows import Findings, census, listed
from data.conversion import measures
from data.conversion.leaks import telling

MIRROR_MARGIN = 0.002  # by how much a volume's correlation with the mirrored group mean must win
OUTLIER = 6.0  # robust standard deviations below the group's median correlation
OVERLAP = 0.5  # share of a brain that must lie where most of the others' do
COVERED = 0.5  # share of a region's voxels that must hold signal
GROUPS = ("all", "train", "first")  # records of whose volumes means are taken; the first ones are one a subject
CORRELATIONS = ("straight", "mirrored", "likeness")


class Seen:
    """What is kept of the volumes of one map, reduced ones (x, y, z): sums over them, and a few numbers of each."""

    def __init__(self) -> None:
        self.sums = {group: np.zeros(grids.REDUCED.shape) for group in GROUPS}
        self.counts = dict.fromkeys(GROUPS, 0)
        self.brains = np.zeros(grids.REDUCED.shape, int)  # the records in which a voxel is of the brain
        self.measured: dict[int, dict[str, float]] = {}  # by record

    def add(self, index: int, volume: np.ndarray, groups: Sequence[str]) -> None:
        """Takes in a volume that belongs to these of GROUPS."""
        self.measured[index] = measures.of_volume(volume, grids.REDUCED)
        self.brains += records.brain_of(volume)
        for group in groups:
            self.sums[group] += volume
            self.counts[group] += 1

    def mean(self, group: str) -> np.ndarray:
        return self.sums[group] / self.counts[group]

    @cached_property
    def patterns(self) -> np.ndarray:
        """The mean of the training volumes straight and mirrored, and that of the first ones, (3, voxels), so that the
        product with a volume is the correlation but for the volume's own spread."""
        mean = self.mean("train" if self.counts["train"] else "all")
        centred = np.stack([values.ravel() - values.mean() for values in (mean, mean[::-1], self.mean("first"))])
        return centred / np.linalg.norm(centred, axis=1, keepdims=True)

    @cached_property
    def most(self) -> np.ndarray:
        """The voxels that are of the brain in most records, (x, y, z) bool."""
        return self.brains / len(self.measured) >= OVERLAP

    def compare(self, volume: np.ndarray) -> dict[str, float]:
        """Of a volume that was added, its correlations with the patterns, and whether its brain is where others are."""
        values, brain = volume.ravel().astype(np.float64), records.brain_of(volume)
        correlations = self.patterns @ values / np.linalg.norm(values - values.mean())
        away = brain[self.most].sum() < OVERLAP * brain.sum()
        return dict(zip(CORRELATIONS, correlations, strict=True)) | {"away": away}


def full(cohort: Cohort) -> Findings:
    """The census, and every volume: damaged, constant, identical, mirrored, unlike the others, elsewhere, of another
    kind, or not covering a region; and whether volumes as wholes tell the label or the site.

    Volumes are read twice and not kept, so that a cohort of any size takes little memory.
    """
    findings = census(cohort)
    check_files(cohort, findings)
    seen, digests, coverage = read_volumes(cohort, findings)
    usable = list(seen[0].measured)
    if usable:
        check_identical(cohort, digests, findings)
        first = one_a_subject(cohort, usable)
        subjects = [cohort.rows[index].subject for index in first]
        measured = measures.read(cohort.tables, subjects, cohort.maps) if cohort.tables else None
        for name, stored in zip(cohort.maps, compare_volumes(cohort, seen, usable), strict=True):
            of_map = Findings()
            check_likeness(cohort, stored, of_map)
            check_place(cohort, stored, of_map)
            check_measures(
                cohort,
                measured and measured[name],
                stored.loc[first].drop(columns=["straight", "mirrored", "away"]),
                of_map,
            )
            findings.add(of_map, f"{name}: " if cohort.num_maps > 1 else "")
        findings.notes += coverage
    return findings


def check_files(cohort: Cohort, findings: Findings) -> None:
    """A file that is not what was written is a problem; one without a sum is worth a note."""
    try:
        different, unknown = sums.verify_sums(cohort.paths)
    except InputError as error:
        findings.problems.append(str(error))
        return
    findings.problems += [f"{path} {sums.DIFFERENT}" for path in different]
    if unknown:
        findings.notes.append(
            f"no sum in {sums.SUMS}, so damage cannot be told: {listed([path.name for path in unknown])}"
        )


def read_volumes(cohort: Cohort, findings: Findings) -> tuple[list[Seen], dict[bytes, list[int]], list[str]]:
    """What was seen of each map in the records that can be used, records by the digest of each map's volume, and notes
    on regions without signal."""
    regions = atlas.load_atlas(None, cohort.grid)
    inside = regions.labels.ravel()
    sizes = np.bincount(inside, minlength=max(regions.regions) + 1)
    seen, subjects = [Seen() for _ in cohort.maps], set()
    digests: dict[bytes, list[int]] = defaultdict(list)
    uncovered: dict[str, Counter] = {name: Counter() for name in cohort.maps}
    with progress("Checking", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            shown.advance()
            try:
                _, _, volume = cohort.read(index)
            except InputError as error:
                findings.problems.append(str(error))
                continue
            volumes = dict(zip(cohort.maps, np.moveaxis(volume, -1, 0), strict=True))
            if empty := [name for name, of_map in volumes.items() if of_map.min() == of_map.max()]:
                value, which = volumes[empty[0]].flat[0], f" of {empty[0]}" * (cohort.num_maps > 1)
                findings.problems.append(f"{row.file} is constant ({value:g}); its map{which} was empty")
                continue
            groups = ["all", *["train"] * (row.split == "train"), *["first"] * (row.subject not in subjects)]
            subjects.add(row.subject)
            for (name, of_map), of_all in zip(volumes.items(), seen, strict=True):
                digests[hashlib.sha256(of_map.tobytes()).digest()].append(index)
                signal = np.bincount(inside, of_map.ravel() != records.background(of_map), len(sizes))
                uncovered[name].update(region for region in regions.regions if signal[region] < COVERED * sizes[region])
                of_all.add(index, reduced(of_map), groups)
    usable = len(seen[0].measured)
    coverage = [
        f"{regions.names[region]} has signal in under {COVERED:.0%} of its voxels in {count} of {usable} records"
        + f" of {name}" * (cohort.num_maps > 1)
        for name, counts in uncovered.items()
        for region, count in counts.most_common(SHOWN)
    ]
    return seen, digests, coverage


def reduced(volume: np.ndarray) -> np.ndarray:
    """A volume (x, y, z) of either grid on the reduced one."""
    return volume if volume.shape == grids.REDUCED.shape else records.block_mean(volume)


def compare_volumes(cohort: Cohort, seen: list[Seen], usable: list[int]) -> list[pd.DataFrame]:
    """Reads the records again: for each map a row a record, its measures and how it compares to all of them."""
    found: list[list[dict[str, float]]] = [[] for _ in seen]
    with progress("Comparing", len(usable)) as shown:
        for index in usable:
            for at, volume in enumerate(np.moveaxis(cohort.read(index)[2], -1, 0)):
                found[at].append(seen[at].measured[index] | seen[at].compare(reduced(volume)))
            shown.advance()
    return [pd.DataFrame(rows, usable) for rows in found]


def check_identical(cohort: Cohort, digests: dict[bytes, list[int]], findings: Findings) -> None:
    """One volume under two names is a problem across the split, and worth a note within it."""
    for records_of in dict.fromkeys(map(tuple, digests.values())):  # once for all maps
        same = sorted(set(records_of))
        if twice := [cohort.rows[index].file for index in same if records_of.count(index) > 1]:
            findings.notes.append(f"maps of one record that are identical: {listed(twice)}")
        if len({cohort.rows[index].subject for index in same}) == 1:
            if len(same) > 1:
                names = listed([cohort.rows[index].file for index in same])
                findings.notes.append(f"identical volumes of one subject: {names}")
            continue
        text = "identical volumes: " + listed([f"{cohort.rows[i].file} ({cohort.rows[i].split})" for i in same])
        across = len({cohort.rows[index].split for index in same}) > 1
        (findings.problems if across else findings.notes).append(
            text + (", a subject in train and test" if across else "")
        )


def check_likeness(cohort: Cohort, stored: pd.DataFrame, findings: Findings) -> None:
    """Correlations with the group mean of training volumes: mirrored volumes are a problem, outliers worth a note."""
    straight, mirrored = stored["straight"].to_numpy(), stored["mirrored"].to_numpy()
    names = np.array([cohort.rows[index].file for index in stored.index])
    flipped = mirrored > straight + MIRROR_MARGIN
    if flipped.any():
        findings.problems.append(
            f"left and right look exchanged in {listed(list(names[flipped]))}; check their affines"
        )
    deviation = straight - np.median(straight)
    spread = 1.4826 * np.median(np.abs(deviation))  # of a normal distribution with this median absolute deviation
    unlike = np.flatnonzero(deviation < -OUTLIER * max(spread, 1e-3))
    if unlike.size:
        found = [f"{names[at]} (r = {straight[at]:.2f})" for at in unlike[np.argsort(straight[unlike])]]
        findings.notes.append(f"unlike the group mean (median r = {np.median(straight):.2f}): {listed(found)}")


def check_place(cohort: Cohort, stored: pd.DataFrame, findings: Findings) -> None:
    """A brain that lies for the most part where most of the others are not is a problem; one far off, worth a note."""
    away = stored.index[stored["away"]].tolist()
    if away:
        names = listed([cohort.rows[index].file for index in away])
        findings.problems.append(f"most of the brain lies outside the others' in {names}; check their affines")
    if far := stored.index[measures.far(stored) & ~stored["away"]].tolist():
        names = listed([f"{cohort.rows[index].file} ({measures.where(stored.loc[index])})" for index in far])
        findings.notes.append(
            f"far from the others, centre at {measures.where(stored.drop(columns='away').median())}: {names}"
        )


def check_measures(cohort: Cohort, measured: pd.DataFrame | None, stored: pd.DataFrame, findings: Findings) -> None:
    """Maps of several kinds, and maps that as wholes tell the training labels, are problems; the site, worth a note.

    What was `measured` of each subject when the maps were converted is looked at where it is known, and the volumes as
    they are `stored`, of the same subjects the first records; swapped copies come later.
    """
    rows = [cohort.rows[index] for index in stored.index]
    views = [(stored, measures.stored_kinds(stored))]
    if measured is not None:
        raw = measured.set_axis(stored.index)
        views.insert(0, (raw, measures.kinds(raw)))
        findings.counts.append(f"maps: {', '.join(sorted(set(views[0][1])))}")
    if mixed := [text for _, kinds in views if (text := measures.mixture(kinds, [row.file for row in rows]))]:
        findings.problems.append(f"maps of several kinds: {mixed[0]}; convert maps of one kind")
    training = np.array([row.split == "train" for row in rows])
    label = np.array([row.label for row in rows])[training]
    told = {name: auc for measured, _ in views for name, auc in telling(measured[training], label).items()}
    if told:
        named = ", ".join(f"{name} (AUC {auc:.2f})" for name, auc in told.items())
        findings.problems.append(f"the volumes as wholes tell the training labels by {named}; were all made alike?")
    if by_site := measures.by_site(views[0][0], [row.site for row in rows]):
        findings.notes.append(f"the maps' {', '.join(by_site)} tell the site; compare subjects within sites")


def one_a_subject(cohort: Cohort, usable: Sequence[int]) -> list[int]:
    """The first record of each subject, of those that could be read; swapped copies come later."""
    first: dict[str, int] = {}
    for index in usable:
        first.setdefault(cohort.rows[index].subject, index)
    return list(first.values())


BEGINNING = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Check of '  # of a page, by which it is known
PAGE = (
    BEGINNING
    + """{{ path }}</title>
<style>body{font:16px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}.problem{color:#b00020}</style>
<h1>Check of {{ path }}</h1>
<h2>{{ "Problems that invalidate results" if findings.problems else "Nothing here invalidates a result" }}</h2>
<ul>{% for text in findings.problems %}<li class="problem">{{ text }}</li>{% endfor %}</ul>
<h2>What it holds</h2><ul>{% for text in findings.counts %}<li>{{ text }}</li>{% endfor %}</ul>
<h2>Worth a look</h2><ul>{% for text in findings.notes %}<li>{{ text }}</li>{% endfor %}</ul>
</html>
"""
)


def check_page(page: Path) -> None:
    """Raises InputError unless the page of a check can be written there without harm to another file."""
    if not page.parent.is_dir() or page.is_dir():
        raise InputError(f"{page} is no place for a page; name a file in a folder that exists, such as check.html.")
    if page.exists() and not page.read_bytes().startswith(BEGINNING.encode()):
        raise InputError(f"{page} exists and is no page of a check; name another file.")


def html(findings: Findings, path: str) -> str:
    """The findings as one self-contained page."""
    import jinja2

    return jinja2.Environment(autoescape=True).from_string(PAGE).render(findings=findings, path=path)
