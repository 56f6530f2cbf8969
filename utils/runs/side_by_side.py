"""Folds, several at a time: each a process of its own that runs the same command with its --fold, as an array does."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from queue import SimpleQueue

import joblib

from data.base.errors import InputError
from data.base.terminal import handled, terminate_with
from utils.runs.fold_rows import ERROR, OF_SEVERAL, Rows
from utils.runs.run import Run

PARENT = "FALFF_PARENT"  # in a process's environment, the one that it ends with
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def side_by_side(parts: Sequence[Run], names: Sequence[str], jobs: int, share_gpu: bool) -> int:
    """Does the folds that are not done, `jobs` at a time; returns the exit status of the first that fails. After a
    failure, or a signal, no other fold is started. A process does a fold of all repeats, or candidates (`names`)."""
    rows = Rows(parts, names, jobs)
    folds = list(dict.fromkeys(part.fold for part in parts if part.out_dir in rows.left))
    folds = folds or [parts[-1].fold]  # the last process pools
    places: SimpleQueue = SimpleQueue()
    for environment in environments(jobs, share_gpu):
        places.put(environment)
    running: list[subprocess.Popen] = []
    statuses: list[int] = []

    def one(fold: str) -> tuple[str, str, float, int]:
        if any(statuses):
            return fold, "", 0, 0
        environment, started = places.get(), time.monotonic()
        command = [sys.executable, *sys.argv, "--jobs=1", f"--fold={fold}"]
        environment = environment | {PARENT: str(os.getpid()), OF_SEVERAL: "1"}
        with tempfile.TemporaryFile() as output:  # no pipe, which would break if this process were killed
            process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT)
            running.append(process)
            process.wait()
            running.remove(process)
            output.seek(0)
            said = output.read().decode(errors="replace")
        places.put(environment)
        seconds = time.monotonic() - started
        if process.returncode >= 0 or any(statuses):  # a signal that was passed on
            return fold, said, seconds, abs(process.returncode)
        killed = f"Fold {fold} was killed by {signal.Signals(-process.returncode).name}"
        told = f"{said}\n{ERROR} {killed}; is the memory too small for {jobs} jobs?"
        return fold, told, seconds, 128 - process.returncode

    def stop(number: int, _: object) -> None:
        """Passes a signal that stops a run on to the processes, each of which saves what it has."""
        statuses.append(128 + number)
        for process in list(running):
            process.send_signal(signal.SIGTERM)

    tasks = [joblib.delayed(one)(fold) for fold in folds]
    with handled(stop):
        for fold, text, seconds, status in joblib.Parallel(jobs, "threading", return_as="generator_unordered")(tasks):
            statuses.append(status)
            if seconds:  # it was begun
                done = [part for part in parts if part.fold == fold and part.out_dir in rows.left]
                for part in done:
                    rows.ended(part, seconds / len(done), status)
                rows.tell(text)
    return next(filter(None, statuses), 0)


def end_with_parent() -> None:
    """Makes this process, if it does one fold of several, end with the one that started it, even if that is killed."""
    if parent := os.environ.pop(PARENT, None):
        terminate_with(int(parent))


def environments(count: int, share_gpu: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores = max(1, joblib.cpu_count() // count)
    threads = {name: str(cores) for name in THREADS if name not in os.environ}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    if gpus[0] != "-1" and len(gpus) < count and not share_gpu:
        raise InputError(f"--jobs {count} needs as many free GPUs, {len(gpus)} are; use fewer jobs, or --shareGPU.")
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} for at in range(count)]
