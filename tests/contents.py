"""A file -> the lines of text that two equal runs share: all that it holds but times, speeds, commits and places.

A binary file, which holds none of these, becomes its digest.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable

# Of JSON and CSV: what says when and how fast something was, of which commit, or is a digest of what does
VOLATILE = {
    *("started", "wall_time_s", "samples_per_s", "when"),
    *("git_commit", "processor", "packages"),
}
DIGESTS = {"outputs_sha256"}  # by the name of each output
MASKS = {
    r"\b[0-9a-f]{40}(-dirty)?\b": "<commit>",
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?( ?[+-]\d{4})?)?": "<time>",
    r"\b\d{8}T\d{6}\b": "<time>",
    r"[\d.,]+ (?=s\b|ms\b|min\b|h\b|samples/s|seconds|minutes|MB/s)": "<number> ",
    r"\b\d+:\d\d(:\d\d)?\b": "<time>",
    r"events\.out\.tfevents[\w.-]+": "<events>",  # TensorBoard's, whose names are times
}
VIEWER = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")  # names that nilearn draws for the parts of its viewer


def masked(text: str) -> str:
    """The text without times, speeds and commits."""
    for pattern, name in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


def settled(value: object, name: str = "") -> object:
    """What JSON holds under this name, in its order, without what is volatile."""
    if name in VOLATILE:
        return "<volatile>"
    if name == "outputs":  # patterns, of which the order says nothing
        return sorted(value) if isinstance(value, list) else value
    if isinstance(value, dict):
        return [*value] if name in DIGESTS else {key: settled(of, key) for key, of in value.items()}
    return [settled(of) for of in value] if isinstance(value, list) else value


def of_json(content: bytes) -> list[str]:
    return json.dumps(settled(json.loads(content)), indent=1, ensure_ascii=False).splitlines()


def of_verdict(content: bytes) -> list[str]:
    """The verdict of a check without the cohort's identity, which follows from times, too."""
    return of_json(json.dumps(json.loads(content) | {"cohort_sha256": ""}).encode())


def of_csv(content: bytes) -> list[str]:
    """The rows, those of runs in the order of their text, for folds that are done side by side end in any order."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    volatile = [name in VOLATILE for name in (rows or [[]])[0]]
    if not any(volatile):
        return content.decode().splitlines()
    kept = [[cell for cell, drop in zip(row, volatile, strict=False) if not drop] for row in rows]
    lines = [repr(rows[0]), *map(repr, kept[1:])]
    return sorted(lines) if "when" in rows[0] else lines


def of_html(content: bytes) -> list[str]:
    return re.sub(r"><", ">\n<", VIEWER.sub("<name>", content.decode())).splitlines()


def of_sums(content: bytes) -> list[str]:
    """The names of parts; that of a part follows from its content, which is compared, too."""
    return [line.split(maxsplit=1)[-1] for line in content.decode().splitlines()]


def of_text(content: bytes) -> list[str]:
    return content.decode().splitlines()


FORMS: dict[str, Callable[[bytes], list[str]]] = {  # the first whose pattern is found in a name
    r"SHA256SUMS$": of_sums,
    r"check\.json$": of_verdict,
    r"\.json$": of_json,
    r"\.csv$": of_csv,
    r"\.html$": of_html,
    r"\.(txt|md|log|tsv|1D)$": of_text,
}


def lines_of(name: str, content: bytes) -> list[str]:
    """The lines of a file of this name; of a kind that is not known, its digest."""
    form = next((form for pattern, form in FORMS.items() if re.search(pattern, name)), None)
    return form(content) if form else [hashlib.sha256(content).hexdigest()]
