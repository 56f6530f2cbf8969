"""A run: one job by one network on one cohort, everything settled; what it writes of itself into its folder."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data.base import files, tables
from data.base.cli import option
from data.base.errors import InputError
from data.base.terminal import print_table, print_unless_quiet
from data.cohorts.cohort import Cohort, VolumeStandard
from data.cohorts.variants import standardise_cohort
from data.tables.vocabulary import INPUT_KINDS
from models import Model, Settings
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs import record
from utils.runs.candidates import Candidate
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.network import NetworkPredictor
from utils.runs.predictor import FoldData, Predictor
from utils.runs.record import MANIFEST_FILE, Caveats, Choices, Manifest, TrainingPeople, Versions
from utils.runs.statements import BlackoutStatement, CandidateChoice, TestStatement
from utils.runs.weights import TrainedNetwork
from utils.scores.results import BLACKOUT_PAGE_FILE, TEST_PAGE_FILE, UNDEFINED, Headline

if TYPE_CHECKING:
    from data.cohorts.folds import Folds


MAX_REPEATED_ROWS = 7  # of results that were there, so that a repeated command prints ten lines of them at most
RESULT_PAGE_FILES = (TEST_PAGE_FILE, BLACKOUT_PAGE_FILE)


@dataclass(frozen=True)
class JobOptions:
    """The options that only one job takes. A job with options has a subclass, whose fields are made by `cli.option`."""

    def select_result_settings(self) -> dict[str, Any]:
        """Those that decide the results."""
        return {}


@dataclass(frozen=True)
class PredictorOptions(JobOptions):
    """The options of the jobs that something else than a checkpoint can do, too: the network of a bundle, or the
    user's estimator."""

    bundle: Path | None = option(
        None, "use the network of a bundle, not a checkpoint (abide-bundle)", type=Path, metavar="FILE.zip"
    )
    estimator: str | None = option(
        None,
        "use the unfitted scikit-learn classifier that a function of your file returns (default function: make), "
        "fitted on the training participants of each fold",
        metavar="FILE.py[:NAME]",
    )
    inputs: str | None = option(
        None,
        f"what the estimator reads: some of {','.join(INPUT_KINDS)} (default the first three, as far as there are any)",
        metavar="A,B",
    )
    atlas: Path | None = option(
        None,
        "the regions of this label image (default AAL), for an estimator or a blackout",
        type=Path,
        metavar="FILE",
    )
    debug: bool = option(False, "show the traceback of errors in the estimator's file", action="store_true")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of run.py is three functions. `check_run` raises InputError for what the run must not do; it takes the
    record of the checkpoint, if there is one. `perform` returns the exit status. `pool_results` makes the results of
    all parts from theirs."""

    job_name: str  # also its flag, if it has one
    help_text: str
    check_run: Callable[["Run", Manifest | None], None]
    perform: Callable[["Run"], int]  # returns the exit status
    pool_results: Callable[["Run", Sequence["Run"]], None]
    options_class: type[JobOptions] = JobOptions
    needs_checkpoint: bool = True
    required_property: str | None = None  # the property of a model without which the answer is `refusal_template`
    refusal_template: str = ""  # of `able`, the models that can, and `model`
    has_flag: bool = True
    results_path_pattern: str = "results/{model}-{job}"  # of `model`, `job` and `data`; where no --outDir is set
    may_be_repeated: bool = True  # by --repeats
    takes_several_devices: bool = False  # GPUs of a machine, or machines

    @property
    def flag(self) -> str:
        return f"--{self.job_name}" if self.has_flag else "the full pass"


@dataclass(frozen=True)
class Run:
    """One job by one network on one cohort, everything settled and checked. It is of the cohort's split, or of the
    `fold` of a `repeat`, one of `repeats`; without a name of the fold it is the joint run of a
    `RunGroup`, which stands for all of these."""

    job: Job
    predictor: Predictor
    seed: int
    options: JobOptions
    cohort: Cohort
    data_dir: Path | None  # as the user named the cohort; None: the demo cohort
    out_dir: Path  # folder of its results
    num_iters: int  # batches to have seen; of a checkpoint in use, those that it has seen
    overrides_checkpoint: bool = False  # trains from zero although a checkpoint exists
    folds: "Folds | None" = None
    fold: str = ""  # its name; empty: all folds, or no folds
    repeat: int = 0  # number, from 0
    repeats: int = 1  # how many
    is_requested: bool = True  # no --fold names another one
    candidates: tuple[Candidate, ...] = ()  # among which inner folds choose
    everybody: bool = False  # whether the model is one of all people of its cohort
    cross_validation: CrossValidation | None = None  # the test on folds that goes with such a model
    training_id: str = ""  # tells trainings from zero apart
    baselines_folder: Path | None = None  # that stores what baselines predict, for all models
    # of the weights, while it uses these; of all parts, if it stands for them
    used_weights_sha256: str | dict[str, str] | None = None
    workers: Workers = field(default_factory=Workers)
    start_time: float = field(default_factory=time.time)  # seconds since 1970
    earlier_wall_time_s: float = 0.0  # what the training took until the checkpoint that it continues

    @property
    def trained_network(self) -> TrainedNetwork:
        """What it trains or uses. Raises TypeError if that is no network."""
        if not isinstance(self.predictor, NetworkPredictor):
            raise TypeError(f"{self.predictor.name} is no network")
        return self.predictor.trained_network

    @property
    def model(self) -> Model:
        return self.trained_network.model

    @property
    def config(self) -> Settings:
        return self.trained_network.config

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Where its training saves. Raises TypeError for weights that no training makes."""
        if not isinstance(self.trained_network.weights, CheckpointFolder):
            raise TypeError(f"{self.predictor.path} is no folder of checkpoints")
        return self.trained_network.weights

    @property
    def choices(self) -> Choices:
        """What decides its results on given data."""
        return self.predictor.make_choices(self.seed, self.cohort)

    @property
    def fold_data(self) -> FoldData:
        """What its predictor is given."""
        return FoldData(self.cohort, self.seed, self.fold_label, self.repeat)

    @property
    def is_pooled(self) -> bool:
        """Whether it stands for the job on all folds."""
        return self.folds is not None and not self.fold

    @property
    def fold_label(self) -> str:
        """Its name among the parts of a job."""
        return f"{self.fold}, repeat {self.repeat}" if self.repeats > 1 else self.fold

    @property
    def standardisation(self) -> VolumeStandard:
        """How the volumes are standardised as they are read."""
        return self.predictor.standardisation

    @property
    def is_transductive(self) -> bool:
        """Whether the people of a site, tested ones too, were used to standardise its volumes."""
        return self.standardisation == "site"

    @cached_property
    def run_key(self) -> str:
        """SHA-256 of what decides its results, with the weights: the choices, the data, and who is tested; without the
        choices that the weights already decide."""
        key_choices = self.choices.deciding_fields
        if self.job.needs_checkpoint:
            key_choices = {field_name: key_choices[field_name] for field_name in ("model", "seed", "precision")}
        elif self.candidates:
            key_choices |= {"preset": None, "config": [asdict(candidate.config) for candidate in self.candidates]}

        division_key = None
        if self.folds:
            division_key = (self.folds.folds_option, self.fold, self.repeat, self.folds.fold_by_subject)
        extra_key_inputs = (
            self.options.select_result_settings(),
            self.caveats.key_fields,
            self.cross_validation and self.cross_validation.deciding_fields,
        )
        return record.compute_run_key(
            self.job.job_name, key_choices, division_key, self.everybody, self.cohort.identity, extra_key_inputs
        )

    @property
    def weights_sha256(self) -> str | dict[str, str] | None:
        """SHA-256 of its checkpoint, as it is now or was when its use began; by part, if it stands for several; None
        without a checkpoint."""
        if self.used_weights_sha256 is not None:
            return self.used_weights_sha256
        return self.predictor.find_sha256()

    def make_manifest(self, is_finished: bool = False, headline: Headline | None = None) -> Manifest:
        """What is known of it now, but for what the job says of its results; of finished ones with the fingerprints of
        all outputs."""
        metadata = self.cohort.metadata
        return Manifest(
            job=self.job.job_name,
            key=self.run_key,
            finished=is_finished,
            begun=self.training_id,
            settings=self.choices,
            candidates=tuple(map(str, self.candidates)),
            options=self.options.select_result_settings(),
            folds=self.folds.folds_option if self.folds else None,
            fold=self.fold or None,
            repeat=self.repeat,
            repeats=self.repeats,
            everybody=self.everybody,
            step=self.num_iters,
            cohort=os.path.abspath(self.cohort.path),
            cohort_sha256=self.cohort.identity,
            maps=metadata.maps,
            num_maps=self.cohort.num_maps,
            preparation=metadata.preparation,
            checkpoint_folder=os.path.abspath(self.predictor.path),
            weights=self.weights_sha256,
            cross_validation=self.cross_validation,
            caveats=self.caveats,
            versions=Versions(
                git_commit=devices.git_commit(),
                processor=devices.describe_processor(),
                packages=devices.package_versions(),
                workers=self.workers.worker_count,
                replicas=self.workers.replica_count,
            ),
            command=(Path(sys.argv[0]).name, *sys.argv[1:]),
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.start_time)),
            wall_time_s=self.wall_time_s,
            outputs=record.fingerprint_outputs(self.out_dir) if is_finished else {},
            headline=(headline.metric, *astuple(headline.score)) if headline else None,
        )

    @property
    def wall_time_s(self) -> float:
        """The seconds that it has taken until now, of a training that is continued with those before."""
        return round(self.earlier_wall_time_s + time.time() - self.start_time, 2)

    @property
    def training_people(self) -> TrainingPeople:
        """Who trains its network."""
        metadata = self.cohort.metadata
        return TrainingPeople(
            subjects=tuple(self.cohort.list_split_subjects("train")),
            scans=tuple(sorted(set().union(*self.cohort.collect_scan_digests("train").values()))),
            encoder_subjects=metadata.encoder_subjects,
            encoder_scans=metadata.encoder_volumes,
        )

    def is_done(self) -> bool:
        """Whether the output folder holds its results, whole and as they were written, by the weights of now."""
        return record.has_finished_results(self.out_dir, self.run_key, self.weights_sha256, self.num_iters)

    def is_due(self) -> bool:
        return self.overrides_checkpoint or not self.is_done()

    def claim_output_folder(self) -> None:
        """Makes the output folder. What an earlier run left there is moved aside, unless it is this one, not finished:
        then it goes on, or begins again."""
        record.claim_results_folder(self.out_dir, self.make_manifest())

    def finish_run(
        self,
        headline: Headline | None = None,
        summary_rows: Iterable[Sequence[str]] = (),
        choice: CandidateChoice | None = None,
        test: TestStatement | None = None,
        blackout: BlackoutStatement | None = None,
    ) -> None:
        """Writes a row of `runs.csv` and `run.json`, and prints where the results are; `headline` is the metric that
        stands for the run, `summary_rows` are what was printed of it, a sentence being a row of one cell; the others
        are what its job says of the results."""
        self.add_to_ledger(headline)
        manifest = replace(
            self.make_manifest(True, headline),
            summary_rows=tuple(tuple(summary_row) for summary_row in summary_rows),
            choice=choice,
            test=test,
            blackout=blackout,
        )
        record.write_manifest(self.out_dir / MANIFEST_FILE, manifest)
        self.print_results_location()

    def add_to_ledger(self, headline: Headline | None) -> None:
        """Adds this run to the `runs.csv` beside its output folder; if that fails, a warning is printed."""
        ledger_row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "job": self.job.job_name,
            "model": self.predictor.name,
            "preset": self.choices.preset,
            "cohort": f"{self.data_dir or 'demo'}{self.caveat_marks}",
            "folds": self.division_text or None,
            "metric": headline and headline.metric,
            **(headline.score if headline else UNDEFINED).to_cells(),
            "folder": self.out_dir,
        }
        ledger_path = self.out_dir.absolute().parent / files.LEDGER_FILE
        try:
            tables.add_csv_row(ledger_path, ledger_row)
        except (OSError, InputError) as error:
            reason = f"{ledger_path} could not be written ({error.strerror})." if isinstance(error, OSError) else error
            print(f"{reason} The run is not in it, its results are complete.")

    @property
    def division_text(self) -> str:
        """How the people were divided, for `runs.csv`; nothing without folds."""
        if not self.folds:
            return "everybody" if self.everybody else ""
        division_texts = [self.folds.folds_option]
        if self.fold:
            division_texts.append(f"fold {self.fold_label}")
        elif self.repeats > 1:
            division_texts.append(f"{self.repeats} repeats")
        return ", ".join(filter(None, division_texts))

    @property
    def written_folders(self) -> list[Path]:
        """Those that only one process may write at a time."""
        return [self.out_dir] if self.job.needs_checkpoint else [self.out_dir, self.checkpoints.path]

    @contextmanager
    def lock_folders(self) -> Iterator["Run"]:
        """This run, while other runs are kept out of its folders; of a worker that is not the chief, one that writes
        into copies of these. Waits for all workers. Raises InputError that names another run there."""
        locked_run = self
        with ExitStack() as exit_stack:
            if self.workers.is_chief:
                for folder in self.written_folders:
                    exit_stack.enter_context(files.lock_exclusively(folder))
            else:
                locked_run = self.copy_folders(Path(exit_stack.enter_context(TemporaryDirectory())))
            self.workers.wait_for_same_settings(
                {"key": self.run_key, "num_iters": self.num_iters, "override": self.overrides_checkpoint}
            )
            yield locked_run

    def copy_folders(self, copy_folder: Path) -> "Run":
        """This run with copies of its results and of its checkpoints: all workers save at once, as TensorFlow asks."""
        for subfolder, source_folder in (("results", self.out_dir), ("ckpt", self.predictor.path)):
            (copy_folder / subfolder).mkdir()
            for file_path in filter(Path.is_file, source_folder.glob("*")):
                shutil.copy2(file_path, copy_folder / subfolder)
        copied_run = replace(self, out_dir=copy_folder / "results")
        return copied_run.with_network(weights=replace(self.checkpoints, path=copy_folder / "ckpt"))

    def with_network(self, **changed_fields: Any) -> "Run":
        """This run with other fields of its `TrainedNetwork`."""
        network_predictor = self.predictor
        if not isinstance(network_predictor, NetworkPredictor):
            raise TypeError(f"{network_predictor.name} is no network")
        return replace(self, predictor=network_predictor.with_settings(**changed_fields))

    def run_job(self, device: str) -> int:
        """Does the job on a device, which is `gpu` or `cpu`; returns the exit status."""
        workers = self.workers
        if self.predictor.needs_tensorflow:
            workers = workers.with_strategy(devices.start_tensorflow(device))
        weights_sha256 = self.weights_sha256 if self.job.needs_checkpoint else None
        started_run = replace(self, workers=workers, start_time=time.time(), used_weights_sha256=weights_sha256)
        with started_run.with_fresh_keras() if self.predictor.needs_tensorflow else nullcontext():
            return self.job.perform(started_run)

    @contextmanager
    def with_fresh_keras(self) -> Iterator[None]:
        """Work that is independent of networks that this process has built. TensorFlow must have been started."""
        if self.trained_network.precision == "mixed_bfloat16":
            devices.check_bfloat16()
        self.reset_keras()
        with devices.explain_memory_errors():
            yield

    def reset_keras(self) -> None:
        """What is built next does not depend on networks before."""
        import keras

        keras.utils.clear_session()
        keras.utils.set_random_seed(self.seed)
        keras.mixed_precision.set_global_policy(self.trained_network.precision)

    def with_single_candidate(self, candidate: Candidate) -> "Run":
        """This run with the settings of a candidate, and no others to choose among."""
        return replace(self.with_candidate_settings(candidate), candidates=())

    def with_candidate_settings(self, candidate: Candidate) -> "Run":
        """This run with the settings of the candidate that was chosen."""
        candidate_run = self.with_network(preset_name=candidate.preset_name, config=candidate.config)
        return replace(candidate_run, cohort=standardise_cohort(candidate_run.cohort, candidate_run.standardisation))

    @cached_property
    def caveats(self) -> Caveats:
        """What must stand beside every result."""
        full_cohort = self.folds.full_cohort if self.folds else self.cohort
        fold_by_subject = self.folds.fold_by_subject if self.folds else None
        cohort_problems = tuple(full_cohort.find_problems(fold_by_subject, self.predictor.classifies))
        inherited_caveats = self.predictor.inherited_caveats
        accepted_leaks = [*self.cohort.metadata.accepted_leaks, *inherited_caveats.accepted_leaks]
        return Caveats(
            simulated=self.cohort.is_simulated or inherited_caveats.simulated,
            control_seed=self.cohort.control.seed if self.cohort.control else None,
            problems=(*cohort_problems, *inherited_caveats.problems),
            accepted_leaks=tuple(dict.fromkeys(accepted_leaks)),
            transductive=self.is_transductive,
            unknown_site=full_cohort.is_site_unknown,
        )

    @property
    def caveat_marks(self) -> str:
        return self.caveats.caveat_marks

    def print_finished_results(self) -> None:
        """Prints again what it printed of its results when it finished, a line for each row, and where they are."""
        manifest = record.read_manifest(self.out_dir)
        summary_rows = manifest.summary_rows[:MAX_REPEATED_ROWS] if manifest else ()
        for _, table_rows in groupby(summary_rows, key=len):
            print_table([*table_rows], truncate_last_column=True)
        self.print_results_location()

    def print_results_location(self) -> None:
        """Prints where the results are, and the page if there is one."""
        page_paths = [self.out_dir / page_name for page_name in RESULT_PAGE_FILES]
        existing_page_paths = [page_path for page_path in page_paths if page_path.is_file()]
        results_path = existing_page_paths[0] if existing_page_paths else self.out_dir
        print_unless_quiet(f"Results: {results_path}{self.caveat_marks}")
