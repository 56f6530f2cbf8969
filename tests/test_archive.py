"""Zips of named parts: the same bytes of the same parts, read back as written."""

import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data.base import archive
from data.base.archive import Archive, opened
from data.base.errors import InputError

NAMED = r"\w+\.(json|npy|md)"


@dataclass(frozen=True)
class Said:
    name: str
    numbers: tuple[float, ...] = ()


def test_parts_are_read_as_they_were_written(tmp_path):
    parts = {"a.json": b'{"name": "x"}', "b.md": "Zürich\n".encode(), "c.npy": archive.npy(np.arange(3.0)), "d.md": b""}
    archive.write(tmp_path / "a.zip", parts)
    found = opened(tmp_path / "a.zip", NAMED)
    assert {name: found.parts[name] for name in parts} == parts
    assert found.parts.keys() - parts.keys() == {"SHA256SUMS"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_equal_parts_give_equal_bytes(tmp_path):
    """In whatever order they come, and whenever."""
    parts = {f"{name}.md": name.encode() * 100 for name in "bdac"}
    archive.write(tmp_path / "a.zip", parts)
    archive.write(tmp_path / "b.zip", dict(reversed(parts.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as found:
        assert {info.date_time for info in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_sums_are_those_of_sha256sum(tmp_path):
    archive.write(tmp_path / "a.zip", {"a.md": b"text", "b.npy": archive.npy(np.ones(5))})
    with zipfile.ZipFile(tmp_path / "a.zip") as found:
        found.extractall(tmp_path / "out")
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a.md: OK\nb.npy: OK\n")


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype="<f8").reshape(2, 3),
        np.arange(24, dtype="<i2").reshape(2, 3, 4).T,
        np.empty((0, 5), "<f4"),
        np.ones((3, 1), bool),
    ],
)
def test_arrays_are_read_as_numpy_wrote_them(values):
    content = archive.npy(values)
    found = Archive(Path("a.zip"), {"a.npy": content}).array("a.npy", values.dtype.str, values.shape)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype
    whatever = Archive(Path("a.zip"), {"a.npy": content}).array("a.npy", values.dtype.str)
    assert whatever.shape == values.shape


def test_an_array_of_another_kind_is_named():
    made = Archive(Path("a.zip"), {"a.npy": archive.npy(np.arange(6, dtype="<f4"))})
    with pytest.raises(InputError, match=r"a\.zip has a damaged a\.npy \(it does not begin as an array of int16\)"):
        made.array("a.npy", "<i2")
    with pytest.raises(InputError, match=r"it is of shape \(6,\); expected \(2, 3\)"):
        made.array("a.npy", "<f4", (2, 3))
    with pytest.raises(InputError, match=r"a\.zip lacks b\.npy"):
        made.array("b.npy", "<f4")


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"name": 1}', "name"),
        (b'{"numbers": [1.0]}', "name"),
        (b'{"name": "a", "numbers": [NaN]}', "NaN, which is not finite"),
        (b'{"name": "a", "name": "b"}', "names a value twice"),
        (b'{"name": "a", "more": {"x\\u001b": 1}}', r"holds the text 'x\\x1b'"),
        (b'{"name": "a", "more": [["\\u202e"]]}', "holds the text"),
        (b'{"name": "\\ud800"}', "holds the text|damaged"),
    ],
)
def test_json_is_checked_before_it_is_used(content, words):
    with pytest.raises(InputError, match=words) as caught:
        Archive(Path("a.zip"), {"a.json": content}).json("a.json", Said)
    assert str(caught.value).startswith("a.zip has a damaged a.json (")


def test_json_that_later_versions_add_to_is_read():
    made = Archive(Path("a.zip"), {"a.json": b'{"name": "a", "numbers": [1.5, 1e-300], "later": [null, true]}'})
    assert made.json("a.json", Said) == Said("a", (1.5, 1e-300))


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"a.json": bytes(2**23 + 1)}, "'a.json' holds 8,388,609 bytes, at most 8,388,608 are allowed"),
        ({f"a{number}.md": b"" for number in range(2001)}, "2,001 parts"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(parts, words, tmp_path):
    with pytest.raises(InputError, match=rf"a\.zip cannot be written: .*{words}.* Bundle fewer networks"):
        archive.write(tmp_path / "a.zip", parts)
    assert not list(tmp_path.iterdir())


def test_the_largest_text_is_read(tmp_path):
    archive.write(tmp_path / "a.zip", {"a.json": b'{"name": "' + b"x" * 1000 + b'"}' + b" " * (2**23 - 1012)})
    assert opened(tmp_path / "a.zip", NAMED).json("a.json", Said).name == "x" * 1000
