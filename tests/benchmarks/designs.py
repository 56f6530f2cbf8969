"""What designs score where there is nothing to find: choosing features within folds, before folds, in earlier folds.

    python tests/benchmarks/designs.py [--sets 100] [--seed 0]

Each set is pure noise: participants with random labels and as many normal features as CC200 has edges. The designs are
those of docs/examples, with the same numbers of features and the same classifier. Prints the rows of
docs/evidence/designs.csv.
"""

import argparse
import csv
import sys

import numpy as np
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.machines.devices import git_commit

PEOPLE = 200
FEATURES = 19_900
FEATURES_CHOSEN = 100


def score_designs(seed: int) -> dict[str, float]:
    """The AUC of each design, by its name, on the noise of a seed."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((PEOPLE, FEATURES), np.float32)
    labels = generator.permutation(np.arange(PEOPLE) % 2)
    chosen_by_everybody = SelectKBest(k=FEATURES_CHOSEN).fit(features, labels).get_support()
    is_chosen_earlier = np.zeros(FEATURES, bool)
    probabilities_by_design: dict[str, np.ndarray] = {
        design: np.zeros(PEOPLE) for design in ("within each fold", "before the folds", "in earlier folds, too")
    }
    for train_indices, test_indices in StratifiedKFold(10, shuffle=True, random_state=seed).split(features, labels):
        selector = SelectKBest(k=FEATURES_CHOSEN).fit(features[train_indices], labels[train_indices])
        chosen_within = selector.get_support()
        is_chosen_earlier |= chosen_within
        masks = (chosen_within, chosen_by_everybody, is_chosen_earlier)
        for (_, probabilities), is_chosen in zip(probabilities_by_design.items(), masks, strict=True):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
            model.fit(features[train_indices][:, is_chosen], labels[train_indices])
            probabilities[test_indices] = model.predict_proba(features[test_indices][:, is_chosen])[:, 1]
    return {
        design: float(roc_auc_score(labels, probabilities)) for design, probabilities in probabilities_by_design.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    scores_of_sets = [score_designs(args.seed + set_number) for set_number in range(args.sets)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ["case", "measure", "value", "low", "high", "unit", "participants", "sets", "seed", "commit", "command"]
    )
    command = f"python tests/benchmarks/designs.py --sets {args.sets} --seed {args.seed}"
    for design in scores_of_sets[0]:
        aucs = [scores[design] for scores in scores_of_sets]
        low, high = np.quantile(aucs, (0.025, 0.975))
        cells = [f"{number:.2f}" for number in (np.mean(aucs), low, high)]
        seeds = f"{args.seed} to {args.seed + args.sets - 1}"
        writer.writerow(
            [
                "nothing to find",
                f"features chosen {design}",
                *cells,
                "",
                PEOPLE,
                args.sets,
                seeds,
                git_commit(),
                command,
            ]
        )


if __name__ == "__main__":
    main()
