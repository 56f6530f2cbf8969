"""The error that a user reads on one line; which text a terminal, a table and a JSON file can hold."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

# Controls, line ends, and what is not Unicode, as in a file name that is not UTF-8
NOT_PLAIN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MAX_TEXT = 100_000  # characters of one value; the csv module reads no more than 131,072
PLAIN = f"expected one line of UTF-8 text without control characters, of at most {MAX_TEXT:,} characters"
SHOWN = 200  # characters of a refused text


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two, on one line whatever the input holds."""

    def __init__(self, text: str):
        super().__init__(" ".join(text.splitlines()))


def composed(text: str) -> str:
    """The text with each accent in one character with its letter (Unicode's NFC), as most programs write it. A Mac
    stores them apart in names of files, so that one name has two spellings."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_plain(text: str) -> bool:
    return len(text) <= MAX_TEXT and not NOT_PLAIN.search(text)


def whole_number(text: str) -> int | None:
    """`text` as a number if it is one of at most 19 digits, 0 to 9; `int` accepts other scripts and refuses 5,000."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def shown(text: str) -> str:
    """The beginning of a text in quotes, with escapes in place of what is not plain."""
    return f"{text[:SHOWN]!r}" + " ..." * (len(text) > SHOWN)


def taken_for_one(names: Iterable[str], compared: Callable[[str], str] = str) -> list[str]:
    """The names that stand there several times, or that some file systems take for one: they differ in capitals or the
    encoding of accents only. Each group has all its spellings. What is `compared` of a name may be a part of it."""
    groups: dict[str, Counter[str]] = {}
    for name in names:
        groups.setdefault(composed(compared(name).casefold()), Counter())[name] += 1
    return [
        " and ".join(shown(name) + (f" ({times} times)" if times > 1 else "") for name, times in group.items())
        for group in groups.values()
        if group.total() > 1
    ]
