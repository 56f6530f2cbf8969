"""What the two front ends, run.py and python -m data, share: options, their types, and every mistake as one line."""

import argparse
import dataclasses
import errno
import sys
from collections.abc import Callable
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

from data.base.errors import InputError
from data.base.signals import ignore_interrupts

MAX_SEED = 2**32 - 1
MAY_BE_EMPTY = ("--phenotype", "--covariates")
Options = TypeVar("Options")


class Parser(argparse.ArgumentParser):
    """Argument errors are one line, without the usage; an empty value is an error."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses an empty argument, which is what is left of a shell variable that is not set."""
        if sys.platform == "win32":
            print(f"{self.prog}: Windows is not supported, and nothing was tried on it; use WSL.", file=sys.stderr)
        for before, word in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
            if not value.strip() and (equals or not word) and option not in MAY_BE_EMPTY:
                self.error(f"{option or 'an argument'} has nothing as its value; give one, or leave it out.")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Answers an unknown option with the nearest one."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if options := [word.partition("=")[0] for word in unknown if word.startswith("-")]:
            near = get_close_matches(options[0], self._option_string_actions, 1)
            advice = f"did you mean {near[0]}?" if near else "see --help."
            self.error(f"unrecognized arguments: {' '.join(unknown)}; {advice}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def option(default: Any, help: str, **how: Any) -> Any:
    """A field of a frozen dataclass that is an option of the command line; `how` is as for `add_argument`."""
    return dataclasses.field(default=default, metadata={"help": help, **how})


def flag_of(name: str) -> str:
    """`num_iters` -> `numIters`."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def flags(kind: type) -> list[str]:
    """The options of a dataclass, without the dashes."""
    return [flag_of(field.name) for field in dataclasses.fields(kind)]


def add_options(parser: argparse.ArgumentParser, kind: type, title: str = "") -> None:
    """Adds an option for each field of a dataclass, see `option`, in a group if that has a title."""
    group = parser.add_argument_group(title) if title and dataclasses.fields(kind) else parser
    for field in dataclasses.fields(kind):
        group.add_argument(f"--{flag_of(field.name)}", default=field.default, **field.metadata)


def options_of(args: argparse.Namespace, kind: type[Options]) -> Options:
    """The dataclass with what the user said."""
    return kind(**{field.name: getattr(args, flag_of(field.name)) for field in dataclasses.fields(kind)})  # type: ignore


def names(text: str) -> tuple[str, ...]:
    """`A,B` -> A, B."""
    return tuple(text.split(","))


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
        ignore_interrupts()  # the rest is closing files
        print(f"{program}: interrupted; repeat the command.", file=sys.stderr)
        return 130
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
