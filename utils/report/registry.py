"""The tables of a test: a row for each CSV. The outputs of `--test`, writing, reading and the report follow from it."""

from dataclasses import dataclass

from utils.scores.estimate import columns_of

METRICS = "metrics.json"
PAGE = "report.html"
CANDIDATE = "candidate"  # a column of several tables
PREDICTION_COLUMNS = ("file", "subject", "site", "label", "probability")
UNLIKE_COLUMNS = ("file", "subject", "reasons")
SITE_COUNTS = ("subjects", "autism", "control")
CHOICE_COLUMNS = ("fold", CANDIDATE, "inner_folds", "score", "chosen")
CALIBRATION_COLUMNS = ("measure", "probabilities", "group", "diagnosis", "level", "people", *columns_of())


@dataclass(frozen=True)
class Table:
    """A CSV of a test. `texts`: the columns that hold names and words; others are read as numbers.

    `needed`: the columns without which the report refuses it. Without any, the report does not read it, or in a way of
    its own. `pooled`: each fold writes one, and these are put together. `joined`: with other tables, by its texts. They
    stay as they are, even if a spreadsheet would compute them.
    """

    name: str  # without .csv
    texts: tuple[str, ...]
    needed: tuple[str, ...] = ()
    pooled: bool = False
    joined: bool = False

    @property
    def file(self) -> str:
        return f"{self.name}.csv"


ROWS = (
    Table("predictions", ("file", "subject", "site", "fold", CANDIDATE), pooled=True, joined=True),
    Table("floor_predictions", ("file", "fold"), pooled=True, joined=True),  # floors' probabilities of autism
    Table("training", ("fold", CANDIDATE), ("fold", "step", "loss"), pooled=True),  # the history, thinned
    Table("floors", ("floor",), ("floor", *columns_of("auc"))),  # the model and its floors
    Table("sites", ("site",), ("site", *SITE_COUNTS, *columns_of("auc"), *columns_of("accuracy"))),
    Table("groups", ("kind", "group"), ("kind", "group", *SITE_COUNTS, *columns_of("auc"))),  # by motion, sex and age
    Table("confounds", ("measure",), ("measure", *columns_of(), "p")),  # whether the output says more than covariates
    Table("repeats", ("best_floor",), ("repeat", "seed", *columns_of("auc"))),  # the scores of each
    Table("probabilities", ("file", "subject", "site", "fold")),  # calibrated on the other folds, and sets of labels
    Table("calibration", ("measure", "probabilities", "group", "diagnosis"), CALIBRATION_COLUMNS),  # how well that did
    Table("candidates", (CANDIDATE,), (CANDIDATE, "chosen", *columns_of("auc"))),  # their scores; how often chosen
    Table("choices", ("fold", CANDIDATE), CHOICE_COLUMNS),  # who was chosen in each fold, and by what scores
    Table("external", ("kind", "measure", "how"), ("kind", "measure", *columns_of())),  # people beside training people
    Table("unlike", UNLIKE_COLUMNS, UNLIKE_COLUMNS),  # who of them is unlike all of those, and why
    Table("table1", ("variable", "site", "category", "test"), ("variable", "site", "category", "p")),  # by diagnosis
    Table("tripod_ai", ("item", "section", "topic", "for", "asks", "filled_by", "text")),
    Table("people", ("file", "subject", "labels", "unlike")),  # what a bundle says of each
)
TABLES = {table.name: table for table in ROWS}
POOLED = tuple(table.name for table in ROWS if table.pooled)
DATA = (METRICS, *(table.file for table in ROWS if table.name != "tripod_ai"))  # what the report is made of
OUTPUTS = (  # of a test, beside its figures
    *(table.file for table in ROWS if table.pooled),
    METRICS,
    *(table.file for table in ROWS if not table.pooled),
    PAGE,
)
