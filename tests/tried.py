"""What the scripts share that are no tests: commands of the system, processes of the program, a table of what held."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping

from commands import ROOT

from data.base.errors import InputError

APART = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}  # variables of the processes
APART |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SIDE_BY_SIDE = 2  # commands


def sh(*words: object, **how) -> str:
    """What a command of the system printed. Raises InputError if it failed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **how)
    if done.returncode:
        raise InputError(f"{shlex.join(map(str, words))} failed: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def prepare(what: str, ask: str, packages: Mapping[str, str]) -> None:
    """Asks for `make WHAT`, and installs the packages whose programs are missing. Raises InputError where that cannot
    be done."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise InputError(f"make {what} needs root, on Debian; nothing was tried.")
    if os.environ.get("YES") != "1" and not (sys.stdin.isatty() and input(ask).strip().lower() in ("y", "yes")):
        raise InputError(f"Nothing was tried; YES=1 make {what} goes on without asking.")
    if missing := [package for program, package in packages.items() if not shutil.which(program)]:
        sh("apt-get", "update", "-qq")
        sh("apt-get", "install", "-y", "-qq", *missing, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def rows_of(where: str, tries: Iterable[Callable[[], tuple[str, bool]]]) -> int:
    """Does each try, which gives what was found and whether it held; prints a row of each, which the first line of its
    docstring names. 1 if one of them did not hold."""
    status = 0
    head(f"what was tried {where}", "what was found", "held")
    for work in tries:
        try:
            found, held = work()
        except (InputError, OSError) as error:
            found, held = " ".join(str(error).split()), False
        status |= not held
        name = work.__doc__.splitlines()[0].rstrip(".")
        print(f"| {name} | {found.replace('|', '/')} | {'yes' if held else 'NO'} |", flush=True)
    return int(status)
