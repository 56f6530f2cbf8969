"""Whether this code does what the code of an earlier commit did: both do the same commands, all files are compared.

    .venv/bin/python tests/unchanged.py COMMIT [--work DIR] [--after DIR] [--dataDir COHORT] [--steps A,B] [--jobs N]

In goes a commit. DIR/code is a clone of it, DIR/before is what its commands left, DIR/after what those of this code
left: a folder a step, with `said-<number>.txt`, the arguments, output and exit status of each command. `before` is made
once for a commit, a cohort and a step's commands. Steps called `later-<step>` begin, on both sides, with a copy of
what the earlier commit left in that step: what was made before still loads, continues and tests.

Out comes a line a step, one for each file that differs with its first difference, and how many differ in all. What is
no difference stands in `contents.py`. One always differs: the digest of a cohort that `cae` reduced, which says when.
Exit status 1 if any file differs, or a command ends as it must not.
"""

import argparse
import filecmp
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from contents import LEFT_OUT, difference, sha256
from helpers import ROOT, add_connectomes, write_pcp
from people import ROWS, renamed, write_people
from scans import write_people as write_scans
from steps import ANY, CANDIDATES, LATER, STEPS, commands_of
from torture import write_atlas

from data import demo
from data.cohorts import records

ENVIRONMENT = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ENVIRONMENT |= {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}
SAID = "said-{:02}.txt"
PROGRESS = re.compile(r"\d+/\d+, .*left$")  # it is printed now and then
DONE, ABOUT = "done", "about.txt"


@dataclass(frozen=True)
class Side:
    """The code of one side, and where it works."""

    code: Path
    home: Path

    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"PYTHONPATH": str(self.code), "XDG_CACHE_HOME": str(self.home / "cache")}

    def do(self, step: str, before: Path) -> list[str]:
        """Does a step in a new folder; returns the commands that ended as they must not."""
        folder = self.home / step
        shutil.rmtree(folder, ignore_errors=True)
        if step.startswith(LATER):
            shutil.copytree(before / step.removeprefix(LATER), folder)
        else:
            folder.mkdir()
            (folder / "candidates.txt").write_text(CANDIDATES)
        commands, begun = commands_of(step), time.monotonic()
        wrong = [self.run(folder, number, *command) for number, command in enumerate(commands, 1)]
        wrong = [f"{self.home.name}/{step}: {line}" for line in wrong if line]
        if not wrong:
            (self.home / DONE / f"{step}.txt").write_text(STEPS[step])
        print(f"{self.home.name}/{step}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        return wrong

    def has_done(self, step: str) -> bool:
        done = self.home / DONE / f"{step}.txt"
        return done.exists() and done.read_text() == STEPS[step]

    def run(self, folder: Path, number: int, wanted: str, words: tuple[str, ...]) -> str:
        """Runs one command and writes what it said; returns what is wrong with its exit status."""
        program = (str(self.code / "run.py"),) if words[0] == "run" else ("-m", words[0])
        command = (sys.executable, *program, *words[1:])
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True)
        printed = [line for line in done.stdout.splitlines() if not PROGRESS.search(line)]
        printed = sorted(printed) if "--jobs" in words else printed
        said = [shlex.join(words), *printed, "stderr:", done.stderr, f"exit {done.returncode}"]
        (folder / SAID.format(number)).write_text("\n".join(said))
        if wanted in ("?", str(done.returncode)):
            return ""
        return f"exit {done.returncode}, not {wanted}: {shlex.join(words)}: {done.stderr[-300:]}"


# Before and after


def clone(commit: str, folder: Path) -> None:
    """The code of the commit, in a folder."""
    if not folder.exists():
        subprocess.run(("git", "clone", "--quiet", "--no-checkout", ROOT, folder), check=True)
    subprocess.run(("git", "checkout", "--quiet", "--detach", commit), cwd=folder, check=True)


def make_inputs(home: Path, cohort: Path | None) -> None:
    """What the steps read, in a new folder; a cohort of the user is copied, all else is made up."""
    home.mkdir(parents=True)
    if cohort:
        shutil.copytree(cohort, home / "cohort")
        return
    demo.simulate(home / "cohort", records.REDUCED, demo.Simulation(subjects=160, seed=1))
    add_connectomes(home / "cohort", difference=0.2)
    demo.simulate(home / "full", records.FULL, demo.Simulation(subjects=12, seed=2))
    lab = [ROWS[at % len(ROWS)] | {"SUB_ID": str(at + 50002), "FILE_ID": f"X_00{at + 50002}"} for at in range(160)]
    write_people(home / "lab", lab)
    write_people(home / "new", renamed(24))
    write_pcp(home / "pcp")
    write_scans(home / "bold", [str(number) for number in range(1, 25)])
    write_atlas(home / "four.nii.gz", ["first", "second", "third", "fourth"])


def lay_out(before: Path, after: Path, commit: str, cohort: Path | None) -> None:
    """Makes both folders, with their inputs."""
    about = f"{commit} on {cohort.resolve() if cohort else 'cohorts made up'}"
    if not (before / DONE / ABOUT).exists():
        make_inputs(before, cohort)
        (before / DONE).mkdir()
        (before / DONE / ABOUT).write_text(about)
    if (there := (before / DONE / ABOUT).read_text()) != about:
        sys.exit(f"{before} is of {there}, this is {about}; name another --work.")
    (after / DONE).mkdir(parents=True, exist_ok=True)
    for path in before.iterdir():
        if path.name not in (*STEPS, "cache", DONE):
            shutil.rmtree(after / path.name, ignore_errors=True)
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, after / path.name)


def perform(side: Side, steps: list[str], before: Path, jobs: int) -> list[str]:
    """Does steps, those first that others continue; returns the commands that ended as they must not."""
    wrong: list[str] = []
    for later in (False, True):
        now = [step for step in steps if step.startswith(LATER) == later]
        with ThreadPoolExecutor(jobs) as pool:
            wrong += chain.from_iterable(pool.map(partial(side.do, before=before), now))
    return wrong


def compare(step: str, before: Path, after: Path, places: dict[str, str]) -> tuple[int, int]:
    """Prints what differs in a step; returns how many files were compared, and differ. What a later step has not
    touched is not counted."""
    origin = before / step.removeprefix(LATER)
    sides = (before / step, after / step)
    files = [(side, path) for side in sides for path in side.rglob("*") if path.is_file()]
    names = sorted({path.relative_to(side) for side, path in files if not LEFT_OUT.search(path.name)})
    if step.startswith(LATER):
        names = [name for name in names if not all(same(origin / name, side / name) for side in sides)]
    bundles = {sha256(path.read_bytes()): f"<{path.name}>" for side in sides for path in side.rglob("*.zip")}
    found = {name: difference(sides[0] / name, sides[1] / name, places | bundles) for name in names}
    differ = {name: told for name, told in found.items() if told}
    print(f"{step}: {len(names)} files, {len(differ) or 'none'} differ")
    for name, told in differ.items():
        print(f"    {name}: {told}")
    return len(names), len(differ)


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other)


def chosen(asked: str | None, cohort: Path | None) -> list[str]:
    """The steps to do, and those that these continue."""
    steps = asked.split(",") if asked else [*(ANY if cohort else STEPS)]
    if unknown := [step for step in steps if step not in STEPS]:
        sys.exit(f"There is no step {', '.join(unknown)}; there are {', '.join(STEPS)}.")
    steps += [step.removeprefix(LATER) for step in steps]
    return [step for step in STEPS if step in steps]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", metavar="COMMIT")
    parser.add_argument("--work", type=Path, default=Path("results/unchanged"), metavar="DIR")
    parser.add_argument("--after", type=Path, metavar="DIR", help="for this code's files (default: in --work)")
    parser.add_argument("--dataDir", type=Path, metavar="COHORT", help="a reduced cohort (default: made-up ones)")
    parser.add_argument("--steps", metavar="A,B", help=f"default all, with --dataDir {', '.join(ANY)}")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many steps at a time (default 1)")
    args = parser.parse_args()
    steps = chosen(args.steps, args.dataDir)
    commit = subprocess.check_output(("git", "rev-parse", f"{args.commit}^{{commit}}"), cwd=ROOT, text=True).strip()
    work = args.work.resolve()
    old = Side(work / "code", work / "before")
    new = Side(ROOT, args.after.resolve() if args.after else work / "after")
    lay_out(old.home, new.home, commit, args.dataDir)
    missing = [step for step in steps if not (old.has_done(step) and old.has_done(step.removeprefix(LATER)))]
    if missing:
        clone(commit, old.code)
    wrong = perform(old, missing, old.home, args.jobs) + perform(new, steps, old.home, args.jobs)
    places = {str(old.home): "<side>", str(new.home): "<side>", str(old.code): "<code>", str(new.code): "<code>"}
    counts = [compare(step, old.home, new.home, places) for step in steps]
    print("".join(f"{line}\n" for line in wrong), end="")
    files, differ = (sum(of) for of in zip(*counts, strict=True))
    print(f"{files} files compared in {len(steps)} steps, {differ} differ")
    return 1 if differ or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
