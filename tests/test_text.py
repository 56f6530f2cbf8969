"""Text and numbers from outside: what is written can be read, what is read is plain, and what is refused says so."""

import csv
import io
import math
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from data.base import errors, files, tables
from data.base.errors import InputError
from data.cohorts import phenotype
from data.cohorts.rows import Row, guess_row, read_table, write_table
from data.conversion import tables as conversion

ODD = "\x00\x07\x1b\x7f\x85\u2028\u202e\u2066\ud800\udcff\r\n\t"  # what no table may hold
LETTERS = st.text(st.characters(exclude_categories=()) | st.sampled_from(ODD + "\",;'\\ =\ufeff"), max_size=12)
few = settings(max_examples=40)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder for all examples of a property, where no other test looks."""
    return tmp_path_factory.mktemp("text")


@pytest.mark.parametrize("letter", ODD)
def test_what_steers_a_terminal_or_is_not_unicode_is_not_plain(letter):
    assert not errors.is_plain(f"a{letter}b")
    with pytest.raises(InputError, match=r"The site is 'a.*b'; expected one line .* without control") as caught:
        errors.check_plain(f"a{letter}b", "The site is")
    assert str(caught.value).isprintable()
    assert errors.escaped(letter).isprintable() or letter in "\n\t"


def test_names_of_all_languages_are_plain_and_long_ones_are_not():
    assert errors.is_plain("Universität, 東京 'Å\u0301' \U0001f9e0 \u200d")
    assert errors.is_plain("x" * errors.MAX_TEXT) and not errors.is_plain("x" * (errors.MAX_TEXT + 1))
    assert len(errors.shown("x" * 10**6)) < 300


@few
@given(LETTERS)
def test_escapes_leave_plain_text_alone(word):
    assert errors.escaped(word) == word or errors.NOT_PLAIN.search(word)
    assert not set(errors.NOT_PLAIN.findall(errors.escaped(word))) - set("\n\t")


@few
@given(LETTERS, LETTERS, LETTERS)
@example("x" * 200_000, "a", "b")
@example("a.bin", "\x1b[31m", "NYU")
def test_a_table_of_records_is_read_as_it_was_written_or_not_written(place, file, subject, site):
    path, row = place / "subjects.csv", Row(file, subject, site, 1.0, "train")
    path.unlink(missing_ok=True)
    try:
        write_table(path, [row])
    except InputError:
        assert not path.exists() and not all(map(errors.is_plain, (file, subject, site)))
    else:
        assert read_table(path) == [row]


@few
@given(LETTERS, LETTERS)
@example("a", "a\ud800")
@example("subject", "a")
def test_a_side_table_is_read_as_it_was_written_or_not_written(place, name, value):
    path = place / "covariates.csv"
    path.unlink(missing_ok=True)
    table = pd.DataFrame({name: [value]}, index=["7"], dtype=object)
    try:
        phenotype.check_columns(table)
        phenotype.write_by_subject(path, table)
    except InputError:
        assert not path.exists() and not (errors.is_plain(name) and errors.is_plain(value) and name != "subject")
    else:
        read = phenotype.read_by_subject(path, ["7"])
        assert (read.columns.tolist(), read.iloc[0, 0]) == ([name], value)


@few
@given(LETTERS)
@example("a\\n.bin")
@example(" *a")
def test_the_name_of_a_sum_is_read_as_it_was_written_or_not_written(place, name):
    assume("/" not in name and name)
    folder = place
    (folder / files.SUMS).unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sum_of", lambda path: "0" * 64)
        try:
            files.write_sums(folder, [name])
        except InputError:
            assert not errors.is_plain(name)
        else:
            assert files.read_sums(folder) == {name: "0" * 64}


@few
@given(st.recursive(LETTERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3)))
def test_json_is_read_as_it_was_written_or_not_written(place, content):
    path = place / "content.json"
    path.unlink(missing_ok=True)
    try:
        files.write_json(path, {"content": content})
    except InputError as error:
        assert "is not Unicode" in str(error) and not path.exists()
    else:
        assert files.read_json(path, dict) == {"content": content}


@few
@given(st.lists(st.lists(LETTERS, min_size=1, max_size=3), min_size=1, max_size=4), st.sampled_from(",;\t"))
def test_a_table_of_a_user_is_plain_or_refused_by_its_line(place, rows, delimiter):
    path, written = place / "table.csv", io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter).writerows(rows)
    path.write_bytes(written.getvalue().encode("utf-8", "surrogatepass"))
    try:
        table = conversion.read_table(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(map(errors.is_plain, [*table.columns, *table.to_numpy().ravel()]))


@pytest.mark.parametrize(
    "content, words",
    [
        ("id,site\n1,A\n2,B,C\n", r"line 3 has 3 values, the header names 2 columns"),
        ('id,site\n1,"A\nB"\n\n2,\x1b[31m\n', r"line 5 holds '\\x1b\[31m' in the column 'site'; expected one line"),
        ("sep=;\nid;site\n1;a\u202eb\n", r"line 3 holds 'a\\u202eb' in the column 'site'"),
        ("id,a\x1bb\n1,2\n", r"line 1 holds 'a\\x1bb' in the column 'a\\x1bb'"),
        ("id,site\n1,\x00\n", r"line 2 holds '\\x00'"),
        ("id,site\n1," + "x" * 200_000, "not a readable table: field larger than field limit"),
        ("", "not a readable table: it is empty"),
    ],
)
def test_a_table_of_a_user_that_no_cohort_could_hold(content, words, tmp_path):
    (tmp_path / "table.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        conversion.read_table(tmp_path / "table.csv")


def test_line_ends_within_a_cell_become_spaces(tmp_path):
    """As Excel writes them in headers; two plain spaces stay, for they may be part of a file's name."""
    (tmp_path / "table.csv").write_text('ID,"Age\n(years)"\r\n1,"a  b"\r\n2\r\n')
    assert conversion.read_table(tmp_path / "table.csv").to_dict("list") == {
        "ID": ["1", "2"],
        "Age (years)": ["a  b", ""],
    }


@pytest.mark.slow
@few
@given(
    st.text(max_size=5)
    | st.integers().map(str)
    | st.sampled_from(["²", "٣", "1_0", "9" * 5000, "1e3", "-0", "+1", " 1"])
)
def test_a_whole_number_has_our_digits_and_a_bound(word):
    number = errors.whole_number(word)
    assert number is None or (str(number) == (word.lstrip("0") or "0") and 0 <= number < 10**19)
    assert number is not None or not (word.isascii() and word.isdecimal() and len(word) < 20)


def test_a_name_of_thousands_of_digits_names_a_subject():
    assert guess_row("0" * 9 + "7" * 5000 + ".bin", 1.0).subject == "7" * 5000
    assert (guess_row("00.bin", 1.0).subject, guess_row("x_0051.bin", 0.0).subject) == ("0", "51")


READERS = {
    "rows": lambda path: tables.read_rows(path),
    "json": lambda path: files.read_json(path, dict),
    "sum": files.sum_of,
    "table": conversion.read_table,
    "row": lambda path: tables.add_row(path, {"a": math.pi}),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_opened(reader, kind, tmp_path):
    """Anything else may never end."""
    path = {"pipe": tmp_path / "pipe", "device": tmp_path / "zero", "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=rf"{path} is a .*{kind}.*; expected a file"):
        READERS[reader](path)


@pytest.mark.parametrize("odd", ["pipe", "name", "site", "folder", "number", "identifier"])
def test_what_no_cohort_could_hold_is_found_before_anything_is_converted(odd, pcp, data_cli, tmp_path):
    """A file that never ends; a name that is not UTF-8, of a map or of a folder; a site that steers a terminal; an
    infinite number; an ID that is too long for the name of a file."""
    source = shutil.copytree(pcp, tmp_path / "source")
    first, table = min(source.rglob("*falff.nii*")), next(source.rglob("*.csv"))
    if odd == "pipe":
        first.unlink()
        os.mkfifo(first)
    elif odd == "site":
        table.write_text(table.read_text().replace("NYU", "N\x1b[31mYU"))
    elif odd in ("number", "identifier"):
        header, row, *rows = table.read_text().splitlines()
        cells = dict(zip(header.split(","), row.split(","), strict=True))
        cells |= {"SUB_ID": "7" * 5000} if odd == "identifier" else {}
        lines = [[*cells, "motion"], [*cells.values(), "1e999"], *([*row.split(","), "0.1"] for row in rows)]
        table.write_text("".join(",".join(line) + "\n" for line in lines))
    else:
        target = os.fsencode(first.parent) + {"name": b"/\xff_falff.nii.gz", "folder": b"/\xff/x_falff.nii.gz"}[odd]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(first, target)
    covariates = ["--covariates", "motion"] if odd == "number" else []
    outcome = data_cli("convert", source, tmp_path / "out", "--grid", "reduced", *covariates)
    words = {"pipe": "is a pipe", "site": r"'N\x1b[31mYU", "name": r"\udcff_falff", "folder": r"\udcff/x_falff"}
    words |= {"number": "Column motion holds '1e999'; expected numbers", "identifier": "expected at most 200 bytes"}
    assert outcome.status == 2 and words[odd] in outcome.err and outcome.err.strip().isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["convert", "pack --bin", "swap --copies 1"])
def test_a_cohort_that_cannot_be_read_is_never_called_done(verb, pcp, cohort, data_cli, tmp_path, monkeypatch):
    written = write_table
    monkeypatch.setattr("data.cohorts.rows.write_table", lambda path, rows: written(path, list(rows)[1:]))
    word, *options = verb.split()
    source, more = (pcp, ["--grid", "reduced"]) if word == "convert" else (cohort, options)
    outcome = data_cli(word, source, tmp_path / "out", *more)
    assert outcome.status == 2 and "has no row for" in outcome.err
    assert word == "convert" or not (tmp_path / "out").exists()
