"""Who trains and who is tested: one person in ten, drawn by a seed, or as another cohort has it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import PeopleScans, find_people_in_common, load_people_scans
from data.cohorts.groups import SubjectGroups, describe_group_ties, find_group_leaders, merge_recorded_groups
from data.cohorts.metadata import Metadata
from data.cohorts.rows import SUBJECTS_PER_TEST_SUBJECT, RecordRow
from data.tables.people import normalise_id

TRAIN_SPLIT = "train"
TEST_SPLIT = "test"
UNDECIDED_SPLIT = ""  # of those who have no preserved split: theirs is drawn
ORDER_BY_SPLIT = {TEST_SPLIT: 0, UNDECIDED_SPLIT: 1, TRAIN_SPLIT: 2}  # in the order of a site


def draw_uniform(*seed_terms: object) -> float:
    """A number in [0, 1) that depends on these alone."""
    joined_seed_text = "\0".join(map(str, seed_terms))
    return int.from_bytes(hashlib.sha256(joined_seed_text.encode()).digest()[:8], "big") / 2**64


def assign_splits(subject_table: pd.DataFrame, seed: int, dependent_groups: SubjectGroups = ()) -> dict[str, str]:
    """Subject -> train or test, whatever the order of `subject_table` (subject, site, label and, if a split is
    preserved, `kept`: a key of ORDER_BY_SPLIT). A group counts as one subject, and as a training subject if any of its
    members is kept as one.

    Of each label a tenth, and of two or more at least one, is tested. The n subjects of a site have a drawn order and
    the keys (u + 0) / n, (u + 1) / n, ... with a drawn u; those with the least keys of all sites are tested. So each
    site has its share but for one, and without one subject at most two others change.
    """
    subjects = subject_table["subject"].tolist()
    draw_by_subject = {subject: draw_uniform(seed, subject) for subject in subjects}

    # a group is decided as its leader, the member with the least draw; the least of n draws is made uniform again
    draw_ordered_groups = tuple(tuple(sorted(group, key=draw_by_subject.__getitem__)) for group in dependent_groups)
    leader_by_subject = find_group_leaders(subjects, draw_ordered_groups)
    group_size_by_leader = Counter(leader_by_subject.values())
    draw_by_leader = {
        leader: 1 - (1 - draw_by_subject[leader]) ** group_size for leader, group_size in group_size_by_leader.items()
    }

    # a preserved split of any member is that of the leader; train, the last in the order of letters, goes before test
    preserved_split_by_leader = dict.fromkeys(group_size_by_leader, UNDECIDED_SPLIT)
    if "kept" in subject_table:
        for subject, preserved_split in zip(subjects, subject_table["kept"], strict=True):
            leader = leader_by_subject[subject]
            preserved_split_by_leader[leader] = max(preserved_split_by_leader[leader], preserved_split)

    leaders_by_label_and_site: dict[str, dict[str, list[str]]] = {}
    for subject, site, label in zip(subjects, subject_table["site"], subject_table["label"], strict=True):
        if leader_by_subject[subject] == subject:
            leaders_by_label_and_site.setdefault(str(label), {}).setdefault(site, []).append(subject)

    # of each label, the leaders who are tested already count; those who are missing are drawn
    tested_leaders = {
        leader for leader, preserved_split in preserved_split_by_leader.items() if preserved_split == TEST_SPLIT
    }
    for label, leaders_by_site in leaders_by_label_and_site.items():
        order_key_by_leader: dict[str, float] = {}
        for site, site_leaders in leaders_by_site.items():
            site_offset = draw_uniform(seed, label, site)
            ordered_leaders = sorted(
                site_leaders,
                key=lambda leader: (ORDER_BY_SPLIT[preserved_split_by_leader[leader]], draw_by_leader[leader]),
            )
            for leader_index, leader in enumerate(ordered_leaders):
                order_key_by_leader[leader] = (leader_index + site_offset) / len(site_leaders)

        label_leader_count = len(order_key_by_leader)
        label_test_count = round(label_leader_count / SUBJECTS_PER_TEST_SUBJECT)
        if label_leader_count > 1:
            label_test_count = max(label_test_count, 1)
        preserved_test_count = len(tested_leaders & order_key_by_leader.keys())
        drawn_test_count = max(label_test_count - preserved_test_count, 0)

        undecided_leaders = [
            leader for leader in order_key_by_leader if preserved_split_by_leader[leader] == UNDECIDED_SPLIT
        ]
        undecided_leaders.sort(key=order_key_by_leader.__getitem__)
        tested_leaders.update(undecided_leaders[:drawn_test_count])

    return {
        subject: TEST_SPLIT if leader in tested_leaders else TRAIN_SPLIT
        for subject, leader in leader_by_subject.items()
    }


@dataclass(frozen=True)
class PreservedSplit:
    """The split of a cohort in any form; people to convert who are in it, or whose scan is, take it on."""

    split_cohort: Cohort
    split_by_subject: dict[str, str] = field(default_factory=dict)  # of the people to convert who have taken one on

    def add_split_column(
        self, subject_table: pd.DataFrame, scan_fingerprints: PeopleScans | None = None
    ) -> pd.DataFrame:
        """The subjects with the column `kept`: the split of those whom the cohort has by ID and, if
        `scan_fingerprints` are given, also of those whose scan it has. Raises InputError if it then has nobody."""
        subject_ids = subject_table["subject"].tolist()
        self.take_splits_by_id(subject_ids)
        if scan_fingerprints:
            self.take_splits_by_scan(scan_fingerprints.exclude_subjects(self.split_by_subject))
            if not self.split_by_subject:
                raise InputError(
                    f"--keepSplit {self.split_cohort.path} has nobody of those to convert, such as {subject_ids[0]}; "
                    f"it has participants such as {self.training_first_rows[0].subject}. Name the cohort whose split "
                    "they are to keep, or leave it out."
                )
        return subject_table.assign(
            kept=[self.split_by_subject.get(subject, UNDECIDED_SPLIT) for subject in subject_ids]
        )

    @cached_property
    def training_first_rows(self) -> list[RecordRow]:
        """The rows of the cohort, those of training subjects before all others."""
        return sorted(self.split_cohort.rows, key=lambda subject_row: subject_row.split != TRAIN_SPLIT)

    @cached_property
    def split_by_cohort_subject(self) -> dict[str, str]:
        """The split of each subject of the cohort; who is in both is trained on."""
        return {subject_row.subject: subject_row.split for subject_row in reversed(self.training_first_rows)}

    def take_splits_by_id(self, subject_ids: Sequence[str]) -> None:
        split_by_normalised_id = {
            normalise_id(cohort_subject): split for cohort_subject, split in self.split_by_cohort_subject.items()
        }
        for subject in subject_ids:
            if (normalised_id := normalise_id(subject)) in split_by_normalised_id:
                self.split_by_subject[subject] = split_by_normalised_id[normalised_id]

    def take_splits_by_scan(self, scan_fingerprints: PeopleScans) -> None:
        """Those people take on a split whose map or connectome the cohort has or, if it has the same number of maps
        and no encoder made them, or neither has maps, nearly the same scan."""
        if not scan_fingerprints.scan_digests_by_subject:
            return
        region_means = scan_fingerprints.region_means  # (subjects, regions, maps)
        map_count = 0 if region_means is None else region_means.shape[-1]
        is_cohort_encoded = self.split_cohort.metadata.reduction.startswith("encoder")
        cohort_scan_fingerprints = load_people_scans(
            self.split_cohort,
            [subject_row.subject for subject_row in self.training_first_rows],
            with_near_scans=not is_cohort_encoded and self.split_cohort.num_maps == map_count,
        )
        cohort_subject_by_subject = find_people_in_common(cohort_scan_fingerprints, scan_fingerprints)
        for subject, cohort_subject in cohort_subject_by_subject.items():
            self.split_by_subject[subject] = self.split_by_cohort_subject[cohort_subject]

    def summarise_split(self, subject_rows: Sequence[RecordRow], metadata: Metadata) -> list[SummaryRow]:
        """How many people it decided, and whose split could not be kept."""
        drawn_count = len(subject_rows) - len(self.split_by_subject)
        split_sentences = [
            f"{format_participants(len(self.split_by_subject))} as in {self.split_cohort.path}, {drawn_count} others "
            "drawn"
        ]

        # those whom a group has moved: always from test to train
        moved_subject_ids = [
            subject_row.subject
            for subject_row in subject_rows
            if self.split_by_subject.get(subject_row.subject, subject_row.split) != subject_row.split
        ]
        if moved_subject_ids:
            moved_dependent_groups = tuple(
                dependent_group
                for dependent_group in merge_recorded_groups(metadata)
                if not set(dependent_group).isdisjoint(moved_subject_ids)
            )
            split_sentences.append(
                f"not kept: {join_names(moved_subject_ids)}, test participants there, "
                f"{describe_group_ties(moved_dependent_groups, metadata)} with training participants and are training "
                "participants now"
            )
        return [("split", sentence) for sentence in split_sentences]
