"""A run that is validated -> its job done: once, or for each fold, and then the results of all folds pooled."""

import hashlib
import os
from contextlib import nullcontext, redirect_stdout

from data.base import files
from data.base.errors import InputError
from data.cohorts.folds import Folds
from utils.machines import devices
from utils.machines.workers import workers
from utils.runs.run import Run, prepare_folder, read_manifest
from utils.runs.side_by_side import side_by_side


def perform(run: Run, share_gpu: bool) -> int:
    """The exit status of the job, or of the first of its parts that ends otherwise than well."""
    if run.folds and run.is_done() and not run.override:
        print("Everything is done.")
        run.announce()
        return 0
    team = workers()
    if not (run.job.is_shared or team.is_chief):
        print(f"Worker {team.index} of {team.count}: there is nothing to do, the first one does it all.")
        return 0
    if team.count > 1:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a worker that is gone is told once, below
        if run.jobs > 1:
            raise InputError(f"--jobs {run.jobs} is for one machine, and here are {team.count} workers; leave it out.")
    if run.folds and run.jobs > 1:
        device = devices.choose_device(share_gpu, several=True)
        begin(run, run.folds)
        return side_by_side(run, share_gpu) or pooled(run, run.folds, device)
    device = devices.choose_device(share_gpu, several=run.job.takes_several_gpus)
    if team.count == 1 or not run.job.is_shared:
        return performed(run, device)
    gpus = devices.start_tensorflow(device)
    with devices.told_when_left():
        run = run.by(team.started(gpus))
        check_alike(run)
        with nullcontext() if team.is_chief else redirect_stdout(None):
            status = performed(run, device)
        run.workers.exchange(b"")  # nobody leaves before all are done
        return status


def check_alike(run: Run) -> None:
    """Raises InputError if a worker does another job than the chief, or has other data or another checkpoint."""
    asked = {"num_iters": run.num_iters, "only": run.only, "override": run.override, "out_dir": str(run.out_dir)}
    digest = hashlib.sha256(files.json_text(run.settings() | asked).encode()).digest()
    said = run.workers.exchange(digest)
    if other := [run.workers.addresses[at] for at, its in enumerate(said) if its != said[0]]:
        raise InputError(
            f"{other[0]} was started with other settings, data or checkpoints than {run.workers.addresses[0]}; "
            "run the same command on all workers, with --dataDir and --chkPointDir on a disk that they share."
        )


def performed(run: Run, device: str) -> int:
    """The job, in folds or not."""
    if run.folds:
        return in_folds(run, run.folds, device)
    with run.locked():
        return alone(run, device)


def alone(run: Run, device: str) -> int:
    """One job, as if nothing had been done before it in this process; by a worker that is not the chief, its share."""
    run = run.by(run.workers.started(devices.start_tensorflow(device)))
    devices.begin_anew(run.precision, run.seed)
    with devices.told_when_full():
        return run.job.function(run) if run.workers.is_chief else run.job.assist(run)


def in_folds(run: Run, folds: Folds, device: str) -> int:
    """The job on each fold, or on the one that is asked for; pools the results if none is missing then."""
    if run.workers.is_chief:
        begin(run, folds)
    for number, part in enumerate(run.parts, 1):
        if run.only in (None, part.fold):
            status = one_fold(part, folds, f"Fold {part.fold} ({number} of {len(run.parts)})", device)
            if status:
                return status
    return pooled(run, folds, device) if run.workers.is_chief else 0


def pooled(run: Run, folds: Folds, device: str) -> int:
    """Pools the results if no fold is missing."""
    if run.only and run.override:
        print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
        return 0
    if missing := [part.fold for part in run.parts if not part.is_done()]:
        print(f"Still to be done before the results are pooled: fold{'s' * (len(missing) > 1)} {', '.join(missing)}.")
        return 0
    with files.locked(run.out_dir, wait=True):
        if run.override or not run.is_done():
            devices.start_tensorflow(device)
            run.job.pool(run, folds)
    return 0


def begin(run: Run, folds: Folds) -> None:
    """Writes down the folds, and makes the folder of the pooled results; earlier ones are moved aside."""
    if not run.job.needs_checkpoint:
        with files.locked(run.checkpoints.path, wait=True):
            folds.write(run.checkpoints.path)
    with files.locked(run.out_dir, wait=True):
        manifest = read_manifest(run.out_dir)
        if manifest is None or manifest.finished:
            prepare_folder(run)


def one_fold(part: Run, folds: Folds, title: str, device: str) -> int:
    """The job on one fold, unless it is done."""
    with part.locked():
        done = part.is_done() and not part.override
        if part.workers.of_chief(b"done" if done else b""):
            print(f"{title}: done.", flush=True)
            return 0
        print(f"{title}:", flush=True)
        if part.workers.is_chief:
            folds.check(part.checkpoints.trained.path.parent, part.fold, part.cohort)
        return alone(part, device)
