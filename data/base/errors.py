"""The error that a user reads on one line; which text a terminal, a table and a JSON file can hold."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

# Controls, line ends, and what is not Unicode, as in a file name that is not UTF-8
FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MAX_TEXT_LENGTH = 100_000  # characters of one value; the csv module reads no more than 131,072
PLAIN_TEXT_EXPECTED = (
    f"expected one line of UTF-8 text without control characters, of at most {MAX_TEXT_LENGTH:,} characters"
)
MAX_QUOTED_LENGTH = 200  # characters of a refused text


class InputError(Exception):
    """What came, what was expected, and what to do, in one sentence or two, on one line whatever the input holds."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


def compose_accents(text: str) -> str:
    """The text with each accent in one character with its letter (Unicode's NFC), as most programs write it. A Mac
    stores them apart in names of files, so that one name has two spellings."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_plain_text(text: str) -> bool:
    return len(text) <= MAX_TEXT_LENGTH and not FORBIDDEN_CHARACTERS.search(text)


def parse_natural_number(text: str) -> int | None:
    """`text` as a number if it is one of at most 19 digits, 0 to 9; `int` accepts other scripts and refuses 5,000."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def quote_text(text: str) -> str:
    """The beginning of a text in quotes, with escapes in place of what is not plain."""
    return f"{text[:MAX_QUOTED_LENGTH]!r}" + " ..." * (len(text) > MAX_QUOTED_LENGTH)


def find_name_clashes(names: Iterable[str], comparison_key: Callable[[str], str] = str) -> list[str]:
    """The names that occur several times, or that some file systems take for one, since they differ only in capitals or
    in the encoding of accents. Each group has all its spellings. `comparison_key` may select the part of a name that is
    compared."""
    spelling_counts_by_key: dict[str, Counter[str]] = {}
    for name in names:
        folded_name = compose_accents(comparison_key(name).casefold())
        spelling_counts_by_key.setdefault(folded_name, Counter())[name] += 1

    clash_texts = []
    for spelling_counts in spelling_counts_by_key.values():
        if spelling_counts.total() > 1:
            spelling_texts = [
                quote_text(name) + (f" ({occurrences} times)" if occurrences > 1 else "")
                for name, occurrences in spelling_counts.items()
            ]
            clash_texts.append(" and ".join(spelling_texts))
    return clash_texts
