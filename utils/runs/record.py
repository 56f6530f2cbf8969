"""What a run leaves of itself: its `Manifest`, as `run.json` in the folder of its results and beside each checkpoint;
and the one question that a later run asks of it: is this done?"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.listing import join_names
from data.cohorts.metadata import Preparation
from data.cohorts.problems import Problem
from data.tables.vocabulary import SITE_UNKNOWN_MARK
from utils.runs.cross_validation import CrossValidation
from utils.runs.statements import (
    BlackoutStatement,
    BundleStatement,
    CandidateChoice,
    EncodeStatement,
    PermutationResult,
    TestStatement,
)

MANIFEST_FILE = "run.json"
EARLIER_FOLDER = "earlier"  # the folder in results that holds those before, by the time when they were written
CHECKPOINT_RESULTS_FILE = "checkpoint_results.csv"
CUMULATIVE_FILES = (EARLIER_FOLDER, CHECKPOINT_RESULTS_FILE, files.LEDGER_FILE)  # what grows from run to run
FOLD_FOLDER_PATTERN = re.compile(r"(fold|repeat)-.*")  # folders of parts of a run
DIGESTED_SUFFIXES = (".csv", ".json")  # what later runs read: known by digest, other files by size


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What decides, on given data, what a predictor says, and the words for it; see `Predictor`."""

    model: str  # its name
    preset: str  # name of a preset; of a pooled run several, with commas; empty if it is no network
    config: dict[str, Any]  # hyper-parameters
    grid: str | None  # None if it reads no volumes
    seed: int
    precision: str  # of the layers, such as float32
    noun: str = "network"  # what pages call it
    input_names: tuple[str, ...] = ()  # what it reads, of `volume`, `phenotype`, `connectome`; empty if unknown
    methods_sentences: str = ""  # for the methods of a paper, if it is no network
    training_sentence: str = ""  # what must be said of who trained it, if that is not known

    @property
    def is_network(self) -> bool:
        return self.noun == "network"

    @property
    def deciding_fields(self) -> dict[str, Any]:
        """Those that decide what it says."""
        deciding_names = ("model", "preset", "config", "grid", "seed", "precision")
        return {field_name: getattr(self, field_name) for field_name in deciding_names}


@dataclass(frozen=True, kw_only=True)
class Caveats:
    """What must stand beside every result: simulated people, permuted labels, problems, accepted leaks."""

    simulated: bool = False
    control_seed: int | None = None  # that has permuted the labels; None if they are the true ones
    problems: tuple[Problem, ...] = ()  # what invalidates results, see `Cohort.find_problems`
    accepted_leaks: tuple[str, ...] = ()  # those of --allowLeak
    transductive: bool = False  # tested people, too, standardised the volumes of their site
    unknown_site: bool = False  # of everybody

    @property
    def caveat_marks(self) -> str:
        """` (SIMULATED, PROBLEMS: 2)` for titles and terminals, or nothing."""
        is_active_by_mark = {
            "SIMULATED": self.simulated,
            "CONTROL": self.is_control,
            f"PROBLEMS: {len(self.problems)}": self.problems,
            "LEAK ACCEPTED": self.accepted_leaks,
            "TRANSDUCTIVE": self.transductive,
            SITE_UNKNOWN_MARK: self.unknown_site,
        }
        active_marks = [mark_text for mark_text, is_active in is_active_by_mark.items() if is_active]
        return f" ({', '.join(active_marks)})" if active_marks else ""

    @property
    def is_control(self) -> bool:
        return self.control_seed is not None

    @property
    def problem_texts(self) -> tuple[str, ...]:
        """Sentences on the problems."""
        return tuple(problem.text for problem in self.problems)

    @property
    def key_fields(self) -> dict[str, Any]:
        """What enters the key of a run: all but sentences, which may be worded otherwise, and the seed of a control,
        which is an option of the job."""
        key_fields = asdict(self) | {"problems": [problem.code for problem in self.problems]}
        del key_fields["control_seed"]
        return key_fields

    @property
    def active_caveat_by_field(self) -> dict[str, Any]:
        """The caveats that hold, for JSON, without those that the cohort's metadata holds itself."""
        caveat_by_field = {
            "control": self.is_control,
            "problems": self.problem_texts,
            "transductive": self.transductive,
            "unknown_site": self.unknown_site,
        }
        return {field_name: caveat for field_name, caveat in caveat_by_field.items() if caveat}


@dataclass(frozen=True, kw_only=True)
class TrainingPeople:
    """Who trained a network, and the encoder of its volumes: IDs, and the scans of these, see
    `Cohort.collect_scan_digests`."""

    subjects: tuple[str, ...] = ()  # IDs of those who trained the network
    scans: tuple[str, ...] = ()  # digests of their scans
    encoder_subjects: tuple[str, ...] = ()  # IDs of those who trained the encoder
    encoder_scans: tuple[str, ...] = ()  # digests of their scans
    scans_sha256: str = ""  # of all people of a bundle's cohort, who are not named; see `Cohort.compute_scans_sha256`


@dataclass(frozen=True, kw_only=True)
class Versions:
    """With what a run was done."""

    git_commit: str | None = None  # of this program, with -dirty for uncommitted changes; None outside a checkout
    processor: dict[str, Any] = field(default_factory=dict)  # see `devices.describe_processor`
    packages: dict[str, str] = field(default_factory=dict)  # version by name
    workers: int = 1  # processes that trained together
    replicas: int = 1  # devices that trained together


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known on disk of a run. Two runs of one `key` have the same results, if they use the same `weights`
    (SHA-256: of the network that was used or trained, of several by part) and have seen as many batches (`step`)."""

    job: str  # name of a `Job`
    key: str = ""  # SHA-256 of what decides the results, see `Run.run_key`
    finished: bool = False
    format: int = files.FORMAT_VERSION  # version of this file's format
    begun: str = ""  # of a training: tells those from zero apart
    settings: Choices | None = None
    candidates: tuple[str, ...] = ()  # among which inner folds chose the settings
    options: dict[str, Any] = field(default_factory=dict)  # of the job, those that decide the results
    folds: str | None = None  # the name of a `Division`
    fold: str | None = None  # its name; None: all folds, or no folds
    repeat: int = 0  # number, from 0
    repeats: int = 1  # how many
    everybody: bool = False  # whether the model is of all people of its cohort
    step: int = 0  # batches that the network has seen
    cohort: str = ""  # its absolute path
    cohort_sha256: str = ""
    maps: tuple[str, ...] = ()  # their names
    num_maps: int = 0  # maps of a record
    preparation: Preparation | None = None
    checkpoint_folder: str = ""
    weights: str | dict[str, str] | None = None  # SHA-256 of the network's weights; of several by fold
    shares: dict[str, float] = field(default_factory=dict)  # what each part counts, see `utils/training/shares.py`
    cross_validation: CrossValidation | None = None  # a test on folds that goes with a model of everybody
    caveats: Caveats = field(default_factory=Caveats)
    people: TrainingPeople | None = None  # of a checkpoint
    training_sha256: str = ""  # of a checkpoint, see `compute_training_sha256`; empty in those of earlier versions
    versions: Versions = field(default_factory=Versions)
    command: tuple[str, ...] = ()  # its words
    started: str = ""  # local time, ISO 8601
    wall_time_s: float | None = None  # of a training that was continued, of all its parts
    outputs: dict[str, str] = field(default_factory=dict)  # by path below the folder, see `fingerprint_file`
    headline: tuple[str, float | None, float | None, float | None] | None = None  # metric, value, low, high
    summary_rows: tuple[tuple[str, ...], ...] = ()  # what it printed of them, which the same command repeats
    # What the job says of its results
    choice: CandidateChoice | None = None  # of a training that chose among candidates
    test: TestStatement | None = None
    permutations: PermutationResult | None = None  # of a test
    blackout: BlackoutStatement | None = None
    encoding: EncodeStatement | None = None
    bundle: BundleStatement | None = None

    @property
    def model_name(self) -> str:
        return self.settings.model if self.settings else ""

    @property
    def flat_fields(self) -> dict[str, Any]:
        """The record without groups, and without what only a training, a blackout, an encoding or a bundle says."""
        flat_fields = asdict(self)
        for statement_name in ("choice", "blackout", "encoding", "bundle"):
            del flat_fields[statement_name]
        groups = [flat_fields.pop(group_name) for group_name in ("settings", "caveats", "versions", "test")]
        for group_fields in groups:
            flat_fields |= group_fields or {}
        return flat_fields


def compute_run_key(*key_inputs: object) -> str:
    """SHA-256 of what decides results."""
    return hashlib.sha256(files.format_json([files.FORMAT_VERSION, *key_inputs]).encode()).hexdigest()


def compute_training_sha256(manifest: Manifest) -> str:
    """SHA-256 of what decided a training until a checkpoint, by which an edited record is known."""
    return compute_run_key(
        manifest.settings and asdict(manifest.settings),
        manifest.candidates,
        manifest.folds,
        manifest.fold,
        manifest.repeat,
        manifest.everybody,
        manifest.cohort_sha256,
        manifest.step,
    )


def read_manifest(manifest_path: Path) -> Manifest | None:
    """The record in a folder of results, or in a file; None if there is none. Raises InputError for a damaged one, and
    for another format."""
    manifest_path = manifest_path / MANIFEST_FILE if manifest_path.is_dir() else manifest_path
    if not manifest_path.is_file():
        return None
    results_folder = manifest_path.parent
    if not results_folder.name:  # the working folder
        results_folder = results_folder.absolute()
    repeat_advice = f"move {results_folder} away and repeat the run"
    try:
        format_version = files.read_json(manifest_path, dict).get("format")
        files.check_format_version(manifest_path, format_version, repeat_advice)
        return files.read_json(manifest_path, Manifest)
    except InputError as error:
        raise InputError(f"{error} Or {repeat_advice}." if repeat_advice not in str(error) else str(error)) from error


def write_manifest(manifest_path: Path, manifest: Manifest) -> None:
    files.write_json(manifest_path, asdict(manifest))


def has_finished_results(
    results_folder: Path, run_key: str, weights_sha256: str | Mapping[str, str] | None, min_step: int
) -> bool:
    """Whether a folder holds the finished results of a run with this key, by these weights, of so many batches at
    least, as they were written."""
    manifest = read_manifest(results_folder / MANIFEST_FILE)
    if manifest is None or not manifest.finished:
        return False
    is_same_result = (manifest.key, manifest.weights) == (run_key, weights_sha256) and manifest.step >= min_step
    return is_same_result and not find_changed_outputs(results_folder, manifest)


def find_changed_outputs(results_folder: Path, manifest: Manifest) -> list[str]:
    """The outputs of a finished run that are gone, or not as it wrote them."""
    return [
        output_name
        for output_name, recorded_fingerprint in manifest.outputs.items()
        if fingerprint_file(results_folder / output_name) != recorded_fingerprint
    ]


def read_finished_manifest(results_folder: Path, expectation_text: str) -> Manifest:
    """The record of the finished run in a folder. Raises InputError, which says the `expectation_text`, unless the run
    is finished, and its outputs are as it wrote them."""
    if results_folder.is_file():
        raise InputError(f"{results_folder} is a file; {expectation_text}.")
    manifest = read_manifest(results_folder)
    if manifest is None or not manifest.finished:
        state_text = "is not finished" if results_folder.is_dir() else "is not there"
        raise InputError(f"{results_folder}: the run {state_text}; {expectation_text}. Repeat its command.")
    if changed_outputs := find_changed_outputs(results_folder, manifest):
        raise InputError(
            f"{results_folder}: {changed_outputs[0]} is not as it was written; {expectation_text}. Repeat the run."
        )
    return manifest


def fingerprint_outputs(results_folder: Path) -> dict[str, str]:
    """What a run wrote into its folder, which held nothing before; without the folders of parts."""
    top_output_paths = [
        output_path
        for output_path in list_run_files(results_folder)
        if output_path.name != MANIFEST_FILE and not FOLD_FOLDER_PATTERN.match(output_path.name)
    ]
    nested_output_paths = [
        output_path for top_path in top_output_paths if top_path.is_dir() for output_path in sorted(top_path.rglob("*"))
    ]
    return {
        str(output_path.relative_to(results_folder)): fingerprint_file(output_path) or ""
        for output_path in [*top_output_paths, *nested_output_paths]
        if output_path.is_file()
    }


def list_run_files(results_folder: Path) -> list[Path]:
    """All in a folder that is of its run: not what grows from run to run, locks, and folders of other runs."""
    visible_child_paths = [
        child_path for child_path in sorted(results_folder.glob("[!.]*")) if child_path.name not in CUMULATIVE_FILES
    ]
    return [
        child_path
        for child_path in visible_child_paths
        if FOLD_FOLDER_PATTERN.match(child_path.name) or not (child_path / MANIFEST_FILE).is_file()
    ]


def fingerprint_file(file_path: Path) -> str | None:
    """By what a file is known again: SHA-256 if it is read again, else the size; None if it is not there."""
    if not file_path.is_file():
        return None
    return compute_sha256(file_path) if file_path.suffix in DIGESTED_SUFFIXES else f"{file_path.stat().st_size} bytes"


def compute_sha256(*file_paths: Path) -> str:
    """SHA-256 of files, one after another."""
    return compute_stamped_sha256(
        tuple((file_path, file_path.stat().st_size, file_path.stat().st_mtime_ns) for file_path in file_paths)
    )


@cache
def compute_stamped_sha256(paths_sizes_and_times: tuple[tuple[Path, int, int], ...]) -> str:
    """`compute_sha256` of files given by path, size and time; computed once, though a run asks several times."""
    digest = hashlib.sha256()
    for file_path, _, _ in paths_sizes_and_times:
        with open(file_path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def normalise_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read again from JSON."""
    return json.loads(json.dumps(settings))


def claim_results_folder(results_folder: Path, manifest: Manifest) -> None:
    """Makes a folder for a run. What another run left there, and finished results, are moved aside, which is printed;
    what the same run began stays: a training of the same start, another job by the same weights. Raises InputError,
    see `check_results_folder_free`."""
    earlier_manifest = check_results_folder_free(results_folder, manifest.job, manifest.model_name)
    if earlier_manifest and earlier_manifest.fold and not manifest.fold:
        raise InputError(f"{results_folder} holds fold {earlier_manifest.fold} of another run; name another --outDir.")
    if earlier_manifest and not is_same_run(earlier_manifest, manifest):
        if (earlier_manifest.fold, earlier_manifest.repeat) != (manifest.fold, manifest.repeat):
            print(
                f"{results_folder} held fold {earlier_manifest.fold} of repeat {earlier_manifest.repeat}; were folders "
                "exchanged?"
            )
        move_earlier_results(results_folder, moves_fold_folders=earlier_manifest.key != manifest.key)
    results_folder.mkdir(parents=True, exist_ok=True)
    write_manifest(results_folder / MANIFEST_FILE, manifest)


def is_same_run(earlier_manifest: Manifest, new_manifest: Manifest) -> bool:
    """Whether a run goes on with what is there. The weights of parts may differ: they may still be trained."""
    if new_manifest.begun:
        return (earlier_manifest.key, earlier_manifest.begun) == (new_manifest.key, new_manifest.begun)
    has_same_weights = earlier_manifest.weights == new_manifest.weights or isinstance(new_manifest.weights, dict)
    return earlier_manifest.key == new_manifest.key and has_same_weights and not earlier_manifest.finished


def check_outside_other_results(results_folder: Path) -> None:
    """Raises InputError if a folder lies in the results of another run, through links, too."""
    for parent_folder in Path(os.path.realpath(results_folder)).parents:
        parent_manifest: Manifest | None = None
        with suppress(InputError):  # a run.json of another program
            parent_manifest = read_manifest(parent_folder / MANIFEST_FILE)
        if parent_manifest:
            run_text = " of ".join(filter(None, (parent_manifest.job, parent_manifest.model_name)))
            raise InputError(
                f"--outDir {results_folder} lies in the results of another run, {parent_folder} ({run_text}); name a "
                "folder outside of these."
            )


def check_results_folder_free(results_folder: Path, job_name: str, model_name: str) -> Manifest | None:
    """The record of the run that wrote a folder; None if there is nothing in it. Raises InputError if it is a file, or
    holds anything that no run of this job and model wrote."""
    if os.path.lexists(results_folder) and not results_folder.is_dir():
        raise InputError(f"{results_folder} is a file; name a folder with --outDir.")
    child_names = [child_path.name for child_path in list_run_files(results_folder)] if results_folder.is_dir() else []
    if not child_names:
        return None
    earlier_manifest = read_manifest(results_folder)
    if earlier_manifest is None:
        if all(map(FOLD_FOLDER_PATTERN.match, child_names)):  # begun by parts, of which one was killed
            return None
        raise InputError(
            f"{results_folder} holds {join_names(child_names, 3)}, and no run.json that says which run wrote that; "
            "name another --outDir."
        )
    if (earlier_manifest.job, earlier_manifest.model_name) != (job_name, model_name):
        raise InputError(
            f"{results_folder} holds the results of another run ({earlier_manifest.job} of "
            f"{earlier_manifest.model_name}), this one is {job_name} of {model_name}; name another --outDir."
        )
    return earlier_manifest


def move_earlier_results(results_folder: Path, moves_fold_folders: bool) -> None:
    """Moves all that lies in a folder to `earlier/<when>` in it, with the folders of its parts if
    `moves_fold_folders`; this is printed. Folders of other runs stay."""
    written_time = time.localtime((results_folder / MANIFEST_FILE).stat().st_mtime)
    earlier_results_folder = results_folder / EARLIER_FOLDER / time.strftime("%Y%m%dT%H%M%S", written_time)
    while earlier_results_folder.exists():
        earlier_results_folder = earlier_results_folder.with_name(earlier_results_folder.name + "+")
    child_paths_to_move = [
        child_path
        for child_path in list_run_files(results_folder)
        if moves_fold_folders or not FOLD_FOLDER_PATTERN.match(child_path.name)
    ]
    with ExitStack() as lock_stack:
        for child_path in child_paths_to_move:
            if FOLD_FOLDER_PATTERN.match(child_path.name):
                for locked_folder in (child_path, *child_path.glob("fold-*")):
                    # raises InputError if another process is at it
                    lock_stack.enter_context(files.lock_exclusively(locked_folder))
        earlier_results_folder.mkdir(parents=True)
        # the manifest last, if a kill comes between
        for child_path in sorted(child_paths_to_move, key=lambda child_path: child_path.name == MANIFEST_FILE):
            child_path.rename(earlier_results_folder / child_path.name)
    print(f"The earlier results in {results_folder} are now in {earlier_results_folder}.")


@contextmanager
def rewrite_outputs(
    results_folder: Path, output_names: Sequence[str], permutation_result: PermutationResult | None = None
) -> Iterator[None]:
    """Outputs of a finished run are made again in the block, and its record has the result of permutations, if there is
    one. It does not have the outputs meanwhile: a kill leaves the run done."""
    manifest = read_manifest(results_folder)
    if manifest is None:
        yield
        return
    manifest = replace(manifest, permutations=permutation_result or manifest.permutations)
    fingerprint_by_output = {
        output_name: recorded_fingerprint
        for output_name, recorded_fingerprint in manifest.outputs.items()
        if output_name not in output_names
    }
    write_manifest(results_folder / MANIFEST_FILE, replace(manifest, outputs=fingerprint_by_output))
    yield
    for output_name in output_names:
        new_fingerprint = fingerprint_file(results_folder / output_name)
        if new_fingerprint:
            fingerprint_by_output[output_name] = new_fingerprint
    write_manifest(results_folder / MANIFEST_FILE, replace(manifest, outputs=fingerprint_by_output))


def average_branch_weights(branch_weights_list: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean share of each part. Nothing if shares were not learned, or if the parts of networks differ."""
    if len({tuple(branch_weights) for branch_weights in branch_weights_list}) != 1:
        return {}
    mean_weight_by_branch = {}
    for branch_name in branch_weights_list[0]:
        weight_sum = sum(branch_weights[branch_name] for branch_weights in branch_weights_list)
        mean_weight_by_branch[branch_name] = weight_sum / len(branch_weights_list)
    return mean_weight_by_branch
