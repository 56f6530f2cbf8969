"""Folds: ways to divide a cohort into training and test subjects, so that each subject is tested once.

N folds hold each label and site in proportion; or one site, or one value of any covariate, is left out at a time.
`folds.csv` holds each subject's fold, `folds.json` beside it names the cohort. A set of reduced cohorts, one for each
fold and made by an encoder of its own, is a folder with both files and a cohort `fold-<K>` for each fold.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from data.base import files, tables
from data.base.errors import InputError, shown, whole_number
from data.cohorts.cohort import Cohort
from data.cohorts.resplit import resplit
from data.cohorts.rows import Groups, Row, leaders, listed, named_groups
from data.cohorts.stored import FOLDS, same_scan, sealed

FOLD_TABLE = "folds.csv"
FOLD_COLUMNS = ("subject", "fold")
SITE_COLUMN = "site"  # of subjects.csv
MAX_FOLDER_NAME = 200  # of 255 characters, some of which are of the names of locks and unfinished folders
USUAL_FOLDS = 10  # where the classes are large enough
UNKNOWN_FOLD = "unknown"  # of subjects whose value of a covariate is missing


@dataclass(frozen=True)
class Cut:
    """The content of `folds.json`: how the subjects of `folds.csv` were divided, their cohort, who shares a scan."""

    folds: str
    cohort_sha256: str
    records_sha256: str = ""  # not known of older folds
    same_scan: Groups = ()

    def fits(self, folds: "Folds") -> bool:
        """Whether it is of these folds, and of the same records."""
        return replace(self, records_sha256=self.records_sha256 or folds.records_sha256) == folds.cut


@dataclass(frozen=True)
class Folds:
    """`fold_of` gives each subject's fold; `reduced` are the cohorts of a set of reduced ones, by fold."""

    how: str  # as the user says it: a number, or a column
    whole: Cohort  # of a set of reduced cohorts the first one, under the name of the set
    digest: str  # of the cohort, or of all cohorts of a set
    fold_of: Mapping[str, str]
    reduced: Mapping[str, Cohort] = field(default_factory=dict)
    same_scan: Groups = ()  # each group is in one fold
    made: dict[str, Cohort] = field(default_factory=dict, repr=False, compare=False)  # cohorts that were asked for

    @property
    def cut(self) -> Cut:
        return Cut(self.how, self.digest, self.records_sha256, self.same_scan)

    @property
    def records_sha256(self) -> str:
        """SHA-256 over what all records hold."""
        return digest_over([cohort.records_sha256 for cohort in self.reduced.values()] or [self.whole.records_sha256])

    @property
    def names(self) -> list[str]:
        """The folds: numbers from 0, or the values of the column, in order."""
        numbered = self.are_numbered
        return sorted(set(self.fold_of.values()), key=lambda name: ((numbered and whole_number(name)) or 0, name))

    @property
    def are_numbered(self) -> bool:
        """Whether the seed says who is in which fold, not a column."""
        return whole_number(self.how) is not None

    @property
    def unchecked(self) -> Cohort:
        """The cohort of which no verdict is known; the whole one if there is none."""
        return next((cohort for cohort in self.reduced.values() if cohort.seal.verdict is None), self.whole)

    @property
    def notes(self) -> list[str]:
        """What a user must know of these folds: who is kept together, and how the phenotype is scaled."""
        together = f"Subjects who share a scan are in one fold: {named_groups(self.same_scan)}."
        notes = [together] if self.same_scan else []
        if self.reduced or self.whole.raw_phenotype is not None:
            return notes
        return [
            *notes,
            f"{self.whole.path} has no phenotype.csv, so that every fold uses the phenotype as it is stored, imputed "
            "and scaled on the training subjects of the cohort's own split.",
        ]

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
        if (number := whole_number(name)) is not None and number < len(names):
            return names[number]
        raise InputError(f"--fold {name} is none of the folds {listed(names)} (or 0 to {len(names) - 1}).")

    def write(self, folder: Path) -> None:
        """Writes `folds.csv`, the digests of records that have no table of them, then `folds.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        tables.write_rows(folder / FOLD_TABLE, FOLD_COLUMNS, self.fold_of.items())
        self.whole.keep_digests(folder)
        files.write_json(folder / FOLDS, asdict(self.cut))

    def check_written(self, folder: Path) -> None:
        """Raises InputError if the folds that a training wrote into a folder are other ones."""
        if not (folder / FOLDS).is_file():
            return
        if not files.read_json(folder / FOLDS, Cut).fits(self) or read_folds(folder / FOLD_TABLE) != self.fold_of:
            found = [] if self.reduced else self.whole.changed_since(folder)
            named = f" ({listed(found)} changed)" if found else ""
            raise InputError(
                f"{folder / FOLD_TABLE} is of other data than {self.whole.path}{named}; use another --chkPointDir."
            )

    def check(self, folder: Path, name: str, cohort: Cohort) -> None:
        """Raises InputError unless the split of a fold's cohort is the one in a folder's `folds.csv`."""
        fold_of = read_folds(folder / FOLD_TABLE)
        if wrong := [row.subject for row in cohort.rows if row.split != split_of(fold_of.get(row.subject), name)]:
            raise InputError(
                f"{folder / FOLD_TABLE} has {wrong[0]} in another fold than this run; use another --chkPointDir."
            )


def split_of(fold: str | None, tested: str) -> str:
    return "test" if fold == tested else "train"


def folder_name(name: str) -> str:
    """A fold's name as the name of a folder, whatever characters a site's name has."""
    return quote(name, safe=" ()+,").replace(".", "%2E", name.startswith("."))


def part_folder(folder: Path, name: str) -> Path:
    """The folder of a fold's results, or of its reduced cohort."""
    return folder / f"fold-{folder_name(name)}"


def open_folds(path: Path, how: str, seed: int, saved: Path) -> Folds:
    """The folds of the cohort, or of the set of reduced cohorts, at `path`; those that a training wrote into the folder
    `saved` are used. Raises InputError if those are of another cohort, or the cohort cannot be divided like that."""
    reduced = (path / FOLDS).is_file()
    folds = open_reduced(path, how) if reduced else made(sealed(path, together=False), how, seed, saved)
    folds.check_written(saved)
    return folds


def repeated(folds: Folds, seed: int, saved: Path) -> Folds:
    """The folds of another repeat, as `open_folds`: numbered ones are cut by another seed, those of a column, and of a
    set of reduced cohorts, whose encoders are bound to them, are the same."""
    if folds.are_numbered and not folds.reduced:
        folds = made(folds.whole, folds.how, seed, saved, folds.same_scan)
    folds.check_written(saved)
    return folds


def made(cohort: Cohort, how: str, seed: int, saved: Path, groups: Groups | None = None) -> Folds:
    """The folds of a cohort: those that a training of this cohort has written, or new ones; `groups` are known to share
    a scan, or are looked for."""
    check_cuttable(cohort)
    if (saved / FOLDS).is_file():
        cut, fold_of = files.read_json(saved / FOLDS, Cut), read_folds(saved / FOLD_TABLE)
        before = Folds(how, cohort, cohort.digest, fold_of, same_scan=cut.same_scan)
        if cut.fits(before):
            return before
    groups = same_scan(cohort) if groups is None else groups
    fold_of = (by_column if whole_number(how) is None else by_number)(cohort, how, seed, groups)
    check_classes(cohort, fold_of)
    return Folds(how, cohort, cohort.digest, fold_of, same_scan=groups)


def check_cuttable(cohort: Cohort) -> None:
    """Raises InputError if subjects of a cohort cannot change between training and test."""
    if unknown := [row.subject for row in cohort.rows if not row.known]:
        raise InputError(
            f"{cohort.path} has {len(unknown)} records without a label, {unknown[0]} among them; folds need one each."
        )
    if any("swap" in source for source in cohort.metadata.lineage):
        raise InputError(
            f"{cohort.path} was augmented by swapping regions between its training subjects, so that a fold's test "
            "subjects would be in its training records; use the cohort that it was made from."
        )


def subject_table(cohort: Cohort) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Subjects in the order of their first record, with their label and site. Raises InputError for one with two."""
    first: dict[str, Row] = {}
    for row in cohort.rows:
        other = first.setdefault(row.subject, row)
        if row.label != other.label or row.site != other.site:
            twice = "label" if row.label != other.label else "site"
            raise InputError(
                f"{cohort.path} has two {twice}s for subject {row.subject}; folds need one. Correct the table."
            )
    rows = first.values()
    return list(first), np.array([row.label for row in rows]), np.array([row.site for row in rows])


def smaller_class(cohort: Cohort, groups: Groups = ()) -> int:
    """How many subjects it has; a group counts as its first one."""
    subjects, label, _ = subject_table(cohort)
    leader = leaders(subjects, groups)
    return min(Counter(of for subject, of in zip(subjects, label, strict=True) if leader[subject] == subject).values())


def by_number_advice(cohort: Cohort) -> str:
    """Which number of folds is possible."""
    count = min(USUAL_FOLDS, smaller_class(cohort))
    return f"Use --folds {count}." if count > 1 else "No folds are possible: one class has a single subject."


def by_number(cohort: Cohort, how: str, seed: int, groups: Groups = ()) -> dict[str, str]:
    """`how` folds, 0, 1, ..., in proportion over labels and sites; a group is in one."""
    from sklearn.model_selection import StratifiedGroupKFold

    subjects, label, site = subject_table(cohort)
    leader = leaders(subjects, groups)
    count, fewest = int(how), smaller_class(cohort, groups)
    if not 2 <= count <= fewest:
        raise InputError(
            f"--folds {how} cannot cut {cohort.path}: its smaller class has {fewest} subjects; expected 2 to {fewest}."
        )
    stratum = [f"{of} {where}" for of, where in zip(label, site, strict=True)]
    if max(Counter(stratum).values()) < count:  # scikit-learn wants one that can be in every fold
        stratum = label.tolist()
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a small site cannot be everywhere
        return folds_of(
            subjects, [str(number) for number in range(count)], splitter.split(subjects, stratum, [*leader.values()])
        )


def by_column(cohort: Cohort, how: str, seed: int, groups: Groups = ()) -> dict[str, str]:
    """A fold for each value of a column of `covariates.csv`, or for each site; a group is in that of its first subject,
    which is printed."""
    from sklearn.model_selection import LeaveOneGroupOut

    subjects, _, site = subject_table(cohort)
    table, group = cohort.covariates, site.tolist()
    if table is not None and how in table:
        group = [value or UNKNOWN_FOLD for value in table[how]]
        if (unknown := group.count(UNKNOWN_FOLD)) and UNKNOWN_FOLD not in set(table[how]):
            print(f"{how} is not known of {unknown} subjects, who are a fold of their own, {UNKNOWN_FOLD}.")
    elif how != SITE_COLUMN:
        known = listed([SITE_COLUMN, *([] if table is None else table.columns)])
        raise InputError(f"--folds {how} is neither a number nor a column of {cohort.path}; it has {known}.")
    own, leader = dict(zip(subjects, group, strict=True)), leaders(subjects, groups)
    if moved := [
        f"{one} ({own[one]}) with {first} ({own[first]})" for one, first in leader.items() if own[one] != own[first]
    ]:
        print(f"Subjects who share a scan with one of another {how}, and are tested there: {listed(moved)}.")
        group = [own[first] for first in leader.values()]
    names = sorted(set(group))
    if len(names) < 2:
        raise InputError(
            f"--folds {how} has one value in {cohort.path}, {names[0] or 'an empty one'}; expected two or more. "
            f"{by_number_advice(cohort)}"
        )
    if 2 * len(names) > len(subjects):
        raise InputError(
            f"--folds {how} has {len(names)} values among {len(subjects)} subjects of {cohort.path}; expected groups. "
            f"{by_number_advice(cohort)}"
        )
    if long := [name for name in names if len(folder_name(name)) > MAX_FOLDER_NAME]:
        raise InputError(
            f"--folds {how} has the value {shown(long[0])}, too long for the name of a folder; shorten it."
        )
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"--folds {how} has values in {cohort.path} that differ only in capitals; write them alike.")
    return folds_of(subjects, names, LeaveOneGroupOut().split(subjects, groups=group))


def folds_of(subjects: list[str], names: list[str], splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """Subject -> the name of the split that tests it, in the order of `subjects`."""
    tested = {subjects[at]: name for name, (_, test) in zip(names, splits, strict=True) for at in test}
    return {subject: tested[subject] for subject in subjects}


def check_classes(cohort: Cohort, fold_of: Mapping[str, str]) -> None:
    """Raises InputError if a fold would be trained on one class."""
    label = {row.subject: row.label for row in cohort.rows}
    for name in set(fold_of.values()):
        if len({label[subject] for subject, fold in fold_of.items() if fold != name}) < 2:
            raise InputError(
                f"Without fold {name}, {cohort.path} has one class only; cut it otherwise. {by_number_advice(cohort)}"
            )


def read_folds(path: Path) -> dict[str, str]:
    """Each subject's fold by `folds.csv`. Raises InputError if it is damaged."""
    rows = list(tables.read_rows(path).values())
    if not rows or tuple(rows[0]) != FOLD_COLUMNS:
        raise InputError(
            f"{path} is damaged; expected the columns subject and fold, and a row a subject. Copy it again."
        )
    return {row["subject"]: row["fold"] for row in rows}


def open_reduced(path: Path, how: str) -> Folds:
    """A set of reduced cohorts. Raises InputError if its folds are others, or it does not test each subject once."""
    cut, fold_of = files.read_json(path / FOLDS, Cut), read_folds(path / FOLD_TABLE)
    if cut.folds != how:
        raise InputError(f"{path} was reduced with --folds {cut.folds}, this run has --folds {how}; use the same.")
    cohorts = {name: sealed(part_folder(path, name), together=False) for name in dict.fromkeys(fold_of.values())}
    for name, cohort in cohorts.items():
        split = {row.subject: row.split for row in cohort.rows}
        if split != {subject: split_of(fold, name) for subject, fold in fold_of.items()}:
            raise InputError(
                f"{cohort.path} does not test the fold {name} of {path / FOLD_TABLE}. Repeat the full pass."
            )
    digest = digest_over([cohort.digest for cohort in cohorts.values()])
    first = next(iter(cohorts.values()))
    seal = first.seal
    if seal.verdict and all(cohort.seal.verdict for cohort in cohorts.values()):
        problems = dict.fromkeys(text for cohort in cohorts.values() for text in cohort.problems(fold_of))
        seal = replace(seal, verdict=replace(seal.verdict, problems=tuple(problems)))
    return Folds(how, replace(first, path=path, seal=seal), digest, fold_of, cohorts, cut.same_scan)


def digest_over(digests: Sequence[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()
