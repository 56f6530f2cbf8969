"""--test: test subjects and a checkpoint -> predictions, metrics and figures."""

import csv
import io

import keras
import numpy as np

from data.base import files
from data.base.text import in_spreadsheet, number, printable
from data.cohorts import records
from data.cohorts.cohort import Cohort, in_order
from data.grids import Grid
from models import losses
from utils import figures
from utils.evaluation import score
from utils.inference import outputs_of, probability_of_autism, restored_network
from utils.metrics import ExplainedVariance
from utils.runs.run import Run, prepare_folder
from utils.statistics import or_none

ROW = ("accuracy", "recall", "precision", "f_score")  # of checkpoint_results.csv


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, whichever the model is; returns the exit status."""
    network = restored_network(run)
    prepare_folder(run)
    {"label": evaluate_classifier, "input": evaluate_autoencoder}[run.model.predicts](run, network)
    return 0


def pool(run: Run) -> None:
    """The results of all folds from theirs."""
    {"label": score.pool, "input": pool_autoencoders}[run.model.predicts](run)


def evaluate_classifier(run: Run, network: keras.Model) -> None:
    """`predictions.csv`, those of the floors, what `score` makes of them, and a row of results."""
    batches = outputs_of(run, network, tested(run), "Testing")
    score.write_predictions(run, np.concatenate([probability_of_autism(outputs) for _, _, outputs in batches]))
    score.write_floors(run)
    score.write_history(run)
    if metrics := score.conclude(run):
        append_result(run, metrics)


def tested(run: Run) -> list[np.ndarray]:
    """The test records in batches."""
    return in_order(run.cohort.indices("test"), run.config.batch_size)


def append_result(run: Run, metrics: dict[str, dict]) -> None:
    """Adds this checkpoint's row to `checkpoint_results.csv`, keeping the rows of earlier tests."""
    path = run.out_dir / "checkpoint_results.csv"
    before = path.read_bytes() if path.exists() else ",".join(("checkpoint", *ROW)).encode() + b"\n"
    row = io.StringIO()
    values = ["" if metrics[name]["value"] is None else f"{metrics[name]['value']:.6f}" for name in ROW]
    csv.writer(row, lineterminator="\n").writerow([in_spreadsheet(str(run.checkpoints.latest())), *values])
    with files.replacing(path, "wb") as file:
        file.write(before + row.getvalue().encode())


def pool_autoencoders(run: Run) -> None:
    """`metrics.json`: means over the folds, each by its number of test records, and what each fold has."""
    of_fold = {part.fold: files.read_json(part.out_dir / score.METRICS, dict) for part in run.parts}
    weight = np.array([len(part.cohort.indices("test")) for part in run.parts], float)
    first = next(iter(of_fold.values()))
    values = {name: np.array([of[name] for of in of_fold.values()], float) for name in first if name != "baseline"}
    means = {name: or_none(float(weight @ value / weight.sum())) for name, value in values.items()}
    pooled = means | {"baseline": first["baseline"], "folds": of_fold}
    files.write_json(run.out_dir / score.METRICS, pooled)
    print(
        ", ".join(f"{name} {number(value, '.4f', 'undefined')}" for name, value in means.items() if value is not None)
    )
    run.finish(("explained_variance", means["explained_variance"], None, None))


def evaluate_autoencoder(run: Run, network: keras.Model) -> None:
    """`metrics.json`, and for volumes three figures of the first test record."""
    reads = run.model.reads[0]
    trained, baseline = ExplainedVariance(), ExplainedVariance()
    approximate = block_means if reads == "volume" else principal_components(run.cohort, network)
    activation: list[float] = []
    first: list[np.ndarray] = []
    for _, batch, outputs in outputs_of(run, network, tested(run), "Testing"):
        trained.add(batch[reads], outputs["reconstruction"])
        baseline.add(batch[reads], approximate(batch[reads]))
        activation += [float(losses.mean_activation(code)) for code in outputs["code"]]
        first = first or [batch[reads][0], outputs["code"][0], outputs["reconstruction"][0]]
    numbers = {
        "mse": trained.mse,
        "explained_variance": trained.value,
        "code_mean_activation": float(np.mean(activation)),
        "explained_variance_baseline": baseline.value,
    }
    named = "3x3x3 block means" if reads == "volume" else "principal components, as many as the code's units"
    metrics = {name: or_none(value) for name, value in numbers.items()} | {"baseline": named}
    files.write_json(run.out_dir / "metrics.json", metrics)
    if reads == "volume":
        draw_volumes(run, network, *(volume.astype(np.float32) for volume in first))
    print(", ".join(f"{name} {number(value, '.4f', 'undefined')}" for name, value in numbers.items()) + f" ({named})")
    run.finish(("explained_variance", metrics["explained_variance"], None, None))


def draw_volumes(run: Run, network: keras.Model, volume: np.ndarray, code: np.ndarray, decoded: np.ndarray) -> None:
    """`inputImage.png`, `encodedImage.png`, `decodedImage.png` of the first test record and its first map,
    (x, y, z, channels) each.

    All three have the grey scale of the input; the code is z-scored for it, as the records of a full pass are.
    """
    row, grid = run.cohort.rows[run.cohort.indices("test")[0]], run.cohort.grid
    of = f"of subject {printable(row.subject)}{run.marks}"
    limits, channels = (float(volume.min()), float(volume.max())), code.shape[-1]
    unit = f"{(*run.cohort.metadata.maps, 'volume')[0]}, z-score"
    channel = f", channel 1 of {channels}" * (channels > 1)
    pictures = (
        ("input", volume, grid, f"Input {of}", unit),
        (
            "encoded",
            records.normalise(code[..., 0])[..., None],
            code_grid(network, grid),
            f"Code {of}{channel}",
            "code, z-score",
        ),
        ("decoded", decoded, grid, f"Decoded volume {of}", unit),
    )
    for name, values, its_grid, title, its_unit in pictures:
        figures.slices(values[..., 0], its_grid, limits, title, its_unit, run.out_dir / f"{name}Image.png")


def code_grid(network: keras.Model, grid: Grid) -> Grid:
    """Where the code's voxels lie: each at the centre of what its convolutions and poolings see, padding included."""
    spacing, origin = grid.spacing_mm, np.array(grid.origin_mm)
    for layer in keras.Model(network.input, network.output["code"]).layers:
        if not hasattr(layer, "strides"):
            continue
        window, stride = np.array(getattr(layer, "kernel_size", None) or layer.pool_size), layer.strides[0]
        before, after = (np.array(tensor.shape[1:4]) for tensor in (layer.input, layer.output))
        padding = np.maximum((after - 1) * stride + window - before, 0) // 2 if layer.padding == "same" else 0
        origin = origin + spacing * ((window - 1) / 2 - padding)
        spacing *= stride
    return Grid("code", network.output["code"].shape[1:4], spacing, tuple(origin.tolist()))


def block_means(volumes: np.ndarray) -> np.ndarray:
    """Each 3x3x3 block of (n, 91, 109, 91, 1) averaged and repeated."""
    return np.stack([records.repeat_blocks(records.block_mean(volume[..., 0]))[..., None] for volume in volumes])


def principal_components(cohort: Cohort, network: keras.Model):
    """PCA of the training phenotypes with as many components as the code has units: phenotype (n, 29) -> (n, 29)."""
    from sklearn.decomposition import PCA

    phenotype = cohort.batch(cohort.indices("train"), volumes=False)["phenotype"]
    components = min(int(np.prod(network.output["code"].shape[1:])), *phenotype.shape)
    fitted = PCA(components).fit(phenotype)
    return lambda values: fitted.inverse_transform(fitted.transform(values))
