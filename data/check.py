"""abide-data check: a cohort -> counts, and whatever in its table and volumes would invalidate a result."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd

from data.base import manifest
from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts import atlas, records, resampling, twins
from data.cohorts.cohort import COVARIATES, PHENOTYPE, Cohort
from data.cohorts.covariates import ODD, odd_numbers
from data.cohorts.derivation import kept_in
from data.cohorts.duplicates import Groups, known_groups, leaders, united
from data.cohorts.forecast import forecast
from data.cohorts.phenotype import clean, missing_in
from data.cohorts.pictures import Pictures
from data.cohorts.rows import listed, named_groups
from data.cohorts.seal import CohortFindings, Findings, write_verdict
from data.conversion import measures
from data.conversion.edges import check_connectomes, wrong_of
from data.conversion.leaks import separating
from data.conversion.template import encode_like
from data.likeness.scans import MIN_COVERED, Half, MeanVolume, VolumeSum, halves, uncovered, volumes_of

TURNED = 0.3  # correlation with the `halves` of the others: of real maps 0.5 to 1, or as much below 0
ATYPICAL_SDS = 6.0  # robust standard deviations below the group's median correlation
MIN_OVERLAP = 0.5  # share of a brain that must lie where most of the others' do
GROUPS = ("all", "train", "first")  # means are taken over these records; "first" is one for each subject


class MapSummary:
    """What is kept of the volumes of one map on the reduced grid, (x, y, z): sums, and a few measures of each."""

    def __init__(self) -> None:
        self.sums = {group: VolumeSum() for group in GROUPS}
        self.brains = np.zeros(records.REDUCED.shape, int)  # the records in which a voxel is of the brain
        self.measured: dict[int, dict[str, float]] = {}  # by record
        self.halves = {"side": Half(), "values": Half()}

    def add(self, index: int, volume: np.ndarray, lacking: Iterable[int], groups: Iterable[str]) -> None:
        """Adds the volume of the record `index`, which lacks some regions, and belongs to some of GROUPS."""
        brain = records.brain_of(volume)
        self.measured[index] = measures.of_volume(volume, brain, records.REDUCED)
        self.brains += brain
        for name, half in halves(volume).items():
            self.halves[name].add(index, half)
        for group in groups:
            self.sums[group].add(volume, lacking)

    @cached_property
    def mean(self) -> MeanVolume:
        """Over the training volumes, or over all if there are none."""
        return MeanVolume(self.sums["train" if self.sums["train"].count else "all"].mean)

    @cached_property
    def mean_of_first(self) -> MeanVolume:
        return MeanVolume(self.sums["first"].mean)

    def compare(self, index: int, volume: np.ndarray) -> dict[str, float]:
        """An added volume beside the others: its correlations with the mean, and with the mean of first records; those
        of its `halves` with theirs; whether its brain lies away from theirs."""
        brain = records.brain_of(volume)
        of_most = self.brains / len(self.measured) >= MIN_OVERLAP
        return {
            "correlation": self.mean.correlation(volume),
            "likeness": self.mean_of_first.correlation(volume),
            **{name: self.halves[name].compare(index, half) for name, half in halves(volume).items()},
            "away": brain[of_most].sum() < MIN_OVERLAP * brain.sum(),
        }


def full_and_stored(cohort: Cohort, pictures: Pictures | None = None) -> CohortFindings:
    """`full`, with its verdict stored beside the records, or a line that says why not."""
    findings = full(cohort, pictures)
    reason: str | None = "records without tables have no place for it"
    if cohort.tables:
        reason = write_verdict(cohort.tables, cohort.seal.sha256, findings)
    if reason:
        print(f"The verdict is not stored, so that no later job can tell it: {reason}.", flush=True)
    return findings


def full(cohort: Cohort, pictures: Pictures | None = None) -> CohortFindings:
    """The census, and findings on every volume, read twice to take little memory; `pictures` are made, if wanted."""
    findings = cohort.census()
    findings.forecast = forecast(cohort.rows, known_groups(cohort), connectome=cohort.metadata.connectome)
    check_files(cohort, findings.files)
    regions = atlas.load_atlas(None, cohort.grid)
    summaries, digests, means = read_volumes(cohort, regions, findings.files, pictures)
    check_phenotype(cohort, findings)
    check_agreement(cohort, findings.files)
    lacking_parcels = check_connectomes(cohort, findings.connectomes)
    usable = list(summaries[0].measured)
    if usable:
        check_twins(cohort, means, check_identical(cohort, digests, findings.people), findings.people)
        # The first of each subject's records is never a swapped copy: those follow their originals
        of_subject = cohort.first_records(usable)
        subjects, first = list(of_subject), list(of_subject.values())
        measured = measures.read_measures(cohort.tables, subjects, cohort.maps) if cohort.tables else None
        of_maps = {name: Findings() for name in cohort.maps}
        compared = compare_volumes(cohort, summaries, usable)
        for (name, of_map), summary, stored in zip(of_maps.items(), summaries, compared, strict=True):
            check_likeness(cohort, stored, of_map)
            check_place(cohort, stored, of_map)
            of_first = stored.loc[first].drop(columns=["correlation", "side", "values", "away"])
            check_measures(cohort, measured[name] if measured else None, of_first, of_map)
            findings.without_signal[name] = check_coverage(summary, regions, of_map)
        findings.maps.add_parts(of_maps)
    if cohort.connectomes:
        findings.without_signal[cohort.connectomes.name] = lacking_parcels
    return findings


def check_files(cohort: Cohort, findings: Findings) -> None:
    """A file that differs from its sum is a problem; one without a sum is worth a note; derivation is counted."""
    try:
        different, unknown = manifest.compare(cohort.path, cohort.file_names)
    except InputError as error:
        findings.problems.append(str(error))
        return
    findings.problems += [f"{cohort.path / name} {manifest.DIFFERENT}" for name in different]
    if unknown:
        findings.notes.append(f"no sum in {manifest.SUMS}, so damage cannot be detected: {listed(unknown)}")
    if cohort.tables and (derivation := cohort.metadata.derivation):
        findings.counts.append(f"derived from scans: {', '.join(derivation.measures)}; {derivation}")
        findings.notes += filter(None, [derivation.uncleaned])
        try:
            kept_in(cohort.tables, derivation)
        except InputError as error:
            findings.problems.append(str(error))


def read_volumes(
    cohort: Cohort, regions: atlas.Atlas, findings: Findings, pictures: Pictures | None
) -> tuple[list[MapSummary], dict[bytes, list[tuple[int, str]]], dict[str, np.ndarray]]:
    """A summary of each map; records and maps by digests of block means; by subject, the region means (regions, maps)
    of the first record. Unreadable and constant records are problems."""
    summaries = [MapSummary() for _ in cohort.maps]
    digests: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
    means: dict[str, np.ndarray] = {}
    with progress("Checking", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            shown.advance()
            try:
                _, _, volume = cohort.read(index)
            except InputError as error:
                findings.problems.append(str(error))
                findings.mark("cannot be read", [row.subject])
                continue
            volumes = dict(zip(cohort.maps, np.moveaxis(volume, -1, 0), strict=True))
            if empty := [name for name, of_map in volumes.items() if of_map.min() == of_map.max()]:
                value, which = volumes[empty[0]].flat[0], f" of {empty[0]}" if cohort.num_maps > 1 else ""
                findings.problems.append(f"{row.file} is constant ({value:g}); its map{which} was empty")
                findings.mark("a map is constant", [row.subject])
                continue
            belongs = {"all": True, "train": row.split == "train", "first": row.subject not in means}
            groups = [group for group in GROUPS if belongs[group]]
            reduced = [resampling.reduced(of_map) for of_map in volumes.values()]
            if row.subject not in means:
                means[row.subject] = np.column_stack([twins.of_reduced(of_map) for of_map in reduced])
                if pictures:
                    pictures.add(row.subject, volumes[cohort.maps[0]], reduced)
            for (name, of_map), small, summary in zip(volumes.items(), reduced, summaries, strict=True):
                digests[hashlib.sha256(small.tobytes()).digest()].append((index, name))
                summary.add(index, small, uncovered(of_map, regions.labels), groups)
    return summaries, digests, means


def compare_volumes(cohort: Cohort, summaries: list[MapSummary], usable: list[int]) -> list[pd.DataFrame]:
    """Reads the records again: for each map a table of records, with measures and `MapSummary.compare` of each."""
    found: list[list[dict[str, float]]] = [[] for _ in summaries]
    with progress("Comparing", len(usable)) as shown:
        for index in usable:
            for rows, summary, volume in zip(found, summaries, volumes_of(cohort, index), strict=True):
                rows.append(summary.measured[index] | summary.compare(index, resampling.reduced(volume)))
            shown.advance()
    return [pd.DataFrame(rows, usable) for rows in found]


def check_identical(cohort: Cohort, digests: Mapping[bytes, list[tuple[int, str]]], findings: Findings) -> Groups:
    """Subjects with an equal map are a problem as `wrong_of` says, else worth a note. Returns their groups."""
    of_records: dict[tuple[int, ...], list[str]] = {}  # the maps that are equal in these records
    for found in digests.values():
        if len(found) > 1:
            of_records.setdefault(tuple(sorted({index for index, _ in found})), []).append(found[0][1])
    told, groups, twice = defaultdict[tuple[str, str], list[str]](list), [], []
    for same, maps in of_records.items():
        rows = [cohort.rows[index] for index in same]
        people = list(dict.fromkeys(row.subject for row in rows))
        if len(same) == 1:
            twice.append(rows[0].file)
            continue
        named = "volumes" if len(maps) == cohort.num_maps else ", ".join(maps)
        if len(people) > 1:
            groups.append(people)
            findings.mark("a map that another person has", people)
            named, wrong = f"identical {named}", wrong_of(cohort, rows)
        else:
            named, wrong = f"identical {named} of one subject", ""
        told[named, wrong].append(" and ".join(f"{row.file} ({row.split})" for row in rows))
    if twice:
        findings.notes.append(f"maps of one record that are identical: {listed(twice)}")
    for (named, wrong), texts in told.items():
        where = findings.problems if wrong else findings.notes
        where.append(f"{named}: {listed(texts, between='; ')}{wrong}")
    return united(groups)


def check_twins(cohort: Cohort, means: dict[str, np.ndarray], identical: Groups, findings: Findings) -> None:
    """Subjects who share a scan by its region means are a problem as those are who have an equal map, and else worth a
    note. So are possible sessions of one person. `identical` maps are told before."""
    rows = {row.subject: row for row in reversed(cohort.rows)}
    found, known = twins.alike(list(means), np.stack([*means.values()])), leaders(means, identical)
    told = defaultdict[str, list[Sequence[str]]](list)
    for group in found.same_scan:
        if len({known[one] for one in group}) > 1:
            findings.mark("one scan under several IDs", group)
            told[wrong_of(cohort, [rows[one] for one in group])].append(group)
    for wrong, groups in told.items():
        text = named_groups(groups, lambda one: f"{one} ({rows[one].split})")
        (findings.problems if wrong else findings.notes).append(f"one scan under several IDs: {text}{wrong}")
    apart = tuple(pair for pair in found.same_person if len({known[one] for one in pair}) > 1)
    findings.notes += replace(found, same_person=apart).notes()


def check_likeness(cohort: Cohort, stored: pd.DataFrame, findings: Findings) -> None:
    """Volumes turned otherwise than most are a problem; by the correlation with the group mean of training volumes,
    outliers are worth a note."""
    rows, correlation = [cohort.rows[index] for index in stored.index], stored["correlation"].to_numpy()
    names = np.array([row.file for row in rows])
    side, values = (turned_from_most(stored[half]) for half in ("side", "values"))
    for turned, what, advice in (
        (side & ~values, "left and right look exchanged", "check their affines"),
        (values, "values look negated", "make these maps again, as those of the others"),
    ):
        if turned.any():
            others = " (or in all others)" if turned.mean() > 1 / 3 else ""
            findings.problems.append(f"{what} in {', '.join(names[turned])}{others}; {advice}")
            findings.mark(what, (rows[at].subject for at in np.flatnonzero(turned)))
    deviation = correlation - np.median(correlation)
    spread = 1.4826 * np.median(np.abs(deviation))  # of a normal distribution with this median absolute deviation
    if (atypical := np.flatnonzero(deviation < -ATYPICAL_SDS * max(spread, 1e-3))).size:
        found = [f"{names[at]} (r = {correlation[at]:.2f})" for at in atypical[np.argsort(correlation[atypical])]]
        findings.notes.append(f"unlike the group mean (median r = {np.median(correlation):.2f}): {listed(found)}")
        findings.mark("unlike the group mean", (rows[at].subject for at in atypical))


def turned_from_most(half: pd.Series) -> np.ndarray:
    """Which records (n,) bool have the other sign of `halves` than most, by `Half.compare`; none if most have no clear
    one."""
    clear = half.abs().median() > TURNED
    return (half * np.sign(half.median() or 1.0) < -TURNED).to_numpy() & clear


def check_place(cohort: Cohort, stored: pd.DataFrame, findings: Findings) -> None:
    """A brain most of which lies outside most of the others is a problem; one far from them, worth a note."""
    if away := stored.index[stored["away"]].tolist():
        names = listed([cohort.rows[index].file for index in away])
        findings.problems.append(f"most of the brain lies outside the others' in {names}; check their affines")
        findings.mark("most of the brain lies outside the others'", (cohort.rows[index].subject for index in away))
    if far := stored.index[measures.far(stored) & ~stored["away"]].tolist():
        names = listed([f"{cohort.rows[index].file} ({measures.where(stored.loc[index])})" for index in far])
        centre = measures.where(stored.drop(columns="away").median())
        findings.notes.append(f"far from the others, centre at {centre}: {names}")
        findings.mark("far from the others", (cohort.rows[index].subject for index in far))


def check_measures(cohort: Cohort, measured: pd.DataFrame | None, stored: pd.DataFrame, findings: Findings) -> None:
    """Maps of several kinds, or maps that separate the training labels, are problems; differences by site are notes.
    One record a subject is checked: as `stored`, and as `measured` in the conversion if that is known."""
    rows = [cohort.rows[index] for index in stored.index]
    views, kinds = [stored], measures.stored_kinds(stored)
    if measured is not None:  # which tell kinds better
        raw = measured.set_axis(stored.index)
        views, kinds = [raw, stored], measures.kinds(raw)
        findings.counts.append(f"maps: {', '.join(sorted(set(kinds)))}")
    if mixed := measures.mixture(kinds, [row.file for row in rows]):
        findings.problems.append(f"maps of several kinds: {mixed}; convert maps of one kind")
    training = np.array([row.split == "train" for row in rows])
    label = np.array([row.label for row in rows])[training]
    if leaks := {name: auc for view in views for name, auc in separating(view[training], label).items()}:
        named = ", ".join(f"{name} (AUC {auc:.2f})" for name, auc in leaks.items())
        findings.problems.append(f"whole volumes separate the training labels by {named}; were all made alike?")
    if measured is not None and (sizes := measures.voxel_sizes(measured, [row.file for row in rows])):
        findings.notes.append(sizes)
    if smoother := measures.smoothed(stored, [row.file for row in rows]):
        findings.notes.append(smoother)
    if by_site := measures.by_site(views[0], [row.site for row in rows]):
        findings.notes.append(f"the maps' {', '.join(by_site)} differ by site; compare subjects within sites")


def check_coverage(summary: MapSummary, regions: atlas.Atlas, findings: Findings) -> Counter[str]:
    """Regions that many records do not cover are worth a note; how many people do not cover each."""
    of_records, of_people = (
        Counter({regions.names[region]: count for region, count in summary.sums[group].uncovered.items()})
        for group in ("all", "first")
    )
    if few := [f"{name} in {count}" for name, count in of_records.most_common()]:
        total = len(summary.measured)
        found = f"regions with signal in under {MIN_COVERED:.0%} of their voxels, by how many of {total} records"
        findings.notes.append(f"{found}: {listed(few)}")
    return of_people


def check_phenotype(cohort: Cohort, findings: CohortFindings) -> None:
    """Values missing in one class of a site and odd numbers are worth a note; unreadable records are told already."""
    try:
        findings.phenotype.notes += missing_in(cohort.raw_phenotype, cohort.rows)
        if odd := [*odd_numbers(cohort.covariates), *odd_numbers(cohort.raw_phenotype)]:
            findings.phenotype.notes.append(f"{ODD}: {listed(odd)} people; correct them, or convert with --missing")
    except InputError as error:
        findings.phenotype.problems += {str(error)} - set(findings.files.problems)


def check_agreement(cohort: Cohort, findings: Findings) -> None:
    """A person of whom two tables say different things is a problem."""
    try:
        covariates, phenotype = cohort.covariates, cohort.raw_phenotype
        if covariates is None:
            return
        if name := cohort.metadata.site_column:
            sites = covariates[name].str.split().str.join(" ")
            of_rows = pd.Series({row.subject: row.site for row in cohort.rows}).reindex(sites.index)
            if wrong := sites.index[sites.ne("") & sites.ne(of_rows)].tolist():
                findings.problems.append(f"{COVARIATES} and the table of records differ in the site of {listed(wrong)}")
        if phenotype is None or not (columns := cohort.metadata.phenotype_columns):
            return
        table = covariates.reindex(columns=covariates.columns.union(columns), fill_value="")
        told = encode_like(table, cohort.metadata)
        blank = {
            name: encode_like(table.assign(**{name: ""}), cohort.metadata) for name in columns if name in covariates
        }
    except InputError as error:
        findings.problems += {str(error)} - set(findings.problems)
        return
    told = told.set_axis(phenotype.index)[[name for name in told if not name.endswith(("_missing", "_unknown"))]]
    known = pd.DataFrame(False, told.index, told.columns)
    for column, without in blank.items():  # values that follow from this column, wherever it is known
        follow = ~(told.eq(other := without.set_axis(told.index)[told.columns]) | told.isna() & other.isna()).all()
        known.loc[clean(covariates[column]).notna(), follow.index[follow]] = True
    known &= ~np.isclose(told, phenotype[told.columns], rtol=1e-6)
    for name in known.columns[known.any()]:
        people = listed(known.index[known[name]].tolist())
        findings.problems.append(f"{COVARIATES} and {PHENOTYPE} differ in the {name} of {people}")
