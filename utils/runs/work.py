"""Runs are done one after another here, or several at a time by the same command with `--fold K` in other processes, as
an array of Slurm shares them. Each is locked; whoever finds all of them done pools the results, under a lock, too."""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from data.base import files
from data.base.cli import format_error_line
from data.base.errors import InputError
from data.base.processes import cpu_count, handle_signals
from data.base.terminal import ProgressBar, open_progress_bar, print_summary, redirect_progress
from data.cohorts.rows import join_names
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs.duration import Ahead, looking_ahead
from utils.runs.run import Run, pooled

# Set in the environment of a process that does a part of what another one was asked for: how many such parts are to
# follow one another, if this process is to say how long they take; else 0
IS_CHILD = "ABIDE_IS_CHILD"
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
INTERVAL_S = 0.2
KILLED = 137  # the exit status of a process that was, as a shell has it


def is_child() -> bool:
    """Whether this process does a part of what another one was asked for, which has said the rest."""
    return IS_CHILD in os.environ


def all_done(runs: Sequence[Run]) -> bool:
    stands = pooled(runs)
    return not any(run.is_due() for run in runs) and not (stands.is_pooled and stands.is_due())


def perform(runs: Sequence[Run], jobs: int, share_gpu: bool) -> int:
    """Does the runs that are asked for and not done, and pools; returns the exit status."""
    with redirect_stdout(None) if is_child() else nullcontext():
        device = devices.choose_device(share_gpu, jobs > 1 or runs[0].job.takes_several_devices)
    if jobs == 1:
        return perform_here(runs, device)
    out_dir = pooled(runs).out_dir
    with files.locked(out_dir.with_name(f"{out_dir.name}.jobs")):  # two would share the cores
        claim_all(runs)
        commands = [
            (f"Fold {fold}", [f"--fold={fold}"]) for fold in dict.fromkeys(run.fold for run in runs if run.is_due())
        ]
        if commands:
            print_summary([("to do", f"{len(commands)} folds, {jobs} at a time")])
            if status := beside(commands, environments(jobs, share_gpu)):
                return status
        return pool(runs, device)


def perform_here(runs: Sequence[Run], device: str) -> int:
    """The same in this process."""
    todo, is_chief = [run for run in runs if run.is_asked], runs[0].workers.is_chief
    if is_chief:
        claim_all(runs)
    due = [run for run in todo if run.is_due()]
    in_rows = is_chief and len(todo) > 1 and not is_child()
    if in_rows and due:
        print_summary([("to do", f"{len(due)} of {len(todo)} folds")])
    ahead = Ahead(int(os.environ.get(IS_CHILD, 1)) * len(due))
    with (
        looking_ahead(ahead),
        open_progress_bar("Folds", len(todo), len(todo) - len(due)) if in_rows and due else nullcontext() as shown,
    ):
        for run in due:
            with redirect_progress(partial(note, shown, run)) if in_rows or is_child() else nullcontext():
                status = perform_one(run, device)
            if status:
                return status
            if shown:
                shown.advance(f"Fold {run.part}")
    return pool(runs, device) if is_chief else 0


def note(shown: ProgressBar | None, run: Run, text: str) -> None:
    """Shows what a fold is at."""
    if shown:
        shown.advance(f"Fold {run.part}: {text}", 0)


def perform_one(run: Run, device: str) -> int:
    """Does a run, unless another process has done it meanwhile."""
    with run.locked() as own:
        return own.call(device) if own.is_due() else 0


def claim_all(runs: Sequence[Run]) -> None:
    """Writes the table of folds, for a training, and makes the folder of the pooled results; earlier ones are moved
    aside."""
    stands = pooled(runs)
    if not stands.is_pooled:
        return
    if not stands.job.needs_checkpoint:
        for folder, folds in {run.checkpoints.path.parent: run.folds for run in runs}.items():
            assert folds
            with files.locked(folder, wait=True):
                folds.write(folder)
    with files.locked(stands.out_dir, wait=True):
        if not stands.is_done():
            stands.claim()


def pool(runs: Sequence[Run], device: str) -> int:
    """Pools the results of all parts if none is missing."""
    stands = pooled(runs)
    if not stands.is_pooled or is_child():  # whoever started a part pools
        return 0
    if not all(run.is_asked for run in runs) and stands.override:
        print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
        return 0
    if missing := [run.part for run in runs if not run.is_done()]:
        folds = "folds" if len(missing) > 1 else "fold"
        print(f"Still to be done before the results are pooled: {folds} {join_names(missing)}.")
        return 0
    with files.locked(stands.out_dir, wait=True):
        if stands.override or not stands.is_done():
            devices.start_tensorflow(device)
            stands.claim()
            stands.job.pool(stands, runs)
        else:
            stands.announce()
    return 0


def beside(
    commands: Sequence[tuple[str, Sequence[str]]], each: Sequence[Mapping[str, str]], title: str = "Folds"
) -> int:
    """Does this command with other options added, each by a name, in as many processes at a time as there are
    environments (`each`); returns the exit status of the first that fails. After a failure or a signal no other one is
    begun."""
    waiting, free, busy = [*commands], [*each], dict[subprocess.Popen, tuple]()
    said, statuses, stopped = set[str](), list[int](), list[int]()
    with (
        handle_signals(lambda number, _: stopped.append(128 + number)),
        open_progress_bar(title, len(commands)) as shown,
        tempfile.TemporaryDirectory() as place,
    ):
        try:
            while busy or (waiting and not any(statuses)):
                while free and waiting and not any(statuses):
                    is_first = len(waiting) == len(commands)
                    (name, options), environment = waiting.pop(0), free.pop()
                    environment = {
                        **environment,
                        IS_CHILD: str(math.ceil(len(commands) / len(each)) if is_first else 0),
                    }
                    output = [Path(place, f"{len(waiting)}.{stream}") for stream in ("out", "err")]
                    busy[start_process(options, environment, *output)] = name, environment, output
                time.sleep(INTERVAL_S)
                if stopped and not any(statuses):  # each saves what it has
                    statuses += stopped
                    for process in busy:
                        process.terminate()
                for _, _, (out, _) in busy.values():
                    tell_lines(whole_lines(out), sys.stdout, said)
                for process in [process for process in busy if process.poll() is not None]:
                    name, environment, output = busy.pop(process)
                    free.append(environment)
                    for path, stream in zip(output, (sys.stdout, sys.stderr), strict=True):
                        tell_lines(path.read_text(errors="replace").splitlines(), stream, said)
                    if process.returncode < 0 and not any(statuses):
                        wrong = f"{name} was killed; is the memory too small for {len(each)} jobs?"
                        print(format_error_line("run.py", wrong), file=sys.stderr, flush=True)
                    statuses.append(KILLED if process.returncode < 0 else process.returncode)
                    shown.advance(name)
        finally:
            for process in busy:  # none stays if this one fails
                process.terminate()
    if stopped:
        print("Stopped; each has saved what it had, and the same command goes on.", flush=True)
    return next(filter(None, statuses), 0)


def start_process(options: Sequence[str], environment: Mapping[str, str], out: Path, errors: Path) -> subprocess.Popen:
    """This command with more options, in a process that a signal to this one does not reach."""
    command = [sys.executable, "-m", "utils", *sys.argv[1:], *options, "--jobs", "1"]
    added = os.environ | environment
    with open(out, "w") as told, open(errors, "w") as wrong:
        return subprocess.Popen(
            command, env=added, stdin=subprocess.DEVNULL, stdout=told, stderr=wrong, start_new_session=True
        )


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that another process still writes."""
    text, _, _ = path.read_text(errors="replace").rpartition("\n")
    return text.splitlines()


def tell_lines(lines: Iterable[str], stream: TextIO, said: set[str]) -> None:
    """Prints lines, but for those that were said before, by whichever process."""
    for line in lines:
        if line not in said:
            said.add(line)
            print(line, file=stream, flush=True)


def environments(count: int, share_gpu: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores = max(1, cpu_count() // count)
    threads = {name: str(cores) for name in THREADS if name not in os.environ}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    if gpus[0] != "-1" and len(gpus) < count and not share_gpu:
        raise InputError(
            f"--jobs {count} needs as many free GPUs, but {len(gpus)} are free; use fewer jobs, or --shareGPU."
        )
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} for at in range(count)]


def train_together(runs: Sequence[Run], share_gpu: bool) -> int:
    """Does a training with the other workers; returns the exit status."""
    from utils.machines.workers import lost_workers_explained, together

    device = devices.choose_device(share_gpu, several=True)
    devices.start_tensorflow(device)
    with lost_workers_explained():
        workers: Workers = together()
        own = [replace(run, workers=workers) for run in runs]
        with nullcontext() if workers.is_chief else redirect_stdout(None):
            status = perform_here(own, device)
        workers.meet({})  # nobody leaves before all are done
    return status
