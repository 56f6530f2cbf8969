"""A real Slurm of two nodes on this one machine, and docs/scale.md walked on it -> a table of what held.

    .venv/bin/python tests/slurm.py

Each node is a network namespace with a daemon of Slurm's; the disk is shared. Needs root on Debian and asks first, for
it installs packages and makes namespaces, a bridge and /etc/netns/NODE; YES=1 answers. At the end, all but the packages
is removed; Slurm's own files lie in a temporary folder, so /etc/slurm and a Slurm that runs are left alone. Exit status
1 if something did not hold.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from helpers import ROOT, SMALL_BATCH, TINY_NN, assert_bit_equal
from pages import ONE_OF_REGIONS, scripts, tiny

from data import demo
from data.base.cli import guarded
from data.base.errors import InputError
from data.cohorts import records
from utils.machines import devices

PACKAGES = {"slurmctld": "slurm-wlm", "munged": "munge", "ip": "iproute2"}
NODES = {"falff-n1": "10.99.0.2", "falff-n2": "10.99.0.3"}
BRIDGE, CONTROLLER = "falff-br", "10.99.0.1"
PORTS = 16_817  # the first of two, other ones than those of a Slurm that runs
NODE_TIMEOUT_S = 20  # until a silent node is down
PATIENCE_S = 600
SCALE = ROOT / "docs" / "scale.md"
RUN = str(ROOT / ".venv" / "bin" / "run.py")
NN = ("--model", "nn", *TINY_NN, *SMALL_BATCH)
ITERATIONS = 2000  # so many that a training can be disturbed
SAVED = 150  # batches, when the first checkpoint is there
SAME_LOSS = 1e-6  # as docs/scale.md says of several workers
ASK = """This installs Debian's packages {packages} if they are missing, and makes network namespaces {nodes},
the bridge {bridge} and /etc/netns/ for them; all but the packages is removed at the end. Go on? [y/N] """
CONF = """
ClusterName=falff
SlurmctldHost={host}({controller})
SlurmctldPort={port}
SlurmdPort={next_port}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/controller.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/controller.log
SlurmdLogFile={home}/%n.log
SlurmdTimeout={timeout}
KillWait=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def sh(*words: object, **how) -> str:
    """What a command of the system printed. Raises InputError if it failed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **how)
    if done.returncode:
        raise InputError(f"{shlex.join(map(str, words))} failed: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def wait_until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> float:
    """Seconds until it holds. Raises InputError if it never does."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > patience_s:
            raise InputError(f"{what}: not within {patience_s:.0f} s.")
        time.sleep(0.5)
    return time.monotonic() - begin


# The cluster


def in_node(node: str, *words: object) -> tuple:
    return ("ip", "netns", "exec", node, *words)


def start_node(node: str, home: Path) -> None:
    sh(*in_node(node, "slurmd", "-f", home / "slurm.conf", "-N", node))


def kill_node(node: str) -> None:
    """Everything that runs there is gone at once, as when the power fails."""
    for pid in sh("ip", "netns", "pids", node).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)


def make_network() -> None:
    """A bridge with the controller's address, and a namespace for each node in which names are known."""
    sh("ip", "link", "add", BRIDGE, "type", "bridge")
    sh("ip", "addr", "add", f"{CONTROLLER}/24", "dev", BRIDGE)
    sh("ip", "link", "set", BRIDGE, "up")
    names = "".join(f"{address} {node}\n" for node, address in (NODES | {socket.gethostname(): CONTROLLER}).items())
    for number, (node, address) in enumerate(NODES.items()):
        folder = Path("/etc/netns") / node
        folder.mkdir(parents=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        sh("ip", "netns", "add", node)
        sh("ip", "link", "add", f"falff-v{number}", "type", "veth", "peer", "name", "eth0", "netns", node)
        sh("ip", "link", "set", f"falff-v{number}", "master", BRIDGE, "up")
        sh(*in_node(node, "ip", "addr", "add", f"{address}/24", "dev", "eth0"))
        sh(*in_node(node, "ip", "link", "set", "eth0", "up"))
        sh(*in_node(node, "ip", "link", "set", "lo", "up"))


def remove_network() -> None:
    """What `make_network` made, also that of a run that was killed."""
    for node in NODES:
        with suppress(InputError):
            kill_node(node)
            sh("ip", "netns", "del", node)
        shutil.rmtree(f"/etc/netns/{node}", ignore_errors=True)
    with suppress(OSError):  # others use it
        Path("/etc/netns").rmdir()
    with suppress(InputError):
        sh("ip", "link", "del", BRIDGE)


@contextmanager
def cluster(home: Path) -> Iterator[None]:
    """Slurm with its nodes, its files in the folder; its commands find it by SLURM_CONF."""
    lines = [f"NodeName={node} NodeHostname={node} NodeAddr={at} CPUs=1 RealMemory=4000" for node, at in NODES.items()]
    of = {"host": socket.gethostname(), "controller": CONTROLLER, "port": PORTS, "next_port": PORTS + 1, "home": home}
    text = CONF.format(nodes="\n".join(lines), names=",".join(NODES), timeout=NODE_TIMEOUT_S, **of)
    (home / "slurm.conf").write_text(text)
    (home / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (home / "munge.key").write_bytes(os.urandom(128))
    (home / "munge.key").chmod(0o400)
    (home / "state").mkdir()
    os.environ["SLURM_CONF"] = str(home / "slurm.conf")
    files = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "socket": "socket"}
    processes = []
    remove_network()
    try:
        make_network()
        words = [f"--{option}={home}/munge.{name}" for option, name in files.items()]
        processes.append(subprocess.Popen(["munged", "--foreground", "--force", *words], stderr=subprocess.DEVNULL))
        wait_until((home / "munge.socket").exists, "munged", 30)
        controller = ["slurmctld", "-D", "-c", "-f", str(home / "slurm.conf")]
        processes.append(subprocess.Popen(controller, stderr=subprocess.DEVNULL))
        for node in NODES:
            start_node(node, home)
        wait_until(lambda: idle_nodes() == len(NODES), "the nodes", 60)
        yield
    finally:
        remove_network()
        for process in reversed(processes):
            process.terminate()
            process.wait()


def idle_nodes() -> int:
    found = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True)
    return found.stdout.split().count("idle")


# Jobs


@dataclass(frozen=True)
class Job:
    """A script that Slurm runs in a folder."""

    folder: Path
    number: str

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob(f"*{self.number}*.log")))

    def states(self) -> list[dict[str, str]]:
        """What Slurm knows of it, of each task of an array."""
        shown = sh("scontrol", "show", "job", "--oneliner", self.number)
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.splitlines()]

    def ended(self) -> list[str]:
        """The states of a job that has ended, after waiting for it."""
        active = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING", "STOPPED", "SUSPENDED")
        wait_until(lambda: not any(of["JobState"] in active for of in self.states()), f"the end of job {self.number}")
        return [of["JobState"] for of in self.states()]

    def has_seen(self, batches: int) -> bool:
        """Whether its training has come so far."""
        return max([0, *map(int, re.findall(r"Training \w+ (\d+)/", self.log))]) >= batches

    def disturbable(self) -> "Job":
        """The same once its training has saved; Raises InputError if it ended before."""
        wait_until(lambda: self.has_seen(SAVED + 1) or self.states()[0]["JobState"] == "COMPLETED", "the training")
        if self.states()[0]["JobState"] != "RUNNING":
            raise InputError(f"The training ended before it could be disturbed: {self.log[-300:]}")
        return self


def submit(folder: Path, script: str, *options: str) -> Job:
    folder.mkdir(exist_ok=True)
    text = script if script.startswith("#!") else f"#!/bin/bash\n{script}\n"
    words = ["sbatch", "--parsable", "--open-mode=append", "--output=slurm-%A-%a.log", *options]
    return Job(folder, sh(*words, cwd=folder, input=text).strip())


def alone(folder: Path, *words: object) -> None:
    """run.py as one process, without Slurm."""
    folder.mkdir(exist_ok=True)
    sh(RUN, *words, cwd=folder)


def on_two_nodes(*words: object, options: str = "--nodes=2 --ntasks-per-node=1") -> str:
    return f"srun --kill-on-bad-exit {options} run.py {shlex.join(map(str, words))}"


TWO = ("--nodes=2", "--ntasks-per-node=1")


def adapted(script: str, cohort: Path) -> str:
    """A script of docs/scale.md for this cluster, tiny and on a cohort of its own."""
    script = re.sub(r" --(gpus|gpus-per-node|time)=\S+", "", script)
    for there, here in {"--array=0-9": "--array=0-1", "--nodes=4": "--nodes=2"}.items():
        script = script.replace(there, here)
    script = re.sub(r"--cpus-per-task=\d+", "--cpus-per-task=1", script)
    lines = []
    for line in script.splitlines():
        before, run, words = line.partition("run.py")
        command = shlex.join(tiny(run + words)).replace("'$SLURM_ARRAY_TASK_ID'", "$SLURM_ARRAY_TASK_ID")
        lines.append(before + command.replace("--dataDir cohort", f"--dataDir {cohort}") if run else line)
    return "\n".join(lines) + "\n"


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


# What is tried: each gives what was found, and whether it held


@dataclass(frozen=True)
class Tries:
    """On a cohort of volumes and one at full size, in a folder for each try."""

    home: Path
    cohort: Path
    full: Path

    def training(self, folder: Path, iterations: int = ITERATIONS) -> tuple:
        """A `nn` that two nodes train, with all in a folder."""
        places = ("--dataDir", self.cohort, "--chkPointDir", folder / "ckpt", "--outDir", folder / "out")
        return ("--train", *NN, "--numIters", iterations, *places)

    def undisturbed(self) -> tuple[str, bool]:
        folder = self.home / "undisturbed"
        states = submit(folder, on_two_nodes(*self.training(folder)), *TWO).ended()
        alone(self.home / "one", *self.training(self.home / "one"))
        few = [pd.read_csv(path / "out" / "history.csv")["loss"][:20] for path in (folder, self.home / "one")]
        difference = (few[0] - few[1]).abs().max()
        workers = json.loads((folder / "out" / "run.json").read_text())["workers"]
        held = states == ["COMPLETED"] and workers == 2 and difference <= SAME_LOSS
        return f"{workers} workers, losses of one process within {difference:.0e}", held

    def equal(self, folder: Path) -> bool:
        """Whether a disturbed training has ended as the undisturbed one."""
        devices.start_tensorflow("cpu")
        try:
            assert_bit_equal(folder / "ckpt" / "nn", self.home / "undisturbed" / "ckpt" / "nn")
        except AssertionError:
            return False
        return True

    def again(self, folder: Path) -> str:
        """The same command, and what its job says of Slurm's states."""
        states = submit(folder, on_two_nodes(*self.training(folder)), *TWO).ended()
        return "the same command then ends " + ("as undisturbed" if states == ["COMPLETED"] else states[0])

    def signal(self) -> tuple[str, bool]:
        folder = self.home / "signal"
        job = submit(folder, on_two_nodes(*self.training(folder)), *TWO).disturbable()
        sh("scancel", "--signal=TERM", job.number)
        seconds = wait_until(lambda: job.states()[0]["JobState"] != "RUNNING", "the end after SIGTERM")
        saved = "Traceback" not in job.log and (folder / "ckpt" / "nn" / "checkpoint").exists()
        return f"ended within {seconds:.0f} s; {self.again(folder)}", saved and self.equal(folder)

    def requeue(self) -> tuple[str, bool]:
        folder = self.home / "requeue"
        job = submit(folder, on_two_nodes(*self.training(folder)), *TWO, "--requeue").disturbable()
        sh("scontrol", "requeue", job.number)
        states, restarts = job.ended(), job.states()[0]["Restarts"]
        return f"{states[0]} after {restarts} restart", states == ["COMPLETED"] and self.equal(folder)

    def other_worker(self) -> tuple[str, bool]:
        """The node dies on which the job's script does not run; Slurm is told not to run the job again."""
        second, folder = list(NODES)[1], self.home / "second-dies"
        job = submit(folder, on_two_nodes(*self.training(folder)), *TWO, "--no-requeue").disturbable()
        kill_node(second)
        seconds = wait_until(lambda: "error: Another worker has ended" in job.log, "the other worker's end", 60)
        job.ended()
        start_node(second, self.home)
        wait_until(lambda: idle_nodes() == len(NODES), f"{second} again")
        again = self.again(folder)
        held = "Traceback" not in job.log and self.equal(folder)
        return f"the other worker says so within {seconds:.0f} s; {again}", held

    def first_worker(self) -> tuple[str, bool]:
        """The node dies on which the job's script runs; Slurm runs it again when the node is back."""
        first, folder = next(iter(NODES)), self.home / "first-dies"
        job = submit(folder, on_two_nodes(*self.training(folder)), *TWO, "--requeue").disturbable()
        kill_node(first)
        wait_until(lambda: "down" in sh("sinfo", "-h", "-N", "-o", "%T").lower(), f"{first} down")
        start_node(first, self.home)
        states, restarts = job.ended(), job.states()[0]["Restarts"]
        return f"{states[0]} after {restarts} restart", states == ["COMPLETED"] and self.equal(folder)

    def three_tasks(self) -> tuple[str, bool]:
        folder = self.home / "three"
        tasks = "--nodes=2 --ntasks=3 --overcommit"
        states = submit(folder, on_two_nodes(*self.training(folder, 20), options=tasks), "--nodes=2").ended()
        alone(self.home / "one-20", *self.training(self.home / "one-20", 20))
        workers = json.loads((folder / "out" / "run.json").read_text())["workers"]
        loss = [pd.read_csv(path / "out" / "history.csv")["loss"] for path in (folder, self.home / "one-20")]
        difference = (loss[0] - loss[1]).abs().max()
        held = states == ["COMPLETED"] and workers == 3 and difference <= SAME_LOSS
        return f"{workers} workers, losses of one process within {difference:.0e}", held

    def array(self) -> tuple[str, bool]:
        """The script of the page."""
        folder = self.home / "array"
        states = submit(folder, adapted(scripts(SCALE)[0], self.cohort)).ended()
        pooled = folder / "results" / "mmnn-test-folds-2"
        for command in ("--train", "--test"):
            alone(
                self.home / "folds", *tiny(f"run.py {command} --folds 2 --dataDir {self.cohort} --chkPointDir ckpt")[1:]
            )
        found = [at / "predictions.csv" for at in (pooled, self.home / "folds" / "results" / "mmnn-test-folds-2")]
        held = set(states) == {"COMPLETED"} and (pooled / "report.html").exists() and same(*found)
        return f"{len(states)} folds pooled, predictions of one process", held

    def time_limit(self) -> tuple[str, bool]:
        """The script of the page, with a training that is not done when its time is up: it saves, nothing is tested."""
        folder = self.home / "limit"
        script = re.sub(r"--signal=\S+", "--signal=TERM@60", adapted(scripts(SCALE)[0], self.cohort))
        script = script.replace("--numIters 2", "--numIters 10000000").replace("--array=0-1", "--array=0 --time=3")
        job = submit(folder, script)
        states = job.ended()
        saved = list(folder.glob("ckpt/mmnn/**/checkpoint"))
        held = bool(saved) and not list(folder.glob("results/*-test*")) and "TIMEOUT" not in states
        return f"{states[0]}, {'a checkpoint' if saved else 'no checkpoint'}", held

    def cae(self) -> tuple[str, bool]:
        """The script of the page: a training on two nodes, then the full pass."""
        folder, cohort = self.home / "cae", self.home / "cae" / "cohort"
        folder.mkdir()
        shutil.copytree(self.full, cohort)
        states = submit(folder, adapted(scripts(SCALE)[1], cohort)).ended()
        alone(folder, "--model", "cae", "--dataDir", cohort, "--chkPointDir", "ckpt", "--outDir", "by_one")
        records = sorted(path.name for path in (folder / "by_one").glob("*.bin"))
        equal = all(same(folder / "by_one" / name, folder / "cohort_reduced" / name) for name in records)
        return f"{len(records)} records have the bytes of one process", states == ["COMPLETED"] and equal and bool(
            records
        )

    def blackout(self) -> tuple[str, bool]:
        folder = self.home / "blackout"
        places = ("--model", "cnn", "--dataDir", self.cohort, "--chkPointDir", folder / "ckpt")
        alone(folder, "--train", *places, "--numIters", 4, *ONE_OF_REGIONS)
        alone(folder, "--blackout", *places, "--outDir", folder / "one")
        states = submit(folder, on_two_nodes("--blackout", *places, "--outDir", folder / "two"), *TWO).ended()
        equal = [same(folder / "one" / name, folder / "two" / name) for name in ("regions.csv", "blackout.h5")]
        return "regions.csv and blackout.h5 have the bytes of one process", states == ["COMPLETED"] and all(equal)

    def all(self) -> dict[str, Callable[[], tuple[str, bool]]]:
        return {
            "an array of folds, the script of the page": self.array,
            "--signal before the time limit, the same script": self.time_limit,
            "a training on two nodes": self.undisturbed,
            "scancel --signal=TERM": self.signal,
            "scontrol requeue": self.requeue,
            "the second node dies": self.other_worker,
            "the first node dies, with --requeue": self.first_worker,
            "three tasks on two nodes, --overcommit": self.three_tasks,
            "training and full pass of cae, the script of the page": self.cae,
            "a blackout on two nodes": self.blackout,
        }


def prepare() -> None:
    """Asks, and installs what is missing. Raises InputError where that cannot be done."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        raise InputError("A Slurm of two nodes needs root, on Debian; nothing was tried.")
    asked = ASK.format(packages=", ".join(PACKAGES.values()), nodes=", ".join(NODES), bridge=BRIDGE)
    if os.environ.get("YES") != "1" and not (sys.stdin.isatty() and input(asked).strip().lower() in ("y", "yes")):
        raise InputError("Nothing was tried; YES=1 make slurm goes on without asking.")
    if missing := [package for program, package in PACKAGES.items() if not shutil.which(program)]:
        sh("apt-get", "update", "-qq")
        sh("apt-get", "install", "-y", "-qq", *missing, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def rows_of(tries: Mapping[str, Callable[[], tuple[str, bool]]]) -> int:
    """Does each try, which gives what was found and whether it held, prints its row, and counts those that failed."""
    failed = 0
    for name, work in tries.items():
        try:
            found, held = work()
        except (InputError, OSError) as error:
            found, held = " ".join(str(error).split()), False
        failed += not held
        print(f"| {name} | {found.replace('|', '/')} | {'yes' if held else 'NO'} |", flush=True)
    return failed


def execute() -> int:
    prepare()
    wanted = sys.argv[1:]
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    devices.choose_device(share=False)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
    os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        home = Path(folder)
        home.chmod(0o755)
        demo.simulate(home / "cohort", records.REDUCED, demo.Simulation(subjects=40, seed=1))
        demo.simulate(home / "full", records.FULL, demo.Simulation(subjects=6, seed=2))
        with cluster(home):
            tries = Tries(home, home / "cohort", home / "full").all()
            chosen = [name for name in tries if not wanted or any(word in name for word in wanted)]
            print(
                "| what was tried on two nodes of one machine | what was found | held |\n| --- | --- | --- |",
                flush=True,
            )
            failed = rows_of({name: tries[name] for name in chosen})
        return int(failed > 0)


if __name__ == "__main__":
    sys.exit(guarded("slurm.py", execute))
