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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from commands import ROOT
from helpers import assert_bit_equal
from pages import scripts, tiny
from tried import APART, prepare, rows_of, sh

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
ITERATIONS = 4
LONG = 200  # so many that a training can be disturbed after its first checkpoint
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


def wait_until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> float:
    """Seconds until it holds. Raises InputError if it never does."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > patience_s:
            raise InputError(f"{what}: not within {patience_s:.0f} s.")
        time.sleep(0.5)
    return time.monotonic() - begin


# The cluster


def in_node(node: str, *words: object) -> None:
    sh("ip", "netns", "exec", node, *words)


def start_node(node: str, home: Path) -> None:
    in_node(node, "slurmd", "-f", home / "slurm.conf", "-N", node)


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
        in_node(node, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        in_node(node, "ip", "link", "set", "eth0", "up")
        in_node(node, "ip", "link", "set", "lo", "up")


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


def submit(folder: Path, script: str, *options: str) -> Job:
    folder.mkdir(exist_ok=True)
    text = script if script.startswith("#!") else f"#!/bin/bash\n{script}\n"
    words = ["sbatch", "--parsable", "--open-mode=append", "--output=slurm-%A-%a.log", *options]
    return Job(folder, sh(*words, cwd=folder, input=text).strip())


def alone(folder: Path, *words: object) -> None:
    """run.py as one process, without Slurm."""
    folder.mkdir(exist_ok=True)
    sh(RUN, *words, cwd=folder)


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


# What is tried: each gives what was found, and whether it held


@dataclass(frozen=True)
class Tries:
    """The scripts of docs/scale.md, on a cohort of volumes and one at full size, in a folder for each."""

    home: Path
    cohort: Path
    full: Path

    def array(self) -> tuple[str, bool]:
        """An array over the folds: train, test, blackout.

        A task a fold, each on one node, and the last one pools: the bytes of one process."""
        array, one = self.home / "array", self.home / "folds"
        states = submit(array, adapted(scripts(SCALE)[0], self.cohort)).ended()
        for job in ("train", "test", "blackout"):
            alone(one, *tiny(f"run.py --{job} --folds 2 --dataDir {self.cohort} --chkPointDir ckpt")[1:])
        written = ("test-folds-2/predictions.csv", "blackout-folds-2/regions.csv", "blackout-folds-2/values.csv")
        pairs = [[folder / "results" / f"mmnn-{name}" for folder in (array, one)] for name in written]
        equal = sum(first.read_bytes() == second.read_bytes() for first, second in pairs)
        held = set(states) == {"COMPLETED"} and equal == len(written)
        return f"{len(states)} folds pooled, {equal} of {len(written)} tables have the bytes of one process", held

    def training(self) -> tuple[str, bool]:
        """A training on two nodes."""
        folder, one = self.home / "two", self.home / "one"
        states = submit(folder, self.on_two_nodes(ITERATIONS)).ended()
        command = next(line for line in self.on_two_nodes(ITERATIONS).splitlines() if "run.py" in line)
        alone(one, *shlex.split(command.partition("run.py")[2]))
        losses = [pd.read_csv(path / "results/cae-train/history.csv")["loss"] for path in (folder, one)]
        difference = (losses[0] / losses[1] - 1).abs().max()
        workers = json.loads((folder / "results/cae-train/run.json").read_text())["workers"]
        held = states == ["COMPLETED"] and workers == len(NODES) and difference <= SAME_LOSS
        return f"{workers} workers, losses of one process within {difference:.0e}", held

    def dying(self) -> tuple[str, bool]:
        """The second node dies.

        The same script then goes on, to the weights of a training that nobody disturbed."""
        second, folder = list(NODES)[1], self.home / "dies"
        job = submit(folder, self.on_two_nodes(LONG), "--no-requeue")
        wait_until(lambda: (folder / "ckpt/cae/checkpoint").exists(), "the first checkpoint")
        kill_node(second)
        seconds = wait_until(lambda: "error: Another worker has ended" in job.log, "the other worker's end", 60)
        job.ended()
        start_node(second, self.home)
        wait_until(lambda: idle_nodes() == len(NODES), f"{second} again")
        submit(folder, self.on_two_nodes(LONG)).ended()
        submit(self.home / "long", self.on_two_nodes(LONG)).ended()
        devices.start_tensorflow("cpu")
        try:
            assert_bit_equal(folder / "ckpt" / "cae", self.home / "long" / "ckpt" / "cae")
        except AssertionError:
            return "the same script ends with other weights", False
        return f"the other worker says so within {seconds:.0f} s; the same script ends as undisturbed", True

    def on_two_nodes(self, iterations: int) -> str:
        return re.sub(r"--numIters \d+", f"--numIters {iterations}", adapted(scripts(SCALE)[1], self.full))


def execute() -> int:
    prepare("slurm", ASK.format(packages=", ".join(PACKAGES.values()), nodes=", ".join(NODES), bridge=BRIDGE), PACKAGES)
    os.environ |= APART | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        home = Path(folder)
        home.chmod(0o755)
        demo.simulate(home / "cohort", records.REDUCED, demo.Simulation(subjects=40, seed=1))
        demo.simulate(home / "full", records.FULL, demo.Simulation(subjects=6, seed=2))
        with cluster(home):
            tries = Tries(home, home / "cohort", home / "full")
            return rows_of("on two nodes of one machine", [tries.array, tries.training, tries.dying])


if __name__ == "__main__":
    sys.exit(guarded("slurm.py", execute))
