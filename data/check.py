"""python -m data check: every record of a cohort -> what is in it, and what would invalidate a result on it."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from data import atlas, grids, measures, records, sums
from data.census import SHOWN, Findings, census, listed
from data.cohort import Cohort
from data.errors import InputError
from data.leaks import telling
from data.progress import progress

MIRROR_MARGIN = 0.002  # by how much a volume's correlation with the mirrored group mean must win
OUTLIER = 6.0  # robust standard deviations below the group's median correlation
OVERLAP = 0.5  # share of a brain that must lie where most of the others' do
COVERED = 0.5  # share of a region's voxels that must hold signal


def full(cohort: Cohort) -> Findings:
    """The census, and every volume: damaged, constant, identical, mirrored, unlike the others, elsewhere, of another
    kind, or not covering a region; and whether volumes as wholes tell the label or the site."""
    findings = census(cohort)
    check_files(cohort, findings)
    small, digests, coverage = read_volumes(cohort, findings)
    if len(small):
        check_identical(cohort, digests, findings)
        subjects = [cohort.rows[index].subject for index in one_a_subject(cohort, small)]
        measured = measures.read(cohort.tables, subjects, cohort.maps) if cohort.tables else None
        for at, name in enumerate(cohort.maps):
            volumes, of_map = {index: volume[..., at] for index, volume in small.items()}, Findings()
            check_likeness(cohort, volumes, of_map)
            check_place(cohort, volumes, of_map)
            check_measures(cohort, measured and measured[name], volumes, of_map)
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


def read_volumes(cohort: Cohort, findings: Findings) -> tuple[dict[int, np.ndarray], dict[str, list[int]], list[str]]:
    """Reduced volumes (x, y, z, maps) by record, records by the digest of each map's volume, and notes on regions
    without signal."""
    regions = atlas.load_atlas(None, cohort.grid)
    inside = regions.labels.ravel()
    sizes = np.bincount(inside, minlength=max(regions.regions) + 1)
    small: dict[int, np.ndarray] = {}
    digests: dict[str, list[int]] = defaultdict(list)
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
            for name, of_map in volumes.items():
                digests[hashlib.sha256(of_map.tobytes()).hexdigest()].append(index)
                signal = np.bincount(inside, of_map.ravel() != records.background(of_map), len(sizes))
                uncovered[name].update(region for region in regions.regions if signal[region] < COVERED * sizes[region])
            reduced = map(records.block_mean, volumes.values()) if cohort.grid == grids.FULL else volumes.values()
            small[index] = np.stack(list(reduced), axis=-1)
    coverage = [
        f"{regions.names[region]} has signal in under {COVERED:.0%} of its voxels in {count} of {len(small)} records"
        + f" of {name}" * (cohort.num_maps > 1)
        for name, counts in uncovered.items()
        for region, count in counts.most_common(SHOWN)
    ]
    return small, digests, coverage


def check_identical(cohort: Cohort, digests: dict[str, list[int]], findings: Findings) -> None:
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


def check_likeness(cohort: Cohort, small: dict[int, np.ndarray], findings: Findings) -> None:
    """Correlations with the group mean of training volumes: mirrored volumes are a problem, outliers worth a note."""
    indices = list(small)
    mean = np.mean(
        [small[index] for index in indices if cohort.rows[index].split == "train"] or list(small.values()), 0
    )
    straight = np.array([np.corrcoef(small[index].ravel(), mean.ravel())[0, 1] for index in indices])
    mirrored = np.array([np.corrcoef(small[index].ravel(), mean[::-1].ravel())[0, 1] for index in indices])
    names = np.array([cohort.rows[index].file for index in indices])
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


def check_place(cohort: Cohort, small: dict[int, np.ndarray], findings: Findings) -> None:
    """A brain that lies for the most part where most of the others are not is a problem; one far off, worth a note."""
    brains = {index: records.brain_of(volume) for index, volume in small.items()}
    most = np.mean(list(brains.values()), 0) >= OVERLAP
    away = [index for index, brain in brains.items() if brain[most].sum() < OVERLAP * brain.sum()]
    if away:
        names = listed([cohort.rows[index].file for index in away])
        findings.problems.append(f"most of the brain lies outside the others' in {names}; check their affines")
    measured = pd.DataFrame([measures.of_volume(volume, grids.REDUCED) for volume in small.values()], list(small))
    far = [index for index in measured.index[measures.far(measured)] if index not in away]
    if far:
        names = listed([f"{cohort.rows[index].file} ({measures.where(measured.loc[index])})" for index in far])
        findings.notes.append(f"far from the others, centre at {measures.where(measured.median())}: {names}")


def check_measures(
    cohort: Cohort, measured: pd.DataFrame | None, small: dict[int, np.ndarray], findings: Findings
) -> None:
    """Maps of several kinds, and maps that as wholes tell the training labels, are problems; the site, worth a note.

    What was `measured` of each subject when the maps were converted is looked at where it is known, and the volumes as
    they are stored.
    """
    first = one_a_subject(cohort, small)
    rows = [cohort.rows[index] for index in first]
    stored = measured_as_stored([small[index] for index in first])
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


def one_a_subject(cohort: Cohort, small: dict[int, np.ndarray]) -> list[int]:
    """The first record of each subject, of those that could be read; swapped copies come later."""
    first: dict[str, int] = {}
    for index in small:
        first.setdefault(cohort.rows[index].subject, index)
    return list(first.values())


def measured_as_stored(volumes: list[np.ndarray]) -> pd.DataFrame:
    """The measures of reduced volumes, and `likeness`: the correlation with their mean."""
    measured = pd.DataFrame([measures.of_volume(volume, grids.REDUCED) for volume in volumes])
    mean = np.mean(volumes, 0).ravel()
    return measured.assign(likeness=[np.corrcoef(volume.ravel(), mean)[0, 1] for volume in volumes])


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
