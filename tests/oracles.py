"""What others compute: scores by scikit-learn, in groups of people; the 29 values of six people, by hand."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

NAN = float("nan")
PCP_COLUMNS = [
    *("AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY", "HANDEDNESS_SCORES", "FIQ", "VIQ", "PIQ", "FIQ_TEST_TYPE"),
    *("EYE_STATUS_AT_SCAN", "BMI", "WISC_IV_VCI", "WISC_IV_PRI", "WISC_IV_WMI", "WISC_IV_PSI"),
]
PCP_ROWS = [
    # AGE, SEX, HANDEDNESS_CATEGORY, HANDEDNESS_SCORES, FIQ, VIQ, PIQ, FIQ_TEST_TYPE, EYES, BMI, VCI, PRI, WMI, PSI
    ("12.5", "1", "R", "80", "110", "112", "108", "WASI", "1", "", "", "", "", ""),
    ("9.25", "2", "L", "-9999", "98", "-9999", "101", "WISC_IV_FULL", "2", "", "101", "99", "95", "90"),
    ("33", "1", "Ambi", "-20", "-9999", "`", "", "", "1", "24.5", "", "", "", ""),
    ("17.1", "1", "Mixed", "", "121", "119", "117", "WAIS_III", "1", "-9999", "", "", "", ""),
    ("21", "1", "L->R", "15", "87", "90", "86", "DAS_II_SA", "2", "31", "", "", "", ""),
    ("14", "2", "", "-9999", "105", "100", "109", "HAWIK_IV", "1", "", "111", "104", "88", "-9999"),
]
BY_HAND = [
    # age, male, female, right, left, ambidextrous, mixed, score, FIQ, VIQ, PIQ,
    # missing: handedness, score, FIQ, VIQ, PIQ, WISC, BMI; test: WASI, WISC, WAIS, other; WISC x 4; open, closed; BMI
    [12.5, 1, 0, 1, 0, 0, 0, 80, 110, 112, 108, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, *[NAN] * 4, 1, 0, NAN],
    [9.25, 0, 1, 0, 1, 0, 0, NAN, 98, NAN, 101, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 101, 99, 95, 90, 0, 1, NAN],
    [33, 1, 0, 0, 0, 1, 0, -20, NAN, NAN, NAN, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, *[NAN] * 4, 1, 0, 24.5],
    [17.1, 1, 0, 0, 0, 0, 1, NAN, 121, 119, 117, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, *[NAN] * 4, 1, 0, NAN],
    [21, 1, 0, 0, 0, 0, 1, 15, 87, 90, 86, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[NAN] * 4, 0, 1, 31],
    [14, 0, 1, 0, 0, 0, 0, NAN, 105, 100, 109, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 111, 104, 88, NAN, 1, 0, NAN],
]


def within(table: pd.DataFrame, *group: str) -> float:
    """The AUC of each group that has both classes, averaged by records."""
    both = [of for _, of in table.groupby(list(group)) if of["label"].astype(float).nunique() == 2]
    each = [roc_auc_score(of["label"].astype(float), of["probability"]) for of in both]
    return float(np.average(each, weights=[*map(len, both)]))
