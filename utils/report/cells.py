"""A section of the page; metrics and numbers -> the cells of its table."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from data.base.errors import InputError

Row = dict[str, str]  # heading -> cell
TELLING = 5  # people of a site of whom a mean or a share is shown; that of fewer nearly tells theirs
SPELLED = {
    "auc": "AUC, all people together",
    "auc_sites": "AUC within sites",
    "auc_folds": "AUC within folds",
    "f_score": "F score",
    "brier": "Brier score",
    "model_minus_floor_auc": "AUC, model minus floor",
    "model_minus_floor_auc_sites": "AUC within sites, model minus floor",
    "model_minus_floor_auc_folds": "AUC within folds, model minus floor",
}


@dataclass(frozen=True)
class Section:
    """One part of the page; None stands for a part that it does not have. Raises InputError if a part is empty."""

    title: str
    texts: list[str] | None = None
    figure: Figure | None = None
    table: list[Row] | None = None
    facts: Row | None = None
    command: str | None = None
    kind: str = ""

    def __post_init__(self) -> None:
        parts = [part for part in (self.texts, self.figure, self.table, self.facts, self.command) if part is not None]
        if not parts or not all(parts) or not all(map(str.strip, self.texts or ["-"])):
            raise InputError(f"The report's section '{self.title}' would be empty; test again.")


def spelled(name: str) -> str:
    """The name of a metric on the page."""
    return SPELLED.get(name, name.replace("_", " "))
