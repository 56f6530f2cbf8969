"""Hostile and damaged bundles end in one line: known tricks, one by one; whoever edits a part makes its sum anew."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, Outcome, run_main

from data.base import archive
from data.base.errors import InputError
from data.base.files import SUMS
from data.conversion.template import TemplateCohort
from utils.bundle.model import Bundle
from utils.runs.cross_validation import CrossValidation
from utils.scores import calibration

Parts = dict[str, bytes]
MODEL, DATA, WEIGHTS = "model.json", "data.json", "weights/0.npy"
MOST_MEMORY, MOST_TIME_S = 2**30, 10
LARGE = 3 * 10**8  # bytes, more than a part may hold


@pytest.fixture(scope="module")
def made(seen_two, tmp_path_factory) -> Path:
    """The bundle of a tiny nn."""
    target = tmp_path_factory.mktemp("made") / "model.zip"
    outcome = run_main("utils.bundle.__main__", "utils.bundle", [seen_two / "ckpt" / "nn", target])
    assert outcome.status == 0, outcome.err
    return target


@pytest.fixture(scope="module")
def parts(made) -> Parts:
    """Its parts, with a score and a calibration."""
    with zipfile.ZipFile(made) as found:
        read = {name: found.read(name) for name in found.namelist() if name != SUMS}
    model = json.loads(read[MODEL])
    model["internal"] = asdict(a_cross_validation(model))
    return read | {MODEL: json.dumps(model).encode()}


def a_cross_validation(model: dict) -> CrossValidation:
    random = np.random.default_rng(0)
    label = np.arange(400) % 2
    raw = 1 / (1 + np.exp(-random.normal(label - 0.5)))
    constants = calibration.fit(label, raw, np.arange(400) // 100, "SITE_ID")
    return CrossValidation(
        folder="test",
        preset=model["preset"],
        config=model["config"],
        precision="float32",
        num_iters=2,
        records_sha256="0" * 64,
        folds="SITE_ID",
        repeats=1,
        subjects=400,
        headline="auc",
        headline_name="AUC",
        scores={"auc": (0.7, 0.6, 0.8)},
        groups=(),
        conclusion="It is better than chance.",
        motion=None,
        calibration=asdict(constants),
        chosen={},
        marks="",
    )


@pytest.fixture
def rebuilt(parts, tmp_path) -> Callable[[Parts | None], Path]:
    """`rebuilt(changes)` writes the bundle with other parts, without those that are None, and with sums made anew."""

    def write(changes: dict) -> Path:
        path = tmp_path / "edited.zip"
        archive.write(path, {name: content for name, content in (parts | changes).items() if content is not None})
        return path

    return write


def refused(path: Path, words: str) -> None:
    """Opening the bundle must end in one InputError of one line that says `words`, at little cost."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words) as caught:
            Bundle.open(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < MOST_TIME_S
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_what_is_not_hostile_is_read(rebuilt, made):
    """Otherwise the errors below would prove nothing."""
    assert Bundle.open(made).calibration is None
    bundle = Bundle.open(rebuilt({}))
    assert bundle.calibration is not None
    assert "AUC 0.700 (0.600 to 0.800)" in "\n".join(bundle.lines())
    assert TemplateCohort.of(bundle.path).data is not None


# Edited constants


def changed(content: bytes, *steps: str | int, value: object = None) -> bytes:
    """JSON with another value where the steps lead."""
    parsed = json.loads(content)
    place = parsed
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    return json.dumps(parsed).encode()


SHARED = {"shapes": [[2, 2]], "name": "a", "step": 1, "phenotype_scale": [], "phenotype_shift": []}
MODELS = {  # what is edited, its value, and what the error says
    ("format",): [
        (0, "has the format 0, this program reads format 1"),
        (2, "has the format 2, this program reads format 1; make the bundle again"),
        ("1", "format 1, this program reads"),
        (None, "format None"),
        (True, "has a damaged model.json"),
        ([[]] * 1000, "format"),
    ],
    ("model",): [("transformer", "a model in model.json that cannot be"), ("cae", "a model in"), (1, "damaged")],
    ("preset",): [("no such", "a preset in model.json that cannot be"), ("plain", "a preset")],
    ("precision",): [("float99", "a precision in")],
    ("seed",): [(-1, "a seed in"), (2**32, "a seed in"), (10**400, "a seed in|damaged"), (0.5, "damaged")],
    ("grid",): [("full", "a grid in"), ("huge", "a grid in")],
    ("trained_on",): [("nobody", "a trained_on in")],
    ("aal_sha256",): [("0" * 64, "made with another AAL than is installed")],
    ("config", "depth"): [(3, "depth is missing or unknown")],
    ("config", "batch_size"): [(10**9, "batch_size is 1000000000; expected 1 to 4096"), ("8", "damaged")],
    ("config", "members"): [(10**9, "members is 1000000000; expected 1 to 64"), (64, "weights of another network")],
    ("config", "phenotype_units"): [([4096, 4096], "weights of another network"), ([4096] * 60, "expected at most")],
    ("members",): [
        ([], "a members in"),
        ([SHARED] * 2, "a members in"),
        ([SHARED] * 1000, "a members in"),
        ([SHARED], "weights of another network"),
        ([{"shapes": [[2, 2]], "name": "a", "step": 1}], "damaged model.json"),
    ],
    ("members", 0, "step"): [(-1, "a step in"), (10**30, "a step in")],
    ("members", 0, "shapes"): [
        ([[-2, -2]], "a shapes in"),
        ([[0]], "a shapes in"),
        ([[10**400]], "a shapes in|damaged"),
        ([[1] * 9], "a shapes in"),
        ([[2**28] * 8] * 1000, "damaged weights/0.npy"),
        ([[2**16, 2**16], [2**16, 2**16, 2**16, 2**16]], "damaged weights/0.npy"),
    ],
    ("members", 0, "phenotype_scale"): [([1.0] * 29, "a phenotype_scale in"), ([1.0] * 28, "a phenotype_scale in")],
    ("internal", "headline"): [("accuracy", "a score in")],
    ("internal", "scores", "auc"): [([0.7], "damaged"), (["a", "b", "c"], "damaged")],
    ("internal", "calibration", "slope"): [(-1.0, "a calibration that cannot be"), (1e9, "a calibration")],
    ("internal", "calibration", "intercept"): [(1e300, "a calibration that cannot be")],
    ("internal", "calibration", "prevalence"): [(0.0, "a calibration"), (1.0, "a calibration"), ("a", "a calibration")],
    ("internal", "calibration", "sets_of"): [
        ([], "a calibration that cannot be: The calibration has no sets of the level 0.8"),
        ([{"level": 0.8, "control": 2.0, "autism": 0.1}], "no probability"),
    ],
    ("internal", "calibration", "autism"): [(0, "a calibration that cannot be")],
    ("caveats",): [([], "damaged"), ({"problems": "none"}, "damaged")],
    ("licence",): [("a\nb", r"holds the text 'a\\nb'"), ("\x1b[2J", "holds the text"), ("\u202e", "holds the text")],
}
DATAS = {
    ("grid",): [("huge", "says grid that cannot be"), ("full", "says grid")],
    ("metadata", "grid"): [([31, 37, 32], "says grid"), ([10**9] * 3, "says grid"), ([], "says grid")],
    ("metadata", "affine"): [
        ([[1.0, 0.0, 0.0, 0.0]] * 4, "says grid"),
        ([[1.0], [1.0, 2.0]], "says grid"),
        ([], "says grid"),
        ([[]] * 4, "says grid"),
    ],
    ("num_maps",): [(2, "says maps"), (0, "says maps"), (10**9, "says maps"), (-1, "says maps")],
    ("metadata", "maps"): [([], "says maps"), (["a", "a"], "says maps")],
    ("metadata", "phenotype"): [(["age"], "says phenotype")],
    ("metadata", "phenotype_scale"): [
        ([-1.0] * 29, "says phenotype"),
        ([1e-300] * 29, "says phenotype"),
        ([1.0] * 28, "says phenotype"),
        ([], "says phenotype"),
    ],
    ("metadata", "phenotype_mean"): [([1e300] * 29, "says phenotype"), ([[1.0]] * 29, "damaged data.json")],
    ("metadata", "phenotype_median"): [([1e13] * 29, "says phenotype")],
    ("metadata", "phenotype_categories"): [({"a": [str(n) for n in range(30)]}, "says categories")],
    ("metadata", "covariate_columns"): [(["a", "a"], "says covariates"), (["subject"], "says covariates")],
    ("metadata", "same_scan"): [([["1", "2"]], "says people")],
    ("metadata", "encoder_subjects"): [(["1"], "says people")],
    ("metadata", "provenance"): [({"left_out": {"a": ["1"]}}, "says people")],
    ("metadata", "connectome"): [("rois_cc200", "says parcels")],
    ("typical",): [
        ({"alff": {}}, "says measures"),
        ({"falff": {}}, "says measures"),
        ({"falff": {"mean": 1.0}}, "says measures"),
    ],
    ("parcels",): [(["1", "2"], "says parcels")],
}
LIKENESSES = {
    ("maps",): [(["alff"], "of other maps"), ([], "of other maps"), (1, "damaged likeness.json")],
    ("ranges", "falff", "log roughness", "low"): [(1e30, "or that cannot be"), ("a", "damaged likeness.json")],
    ("ranges", "falff", "log roughness", "high"): [(-1e9, "or that cannot be"), (1000.0, "or that cannot be")],
    ("limits",): [
        *((None, "damaged likeness.json"), ({"scan": "a"}, "damaged likeness.json")),
        *(({}, "or that cannot be"), ({"scan": 2.0, "extent": 2.0}, "or that cannot be")),
    ],
    ("limits", "person"): [(1e300, "or that cannot be"), (-1.0, "or that cannot be"), (0.0, "or that cannot be")],
    ("of_averages",): [({"log sd": 0.0}, "or that cannot be"), ({"log sd": 1e300}, "or that cannot be")],
    ("regions",): [([], "damaged likeness.json"), ({}, "or that cannot be")],
    ("regions", "falff"): [([117], "or that cannot be"), ([0], "or that cannot be")],
}
FLOORS = {
    ("majority",): [("a", "damaged floors.json"), (None, "damaged floors.json")],
    ("standard",): [("other", "damaged floors.json")],
    ("floors",): [([], "damaged floors.json"), ({"a": {}}, "damaged floors.json")],
}
EDITED = [
    (name, steps, value, words)
    for name, table in ((MODEL, MODELS), (DATA, DATAS), ("likeness.json", LIKENESSES), ("floors.json", FLOORS))
    for steps, cases in table.items()
    for value, words in cases
]


@pytest.mark.slow
@pytest.mark.parametrize("name, steps, value, words", EDITED, ids=lambda value: str(value)[:30])
def test_edited_constants(name, steps, value, words, parts, rebuilt):
    refused(rebuilt({name: changed(parts[name], *steps, value=value)}), words)


# JSON


@pytest.mark.parametrize("name", [MODEL, DATA])
@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"null", "damaged"),
        (b"{", "damaged"),
        (b"[" * 10**6, "damaged"),
        (b'{"a":' * 10**5, "damaged"),
        (b'{"format": ' + b"1" * 10**6 + b"}", "damaged"),
        (b'{"format": NaN}', "NaN, which is not finite"),
        (b'{"format": -Infinity}', "-Infinity, which is not finite"),
        (b'{"format": 1e999}', "1e999, which is not finite"),
        (b'{"format": 2, "format": 1}', "names a value twice"),
        (b'{"caveats": {"simulated": true, "simulated": false}}', "names a value twice"),
        ('{"format": "\u00fc"}'.encode("latin-1"), "damaged"),
        ('{"format": 1}'.encode("utf-16"), "damaged"),
        (b'\xef\xbb\xbf{"format": 1}', "damaged"),
        (b" " * 9_000_000 + b"{}", "holds 9,000,002 bytes, at most 8,388,608 are allowed"),
        (b"[" + b"{}," * 300_000 + b"{}]", "it holds about 600,002 values, at most 262,144 are allowed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_json_that_is_none_or_too_much(name, content, words, rebuilt, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_TEXT", 10**8)  # as it is written by others
        path = rebuilt({name: content})
    refused(path, words)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
def test_a_scale_that_is_no_number(value, parts, rebuilt):
    scale = json.loads(parts[DATA])["metadata"]["phenotype_scale"]
    text = changed(parts[DATA], "metadata", "phenotype_scale", value=["#", *scale[1:]])
    refused(rebuilt({DATA: text.replace(b'"#"', value.encode())}), f"{value}, which is not finite")


# Arrays


def npy(values: np.ndarray, version: tuple[int, int] = (1, 0), pickled: bool = False) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, values, version, allow_pickle=pickled)
    return content.getvalue()


def with_header(content: bytes, header: bytes) -> bytes:
    """An array whose header is another text."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content[128:]


SHAPE = "it does not begin as an array of float32"
ARRAYS = {
    "objects, which are pickles": (lambda own: npy(own.astype(object), pickled=True), SHAPE),
    "columns first": (lambda own: npy(np.asfortranarray(np.stack([own, own]))), SHAPE),
    "big-endian": (lambda own: npy(own.astype(">f4")), SHAPE),
    "float64": (lambda own: npy(own.astype("f8")), SHAPE),
    "named fields": (lambda own: npy(own.view([("a", "<f4")])), SHAPE),
    "version 2": (lambda own: npy(own, (2, 0)), SHAPE),
    "version 3": (lambda own: npy(own, (3, 0)), SHAPE),
    "cut off": (lambda own: npy(own)[:-4], "damaged weights/0.npy"),
    "cut off within a number": (lambda own: npy(own)[:-3], "damaged weights/0.npy"),
    "only a header": (lambda own: npy(own)[:128], "damaged weights/0.npy"),
    "half a header": (lambda own: npy(own)[:60], SHAPE),
    "longer": (lambda own: npy(own) + bytes(4), "damaged weights/0.npy"),
    "no array": (lambda own: b"PK", SHAPE),
    "nothing": (lambda own: b"", SHAPE),
    "another shape": (lambda own: npy(own.reshape(2, -1)), r"it is of shape \(2, 4097\); expected \(8194,\)"),
    "a huge shape": (lambda own: npy(own).replace(b"(8194,)", b"(10**9)"), SHAPE),
    "a huge number": (lambda own: with_header(npy(own), header("9" * 90 + ",")), "damaged weights/0.npy"),
    "a call": (lambda own: with_header(npy(own), b"__import__('os').system('touch here') \n"), SHAPE),
    "parentheses": (lambda own: with_header(npy(own), b"(" * 9000 + b"\n"), SHAPE),
    "signs": (lambda own: with_header(npy(own), header("-" * 9000 + "1,")), SHAPE),
    "NaN": (lambda own: npy(np.where(own == own[5], np.nan, own).astype("<f4")), "numbers that are not finite"),
    "infinity": (lambda own: npy(np.where(own == own[5], -np.inf, own).astype("<f4")), "numbers that are not finite"),
    "huge numbers": (lambda own: npy(own * np.float32(1e30)), "has huge weights in weights/0.npy"),
}


def header(shape: str) -> bytes:
    return f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(case, parts, rebuilt, tmp_path):
    make, words = ARRAYS[case]
    own = np.frombuffer(parts[WEIGHTS], "<f4", offset=128)
    refused(rebuilt({WEIGHTS: make(own)}), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited.zip"]


def test_parcels_that_are_none(parts, rebuilt):
    """An array of int16 where the parcels of connectomes lie."""
    text = changed(parts[DATA], "metadata", "connectome", value="rois_cc200")
    text = changed(text, "parcels", value=["a", "b"])
    refused(rebuilt({DATA: text}), "has other parcels than its data.json says")
    image = np.zeros((91, 109, 91), "<i2")
    refused(rebuilt({DATA: text, "parcels.npy": npy(image)}), "has other parcels than")
    refused(rebuilt({DATA: text, "parcels.npy": npy(image[:90])}), "damaged parcels.npy")
    refused(rebuilt({DATA: text, "parcels.npy": npy(image - 1)}), "voxels in parcels.npy of none of its 2 parcels")
    refused(rebuilt({DATA: text, "parcels.npy": npy(image + 3)}), "voxels in parcels.npy of none of its 2 parcels")
    refused(rebuilt({DATA: changed(text, "parcels", value=["a", "a"])}), "says parcels")
    refused(rebuilt({DATA: changed(text, "parcels", value=[str(n) for n in range(2001)])}), "says parcels")


# The zip itself


def zipped(target: Path, contents: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip whose parts and sums are as given, in any order and number."""
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(target, "w", method, compresslevel=1) as found:
        for name, content in contents:  # which may be two of one name
            found.writestr(name, content)
    return target


def with_sums(parts: Parts) -> list[tuple[str, bytes]]:
    """Parts with a file of sums that fits."""
    text = "".join(f"{hashlib.sha256(of).hexdigest()}  {name}\n" for name, of in parts.items())
    return [*parts.items(), (SUMS, text.encode())]


def edit_entry(path: Path, name: str, offset: int, layout: str, value: int) -> Path:
    """Changes a field of a part in the zip's list of parts."""
    content = bytearray(path.read_bytes())
    at = content.index(name.encode(), content.index(b"PK\x01\x02")) - 46
    struct.pack_into(layout, content, at + offset, value)
    path.write_bytes(content)
    return path


NAMES = {
    "../data.json": "which is no part of one",
    "weights/../data.json": "which is no part of one",
    "/etc/passwd": "which is no part of one",
    "..\\data.json": "which is no part of one",
    "C:\\data.json": "which is no part of one",
    "weights/": "which is no part of one",
    "weights/0.npy/": "which is no part of one",
    "weights/1e5.npy": "which is no part of one",
    "weights/\u0661.npy": "which is no part of one",
    "derivation/..": "which is no part of one",
    "DATA.JSON": "which is no part of one",
    "__MACOSX/._data.json": "which is no part of one",
    "inner.zip": "which is no part of one",
    "run.py": "which is no part of one",
    "a\nb": r"it holds 'a\\nb', which is no part",
    "\x1b[2J": "which is no part of one",
    "x" * 60_000: r"it holds 'x{200}' \.\.\., which is no part",
    "weights/1.npy": "a members in model.json that cannot be",
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_parts_of_other_names(name, parts, tmp_path):
    contents = with_sums(parts | {name: b"text"})
    refused(zipped(tmp_path / "a.zip", contents), NAMES[name])
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mean_volume_that_is_not_finite(value, parts, rebuilt):
    volume = np.load(io.BytesIO(parts["likeness.npy"])).copy()
    volume[3, 4, 5] = value
    refused(rebuilt({"likeness.npy": npy(volume)}), "damaged likeness.npy .it holds numbers that are not finite")
    refused(rebuilt({"likeness.npy": npy(volume[:-1])}), "damaged likeness.npy .it is of shape")


@pytest.mark.parametrize("name", [DATA, MODEL, WEIGHTS, "likeness.npy", "floors.json"])
def test_parts_that_are_missing(name, rebuilt):
    refused(rebuilt({name: None}), "lacks|a members in")


def test_a_name_that_ends_at_a_zero_byte(parts, tmp_path):
    path = zipped(tmp_path / "a.zip", with_sums(parts | {"card.md#": b"text"}))
    path.write_bytes(path.read_bytes().replace(b"card.md#", b"card.md\0"))
    refused(path, "two parts of one name|File name in directory")


def test_two_parts_of_one_name(parts, tmp_path):
    refused(zipped(tmp_path / "a.zip", [*with_sums(parts), (DATA, b"{}")]), "two parts of one name")


def test_a_link_is_content_as_any_other(parts, tmp_path):
    """Nothing is unpacked."""
    path = zipped(tmp_path / "a.zip", with_sums(parts | {"card.md": b"/etc/passwd"}))
    Bundle.open(edit_entry(path, "card.md", 38, "<L", 0o120777 << 16))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_encrypted_parts(parts, tmp_path):
    path = zipped(tmp_path / "a.zip", with_sums(parts))
    refused(edit_entry(path, DATA, 8, "<H", 1), "its data.json is encrypted")
    refused(edit_entry(path, DATA, 8, "<H", 0x40), "strong encryption")
    refused(edit_entry(path, DATA, 8, "<H", 0x20), "compressed patched data")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(method, parts, tmp_path):
    refused(zipped(tmp_path / "a.zip", with_sums(parts), method), "compressed in another way than deflate")


def test_a_method_that_nobody_knows(parts, tmp_path):
    path = edit_entry(zipped(tmp_path / "a.zip", with_sums(parts)), DATA, 10, "<H", 99)
    refused(path, "compressed in another way than deflate")


def test_parts_that_lie_in_each_other(parts, tmp_path):
    """Two entries of the list lead to one place."""
    path = zipped(tmp_path / "a.zip", with_sums(parts))
    with zipfile.ZipFile(path) as found:
        place = found.getinfo(MODEL).header_offset
    refused(edit_entry(path, DATA, 42, "<L", place), "File name in directory|Overlapped")


def test_places_beyond_the_file(parts, tmp_path):
    path = zipped(tmp_path / "a.zip", with_sums(parts))
    refused(edit_entry(path, DATA, 42, "<L", 2**31), "no bundle, or not as it was written")


# Bombs


@pytest.fixture(scope="module")
def bomb(parts, tmp_path_factory) -> Path:
    """A bundle whose weights are 300 MB of zeros."""
    path = tmp_path_factory.mktemp("bomb") / "a.zip"
    return zipped(path, with_sums(parts | {WEIGHTS: bytes(LARGE)}))


@pytest.mark.slow
def test_an_honest_bomb(bomb):
    refused(bomb, r"'weights/0.npy' holds 300,000,000 bytes, at most 268,435,456 are allowed")


@pytest.mark.slow
def test_a_bomb_that_lies(bomb, tmp_path):
    """What is inflated is what the list says, and no more."""
    path = tmp_path / "a.zip"
    path.write_bytes(bomb.read_bytes())
    edit_entry(path, WEIGHTS, 24, "<L", 1000)
    tracemalloc.start()
    refused(path, "Bad CRC-32")
    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(InputError):
        Bundle.open(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1])
def test_a_size_that_no_part_has(size, parts, tmp_path):
    path = edit_entry(zipped(tmp_path / "a.zip", with_sums(parts)), WEIGHTS, 24, "<L", size)
    refused(path, "holds 4,294,967,29|no bundle")


def test_parts_that_are_too_much_together(parts, tmp_path):
    names = ["parcels.npy", "card.md", "report.html"]
    path = zipped(tmp_path / "a.zip", with_sums(parts | dict.fromkeys(names, b"0")))
    for name in names:
        edit_entry(path, name, 24, "<L", 2 * 10**8)
    refused(path, "bytes, more than any bundle")


@pytest.mark.slow
def test_a_bomb_of_sums(parts, tmp_path):
    """Lines without end, of which each would be an object."""
    refused(zipped(tmp_path / "a.zip", [*parts.items(), (SUMS, b"\n" * 10**8)]), "SHA256SUMS' holds 100,000,000 bytes")
    refused(zipped(tmp_path / "b.zip", [*parts.items(), (SUMS, b"\n" * 8 * 10**6)]), "SHA256SUMS line 1 is damaged")


@pytest.mark.slow
def test_a_list_of_parts_without_end(parts, tmp_path):
    """It would be read at once: a million entries of 46 bytes would be objects of a gigabyte."""
    path = zipped(tmp_path / "a.zip", with_sums(parts))
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    entry = content[start : start + 46 + struct.unpack_from("<H", content, start + 28)[0]]
    many = entry * 10**6
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, len(many), start, 0)
    path.write_bytes(content[:start] + many + end)
    refused(path, "it is larger than any bundle")


@pytest.mark.slow
@pytest.mark.parametrize("number", [2001, 9999])
def test_very_many_parts(number, parts, tmp_path):
    contents = [(f"weights/{at}.npy", b"") for at in range(number)]
    refused(zipped(tmp_path / "a.zip", contents, zipfile.ZIP_STORED), f"it holds {number:,} parts")


def test_a_zip_of_more_than_4_gb(parts, tmp_path):
    """By the record that such have, whose list may be of any size."""
    path = zipped(tmp_path / "a.zip", with_sums(parts))
    content = path.read_bytes()
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
    place = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    path.write_bytes(content[:-22] + large + place + content[-22:])
    refused(path, "it is larger than any bundle")


# No zip


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_file_that_is_cut_off(share, made, tmp_path):
    content = made.read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "a.zip", "is no bundle, or not as it was written: it does not end as a zip does")


@pytest.mark.parametrize("content", [b"text", b"PK\3\4", b"PK\5\6" + bytes(18), b"\x1f\x8b" + bytes(99)])
def test_other_files(content, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "is no bundle|damaged|lacks")


@pytest.mark.parametrize("after", [b"\0", b"\n", bytes(100)])
def test_what_follows_a_zip(after, made, tmp_path):
    (tmp_path / "a.zip").write_bytes(made.read_bytes() + after)
    refused(tmp_path / "a.zip", "it does not end as a zip does")


@pytest.mark.slow
def test_a_flipped_bit_anywhere(made, tmp_path):
    """In some fields it does no harm, such as the time of a part; then the bundle is as it was."""
    content = made.read_bytes()
    whole = Bundle.open(made).archive.parts
    refusals = 0
    for at in np.linspace(0, len(content) - 1, 400).astype(int):
        (tmp_path / "a.zip").write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            assert Bundle.open(tmp_path / "a.zip").archive.parts == whole
        except InputError as error:
            refusals += 1
            assert len(str(error).splitlines()) == 1
    assert refusals > 350


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "device.zip").symlink_to("/dev/zero")
    refused(tmp_path / "pipe.zip", "is a pipe, device or socket; expected a file")
    refused(tmp_path / "folder.zip", "is a folder; expected a file")
    refused(tmp_path / "device.zip", "is a pipe, device or socket; expected a file")
    refused(tmp_path / "none.zip", "does not exist; expected a bundle")


# Sums


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: b"", "its card.md is not what SHA256SUMS says"),
        (lambda text: text.replace(b"0", b"1"), "is not what SHA256SUMS says"),
        (lambda text: text[text.index(b"\n") + 1 :], "its card.md is not what SHA256SUMS says"),
        (lambda text: text + b"0" * 64 + b"  weights/7.npy\n", "its weights/7.npy is not what SHA256SUMS says"),
        (lambda text: text + b"0" * 64 + b"  \x1b[2J\n", "is not what SHA256SUMS says"),
        (lambda text: b"no sums\n", "SHA256SUMS line 1 is damaged"),
        (lambda text: b"\xff\xfe", "its SHA256SUMS is no text"),
    ],
)
def test_sums(change, words, parts, tmp_path):
    *contents, (name, text) = with_sums(dict(sorted(parts.items())))
    refused(zipped(tmp_path / "a.zip", [*contents, (name, change(text))]), words)


def test_no_sums(parts, tmp_path):
    refused(zipped(tmp_path / "a.zip", [*parts.items()]), "is not what SHA256SUMS says")


# By the command lines


@pytest.fixture
def by_command(cli, data_cli, cohort, pcp, tmp_path) -> Callable[..., list[Outcome]]:
    """`by_command(bundle)` converts and derives people like a bundle, and tests it."""

    def run(path: Path) -> list[Outcome]:
        return [
            data_cli("convert", pcp, tmp_path / "out", "--like", path),
            data_cli("derive", pcp, tmp_path / "out", "--like", path),
            cli("--test", "--bundle", path, "--dataDir", cohort, "--outDir", tmp_path / "out"),
        ]

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {DATA: None},
        {DATA: b"[" * 10**5},
        {DATA: b'{"grid": "\\u001b[2J"}'},
        {WEIGHTS: b""},
        {MODEL: b'{"format": 7}'},
        {"card.md": None, MODEL: b'{"format": NaN}'},
    ],
)
def test_each_command_says_one_line_and_writes_nothing(changes, rebuilt, by_command, tmp_path):
    path = rebuilt(changes)
    before = sorted(tmp_path.rglob("*"))
    outcomes = by_command(path)
    for outcome in outcomes if DATA in changes else outcomes[2:]:  # the first two read no network
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert str(path) in outcome.err
        assert outcome.err.isprintable() or outcome.err[:-1].isprintable()
    assert sorted(tmp_path.rglob("*")) == before


def test_each_command_refuses_what_is_no_bundle(by_command, tmp_path):
    (tmp_path / "text.zip").write_text("text")
    os.mkfifo(tmp_path / "pipe.zip")
    before = sorted(tmp_path.rglob("*"))
    for name in ("text.zip", "pipe.zip", "none.zip"):
        for outcome in by_command(tmp_path / name):
            assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
            assert name in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_of_another_network_write_nothing(parts, rebuilt, cli, cohort, tmp_path):
    """As many numbers as the file holds, in other shapes."""
    path = rebuilt({MODEL: changed(parts[MODEL], "members", 0, "shapes", value=[[2, 4097]])})
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("--test", "--bundle", path, "--dataDir", cohort, "--outDir", tmp_path / "out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "has weights of another network than this version builds of its settings" in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


OPEN_ALL = """
import sys
from pathlib import Path
from data.base.errors import InputError
from utils.bundle.model import Bundle
for path in map(Path, sys.argv[1:]):
    try:
        Bundle.open(path)
    except InputError:
        pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_a_process_takes_less_than_a_gigabyte(bomb, parts, rebuilt, tmp_path):
    """All that is allocated, also where Python does not count it."""
    lying = tmp_path / "lying.zip"
    lying.write_bytes(bomb.read_bytes())
    edit_entry(lying, WEIGHTS, 24, "<L", 1000)
    most = zipped(tmp_path / "most.zip", with_sums(parts | {WEIGHTS: bytes(archive.MAX_PART)}))
    deep = zipped(tmp_path / "deep.zip", with_sums(parts | {DATA: b"[" * archive.MAX_TEXT}))
    wide = [b'{"config": {"a": [' + of * 87_000 + b"0]}}" for of in (b"[[]],", b'{"":""},', b"1e9,")]
    many = [zipped(tmp_path / f"{at}.zip", with_sums(parts | {MODEL: of})) for at, of in enumerate(wide)]
    command = [sys.executable, "-c", OPEN_ALL, *map(str, (bomb, lying, most, deep, *many))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) * 1024 < MOST_MEMORY
