"""A run that several workers do together: all compare what they were asked for, and only the first one prints."""

import hashlib
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace

from data.base import files
from data.base.errors import InputError
from utils.machines import devices
from utils.machines.devices import Workers
from utils.machines.workers import Team, lost_workers_explained
from utils.runs.run import Run


def perform_together(run: Run, workers: Workers, share_gpu: bool) -> int:
    """Does the job; returns the exit status."""
    if (jobs := getattr(run, "jobs", 1)) > 1:
        raise InputError(f"--jobs {jobs} is for one machine, and here are {workers.count} workers; leave it out.")
    device = devices.choose_device(share_gpu, several=run.job.takes_several_gpus)
    gpus = devices.start_tensorflow(device)
    with lost_workers_explained():
        run = replace(run, workers=workers.started(gpus))
        check_alike(run)
        with nullcontext() if workers.is_chief else redirect_stdout(None):
            status = run.perform_on(device)
        run.workers.exchange(b"")  # nobody leaves before all are done
    return status


def check_alike(run: Run) -> None:
    """Raises InputError if a worker does another job than the chief, or has other data or another checkpoint."""
    asked = {"num_iters": run.num_iters, "only": getattr(run, "only", None), "override": run.override}
    text = files.json_text(run.settings() | asked | {"out_dir": str(run.out_dir)})
    digests = run.workers.exchange(hashlib.sha256(text.encode()).digest())
    if isinstance(run.workers, Team) and (other := [at for at, its in enumerate(digests) if its != digests[0]]):
        addresses = run.workers.addresses
        raise InputError(
            f"{addresses[other[0]]} was started with other settings, data or checkpoints than {addresses[0]}; "
            "run the same command on all workers, with --dataDir and --chkPointDir on a disk that they share."
        )
