"""What tests share: records and folders made up, command lines run in-process, files read back."""

import csv
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest

from data.cohorts import connectomes, records
from data.cohorts.cohort import Cohort
from data.cohorts.nifti import MapOnDisk, on_full_grid, read_brains
from data.cohorts.records import Digests
from data.cohorts.rows import Metadata, Preparation, Row
from data.cohorts.seal import Seal, read_digests
from data.cohorts.stored import open_cohort, write_tables
from models import MODELS
from run import parser
from utils.jobs import JOBS, TRAIN
from utils.runs.checkpoints import CheckpointFolder, Choices, Identity
from utils.runs.run import Options, Run
from utils.runs.validate import Request, request

ROOT = Path(__file__).parent.parent


LAS_6MM = np.array([[-6.0, 0, 0, 90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])


LAS_3MM = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


TINY_CNN = (
    *("--preset", "residual"),
    *("--set", "filters=2,3", "--set", "kernels=3,3", "--set", "strides=3,2", "--set", "pools=0,0"),
)


TINY_NN = ("--set", "members=1")  # what takes time is building networks


SMALL_BATCH = ("--set", "batch_size=8")


DENSE = ["phenotype_units=32,16", "phenotype_activation=relu", "batch_norm=true", "l2=0.001", "members=1"]  # of a nn


def settings(of: Sequence[str]) -> list[str]:
    """The words of a command line."""
    return [word for text in of for word in ("--set", text)]


# TensorFlow cannot compute in bfloat16 where oneDNN is capped (`devices.check_bfloat16`).
HALF = "mixed_float16" if "ONEDNN_MAX_CPU_ISA" in os.environ else "mixed_bfloat16"


SMALL = {"cnn": TINY_CNN + SMALL_BATCH, "mmnn": TINY_CNN + SMALL_BATCH, "nn": TINY_NN + SMALL_BATCH, "ae": SMALL_BATCH}


def load_map(path: Path) -> np.ndarray:
    """A 3-D map on the full grid."""
    return on_full_grid(next(read_brains([MapOnDisk(path)])), "linear")


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status and what it printed."""

    status: int
    out: str
    err: str


def run_main(module: str, argv0: str, arguments: Sequence) -> Outcome:
    """Runs the `main` of a module as its command line would."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [argv0, *map(str, arguments)])
        try:
            status = importlib.import_module(module).main()
        except SystemExit as exit_:
            status = exit_.code
    return Outcome(status, out.getvalue(), err.getvalue())


def run_script(script: Path, arguments: Sequence) -> Outcome:
    """Runs a script as a command line; fresh processes that it starts import it, too."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


class Page(HTMLParser):
    """An HTML page: `tags` and `attributes` in their order, `text` in all and `named` by the element's id, `scripts`
    (empty for data), `terms` that are explained, and by the `headings` (h2) above them `paragraphs` and `rows` of
    tables, each a list of cells.
    """

    VOID = ("meta", "link", "br", "hr", "img", "input")  # elements that have no end

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.named, self.scripts, self.terms = [], [], "", {}, [], []
        self.headings, self.paragraphs, self.rows, self.open = [], {"": []}, {"": []}, []
        self.feed(text)

    @property
    def table(self) -> list[list[str]]:
        """The rows of all tables."""
        return [row for rows in self.rows.values() for row in rows]

    @property
    def heading(self) -> str:
        return self.headings[-1] if self.headings else ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))
        if tag == "h2":
            self.headings.append("")
        elif tag == "p":
            self.paragraphs.setdefault(self.heading, []).append("")
        elif tag == "tr":
            self.rows.setdefault(self.heading, []).append([])
        elif tag in ("th", "td"):
            self.rows[self.heading][-1].append("")
        elif tag == "script":
            self.scripts.append("")
        elif tag == "dt":
            self.terms.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.text += data
        tag, attributes = self.open[-1] if self.open else ("", {})
        if "id" in attributes:
            self.named[attributes["id"]] = self.named.get(attributes["id"], "") + data
        if tag == "h2":
            self.headings[-1] += data
        elif tag == "p":
            self.paragraphs[self.heading][-1] += data
        elif tag in ("th", "td") or attributes.get("class") == "sort":
            self.rows[self.heading][-1][-1] += data.strip()
        elif tag == "small":
            self.rows[self.heading][-1][-1] += f" ({data})"
        elif tag == "script" and "type" not in attributes:
            self.scripts[-1] += data
        elif tag == "dt":
            self.terms[-1] += data


def training(folder: Path, cohort: Path, model: str, iterations: int, *more: object) -> list[str]:
    """The arguments of run.py that train a tiny network, or one of the preset in `more`, with all in `folder`."""
    small = SMALL_BATCH if "--preset" in more else SMALL[model]
    places = ("--chkPointDir", folder / "ckpt", "--outDir", folder / "out", "--dataDir", cohort)
    return [str(word) for word in ("--train", "--model", model, "--numIters", iterations, *places, *small, *more)]


def commands_of(folder: Path, *commands: Sequence) -> Path:
    """A file of command lines of run.py for `start_worker`."""
    folder.mkdir(exist_ok=True)
    path = folder / "commands.json"
    path.write_text(json.dumps([[str(word) for word in command] for command in commands]))
    return path


def start_worker(commands: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """A process that runs the command lines one after another, see `worker.py`."""
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "worker.py", *options, commands],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def small_record(label: float = 1.0, seed: int = 0) -> bytes:
    """A record on the reduced grid with random content."""
    random = np.random.default_rng(seed)
    return bytes(records.pack(label, random.normal(size=29), random.normal(size=records.REDUCED.shape)))


def bare_records(subjects: Sequence[int]) -> dict[str, bytes]:
    """File name -> record, labels alternating."""
    return {f"{subject}.bin": small_record(index % 2, subject) for index, subject in enumerate(subjects)}


def write_bare(folder: Path, members: dict[str, bytes]) -> Path:
    """A new folder of records, or of other files."""
    folder.mkdir()
    for name, content in members.items():
        (folder / name).write_bytes(content)
    return folder


def compressible(subject: int) -> bytes:
    """A record that is mostly background, so that its files are mostly structure."""
    volume = np.full(records.REDUCED.shape, -0.4, "<f4")
    volume[5:9, 5:9, 5:9] = np.random.default_rng(subject).normal(size=(4, 4, 4))
    return bytes(records.pack(subject % 2, np.arange(29), volume))


def write_small(folder: Path) -> None:
    """Four compressible records with their tables and sums."""
    folder.mkdir(parents=True)
    for subject in (1, 2, 3, 5):
        (folder / f"{subject}.bin").write_bytes(compressible(subject))
    bare = open_cohort(folder)
    write_tables(folder, bare.rows, Metadata(grid=(31, 37, 31), phenotype=("age",), provenance={"seed": 0}))


def read_rows(path: Path) -> list[dict]:
    """A CSV file as a list of dictionaries."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict], bom: bool = False, line_end: str = "\n") -> None:
    """Writes a list of dictionaries as CSV, or as TSV by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


def brain_map(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """An ellipsoid of random values between 0.2 and 1 in a background of 0, (x, y, z) float32."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    values = np.random.default_rng(seed).uniform(0.2, 1, shape).round(2)
    return np.where(sum(np.square(axes)) < 0.8, values, 0).astype(np.float32)


def row(subject: str = "1", label: float = 1.0, split: str = "train", **more: str) -> Row:
    """A row of `subjects.csv`."""
    return Row(**{"file": f"{subject}.bin", "subject": subject, "site": "NYU", "label": label, "split": split} | more)


def cohort_of(*rows: Row, grid: records.Grid = records.REDUCED, **metadata) -> Cohort:
    """A cohort of rows without records, whose volumes are made up of the subjects' names."""
    digests = tuple(Digests(sha256(f"header {of.file}"), sha256(f"scan {of.subject}")) for of in rows)
    said = Metadata(**metadata)
    return Cohort(Path("cohort"), grid, rows, (), said, seal=Seal(digests), groups=said.groups)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def an_identity(**changes) -> Identity:
    """The identity of a nn that has seen no batch."""
    of_nn = {"model": "nn", "preset": "sine", "config": {}, "grid": None, "seed": 0, "precision": "float32"}
    of_data = {"cohort": "cohort", "cohort_sha256": "c" * 64, "out_dir": "out"}
    of_data |= {"records_sha256": "", "preparation": Preparation(), "num_maps": 1}
    subjects = {"training_subjects": ("1", "2"), "training_volumes": ("scan of 1", "scan of 2")}
    subjects |= {"encoder_subjects": (), "encoder_volumes": (), "everybody": False, "internal": None}
    return Identity(**of_nn | of_data | subjects | changes)


def run_of(model: str = "nn", cohort: Cohort | None = None, folder: Path = Path("made/up"), **choices) -> Run:
    """A training of the default preset, on people without connectomes."""
    preset, config = next(iter(MODELS[model].module.PRESETS.items()))
    config = replace(config, **dict.fromkeys(MODELS[model].optional, False))
    chosen = {"preset": preset, "config": asdict(config), "grid": None, "seed": 0, "precision": "float32"}
    return Run(
        job=TRAIN,
        choices=Choices(model=model, **chosen | choices),
        config=config,
        options=Options(),
        cohort=cohort or cohort_of(),
        data_dir=None,
        checkpoints=CheckpointFolder(folder / "ckpt" / model),
        out_dir=folder / "out",
        num_iters=1,
    )


def flip_a_bit(path: Path, at: int | None = None) -> None:
    """Damages a file in its middle, or at a byte; of a record it is the lowest bit of a value, which nothing else can
    tell."""
    content = bytearray(path.read_bytes())
    content[len(content) // 8 * 4 if at is None else at] ^= 1
    path.write_bytes(content)


def requested(words: str) -> Request:
    """What a command line of run.py asks for, with its options checked."""
    top = parser()
    args = top.parse_args(words.split())
    given = {name for name, value in vars(args).items() if value != top.get_default(name)}
    return request(args, given, JOBS.values())


def variables(folder: Path) -> dict[str, np.ndarray]:
    """Everything in the latest checkpoint, weights, optimizer and step, but for the number of saves."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(CheckpointFolder(folder).latest()))
    names = [name for name in reader.get_variable_to_shape_map() if "save_counter" not in name]
    return {name: reader.get_tensor(name) for name in names if "OBJECT_GRAPH" not in name}


def step_of(folder: Path) -> int:
    """How many batches the latest checkpoint has seen."""
    return int(variables(folder)["step/.ATTRIBUTES/VARIABLE_VALUE"])


def assert_bit_equal(one: Path, other: Path) -> None:
    """Fails unless the latest checkpoints of two folders hold the same."""
    first, second = variables(one), variables(other)
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def without_speed(path: Path) -> list[dict]:
    """A `history.csv` but for what no two trainings share."""
    return [{name: value for name, value in row.items() if name != "samples_per_s"} for row in read_rows(path)]


PCP_ROWS = [
    # AGE, SEX, HANDEDNESS_CATEGORY, HANDEDNESS_SCORES, FIQ, VIQ, PIQ, FIQ_TEST_TYPE, EYES, BMI, VCI, PRI, WMI, PSI
    ("12.5", "1", "R", "80", "110", "112", "108", "WASI", "1", "", "", "", "", ""),
    ("9.25", "2", "L", "-9999", "98", "-9999", "101", "WISC_IV_FULL", "2", "", "101", "99", "95", "90"),
    ("33", "1", "Ambi", "-20", "-9999", "`", "", "", "1", "24.5", "", "", "", ""),
    ("17.1", "1", "Mixed", "", "121", "119", "117", "WAIS_III", "1", "-9999", "", "", "", ""),
    ("21", "1", "L->R", "15", "87", "90", "86", "DAS_II_SA", "2", "31", "", "", "", ""),
    ("14", "2", "", "-9999", "105", "100", "109", "HAWIK_IV", "1", "", "111", "104", "88", "-9999"),
]


PCP_COLUMNS = [
    *("AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY", "HANDEDNESS_SCORES", "FIQ", "VIQ", "PIQ", "FIQ_TEST_TYPE"),
    *("EYE_STATUS_AT_SCAN", "BMI", "WISC_IV_VCI", "WISC_IV_PRI", "WISC_IV_WMI", "WISC_IV_PSI"),
]


PCP_SUBJECTS = 12


PCP_NO_FILENAME = "50098"


PCP_NO_MAP = "50099"


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


def write_pcp(folder: Path, orientation: str = "LAS") -> Path:
    """Writes the layout of nilearn's fetch_abide_pcp: 3 mm for the first subject, 6 mm (faster) for the others."""
    maps = folder / "ABIDE_pcp" / "cpac" / "nofilt_noglobal"
    maps.mkdir(parents=True)
    table = pcp_table()
    with open(maps.parent.parent / "Phenotypic_V1_0b_preprocessed1.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    for number, row in enumerate(table[:PCP_SUBJECTS]):
        shape, affine = ((31, 37, 31), LAS_6MM) if number else ((61, 73, 61), LAS_3MM)
        image = nibabel.Nifti1Image(brain_map(shape, number), affine)
        if orientation == "RAS":
            image = nibabel.as_closest_canonical(image)
        nibabel.save(image, maps / f"{row['FILE_ID']}_falff.nii.gz")
    return folder


NAN = float("nan")
BY_HAND = [
    # age, male, female, right, left, ambidextrous, mixed, score, FIQ, VIQ, PIQ,
    # missing: handedness, score, FIQ, VIQ, PIQ, WISC, BMI; test: WASI, WISC, WAIS, other; WISC x 4; open, closed; BMI
    [12.5, 1, 0, 1, 0, 0, 0, 80, 110, 112, 108, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, *[NAN] * 4, 1, 0, NAN],
    [9.25, 0, 1, 0, 1, 0, 0, NAN, 98, NAN, 101, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 101, 99, 95, 90, 0, 1, NAN],
    [33, 1, 0, 0, 0, 1, 0, -20, NAN, NAN, NAN, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, *[NAN] * 4, 1, 0, 24.5],
    [17.1, 1, 0, 0, 0, 0, 1, NAN, 121, 119, 117, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, *[NAN] * 4, 1, 0, NAN],
    [21, 1, 0, 0, 0, 0, 1, 15, 87, 90, 86, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[NAN] * 4, 0, 1, 31],
    [14, 0, 1, 0, 0, 0, 0, NAN, 105, 100, 109, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 111, 104, 88, NAN, 1, 0, NAN],
]


COARSE = np.array([[-24.0, 0, 0, 84], [0, 24, 0, -120], [0, 0, 24, -66], [0, 0, 0, 1]])


def region_means(regions, volumes) -> np.ndarray:
    """Volumes (n, x, y, z, maps) -> the mean of each map in each region of an atlas, (n, regions, maps) float64."""
    found = [volumes[:, regions.labels == region].mean(1, dtype=float) for region in regions.regions]
    return np.stack(found, axis=1)


def add_connectomes(folder: Path, parcels: int = 8, image: np.ndarray | None = None, difference: float = 0.5) -> Cohort:
    """Gives the cohort in a folder connectomes of random edges, one in ten of which are unknown; the first three edges
    of people with autism are larger by `difference`."""
    cohort, names = open_cohort(folder), tuple(f"#{number}" for number in range(1, parcels + 1))
    label = {row.subject: row.label for row in cohort.rows}
    edges = np.random.default_rng(5).normal(0, 0.3, (len(label), connectomes.edges_of(parcels)))
    edges[:, :3] += difference * np.array([*label.values()])[:, None]
    edges[:, 3:][np.random.default_rng(6).random(edges[:, 3:].shape) < 0.1] = np.nan
    connectomes.write(folder / connectomes.CONNECTOMES, [*label], names, image, edges.astype(np.float32))
    known = {"connectome": "rois_test", "parcels_sha256": connectomes.parcels_sha256(names, image)}
    write_tables(folder, cohort.rows, replace(cohort.metadata, **known))
    return open_cohort(folder)


def fills_of(cohort, atlas, tested: np.ndarray, options, seed: int = 0):
    """What replaces the regions of tested records in a blackout with these options."""
    from utils.blackout.donors import Donors
    from utils.blackout.fills import Fills

    return Fills(cohort, atlas, Donors(cohort, np.asarray(tested), options.donors, seed), options, seed)


def effects_of(rows: Sequence[Row], regions: int, **arrays: np.ndarray):
    """Effects of a blackout, made up: those that are not given are 0."""
    from utils.blackout.effects import ARRAYS, Effects

    nothing = np.zeros((len(rows), regions))
    made = dict.fromkeys(ARRAYS[: ARRAYS.index("pair_reliance")], nothing)
    made |= {"reliance_by_map": np.zeros((len(rows), regions, 0)), "region_means": np.zeros((len(rows), regions, 1))}
    return Effects(made | {"probability": np.full(len(rows), 0.5)} | arrays, rows)


def family_of(effects, effect: np.ndarray, adjusted=None):
    """Things of these effects (subjects, things), of whom no values are known; `adjusted` gives the effects beside
    covariates."""
    from utils.blackout.effects import Adjusted
    from utils.blackout.families import Family, People
    from utils.scores.adjustment import Adjustment

    label, site = effects.of_subjects(effects.label), np.full(len(effect), "A")
    plain = Adjusted(Adjustment(reason="none"), label)
    people = People(label, site, site, effects.unit, adjusted or plain, True, 0)
    return Family("things", [""] * effect.shape[1], effect, np.full(effect.shape, np.nan), people)


def region_table_of(atlas, effects, adjusted=None):
    """The table of regions of effects made up."""
    from utils.blackout.tables import region_table

    return region_table(atlas, effects, family_of(effects, effects.of_subjects(effects["reliance"]), adjusted))


def resealed(folder: Path) -> Path:
    """The folder with a seal over what a test has changed in it, as if it had been written so."""
    origins = {name: of.origin for name, of in (read_digests(folder) or {}).items()}
    for name in ("seal.json", "digests.csv", "SHA256SUMS"):
        (folder / name).unlink(missing_ok=True)
    cohort = open_cohort(folder, is_sealed=False)
    write_tables(folder, cohort.rows, cohort.metadata, origins)
    return folder


def listing(folder: Path) -> dict[Path, tuple]:
    """All that lies in a folder: size and time of change of each."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}
