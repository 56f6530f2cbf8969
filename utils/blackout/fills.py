"""Records -> what replaces their regions in a blackout: the background, or the region of another person.

`background`  The value of the record's voxels outside the brain.
`donor`       The region of another person, drawn without regard to the label. If the region's content has nothing to do
              with the label and with the rest of the brain, the person's own and the donor's can be exchanged.
`expected`    The donor's region shifted so that its mean is what the person's other regions predict plus the donor's
              own residual: what the rest of the brain says about the region stays, what only the region says is
              exchanged (conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort, ahead, in_order
from data.cohorts.rows import Row

PEOPLE_PER_DONOR = 2  # to draw from, at least: else all records would share the same donors
ORDER = (("train", True), ("test", True), ("train", False), ("test", False))  # split, and whether of the same site
INNER_FOLDS = 5  # so that no one's region is predicted from a fit that has seen it
PENALTIES = np.logspace(-3, 1, 9)  # of squared weights, per record
CHUNK = 16  # records read at once
Origin = tuple[str, str | None]  # of a donor: split and site; None: any site


@dataclass(frozen=True)
class FilledBatch:
    """Records with their fills: `batch` as of `Cohort.batch`, `background` (n, 1, 1, 1, maps), `donor` and `expected`
    (donors, n, x, y, z, maps), float32. The fills replace the maps for which `replaced` (maps,) bool is True."""

    batch: dict[str, np.ndarray]
    background: np.ndarray
    donor: np.ndarray
    expected: np.ndarray
    replaced: np.ndarray

    def in_chosen_maps(self, fill: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """The fill, with the maps of `volume` where they are not replaced."""
        return fill if self.replaced.all() else np.where(self.replaced, fill, volume)


@dataclass(frozen=True)
class People:
    """Those of one origin: subject -> positions of the subject's records."""

    records: dict[str, list[int]]

    @cached_property
    def names(self) -> np.ndarray:
        return np.array(sorted(self.records))

    def others(self, subject: str) -> int:
        """How many there are other than a subject."""
        return len(self.records) - (subject in self.records)

    def draw(self, subject: str, count: int, seed: Sequence[int]) -> np.ndarray:
        """`count` records (count,) of different people other than `subject`, whatever their labels."""
        random = np.random.default_rng(seed)
        chosen = random.choice(self.names[self.names != subject], count, replace=False)
        return np.array([random.choice(self.records[name]) for name in chosen])


@dataclass(frozen=True)
class FillOptions:
    """Donors for each record (fewer if there are too few people), the seed, and which maps are replaced, (maps,) bool;
    None: all."""

    donors: int
    seed: int
    replaced_maps: np.ndarray | None = None


class Fills:
    """Fills for the records `indices` of a cohort. Those of a record do not depend on which others are blacked out.

    `donors` maps a record to the records (count,) whose regions replace its own, all by position in the cohort, and
    `origin` to the split and the site (None: any) that they were drawn from; `subjects_of_origin` counts subjects.
    `means` and `expected` (records of the cohort, regions, maps) are the regions' means, and what the other regions
    predict of them.
    """

    def __init__(self, cohort: Cohort, atlas: Atlas, indices: np.ndarray, options: FillOptions):
        self.cohort = cohort
        self._region_at = atlas.places(atlas.labels)
        self._replaced = np.ones(cohort.num_maps, bool) if options.replaced_maps is None else options.replaced_maps
        chunks = in_order(np.arange(len(cohort.rows)), CHUNK)
        self.means = np.concatenate([atlas.means(batch["volume"]) for batch in ahead(cohort.batch, chunks)])
        self.expected = expected_means(cohort, self.means)
        self._people = people_by_origin(cohort)
        rows = {int(index): cohort.rows[index] for index in indices}
        self.origin = {index: donor_origin(self._people, row, options.donors) for index, row in rows.items()}
        people = {index: self._people[origin] for index, origin in self.origin.items()}
        self.count = min(options.donors, *(people[index].others(row.subject) for index, row in rows.items()))
        self.donors = {
            index: people[index].draw(row.subject, self.count, [options.seed, index]) for index, row in rows.items()
        }
        self.subjects_of_origin = Counter({rows[index].subject: at for index, at in self.origin.items()}.values())

    def of(self, indices: np.ndarray) -> FilledBatch:
        """The batch of these records, with their fills."""
        batch = self.cohort.batch(indices)
        values_outside = [
            [records.background(values) for values in np.moveaxis(volume, -1, 0)] for volume in batch["volume"]
        ]
        positions = np.stack([self.donors[int(index)] for index in indices], axis=1)
        donor = np.stack([self.cohort.batch(row)["volume"] for row in positions])
        shift = self.expected[indices] - self.expected[positions]  # (donors, n, regions, maps)
        shift = np.concatenate([shift, np.zeros_like(shift[:, :, :1])], axis=2).astype(np.float32)
        expected = donor + shift[:, :, self._region_at]
        background = np.array(values_outside, np.float32)[:, None, None, None]
        return FilledBatch(batch, background, donor, expected, self._replaced)

    def deviations(self, level: np.ndarray) -> np.ndarray:
        """How far the regions of each record and of its donors are from the mean of all people whom the donors were
        drawn from, the record's own subject left out: (records, 1 + donors, regions, replaced maps).

        `level` is `means`, or `means - expected`.
        """
        level, found = level[..., self._replaced], []
        of_people = {
            origin: {name: level[own].mean(0) for name, own in self._people[origin].records.items()}
            for origin in set(self.origin.values())
        }
        total = {origin: sum(values.values()) for origin, values in of_people.items()}
        for index, positions in self.donors.items():
            origin, subject = self.origin[index], self.cohort.rows[index].subject
            others = total[origin] - of_people[origin].get(subject, 0.0)
            found.append(level[[index, *positions]] - others / self._people[origin].others(subject))
        return np.stack(found)


def people_by_origin(cohort: Cohort) -> dict[Origin, People]:
    """Who may be a donor, by split and site."""
    found: dict[Origin, dict[str, list[int]]] = {}
    for position in cohort.unswapped():
        row = cohort.rows[position]
        for site in (row.site, None):
            found.setdefault((row.split, site), {}).setdefault(row.subject, []).append(position)
    return {origin: People(of_subjects) for origin, of_subjects in found.items()}


def donor_origin(people: dict[Origin, People], row: Row, count: int) -> Origin:
    """Where the donors of a record are drawn from: the first in `ORDER` that has enough people other than the subject
    or, if none has, the one with most."""
    origins = [(split, row.site if same_site else None) for split, same_site in ORDER]
    others = {origin: people[origin].others(row.subject) for origin in origins if origin in people}
    enough = [origin for origin in others if others[origin] >= PEOPLE_PER_DONOR * count]
    return enough[0] if enough else max(others, key=lambda origin: others[origin])


def expected_means(cohort: Cohort, means: np.ndarray) -> np.ndarray:
    """Predicts each region's mean from the record's other regions, (records of the cohort, regions, maps) float64.

    The prediction is fitted on the training records, or on all if there are none; the records that it is fitted on are
    predicted from other people's. Each region has the penalty that predicts it best.
    """
    from sklearn.model_selection import GroupKFold

    usable = cohort.unswapped()
    fitting = np.array([at for at in usable if cohort.rows[at].split == "train"] or usable)
    subject = [cohort.rows[position].subject for position in fitting]
    found = predict_regions(means[fitting], means)
    for rest, held_out in GroupKFold(min(INNER_FOLDS, len(set(subject)))).split(fitting, groups=subject):
        found[:, fitting[held_out]] = predict_regions(means[fitting[rest]], means[fitting[held_out]])
    error = np.square(found[:, fitting] - means[fitting]).sum((1, 3))
    return np.take_along_axis(found, error.argmin(0)[None, None, :, None], axis=0)[0]


def predict_regions(training: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Ridge regressions of each region's maps on the maps of all other regions, (n, regions, maps) each, fitted on
    `training` and standardised there -> predictions (penalties, n, regions, maps) of `means`.

    The inverse of the correlations plus a penalty holds the regressions of all regions at once: the weights for region
    r are -P[others, r] P[r, r]^-1, where P is that inverse.
    """
    _, regions, maps = training.shape
    size = regions * maps
    values, new = (array.reshape(len(array), size) for array in (training, means))
    centre, spread = values.mean(0), values.std(0)
    spread[spread == 0] = 1
    values, new = (values - centre) / spread, (new - centre) / spread
    every, found = np.arange(regions), []
    for penalty in PENALTIES:
        precision = np.linalg.inv(values.T @ values / len(values) + penalty * np.eye(size))
        own = precision.reshape(regions, maps, regions, maps)[every, :, every]
        weights = -np.einsum("ira,rab->irb", precision.reshape(size, regions, maps), np.linalg.inv(own))
        weights.reshape(regions, maps, regions, maps)[every, :, every] = 0
        found.append(new @ weights.reshape(size, size) * spread + centre)
    return np.stack(found).reshape(len(PENALTIES), *means.shape)
