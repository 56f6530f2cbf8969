"""Several runs on the same kind of folds, one after another, whose results are then put together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.cohorts.rows import listed
from utils.runs.fold_rows import Rows
from utils.runs.folded import FoldedRun
from utils.runs.pooled import PooledRun
from utils.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class SeveralRun(PooledRun):
    """The job on folds several times: `parts` are FoldedRuns, each with a name; `folds` and seed are of the first."""

    @property
    def several(self) -> Sequence[FoldedRun]:
        return [replace(part, workers=self.workers) for part in self.parts if isinstance(part, FoldedRun)]

    @property
    def single_folds(self) -> Sequence[Run]:
        return [fold for part in self.several for fold in part.parts]

    @property
    def names(self) -> Sequence[str]:
        return [part.name for part in self.several]

    def settings(self) -> dict[str, Any]:
        settings = {part.name: part.settings() for part in self.several}
        digests = {
            f"{fold}, {name}": digest
            for name, of in settings.items()
            for fold, digest in of["checkpoint_sha256"].items()
        }
        return settings[self.names[0]] | {"checkpoint_sha256": digests}

    def begin(self) -> None:
        super().begin()
        for part in self.several:
            part.begin()

    def perform_parts(self, rows: Rows, device: str) -> int:
        statuses = (part.perform_parts(rows, device) for part in self.several)
        return next(filter(None, statuses), 0)

    def missing(self) -> str:
        missing = [(part.name, part.missing()) for part in self.several]
        return listed([f"{folds} of {name}" for name, folds in missing if folds], between="; ")
