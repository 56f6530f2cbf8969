"""What others compute: scores by scikit-learn, in groups of people; the 29 values of six people, by hand."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

MISSING = float("nan")
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
EXPECTED_VALUES = [
    # age, male, female, right, left, ambidextrous, mixed, score, FIQ, VIQ, PIQ,
    # missing: handedness, score, FIQ, VIQ, PIQ, WISC, BMI; test: WASI, WISC, WAIS, other; WISC x 4; open, closed; BMI
    [12.5, 1, 0, 1, 0, 0, 0, 80, 110, 112, 108, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, *[MISSING] * 4, 1, 0, MISSING],
    [
        9.25,
        0,
        1,
        0,
        1,
        0,
        0,
        MISSING,
        98,
        MISSING,
        101,
        0,
        1,
        0,
        1,
        0,
        0,
        1,
        0,
        1,
        0,
        0,
        101,
        99,
        95,
        90,
        0,
        1,
        MISSING,
    ],
    [33, 1, 0, 0, 0, 1, 0, -20, MISSING, MISSING, MISSING, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, *[MISSING] * 4, 1, 0, 24.5],
    [17.1, 1, 0, 0, 0, 0, 1, MISSING, 121, 119, 117, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, *[MISSING] * 4, 1, 0, MISSING],
    [21, 1, 0, 0, 0, 0, 1, 15, 87, 90, 86, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[MISSING] * 4, 0, 1, 31],
    [
        14,
        0,
        1,
        0,
        0,
        0,
        0,
        MISSING,
        105,
        100,
        109,
        1,
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        1,
        0,
        0,
        111,
        104,
        88,
        MISSING,
        1,
        0,
        MISSING,
    ],
]


def average_group_auc(table: pd.DataFrame, *group: str) -> float:
    """The AUC of each group that has both classes, averaged by records."""
    two_class_tables = [
        group_table
        for _, group_table in table.groupby(list(group))
        if group_table["label"].astype(float).nunique() == 2
    ]
    group_aucs = [
        roc_auc_score(group_table["label"].astype(float), group_table["probability"])
        for group_table in two_class_tables
    ]
    return float(np.average(group_aucs, weights=[*map(len, two_class_tables)]))
