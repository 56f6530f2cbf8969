"""How surely one can tell whether a person trained a bundle, by what the bundle holds and the person's scan.

`python tests/benchmarks/membership.py COHORT FOLDER [--only nn,mmnn] [--seeds 3] [--numIters N]`

Halves of the people are drawn, one for each seed, in proportion over labels and sites. A network is trained on either,
with its checkpoints in FOLDER, and the other parts of a bundle are made of the same people. Of the people who did not
train it, half are those whom somebody who wants to tell has at hand; nobody is told by these. The question is asked of
all others, by:

network     The probability that the network gives to the true label.
no label    How far this probability is from a half, whatever the label.
<floor>     The probability that a linear floor of the bundle gives to the true label.
edges       The mean connectome of the training people: whether the person is nearer to it than to the mean of those at
            hand (Homer et al. 2008, doi:10.1371/journal.pgen.1000167).
volume      The same by their mean maps.
together    The mean of all these but `no label`, each as a z-score among those at hand.

Each line: the AUC of 'trained it', the mean over the trainings, with a 95 % interval (bootstrap over people); and the
share of training people who are told where 1 % of the others are told falsely.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data.base.cli import positive
from data.cohorts import resampling
from data.cohorts.cohort import Cohort, in_order
from data.likeness.scans import volumes_of
from models import MODELS
from utils.jobs import JOBS
from utils.machines import devices
from utils.runs.run import Run
from utils.runs.validate import request
from utils.scores import floors
from utils.scores.statistics import auc, resampled

RESAMPLES, FALSELY, SHRINKAGE = 1000, 0.01, 0.1
NO_LABEL = "no label"
Scores = dict[str, np.ndarray]


def trainings(model: str, args: argparse.Namespace) -> Iterator[Run]:
    """The finished trainings of a model, two for each seed."""
    for seed in range(args.seeds):
        words = ["--train", "--folds", 2, "--seed", seed, "--model", model, "--dataDir", args.cohort]
        words += ["--chkPointDir", args.folder / f"{seed}", "--outDir", args.folder / f"{seed}-{model}"]
        words += ["--numIters", args.numIters] if args.numIters else []
        top = command_line.parser()
        asked = top.parse_args(list(map(str, words)))
        given = {option for option, value in vars(asked).items() if value != top.get_default(option)}
        with contextlib.redirect_stdout(io.StringIO()):
            group = command_line.settled_on_folds(request(asked, given, JOBS.values()))
            group.perform_on("cpu")
        yield from group.leaves


def by_network(run: Run) -> Scores:
    """What the network says of each record (n,): higher for those on which it was trained."""
    from utils.training.network import outputs_of, probability_of_autism, restored_network

    batches = in_order(np.arange(len(run.cohort.rows)), run.config.batch_size)
    outputs = outputs_of(run, restored_network(run), batches)
    probability = probability_of_autism(np.concatenate([of for _, _, of in outputs]))
    return {"network": of_true(run.cohort, probability), NO_LABEL: abs(probability - 0.5)}


def by_floors(cohort: Cohort) -> Scores:
    """What the floors of a bundle say of each record."""
    found = floors.predict_linear(floors.fit_linear(cohort), cohort, range(len(cohort.rows)))
    return {str(name): of_true(cohort, of.to_numpy()) for name, of in found.items() if name != floors.MAJORITY}


def of_true(cohort: Cohort, probability: np.ndarray) -> np.ndarray:
    """The probability (n,) of the true label, by that of autism."""
    label = np.array([row.label for row in cohort.rows])
    return np.where(label == 1, probability, 1 - probability)


def by_mean(values: np.ndarray, trained: np.ndarray, at_hand: np.ndarray) -> np.ndarray:
    """How much nearer each person (n, values) is to the mean of the training people than to that of those at hand.
    Directions in which those at hand differ much count less."""
    means = [np.nanmean(values[of], 0) for of in (trained, at_hand)]
    known = np.nan_to_num(values[at_hand] - means[1])
    products, difference = known @ known.T, np.nan_to_num(means[0] - means[1])
    penalty = SHRINKAGE * np.trace(products) / len(known)
    along = np.linalg.solve(products + penalty * np.eye(len(known)), known @ difference)
    return np.nan_to_num(values - np.mean(means, 0)) @ (difference - along @ known)


def z_scores(score: np.ndarray, at_hand: np.ndarray) -> np.ndarray:
    """Scores (n,) beside those of people at hand."""
    return (score - score[at_hand].mean()) / score[at_hand].std()


def values_of(cohort: Cohort) -> Scores:
    """What a bundle has means of, (n, values) float32 each."""
    volumes = [np.stack([*map(resampling.reduced, volumes_of(cohort, at))]).ravel() for at in range(len(cohort.rows))]
    edges = {"edges": cohort.connectomes[:]} if cohort.connectomes else {}
    return {"volume": np.stack(volumes).astype(np.float32)} | edges


def halves(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The positions of those who trained the network, and of those of the others who are at hand."""
    others = run.cohort.indices("test")
    return run.cohort.indices("train"), np.sort(np.random.default_rng(run.seed).permutation(others)[: len(others) // 2])


def row(name: str, asked: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """A line of scores (n,), NaN for those at hand, and of who trained (n,), for each training."""
    trained, scores = (np.stack(of) for of in zip(*asked, strict=True))
    drawn = resampled(trained.shape[1], np.random.default_rng(0), RESAMPLES)
    weight, told, found = np.concatenate([np.ones((1, trained.shape[1])), drawn]), [], []
    for label, score in zip(trained, scores, strict=True):
        known = np.isfinite(score)
        found.append(auc(label[known].astype(float), score[known], weight[:, known]))
        limit = np.quantile(score[known & ~label], 1 - FALSELY, method="higher")
        told.append((score[known & label] > limit).mean())
    mean = np.mean(found, 0)
    low, high = np.quantile(mean[1:], (0.025, 0.975))
    return f"{name:<40}{mean[0]:.2f} ({low:.2f} to {high:.2f})   told: {np.mean(told):.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(name for name, of in MODELS.items() if of.predicts == "label"))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--numIters", type=positive)
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    devices.choose_device(share=False)
    values: Scores = {}
    of_people: list[Scores] = []  # what the other parts say, which are of people, whatever the network
    for model in args.only.split(","):
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for number, run in enumerate(trainings(model, args)):
            (trained, at_hand), count = halves(run), len(run.cohort.rows)
            if number == len(of_people):
                values = values or values_of(run.cohort)
                means = {name: by_mean(of, trained, at_hand) for name, of in values.items()}
                of_people.append(by_floors(run.cohort) | means)
            scores = by_network(run) | of_people[number]
            known = [z_scores(score, at_hand) for name, score in scores.items() if name != NO_LABEL]
            for name, score in (scores | {"together": np.mean(known, axis=0)}).items():
                asked = np.where(np.isin(np.arange(count), at_hand), np.nan, score)
                found.setdefault(name, []).append((np.isin(np.arange(count), trained), asked))
        sizes = [int(trained.sum()) for trained, _ in found["network"]]
        print(f"{model}: {len(sizes)} trainings on {min(sizes)} to {max(sizes)} people", flush=True)
        print("\n".join(row(name, of) for name, of in found.items()), flush=True)


if __name__ == "__main__":
    main()
