"""A run's settings, and what every run leaves behind: its output folder with `run.json`."""

import dataclasses
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from data import files
from data.cohort import Cohort
from models import Model
from models.settings import Settings
from utils.checkpoints import CheckpointFolder

EARLIER = "earlier"
KEPT = (EARLIER, "checkpoint_results.csv")
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "h5py", "matplotlib")


@dataclass(frozen=True)
class Run:
    """One job on one cohort with one model, everything settled and checked."""

    job: str  # train, test, encode or blackout
    model: Model
    preset: str
    config: Settings
    cohort: Cohort
    checkpoints: CheckpointFolder
    out_dir: Path
    num_iters: int
    override: bool
    seed: int
    precision: str
    subjects: tuple[str, ...] | None = None  # of a blackout; None: all test subjects
    atlas: Path | None = None  # of a blackout; None: AAL
    verify: int = 0  # pairs of a blackout to recompute in full
    started: float = field(default_factory=time.time)

    def identity(self) -> dict:
        """What a checkpoint must agree with to be used by this run."""
        return {
            "model": self.model.name,
            "preset": self.preset,
            "config": dataclasses.asdict(self.config),
            "grid": self.cohort.grid.name if "volume" in self.model.reads else None,
            "seed": self.seed,
            "precision": self.precision,
        }

    def describe(self) -> dict:
        """The content of `run.json`."""
        return self.identity() | {
            "job": self.job,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "cohort": str(self.cohort.path),
            "cohort_sha256": self.cohort.digest,
            "simulated": self.cohort.simulated,
            "checkpoint_folder": str(self.checkpoints.path),
            "checkpoint_sha256": self.checkpoints.digest(),
            "git_commit": git_commit(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "wall_time_s": round(time.time() - self.started, 2),
        }

    def finish(self, **more) -> None:
        """Writes `run.json` and says where the results are."""
        files.write_json(self.out_dir / "run.json", self.describe() | more)
        print(f"Results: {self.out_dir}{' (simulated demo cohort)' if self.cohort.simulated else ''}", flush=True)


def git_commit() -> str | None:
    """The commit of this code, with -dirty for uncommitted changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def prepare_folder(folder: Path) -> None:
    """Makes an empty output folder; an earlier run's files are moved to `earlier/<when it ended>`, which is said."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [path for path in folder.iterdir() if path.name not in KEPT]
    if not found:
        return
    ended = time.strftime("%Y%m%dT%H%M%S", time.localtime(max(path.stat().st_mtime for path in found)))
    aside = folder / EARLIER / ended
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    aside.mkdir(parents=True)
    for path in found:
        path.rename(aside / path.name)
    print(f"The earlier results in {folder} are now in {aside}.")
