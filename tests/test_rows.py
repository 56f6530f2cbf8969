"""Tables of a cohort: rows and their checks, names in one folder, splits in proportion."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import cohort_of, row
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from data.cohorts.division import by_number
from data.cohorts.rows import (
    Metadata,
    Preparation,
    checked,
    flattened,
    guess_row,
    is_swapped,
    listed,
    match_table,
    read_table,
    swapped_name,
    write_table,
)
from data.conversion.split import assign_splits

NAN = float("nan")


# Rows


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"label": 2.0}, "x has the label 2; expected 1"),
        ({"label": NAN}, "x has the label nan; expected 1"),  # nobody can learn from it
        ({"split": "dev"}, "x has the split 'dev'; expected train or test"),
        ({"site": "a\nb"}, r"x holds the text 'a\\nb'; expected one line"),
        ({"subject": "1\u202e"}, "x holds the text"),
    ],
)
def test_a_row_that_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words):
        checked("x", row(**wrong))


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [row("1", site='a, "b"'), row("2", 0.0, "test"), row("3", NAN, "test", file="s/3.bin")]
    write_table(tmp_path / "subjects.csv", rows)
    assert (tmp_path / "subjects.csv").read_text().splitlines() == [
        "file,subject,site,label,split",
        '1.bin,1,"a, ""b""",1,train',
        "2.bin,2,NYU,0,test",
        "s/3.bin,3,NYU,,test",
    ]
    read = read_table(tmp_path / "subjects.csv")
    assert read[:2] == rows[:2]
    assert (read[2].file, read[2].known) == ("s/3.bin", False)


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", r"subjects\.csv lacks the columns file, subject, site, label, split"),
        (b"file,subject,label,split\n1.bin,1,1,train\n", r"subjects\.csv lacks the columns site"),
        (b"file,subject,site,label,split\n1.bin,1,M\xfcnchen,1,train\n", r"subjects\.csv is damaged .* in UTF-8"),
        (
            b"file,subject,site,label,split\n1.bin,1,NYU,1,train\n2.bin",
            "line 3 has 1 values; expected 5",
        ),
        (
            b"file,subject,site,label,split\n1.bin,1,NYU,x,train\n",
            "line 2 has the label 'x'; expected 1",
        ),
        (
            b"split,label,site,subject,file\ntrain,1,a,1,1.bin\ndev,1,a,1,1.bin\n",
            "line 3 has the split 'dev'",
        ),
    ],
)
def test_a_damaged_table(text, words, tmp_path):
    (tmp_path / "subjects.csv").write_bytes(text)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / "subjects.csv")


@pytest.mark.parametrize(
    "rows, files, words",
    [
        ([row("1"), row("1")], ["1.bin"], "names a file twice"),
        ([row("1"), row("2")], ["1.bin"], r"lacks 2\.bin, which subjects\.csv names \(1 missing\)"),
        ([row("1")], ["1.bin", "3.bin"], r"has no row for 3\.bin \(1 such records\)"),
        ([row("1"), row("1", file="b.bin", split="test")], ["1.bin", "b.bin"], "has subject 1 in train and in test"),
    ],
)
def test_a_table_names_each_record_once(rows, files, words):
    match_table(Path("c/subjects.csv"), rows[:1], ["1.bin"])
    with pytest.raises(InputError, match=words):
        match_table(Path("c/subjects.csv"), rows, files)


# Names


@pytest.mark.parametrize(
    "name, subject",
    [
        ("51572.bin", "51572"),
        ("0051572.bin", "51572"),
        ("swap_51572_2.bin", "51572"),
        ("NYU_0051572_falff.bin", "51572"),
        ("a/7/control.bin", "control"),
    ],
)
def test_the_subject_of_a_bare_record_is_the_first_number_in_its_name(name, subject):
    assert (guess_row(name, 1.0).subject, guess_row(name, 1.0).file) == (subject, name)


def test_records_of_one_subject_share_a_split_and_one_subject_in_ten_is_a_test_subject():
    splits = defaultdict(set)
    for subject in range(50000, 50600):
        for prefix in ("", "swap_", "s/00"):
            splits[subject].add(guess_row(f"{prefix}{subject}.bin", 1.0).split)
    assert all(len(found) == 1 for found in splits.values())
    assert 0.06 < sum(found == {"test"} for found in splits.values()) / len(splits) < 0.14


def test_records_of_many_folders_are_named_in_one():
    rows = [row("1", file="a/1.bin"), row("2", file="b/2.bin")]
    assert [found.file for found in flattened(rows, Path("cohort"))] == ["1.bin", "2.bin"]


@pytest.mark.parametrize(
    "files, told",
    [
        (("a/1.bin", "b/1.bin"), "'a/1.bin' and 'b/1.bin'"),
        (("Ab.bin", "aB.bin", "c.bin", "C.bin"), "'Ab.bin' and 'aB.bin', 'c.bin' and 'C.bin'"),
        (("é.bin", "e\u0301.bin"), r"'\xe9.bin' and 'e\u0301.bin'"),
    ],
)
def test_names_that_are_one_file_on_some_file_systems_are_refused(files, told):
    rows = [row(str(number), file=file) for number, file in enumerate(files)]
    with pytest.raises(InputError) as refusal:
        flattened(rows, Path("cohort"))
    assert str(refusal.value).startswith(f"cohort has the records {told}, which are one file in one folder; expected")


def test_a_swapped_record_is_known_by_its_name():
    assert swapped_name("a/7.bin", 3) == "7_swap_3.bin"
    names = ["7_swap_3.bin", "7_swap.bin", "swap_7_2.bin", "7.bin"]
    assert [is_swapped(name) for name in names] == [True, False, False, False]


# Splits


PEOPLE = [str(number) for number in range(40)]


@st.composite
def grouped(draw) -> tuple[tuple[str, ...], ...]:
    """Some of PEOPLE in groups of two or more."""
    order, sizes = draw(st.permutations(PEOPLE)), draw(st.lists(st.integers(2, 6), max_size=6))
    ends = np.cumsum([0, *sizes])
    return tuple(tuple(order[start:end]) for start, end in pairwise(ends.tolist()))


@pytest.mark.slow
@given(grouped(), st.integers(0, 5))
@settings(max_examples=40)
def test_no_split_parts_a_group(groups, seed):
    labels = [float(number % 2) for number in range(len(PEOPLE))]
    people = pd.DataFrame({"subject": PEOPLE, "site": "NYU", "label": labels})
    split = assign_splits(people, seed, groups)
    assert all(len({split[one] for one in group}) == 1 for group in groups)
    assert set(split) == set(PEOPLE)
    assert set(split.values()) == {"train", "test"}
    rows = [row(one, label) for one, label in zip(PEOPLE, labels, strict=True)]
    fold_of = by_number(cohort_of(*rows, same_scan=groups), "3", seed)
    assert all(len({fold_of[one] for one in group}) == 1 for group in groups)
    assert set(fold_of.values()) == {"0", "1", "2"}


# Metadata


def test_the_last_bit_of_a_constant_makes_no_other_preparation():
    one, other, third = (Preparation(phenotype_mean=(value,)) for value in (0.1 + 0.2, 0.3, 0.3001))
    assert one.of_inputs(["phenotype"]) == other.of_inputs(["phenotype"]) != third.of_inputs(["phenotype"])


def test_what_is_unknown_of_a_preparation_is_none():
    unknown = Preparation(maps=("falff",), phenotype_mean=(NAN, 1.0))
    of_volumes = {"maps": ("falff",), "normalisation": None, "reduction": None}
    assert unknown.of_inputs(["volume"]) == of_volumes
    assert unknown.of_inputs(["phenotype"])["phenotype_mean"] == (None, 1.0)


def test_defaults_of_metadata_are_not_written():
    """So that a field that comes later changes no digest of today."""
    assert Metadata().json() == {}
    described = Metadata(grid=(31, 37, 31), phenotype=("age",), phenotype_median=(1.0,), simulated=True)
    assert described.json() == {
        "grid": (31, 37, 31),
        "phenotype": ("age",),
        "phenotype_median": (1.0,),
        "simulated": True,
    }
    assert described.preparation == Preparation(phenotype=("age",), phenotype_median=(1.0,))


def test_the_lineage_of_a_cohort_is_the_latest_first():
    made = Metadata(provenance={"swap": {}, "source": {"encode": 1, "source": {"convert": 2}}})
    assert [next(iter(source)) for source in made.lineage] == ["swap", "encode", "convert"]
    assert list(Metadata().lineage) == list(Metadata(provenance={"source": "a path"}).lineage)[1:] == []


@given(st.lists(st.text(min_size=1), max_size=20), st.integers(1, 12))
def test_a_list_names_some_and_counts_the_others(names, most):
    text = listed(names, most, "\n")
    assert text.startswith("\n".join(names[:most]))
    assert text.endswith(f" and {len(names) - most} more") == (len(names) > most)
