"""What the two front ends, run.py and python -m data, share: argument types, and every mistake as one line."""

import argparse
import errno
import signal
import sys
from collections.abc import Callable
from itertools import pairwise

from data.base.errors import InputError

MAX_SEED = 2**32 - 1


MAY_BE_EMPTY = ("--phenotype", "--covariates")


class Parser(argparse.ArgumentParser):
    """Argument errors are one line, without the usage; nothing in place of a value is an error."""

    def parse_args(self, args=None, namespace=None):
        """Refuses an empty argument, which is what is left of a shell variable that is not set."""
        for before, word in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
            if not value.strip() and (equals or not word) and option not in MAY_BE_EMPTY:
                self.error(f"{option or 'an argument'} has nothing as its value; give one, or leave it out.")
        return super().parse_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number from 0 to {MAX_SEED}")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a share from 0 to 0.5, such as 0.1")
    return value


def hear_no_more() -> None:
    """Ignores Ctrl-C from here on; one in that very moment is held back, for Python would print a complaint."""
    held = hasattr(signal, "pthread_sigmask")  # not on Windows
    if held:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def guarded(program: str, work: Callable[[], int]) -> int:
    """The exit status of `work`; 2 after one line on stderr for bad input or a failing disk, 130 after Ctrl-C."""
    try:
        return work()
    except InputError as error:
        message = str(error)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = " Free space and repeat the command." if full else ""
        message = f"{error.filename or 'input or output'}: {error.strerror or error}.{advice}"
    except MemoryError:
        message = "The memory is full; close other programs or use a machine with more."
    except KeyboardInterrupt:
        hear_no_more()  # once is enough: the rest is closing files
        print(f"{program}: interrupted; repeat the command.", file=sys.stderr)
        return 130
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
