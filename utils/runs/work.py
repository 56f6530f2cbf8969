"""Runs are done one after another here, or several at a time by the same command with `--fold K` in other processes, as
an array of Slurm shares them. Each is locked; whoever finds all of them done pools the results, under a lock, too."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import IO, TextIO

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


def remove_abandoned_locks(plan: RunPlan) -> None:
    """Removes the locks of processes that were killed as soon as a run was done; who does a due run takes its own."""
    due_folders = {run.out_dir for run in plan.due_runs}
    done_runs = [run for run in plan.group.requested_runs if run.out_dir not in due_folders]
    for run in [*done_runs, plan.group.joint_run]:
        for folder in run.written_folders:
            files.remove_abandoned_lock(folder)


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
            joint_run.print_finished_results()
    return 0


def run_subprocesses(
    command_names_and_options: Sequence[tuple[str, Sequence[str]]],
    worker_environments: Sequence[Mapping[str, str]],
    progress_title: str = "Folds",
) -> int:
    """Does this command once for each of `command_names_and_options`, a name and the options to add, in as many
    processes at a time as there are `worker_environments`; returns the exit status of the first that fails. After a
    failure no other one is begun; a signal also asks those that run to save and to end."""
    worker_count = len(worker_environments)
    child_processes = ChildProcesses(worker_count, [*worker_environments])
    with (
        handle_signals(lambda signal_number, _: child_processes.stop(128 + signal_number)),
        open_progress_bar(progress_title, len(command_names_and_options)) as progress_bar,
        ThreadPoolExecutor(worker_count) as thread_pool,
    ):
        try:
            command_name_by_future = dict[Future, str]()
            for command_name, command_options in command_names_and_options:
                timed_run_count = 0
                if not command_name_by_future:  # the first one says for all how long they take
                    timed_run_count = math.ceil(len(command_names_and_options) / worker_count)
                future = thread_pool.submit(child_processes.run_command, command_name, command_options, timed_run_count)
                command_name_by_future[future] = command_name
            for future in as_completed(command_name_by_future):
                was_begun = future.result()
                if was_begun:
                    progress_bar.advance(command_name_by_future[future])
        except BaseException:  # none stays if this one fails
            child_processes.stop(1)
            raise

    if child_processes.is_stopped:
        print("Stopped; each has saved what it had, and the same command goes on.", flush=True)
    return child_processes.failed_statuses[0] if child_processes.failed_statuses else 0


@dataclass
class ChildProcesses:
    """Processes that do this command with more options; a thread waits for each of them."""

    process_count: int  # at a time
    free_environments: list[Mapping[str, str]]  # one for each thread that does not wait
    running_processes: list[subprocess.Popen] = field(default_factory=list)
    failed_statuses: list[int] = field(default_factory=list)  # exit statuses other than 0, the first failure first
    is_stopped: bool = False
    printed_lines: set[str] = field(default_factory=set)
    output_lock: Lock = field(default_factory=Lock)

    def run_command(self, command_name: str, extra_options: Sequence[str], timed_run_count: int) -> bool:
        """Does this command with more options in a process, and waits for it, unless one has failed before; returns
        whether it was begun. The process says how long `timed_run_count` runs take, if that is not 0."""
        if self.failed_statuses:
            return False
        environment = self.free_environments.pop()
        with tempfile.TemporaryFile("w+", errors="replace") as stderr_file:
            process = start_child_process(extra_options, environment, timed_run_count, stderr_file)
            self.running_processes.append(process)
            if self.is_stopped:  # meanwhile
                process.terminate()
            assert process.stdout
            with process.stdout:
                for line in process.stdout:  # until it ends
                    self.print_new_lines([line], sys.stdout)
            process.wait()
            self.running_processes.remove(process)
            stderr_file.seek(0)
            self.print_new_lines(stderr_file, sys.stderr)
        self.free_environments.append(environment)
        self.note_failure(command_name, process.returncode)
        return True

    def print_new_lines(self, lines: Iterable[str], stream: TextIO) -> None:
        """Prints lines, but for those that were said before, by whichever process."""
        with self.output_lock:
            for line in lines:
                line_text = line.rstrip("\n")
                if line_text not in self.printed_lines:
                    self.printed_lines.add(line_text)
                    print(line_text, file=stream, flush=True)

    def note_failure(self, command_name: str, return_code: int) -> None:
        """Takes down the exit status of a process that has failed; if that was killed first, says so."""
        was_killed = return_code < 0
        with self.output_lock:
            if was_killed and not self.failed_statuses:
                error_message = f"{command_name} was killed; is the memory too small for {self.process_count} jobs?"
                print(format_error_line("run.py", error_message), file=sys.stderr, flush=True)
            if return_code:
                self.failed_statuses.append(KILLED_STATUS if was_killed else return_code)

    def stop(self, exit_status: int) -> None:
        """Asks all processes to save what they have and to end. It takes no lock, since a handler of signals calls it
        while any lock may be held."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self.failed_statuses.append(exit_status)
        for process in [*self.running_processes]:
            process.terminate()


def start_child_process(
    extra_options: Sequence[str], environment: Mapping[str, str], timed_run_count: int, stderr_file: IO[str]
) -> subprocess.Popen:
    """Starts this command with more options, in a process that a signal to this one does not reach."""
    command = [sys.executable, "-m", "utils", *sys.argv[1:], *extra_options, "--jobs", "1"]
    full_environment = os.environ | environment | {CHILD_RUN_COUNT_VARIABLE: str(timed_run_count)}
    return subprocess.Popen(
        command,
        env=full_environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr_file,
        text=True,
        errors="replace",
        start_new_session=True,
    )


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
