"""Who trains and who is tested: one person in ten, drawn by a seed, or as another cohort has it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

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
DRAWN_SPLIT = ""  # the split that somebody keeps; DRAWN_SPLIT: none
ORDER_BY_SPLIT = {TEST_SPLIT: 0, DRAWN_SPLIT: 1, TRAIN_SPLIT: 2}  # in the order of a site


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
    preserved_split_by_subject = dict(
        zip(subject_table["subject"], subject_table.get("kept", [DRAWN_SPLIT] * len(subject_table)), strict=True)
    )
    draw_by_subject = {subject: draw_uniform(seed, subject) for subject in preserved_split_by_subject}
    leader_by_subject = find_group_leaders(
        preserved_split_by_subject,
        tuple(tuple(sorted(dependent_group, key=draw_by_subject.__getitem__)) for dependent_group in dependent_groups),
    )
    draw_by_leader = {
        subject: 1 - (1 - draw_by_subject[subject]) ** group_size
        for subject, group_size in Counter(leader_by_subject.values()).items()
    }  # the least draw of a group, made uniform again
    for subject, leader in leader_by_subject.items():
        # in the order of letters, train is the last
        preserved_split_by_subject[leader] = max(
            preserved_split_by_subject[leader], preserved_split_by_subject[subject]
        )
    leaders_by_label_and_site = defaultdict[str, defaultdict[str, list[str]]](partial(defaultdict, list))
    for subject, site, label in zip(
        subject_table["subject"], subject_table["site"], subject_table["label"], strict=True
    ):
        if leader_by_subject[subject] == subject:
            leaders_by_label_and_site[str(label)][site].append(subject)
    tested_leaders = {
        leader for leader in leader_by_subject.values() if preserved_split_by_subject[leader] == TEST_SPLIT
    }
    for label, leaders_by_site in leaders_by_label_and_site.items():
        order_key_by_leader: dict[str, float] = {}
        for site, site_leaders in leaders_by_site.items():
            site_offset = draw_uniform(seed, label, site)
            ordered_leaders = sorted(
                site_leaders,
                key=lambda subject: (ORDER_BY_SPLIT[preserved_split_by_subject[subject]], draw_by_leader[subject]),
            )
            order_key_by_leader |= {
                subject: (leader_index + site_offset) / len(site_leaders)
                for leader_index, subject in enumerate(ordered_leaders)
            }
        label_test_count = max(
            round(len(order_key_by_leader) / SUBJECTS_PER_TEST_SUBJECT), 1 if len(order_key_by_leader) > 1 else 0
        )
        drawable_leaders = sorted(
            (subject for subject in order_key_by_leader if preserved_split_by_subject[subject] == DRAWN_SPLIT),
            key=order_key_by_leader.__getitem__,
        )
        tested_leaders |= set(
            drawable_leaders[: max(label_test_count - len(tested_leaders & order_key_by_leader.keys()), 0)]
        )
    return {
        subject: TEST_SPLIT if leader_by_subject[subject] in tested_leaders else TRAIN_SPLIT
        for subject in preserved_split_by_subject
    }


@dataclass(frozen=True)
class PreservedSplit:
    """The split of a cohort in any form; people to convert who are in it, or whose scan is, take it on."""

    split_cohort: Cohort
    split_by_subject: dict[str, str] = field(default_factory=dict)  # by subject, of those to whom it was given

    def add_split_column(
        self, subject_table: pd.DataFrame, scan_fingerprints: PeopleScans | None = None
    ) -> pd.DataFrame:
        """The subjects with the column `kept`: the split of those whom the cohort has by ID and, if
        `scan_fingerprints` are given, also of those whose scan it has. Raises InputError if it then has nobody."""
        subject_ids = subject_table["subject"].tolist()
        # who is in both is trained on
        cohort_subject_rows = sorted(self.split_cohort.rows, key=lambda subject_row: subject_row.split != TRAIN_SPLIT)
        cohort_split_by_subject = {
            subject_row.subject: subject_row.split for subject_row in reversed(cohort_subject_rows)
        }
        split_by_normalised_id = {normalise_id(subject): split for subject, split in cohort_split_by_subject.items()}
        self.split_by_subject.update(
            {
                new_subject: split_by_normalised_id[normalise_id(new_subject)]
                for new_subject in subject_ids
                if normalise_id(new_subject) in split_by_normalised_id
            }
        )
        unmatched_scan_fingerprints = (
            scan_fingerprints.exclude_subjects(self.split_by_subject) if scan_fingerprints else None
        )
        if (
            unmatched_scan_fingerprints
            and unmatched_scan_fingerprints.scan_digests_by_subject
            and unmatched_scan_fingerprints.region_means is not None
        ):
            is_cohort_unencoded = not self.split_cohort.metadata.reduction.startswith("encoder")
            has_comparable_region_means = (
                is_cohort_unencoded and self.split_cohort.num_maps == unmatched_scan_fingerprints.region_means.shape[-1]
            )
            cohort_scan_fingerprints = load_people_scans(
                self.split_cohort,
                [subject_row.subject for subject_row in cohort_subject_rows],
                has_comparable_region_means,
            )
            self.split_by_subject.update(
                {
                    new_subject: cohort_split_by_subject[cohort_subject]
                    for new_subject, cohort_subject in find_people_in_common(
                        cohort_scan_fingerprints, unmatched_scan_fingerprints
                    ).items()
                }
            )
        if scan_fingerprints and not self.split_by_subject:
            raise InputError(
                f"--keepSplit {self.split_cohort.path} has nobody of those to convert, such as {subject_ids[0]}; it "
                "has participants "
                f"such as {cohort_subject_rows[0].subject}. Name the cohort whose split they are to keep, or leave it "
                "out."
            )
        return subject_table.assign(
            kept=[self.split_by_subject.get(new_subject, DRAWN_SPLIT) for new_subject in subject_ids]
        )

    def summarise_split(self, subject_rows: Sequence[RecordRow], metadata: Metadata) -> list[SummaryRow]:
        """How many people it decided, and whose split could not be kept."""
        split_sentences = [
            f"{format_participants(len(self.split_by_subject))} as in {self.split_cohort.path}, "
            f"{len(subject_rows) - len(self.split_by_subject)} others drawn"
        ]
        if moved_subject_ids := [
            subject_row.subject
            for subject_row in subject_rows
            if self.split_by_subject.get(subject_row.subject, subject_row.split) != subject_row.split
        ]:
            moved_dependent_groups = tuple(
                dependent_group
                for dependent_group in merge_recorded_groups(metadata)
                if {*dependent_group} & {*moved_subject_ids}
            )
            split_sentences.append(
                f"not kept: {join_names(moved_subject_ids)}, test participants there, "
                f"{describe_group_ties(moved_dependent_groups, metadata)} with training participants and are training "
                "participants now"
            )
        return [("split", sentence) for sentence in split_sentences]
