"""What columns and rows of the pages mean, in a sentence or two."""

AREA = "The chance that a participant with autism has the higher probability than a control"
DIFFERENCE = "How far the first lies above the second. An interval that holds 0 shows no difference."
MEANINGS = {
    "AUC": f"{AREA}. 0.5 is guessing.",
    "AUC within sites": f"{AREA} of the same site. 0.5 is guessing. With several sites, report this number.",
    "AUC within folds": f"{AREA} whom the same model tested. 0.5 is guessing.",
    "AUC, all participants together": f"{AREA} of any site. A network that tells only sites apart can have a high one.",
    "AUC within sites, model minus baseline": DIFFERENCE,
    "AUC within folds, model minus baseline": DIFFERENCE,
    "AUC, model minus baseline": DIFFERENCE,
    "accuracy": "The share of participants whose diagnosis is predicted. Compare it with that of the larger class.",
    "balanced accuracy": "The mean of recall and specificity. 0.5 is guessing.",
    "recall": "The share of participants with autism who are predicted as such: sensitivity.",
    "specificity": "The share of controls who are predicted as such.",
    "precision": "The share of participants with autism among those who are predicted as such.",
    "F score": "The harmonic mean of precision and recall.",
    "Brier score": "The mean squared distance of probability and diagnosis. Less is better; always 0.5 has 0.25.",
    "calibration error": "The mean distance of predicted probabilities and observed shares, over bins. 0 is best.",
    "slope": "1: probabilities are as sure as they should be. Below 1 they are too sure.",
    "intercept": "0: as many participants have autism as the probabilities say. Above 0 more do.",
    "classifier": "The model, and plain classifiers of the same participants (baselines). One was pre-specified.",
    "p": "The chance of a value at least as far from none, if there were nothing to find.",
    "p of ranks": "The same by a test of ranks, on which single far values have no pull.",
}
