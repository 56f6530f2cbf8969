"""Every form of --dataDir gives the same records; every damaged one is refused by name."""

import re
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import bare_records, read_rows, resealed, run_of, small_record, write_bare, write_rows

from data.base import files
from data.base.errors import InputError
from data.base.processes import ahead
from data.cohorts.cohort import in_order
from data.cohorts.records import REDUCED
from data.cohorts.stored import open_cohort

SUBJECTS = range(50001, 50013)


def write_chunks(folder: Path, members: dict[str, bytes], compression: int) -> Path:
    """Two zip chunks named as in the mission, without a suffix."""
    folder.mkdir()
    for chunk in range(2):
        with zipfile.ZipFile(folder / f"compressed_{chunk}", "w", compression) as archive:
            for name in sorted(members)[chunk::2]:
                archive.writestr(name, members[name])
    return folder


FORMS = {
    "folder of .bin": write_bare,
    "stored zip chunks": lambda folder, members: write_chunks(folder, members, zipfile.ZIP_STORED),
    "deflated zip chunks": lambda folder, members: write_chunks(folder, members, zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_bare_form_gives_the_same_records(form, tmp_path):
    members = bare_records(SUBJECTS)
    path = FORMS[form](tmp_path / "bare", members)
    before = sorted(tmp_path.rglob("*"))
    opened = open_cohort(path)
    assert opened.grid == REDUCED
    assert sorted(record.subject for record in opened.rows) == [str(subject) for subject in SUBJECTS]
    for index, record in enumerate(opened.rows):
        content = np.frombuffer(members[f"{record.subject}.bin"], "<f4")
        label, phenotype, volume = opened.read(index)
        assert label == record.label == content[0]
        assert (phenotype == content[1:30]).all()
        assert (volume[..., 0] == content[30:].reshape(31, 37, 31)).all()
    assert sorted(tmp_path.rglob("*")) == before  # read in place: nothing is unpacked


def test_a_bare_folder_tells_no_site_and_the_demo_does(cohort, tmp_path):
    bare = open_cohort(write_bare(tmp_path / "bare", bare_records(SUBJECTS)))
    assert bare.unknown_site and "Site is unknown" in bare.census().conclusion
    assert not open_cohort(cohort).unknown_site
    assert "SITE UNKNOWN" in run_of(cohort=bare).marks and "SITE" not in run_of(cohort=open_cohort(cohort)).marks


def test_batches_hold_what_single_reads_hold(tmp_path):
    opened = open_cohort(write_bare(tmp_path / "bare", bare_records(SUBJECTS)))
    batch = opened.batch([5, 2, 5])
    assert batch["volume"].shape == (3, 31, 37, 31, 1)
    assert {name: values.dtype for name, values in batch.items()} == {
        "label": np.int32,
        "phenotype": np.float32,
        "volume": np.float32,
    }
    for row, index in enumerate([5, 2, 5]):
        label, phenotype, volume = opened.read(index)
        assert batch["label"][row] == label
        assert (batch["phenotype"][row] == phenotype).all()
        assert (batch["volume"][row] == volume).all()
    without = opened.batch([5, 2, 5], volumes=False)
    assert without.keys() == {"label", "phenotype"}
    assert (without["phenotype"] == batch["phenotype"]).all()


def test_a_cohort_keeps_the_split_and_order_of_its_table(cohort):
    opened = open_cohort(cohort)
    rows = read_rows(cohort / "subjects.csv")
    assert list(rows[0]) == ["file", "subject", "site", "label", "split"]
    assert [(r.file, r.subject, r.site, r.label, r.split) for r in opened.rows] == [
        (row["file"], row["subject"], row["site"], float(row["label"]), row["split"]) for row in rows
    ]
    assert [opened.rows[i].split for i in opened.indices("test")] == ["test"] * 4
    assert len(opened.indices("train")) == 36


def test_a_cohort_in_zip_chunks_reads_the_same(cohort, tmp_path):
    members = {path.name: path.read_bytes() for path in cohort.glob("*.bin")}
    folder = write_chunks(tmp_path / "zipped", members, zipfile.ZIP_DEFLATED)
    for name in ("cohort.json", "subjects.csv"):
        shutil.copy(cohort / name, folder)
    whole, zipped = open_cohort(cohort), open_cohort(resealed(folder))
    assert zipped.rows == whole.rows
    assert zipped.digest == whole.digest
    assert all((a == b).all() for a, b in zip(zipped.read(7)[1:], whole.read(7)[1:], strict=True))


def test_the_digest_tells_cohorts_apart(cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    assert open_cohort(copy).digest == open_cohort(cohort).digest
    text = (copy / "subjects.csv").read_text()
    (copy / "subjects.csv").write_text(text.replace(",train", ",test", 1))
    assert open_cohort(resealed(copy)).digest != open_cohort(cohort).digest


def refusal(path: Path) -> str:
    """The message that opening `path` is refused with: one line."""
    with pytest.raises(InputError) as caught:
        open_cohort(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "holds 0 bytes|is empty"),
        (np.float32(1).tobytes().ljust(3_610_636, b"\0"), "expected one grid"),
    ],
)
def test_a_damaged_record_is_named(content, words, tmp_path):
    folder = write_bare(tmp_path / "bare", bare_records(SUBJECTS) | {"60000.bin": content})
    assert re.search(rf"60000\.bin.*{words}", refusal(folder))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_chunk_whose_content_is_damaged_is_named_when_it_is_read(compression, tmp_path):
    folder = write_chunks(tmp_path / "zipped", {"50001.bin": small_record()}, compression)
    path = folder / "compressed_0"
    content = bytearray(path.read_bytes())
    content[60_000:60_010] = bytes(255 - byte for byte in content[60_000:60_010])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"compressed_0:50001\.bin cannot be read"):
        open_cohort(folder).read(0)


def test_the_same_record_in_two_chunks(tmp_path):
    folder = write_chunks(tmp_path / "zipped", bare_records([1, 2]), zipfile.ZIP_DEFLATED)
    shutil.copy(folder / "compressed_0", folder / "compressed_1")
    assert "are the same record; expected each once" in refusal(folder)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows: rows.pop(), "subjects.csv has no row for"),
        (lambda rows: rows[0].update(label=1 - int(rows[0]["label"])), r"has the label \d, .* says \d"),
    ],
)
def test_a_table_that_does_not_fit_its_records(change, words, cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    rows = read_rows(copy / "subjects.csv")
    change(rows)
    write_rows(copy / "subjects.csv", rows)
    assert re.search(words, refusal(copy))


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("cohort.json", b"{", "cohort.json is damaged"),
        ("cohort.json", b'{"grid": [91, 109, 91]}', "says grid [91, 109, 91]"),
        ("cohort.json", b"\xff\xfe", "cohort.json is damaged"),
    ],
)
def test_damaged_tables(name, content, words, cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    (copy / name).write_bytes(content)
    assert words in refusal(copy)


@pytest.mark.parametrize("name", ["cohort.json", "subjects.csv"])
def test_a_cohort_without_one_of_its_tables_was_interrupted(name, cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    (copy / name).unlink()
    assert f"has no {name}: its conversion was interrupted. Repeat the same command." in refusal(copy)
    with files.locked(copy):
        (tmp_path / ".copy.lock").write_text("process 1 on a (data convert)")
        assert f"has no {name}: its conversion still runs, as process 1 on a (data convert); wait" in refusal(copy)


def test_a_cohort_without_test_subjects_says_so_when_they_are_wanted(tmp_path):
    opened = open_cohort(write_bare(tmp_path / "bare", {"1.bin": small_record()}))
    other = {"train": "test", "test": "train"}[opened.rows[0].split]
    with pytest.raises(InputError, match=f"has no {other} subjects among 1 records"):
        opened.indices(other)


def test_in_order_cuts_without_loss():
    cut = in_order(np.arange(10, 17), 3)
    assert [batch.tolist() for batch in cut] == [[10, 11, 12], [13, 14, 15], [16]]


def test_reading_ahead_keeps_order_reads_in_another_thread_and_does_not_run_away():
    threads, read = set(), []

    def slow(number):
        threads.add(threading.get_ident())
        read.append(number)
        return number * number

    results = ahead(slow, iter(range(100)))
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert threading.get_ident() not in threads
    results.close()
    assert len(read) < 15


def test_an_error_while_reading_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda number: 1 // number, [1, 0, 1]))
