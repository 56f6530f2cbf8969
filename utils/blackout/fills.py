"""What takes a region's place in a blackout: the background, another person's region, or that at the expected level.

`background`  The value of the record's voxels outside the brain.
`donor`       The region of another person, drawn without regard to the label. If the region's content has nothing to do
              with the label and with the rest of the brain, the person's own and the donor's can be exchanged.
`expected`    The donor's region moved so that its mean is what the person's other regions predict plus the donor's own
              residual: what the rest of the brain says of the region stays, what only the region says is exchanged
              (conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import records
from data.atlas import Atlas
from data.cohort import Cohort, Row
from utils.batches import ahead, in_order

ENOUGH = 2  # people of a site, times the number of donors, so that its people do not all share the same donors
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

    `donors` are the records (count,) by whose regions those of a record are replaced, by position in the cohort;
    `expected` as of `expected_means`; `elsewhere` counts the subjects whose site has too few people.
    """

    def __init__(
        self,
        cohort: Cohort,
        atlas: Atlas,
        indices: np.ndarray,
        donors: int,
        seed: int,
        replaced: np.ndarray | None = None,
    ):
        self.cohort = cohort
        self._replaced = np.ones(cohort.num_maps, bool) if replaced is None else replaced
        regions = np.array(atlas.regions)
        at = np.minimum(np.searchsorted(regions, atlas.labels), len(regions) - 1)
        self._region_at = np.where(regions[at] == atlas.labels, at, len(regions))  # that beyond the last: no region
        people = people_of(cohort)
        drawn = {int(index): draw(people, cohort.rows[index], donors, [seed, int(index)]) for index in indices}
        self.elsewhere = len({cohort.rows[index].subject for index, (_, same_site) in drawn.items() if not same_site})
        self.donors = {index: positions for index, (positions, _) in drawn.items()}
        self.count = min(len(positions) for positions in self.donors.values())
        self.expected = expected_means(cohort, atlas)

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


def pool(cohort: Cohort) -> np.ndarray:
    """The records that donors are drawn from: the training records or, of a cohort without any, all."""
    if cohort.subjects("train"):
        return cohort.indices("train")
    return np.arange(len(cohort.rows))


def people_of(cohort: Cohort) -> dict[str, dict[str, list[int]]]:
    """Site -> subject -> records, of those that donors are drawn from."""
    sites: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position in pool(cohort):
        row = cohort.rows[position]
        sites[row.site][row.subject].append(int(position))
    return sites


def draw(people: dict, row: Row, count: int, seed: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Up to `count` records (count,) of different people, none the subject of `row`, whatever their labels.

    They are of the same site, or, the second value being False, of any if that has fewer than `ENOUGH * count` others.
    """
    near = {name: found for name, found in people.get(row.site, {}).items() if name != row.subject}
    same_site = len(near) >= ENOUGH * count
    if not same_site:
        near = {name: found for site in people.values() for name, found in site.items() if name != row.subject}
    random = np.random.default_rng(seed)
    names = random.choice(sorted(near), min(count, len(near)), replace=False)
    return np.array([random.choice(near[name]) for name in names]), same_site


def expected_means(cohort: Cohort, atlas: Atlas) -> np.ndarray:
    """What each record's other regions predict of each region's mean, (records of the cohort, regions, maps) float64.

    The prediction is fitted on the records that donors are drawn from; for one of them, on those of other people. Each
    region has the penalty that predicts it best.
    """
    from sklearn.model_selection import GroupKFold

    chunks = in_order(np.arange(len(cohort.rows)), CHUNK)
    means = np.concatenate([atlas.means(batch["volume"]) for batch in ahead(cohort.batch, chunks)])
    fitting = pool(cohort)
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
