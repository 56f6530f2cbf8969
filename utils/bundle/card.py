"""The model card of a bundle (Mitchell et al. 2019, doi:10.1145/3287560.3287596): what it is for, of whom, how good."""

from pathlib import Path

import jinja2
import pandas as pd

from data.base.tables import printable
from data.cohorts.cohort import Cohort
from data.cohorts.records import CLASSES
from data.likeness.reference import quantiles
from utils.bundle.model import BundledModel, who_trained
from utils.report.build import INTENDED_USE
from utils.runs.cross_validation import FEWEST
from utils.scores.features import covariates
from utils.scores.results import Estimate

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  Markdown, of plain text
    finalize=lambda value: printable(value) if type(value) is str else value,
)
MIDDLE = (0.05, 0.95)  # the quantiles between which most people lie, none of them one person's value


def text(model: BundledModel, cohort: Cohort) -> str:
    """The card as Markdown."""
    rows = [cohort.rows[at] for at in who_trained(model.trained_on, cohort)]
    return TEMPLATES.get_template("card.jinja").render(
        model=model,
        cohort=cohort,
        use=INTENDED_USE,
        sites=sites(rows),
        variables=variables(cohort, rows),
        Estimate=Estimate,
        fewest=FEWEST,
    )


def sites(rows: list) -> list[dict]:
    """People by site and class; sites of fewer than `FEWEST` people are counted together."""
    table = pd.DataFrame([{"subject": row.subject, "site": row.site, "label": row.label} for row in rows])
    table = table.drop_duplicates("subject")
    small = table.groupby("site")["site"].transform("size") < FEWEST
    table["site"] = table["site"].where(~small, f"sites of fewer than {FEWEST}: {table['site'][small].nunique()}")
    counted = pd.crosstab(table["site"], table["label"])
    return [
        {"site": site or "unknown"} | {name: int(counts.get(value, 0)) for value, name in enumerate(CLASSES)}
        for site, counts in counted.iterrows()
    ]


def variables(cohort: Cohort, rows: list) -> list[dict]:
    """Age, sex, head motion and other covariates of the people: mean, SD and where most of them lie, or shares of
    categories. Of what fewer than `FEWEST` people have nothing is told."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    site_of = {row.subject: row.site for row in rows}
    table = covariates(subjects, [site_of[subject] for subject in subjects], cohort.covariates)
    found = []
    for name, values in table.drop(columns="site", errors="ignore").items():
        known = values.dropna()
        if pd.api.types.is_numeric_dtype(values) and known.nunique() > 2:
            low, high = quantiles(known.to_numpy(float), MIDDLE).tolist()
            told = f"mean {known.mean():.3g}, SD {known.std():.3g}, 90 % between {low:.3g} and {high:.3g}"
        else:
            shares = known.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value)).value_counts()
            told = ", ".join(f"{value} {count}" for value, count in shares.items() if count >= FEWEST)
        if len(known) >= FEWEST and told:
            found.append({"name": str(name), "told": told, "unknown": int(values.isna().sum())})
    return found
