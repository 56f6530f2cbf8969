"""The exception for bad input; both command lines print it as one line on stderr and exit with status 2. Long lists."""

from collections.abc import Sequence

LISTED = 10  # names in a line


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two, on one line whatever the input holds."""

    def __init__(self, text: str):
        super().__init__(" ".join(text.splitlines()))


def listed(names: Sequence[str], most: int = LISTED, between: str = ", ") -> str:
    """The first names, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
