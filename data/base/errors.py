"""The one exception that outside input raises; every front end turns it into one line on stderr and exit status 2."""


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two, on one line whatever the input holds."""

    def __init__(self, text: str):
        super().__init__(" ".join(text.splitlines()))
