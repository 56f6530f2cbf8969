"""Runs are done one after another here, or several at a time by the same command with `--fold K` in other processes, as
an array of Slurm shares them. Each is locked; whoever finds all of them done pools the results, under a lock, too."""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from data.base import files
from data.base.cli import format_error_line
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.processes import cpu_count, handle_signals
from data.base.terminal import ProgressBar, open_progress_bar, print_summary, redirect_progress
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs.duration import TrainingsAhead, set_trainings_ahead
from utils.runs.group import RunGroup, RunPlan
from utils.runs.run import Run

# Set in the environment of a process that does a part of what another one was asked for: how many such parts are to
# follow one another, if this process is to say how long they take; else 0
CHILD_RUN_COUNT_VARIABLE = "ABIDE_IS_CHILD"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
POLL_INTERVAL_S = 0.2
KILLED_STATUS = 137  # the exit status of a process that was killed, as a shell has it


def is_child_process() -> bool:
    """Whether this process does a part of what another one was asked for, which has said the rest."""
    return CHILD_RUN_COUNT_VARIABLE in os.environ


def perform_plan(plan: RunPlan, process_count: int, may_share_gpus: bool) -> int:
    """Does the runs that are due, and pools; returns the exit status."""
    group = plan.group
    may_use_several_devices = process_count > 1 or group.joint_run.job.takes_several_devices
    device = "cpu"
    if group.joint_run.predictor.needs_tensorflow:
        with redirect_stdout(None) if is_child_process() else nullcontext():
            device = devices.choose_device(may_share_gpus, may_use_several_devices)
    if process_count == 1:
        return perform_plan_in_process(plan, device)

    joint_folder = group.joint_run.out_dir
    with files.lock_exclusively(joint_folder.with_name(f"{joint_folder.name}.jobs")):  # two would share the cores
        prepare_joint_folders(group)
        due_fold_names = list(dict.fromkeys(run.fold for run in plan.due_runs))  # each once, in order
        if due_fold_names:
            print_summary([("to do", f"{len(due_fold_names)} folds, {process_count} at a time")])
            process_environments = make_process_environments(process_count, may_share_gpus)
            fold_titles_and_options = [(f"Fold {fold_name}", [f"--fold={fold_name}"]) for fold_name in due_fold_names]
            exit_status = run_subprocesses(fold_titles_and_options, process_environments)
            if exit_status:
                return exit_status
        return pool_if_done(group, device)


def perform_plan_in_process(plan: RunPlan, device: str) -> int:
    """`perform_plan`, all in this process."""
    requested_runs = plan.group.requested_runs
    due_runs = plan.due_runs
    is_chief = requested_runs[0].workers.is_chief
    if is_chief:
        prepare_joint_folders(plan.group)
    shows_fold_progress = is_chief and len(requested_runs) > 1 and not is_child_process()
    if shows_fold_progress and due_runs:
        print_summary([("to do", f"{len(due_runs)} of {len(requested_runs)} folds")])

    process_run_count = int(os.environ.get(CHILD_RUN_COUNT_VARIABLE, 1))
    with ExitStack() as exit_stack:
        exit_stack.enter_context(set_trainings_ahead(TrainingsAhead(process_run_count * len(due_runs))))
        progress_bar: ProgressBar | None = None
        if shows_fold_progress and due_runs:
            done_run_count = len(requested_runs) - len(due_runs)
            progress_bar = exit_stack.enter_context(open_progress_bar("Folds", len(requested_runs), done_run_count))
        for run in due_runs:
            with (
                redirect_progress(partial(show_fold_progress, progress_bar, run))
                if shows_fold_progress or is_child_process()
                else nullcontext()
            ):
                exit_status = perform_run(run, device)
            if exit_status:
                return exit_status
            if progress_bar:
                progress_bar.advance(f"Fold {run.fold_label}")
    return pool_if_done(plan.group, device) if is_chief else 0


def show_fold_progress(progress_bar: ProgressBar | None, run: Run, message: str) -> None:
    """Shows what a fold is at."""
    if progress_bar:
        progress_bar.advance(f"Fold {run.fold_label}: {message}", 0)


def perform_run(run: Run, device: str) -> int:
    """Does a run, unless another process has done it meanwhile."""
    with run.lock_folders() as locked_run:
        return locked_run.run_job(device) if locked_run.is_due() else 0


def prepare_joint_folders(group: RunGroup) -> None:
    """Writes the table of folds, for a training, and makes the folder of the pooled results; earlier ones are moved
    aside."""
    joint_run = group.joint_run
    if not group.has_folds:
        return
    if not joint_run.job.needs_checkpoint:
        folds_by_folder = {run.checkpoints.path.parent: run.folds for run in group.runs}  # one a repeat
        for folds_folder, folds in folds_by_folder.items():
            assert folds
            with files.lock_exclusively(folds_folder, wait=True):
                folds.write_folds(folds_folder)
    with files.lock_exclusively(joint_run.out_dir, wait=True):
        if not joint_run.is_done():
            joint_run.claim_output_folder()


def pool_if_done(planned_group: RunGroup, device: str) -> int:
    """Pools the results of all folds if none is missing."""
    if not planned_group.has_folds or is_child_process():  # whoever started a part pools
        return 0
    group = planned_group.refresh()  # its weights are there now
    joint_run = group.joint_run
    if len(group.requested_runs) < len(group.runs) and joint_run.overrides_checkpoint:
        print("Not pooled, since other folds may yet be overridden: repeat the command without --overrideChkpt.")
        return 0
    missing_fold_labels = [run.fold_label for run in group.runs if not run.is_done()]
    if missing_fold_labels:
        folds_word = "folds" if len(missing_fold_labels) > 1 else "fold"
        print(f"Still to be done before the results are pooled: {folds_word} {join_names(missing_fold_labels)}.")
        return 0
    with files.lock_exclusively(joint_run.out_dir, wait=True):
        if joint_run.overrides_checkpoint or not joint_run.is_done():
            if joint_run.predictor.needs_tensorflow:
                devices.start_tensorflow(device)
            joint_run.claim_output_folder()
            joint_run.job.pool_results(joint_run, group.runs)
        else:
            joint_run.print_results_location()
    return 0


class ChildProcess(NamedTuple):
    """A process that does this command with more options, and where it writes."""

    command_name: str
    process: subprocess.Popen
    environment: Mapping[str, str]  # the one that is free again once it has ended
    stdout_path: Path
    stderr_path: Path


def run_subprocesses(
    command_names_and_options: Sequence[tuple[str, Sequence[str]]],
    worker_environments: Sequence[Mapping[str, str]],
    progress_title: str = "Folds",
) -> int:
    """Does this command once for each of `command_names_and_options`, a name and the options to add, in as many
    processes at a time as there are `worker_environments`; returns the exit status of the first that fails. After a
    failure or a signal no other one is begun."""
    waiting_names_and_options = [*command_names_and_options]
    free_environments = [*worker_environments]
    child_processes = list[ChildProcess]()  # those that run
    printed_lines = set[str]()
    exit_statuses = list[int]()
    received_signal_statuses = list[int]()
    with (
        handle_signals(lambda signal_number, _: received_signal_statuses.append(128 + signal_number)),
        open_progress_bar(progress_title, len(command_names_and_options)) as progress_bar,
        tempfile.TemporaryDirectory() as output_folder,
    ):
        try:
            while child_processes or (waiting_names_and_options and not any(exit_statuses)):
                while free_environments and waiting_names_and_options and not any(exit_statuses):
                    is_first_command = len(waiting_names_and_options) == len(command_names_and_options)
                    timed_run_count = 0
                    if is_first_command:  # it says for all how long they take
                        timed_run_count = math.ceil(len(command_names_and_options) / len(worker_environments))
                    command_name, command_options = waiting_names_and_options.pop(0)
                    child_processes.append(
                        start_child_process(
                            command_name,
                            command_options,
                            free_environments.pop(),
                            timed_run_count,
                            Path(output_folder, str(len(waiting_names_and_options))),
                        )
                    )

                time.sleep(POLL_INTERVAL_S)
                if received_signal_statuses and not any(exit_statuses):  # each saves what it has
                    exit_statuses += received_signal_statuses
                    for child in child_processes:
                        child.process.terminate()

                for child in child_processes:
                    print_new_lines(read_complete_lines(child.stdout_path), sys.stdout, printed_lines)
                for child in [child for child in child_processes if child.process.poll() is not None]:
                    child_processes.remove(child)
                    free_environments.append(child.environment)
                    for output_path, stream in ((child.stdout_path, sys.stdout), (child.stderr_path, sys.stderr)):
                        print_new_lines(output_path.read_text(errors="replace").splitlines(), stream, printed_lines)
                    was_killed = child.process.returncode < 0
                    if was_killed and not any(exit_statuses):
                        error_message = (
                            f"{child.command_name} was killed; is the memory too small for {len(worker_environments)} "
                            "jobs?"
                        )
                        print(format_error_line("run.py", error_message), file=sys.stderr, flush=True)
                    exit_statuses.append(KILLED_STATUS if was_killed else child.process.returncode)
                    progress_bar.advance(child.command_name)
        finally:
            for child in child_processes:  # none stays if this one fails
                child.process.terminate()

    if received_signal_statuses:
        print("Stopped; each has saved what it had, and the same command goes on.", flush=True)
    failed_statuses = [exit_status for exit_status in exit_statuses if exit_status]
    return failed_statuses[0] if failed_statuses else 0


def start_child_process(
    command_name: str,
    extra_options: Sequence[str],
    environment: Mapping[str, str],
    timed_run_count: int,
    output_path: Path,
) -> ChildProcess:
    """Starts this command with more options, in a process that a signal to this one does not reach. It writes to
    `output_path` with `.out` and `.err`, and says how long `timed_run_count` runs take, if that is not 0."""
    command = [sys.executable, "-m", "utils", *sys.argv[1:], *extra_options, "--jobs", "1"]
    full_environment = os.environ | environment | {CHILD_RUN_COUNT_VARIABLE: str(timed_run_count)}
    stdout_path = output_path.with_name(f"{output_path.name}.out")
    stderr_path = output_path.with_name(f"{output_path.name}.err")
    with open(stdout_path, "w") as stdout_file, open(stderr_path, "w") as stderr_file:
        process = subprocess.Popen(
            command,
            env=full_environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout_file,
            stderr=stderr_file,
            start_new_session=True,
        )
    return ChildProcess(command_name, process, environment, stdout_path, stderr_path)


def read_complete_lines(output_path: Path) -> list[str]:
    """The lines of a file that another process still writes."""
    complete_text, _, _ = output_path.read_text(errors="replace").rpartition("\n")
    return complete_text.splitlines()


def print_new_lines(lines: Iterable[str], stream: TextIO, printed_lines: set[str]) -> None:
    """Prints lines, but for those that were said before, by whichever process."""
    for line in lines:
        if line not in printed_lines:
            printed_lines.add(line)
            print(line, file=stream, flush=True)


def make_process_environments(process_count: int, may_share_gpus: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores_per_process = max(1, cpu_count() // process_count)
    thread_count_by_variable = {
        variable_name: str(cores_per_process) for variable_name in THREAD_VARIABLES if variable_name not in os.environ
    }
    gpu_ids = os.environ.get("CUDA_VISIBLE_DEVICES", "-1").split(",")
    if gpu_ids[0] != "-1" and len(gpu_ids) < process_count and not may_share_gpus:
        raise InputError(
            f"--jobs {process_count} needs as many free GPUs, but {len(gpu_ids)} are free; use fewer jobs, or "
            "--shareGPU."
        )
    return [
        thread_count_by_variable | {"CUDA_VISIBLE_DEVICES": gpu_ids[process_index % len(gpu_ids)]}
        for process_index in range(process_count)
    ]


def train_with_workers(plan: RunPlan, may_share_gpus: bool) -> int:
    """Does a training with the other workers; returns the exit status."""
    from utils.machines.workers import connect_workers, explain_lost_workers

    device = devices.choose_device(may_share_gpus, may_use_several=True)
    devices.start_tensorflow(device)
    with explain_lost_workers():
        workers: Workers = connect_workers()
        worker_due_runs = [replace(run, workers=workers) for run in plan.due_runs]
        worker_plan = RunPlan(plan.group.with_workers(workers), worker_due_runs, plan.is_joint_run_due)
        with nullcontext() if workers.is_chief else redirect_stdout(None):
            exit_status = perform_plan_in_process(worker_plan, device)
        workers.wait_for_same_settings({})  # nobody leaves before all are done
    return exit_status
