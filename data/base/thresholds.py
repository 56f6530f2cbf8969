"""Constants of statistics that many rooms share."""

CHANCE_AUC = 0.5  # AUC of guessing
CONFIDENCE_LEVEL = 0.95  # of an interval: the share of the resamples that it holds
POWER = 0.8  # of studies that show what is there: the share in forecasts and minimum detectable differences
MIN_CLASS_SUBJECTS = 10  # of each class, for an interval: percentiles of fewer are too narrow
# people of a group, such as a site or a category: statistics of fewer nearly say who they are
MIN_DESCRIBED_PEOPLE = 5
