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
from data.base.errors import InputError, parse_natural_number, quote_text
from data.base.files import DISK_FULL_ERRNOS, FILE_TOO_LARGE_ADVICE
from data.base.processes import INTERRUPTED, INTERRUPTED_STATUS
from data.base.terminal import flush_or_discard_output, format_interrupted_line

MAX_SEED = 2**32 - 1
MAX_COUNT = 10**12  # of batches and the like; far below what int64 holds
BROKEN_PIPE_STATUS = 141  # the exit status of a tool whose reader, such as `head`, has gone
MAY_BE_EMPTY_FLAGS = ("--phenotype", "--covariates", "--siteColumn", "--missing")
OptionsType = TypeVar("OptionsType")


class Parser(argparse.ArgumentParser):
    """Argument errors are one line, without the usage; an empty value is an error. The help ends with
    `example_arguments_by_purpose`: what each is for, and the words after the program's name."""

    def __init__(self, *, example_arguments_by_purpose: Mapping[str, str] | None = None, **argparse_arguments: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **argparse_arguments)
        self.example_arguments_by_purpose = example_arguments_by_purpose or {}
        example_lines = [
            f"  {self.prog} {command_arguments}\n      {purpose}"
            for purpose, command_arguments in self.example_arguments_by_purpose.items()
        ]
        self.epilog = "\n".join(["examples:", *example_lines]) if example_lines else None
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses an empty argument, as a shell variable that is not set leaves it."""
        for previous_word, word in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            flag, equals_sign, flag_value = word.partition("=") if word.startswith("--") else (previous_word, "", word)
            flag = flag if flag.startswith("--") else ""
            if not flag_value.strip() and (equals_sign or not word) and flag not in MAY_BE_EMPTY_FLAGS:
                self.error(f"{flag or 'an argument'} has nothing as its value; give one, or leave it out.")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Answers an unknown option with the nearest one."""
        parsed, unknown_words = super().parse_known_args(args, namespace)
        if unknown_flags := [word.partition("=")[0] for word in unknown_words if word.startswith("-")]:
            similar_flags = get_close_matches(unknown_flags[0], self._option_string_actions, 1)
            advice = f"did you mean {similar_flags[0]}?" if similar_flags else "see --help."
            self.error(f"unrecognized arguments: {' '.join(unknown_words)}; {advice}")
        return parsed, unknown_words

    def error(self, message: str) -> NoReturn:
        self.exit(2, format_error_line(self.prog, message) + "\n")


def option(default: Any, help: str, **add_argument_options_and_group: Any) -> Any:
    """A field of a frozen dataclass that is an option of the command line; `add_argument_options_and_group` is as for
    `add_argument`, and may name the `group` of the help."""
    return dataclasses.field(default=default, metadata={"help": help, **add_argument_options_and_group})


def format_flag(field_name: str) -> str:
    """`num_iters` -> `numIters`."""
    first_word, *later_words = field_name.split("_")
    return first_word + "".join(word[0].upper() + word[1:] for word in later_words)


def find_option_fields(options_class: type) -> list[dataclasses.Field]:
    """The fields of a dataclass that are options."""
    return [field for field in dataclasses.fields(options_class) if field.metadata]


def list_flags(options_class: type) -> list[str]:
    """The options of a dataclass, without the dashes."""
    return [format_flag(field.name) for field in find_option_fields(options_class)]


def add_options(
    parser: argparse.ArgumentParser,
    options_class: type,
    group_title: str = "",
    excluded_flag_names: Collection[str] = (),
) -> None:
    """Adds an option for each field of a dataclass (see `option`) that the parser does not have yet, except
    `excluded_flag_names`; in the group that the field names, or in that of `group_title`, if there is one."""
    skipped_flags = {*parser._option_string_actions, *(f"--{name}" for name in excluded_flag_names)}
    group_by_title = {group.title: group for group in parser._action_groups}
    for field in find_option_fields(options_class):
        flag = f"--{format_flag(field.name)}"
        if flag in skipped_flags:
            continue
        field_group_title = field.metadata.get("group", group_title)
        if field_group_title and field_group_title not in group_by_title:
            group_by_title[field_group_title] = parser.add_argument_group(field_group_title)
        argument_group = group_by_title.get(field_group_title, parser)
        add_argument_options = {key: value for key, value in field.metadata.items() if key != "group"}
        argument_group.add_argument(flag, default=field.default, **add_argument_options)


def make_options(args: argparse.Namespace, options_class: type[OptionsType], **extra_fields: Any) -> OptionsType:
    """The dataclass with what the user said, and `extra_fields`; options that the parser lacks have their defaults."""
    value_by_field = {
        field.name: getattr(args, format_flag(field.name), field.default) for field in find_option_fields(options_class)
    }
    return options_class(**value_by_field, **extra_fields)  # type: ignore


def parse_names(comma_separated_names: str) -> tuple[str, ...]:
    """`A,B` -> A, B."""
    return tuple(comma_separated_names.split(","))


def make_int_parser(smallest: int, largest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number within bounds."""

    def parse_int(number_text: str) -> int:
        number = parse_natural_number(number_text)
        if number is None or not smallest <= number <= largest:
            expectation = f"expected a whole number from {smallest} to {largest}"
            raise argparse.ArgumentTypeError(f"{quote_text(number_text)} is not allowed; {expectation}")
        return number

    return parse_int


parse_positive_int = make_int_parser(1, MAX_COUNT)
parse_seed_option = make_int_parser(0, MAX_SEED)


def run_guarded(program_name: str, execute: Callable[[], int]) -> int:
    """The exit status of `execute`; 2 after one line on stderr for bad input or a failing disk, 130 after Ctrl-C, 141
    if nobody reads what it prints. Standard output and error show by escapes what they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return run_reporting_errors(program_name, execute)
    finally:
        flush_or_discard_output()


def run_reporting_errors(program_name: str, execute: Callable[[], int]) -> int:
    """As `run_guarded`, but with the streams as they are."""
    try:
        exit_status = run_to_exit_status(execute)
        print(end="", flush=True)
        return exit_status
    except BrokenPipeError:
        return BROKEN_PIPE_STATUS
    except (Exception, KeyboardInterrupt) as error:
        if INTERRUPTED.is_set() or isinstance(error, KeyboardInterrupt):  # libraries turn it into other errors
            exit_status = INTERRUPTED_STATUS
            error_text = format_interrupted_line(program_name)
        elif isinstance(error, (InputError, OSError, MemoryError)):
            exit_status = 2
            error_text = format_error_line(program_name, format_error(error))
        else:
            raise
    with suppress(OSError):  # a full disk, if stderr is written there, too
        print(error_text, file=sys.stderr)
    return exit_status


def run_to_exit_status(execute: Callable[[], int]) -> int:
    """What `execute` returns; or the status with which it ends the process, as --help does."""
    try:
        return execute()
    except SystemExit as system_exit:
        return int(system_exit.code or 0)


def format_error(error: Exception) -> str:
    """What a user can do about an error of the input, the disk or the memory."""
    if isinstance(error, OSError):
        advice = " Free space and repeat the command." if error.errno in DISK_FULL_ERRNOS else ""
        advice = f" {FILE_TOO_LARGE_ADVICE}" if error.errno == errno.EFBIG else advice
        file_name = error.filename2 or error.filename or "input or output"  # of a copy, the file that is written
        return f"{file_name}: {error.strerror or error}.{advice}"
    if isinstance(error, MemoryError):
        return "The memory is full; close other programs or use a machine with more."
    return str(error)


def format_error_line(program_name: str, message: str) -> str:
    return f"{program_name}: error: {' '.join(message.split())}"
