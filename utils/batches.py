"""Which records a batch holds, and batches read ahead while the model works."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from data.cohorts.cohort import Cohort
from models import Model

READ_AHEAD = 2


def batch_positions(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """Positions (batch_size,) in 0..count-1 of batch `step` (0, 1, ...): a pure function of its arguments.

    The stream of batches runs through one seeded permutation after another, so every record is seen once an epoch.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    epochs = {at // count for at in places}
    orders = {epoch: np.random.default_rng((seed, epoch)).permutation(count) for epoch in epochs}
    return np.array([orders[place // count][place % count] for place in places])


def read_batches(cohort: Cohort, model: Model, selections: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The batches (see Cohort.batch) of each selection of records, read in other threads.

    For a model that reads maps one by one, `volume` is (n * maps, x, y, z, 1), the maps of the first record first.
    """
    volumes = "volume" in model.reads

    def read(selection: np.ndarray) -> dict[str, np.ndarray]:
        batch = cohort.batch(selection, volumes)
        if volumes and model.map_by_map:
            batch["volume"] = np.moveaxis(batch["volume"], -1, 1).reshape(-1, *cohort.grid.shape, 1)
        return batch

    return ahead(read, selections)


def ahead(read: Callable, arguments: Iterable) -> Iterator:
    """`map(read, arguments)`, a few results ahead, each in another thread."""
    arguments = iter(arguments)
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        waiting = deque(pool.submit(read, argument) for argument in islice(arguments, READ_AHEAD))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, argument) for argument in islice(arguments, 1))
            yield result


def in_order(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """`indices` cut into batches; the last may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
