"""What the two front ends, run.py and abide-data, share: options, their types, and every mistake as one line."""

import argparse
import dataclasses
import errno
import io
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

from data import __version__
from data.base.errors import InputError, shown, whole_number
from data.base.files import DISK_FULL, TOO_LARGE
from data.base.processes import INTERRUPTED, INTERRUPTED_STATUS
from data.base.terminal import flush_or_discard, interrupted_line

MAX_SEED = 2**32 - 1
MAX_COUNT = 10**12  # of batches and the like; far below what int64 holds
UNREAD = 141  # the exit status of a tool whose reader, such as `head`, has gone
MAY_BE_EMPTY = ("--phenotype", "--covariates", "--siteColumn", "--missing")
Options = TypeVar("Options")


class Parser(argparse.ArgumentParser):
    """Argument errors are one line, without the usage; an empty value is an error. The help ends with `examples`: what
    each is for, and the words after the program's name."""

    def __init__(self, *, examples: Mapping[str, str] | None = None, **how: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **how)
        self.examples = examples or {}
        told = [f"  {self.prog} {words}\n      {purpose}" for purpose, words in self.examples.items()]
        self.epilog = "\n".join(["examples:", *told]) if told else None
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses an empty argument, as a shell variable that is not set leaves it."""
        for before, word in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
            option = option if option.startswith("--") else ""
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
        self.exit(2, error_line(self.prog, message) + "\n")


def option(default: Any, help: str, **how: Any) -> Any:
    """A field of a frozen dataclass that is an option of the command line; `how` is as for `add_argument`, and may name
    the `group` of the help."""
    return dataclasses.field(default=default, metadata={"help": help, **how})


def flag_of(name: str) -> str:
    """`num_iters` -> `numIters`."""
    first, *others = name.split("_")
    return first + "".join(word[0].upper() + word[1:] for word in others)


def options_in(kind: type) -> list[dataclasses.Field]:
    """The fields of a dataclass that are options."""
    return [field for field in dataclasses.fields(kind) if field.metadata]


def flags(kind: type) -> list[str]:
    """The options of a dataclass, without the dashes."""
    return [flag_of(field.name) for field in options_in(kind)]


def add_options(parser: argparse.ArgumentParser, kind: type, title: str = "", without: Collection[str] = ()) -> None:
    """Adds an option for each field of a dataclass, see `option`, that the parser does not have yet, `without` those of
    these names; in a group if that has a title."""
    known = {*parser._option_string_actions, *(f"--{name}" for name in without)}
    groups = {group.title: group for group in parser._action_groups}
    for field in (one for one in options_in(kind) if f"--{flag_of(one.name)}" not in known):
        how = dict(field.metadata)
        name = how.pop("group", title)
        if name and name not in groups:
            groups[name] = parser.add_argument_group(name)
        groups.get(name, parser).add_argument(f"--{flag_of(field.name)}", default=field.default, **how)


def options_of(args: argparse.Namespace, kind: type[Options], **more: Any) -> Options:
    """The dataclass with what the user said, and `more`; its defaults for options that the parser is without."""
    told = {field.name: getattr(args, flag_of(field.name), field.default) for field in options_in(kind)}
    return kind(**told, **more)  # type: ignore


def names(text: str) -> tuple[str, ...]:
    """`A,B` -> A, B."""
    return tuple(text.split(","))


def whole(smallest: int, largest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number within bounds."""

    def parse(text: str) -> int:
        number = whole_number(text)
        if number is None or not smallest <= number <= largest:
            wanted = f"expected a whole number from {smallest} to {largest}"
            raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; {wanted}")
        return number

    return parse


positive, seed = whole(1, MAX_COUNT), whole(0, MAX_SEED)


def guarded(program: str, work: Callable[[], int]) -> int:
    """The exit status of `work`; 2 after one line on stderr for bad input or a failing disk, 130 after Ctrl-C, 141 if
    nobody reads what it prints. Standard output and error show by escapes what they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return answered(program, work)
    finally:
        flush_or_discard()


def answered(program: str, work: Callable[[], int]) -> int:
    """`guarded`, with the streams as they are."""
    try:
        status = status_of(work)
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        return UNREAD
    except (Exception, KeyboardInterrupt) as error:
        if INTERRUPTED.is_set() or isinstance(error, KeyboardInterrupt):  # of which libraries make other errors
            status, told = INTERRUPTED_STATUS, interrupted_line(program)
        elif isinstance(error, (InputError, OSError, MemoryError)):
            status, told = 2, error_line(program, message_of(error))
        else:
            raise
    with suppress(OSError):  # of a full disk, to which the errors are written, too
        print(told, file=sys.stderr)
    return status


def status_of(work: Callable[[], int]) -> int:
    """What `work` returns; or the status with which it ends the process, as --help does."""
    try:
        return work()
    except SystemExit as ended:
        return int(ended.code or 0)


def message_of(error: Exception) -> str:
    """What a user can do about an error of the input, the disk or the memory."""
    if isinstance(error, OSError):
        advice = " Free space and repeat the command." if error.errno in DISK_FULL else ""
        advice = f" {TOO_LARGE}" if error.errno == errno.EFBIG else advice
        name = error.filename2 or error.filename or "input or output"  # of a copy, what is written
        return f"{name}: {error.strerror or error}.{advice}"
    if isinstance(error, MemoryError):
        return "The memory is full; close other programs or use a machine with more."
    return str(error)


def error_line(program: str, message: str) -> str:
    return f"{program}: error: {' '.join(message.split())}"
