"""Kills, full disks and disks that cannot be written, done to the command lines -> a table of what was lost.

    .venv/bin/python tests/kills.py [--seed N] [--only NAME]

One property holds for every row: what a command does not change stays as it was, and the same command repeated leaves
what an undisturbed one leaves, but for times and speeds. Where the disk ends it, it says so in one line, with exit
status 2. Exit status 1 if anything was lost.
"""

import argparse
import glob
import hashlib
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import lab
import pandas as pd
from commands import MODULE_BY_PROGRAM, ROOT
from tried import PROCESS_ENVIRONMENT, SIDE_BY_SIDE, print_table_head

EFFORT_SETTINGS = {"resamples": 200, "inner_folds": 2, "strengths": 2, "penalties": 2, "save_every": 10}
KILLED_STATUSES = (-signal.SIGKILL, 128 + signal.SIGKILL)  # itself, or one that does a fold for it
TIMES_BY_FAULT = {"kill": 4, "full_disk": 3, "read_only": 1}  # of each row
ON_COHORT = "--dataDir cohort --chkPointDir ckpt --outDir"
NN = "--model nn --set members=1 --set batch_size=8"
CNN = "--model cnn --preset residual --set filters=2,3 --set kernels=3,3 --set strides=3,2 --set pools=0,0"
CANDIDATES = "--set members=1 --set batch_size=8\n--set members=1 --set batch_size=4\n--set members=1 --set l1=0.1\n"


@dataclass(frozen=True)
class Row:
    """A command that is disturbed, in a copy of what that of the row `before` leaves."""

    command: str
    before: str = ""
    is_all_or_nothing: bool = False  # it makes its last argument as a whole, and is refused where that is
    compared_names: str = "*"  # of names of files: those that do not depend on where a kill struck


ROWS = {
    "convert": Row("abide-data convert --grid reduced --maps all {people}/maps cohort", is_all_or_nothing=True),
    "convert, full grid": Row("abide-data convert {people}/few cohort", is_all_or_nothing=True),
    "derive": Row(
        "abide-data derive {people}/scans derived --jobs 2 --series {people}/maps/parcels.nii.gz "
        "--maps falff,alff,reho,degree_weighted,eigenvector_weighted,vmhc",
    ),
    "pack": Row("abide-data pack cohort --zip packed", "convert", is_all_or_nothing=True),
    "swap": Row("abide-data swap cohort --copies 2 swapped", "convert", is_all_or_nothing=True),
    "train nn": Row(f"run.py --train {NN} --numIters 95 {ON_COHORT} out", "convert"),
    "train nn on": Row(f"run.py --train {NN} --numIters 135 {ON_COHORT} out", "train nn"),
    "train cnn": Row(f"run.py --train {CNN} --set batch_size=8 --numIters 25 {ON_COHORT} out", "convert"),
    "train folds": Row(f"run.py --train {NN} --folds 2 --numIters 35 {ON_COHORT} out", "convert"),
    "train folds, two at a time": Row(
        f"run.py --train {NN} --folds 2 --numIters 35 --jobs 2 {ON_COHORT} out",
        "convert",
        compared_names="*history.csv",
    ),
    "choose": Row(
        f"run.py --train --model nn --folds 2 --numIters 15 --choose {{people}}/candidates.txt {ON_COHORT} out",
        "convert",
    ),
    "train everybody": Row(f"run.py --train {NN} --everybody --numIters 25 {ON_COHORT} out", "convert"),
    "train cae": Row(
        f"run.py --train --model cae --set batch_size=2 --numIters 2 {ON_COHORT} out", "convert, full grid"
    ),
    "test": Row(f"run.py --test --model cnn {ON_COHORT} result", "train cnn"),
    "permutations": Row(f"run.py --test --model nn --folds 2 --permutations 8 {ON_COHORT} result", "train folds"),
    "blackout": Row(
        f"run.py --blackout --model cnn --donors 2 --atlas {{people}}/maps/parcels.nii.gz {ON_COHORT} result",
        "train cnn",
    ),
    "full pass": Row(f"run.py --model cae {ON_COHORT} reduced", "train cae"),
    "bundle": Row("abide-bundle ckpt/nn/everybody model.zip", "train everybody", is_all_or_nothing=True),
    "report": Row("abide-report result", "permutations"),
}

HOOK_SCRIPT = """
import json, os, signal, sys, threading

fault = json.loads(os.environ["FAULT"])
changes = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")

def strike():
    (os.killpg if fault["group"] else os.kill)(os.getpgid(0), signal.SIGKILL)

def note(event, arguments):
    if event not in changes or isinstance(arguments[0], int):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if not os.path.abspath(os.fsdecode(arguments[0])).startswith(fault["folder"] + os.sep):
        return
    log = os.open(fault["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b".")
    number = os.fstat(log).st_size
    os.close(log)
    if number == fault["number"]:
        threading.Timer(fault["delay_s"], strike).start() if fault["delay_s"] else strike()

sys.addaudithook(note)
"""  # each process of a command counts what it changes in its folder, and kills at a number
NAMESPACE_COMMAND = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT_SCRIPT = """
mkdir ../disk && cp -a . ../disk && mount -t tmpfs -o size=1g none "$PWD" && cd "$PWD" && cp -a ../disk/. . || exit 99
mount -o "remount,$1" "$PWD" && rm -r ../disk || exit 99
shift
"$@"
status=$?
cp -a . ../disk || exit 98
exit $status
"""


def count_page_bytes(folder: Path) -> int:
    """As a tmpfs counts them, in pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


TIMES_AND_SPEEDS = {"begun", "started", "wall_time_s", "samples_per_s", "when"}  # keys and columns
LOG_FILES = (
    "runs.csv",
    "checkpoint_results.csv",
)  # folds end in any order, one that is killed as it ends does so twice
MASKED_PATTERN = "|".join(
    (
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?( ?[+-]\d{4})?)?",
        r"\b\d{8}T\d{6}\b|\b\d+:\d\d(:\d\d)?\b",
        r"(?<![\d.,])[\d.,]+ (?=s\b|ms\b|min\b|h\b|samples/s|seconds|minutes|MB/s)",
        r"^.*events\.out\.tfevents.*",  # of TensorBoard, whose names are times; `^` keeps pages of one long line linear
        r"^.*timestamp.*",  # of TensorFlow's state file
        r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])",  # names that nilearn draws for the parts of its viewer
    )
)


def normalise_file(path: Path, content: bytes) -> str:
    """What a file holds, but for times, speeds, and digests of what holds these; of a binary one its digest."""
    file_type = path.suffix if path.suffix else path.name
    if file_type == ".json":
        json_content = json.loads(content)
        if path.name == "check.json":
            del json_content["cohort_sha256"]
        if "outputs" in json_content:
            json_content["outputs"] = sorted(name for name in json_content["outputs"] if "tfevents" not in name)
        text = re.sub(
            rf'^ *"({"|".join(TIMES_AND_SPEEDS)})":.*', "", json.dumps(json_content, indent=1), flags=re.MULTILINE
        )
    elif file_type == ".csv" and content.strip():
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        rows = table.drop(columns=TIMES_AND_SPEEDS & {*table}).to_csv(index=False).splitlines()
        text = "\n".join(sorted({*rows}) if path.name in LOG_FILES else rows)
    elif file_type == "SHA256SUMS":
        text = "\n".join(line.split(maxsplit=1)[-1] for line in content.decode().splitlines())
    elif file_type in (".html", ".txt", ".md", ".log", ".tsv", ".1D", "checkpoint"):
        text = content.decode().replace("><", ">\n<")
    else:
        return hashlib.sha256(content).hexdigest()
    return re.sub(MASKED_PATTERN, "", text, flags=re.MULTILINE)


def read_state(folder: Path) -> dict[str, str]:
    """Name of each file -> what it holds, but for where it lies; without TensorBoard's events, means, which know their
    records by inodes, and results that were moved aside."""
    text_by_file = {}
    for path in filter(Path.is_file, sorted(folder.rglob("*"))):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes().replace(os.fsencode(folder), b"<place>")
        if not re.search(r"tfevents|\bmeans/|\bearlier/", name):
            try:
                text_by_file[name] = normalise_file(path, content)
            except ValueError:  # half of a file, which a kill has left
                text_by_file[name] = content.hex()
    return text_by_file


def select_states(state: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    """What these files hold; nothing where one is missing."""
    return {name: state.get(name, "") for name in names}


def find_process_folders() -> Iterator[str]:
    """The working folders of all processes of this user."""
    for link in glob.glob("/proc/[0-9]*/cwd"):
        with suppress(OSError):  # it has ended, or is of another user
            yield os.readlink(link)


@dataclass
class Tally:
    """How often a fault was done, and what was lost by it, in a line each."""

    times: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def expect(self, holds: object, loss: str) -> None:
        if not holds:
            self.lost.append(" ".join(loss.split())[:600])
            print(f"    {self.lost[-1]}", file=sys.stderr, flush=True)

    def succeeded(self, done: subprocess.CompletedProcess, situation: str) -> None:
        """Exit status 0, or 1 of a conversion that has found problems in the people made up here."""
        has_succeeded = done.returncode == 0 or (done.returncode == 1 and "convert" in done.args)
        self.expect(has_succeeded and not done.stderr, f"{situation}: exit {done.returncode}, {done.stderr[-400:]!r}")

    def refused(self, done: subprocess.CompletedProcess, situation: str, words: str) -> None:
        """Exit status 2 and one line on stderr with these words, or one of each of two jobs."""
        lines, max_lines = done.stderr.splitlines(), 1 + ("--jobs" in done.args)
        is_refused = 1 <= len(lines) <= max_lines and all(re.search(f" error: .*({words})", line) for line in lines)
        complaint = (
            f"{situation}: exit {done.returncode}, expected 2 and one line with {words!r}: {done.stderr[-400:]!r}"
        )
        self.expect(done.returncode == 2 and is_refused, complaint)

    def expect_same(self, expected_state: dict[str, str], actual_state: dict[str, str], situation: str) -> None:
        differing_names = sorted(
            name
            for name in expected_state.keys() | actual_state.keys()
            if expected_state.get(name) != actual_state.get(name)
        )
        self.expect(not differing_names, f"{situation}: {', '.join(differing_names[:5])} differ")


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves where nothing happens: its folder, as it was and as it is, and how many changes it took."""

    folder: Path
    state_before: dict[str, str]
    state_after: dict[str, str]
    change_count: int


@dataclass(frozen=True)
class Torture:
    """The people of whom all is made, and what every row leaves undisturbed."""

    home: Path
    undisturbed_by_row: dict[str, Undisturbed] = field(default_factory=dict)
    lock_by_row: dict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))

    def make_people(self) -> None:
        (self.home / "hook").mkdir(parents=True)
        (self.home / "hook" / "sitecustomize.py").write_text(HOOK_SCRIPT)
        people = self.home / "people"
        lab.pcp(people / "maps", lab.people(), ("falff", "alff"), series=True)
        lab.pcp(people / "few", lab.people(12))
        lab.bold(people / "scans", lab.people(16))
        (people / "candidates.txt").write_text(CANDIDATES)

    def words(self, name: str) -> list[str]:
        program, *arguments = shlex.split(ROWS[name].command.format(people=self.home / "people"))
        return [sys.executable, "-m", MODULE_BY_PROGRAM[program], *arguments]

    def run(self, words: list[str], folder: Path, fault: dict | None = None) -> subprocess.CompletedProcess:
        """A command in a group of its own; ends with the last process that it has started."""
        path = [*([str(self.home / "hook")] if fault else []), str(ROOT)]
        environment = (
            os.environ
            | PROCESS_ENVIRONMENT
            | {"PYTHONPATH": os.pathsep.join(path), "ABIDE_EFFORT": json.dumps(EFFORT_SETTINGS)}
        )
        environment["FAULT"] = json.dumps({"folder": str(folder), **(fault or {})})
        subprocess_options: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": 600,
            "start_new_session": True,
        }
        done = subprocess.run(words, cwd=folder, env=environment, **subprocess_options)
        while str(folder) in find_process_folders():
            time.sleep(0.1)
        return done

    def start(self, name: str, folder: Path) -> Path:
        """A new folder to do the command of a row in, where the user has a file, too."""
        if previous_row := ROWS[name].before:
            shutil.copytree(self.undisturbed(previous_row).folder, folder)
        else:
            folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("mine")
        return folder

    def undisturbed(self, name: str) -> Undisturbed:
        with self.lock_by_row[name]:
            if name not in self.undisturbed_by_row:
                folder = self.start(name, self.home / "undisturbed" / name)
                log, state_before = folder.with_suffix(".log"), read_state(folder)
                done = self.run(self.words(name), folder, {"log": str(log), "number": 0})
                assert done.returncode < 2 and not done.stderr, f"{name}: {done.stderr}"
                self.undisturbed_by_row[name] = Undisturbed(
                    folder, state_before, read_state(folder), log.stat().st_size
                )
            return self.undisturbed_by_row[name]

    def replicates(self, name: str, folder: Path, tally: Tally, has_ended: bool) -> None:
        """What the user has is as it was; repeated, a disturbed command leaves what an undisturbed one does."""
        row, undisturbed_run, words = ROWS[name], self.undisturbed(name), self.words(name)
        tally.times += 1
        user_files = [
            file_name
            for file_name in undisturbed_run.state_before
            if file_name == "thesis.txt" or file_name.startswith("cohort/")
        ]
        tally.expect_same(
            select_states(undisturbed_run.state_before, user_files),
            select_states(read_state(folder), user_files),
            f"{folder}, at once",
        )
        is_made = row.is_all_or_nothing and (folder / words[-1]).exists()
        if not has_ended and not is_made:
            tally.succeeded(self.run(words, folder), f"{folder}, repeated")
        compared = [name for name in undisturbed_run.state_after if fnmatch(name, row.compared_names)]
        if is_made:  # its check had not ended
            compared = [name for name in compared if not name.endswith("check.json")]
        final_state = read_state(folder)
        if not is_made and row.compared_names == "*":
            compared += final_state  # one that was killed when all was made has left its lock
        tally.expect_same(
            select_states(undisturbed_run.state_after, compared),
            select_states(final_state, compared),
            f"{folder}, in the end",
        )

    def kill(self, name: str, folder: Path, tally: Tally, rng: random.Random) -> None:
        """SIGKILL, of all its processes or the first one only, at one of its changes or soon after; once to thrice."""
        undisturbed_run, log = self.undisturbed(name), folder.with_suffix(".log")
        for _ in range(rng.choice([1, 1, 2, 3])):
            log.unlink(missing_ok=True)
            fault = {
                "log": str(log),
                "number": rng.randint(1, undisturbed_run.change_count),
                "group": rng.random() < 0.5,
            }
            done = self.run(self.words(name), folder, fault | {"delay_s": rng.choice([0, rng.uniform(0, 1)])})
            if has_ended := done.returncode not in KILLED_STATUSES:
                tally.succeeded(done, f"{folder}, which has ended first")
            if has_ended or (ROWS[name].is_all_or_nothing and (folder / self.words(name)[-1]).exists()):
                break
        self.replicates(name, folder, tally, has_ended)

    def full_disk(self, name: str, folder: Path, tally: Tally, rng: random.Random) -> None:
        """A disk that fills at one of the writes."""
        bytes_before, bytes_after = count_page_bytes(folder), count_page_bytes(self.undisturbed(name).folder)
        room_bytes = rng.uniform(0, 0.95) * (bytes_after - bytes_before)
        done = self.on_a_disk(name, folder, f"size={bytes_before + max(int(room_bytes), 4096)}")
        if has_ended := done.returncode < 2:
            tally.note = "some had room enough"
            tally.succeeded(done, f"{folder}, with room")
        else:
            tally.refused(done, str(folder), "No space left|[Rr]oom")
            if ROWS[name].is_all_or_nothing:
                tally.expect_same(
                    self.undisturbed(name).state_before,
                    read_state(folder),
                    f"{folder}, of which nothing should be left",
                )
        self.replicates(name, folder, tally, has_ended)

    def read_only(self, name: str, folder: Path, tally: Tally, rng: random.Random) -> None:
        tally.refused(self.on_a_disk(name, folder, "ro"), str(folder), "Read-only file system|cannot be written")
        self.replicates(name, folder, tally, has_ended=False)

    def on_a_disk(self, name: str, folder: Path, options: str) -> subprocess.CompletedProcess:
        """A command whose folder is a disk mounted with these options; what that holds at the end comes back."""
        done = self.run([*NAMESPACE_COMMAND, MOUNT_SCRIPT, "sh", options, *self.words(name)], folder)
        assert done.returncode < 98, done.stderr
        shutil.rmtree(folder)
        folder.with_name("disk").rename(folder)
        return done


@cache
def can_mount() -> bool:
    """Whether everybody may mount a disk in a namespace of his own here."""
    with tempfile.TemporaryDirectory() as folder:
        mounting = [*NAMESPACE_COMMAND, 'mount -t tmpfs none "$1"', "sh", folder]
        return bool(shutil.which("unshare")) and subprocess.run(mounting, capture_output=True).returncode == 0


def suffer(torture: Torture, name: str, fault: str, times: int, seed: int) -> Tally:
    """One fault, which is lost as a whole if the torture itself fails."""
    tally, rng, start_time = Tally(), random.Random(f"{seed} {fault} {name}"), time.monotonic()
    if fault != "kill" and not can_mount():
        return Tally(note="not tried: no disk can be mounted here")
    for number in range(times):
        folder = torture.home / f"{fault} {name}" / str(number)
        try:
            torture.start(name, folder)
            getattr(torture, fault)(name, folder, tally, rng)
        except Exception as error:
            tally.expect(False, f"{folder}: {type(error).__name__}: {error!s:.500}")
        if not tally.lost:
            shutil.rmtree(folder.parent, ignore_errors=True)
    print(
        f"{fault}: {name}: {len(tally.lost)} lost, {time.monotonic() - start_time:.0f} s", file=sys.stderr, flush=True
    )
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NAME", help="faults whose name holds this")
    args = parser.parse_args()
    torture = Torture(Path(tempfile.mkdtemp(prefix="kills-")).resolve())
    torture.make_people()
    people_state = read_state(torture.home / "people")
    row_faults = [(name, fault) for name in ROWS for fault in TIMES_BY_FAULT if args.only in f"{fault}: {name}"]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        tallies = list(
            pool.map(lambda row: suffer(torture, row[0], row[1], TIMES_BY_FAULT[row[1]], args.seed), row_faults)
        )
    print_table_head("command", "fault", "times", "lost", "")
    for (name, fault), tally in zip(row_faults, tallies, strict=True):
        print(f"| {name} | {fault} | {tally.times} | {len(tally.lost) or 'nothing'} | {tally.note} |")
    loss_count = sum(len(tally.lost) for tally in tallies) + (read_state(torture.home / "people") != people_state)
    print(f"\n{loss_count or 'Nothing'} lost, people included, seed {args.seed}")
    if not loss_count:
        shutil.rmtree(torture.home)
    return int(bool(loss_count))


if __name__ == "__main__":
    sys.exit(main())
