"""What the scripts share that are no tests: commands of the system, processes of the program, a table of what held."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping

from commands import ROOT

from data.base.errors import InputError

PROCESS_ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}  # variables of the processes
PROCESS_ENVIRONMENT |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SIDE_BY_SIDE = 2  # commands


def run_system_command(*words: object, **subprocess_options) -> str:
    """What a command of the system printed. Raises InputError if it failed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **subprocess_options)
    if done.returncode:
        raise InputError(f"{shlex.join(map(str, words))} failed: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def prepare(make_target: str, question: str, packages: Mapping[str, str]) -> None:
    """Asks for `make WHAT`, and installs the packages whose programs are missing. Raises InputError where that cannot
    be done."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise InputError(f"make {make_target} needs root, on Debian; nothing was tried.")
    if os.environ.get("YES") != "1" and not (sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes")):
        raise InputError(f"Nothing was tried; YES=1 make {make_target} goes on without asking.")
    if missing_packages := [package for program, package in packages.items() if not shutil.which(program)]:
        run_system_command("apt-get", "update", "-qq")
        run_system_command(
            "apt-get", "install", "-y", "-qq", *missing_packages, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        )


def print_table_head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def print_tries(place_phrase: str, tries: Iterable[Callable[[], tuple[str, bool]]]) -> int:
    """Does each try, which gives what was found and whether it held; prints a row of each, which the first line of its
    docstring names. 1 if one of them did not hold."""
    status = 0
    print_table_head(f"what was tried {place_phrase}", "what was found", "held")
    for attempt in tries:
        try:
            finding, has_passed = attempt()
        except (InputError, OSError) as error:
            finding, has_passed = " ".join(str(error).split()), False
        status |= not has_passed
        name = attempt.__doc__.splitlines()[0].rstrip(".")
        print(f"| {name} | {finding.replace('|', '/')} | {'yes' if has_passed else 'NO'} |", flush=True)
    return int(status)
