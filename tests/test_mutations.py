"""Seeded mutations of every file that a command reads: each ends in success or in one InputError of one line.

`python tests/test_mutations.py FOLDER SEED COUNT [KIND ...]` is what the test runs, so that a crash of a C library is a
failure and not the end. There, warnings are errors, an input may take 10 seconds and 2 GB, and nothing may be written
where it lies.
"""

import dataclasses
import faulthandler
import functools
import gzip
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import ROOT
from helpers import COARSE, PCP_COLUMNS, PCP_ROWS, an_identity, brain_map

from data import check, pack
from data.base.errors import InputError
from data.base.files import check_sums
from data.cohorts import atlas, records
from data.cohorts.nifti import MapOnDisk, on_full_grid, read_brains, read_maps
from data.cohorts.rows import Metadata, Preparation
from data.cohorts.stored import open_cohort, write_tables
from data.cohorts.variants import resplit
from data.conversion.convert import covariate_columns
from data.conversion.leaks import check_coding
from data.conversion.options import ConversionOptions, SourceOptions
from data.conversion.plan import plan
from data.conversion.source import read_source
from data.conversion.tables import check_columns
from models import MODELS
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.folders import Results

PCP_NO_MAP = "50099"


PCP_NO_FILENAME = "50098"


PCP_SUBJECTS = 12


def pcp_table() -> list[dict]:
    """Rows of an ABIDE-like table: 12 subjects with a map, one without a file name, one whose map is absent."""
    table = []
    for number in range(PCP_SUBJECTS + 2):
        subject = str(50002 + number) if number < PCP_SUBJECTS else (PCP_NO_FILENAME, PCP_NO_MAP)[number - PCP_SUBJECTS]
        site = ("PITT", "NYU")[number // 2 % 2]
        file = "no_filename" if subject == PCP_NO_FILENAME else f"{site}_00{subject}"
        keys = {"SUB_ID": subject, "SITE_ID": site, "FILE_ID": file, "DX_GROUP": str(1 + number % 2)}
        table.append(keys | dict(zip(PCP_COLUMNS, PCP_ROWS[number % len(PCP_ROWS)], strict=True)))
    return table


def compressible(subject: int) -> bytes:
    """A record that is mostly background, so that its files are mostly structure."""
    volume = np.full(records.REDUCED.shape, -0.4, "<f4")
    volume[5:9, 5:9, 5:9] = np.random.default_rng(subject).normal(size=(4, 4, 4))
    return bytes(records.pack(subject % 2, np.arange(29), volume))


def listing(folder: Path) -> dict[Path, tuple]:
    """All that lies in a folder: size and time of change of each."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def write_small(folder: Path) -> None:
    """Four compressible records with their tables and sums."""
    folder.mkdir(parents=True)
    for subject in (1, 2, 3, 5):
        (folder / f"{subject}.bin").write_bytes(compressible(subject))
    bare = open_cohort(folder)
    write_tables(folder, bare.rows, Metadata(grid=(31, 37, 31), phenotype=("age",), provenance={"seed": 0}))


def load_map(path: Path) -> np.ndarray:
    """A 3-D map on the full grid."""
    return on_full_grid(next(read_brains([MapOnDisk(path)])), "linear")


MAX_BYTES = 2 * 2**30  # what the inputs may make the process hold beside what it is
SECONDS = 10  # that one input may take
COUNT = 8  # of each kind; `make torture` has 1,000

# Mutations: content -> content

TEXTS = ["", '"', "\n", "\r", "\0", "\t", "\ufeff", "\u2028", ",", ",,", "[", "{}", "null", "nan", "1e999", "-9999"]
TEXTS += ["../", "/etc/passwd", "9" * 5000, "x" * 200_000, "[" * 3000, "\\u0000", "\\ud800", "é".encode("latin-1")]
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
JSON_VALUES = ["null", "[]", "{}", "[[]]", "true", "-1", "0.5", "NaN", "-Infinity", "1e999", "1" * 5000, "[" * 3000]
JSON_VALUES += ['""', '"\\u0000"', '"\\ud800"', '"a\\nb"', '"../../etc/passwd"', f'"{"x" * 200_000}"']
JSON_VALUES += ["[" * 200 + "]" * 200]
CELLS = [*TEXTS, "inf", "1e308", "-1", "2", "0x10", "\uff11", "\u0663", "1_000", "=1+1", "  ", "True", "train"]


def place(content: bytes, rng: random.Random) -> int:
    """Half of the time within the first or last 400 bytes, where formats keep their structure."""
    size = len(content)
    if rng.random() < 0.5:
        return rng.randrange(size)
    at = rng.randrange(min(400, size))
    return at if rng.random() < 0.6 else size - 1 - at


def flip(content: bytes, rng: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        result[place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(result)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: place(content, rng)]


def insert(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + rng.randbytes(rng.choice([1, 4, 64])) + content[at:]


def duplicate(content: bytes, rng: random.Random) -> bytes:
    start = place(content, rng)
    span = content[start : start + rng.choice([1, 8, 100, 4000])]
    at = place(content, rng)
    return content[:at] + span + content[at:]


def remove(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng)
    return content[:at] + content[at + rng.choice([1, 2, 16, 300]) :]


def blank(content: bytes, rng: random.Random) -> bytes:
    """A block of zeros, as a disk gives for a sector that it lost."""
    start, size = place(content, rng), rng.choice([4, 64, 512, 4096])
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def set_number(content: bytes, rng: random.Random) -> bytes:
    """An integer field of 1, 2, 4 or 8 bytes with an extreme value."""
    width = rng.choice([1, 2, 4, 8])
    at = place(content, rng) // width * width
    value = (rng.choice(EXTREMES) & (2 ** (8 * width) - 1)).to_bytes(width, "little")
    return content[:at] + value + content[at + width :]


def set_float(content: bytes, rng: random.Random) -> bytes:
    at = place(content, rng) // 4 * 4
    return content[:at] + struct.pack("<f", rng.choice([np.nan, np.inf, 1e38, -1, 0.5, 2, 1e-40])) + content[at + 4 :]


def set_text(content: bytes, rng: random.Random) -> bytes:
    text = rng.choice(TEXTS)
    at, end = sorted((place(content, rng), place(content, rng)))
    end = min(end, at + rng.choice([0, 1, 10]))
    return content[:at] + (text if isinstance(text, bytes) else text.encode()) + content[end:]


def set_json(content: bytes, rng: random.Random) -> bytes:
    """Another value, another name, or none, somewhere in what was JSON."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return set_text(content, rng)
    places = [({"": root}, ""), *json_places(root)]
    holder, key = rng.choice(places)
    change = rng.random()
    if change < 0.15 and len(places) > 1:
        other, name = rng.choice(places[1:])
        holder[key] = json.loads(json.dumps(other[name]))
    elif change < 0.3 and key != "":
        del holder[key]
    elif change < 0.4 and isinstance(holder, dict) and key != "":
        holder[rng.choice(["", "x", "grid", "__class__", "a\nb"])] = holder.pop(key)
    else:
        holder[key] = "@@"
    root = holder[""] if key == "" else root
    return json.dumps(root).replace('"@@"', rng.choice(JSON_VALUES)).encode()


def json_places(value: object) -> list[tuple]:
    """Every (container, key) below a value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in list(keys) for found in ((value, key), *json_places(value[key]))]


def set_cell(content: bytes, rng: random.Random) -> bytes:
    """A change of a table's structure, or of one cell; what is no table any more stays as it is."""
    rows = [line.split(",") for line in content.decode(errors="replace").split("\n")]
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    change = rng.randrange(9)
    if change == 0:  # a column is missing
        rows = [cells[:column] + cells[column + 1 :] for cells in rows]
    elif change == 1:  # its name only
        rows[0] = rows[0][:column] + rows[0][column + 1 :]
    elif change == 2:  # a cell too many
        rows[row].insert(column, rng.choice(["", "1", "x"]))
    elif change == 3:  # a row twice
        rows.insert(row, list(rows[rng.randrange(len(rows))]))
    elif change == 4:  # a name twice
        rows[0].append(rows[0][column])
    elif change == 5:  # two rows exchanged, the header perhaps
        other = rng.randrange(len(rows))
        rows[row], rows[other] = rows[other], rows[row]
    elif change == 6:  # a row is missing
        del rows[row]
    else:
        text = rng.choice(CELLS)
        rows[row][min(column, len(rows[row]) - 1)] = text.decode("latin-1") if isinstance(text, bytes) else text
    return "\n".join(",".join(cells) for cells in rows).encode()


BYTES = (flip, truncate, insert, duplicate, remove, blank)
BINARY = (*BYTES, set_number, set_number, set_float)
TEXT = (*BYTES, set_text, set_text)
JSON = (*TEXT, *[set_json] * 10)
TABLE = (*TEXT, *[set_cell] * 10)


def mutate(content: bytes, how: tuple[Callable, ...], rng: random.Random) -> bytes:
    """One mutation, sometimes two or three; never the content itself, never empty before the last."""
    result = content
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        result = rng.choice(how)(result, rng) if result else result
    return result if result != content else flip(content, rng)


# What commands do with their inputs


def use_cohort(path: Path) -> None:
    """As `check` and training do: everything is read."""
    opened = open_cohort(path, is_sealed=False)
    every = range(len(opened.rows))
    for text in check.full(opened).lines():
        assert text, "an empty finding"
        assert len(text.splitlines()) == 1, f"a finding of several lines: {text!r}"
    assert len(opened.digest) == 64
    opened.batch(every, volumes=False)
    opened.batch(every)
    _ = opened.covariates
    if opened.raw_phenotype is not None:
        resplit(opened, {row.subject: "test" if row.subject == "1" else "train" for row in opened.rows}).batch(every)


def use_sums(folder: Path) -> None:
    """As `check` and `pack` do."""
    use_cohort(folder)
    check_sums(open_cohort(folder, is_sealed=False).paths)


def use_table(folder: Path, columns: SourceOptions, phenotype: tuple[str, ...] | None) -> None:
    """As a conversion does before it reads maps."""
    source = read_source(folder, columns)
    label = source.subjects["label"].to_numpy()
    check_coding(source.rows, label, source.label_column)
    if len(label):
        check_columns(source.rows, {"--phenotype": phenotype or ()}, source.table)
        options = ConversionOptions(grid="reduced", phenotype=phenotype)
        options = dataclasses.replace(options, covariates=covariate_columns(source, options))
        plan(source.subjects, source.rows, options, {})


def use_checkpoint(folder: Path) -> None:
    """As a test does: its identity, hyper-parameters, digest and weights; then as a training that is continued."""
    from utils.training.network import Saver, restore_weights
    from utils.training.train import earlier_history

    checkpoints = CheckpointFolder(folder)
    identity = checkpoints.identity()
    if identity is None:
        raise InputError("There is no checkpoint.")
    model = MODELS["nn"]
    config = model.settings(identity.config)
    assert len(checkpoints.digest()) == 64
    earlier_history(folder / "history.csv", 1)
    if sum(config.phenotype_units) < 100:  # a damaged identity may describe another network than the weights are of
        network, optimizer = network_of(config)
        restore_weights(checkpoints, network)
        assert Saver(checkpoints, network, optimizer).restore() >= 0


@functools.cache
def network_of(config):
    """One network for all trials, since building it takes longest."""
    import keras

    network = MODELS["nn"].module.build(config, records.REDUCED)
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    return network, optimizer


def tiny():
    return MODELS["nn"].module.Config(phenotype_units=(2,))


def use_results(folder: Path) -> None:
    """As a test does where an earlier one left results."""
    Results(folder, "test", "nn", ()).own_files()


# Inputs: (folder to make, name of the file in it to mutate) and what is done with it


@dataclasses.dataclass(frozen=True)
class Kind:
    """`make(folder)` writes an input, `use(folder)` reads it after its file `name` was mutated in the ways `how`."""

    name: str
    how: tuple[Callable, ...]
    make: Callable[[Path], object]
    use: Callable[[Path], object] = use_cohort

    def damage(self, content: bytes, rng: random.Random) -> bytes:
        """Of compressed files, every other is mutated before compression."""
        if self.name.endswith(".gz") and rng.random() < 0.5:
            return gzip.compress(mutate(gzip.decompress(content), self.how, rng), 1)
        return mutate(content, self.how, rng)


def make_bare(folder: Path) -> None:
    folder.mkdir()
    (folder / "1.bin").write_bytes(compressible(1))


def make_chunks(folder: Path) -> None:
    write_small(folder.with_name("source"))
    pack.pack(open_cohort(folder.with_name("source")), folder, "zip")


def make_map(suffix: str, labels: bool = False) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        values = brain_map((8, 9, 8), 0)
        image = nibabel.Nifti1Image(np.ceil(3 * values) if labels else values, COARSE)
        image.header["sform_code"] = 4
        content = image.to_bytes()
        (folder / f"map{suffix}").write_bytes(gzip.compress(content, 1, mtime=0) if suffix == ".nii.gz" else content)
        if labels:
            (folder / "map.txt").write_text("1 Frontal_L\n2 Frontal R\n3 Insula_L\n")

    return make


def read_one(path: Path) -> nibabel.Nifti1Image:
    return next(read_maps([MapOnDisk(path)]))


def use_map(suffix: str) -> Callable[[Path], None]:
    """Resampling takes most of the time, so every fourth only is resampled."""
    numbers = iter(range(10**6))
    return lambda folder: (read_one if next(numbers) % 4 else load_map)(folder / f"map{suffix}")


@functools.cache
def map_content() -> bytes:
    return nibabel.Nifti1Image(brain_map((8, 9, 8), 0), COARSE).to_bytes()


def make_own_table(folder: Path) -> None:
    folder.mkdir()
    random_ = random.Random(0)
    rows = []
    for subject in range(1, 25):
        (folder / f"fALFFMap_{subject}.nii").write_bytes(map_content())
        age, hand = random_.choice(["12.5", "30", "-9999", ""]), random_.choice(["R", "L", "`"])
        rows.append({"ID": subject, "DX": 1 + subject % 2, "SITE_ID": "a b", "age": age, "hand": hand})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)


def make_abide_table(folder: Path) -> None:
    folder.mkdir()
    rows = pcp_table()
    for row in rows:
        (folder / f"{row['FILE_ID']}_falff.nii").write_bytes(map_content())
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)


def make_checkpoint(folder: Path) -> None:
    from utils.training.network import Saver

    folder.mkdir()
    preparation = Preparation(maps=("falff",), phenotype_mean=(0.5, float("nan")))
    identity = an_identity(config=dataclasses.asdict(tiny()), preparation=preparation)
    Saver(CheckpointFolder(folder), *network_of(tiny())).save(1, identity)
    (folder / "history.csv").write_text("step,loss,accuracy,samples_per_s\n1,0.69,0.5,100.0\n2,0.68,0.6,99.5\n")


def make_results(folder: Path) -> None:
    folder.mkdir()
    (folder / "regions.csv").write_text("region\n")
    Results(folder, "test", "nn", ("*.csv",)).write({}, finished=True)


def make_side_tables(folder: Path) -> None:
    write_small(folder)
    small, names = open_cohort(folder), [f"value_{number}" for number in range(29)]
    write_tables(folder, small.rows, dataclasses.replace(small.metadata, phenotype=tuple(names)))
    (folder / "seal.json").unlink()
    rows = [[str(number), *[f"{number / 7:.3g}"] * 28, ""] for number in (1, 2, 3, 5)]
    (folder / "phenotype.csv").write_text("\n".join(map(",".join, [["subject", *names], *rows])) + "\n")
    (folder / "covariates.csv").write_text("subject,SITE_ID\n1,NYU\n2,KKI\n3,NYU\n5,\n")


def make_small(folder: Path) -> None:
    """Without a seal, so that what is damaged is read and not only compared."""
    write_small(folder)
    (folder / "seal.json").unlink()


SMALL = make_small
CHECKPOINT = {"make": make_checkpoint, "use": use_checkpoint}
OWN = SourceOptions(label_column="DX", positive="1")
KINDS = {
    "record": Kind("1.bin", BINARY, make_bare),
    "zip chunk": Kind("compressed_0", BINARY, make_chunks),
    "subjects.csv": Kind("subjects.csv", TABLE, SMALL),
    "cohort.json": Kind("cohort.json", JSON, SMALL),
    "covariates.csv": Kind("covariates.csv", TABLE, make_side_tables),
    "phenotype.csv": Kind("phenotype.csv", TABLE, make_side_tables),
    "digests.csv": Kind("digests.csv", TABLE, SMALL),
    "SHA256SUMS": Kind("SHA256SUMS", TEXT, SMALL, use_sums),
    "map.nii": Kind("map.nii", BINARY, make_map(".nii"), use_map(".nii")),
    "map.nii.gz": Kind("map.nii.gz", BINARY, make_map(".nii.gz"), use_map(".nii.gz")),
    "atlas": Kind(
        "map.nii", BINARY, make_map(".nii", True), lambda folder: atlas.load_atlas(folder / "map.nii", records.FULL)
    ),
    "names of an atlas": Kind(
        "map.txt", TEXT, make_map(".nii", True), lambda folder: atlas.load_atlas(folder / "map.nii", records.FULL)
    ),
    "own table": Kind("table.csv", TABLE, make_own_table, lambda folder: use_table(folder, OWN, ("age", "hand"))),
    "ABIDE's table": Kind(
        "table.csv", TABLE, make_abide_table, lambda folder: use_table(folder, SourceOptions(), None)
    ),
    "results": Kind("run.json", JSON, make_results, use_results),
    "identity": Kind("run.json", JSON, **CHECKPOINT),
    "checkpoint": Kind("checkpoint", TEXT, **CHECKPOINT),
    "index": Kind("ckpt-1.index", BINARY, **CHECKPOINT),
    "weights": Kind("ckpt-1.data-00000-of-00001", BINARY, **CHECKPOINT),
    "history.csv": Kind("history.csv", TABLE, **CHECKPOINT),
}


# The process


class TooLong(BaseException):
    """No library may catch it."""


def too_long(*_) -> None:
    raise TooLong(f"more than {SECONDS} s")


def outcome_of(use: Callable[[Path], object], folder: Path) -> str:
    """`success`, `error`, or what went wrong."""
    before = listing(folder)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    try:
        with redirect_stdout(io.StringIO()):
            use(folder)
        outcome = "success"
    except InputError as error:
        text = str(error)
        outcome = "error" if text and len(text.splitlines()) == 1 else f"an error of several lines: {text!r}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error!s:.300}"
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    return outcome if listing(folder) == before else f"something was written, and {outcome}"


def run_kind(kind: Kind, name: str, home: Path, seed: int, count: int) -> Counter:
    """Outcomes; the inputs depend on the seed only, and a bad one is left in `home`."""
    found = Counter()
    home.mkdir()
    kind.make(home / "base")
    content = (home / "base" / kind.name).read_bytes()
    assert outcome_of(kind.use, home / "base") == "success", outcome_of(kind.use, home / "base")
    for number in range(count):
        folder = home / str(number)
        shutil.copytree(home / "base", folder)
        (folder / kind.name).write_bytes(kind.damage(content, random.Random(f"{seed} {name} {number}")))
        outcome = outcome_of(kind.use, folder)
        found[outcome] += 1
        if outcome in ("success", "error"):
            shutil.rmtree(folder)
        else:
            print(f"BAD {folder}: {outcome}", flush=True)
    return found


def limit_memory() -> None:
    """Lets this process allocate 2 GB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def import_tensorflow() -> None:
    """As run.py does, before memory is limited and warnings are errors."""
    from utils.machines import devices

    with redirect_stdout(io.StringIO()), devices.only_errors():
        devices.choose_device(share=False)
        importlib.import_module("utils.training.train")
        network_of(tiny())


def main() -> int:
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    kinds = {name: KINDS[name] for name in sys.argv[4:] or KINDS}
    import_tensorflow()
    check.atlas.load_atlas = functools.lru_cache(4)(atlas.load_atlas)  # AAL on the grids; atlases fill the memory
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, too_long)
    limit_memory()
    found = {
        name: run_kind(kind, name, folder / str(number), seed, count)
        for number, (name, kind) in enumerate(kinds.items())
    }
    for name, outcomes in found.items():
        print(f"{name}: {outcomes['success']} read, {outcomes['error']} refused")
    total = sum(outcomes.total() for outcomes in found.values())
    bad = total - sum(outcomes["success"] + outcomes["error"] for outcomes in found.values())
    print(f"{total} mutated inputs, {bad} accidents")
    return 1 if bad else 0


@pytest.mark.slow
def test_mutated_inputs_are_read_or_refused_in_one_line(tmp_path, capsys):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, __file__, str(tmp_path), "0", str(COUNT)]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stdout[-5000:] + finished.stderr[-3000:]
    lines = finished.stdout.splitlines()
    with capsys.disabled():
        print(f"\n{lines[-1]}")
    assert int(lines[-1].split()[0]) == COUNT * len(KINDS)
    for name in KINDS:
        [line] = [line for line in lines if line.startswith(f"{name}: ")]
        read, refused = map(int, re.fullmatch(r".*: (\d+) read, (\d+) refused", line).groups())
        assert read + refused == COUNT
        assert refused > 0 or name in (
            "history.csv",
            "results",
            "checkpoint",
        )  # what cannot be read of these is left out


@pytest.mark.parametrize("units", [(), (2, 2), (3,)])
def test_weights_of_another_network_are_refused(units, tmp_path):
    """As where files were mixed up; for use and to go on training."""
    from utils.training.network import Saver, restore_weights

    make_checkpoint(tmp_path / "nn")
    network, optimizer = network_of(MODELS["nn"].module.Config(phenotype_units=units))
    checkpoints = CheckpointFolder(tmp_path / "nn")
    words = (
        r"ckpt-1 has weights of another network .* were files mixed up\? Train again: run\.py --train --overrideChkpt"
    )
    for restore in (lambda: restore_weights(checkpoints, network), Saver(checkpoints, network, optimizer).restore):
        with pytest.raises(InputError, match=words):
            restore()


if __name__ == "__main__":
    sys.exit(main())
