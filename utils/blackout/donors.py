"""Who gives what replaces a part of a tested person in a blackout: other people, drawn without regard to the label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.cohorts.cohort import Cohort
from data.cohorts.groups import find_group_leaders
from data.cohorts.rows import RecordRow
from data.tables.vocabulary import find_recorded_sites

MIN_PEOPLE_PER_DONOR = 2  # to draw from, at least: else all records would share the same donors
PARTICIPANTS_TEXT_BY_SPLIT = {"train": "training participants", "test": "tested participants"}
# split, and whether of the same site
DONOR_ORIGIN_PREFERENCES = (("train", True), ("test", True), ("train", False), ("test", False))
DonorOrigin = tuple[str, str | None]  # of a donor: split and site; None: any site
RecordIndicesByPerson = dict[str, list[int]]  # person -> positions of the records


class Donors:
    """The donors of the records `tested_record_indices` of a cohort, `donors_per_record` or, if one of them has fewer
    possible donors, fewer for each. Who they are does not depend on the other tested records.

    `donor_indices_by_record` maps a record to its donors (count,), and `donor_origin_by_record` to the split and the
    site (None: any) that they come from; `subject_count_by_origin` counts subjects. Records are known by position in
    the cohort.
    """

    def __init__(self, cohort: Cohort, tested_record_indices: np.ndarray, donors_per_record: int, seed: int):
        self.tested_record_indices = tested_record_indices
        self._people_by_origin = find_people_by_origin(cohort)
        grouped_subject_rows = merge_group_subjects(cohort)
        self._person_name_by_record = {
            record_index: grouped_subject_rows[record_index].subject for record_index in tested_record_indices.tolist()
        }
        self.donor_origin_by_record = {
            record_index: choose_record_donor_origin(
                self._people_by_origin, grouped_subject_rows[record_index], donors_per_record
            )
            for record_index in self._person_name_by_record
        }

        # As many donors for each record as the record with the fewest possible donors has
        possible_donor_counts = []
        for record_index, person_name in self._person_name_by_record.items():
            record_people = self._people_by_origin[self.donor_origin_by_record[record_index]]
            possible_donor_counts.append(len(record_people.keys() - {person_name}))
        self.donors_per_record = min(donors_per_record, *possible_donor_counts)
        self.donor_indices_by_record = {
            record_index: draw_donors(
                self._people_by_origin[self.donor_origin_by_record[record_index]],
                person_name,
                self.donors_per_record,
                [seed, record_index],
            )
            for record_index, person_name in self._person_name_by_record.items()
        }

        # A subject counts once, by the last record
        donor_origin_by_subject = {
            cohort.rows[record_index].subject: donor_origin
            for record_index, donor_origin in self.donor_origin_by_record.items()
        }
        self.subject_count_by_origin = Counter(donor_origin_by_subject.values())

    def select_donor_indices(self, record_indices: np.ndarray) -> np.ndarray:
        """The donors (donors, n) of tested records (n,)."""
        return np.stack([self.donor_indices_by_record[int(record_index)] for record_index in record_indices], axis=1)

    @property
    def donor_description(self) -> str:
        """Who they are."""
        subject_count_by_description: Counter = Counter()
        for (split, site), subject_count in self.subject_count_by_origin.items():
            if site is None:
                site_relation = "any"
            elif find_recorded_sites([site]):
                site_relation = "the same"
            else:
                site_relation = "unknown"
            origin_description = f"{PARTICIPANTS_TEXT_BY_SPLIT[split]} of {site_relation} site"
            subject_count_by_description[origin_description] += subject_count

        if len(subject_count_by_description) == 1:
            (origins_text,) = subject_count_by_description
        else:
            subject_total = subject_count_by_description.total()
            origins_text = "; ".join(
                f"for {subject_count} of {subject_total} participants {origin_description}"
                for origin_description, subject_count in subject_count_by_description.items()
            )
        return f"Donors: {self.donors_per_record} per record, {origins_text}."

    def compute_donor_pool_means(self, record_values: np.ndarray) -> np.ndarray:
        """For each tested record, the mean of `record_values` (records of the cohort, ...) over all possible donors,
        (records, ...): the people from whom its donors were drawn, without its own subject."""
        mean_by_person_by_origin = {}
        value_sum_by_origin = {}
        for donor_origin in set(self.donor_origin_by_record.values()):
            mean_by_person = {
                person_name: record_values[record_indices].mean(0)
                for person_name, record_indices in self._people_by_origin[donor_origin].items()
            }
            mean_by_person_by_origin[donor_origin] = mean_by_person
            value_sum_by_origin[donor_origin] = sum(mean_by_person.values())

        donor_pool_means = []
        for record_index, donor_origin in self.donor_origin_by_record.items():
            mean_by_person = mean_by_person_by_origin[donor_origin]
            record_person = self._person_name_by_record[record_index]
            donor_pool_sum = value_sum_by_origin[donor_origin] - mean_by_person.get(record_person, 0.0)
            donor_pool_means.append(donor_pool_sum / len(mean_by_person.keys() - {record_person}))
        return np.stack(donor_pool_means)

    def compute_donor_pool_deviations(self, record_values: np.ndarray) -> np.ndarray:
        """How far each record and its donors are from `compute_donor_pool_means`, (records, 1 + donors, ...)."""
        record_and_donor_indices = np.array(
            [(record_index, *donor_indices) for record_index, donor_indices in self.donor_indices_by_record.items()]
        )  # (records, 1 + donors)
        donor_pool_deviations = record_values[record_and_donor_indices]
        donor_pool_deviations -= self.compute_donor_pool_means(record_values)[:, None]
        return donor_pool_deviations


def compute_control_variate_mean(changes_by_donor: np.ndarray, donor_pool_deviations: np.ndarray) -> np.ndarray:
    """The mean change over donors, (records, donors, features) -> (records, features). A control variate removes most
    of the variance that is due to the random choice of donors.

    `donor_pool_deviations` (records, 1 + donors, features, maps) are those of `Donors.compute_donor_pool_deviations`.
    The change is regressed, without labels, on the difference between the record's values and the donor's. The slope
    times the mean deviation of the donors from all people from whom they were drawn is added. The slope is shrunk by
    the weight of one more pair, so that it is stable with few records.
    """
    donor_deviations = donor_pool_deviations[:, 1:]  # (records, donors, features, maps)
    # computed before the differences below, to save memory
    donor_mean_squares = np.square(donor_deviations).mean((0, 1))  # (features, maps)

    # Slopes of the change on the difference, (features, maps), shrunk by one more pair
    record_minus_donor = donor_pool_deviations[:, :1] - donor_deviations
    map_count = record_minus_donor.shape[-1]
    cross_products = np.einsum("idrm,idrk->rmk", record_minus_donor, record_minus_donor)  # (features, maps, maps)
    penalised_products = cross_products + donor_mean_squares[..., None] * np.eye(map_count)
    change_products = np.einsum("idrm,idr->rm", record_minus_donor, changes_by_donor)  # (features, maps)
    regression_slopes = (np.linalg.pinv(penalised_products, hermitian=True) @ change_products[..., None])[..., 0]
    return changes_by_donor.mean(1) + np.einsum("irm,rm->ir", donor_deviations.mean(1), regression_slopes)


def merge_group_subjects(cohort: Cohort) -> list[RecordRow]:
    """The rows of a cohort, in which all subjects of a group have the name of its first subject."""
    leader_by_subject = find_group_leaders((record_row.subject for record_row in cohort.rows), cohort.groups)
    return [replace(record_row, subject=leader_by_subject[record_row.subject]) for record_row in cohort.rows]


def find_people_by_origin(cohort: Cohort) -> dict[DonorOrigin, RecordIndicesByPerson]:
    """Who may be a donor, by split and site. The subjects of a group are one person."""
    people_by_origin: dict[DonorOrigin, RecordIndicesByPerson] = {}
    grouped_subject_rows = merge_group_subjects(cohort)
    for record_index in cohort.find_unswapped_record_indices():
        record_row = grouped_subject_rows[record_index]
        for site in (record_row.site, None):
            people_by_origin.setdefault((record_row.split, site), {}).setdefault(record_row.subject, []).append(
                record_index
            )
    return people_by_origin


def draw_donors(
    record_indices_by_person: RecordIndicesByPerson, excluded_subject: str, donor_count: int, seed: Sequence[int]
) -> np.ndarray:
    """`donor_count` records (count,) of different people other than `excluded_subject`, whatever their labels."""
    rng = np.random.default_rng(seed)
    person_names = np.array(sorted(record_indices_by_person))
    donor_names = rng.choice(person_names[person_names != excluded_subject], donor_count, replace=False)
    return np.array([rng.choice(record_indices_by_person[donor_name]) for donor_name in donor_names])


def choose_record_donor_origin(
    people_by_origin: dict[DonorOrigin, RecordIndicesByPerson], record_row: RecordRow, donor_count: int
) -> DonorOrigin:
    """Where the donors of a record are drawn from: the first in `DONOR_ORIGIN_PREFERENCES` that has enough other
    people. If none has, the one with most."""
    people_count_by_origin = {}
    for split, is_same_site in DONOR_ORIGIN_PREFERENCES:
        donor_origin = (split, record_row.site if is_same_site else None)
        if donor_origin in people_by_origin:
            people_count_by_origin[donor_origin] = len(people_by_origin[donor_origin].keys() - {record_row.subject})
    for donor_origin, people_count in people_count_by_origin.items():
        if people_count >= MIN_PEOPLE_PER_DONOR * donor_count:
            return donor_origin
    return max(people_count_by_origin, key=lambda donor_origin: people_count_by_origin[donor_origin])
