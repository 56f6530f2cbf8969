"""Whether this code computes what that of an earlier commit did: both do the same commands, their results are compared.

    .venv/bin/python tests/gate COMMIT [--steps A,B] [--real DIR] [--jobs N] [--work DIR]

What a side left is kept in --work until its code or a step's commands change. Out comes a line a step, and for each
column of results that differs how many values do, and the first. What may differ stands in `exempt.py`. Exit status 1
if anything else does, an exemption matches nothing, or a command fails. One at a time works in a --work.
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import inputs
import numpy as np
from exempt import EXEMPTIONS, Exemption
from extract import Name, results
from steps import FIRST, REAL, STEPS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ENVIRONMENT |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
FINDS = {"convert", "check"}  # commands that end with 1 if they find something wrong with the data


@dataclass(frozen=True)
class Side:
    """The code of one side with a digest of it, and the folder in which it works."""

    name: str
    code: Path
    home: Path
    digest: str

    def prepare(self, inputs_folder: Path, real: Path | None) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for name, target in (("inputs", inputs_folder), ("maps", real)):
            link = self.home / name
            if target and os.path.realpath(link) != str(target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)

    def fingerprint(self, step: str) -> str:
        """What the results of a step follow from."""
        commands = [*STEPS[FIRST].of(self.name == "base"), *STEPS[step].of(self.name == "base")]
        places = [os.path.realpath(self.home / name) for name in ("inputs", "maps") if step == REAL or name == "inputs"]
        return "\n".join((self.digest, *commands, *places))

    def has(self, step: str) -> bool:
        done = self.home / f"{step}.txt"
        return done.exists() and done.read_text() == self.fingerprint(step)

    def do(self, step: str) -> str:
        """Does a step in a new folder; returns what went wrong."""
        folder, began = self.home / step, time.monotonic()
        (self.home / f"{step}.txt").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, line in enumerate(STEPS[step].of(self.name == "base"), 1):
            if wrong := self.run(folder, number, shlex.split(line)):
                return f"{step}, {self.name}: {line}\n{wrong}"
        (self.home / f"{step}.txt").write_text(self.fingerprint(step))
        print(f"{step}, {self.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        return ""

    def run(self, folder: Path, number: int, words: list[str]) -> str:
        """Runs one command; returns the end of what it said if it fails."""
        program = [str(self.code / "run.py")] if words[0] == "run" else ["-m", words[0]]
        own = {"PYTHONPATH": str(self.code), "XDG_CACHE_HOME": str(folder / "cache")}
        with open(folder / f"{number}.log", "w+") as log:
            command = (sys.executable, *program, *words[1:])
            status = subprocess.run(
                command, cwd=folder, env=os.environ | ENVIRONMENT | own, stdout=log, stderr=subprocess.STDOUT
            ).returncode
            log.seek(0)
            fails = status > (1 if FINDS & set(words[:2]) else 0) or status < 0
            return f"exit status {status}: {log.read()[-800:]}" if fails else ""


def digest_of_code() -> str:
    """Of the files here as they are, but for tests and texts."""
    listed = subprocess.check_output(("git", "ls-files", "-co", "--exclude-standard"), cwd=ROOT, text=True).splitlines()
    code = [ROOT / name for name in sorted(listed) if not re.search(r"^(tests|docs)/|\.md$", name)]
    contents = [path.read_bytes() for path in code if path.is_file()]
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


def clone(commit: str, folder: Path) -> Path:
    if not folder.exists():
        subprocess.run(("git", "clone", "--quiet", "--no-checkout", ROOT, folder), check=True)
        subprocess.run(("git", "checkout", "--quiet", "--detach", commit), cwd=folder, check=True)
    return folder


def make_inputs(work: Path) -> Path:
    """The made-up people, in a folder that their code names."""
    folder = work / f"inputs-{hashlib.sha256((HERE / 'inputs.py').read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        shutil.rmtree(work / "unfinished", ignore_errors=True)
        inputs.make(work / "unfinished")
        (work / "unfinished").rename(folder)
    return folder.resolve()


def perform(tasks: list[tuple[Side, str]], jobs: int) -> dict[str, str]:
    """Does steps of sides, first those that others use; returns what went wrong by step."""
    failed: dict[str, str] = {}
    for first in (True, False):
        now = [task for task in tasks if (task[1] == FIRST) == first]
        with ThreadPoolExecutor(jobs) as pool:
            told = pool.map(lambda task: task[0].do(task[1]), now)
            failed |= {step: wrong for (_, step), wrong in zip(now, told, strict=True) if wrong}
        if FIRST in failed:
            sys.exit(failed[FIRST])
    return failed


def equal(one: object, other: object) -> bool:
    """Exactly, with not a number equal to itself."""
    one, other = np.asarray(one), np.asarray(other)
    floats = one.dtype.kind in "fc" and other.dtype.kind in "fc"
    return one.dtype.kind == other.dtype.kind and np.array_equal(one, other, equal_nan=floats)


def distance(one: object, other: object) -> float:
    """The largest difference of numbers; infinity if one is undefined where the other is not, or of another form."""
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.kind not in "fiu" or one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
        return np.inf
    return float(np.nan_to_num(np.abs(one - other)).max(initial=0))


def first_difference(one: object, other: object) -> str:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return f"shape {one.shape} before, {other.shape} now"
    if not one.ndim:
        return f"{one.item()!r} before, {other.item()!r} now"
    both_nan = (one != one) & (other != other)
    places = np.argwhere((one != other) & ~both_nan)
    if not len(places):
        return f"{one.dtype} before, {other.dtype} now"
    at = tuple(places[0].tolist())
    return (
        f"{len(places)} of {one.size} entries, the first at {at}: {one[at].item()!r} before, {other[at].item()!r} now"
    )


def compare(step: str, before: dict[Name, object], now: dict[Name, object], used: Counter[Exemption]) -> int:
    """Prints what differs in a step; returns how many values differ that no exemption covers."""
    told: dict[tuple[str, ...], list[str]] = {}
    exempt: Counter[Exemption] = Counter()
    for name in sorted(before.keys() | now.keys()):
        how = "gone" if name not in now else "new" if name not in before else "changed"
        if how == "changed" and equal(before[name], now[name]):
            continue
        whole = "/".join((step, *name))
        apart = distance(before[name], now[name]) if how == "changed" else 0.0
        covering = next((row for row in EXEMPTIONS if row.covers(whole, how) and apart <= row.within), None)
        if covering:
            exempt[covering] += 1
        else:
            detail = f": {first_difference(before[name], now[name])}" if how == "changed" else ""
            told.setdefault((*name[:3], how), []).append(f"{name[3] or 'the only one'}{detail}")
    differ = sum(map(len, told.values()))
    print(f"{step}: {len(before.keys() & now.keys()):,} results compared, {differ or 'none'} differ", end="")
    print(f", {exempt.total()} more are exempt" if exempt else "")
    for (*name, how), rows in told.items():
        print(f"    {'/'.join(name)}: {len(rows)} {how}, the first {rows[0]}")
    for row, count in exempt.items():
        print(f"    exempt: {row.what}: {count} {row.how} ({row.since}: {row.reason})")
    used.update(exempt)
    return differ if before.keys() & now.keys() else max(1, differ)


def chosen(asked: str | None, real: Path | None) -> list[str]:
    steps = asked.split(",") if asked else [*STEPS]
    if unknown := [step for step in steps if step not in STEPS]:
        sys.exit(f"There is no step {', '.join(unknown)}; there are {', '.join(STEPS)}.")
    if REAL in steps and not real:
        print(f"{REAL}: left out, for no --real names a folder of maps")
        steps.remove(REAL)
    return steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", metavar="COMMIT")
    parser.add_argument("--steps", metavar="A,B", help=f"of {', '.join(STEPS)} (default all)")
    parser.add_argument(
        "--real", type=Path, metavar="DIR", help="maps falff, alff and series rois_cc200 of real people"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many steps at a time (default 2)")
    parser.add_argument("--work", type=Path, default=ROOT / "results/gate", metavar="DIR")
    args = parser.parse_args()
    steps, work, real = chosen(args.steps, args.real), args.work.resolve(), args.real and args.real.resolve()
    commit = subprocess.check_output(("git", "rev-parse", f"{args.commit}^{{commit}}"), cwd=ROOT, text=True).strip()
    base = Side("base", clone(commit, work / commit[:12] / "code"), work / commit[:12], commit)
    new = Side("new", ROOT, work / "new", digest_of_code())
    made = make_inputs(work)
    for side in (base, new):
        side.prepare(made, real)
    needed = [FIRST, *(step for step in steps if step != FIRST)]
    tasks = [(side, step) for side in (base, new) for step in needed if not side.has(step)]
    failed = perform(tasks, args.jobs)
    used: Counter[Exemption] = Counter()
    done = [step for step in steps if step not in failed]
    differ = sum(compare(step, results(base.home / step), results(new.home / step), used) for step in done)
    unused = [row for row in EXEMPTIONS if row not in used and row.could_be_met(done, [*STEPS])]
    for row in unused:
        print(f"An exemption matches nothing: {row.what}, {row.how} ({row.since})")
    for wrong in failed.values():
        print(f"Failed: {wrong}")
    print(f"{differ or 'No'} results differ from {commit[:12]} that are not exempt, in {len(done)} steps")
    return 1 if differ or unused or failed else 0


if __name__ == "__main__":
    sys.exit(main())
