"""Faults that really happen, done to the command lines in processes of their own -> a table of what was lost.

    .venv/bin/python tests/torture.py [--seed N] [--only NAME]

Every fault works in a temporary folder on simulated people. What a disturbed command leaves in the end, the same
command repeated, is compared byte by byte with what an undisturbed one leaves; only what `contents.py` and `state` name
is left out. Exit status 1 if anything was lost.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from contents import lines_of, masked
from helpers import ROOT, TINY_CNN, Page, assert_bit_equal, resealed, write_pcp, write_rows
from scans import write_people

from data import demo
from data.cohorts import records
from data.cohorts.atlas import load_atlas
from data.cohorts.nifti import mni_image, save
from data.cohorts.stored import open_cohort

ENVIRONMENT = os.environ | {
    **{"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    **dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}
SIDE_BY_SIDE = 2  # faults
RUN = (sys.executable, str(ROOT / "run.py"))
DATA = (sys.executable, "-m", "data")
NN = ("--model", "nn", "--set", "members=1", "--set", "batch_size=8")
CNN = ("--model", "cnn", *TINY_CNN, "--set", "batch_size=8")
DERIVED = ("--jobs", "2", "--maps", "falff,alff,reho,degree_weighted,eigenvector_weighted,vmhc")
PLACES = ("--chkPointDir", "ckpt", "--outDir", "out")
CANDIDATES = "--set members=1 --set batch_size=8\n--set members=1 --set batch_size=4\n--set members=1 --set l2=0.1\n"
MOUNTED = """
mount -t tmpfs -o size=1g none disk && cp -a before/. disk && cd disk && mount -o "remount,$1" "$PWD" || exit 99
shift
"$@" >../first.out 2>../first.err
echo $? >../first.status
cp -a . ../disturbed
mount -o remount,rw,size=1g "$PWD"
"$@" >../second.out 2>../second.err
echo $? >../second.status
cp -a . ../after || exit 98
"""


@dataclass
class Tally:
    """How often a fault was done, and what was lost by it, in a line each."""

    times: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def expect(self, holds: object, loss: str) -> None:
        if not holds:
            self.lost.append(" ".join(loss.split())[:600])

    def succeeded(self, done: subprocess.CompletedProcess, what: str) -> bool:
        """Exit status 0, or 1 of a verb that has found problems in the people made up here."""
        fine = done.returncode == 0 or (done.returncode == 1 and {"convert", "check"} & set(map(str, done.args)))
        self.expect(fine and not done.stderr, f"{what}: exit {done.returncode}, {done.stderr[-400:]!r}")
        return bool(fine)

    def refused(self, done: subprocess.CompletedProcess, what: str, words: str = "") -> None:
        """Exit status 2 and one line on stderr, with these words."""
        one_line = done.stderr.count("\n") == 1 and done.stderr.endswith("\n") and " error: " in done.stderr
        told = f"{what}: exit {done.returncode}, expected 2 and one line with {words!r}: {done.stderr[-400:]!r}"
        self.expect(done.returncode == 2 and one_line and re.search(words, done.stderr), told)

    def same(self, one: dict[str, str], other: dict[str, str], what: str) -> None:
        """Two states, `one` undisturbed."""
        wrong = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        self.expect(not wrong, f"{what}: {', '.join(wrong[:5])} differ")


@dataclass(frozen=True)
class Work:
    """A command in a folder where `before` lies; how its work begins to print; the target that must not be there."""

    command: tuple[str, ...]
    begins: str
    before: Path | None = None
    target: str | None = None

    def folder(self, path: Path) -> Path:
        """A new folder to do it in."""
        path.mkdir(parents=True)
        if self.before:
            shutil.copytree(self.before, path, dirs_exist_ok=True)
        return path


@dataclass(frozen=True)
class Cohorts:
    """Simulated people: some, more, few at full size, as scans, and checkpoints made of them."""

    home: Path

    def make(self) -> None:
        demo.simulate(self.home / "some", records.REDUCED, demo.Simulation(subjects=40, seed=1))
        demo.simulate(self.home / "more", records.REDUCED, demo.Simulation(subjects=180, seed=3))
        demo.simulate(self.home / "full", records.FULL, demo.Simulation(subjects=12, seed=2))
        write_pcp(self.home / "scans")
        write_people(self.home / "scanned" / "bold", [str(number) for number in range(1, 25)], shape=(16, 18, 16))
        write_atlas(self.home / "four.nii.gz", ["first", "second", "third", "fourth"])
        (self.home / "candidates.txt").write_text(CANDIDATES)
        trainings = {
            "nn": (*NN, "--numIters", "300", "--dataDir", self.home / "some"),
            "cnn": (*CNN, "--numIters", "4", "--dataDir", self.home / "some"),
            "folds": (*NN, "--folds", "2", "--numIters", "150", "--dataDir", self.home / "some"),
            "cae": ("--model", "cae", "--set", "batch_size=2", "--numIters", "2", "--dataDir", self.home / "full"),
        }
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for name, done in zip(trainings, pool.map(self.train, trainings, trainings.values()), strict=True):
                assert done.returncode == 0, f"{name}: {done.stderr}"

    def train(self, name: str, options: tuple) -> subprocess.CompletedProcess:
        (self.home / f"trained-{name}").mkdir()
        return run((*RUN, "--train", *map(str, options), *PLACES), self.home / f"trained-{name}")

    def work(self, name: str) -> Work:
        """What is disturbed."""
        some, more, full, four = (str(self.home / name) for name in ("some", "more", "full", "four.nii.gz"))
        train = (*RUN, "--train", *NN, "--dataDir", some, *PLACES)
        nn, cnn, cae, folds = (self.home / f"trained-{name}" for name in ("nn", "cnn", "cae", "folds"))
        on_two = ("--model", "nn", "--folds", "2", "--dataDir", some, "--chkPointDir", "ckpt")
        choose = ("--choose", str(self.home / "candidates.txt"), "--numIters", "150", "--outDir", "out")
        permute = ("--permutations", "8", "--outDir", "result")
        of_cnn = ("--model", "cnn", "--dataDir", some, "--chkPointDir", "ckpt", "--outDir", "result")
        return {
            "training": Work((*train, "--numIters", "1500"), "Training"),
            "training in folds": Work((*train, "--folds", "3", "--numIters", "450"), "To do"),
            "training with a choice": Work((*RUN, "--train", *on_two, *choose), "To do"),
            "permutations": Work((*RUN, "--test", *on_two, *permute), "To do", folds),
            "training that goes on": Work((*train, "--numIters", "750"), "Training", nn),
            "test": Work((*RUN, "--test", *of_cnn), "Testing", cnn),
            "blackout": Work((*RUN, "--blackout", *of_cnn, "--donors", "2", "--atlas", four), "Black", cnn),
            "full pass": Work(
                (*RUN, "--model", "cae", "--dataDir", full, "--chkPointDir", "ckpt", "--outDir", "reduced"),
                "No GPU", cae, "reduced",
            ),
            "conversion": Work((*DATA, "convert", str(self.home / "scans"), "cohort"), "Layout"),
            "derivation": Work(
                (*DATA, "derive", "bold", "derived", *DERIVED, "--series", four), "Layout", self.home / "scanned"
            ),
            "packing, zip": Work((*DATA, "pack", more, "packed", "--zip"), "Packing", target="packed"),
            "swap": Work((*DATA, "swap", more, "swapped", "--copies", "2"), "Swapping", target="swapped"),
        }[name]  # fmt: skip


def write_atlas(path: Path, names: list[str]) -> None:
    """The first regions of AAL, called so."""
    labels = load_atlas(None, records.REDUCED).labels
    save(mni_image(np.where(labels <= len(names), labels, 0).astype(np.int16), records.REDUCED), path)
    text = "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    path.with_name(path.name.replace(".nii.gz", ".txt")).write_text(text)


# Processes, and what they leave


def run(command: tuple, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def started(command: tuple, folder: Path) -> subprocess.Popen:
    """In a group of its own, with the processes that it starts."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes)


def wait_for(line: str, process: subprocess.Popen) -> None:
    """Until it prints a line that begins so, or ends."""
    any(printed.startswith(line) for printed in process.stdout)


PLACE = re.compile(r'/(?:[^"\\]|\\.)*/torture-(?:[^"\\]|\\.)*?/(?=(?:ckpt|out)\b)')  # of a run, which names its own


def state(folder: Path) -> dict[str, str]:
    """What every file below a folder holds, by its name: a digest of all but times.

    Left out are TensorBoard's events, whose names are times, and results that were moved aside.
    """
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    kept = (path for path in paths if "tfevents" not in path.name and "earlier" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): hashlib.sha256(without_times(path)).hexdigest() for path in kept}


def without_times(path: Path) -> bytes:
    """What a file holds, without times, without where a run took place, and without the names of TensorBoard's events:
    each start makes some."""
    content = path.read_bytes()
    if path.name == "checkpoint":  # TensorFlow's state file
        return b"\n".join(line for line in content.splitlines() if b"timestamp" not in line)
    lines = (masked(PLACE.sub("<place>/", line)) for line in lines_of(path.as_posix(), content))
    return "\n".join(line for line in lines if line.strip(' ",') != "<events>").encode()


# Kills


def kills(name: str, count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """SIGKILL, `count` times: one in five at any moment of the command's life, the others amid its work."""
    work, tally = cohorts.work(name), Tally()
    life, working, wanted = undisturbed(work, place)
    number, at_work = 0, 0
    while tally.times < count:
        number += 1
        folder = work.folder(place / str(number))
        for _ in range(rng.choice([1, 2, 3])):  # of the command and its repetitions
            if work.target and (folder / work.target).exists():
                break
            anywhere = rng.random() < 0.2
            process = started(work.command, folder)
            if not anywhere:
                wait_for(work.begins, process)
            time.sleep(rng.uniform(0, 0.9 * (life if anywhere else working)))
            alive = process.poll() is None
            at_work += alive and not anywhere
            tally.times += alive
            with suppress(ProcessLookupError):
                (os.killpg if rng.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()
        ended = work.target and (folder / work.target).exists()
        if ended or tally.succeeded(patiently(work.command, folder), f"repeated after a kill in {folder.name}"):
            tally.same(wanted, {name: of for name, of in state(folder).items() if not ended or name in wanted}, name)
        shutil.rmtree(folder)
    tally.note = f"{at_work} amid its work of {working:.1f} s"
    return tally


def killed_parent(count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """SIGKILL, `count` times, of the process that has both folds done at a time: these save and end soon, and the same
    command comes to the same weights. It saved once more, so that its checkpoints have other numbers."""
    single, tally = cohorts.work("training").command, Tally()
    work, saved = Work((*single[:-1], "450", "--folds", "2", "--jobs", "2"), "Still"), 0
    whole, working = place / "undisturbed", undisturbed(work, place)[0]
    for number in range(count):
        folder = work.folder(place / str(number))
        process, until = started(work.command, folder), time.monotonic() + 120
        while not list(folder.glob("out/*/history.csv")) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.2 * working))
        tally.times += process.poll() is None
        process.kill()
        process.communicate()
        until = time.monotonic() + 60
        while living(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        tally.expect(not living(process.pid), f"processes {living(process.pid)} went on in {folder.name}")
        saved += len(list(folder.glob("ckpt/nn/folds-2/*/checkpoint")))
        if tally.succeeded(run(work.command, folder), f"repeated in {folder.name}"):
            tally.same(tables_in(whole), tables_in(folder), f"after a kill in {folder.name}")
            for fold in "01":
                assert_bit_equal(whole / "ckpt/nn/folds-2" / fold, folder / "ckpt/nn/folds-2" / fold)
    tally.note = f"{saved} folds had saved"
    return tally


def tables_in(folder: Path) -> dict[str, str]:
    """The state of all tables but those of runs, whose rows stand in the order in which folds ended."""
    return {name: of for name, of in state(folder).items() if name.endswith(".csv") and "runs" not in name}


def living(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            status, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and status not in "ZX":
                found.append(int(path.parent.name))
    return found


def undisturbed(work: Work, place: Path) -> tuple[float, float, dict[str, str]]:
    """Seconds that a command takes in all, and from where its work begins; what it leaves."""
    folder, begun = work.folder(place / "undisturbed"), time.monotonic()
    process = started(work.command, folder)
    wait_for(work.begins, process)
    working = time.monotonic()
    _, error = process.communicate()
    assert process.returncode == 0, error
    return time.monotonic() - begun, time.monotonic() - working, state(folder)


def patiently(command: tuple, folder: Path) -> subprocess.CompletedProcess:
    """A command, repeated while workers of one that was killed are about to end."""
    for _ in range(20):
        done = run(command, folder)
        if "is being written by" not in done.stderr:
            break
        time.sleep(0.2)
    return done


# Disks


def in_namespace(work: Work, folder: Path, fault: str) -> tuple[subprocess.CompletedProcess, ...] | None:
    """A command on a disk that is mounted with `fault`, then on the same disk without; None if none may be mounted.

    `folder` then holds the disk as `disturbed` and `after`.
    """
    work.folder(folder / "before")
    (folder / "disk").mkdir()
    shell = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh", fault, *work.command)
    outside = run(shell, folder)
    if outside.returncode in (1, 99):  # as unshare and the first mount end
        return None
    assert outside.returncode == 0, outside.stderr
    return tuple(
        subprocess.CompletedProcess(
            work.command,
            int((folder / f"{name}.status").read_text()),
            *((folder / f"{name}.{stream}").read_text() for stream in ("out", "err")),
        )
        for name in ("first", "second")
    )


NO_NAMESPACE = "not tried: nobody may mount a disk in a namespace of his own here"


def bytes_in(folder: Path) -> int:
    """As a tmpfs counts them, in pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def full_disk(name: str, count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A disk that fills at one of the writes, `count` times; then there is room, and the command is repeated."""
    work, tally = cohorts.work(name), Tally()
    wanted = undisturbed(work, place)[2]
    before = bytes_in(work.before) if work.before else 0
    written, had_room = bytes_in(place / "undisturbed") - before, 0
    for number in range(count):
        share = (number + rng.random()) / count * 0.95
        folder = place / str(number)
        done = in_namespace(work, folder, f"size={before + max(int(share * written), 4096)}")
        if done is None:
            return Tally(note=NO_NAMESPACE)
        first, second = done
        tally.times += 1
        what = f"{name}, room for {share:.0%}"
        if first.returncode < 2:
            had_room += 1
        else:
            tally.refused(first, what, "No space left|[Rr]oom")
            tally.expect(not work.target or not (folder / "disturbed" / work.target).exists(), f"{what}: half a target")
        if first.returncode or not work.target:
            tally.succeeded(second, f"{what}, repeated")
        tally.same(wanted, state(folder / "after"), f"{what}, repeated")
        shutil.rmtree(folder)
    tally.note = f"{had_room} had room enough" if had_room else ""
    return tally


def read_only(name: str, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A folder that cannot be written, as a disk mounted to be read only; then it can."""
    work, tally = cohorts.work(name), Tally()
    wanted = undisturbed(work, place)[2]
    done = in_namespace(work, place / "disk", "ro")
    if done is None:
        return Tally(note=NO_NAMESPACE)
    tally.times += 1
    tally.refused(done[0], name, "Read-only file system|Permission denied|cannot be written")
    tally.same(state(place / "disk" / "before"), state(place / "disk" / "disturbed"), f"{name}, refused")
    tally.succeeded(done[1], f"{name}, repeated")
    tally.same(wanted, state(place / "disk" / "after"), f"{name}, repeated")
    return tally


# Checkpoints


def truncate(folder: Path, rng: random.Random) -> None:
    path = folder / "ckpt-3.data-00000-of-00001"
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(suffix: str, folder: Path, rng: random.Random) -> None:
    path = folder / f"ckpt-3.{suffix}"
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def remove(suffix: str, folder: Path, rng: random.Random) -> None:
    (folder / f"ckpt-3.{suffix}").unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "a bit flipped": partial(flip, "data-00000-of-00001"),
    "a bit of the index flipped": partial(flip, "index"),
    "without its index": partial(remove, "index"),
    "without its data": partial(remove, "data-00000-of-00001"),
}


def damaged_checkpoint(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """The last of three checkpoints is damaged; training and test use the one before, and say so."""
    some, tally = ("--dataDir", str(cohorts.home / "some")), Tally()
    train = (*RUN, "--train", *NN, *some, "--numIters", "450", *PLACES)
    test = (*RUN, "--test", "--model", "nn", *some, "--chkPointDir", "ckpt", "--outDir", "result")
    wanted = undisturbed(Work(train, "Training"), place)[2]
    for name, damage in DAMAGES.items():
        folder = Work((), "", place / "undisturbed").folder(place / name.replace(" ", "-"))
        damage(folder / "ckpt" / "nn", rng)
        for command in (test, train):
            done = run(command, folder)
            tally.times += 1
            tally.succeeded(done, f"{name}, {command[2]}")
            tally.expect("ckpt-3" in done.stdout, f"{name}, {command[2]}: not said")
        found = state(folder)
        tally.same(
            wanted,
            {path: found.get(path) for path in wanted if path != "runs.csv"} | {"runs.csv": wanted["runs.csv"]},
            name,
        )
    return tally


def two_at_once(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A second training on a checkpoint folder is refused and names the first; one killed blocks nobody."""
    some, tally = ("--dataDir", str(cohorts.home / "some")), Tally()
    place.mkdir()
    for number in range(3):
        forever = (*RUN, "--train", *NN, *some, "--numIters", "1000000", "--chkPointDir", f"ckpt{number}")
        process = started((*forever, "--outDir", "one"), place)
        wait_for("Training", process)
        time.sleep(rng.uniform(0, 1))
        second = run((*forever, "--outDir", "other"), place)
        tally.times += 1
        tally.refused(second, "the second", f"is being written by process {process.pid} on .*run.py --train")
        process.kill()
        process.communicate()
        saved = place / f"ckpt{number}" / "nn"
        step = state_step(saved) if (saved / "run.json").exists() else 0
        more = (*forever[:-3], str(step + 5), *forever[-2:], "--outDir", "one")
        tally.succeeded(run(more, place), "after the first was killed")
        shutil.rmtree(place / "one", ignore_errors=True)
    return tally


# Losses that are no number


def endless_rate(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A learning rate that no weights survive, before any checkpoint."""
    place.mkdir()
    some = ("--dataDir", str(cohorts.home / "some"))
    tally = Tally(times=1)
    command = (*RUN, "--train", *NN, *some, "--set", "learning_rate=1e30", "--numIters", "300", *PLACES)
    tally.refused(run(command, place), "--set learning_rate=1e30", r"iteration \d")
    tally.expect(not list(place.rglob("ckpt-*")), "a checkpoint of weights that are no numbers")
    return tally


def changed_bytes(count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A bit flipped anywhere in a file of records, of every form: a test refuses the record, or gives what it gave."""
    tally = Tally()
    place.mkdir()
    for model in ("nn", "cnn"):
        shutil.copytree(cohorts.home / f"trained-{model}" / "ckpt", place / "ckpt", dirs_exist_ok=True)
    tests = [(*RUN, "--test", "--model", model, "--chkPointDir", "ckpt") for model in ("nn", "cnn")]
    for form in ("bin", "zip"):
        tally.succeeded(run((*DATA, "pack", str(cohorts.home / "some"), form, f"--{form}"), place), f"packing, {form}")
        wanted = []
        for at, test in enumerate(tests):
            tally.succeeded(run((*test, "--dataDir", form, "--outDir", f"{form}-{at}"), place), f"test, {form}")
            wanted.append((place / f"{form}-{at}" / "predictions.csv").read_bytes())
        files = [path for path in sorted((place / form).iterdir()) if path.suffix in ("", ".bin")]
        for number in range(count):
            victim = rng.choice([path for path in files if path.name != "SHA256SUMS"])
            whole, at = victim.read_bytes(), rng.randrange(victim.stat().st_size)
            victim.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            for test, right in zip(tests, wanted, strict=True):
                out = f"{form}-{number}-{test[4]}"
                done, what = run((*test, "--dataDir", form, "--outDir", out), place), f"{form}, {test[4]}, byte {at}"
                tally.times += 1
                if done.returncode:
                    tally.refused(done, what, victim.stem)
                else:
                    tally.expect((place / out / "predictions.csv").read_bytes() == right, f"{what}: other predictions")
            victim.write_bytes(whole)
    return tally


def changed_while_training(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """A record that is overwritten by another one amid a training: it is named, the last checkpoint remains, and once
    the record is back the same command goes on."""
    tally = Tally()
    for name, options in {"nn": NN, "cnn": CNN}.items():
        folder = Work((), "", cohorts.home / f"trained-{name}").folder(place / name)
        cohort = shutil.copytree(cohorts.home / "some", folder / "cohort")
        rows = [row.file for row in open_cohort(cohort).rows if row.split == "train"]
        victim, other = (cohort / file for file in rng.sample(rows, 2))
        command = (*RUN, "--train", *options, "--dataDir", "cohort", *PLACES)
        process = started((*command, "--numIters", "1000000"), folder)
        wait_for("Training", process)
        step, whole = state_step(folder / "ckpt" / name), victim.read_bytes()
        victim.write_bytes(other.read_bytes())
        out, err = process.communicate(timeout=120)
        tally.times += 1
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        tally.refused(done, name, f"{re.escape(victim.name)} is not what was written")
        tally.expect(state_step(folder / "ckpt" / name) >= step, f"{name}: the checkpoint of iteration {step} is gone")
        victim.write_bytes(whole)
        step = state_step(folder / "ckpt" / name)
        tally.succeeded(run((*command, "--numIters", str(step + 2)), folder), f"{name}, with the record back")
    return tally


def state_step(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text())["step"]


# Inputs


def mutated(count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """`count` mutations of every file that a command reads: each is read, or refused in one line."""
    place.mkdir()
    command = (sys.executable, str(ROOT / "tests" / "test_mutations.py"), str(place / "m"), str(rng.randrange(10**6)))
    (place / "m").mkdir()
    environment = ENVIRONMENT | {"PYTHONFAULTHANDLER": "1"}
    done = subprocess.run((*command, str(count)), cwd=place, env=environment, capture_output=True, text=True)
    kinds = re.findall(r"^(.*): (\d+) read, (\d+) refused$", done.stdout, re.MULTILINE)
    tally = Tally(sum(int(read) + int(refused) for _, read, refused in kinds), note=f"{len(kinds)} formats")
    tally.lost += [line for line in done.stdout.splitlines() if line.startswith("BAD ")]
    tally.expect(
        done.returncode == bool(tally.lost) and not done.stderr and kinds, done.stdout[-300:] + done.stderr[-300:]
    )
    return tally


# Load


def at_once(count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """Trainings on one cohort, all at the same time, end as one alone."""
    tally = Tally(count)
    work = Work(
        (*RUN, "--train", *NN, "--dataDir", str(cohorts.home / "some"), "--numIters", "300", *PLACES), "Training"
    )
    wanted = undisturbed(work, place)[2]
    processes = [started(work.command, work.folder(place / str(number))) for number in range(count)]
    for number, process in enumerate(processes):
        out, error = process.communicate()
        done = subprocess.CompletedProcess(work.command, process.returncode, out, error)
        if tally.succeeded(done, f"training {number}"):
            tally.same(wanted, state(place / str(number)), f"training {number}")
    return tally


def many_iterations(count: int, cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """Memory and open files of a training that saves every 150 iterations, from a fifth of it on."""
    place.mkdir()
    tally = Tally(count)
    command = (*RUN, "--train", *NN, "--dataDir", str(cohorts.home / "some"), "--numIters", str(count), *PLACES)
    process = started(command, place)
    seen: dict[int, tuple[int, int]] = {}
    while process.poll() is None:
        with suppress(OSError, ValueError, KeyError):
            seen[state_step(place / "ckpt" / "nn")] = usage(process.pid)
        time.sleep(0.05)
    tally.succeeded(subprocess.CompletedProcess(command, process.returncode, *process.communicate()), "training")
    early, late = (seen[min(step for step in seen if step >= least)] for least in (count // 5, count - 300))
    tally.note = f"{early[0] / 2**20:.0f} and {late[0] / 2**20:.0f} MB, {early[1]} and {late[1]} open files"
    tally.expect(late[0] < 1.03 * early[0] and late[1] <= early[1], f"it grows: {tally.note}")
    return tally


def usage(pid: int) -> tuple[int, int]:
    """Resident bytes, and open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir(f"/proc/{pid}/fd"))


# Names

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "=cmd|'/c calc'!A1",
    '"><img src=x onerror=alert(3)>',
    "../../x",
    "{{7*7}}",
    "{% for x in y %}",
    "@SUM(1+1)*cmd",
    "-2+3+cmd",
    "+1+cmd",
    "a, b; 'c' \"d\"",
    "$\\frac{1}{0$ &amp; &lt;b&gt;",
    "O'Neill\\",
    "NA",
    "脳 Ω é",
    "long " * 60,
]
REFUSED = ["right\u202eleft", "two\nlines", "\x1b[2Jclear", "tab\t=1+1", "zero\0"]
FORMULA = re.compile(r"[=+\-@\t\r]")
READ_BACK = {  # tables by whose names others are joined, so that these stay as they are
    *("subjects.csv", "covariates.csv", "phenotype.csv", "folds.csv", "predictions.csv", "floor_predictions.csv"),
}


def renamed(source: Path, target: Path, names: list[str], sites: list[str]) -> Path:
    """A copy of a cohort whose first subjects and records are called so, with these sites in turn."""
    opened = open_cohort(shutil.copytree(source, target))
    subject = dict(zip([row.subject for row in opened.rows], names, strict=False))
    site = {row.subject: sites[number % len(sites)] for number, row in enumerate(opened.rows)}
    for table in ("covariates.csv", "phenotype.csv"):
        rows = list(csv.DictReader((target / table).read_text().splitlines()))
        for row in rows:
            if "SITE_ID" in row:
                row["SITE_ID"] = site[row["subject"]]
            row["subject"] = subject.get(row["subject"], row["subject"])
        write_rows(target / table, rows)
    rows = [vars(row) | {"label": int(row.label), "site": site[row.subject]} for row in opened.rows]
    write_rows(
        target / "subjects.csv", [row | {"subject": subject.get(row["subject"], row["subject"])} for row in rows]
    )
    return resealed(target)


RUNNING = ("script", "iframe", "object", "embed", "base", "form")  # tags


def written(page: Path) -> list[int]:
    """How many of these tags the project itself puts on a page of this name."""
    templates = ["data/pages/page.html", *(["utils/blackout/brain.html"] if page.name == "blackout.html" else [])]
    text = "".join((ROOT / template).read_text() for template in templates)
    return [text.count(f"<{tag}") for tag in RUNNING]


def hostile_names(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """Subjects, sites and regions called so that a page, a spreadsheet or a path would do what they say."""
    outside, place = place, place / "inside"
    place.mkdir(parents=True)
    tally, sites = Tally(), HOSTILE[:5]
    renamed(cohorts.home / "some", place / "cohort", HOSTILE, sites)
    write_atlas(place / "own.nii.gz", HOSTILE)
    where = ("--dataDir", "cohort", "--chkPointDir", "ckpt")
    nn, cnn = ("--model", "nn", *where, "--folds", "site"), ("--model", "cnn", *where)
    commands = [
        (*DATA, "check", "cohort", "--html", "check.html"),
        (*DATA, "swap", "cohort", "swapped", "--copies", "1"),
        (*DATA, "pack", "cohort", "packed", "--zip"),
        (*RUN, "--train", *nn, *NN[2:], "--numIters", "4"),
        (*RUN, "--test", *nn),
        (*RUN, "--train", *cnn, *CNN[2:], "--numIters", "4"),
        (*RUN, "--test", *cnn),
        (*RUN, "--blackout", *cnn, "--atlas", "own.nii.gz", "--donors", "2"),
    ]
    for command in commands:
        done = run(command, place)
        tally.times += 1
        tally.succeeded(done, " ".join(command[1:5]))
        tally.expect(done.stdout.replace("\n", "").isprintable(), f"{command[2:4]} prints what steers a terminal")
    tally.expect(list(outside.iterdir()) == [place], "something was written outside")
    pages, tables = sorted(place.rglob("*.html")), sorted(place.rglob("*.csv"))
    for page in pages:
        check_page(page, tally)
    for table in tables:
        check_csv(table, tally)
    tally.expect(len(pages) == 3 + len(sites) + 1, f"{len(pages)} pages")
    tally.note = f"{len(HOSTILE)} names on {len(pages)} pages and in {len(tables)} tables"
    for name in REFUSED:
        shutil.rmtree(place / "cohort")
        renamed(cohorts.home / "some", place / "cohort", [name], [name])
        tally.times += 1
        tally.refused(run((*DATA, "check", "cohort"), place), repr(name), "without control characters")
    return tally


def check_page(page: Path, tally: Tally) -> None:
    """Nothing runs but what the project wrote, nothing is asked for from elsewhere, and names are shown as they are."""
    parsed, where = Page(page.read_text()), f"{page.parent.name}/{page.name}"
    found = [parsed.tags.count(tag) for tag in RUNNING]
    frames = [value for name, value in parsed.attributes if name == "srcdoc"]
    odd = [(name, value) for name, value in parsed.attributes if is_odd(name, value)]
    tally.expect(found == written(page), f"{where} has {found} of {RUNNING}, expected {written(page)}")
    tally.expect(not odd, f"{where} has {odd[:5]}")
    named = [name for name in HOSTILE[:9] if any(name in frame for frame in frames)]
    tally.expect(not named, f"{where} has {named[:1]} in a frame")
    if where in ("nn-test-folds-site/report.html", "cnn-blackout/blackout.html"):
        hidden = [name for name in HOSTILE[:5] if name not in parsed.text]
        tally.expect(not hidden, f"{where} does not show {hidden}")


def is_odd(name: str, value: str) -> bool:
    """Whether an attribute runs something, or asks for something from elsewhere."""
    parts = urlsplit(value or "")
    elsewhere = name.endswith(("href", "src")) and (parts.netloc or parts.scheme not in ("", "data"))
    return name.startswith("on") or name == "formaction" or elsewhere


def check_csv(path: Path, tally: Tally) -> None:
    """It is the same table to all readers, and no cell is a formula to a spreadsheet."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    where = f"{path.parent.name}/{path.name}"
    tally.expect([table.columns.tolist(), *table.to_numpy().tolist()] == rows, f"{where} is read in two ways")
    formulas = [cell for row in rows for cell in row if FORMULA.match(cell) and not is_number(cell)]
    tally.expect(path.name in READ_BACK or not formulas, f"{where} holds the formula {formulas[:1]}")


def is_number(cell: str) -> bool:
    with suppress(ValueError):
        return bool(float(cell)) or True
    return False


ODD = ["a[1]", "a*", "a?\\b", "-x $HOME é", "a;b'c\"%d{x}#"]


def odd_paths(cohorts: Cohorts, place: Path, rng: random.Random) -> Tally:
    """Folders named like patterns, options and formulas: checkpoints and results come out as in a plain one, and those
    in folders that a pattern matches stay. An absolute path that TensorFlow reads as a pattern is refused."""
    some, tally = ("--dataDir", str(cohorts.home / "some")), Tally()
    train = (*RUN, "--train", *NN, *some, "--numIters", "750", *PLACES)
    test = (*RUN, "--test", "--model", "nn", *some, "--chkPointDir", "ckpt")
    wanted = undisturbed(Work(train, "Training"), place)[2]
    for beside in ("a1", "ab", "a*b"):
        shutil.copytree(cohorts.home / "trained-nn", place / "odd" / beside)
    before = state(place / "odd")
    for name in ODD:
        folder = place / "odd" / name
        folder.mkdir()
        tally.times += 1
        tally.succeeded(run(train, folder), f"training in {name}")
        tally.same(wanted, state(folder), f"training in {name}")
        tally.succeeded(run((*test, f"--outDir={name}"), folder), f"test into {name}")
        tally.expect((folder / name / "report.html").is_file(), f"{name} has no report")
        if set(name) & set("*?[\\"):
            tally.refused(run((*train, "--chkPointDir", str(folder / "ckpt")), place), name, "reads as a pattern")
        shutil.rmtree(folder)
    tally.same(before, state(place / "odd"), "what lies beside them")
    return tally


# The table

DISTURBED = {"training": 12, "training in folds": 8, "training with a choice": 6, "permutations": 6}
DISTURBED |= {"full pass": 8, "conversion": 12, "derivation": 12}
DISTURBED |= {"packing, zip": 6, "swap": 10}
FILLED = {"training that goes on": 5, "test": 4, "blackout": 3, "full pass": 4, "conversion": 4, "packing, zip": 4}
FILLED |= {"derivation": 4, "swap": 4}
FAULTS: dict[str, Callable[[Cohorts, Path, random.Random], Tally]] = {
    "1,000 mutated inputs of every format": partial(mutated, 1000),
    **{f"SIGKILL: {name}": partial(kills, name, count) for name, count in DISTURBED.items()},
    "SIGKILL: the process of --jobs": partial(killed_parent, 3),
    **{f"full disk: {name}": partial(full_disk, name, count) for name, count in FILLED.items()},
    **{f"read-only folder: {name}": partial(read_only, name) for name in FILLED},
    "damaged checkpoint": damaged_checkpoint,
    "two trainings on one checkpoint folder": two_at_once,
    "loss that is no number: learning rate": endless_rate,
    "a bit of a cohort flipped": partial(changed_bytes, 3),
    "a record overwritten amid a training": changed_while_training,
    "12 trainings at once": partial(at_once, 12),
    "5,000 iterations with checkpoints": partial(many_iterations, 5000),
    "hostile names of subjects, sites and regions": hostile_names,
    "folders named like patterns and options": odd_paths,
}


def suffer(name: str, cohorts: Cohorts, number: int, seed: int) -> Tally:
    """One fault, which is lost as a whole if the torture itself fails."""
    place, begun = cohorts.home / str(number), time.monotonic()
    try:
        tally = FAULTS[name](cohorts, place, random.Random(f"{seed} {name}"))
    except Exception as error:
        tally = Tally(lost=[f"{type(error).__name__}: {error!s:.500}"])
    print(f"{name}: {len(tally.lost)} lost, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for loss in tally.lost:
        print(f"    {loss}", file=sys.stderr, flush=True)
    if not tally.lost:
        shutil.rmtree(place, ignore_errors=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NAME", help="faults whose name holds this")
    args = parser.parse_args()
    names = [name for name in FAULTS if args.only in name]
    home, begun = Path(tempfile.mkdtemp(prefix="torture-")), time.monotonic()
    cohorts = Cohorts(home)
    cohorts.make()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        done = list(pool.map(lambda name: suffer(name, cohorts, names.index(name), args.seed), names))
    print("| fault | how often | lost | |\n| --- | --- | --- | --- |")
    for name, tally in zip(names, done, strict=True):
        print(f"| {name} | {tally.times} | {len(tally.lost) or 'nothing'} | {tally.note} |")
    lost = sum(len(tally.lost) for tally in done)
    used = sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )  # seconds of cores, which other programs do not lengthen
    print(f"\n{lost or 'Nothing'} lost, seed {args.seed}, {time.monotonic() - begun:.0f} s, {used:.0f} s of cores")
    if not lost:
        shutil.rmtree(home)
    else:
        print(f"What was lost lies in {home}.", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
