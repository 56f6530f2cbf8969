"""--test of an autoencoder: reconstructions of the test records -> metrics beside a baseline, and figures."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from sklearn.decomposition import PCA

from data.base import files
from data.base.tables import make_printable
from data.base.terminal import print_summary
from data.cohorts import records, resampling
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.records import Grid
from models import losses
from utils.figures import Picture, slices
from utils.runs.run import Run
from utils.scores.results import METRICS, Estimate, Headline, or_none
from utils.training.network import run_network


class ExplainedVariance:
    """1 - (sum of squared errors) / (sum of squares about the mean), over all values of all batches added."""

    def __init__(self) -> None:
        self.count = self.total = self.squares = self.errors = 0.0

    def add(self, original: np.ndarray, approximation: np.ndarray) -> None:
        original = np.asarray(original, np.float64)
        self.count += original.size
        self.total += original.sum()
        self.squares += np.square(original).sum()
        self.errors += np.square(original - approximation).sum()

    @property
    def mse(self) -> float:
        return float(self.errors / self.count)

    @property
    def value(self) -> float:
        """NaN if the original does not vary."""
        variance = self.squares - self.total**2 / self.count
        return float(1 - self.errors / variance) if variance > 0 else float("nan")


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """`metrics.json`: means over the folds, weighted by their test records, and over repeats; the metrics of each."""
    found = [files.read_json(run.out_dir / METRICS, dict) for run in runs]
    count = np.array([len(run.cohort.split_indices("test")) for run in runs], float)
    parts = {run.fold_label: metrics for run, metrics in zip(runs, found, strict=True)}
    held = whole.caveats.active_fields
    names = [name for name in found[0] if name not in ("baseline", *held)]
    values = {name: np.array([of[name] for of in found], float) for name in names}
    means = {name: or_none(float(count @ value / count.sum())) for name, value in values.items()}
    files.write_json(whole.out_dir / METRICS, means | {"baseline": found[0]["baseline"], "folds": parts} | held)
    tell(means, found[0]["baseline"])
    whole.finish(Headline("explained_variance", Estimate.of(means["explained_variance"])))


def evaluate(run: Run, network: keras.Model) -> None:
    """`metrics.json`, and for volumes three figures of the first test record."""
    reads = run.model.input_names[0]
    trained, baseline = ExplainedVariance(), ExplainedVariance()
    approximate = block_means if reads == "volume" else principal_components(run.cohort, network)
    activation: list[float] = []
    first: list[np.ndarray] = []
    batches = split_into_batches(run.cohort.split_indices("test"), run.config.batch_size)
    for _, batch, outputs in run_network(run, network, batches, "Testing"):
        trained.add(batch[reads], outputs["reconstruction"])
        baseline.add(batch[reads], approximate(batch[reads]))
        activation += [float(losses.mean_activation(code)) for code in outputs["code"]]
        first = first or [batch[reads][0], outputs["code"][0], outputs["reconstruction"][0]]
    named = "3x3x3 block means" if reads == "volume" else "principal components, as many as the code's units"
    metrics = {
        "mse": or_none(trained.mse),
        "explained_variance": or_none(trained.value),
        "code_mean_activation": or_none(float(np.mean(activation))),
        "explained_variance_baseline": or_none(baseline.value),
    }
    files.write_json(run.out_dir / METRICS, metrics | {"baseline": named} | run.caveats.active_fields)
    if reads == "volume":
        draw_volumes(run, network, *(volume.astype(np.float32) for volume in first))
    tell(metrics, named)
    run.finish(Headline("explained_variance", Estimate.of(metrics["explained_variance"])))


def tell(metrics: dict[str, float | None], baseline: str) -> None:
    """Prints metrics, and what the baseline is."""
    shown = {name: "undefined" if value is None else f"{value:.4f}" for name, value in metrics.items()}
    explained = "explained variance {explained_variance}, no interval; mse {mse}".format(**shown)
    of_baseline = f"{baseline}: explained variance {shown['explained_variance_baseline']}"
    print_summary([("autoencoder", explained), ("baseline", of_baseline)])


def draw_volumes(run: Run, network: keras.Model, volume: np.ndarray, code: np.ndarray, decoded: np.ndarray) -> None:
    """Figures of the first map of the first test record: volumes (x, y, z, channels) in the grey scale of the input."""
    row, grid = run.cohort.rows[run.cohort.split_indices("test")[0]], run.cohort.grid
    person = f"of participant {make_printable(row.subject)}{run.marks}"
    unit = f"{(*run.cohort.metadata.maps, 'volume')[0]}, z-score"
    channel = f", channel 1 of {code.shape[-1]}" if code.shape[-1] > 1 else ""
    limits = (float(volume.min()), float(volume.max()))
    slices(Picture(f"Input {person}", volume[..., 0], grid, unit), limits, run.out_dir / "inputImage.png")
    scored = records.z_score_volume(code[..., 0])  # as the records of a full pass are
    picture = Picture(f"Code {person}{channel}", scored, code_grid(network, grid), "code, z-score")
    slices(picture, limits, run.out_dir / "encodedImage.png")
    slices(Picture(f"Decoded volume {person}", decoded[..., 0], grid, unit), limits, run.out_dir / "decodedImage.png")


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
    return np.stack(
        [resampling.repeat_blocks(resampling.average_blocks(volume[..., 0]))[..., None] for volume in volumes]
    )


def principal_components(cohort: Cohort, network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """PCA of the training phenotypes with as many components as the code has units: phenotype (n, 29) -> (n, 29)."""
    phenotype = cohort.make_batch(cohort.split_indices("train"), with_volumes=False)["phenotype"]
    fitted = PCA(min(int(np.prod(network.output["code"].shape[1:])), *phenotype.shape)).fit(phenotype)
    return lambda values: fitted.inverse_transform(fitted.transform(values))
