"""Who trains and who is tested: one person in ten, drawn by a seed, or as another cohort has it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from data.base.errors import InputError
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import (
    PeopleScans,
    SubjectGroups,
    describe_tie,
    find_group_leaders,
    find_people_in_common,
    load_people_scans,
    merge_recorded_groups,
)
from data.cohorts.rows import SUBJECTS_PER_TEST_SUBJECT, Metadata, RecordRow, join_names
from data.conversion.tables import key

TRAIN, TEST, DRAWN = "train", "test", ""  # what is kept of somebody; DRAWN: nothing
PLACES = {TEST: 0, DRAWN: 1, TRAIN: 2}  # in the order of a site


def draw(*named: object) -> float:
    """A number in [0, 1) that depends on these alone."""
    text = "\0".join(map(str, named))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def assign_splits(subjects: pd.DataFrame, seed: int, groups: SubjectGroups = ()) -> dict[str, str]:
    """Subject -> train or test, whatever the order of `subjects` (subject, site, label and, where a split is kept,
    kept: one of PLACES). A group counts as one subject, a training subject if any of it is kept as one.

    Of each label a tenth, and of two or more at least one, is tested. The n subjects of a site have a drawn order and
    the keys (u + 0) / n, (u + 1) / n, ... with a drawn u; those with the least keys of all sites are tested. So each
    site has its share but for one, and without one subject at most two others change.
    """
    kept = dict(zip(subjects["subject"], subjects.get("kept", [DRAWN] * len(subjects)), strict=True))
    drawn = {name: draw(seed, name) for name in kept}
    of_group = find_group_leaders(kept, tuple(tuple(sorted(group, key=drawn.__getitem__)) for group in groups))
    place = {name: 1 - (1 - drawn[name]) ** size for name, size in Counter(of_group.values()).items()}  # of the least
    for name, first in of_group.items():
        kept[first] = max(kept[first], kept[name])  # in the order of letters, train is the last
    strata = defaultdict[str, defaultdict[str, list[str]]](partial(defaultdict, list))
    for name, site, label in zip(subjects["subject"], subjects["site"], subjects["label"], strict=True):
        if of_group[name] == name:
            strata[str(label)][site].append(name)
    tested = {first for first in of_group.values() if kept[first] == TEST}
    for label, sites in strata.items():
        keys: dict[str, float] = {}
        for site, there in sites.items():
            offset = draw(seed, label, site)
            in_order = sorted(there, key=lambda name: (PLACES[kept[name]], place[name]))
            keys |= {name: (at + offset) / len(there) for at, name in enumerate(in_order)}
        wanted = max(round(len(keys) / SUBJECTS_PER_TEST_SUBJECT), 1 if len(keys) > 1 else 0)
        free = sorted((name for name in keys if kept[name] == DRAWN), key=keys.__getitem__)
        tested |= set(free[: max(wanted - len(tested & keys.keys()), 0)])
    return {name: TEST if of_group[name] in tested else TRAIN for name in kept}


@dataclass(frozen=True)
class KeptSplit:
    """The split of a cohort in any form, which other people take on who are in it, or whose scan is."""

    cohort: Cohort
    kept: dict[str, str] = field(default_factory=dict)  # by subject, of those to whom it was given

    def added(self, subjects: pd.DataFrame, people: PeopleScans | None = None) -> pd.DataFrame:
        """The subjects with the column `kept`: the split of those whom the cohort has by the ID and, once it is known
        what tells `people`, also of those whose scan it has. Raises InputError if it has nobody."""
        names = subjects["subject"].tolist()
        rows = sorted(self.cohort.rows, key=lambda row: row.split != TRAIN)  # who is in both is trained on
        split_of = {row.subject: row.split for row in reversed(rows)}
        by_key = {key(subject): split for subject, split in split_of.items()}
        self.kept.update({name: by_key[key(name)] for name in names if key(name) in by_key})
        others = people.without(self.kept) if people else None
        if others and others.scans_by_subject and others.region_means is not None:
            no_code = not self.cohort.metadata.reduction.startswith("encoder")
            comparable = no_code and self.cohort.num_maps == others.region_means.shape[-1]
            known = load_people_scans(self.cohort, [row.subject for row in rows], comparable)
            self.kept.update({name: split_of[other] for name, other in find_people_in_common(known, others).items()})
        if people and not self.kept:
            raise InputError(
                f"--keepSplit {self.cohort.path} has nobody of those to convert, such as {names[0]}; it has "
                "participants "
                f"such as {rows[0].subject}. Name the cohort whose split they are to keep, or leave it out."
            )
        return subjects.assign(kept=[self.kept.get(name, DRAWN) for name in names])

    def facts(self, rows: Sequence[RecordRow], metadata: Metadata) -> list[SummaryRow]:
        """How many people it decided, and whose split could not be kept."""
        told = [
            f"{format_participants(len(self.kept))} as in {self.cohort.path}, {len(rows) - len(self.kept)} others drawn"
        ]
        if moved := [row.subject for row in rows if self.kept.get(row.subject, row.split) != row.split]:
            groups = tuple(group for group in merge_recorded_groups(metadata) if {*group} & {*moved})
            told.append(
                f"not kept: {join_names(moved)}, test participants there, {describe_tie(groups, metadata)} with "
                "training participants and are training participants now"
            )
        return [("split", text) for text in told]
