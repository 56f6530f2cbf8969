"""The tables of a test in its output folder, as they are written, and read again to be pooled."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from utils.report.registry import TABLES
from utils.runs.folders import described
from utils.runs.run import Run

DIGITS = 8  # significant ones
POINTS = 200  # of a history


@dataclass(frozen=True)
class Tested:
    """What one repeat of a test predicts, a row a record: `predictions.csv` and `floor_predictions.csv`, which has no
    rows where no floor could be fitted."""

    predictions: pd.DataFrame
    floors: pd.DataFrame

    def of_records(self, file: pd.Series) -> "Tested":
        """The rows of some records, in their order; of floors the probabilities only."""
        predictions = self.predictions.set_index("file").loc[file].reset_index()
        if not len(self.floors):
            return Tested(predictions, pd.DataFrame(index=file))
        return Tested(predictions, self.floors.drop(columns="fold", errors="ignore").set_index("file").loc[file])


def tested(run: Run) -> Tested:
    """The tables in the output folder of a run."""
    return Tested(read_table(run, "predictions"), read_table(run, "floor_predictions"))


def write_table(run: Run, name: str, table: pd.DataFrame) -> None:
    """A table by its name in `registry`. No spreadsheet computes its texts, unless it is joined by them."""
    of = TABLES[name]
    write_frame(run.out_dir / of.file, table, () if of.joined else of.texts, DIGITS)


def read_table(run: Run, name: str) -> pd.DataFrame:
    """A table that a run on a fold wrote, texts as they are; no rows if it is not there."""
    of = TABLES[name]
    path = run.out_dir / of.file
    if not path.is_file():
        return pd.DataFrame()
    try:
        return read_frame(path).apply(lambda column: column if column.name in of.texts else pd.to_numeric(column))
    except (InputError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and repeat the command.") from error


def write_history(run: Run) -> None:
    """`training.csv`, if the results of the training are still in the folder where they were written."""
    checkpoints = run.checkpoints.trained
    folder = Path(checkpoints.identity().out_dir)
    try:
        content = described(folder)
        history = pd.read_csv(folder / "history.csv")
    except (InputError, OSError, ValueError):
        return
    if content.get("checkpoint_sha256") != checkpoints.digest() or not len(history):
        return
    chunk = np.arange(len(history)) * min(POINTS, len(history)) // len(history)
    kept = [name for name in history if name not in ("step", "samples_per_s")]
    how = {"step": "last"} | {name: "last" if name.startswith("validation") else "mean" for name in kept}
    thinned = history.groupby(chunk).agg(how)
    thinned.insert(0, "fold", run.fold)
    write_table(run, "training", thinned)
