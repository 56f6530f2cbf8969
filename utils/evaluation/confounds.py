"""Whether a network's output says more of the diagnosis than head motion and the other covariates do."""

import warnings

import numpy as np
import pandas as pd
from scipy.special import logit

from utils.covariates import HEAD_MOTION, covariates
from utils.metrics import Predictions
from utils.report.texts import paragraph
from utils.statistics import CONFIDENCE

MIN_SUBJECTS_A_PARAMETER = 10  # of a logistic regression
MIN_KNOWN = 0.5  # share of the subjects whose value of a covariate must be known to keep it


def motion(predictions: Predictions, table: pd.DataFrame | None) -> dict | None:
    """Whether the network's output says more of the diagnosis than the covariates do: a logistic regression.

    It regresses the label on the logit of the out-of-sample probability, in standard deviations, the covariates
    (`table` is `Cohort.covariates`) and, where subjects suffice, the site. Each subject counts once, with the mean
    logit of its records. The result holds `coefficient` with `low`, `high`, `p`; `subjects`, `left_out` (a covariate is
    unknown, or all of their site are of one class), `covariates`, `without` (covariates not used) - or `reason`, why it
    cannot be computed. None if there are no covariates.
    """
    if table is None:
        return None
    logits = logit(np.clip(predictions.probability, 1e-7, 1 - 1e-7))
    records = pd.DataFrame({"label": predictions.label, "site": predictions.site, "logit": logits})
    everybody = records.groupby(predictions.subject).agg({"label": "first", "site": "first", "logit": "mean"})
    known = covariates(everybody.index.tolist(), everybody["site"].tolist(), table)
    chosen = [name for name in known if known[name].notna().mean() >= MIN_KNOWN]
    for names in (chosen, [name for name in chosen if name != "site"]):
        people = everybody[known[names].notna().all(axis=1)]
        if "site" in names:
            people = people[people.groupby("site")["label"].transform("nunique") == 2]
        values = design(known.loc[people.index, names], people["logit"])
        if len(people) and len(people) >= MIN_SUBJECTS_A_PARAMETER * values.shape[1]:
            break
    counts = {"subjects": len(people), "left_out": len(everybody) - len(people)}
    used = {"covariates": names, "without": [name for name in known if name not in names]}
    return regression(people["label"].to_numpy(), values) | counts | used


def design(known: pd.DataFrame, logit: pd.Series) -> pd.DataFrame:
    """Intercept, covariates (text as dummies) and logit, z-scored; no column that depends linearly on those before."""
    numbers = pd.get_dummies(known, drop_first=True, dtype=float) if len(known.columns) else known  # pandas needs one
    values = numbers.assign(logit=logit)
    values = (values - values.mean()) / values.std(ddof=0).replace(0, 1)
    values.insert(0, "intercept", 1.0)
    kept: list[str] = []
    for name in values:
        if np.linalg.matrix_rank(values[[*kept, name]]) > len(kept):
            kept.append(name)
    return values[kept]


def regression(label: np.ndarray, values: pd.DataFrame) -> dict:
    """The logit's coefficient in a logistic regression, or the reason why there is none."""
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.tools.sm_exceptions import ModelWarning, PerfectSeparationError

    if len(set(label)) < 2:
        return {"reason": "the subjects are of one class"}
    if values.columns.isin(["intercept", "logit"]).all():
        return {"reason": "no covariate can be used"}
    if len(label) < MIN_SUBJECTS_A_PARAMETER * values.shape[1]:
        return {"reason": f"{len(label)} subjects are too few for {values.shape[1]} parameters"}
    if "logit" not in values:
        return {"reason": "the network's output follows from the covariates, or is the same for everybody"}
    try:
        with warnings.catch_warnings():
            for category in (ModelWarning, RuntimeWarning):
                warnings.simplefilter("error", category)
            fit = Logit(label, values).fit(disp=0, maxiter=100)
    except (ModelWarning, RuntimeWarning, PerfectSeparationError, np.linalg.LinAlgError):
        return {"reason": "the covariates and the network's output separate the classes perfectly"}
    low, high = fit.conf_int(1 - CONFIDENCE).loc["logit"]
    numbers = {"coefficient": fit.params["logit"], "low": low, "high": high, "p": fit.pvalues["logit"]}
    return {name: float(value) for name, value in numbers.items()}


def motion_line(result: dict | None) -> str:
    """The result of `motion` in one line."""
    of_motion = result is not None and any(HEAD_MOTION.search(name) for name in result["covariates"])
    return paragraph("motion", result=result, of_motion=of_motion)
