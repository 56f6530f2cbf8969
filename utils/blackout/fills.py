"""What takes a region's place in a blackout: the background, another person's region, or that at the expected level.

`background`  The value of the record's voxels outside the brain.
`donor`       The region of another person, drawn without regard to the label. If the region's content has nothing to do
              with the label and with the rest of the brain, the person's own and the donor's can be exchanged.
`expected`    The donor's region moved so that its mean is what the person's other regions predict plus the donor's own
              residual: what the rest of the brain says of the region stays, what only the region says is exchanged
              (conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort, ahead, in_order
from data.cohorts.rows import Row

ENOUGH_TO_DIFFER = 2  # people to draw from, times the number of donors: else all would share the same donors
ORDER = (("train", True), ("test", True), ("train", False), ("test", False))  # split, and whether of the same site
Group = tuple[str, str | None]  # split and site; None: any site
INNER_FOLDS = 5  # so that no one's region is predicted from a fit that has seen it
PENALTIES = np.logspace(-3, 1, 9)  # of squared weights, per record
CHUNK = 16  # records read at once


@dataclass(frozen=True)
class Filled:
    """A batch of records with their fills: `batch` as of `Cohort.batch`, `background` (n, 1, 1, 1, maps), `donor` and
    `expected` (donors, n, x, y, z, maps), float32. `replaced` (maps,) bool says which maps of a region they replace."""

    batch: dict[str, np.ndarray]
    background: np.ndarray
    donor: np.ndarray
    expected: np.ndarray
    replaced: np.ndarray

    def within(self, volume: np.ndarray, fill: np.ndarray) -> np.ndarray:
        """A fill that leaves a volume's other maps as they are."""
        return fill if self.replaced.all() else np.where(self.replaced, fill, volume)


class Fills:
    """Fills for records of a cohort, the same for a record whatever other records are blacked out; `replaced` (maps,)
    bool says in which maps, by default all.

    `donors` are the records (count,) by whose regions those of a record are replaced, by position in the cohort.
    `means` and `expected` (records of the cohort, regions, maps) are the regions' means and what of them the other
    regions predict. `origins` counts subjects by the group (split, site or None for any) that their donors come from.
    """

    def __init__(
        self,
        cohort: Cohort,
        atlas: Atlas,
        indices: np.ndarray,
        count: int,
        seed: int,
        replaced: np.ndarray | None = None,
    ):
        self.cohort = cohort
        self._region_at = atlas.places(atlas.labels)
        self._replaced = np.ones(cohort.num_maps, bool) if replaced is None else replaced
        chunks = in_order(np.arange(len(cohort.rows)), CHUNK)
        self.means = np.concatenate([atlas.means(batch["volume"]) for batch in ahead(cohort.batch, chunks)])
        self.expected = expected_means(cohort, self.means)
        self._people = people_of(cohort)
        rows = {int(index): cohort.rows[index] for index in indices}
        self._group = {index: group_for(self._people, row, count) for index, row in rows.items()}
        self.count = min(count, *(others(self._people, self._group[index], row) for index, row in rows.items()))
        names = {group: np.array(sorted(self._people[group])) for group in set(self._group.values())}
        self.donors = {
            index: draw(self._people[group], names[group], rows[index].subject, self.count, [seed, index])
            for index, group in self._group.items()
        }
        self.origins = Counter({rows[index].subject: group for index, group in self._group.items()}.values())

    def of(self, indices: np.ndarray) -> Filled:
        """The batch of these records, with what may take the place of their regions."""
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
        return Filled(batch, background, donor, expected, self._replaced)

    def deviations(self, level: np.ndarray) -> np.ndarray:
        """How far the regions of each record and of its donors are from the mean of all people whom these were drawn
        from, (records, 1 + donors, regions, replaced maps). `level` is `means`, or `means - expected`."""
        level, found = level[..., self._replaced], []
        of_people = {
            group: {name: level[own].mean(0) for name, own in self._people[group].items()}
            for group in set(self._group.values())
        }
        total = {group: sum(values.values()) for group, values in of_people.items()}
        for index, positions in self.donors.items():
            values, subject = of_people[self._group[index]], self.cohort.rows[index].subject
            others = total[self._group[index]] - values.get(subject, 0.0)
            found.append(level[[index, *positions]] - others / (len(values) - (subject in values)))
        return np.stack(found)


def people_of(cohort: Cohort) -> dict[Group, dict[str, list[int]]]:
    """Group -> subject -> records."""
    found: dict[Group, dict[str, list[int]]] = {}
    for position in cohort.unswapped():
        row = cohort.rows[position]
        for site in (row.site, None):
            found.setdefault((row.split, site), {}).setdefault(row.subject, []).append(position)
    return found


def group_for(people: dict[Group, dict[str, list[int]]], row: Row, count: int) -> Group:
    """Where the donors of a record are drawn from: the first of `ORDER` that has enough people other than the subject
    or, if none has, the one with most."""
    groups = [(split, row.site if same_site else None) for split, same_site in ORDER]
    enough = [group for group in groups if others(people, group, row) >= ENOUGH_TO_DIFFER * count]
    return enough[0] if enough else max(groups, key=lambda group: others(people, group, row))


def others(people: dict[Group, dict[str, list[int]]], group: Group, row: Row) -> int:
    """How many people of a group are other than the subject of a record."""
    of_group = people.get(group, {})
    return len(of_group) - (row.subject in of_group)


def draw(people: dict[str, list[int]], names: np.ndarray, subject: str, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` records (count,) of different people, none the `subject`, whatever their labels; `names` are all people,
    sorted."""
    random = np.random.default_rng(seed)
    chosen = random.choice(names[names != subject], count, replace=False)
    return np.array([random.choice(people[name]) for name in chosen])


def expected_means(cohort: Cohort, means: np.ndarray) -> np.ndarray:
    """What each record's other regions predict of each region's mean, (records of the cohort, regions, maps) float64.

    The prediction is fitted on the training records, or on all if there are none; for those it is fitted on, on the
    records of other people. Each region has the penalty that predicts it best.
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
