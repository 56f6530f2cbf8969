"""--test: test subjects and a checkpoint -> predictions, metrics and figures."""

import csv

import numpy as np

from data import files, records
from data.cohort import Cohort
from models import losses
from utils import figures
from utils.inference import outputs_of, probability_of_autism, restored_network
from utils.metrics import ExplainedVariance, with_intervals
from utils.runs import Run, prepare_folder

ROW = ("accuracy", "recall", "precision", "f_score")  # of checkpoint_results.csv


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, whichever the model is; returns the exit status."""
    prepare_folder(run)
    {"label": test_classifier, "input": test_autoencoder}[run.model.predicts](run)
    run.finish()
    return 0


def test_classifier(run: Run) -> None:
    """`predictions.csv`, `metrics.json`, `confusion_matrix.png`, `roc.png`, a row in `checkpoint_results.csv`."""
    indices = run.cohort.indices("test")
    batches = outputs_of(run, restored_network(run), indices, "Testing")
    probability = np.concatenate([probability_of_autism(outputs) for _, _, outputs in batches])
    rows = [run.cohort.rows[index] for index in indices]
    label = np.array([row.label for row in rows])
    with files.replacing(run.out_dir / "predictions.csv", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "subject", "site", "label", "probability"])
        for row, value in zip(rows, probability, strict=True):
            writer.writerow([row.file, row.subject, row.site, int(row.label), f"{value:.8g}"])
    metrics = with_intervals(label, probability, [row.subject for row in rows], run.seed)
    files.write_json(run.out_dir / "metrics.json", metrics)
    figures.confusion_matrix(label, probability, run.out_dir / "confusion_matrix.png")
    figures.roc(label, probability, run.out_dir / "roc.png")
    append_result(run, metrics)
    print(f"{len(rows)} test records: " + ", ".join(f"{name} {shown(metrics[name])}" for name in metrics))


def shown(metric: dict) -> str:
    """`0.610 (0.500-0.720)`."""
    if metric["value"] is None:
        return "undefined"
    if metric["low"] is None:
        return f"{metric['value']:.3f} (no interval: one subject)"
    return f"{metric['value']:.3f} ({metric['low']:.3f}-{metric['high']:.3f})"


def append_result(run: Run, metrics: dict) -> None:
    """Adds this checkpoint's row to `checkpoint_results.csv`, keeping the rows of earlier tests."""
    path = run.out_dir / "checkpoint_results.csv"
    header = ",".join(("checkpoint", *ROW)) + "\n"
    before = path.read_text() if path.exists() else header
    values = ["" if metrics[name]["value"] is None else f"{metrics[name]['value']:.6f}" for name in ROW]
    with files.replacing(path) as file:
        file.write(before + ",".join([str(run.checkpoints.latest()), *values]) + "\n")


def test_autoencoder(run: Run) -> None:
    """`metrics.json`, and for volumes three figures of the first test subject."""
    network, reads = restored_network(run), run.model.reads[0]
    trained, baseline = ExplainedVariance(), ExplainedVariance()
    approximate = {"volume": block_means, "phenotype": principal_components(run.cohort, network)}[reads]
    activation, first = [], None
    for _, batch, outputs in outputs_of(run, network, run.cohort.indices("test"), "Testing"):
        trained.add(batch[reads], outputs["reconstruction"])
        baseline.add(batch[reads], approximate(batch[reads]))
        activation += [float(losses.mean_activation(code)) for code in outputs["code"]]
        first = first or {
            "input": batch[reads][0],
            "encoded": outputs["code"][0],
            "decoded": outputs["reconstruction"][0],
        }
    metrics = {
        "mse": trained.mse,
        "explained_variance": trained.value,
        "code_mean_activation": float(np.mean(activation)),
        "explained_variance_baseline": baseline.value,
        "baseline": "3x3x3 block means" if reads == "volume" else "principal components, as many as the code's units",
    }
    files.write_json(run.out_dir / "metrics.json", metrics)
    if reads == "volume":
        for name, volume in first.items():
            figures.slices(volume[..., 0].astype(np.float32), name, run.out_dir / f"{name}Image.png")
    print(", ".join(f"{name} {value:.4f}" if isinstance(value, float) else value for name, value in metrics.items()))


def block_means(volumes: np.ndarray) -> np.ndarray:
    """Each 3x3x3 block of (n, 91, 109, 91, 1) averaged and repeated."""
    return np.stack([records.repeat_blocks(records.block_mean(volume[..., 0]))[..., None] for volume in volumes])


def principal_components(cohort: Cohort, network):
    """PCA of the training phenotypes with as many components as the code has units: phenotype (n, 29) -> (n, 29)."""
    from sklearn.decomposition import PCA

    phenotype = cohort.batch(cohort.indices("train"), volumes=False)["phenotype"]
    components = min(int(np.prod(network.output["code"].shape[1:])), *phenotype.shape)
    fitted = PCA(components).fit(phenotype)
    return lambda values: fitted.inverse_transform(fitted.transform(values))
