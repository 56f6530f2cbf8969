"""Reading ahead in other threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

READ_AHEAD = 2  # batches


def ahead(read: Callable[[Any], Any], arguments: Iterable) -> Iterator[Any]:
    """`map(read, arguments)`, a few results ahead, each in another thread."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for argument in arguments:
            waiting.append(pool.submit(read, argument))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
