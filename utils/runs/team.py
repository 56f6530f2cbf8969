"""A run that several workers do together: all compare what they were asked for, and only the first one prints."""

import hashlib
from contextlib import nullcontext, redirect_stdout

from data.base import files
from data.base.errors import InputError
from utils.machines import devices
from utils.machines.devices import Workers
from utils.machines.workers import Team, lost_workers_explained
from utils.runs.group import Group
from utils.runs.run import Run


def perform_together(run: Run | Group, workers: Workers, share_gpu: bool) -> int:
    """Does the job; returns the exit status."""
    device = devices.choose_device(share_gpu, several=run.job.takes_several_gpus)
    gpus = devices.start_tensorflow(device)
    with lost_workers_explained():
        workers = workers.started(gpus)
        run = run.on(workers)
        check_alike(run, workers)
        with nullcontext() if workers.is_chief else redirect_stdout(None):
            status = run.perform_on(device)
        workers.exchange(b"")  # nobody leaves before all are done
    return status


def check_alike(run: Run | Group, workers: Workers) -> None:
    """Raises InputError if a worker does another job than the chief, or has other data or another checkpoint."""
    asked = files.json_text(run.agreed())
    digests = workers.exchange(hashlib.sha256(asked.encode()).digest())
    if isinstance(workers, Team) and (other := [at for at, its in enumerate(digests) if its != digests[0]]):
        addresses = workers.addresses
        raise InputError(
            f"{addresses[other[0]]} was started with other settings, data or checkpoints than {addresses[0]}; "
            "run the same command on all workers, with --dataDir and --chkPointDir on a disk that they share."
        )
