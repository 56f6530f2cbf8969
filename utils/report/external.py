"""`external.csv` and `unlike.csv` -> the tables and texts of the report's sections on external validity."""

import pandas as pd

from utils.figures import number
from utils.report import texts
from utils.report.cells import Row, spelled
from utils.scores.results import Estimate

MOST_MAPS = 10  # measures of maps on the page, those that lie farthest away
MOST_PEOPLE = 50  # of unlike ones on the page
CALIBRATION = {"in_the_large": "calibration in the large", "slope": "calibration slope"}


def of_kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    return table[table["kind"] == kind].set_index("measure")


def about(table: pd.DataFrame) -> list[str]:
    """What the scores, the calibration and the share of unlike people say."""
    scores, calibration = of_kind(table, "score"), of_kind(table, "calibration")
    known = scores[scores["training"].notna()] if "training" in scores else scores[:0]
    unlike = of_kind(table, "unlike")
    return texts.paragraphs(
        "external",
        scores=len(scores),
        how=known["how"].iloc[0] if len(known) else "",
        people=int(known["training_people"].iloc[0]) if len(known) else 0,
        calibration={name: Estimate.in_row(row) for name, row in calibration.iterrows()},
        unlike=unlike.iloc[0] if len(unlike) else None,
    )


def scores(table: pd.DataFrame) -> list[Row]:
    """The scores of these people, those of the training beside them, and the calibration."""
    rows = []
    for name, row in of_kind(table, "score").iterrows():
        training = {"in the training": Estimate.in_row(row, "training").text()} if "training" in row else {}
        rows.append({"measure": spelled(str(name)), "these people": Estimate.in_row(row).text()} | training)
    for kind, after in (("calibration", ""), ("calibrated", ", of calibrated probabilities")):
        for name, row in of_kind(table, kind).iterrows():
            about = f"{CALIBRATION[str(name)]}{after}"
            rows.append({"measure": about, "these people": Estimate.in_row(row).text()})
    return rows


def shifts(table: pd.DataFrame) -> list[Row]:
    """How far these people lie from those of the training: in what is known of them, and the maps that do most."""
    maps = of_kind(table, "shift of maps")
    farthest = maps["value"].abs().sort_values(ascending=False).index[:MOST_MAPS]
    every = pd.concat([of_kind(table, "shift"), maps.loc[farthest]])
    return [
        {
            "measure": str(name),
            "difference in SD": number(row["value"], ".2f"),
            "interval": Estimate.in_row(row).ends(),
        }
        for name, row in every.iterrows()
    ]


def unlike(table: pd.DataFrame) -> list[str]:
    """Who is unlike the training people, and why."""
    return [f"{row['file']}: {row['reasons']}." for _, row in table[:MOST_PEOPLE].iterrows()]
