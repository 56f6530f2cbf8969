"""The one exception that outside input raises; every front end turns it into one line on stderr and exit status 2."""


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two without a line break."""
