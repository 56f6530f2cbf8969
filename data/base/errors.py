"""The exception for bad input; both command lines print it as one line on stderr and exit with status 2."""


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two, on one line whatever the input holds."""

    def __init__(self, text: str):
        super().__init__(" ".join(text.splitlines()))
