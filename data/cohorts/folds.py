"""Folds: the subjects of a cohort, divided so that each of them is tested once; kept on disk, divided again, permuted.

N folds hold each label and site in proportion, or whole sites. Or one site, or one value of any covariate, is left out
at a time.
`folds.csv` holds each subject's fold, `folds.json` beside it names the cohort. An encoder for each fold makes a set of
reduced cohorts: a folder with both files, and a cohort `fold-<K>` for each fold.

Inner folds divide the training subjects of a fold. What is chosen by them has not seen whom the outer fold tests. If
the outer folds are whole sites, or the values of a column, the inner ones are groups of the other sites or values. So
here, too, models are tested at sites that they have not seen.

Labels are permuted within sites. There is nothing to find then, with the same people, scans and sites.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from data.base import files, manifest, tables
from data.base.effort import EFFORT
from data.base.errors import InputError, parse_natural_number
from data.cohorts import rows as rows_of
from data.cohorts.cohort import Cohort
from data.cohorts.division import (
    Division,
    by_column,
    by_number,
    by_whole_sites,
    check_classes,
    folder_name,
    joined_sites,
    stratified,
    subjects_of,
)
from data.cohorts.duplicates import Groups, tie, with_groups
from data.cohorts.rows import listed, named_groups
from data.cohorts.stored import FOLDS, sealed
from data.cohorts.variants import resplit

FOLD_TABLE = "folds.csv"
FOLD_COLUMNS = ("subject", "fold")
MIN_INNER_FOLDS = 2


@dataclass(frozen=True)
class Cut:
    """The content of `folds.json`: how the subjects of `folds.csv` were divided, their cohort, and its groups."""

    folds: str
    cohort_sha256: str
    same_scan: Groups  # all groups
    seed: int


@dataclass(frozen=True)
class Folds:
    """`fold_of` gives each subject's fold; `reduced` are the cohorts of a set of reduced ones, by fold."""

    how: str  # the name of a `Division`
    whole: Cohort  # of a set of reduced cohorts the first one, under the name of the set
    identity: str  # of the cohort, or of a set
    fold_of: Mapping[str, str]
    seed: int  # that says who is in which fold, of numbered ones, and how networks start
    reduced: Mapping[str, Cohort] = field(default_factory=dict)
    made: dict[str, Cohort] = field(default_factory=dict, repr=False, compare=False)  # cohorts that were asked for

    @property
    def groups(self) -> Groups:
        """Who is not independent; each group is in one fold."""
        return self.whole.groups

    @property
    def cut(self) -> Cut:
        return Cut(self.how, self.identity, self.groups, self.seed)

    @property
    def names(self) -> list[str]:
        """The folds: numbers from 0, or the values of the column, in order."""
        return sorted(set(self.fold_of.values()), key=int if self.are_numbered else str)

    @property
    def division(self) -> Division:
        return Division.parse(self.how)

    @property
    def are_numbered(self) -> bool:
        """Whether the seed says who is in which fold, not a column."""
        return self.division.count > 0

    @property
    def unchecked(self) -> Cohort:
        """The cohort of which no verdict is known; the whole one if there is none."""
        return next((cohort for cohort in self.reduced.values() if cohort.verdict is None), self.whole)

    @property
    def notes(self) -> list[str]:
        """What a user must know of these folds: who is kept together, and how the phenotype is scaled."""
        notes = []
        if self.groups:
            notes.append(
                f"Participants who {tie(self.groups, self.whole.metadata)} are in one fold: "
                f"{named_groups(self.groups)}."
            )
        if self.division.whole_sites:
            people = subjects_of(self.whole.rows, self.groups)
            site = joined_sites(people)
            for name in np.unique(site[site != people.site]):
                joined = listed(np.unique(people.site[site == name]).tolist())
                notes.append(f"Sites {joined} are in one fold, since they have such participants in common.")
        if not self.reduced and self.whole.raw_phenotype is None:
            notes.append(
                f"{self.whole.path} has no phenotype.csv, so every fold uses the phenotype as it is stored. It was "
                "imputed and scaled on the training participants of the cohort's own split."
            )
        return notes

    def cohort(self, name: str) -> Cohort:
        """The cohort with this fold's subjects as test subjects; its phenotype is scaled again on all others."""
        if self.reduced:
            return self.reduced[name]
        if name not in self.made:
            split = {subject: split_of(fold, name) for subject, fold in self.fold_of.items()}
            self.made[name] = resplit(self.whole, split)
        return self.made[name]

    def named(self, name: str) -> str:
        """The fold that a user gives by its name, or by its number from 0. Raises InputError if there is none."""
        names = self.names
        if name in names:
            return name
        if (number := parse_natural_number(name)) is not None and number < len(names):
            return names[number]
        raise InputError(f"--fold {name} is none of the folds {listed(names)} (or 0 to {len(names) - 1}).")

    def write(self, folder: Path) -> None:
        """Writes `folds.csv`, `folds.json` and their sums. Raises InputError as `check_written` does."""
        self.check_written(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables.write_rows(folder / FOLD_TABLE, FOLD_COLUMNS, self.fold_of.items())
        files.write_json(folder / FOLDS, asdict(self.cut))
        manifest.write_sums(folder, [FOLDS, FOLD_TABLE])

    def check_written(self, folder: Path) -> None:
        """Raises InputError if a training wrote other folds into a folder."""
        if (folder / FOLDS).is_file() and read_folds(folder) != (self.cut, self.fold_of):
            raise InputError(
                f"{folder / FOLD_TABLE} belongs to other data than {self.whole.path}, to what these were before, or to "
                "another --seed; use another --chkPointDir."
            )


def split_of(fold: str | None, tested: str) -> str:
    return "test" if fold == tested else "train"


def part_folder(folder: Path, name: str) -> Path:
    """The folder of a fold's results, or of its reduced cohort."""
    return folder / f"fold-{folder_name(name)}"


def open_folds(path: Path, how: str, seed: int, saved: Path) -> Folds:
    """The folds of the cohort, or of the set of reduced cohorts, at `path`; those that a training wrote into the folder
    `saved` are used. Raises InputError if those are of another cohort, or the cohort cannot be divided like that."""
    if (path / FOLDS).is_file():
        folds = open_reduced(path, how, seed)
    else:
        cohort = sealed(path, together=False)
        folds = saved_folds(cohort, how, seed, saved) or cut_anew(with_groups(cohort), how, seed)
    folds.check_written(saved)
    return folds


def repeated(folds: Folds, seed: int, saved: Path) -> Folds:
    """The folds of another repeat, as `open_folds`. Numbered ones are cut by another seed. Those of a column stay, and
    so do those of a set of reduced cohorts, to which encoders are bound."""
    if folds.are_numbered and not folds.reduced:
        folds = saved_folds(folds.whole, folds.how, seed, saved) or cut_anew(folds.whole, folds.how, seed)
    folds = replace(folds, seed=seed)
    folds.check_written(saved)
    return folds


def saved_seed(folder: Path) -> int:
    """The seed of the folds that a training has written into a folder; 0 if none has."""
    return read_folds(folder)[0].seed if (folder / FOLDS).is_file() else 0


def saved_folds(cohort: Cohort, how: str, seed: int, saved: Path) -> Folds | None:
    """The folds that a training has written into the folder `saved`, with their groups, if it has."""
    check_cuttable(cohort)
    if not (saved / FOLDS).is_file():
        return None
    cut, fold_of = read_folds(saved)
    return Folds(how, replace(cohort, groups=cut.same_scan), cohort.identity, fold_of, seed)


def cut_anew(cohort: Cohort, how: str, seed: int) -> Folds:
    """New folds of a cohort whose groups are known."""
    division = Division.parse(how)
    if division.column:
        fold_of = by_column(cohort, how)
    elif division.whole_sites:
        fold_of = by_whole_sites(cohort, division.count, seed)
    else:
        fold_of = by_number(cohort, how, seed)
    check_classes(cohort, fold_of)
    return Folds(how, cohort, cohort.identity, fold_of, seed)


def check_cuttable(cohort: Cohort) -> None:
    """Raises InputError if subjects of a cohort cannot change between training and test."""
    if unknown := [row.subject for row in cohort.rows if not row.known]:
        raise InputError(
            f"{cohort.path} has {len(unknown)} records without a label, {unknown[0]} among them; folds need one each."
        )
    known = {row.subject: (row.label, row.site) for row in cohort.rows}
    if several := sorted({row.subject for row in cohort.rows if (row.label, row.site) != known[row.subject]}):
        raise InputError(
            f"{cohort.path} has two labels or sites for participant {listed(several)}; folds need one. Correct the "
            "table."
        )
    if any("swap" in source for source in cohort.metadata.lineage):
        raise InputError(
            f"{cohort.path} was augmented by swapping regions between its training participants, so that a fold's test "
            "participants would be in its training records; use the cohort that it was made from."
        )


def read_folds(folder: Path) -> tuple[Cut, dict[str, str]]:
    """How folds were cut, and each subject's fold. Raises InputError if they are not as they were written."""
    manifest.verify_sums(folder, [FOLDS, FOLD_TABLE])
    rows = tables.read_csv_rows(folder / FOLD_TABLE, FOLD_COLUMNS).values()
    return files.read_json(folder / FOLDS, Cut), {row["subject"]: row["fold"] for row in rows}


def open_reduced(path: Path, how: str, seed: int) -> Folds:
    """A set of reduced cohorts. Raises InputError if it is not as it was written, its folds are others, or it does not
    test each subject once."""
    manifest.verify_sums(path, manifest.read_sums(path))
    cut, fold_of = read_folds(path)
    if cut.folds != how:
        made, wanted = Division.parse(cut.folds).flags, Division.parse(how).flags
        raise InputError(f"{path} was reduced with {made}, this run has {wanted}; use the same.")
    parts = {name: sealed(part_folder(path, name), together=False) for name in dict.fromkeys(fold_of.values())}
    cohorts = {name: replace(cohort, groups=cut.same_scan) for name, cohort in parts.items()}
    for name, cohort in cohorts.items():
        split = {row.subject: row.split for row in cohort.rows}
        if split != {subject: split_of(fold, name) for subject, fold in fold_of.items()}:
            raise InputError(
                f"{cohort.path} does not test the fold {name} of {path / FOLD_TABLE}. Repeat the full pass."
            )
    first = next(iter(cohorts.values()))
    verdict = first.verdict
    if verdict and all(cohort.verdict for cohort in cohorts.values()):
        problems = dict.fromkeys(text for cohort in cohorts.values() for text in cohort.problems(fold_of))
        verdict = replace(verdict, problems=tuple(problems))
    whole = replace(first, path=path, verdict=verdict)
    return Folds(how, whole, manifest.compute_identity(path), fold_of, seed, cohorts)


def seal_set(path: Path) -> None:
    """Writes the sums of a set of reduced cohorts: of its folds, and of the sums of each cohort."""
    cohorts = (part_folder(path, name) for name in dict.fromkeys(read_folds(path)[1].values()))
    manifest.write_sums(path, [FOLDS, FOLD_TABLE, *(f"{folder.name}/{manifest.SUMS}" for folder in cohorts)])


@dataclass(frozen=True)
class InnerFolds:
    """`outer` is the cohort of an outer fold; `fold_of` gives each of its training subjects an inner fold."""

    outer: Cohort
    fold_of: dict[str, str]

    @property
    def names(self) -> list[str]:
        return sorted(set(self.fold_of.values()), key=int)

    def files(self, name: str) -> set[str]:
        """The records of those whom an inner fold tests."""
        return {row.file for row in self.outer.rows if self.fold_of.get(row.subject) == name}

    def cohort(self, name: str, outer: Cohort) -> Cohort:
        """The cohort of the outer fold, as a model reads it, with an inner fold's subjects as test subjects. Those whom
        the outer fold tests are held out."""
        inner = {subject: split_of(fold, name) for subject, fold in self.fold_of.items()}
        return resplit(outer, {row.subject: inner.get(row.subject, rows_of.HELD_OUT) for row in outer.rows})


def inner_folds(folds: Folds, cohort: Cohort, seed: int) -> InnerFolds:
    """The inner folds of the cohort of one of these folds. Raises InputError if its training subjects are too few."""
    training = replace(cohort, rows=tuple(row for row in cohort.rows if row.split == "train"))
    people, division = subjects_of(training.rows, training.groups), folds.division
    if division.column:
        most, what = len({folds.fold_of[subject] for subject in people.subjects}), f"value of {folds.how}"
    elif division.whole_sites:
        most, what = len(np.unique(joined_sites(people))), "site"
    else:
        most, what = people.smaller_class, "participants of a class"
    count = min(EFFORT.inner_folds, most)
    if count < MIN_INNER_FOLDS:
        raise InputError(
            f"--choose cuts the training participants of a fold into {MIN_INNER_FOLDS} inner folds at least. "
            f"Without one fold, {cohort.path} has {count} {what} left; use fewer or other --folds."
        )
    if division.column:
        fold_of = by_value(training, folds, count, seed)
    elif division.whole_sites:
        fold_of = by_whole_sites(training, count, seed)
    else:
        fold_of = by_number(training, str(count), seed)
    check_classes(training, fold_of, "inner fold")
    return InnerFolds(cohort, fold_of)


def by_value(training: Cohort, folds: Folds, count: int, seed: int) -> dict[str, str]:
    """So many groups of values of the column, alike in size and in labels as far as that is possible."""
    people = subjects_of(training.rows, training.groups)
    value = [folds.fold_of[subject] for subject in people.subjects]
    is_possible = min(Counter(people.label.tolist()).values()) >= count
    stratum = people.label if is_possible else np.zeros(len(value))
    return dict(zip(people.subjects, map(str, stratified(stratum, value, count, seed)), strict=True))


def permuted_labels(folds: Folds, random: np.random.Generator) -> dict[str, float]:
    """Subject -> label, drawn anew. Units are exchanged within their site. The subjects of a group are one unit: their
    labels go together to one of as many subjects at the same sites. Those of a site come in any order."""
    subjects, label, site, units = subjects_of(folds.whole.rows, folds.groups)
    members, alike = defaultdict(list), defaultdict(list)
    for at, unit in enumerate(units.tolist()):
        members[unit].append(at)
    for unit in members.values():  # of which those of a key may be exchanged
        alike[tuple(sorted(site[unit]))].append(sorted(unit, key=site.__getitem__))
    found: dict[str, float] = {}
    for exchanged in alike.values():
        for unit, of_others in zip(exchanged, random.permutation(np.array(exchanged)), strict=True):
            source = sorted(random.permutation(of_others), key=site.__getitem__) if len(unit) > 1 else of_others
            found |= {subjects[to]: float(label[of]) for to, of in zip(unit, source, strict=True)}
    return found


def permuted_folds(folds: Folds, seed: int, number: int) -> Folds:
    """The folds of the cohort with permuted labels; `number` tells one permutation of a seed. Numbered folds are cut
    anew by these labels, as before by the true ones. Others, and those of reduced cohorts, stay; so do whole sites,
    which have as many of both labels as before."""
    label = permuted_labels(folds, np.random.default_rng((seed, number)))
    whole, fold_of = folds.whole.relabelled(label), folds.fold_of
    if folds.are_numbered and not (folds.division.whole_sites or folds.reduced):
        fold_of = by_number(whole, folds.how, seed)
    check_classes(whole, fold_of)
    reduced = {name: cohort.relabelled(label) for name, cohort in folds.reduced.items()}
    return Folds(folds.how, whole, folds.identity, fold_of, folds.seed, reduced)
