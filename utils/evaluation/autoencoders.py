"""--test of an autoencoder: reconstructions of the test records -> metrics beside a baseline, and figures."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from sklearn.decomposition import PCA

from data.base import files
from data.base.tables import make_printable
from data.base.terminal import SummaryRow, print_summary
from data.cohorts.cohort import Cohort, split_into_batches
from data.images import brain, resampling
from data.images.grids import Grid
from models import losses
from utils.figures import VolumePicture, save_slices_figure
from utils.runs.inference import run_network
from utils.runs.run import Run
from utils.scores.results import METRICS_FILE, Estimate, Headline, finite_or_none


class ExplainedVariance:
    """1 - (sum of squared errors) / (sum of squares about the mean), over all values of all batches added."""

    def __init__(self) -> None:
        self.value_count = self.value_sum = self.square_sum = self.squared_error_sum = 0.0

    def add_batch(self, original: np.ndarray, approximation: np.ndarray) -> None:
        original = np.asarray(original, np.float64)
        self.value_count += original.size
        self.value_sum += original.sum()
        self.square_sum += np.square(original).sum()
        self.squared_error_sum += np.square(original - approximation).sum()

    @property
    def mse(self) -> float:
        return float(self.squared_error_sum / self.value_count)

    @property
    def explained_variance(self) -> float:
        """NaN if the original does not vary."""
        squared_deviation_sum = self.square_sum - self.value_sum**2 / self.value_count
        return float(1 - self.squared_error_sum / squared_deviation_sum) if squared_deviation_sum > 0 else float("nan")


def pool_autoencoder_tests(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """`metrics.json`: means over the folds, weighted by their test records, and over repeats; the metrics of each."""
    metrics_per_fold_run = [files.read_json(fold_run.out_dir / METRICS_FILE, dict) for fold_run in fold_runs]
    test_record_counts = np.array(
        [len(fold_run.cohort.find_split_record_indices("test")) for fold_run in fold_runs], float
    )
    metrics_by_fold_run = {
        fold_run.fold_label: fold_metrics
        for fold_run, fold_metrics in zip(fold_runs, metrics_per_fold_run, strict=True)
    }
    caveat_fields = pooled_run.caveats.active_caveat_by_field
    metric_names = [metric for metric in metrics_per_fold_run[0] if metric not in ("baseline", *caveat_fields)]
    mean_by_metric = {}
    for metric in metric_names:
        metric_values = np.array([fold_metrics[metric] for fold_metrics in metrics_per_fold_run], float)
        weighted_mean = float(test_record_counts @ metric_values / test_record_counts.sum())
        mean_by_metric[metric] = finite_or_none(weighted_mean)
    files.write_json(
        pooled_run.out_dir / METRICS_FILE,
        mean_by_metric
        | {"baseline": metrics_per_fold_run[0]["baseline"], "folds": metrics_by_fold_run}
        | caveat_fields,
    )
    summary_rows = make_autoencoder_summary_rows(mean_by_metric, metrics_per_fold_run[0]["baseline"])
    print_summary(summary_rows)
    headline = Headline("explained_variance", Estimate.from_numbers(mean_by_metric["explained_variance"]))
    pooled_run.finish_run(headline, summary_rows)


def evaluate_autoencoder(run: Run, network: keras.Model) -> None:
    """`metrics.json`, and for volumes three figures of the first test record."""
    input_name = run.predictor.input_names[0]
    network_variance = ExplainedVariance()
    baseline_variance = ExplainedVariance()
    approximate_by_baseline = (
        approximate_by_block_means if input_name == "volume" else fit_phenotype_components(run.cohort, network)
    )
    mean_code_activations: list[float] = []  # one a test record
    first_record_arrays: list[np.ndarray] = []  # input, code and reconstruction
    index_batches = split_into_batches(run.cohort.find_split_record_indices("test"), run.config.batch_size)
    for _, batch, outputs in run_network(run.trained_network, run.cohort, network, index_batches, "Testing"):
        network_variance.add_batch(batch[input_name], outputs["reconstruction"])
        baseline_variance.add_batch(batch[input_name], approximate_by_baseline(batch[input_name]))
        mean_code_activations += [float(losses.compute_mean_activation(code)) for code in outputs["code"]]
        first_record_arrays = first_record_arrays or [
            batch[input_name][0],
            outputs["code"][0],
            outputs["reconstruction"][0],
        ]
    baseline_name = (
        "3x3x3 block means" if input_name == "volume" else "principal components, as many as the code's units"
    )
    value_by_metric = {
        "mse": finite_or_none(network_variance.mse),
        "explained_variance": finite_or_none(network_variance.explained_variance),
        "code_mean_activation": finite_or_none(float(np.mean(mean_code_activations))),
        "explained_variance_baseline": finite_or_none(baseline_variance.explained_variance),
    }
    files.write_json(
        run.out_dir / METRICS_FILE, value_by_metric | {"baseline": baseline_name} | run.caveats.active_caveat_by_field
    )
    if input_name == "volume":
        draw_first_test_volumes(run, network, *(volume.astype(np.float32) for volume in first_record_arrays))
    summary_rows = make_autoencoder_summary_rows(value_by_metric, baseline_name)
    print_summary(summary_rows)
    headline = Headline("explained_variance", Estimate.from_numbers(value_by_metric["explained_variance"]))
    run.finish_run(headline, summary_rows)


def make_autoencoder_summary_rows(value_by_metric: dict[str, float | None], baseline_name: str) -> list[SummaryRow]:
    """What the terminal shows: metrics, and what the baseline is."""
    text_by_metric = {
        metric: "undefined" if metric_value is None else f"{metric_value:.4f}"
        for metric, metric_value in value_by_metric.items()
    }
    network_text = "explained variance {explained_variance}, no interval; mse {mse}".format(**text_by_metric)
    baseline_text = f"{baseline_name}: explained variance {text_by_metric['explained_variance_baseline']}"
    return [("autoencoder", network_text), ("baseline", baseline_text)]


def draw_first_test_volumes(
    run: Run, network: keras.Model, volume: np.ndarray, code_volume: np.ndarray, decoded_volume: np.ndarray
) -> None:
    """Figures of the first map of the first test record: volumes (x, y, z, channels) in the grey scale of the input."""
    first_test_row = run.cohort.rows[run.cohort.find_split_record_indices("test")[0]]
    grid = run.cohort.grid
    participant_text = f"of participant {make_printable(first_test_row.subject)}{run.caveat_marks}"
    value_unit = f"{(*run.cohort.metadata.maps, 'volume')[0]}, z-score"
    channel_text = f", channel 1 of {code_volume.shape[-1]}" if code_volume.shape[-1] > 1 else ""
    grey_limits = (float(volume.min()), float(volume.max()))
    save_slices_figure(
        VolumePicture(f"Input {participant_text}", volume[..., 0], grid, value_unit),
        grey_limits,
        run.out_dir / "inputImage.png",
    )
    normalised_code = brain.z_score_volume(code_volume[..., 0])  # as the records of a full pass are
    code_picture = VolumePicture(
        f"Code {participant_text}{channel_text}", normalised_code, make_code_grid(network, grid), "code, z-score"
    )
    save_slices_figure(code_picture, grey_limits, run.out_dir / "encodedImage.png")
    save_slices_figure(
        VolumePicture(f"Decoded volume {participant_text}", decoded_volume[..., 0], grid, value_unit),
        grey_limits,
        run.out_dir / "decodedImage.png",
    )


def make_code_grid(network: keras.Model, grid: Grid) -> Grid:
    """Where the code's voxels lie: each at the centre of what its convolutions and poolings see, padding included."""
    spacing_mm = grid.spacing_mm
    origin_mm = np.array(grid.origin_mm)
    for layer in keras.Model(network.input, network.output["code"]).layers:
        if not hasattr(layer, "strides"):
            continue
        window_voxels = np.array(getattr(layer, "kernel_size", None) or layer.pool_size)
        stride = layer.strides[0]
        input_shape, output_shape = (np.array(tensor.shape[1:4]) for tensor in (layer.input, layer.output))
        padding_voxels = (
            np.maximum((output_shape - 1) * stride + window_voxels - input_shape, 0) // 2
            if layer.padding == "same"
            else 0
        )
        origin_mm = origin_mm + spacing_mm * ((window_voxels - 1) / 2 - padding_voxels)
        spacing_mm *= stride
    return Grid("code", network.output["code"].shape[1:4], spacing_mm, tuple(origin_mm.tolist()))


def approximate_by_block_means(volumes: np.ndarray) -> np.ndarray:
    """Each 3x3x3 block of (n, 91, 109, 91, 1) averaged and repeated."""
    return np.stack(
        [resampling.repeat_blocks(resampling.average_blocks(volume[..., 0]))[..., None] for volume in volumes]
    )


def fit_phenotype_components(cohort: Cohort, network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """PCA of the training phenotypes with as many components as the code has units: phenotype (n, 29) -> (n, 29)."""
    training_phenotypes = cohort.make_batch(cohort.find_split_record_indices("train"), with_volumes=False)["phenotype"]
    fitted_pca = PCA(min(int(np.prod(network.output["code"].shape[1:])), *training_phenotypes.shape)).fit(
        training_phenotypes
    )
    return lambda phenotypes: fitted_pca.inverse_transform(fitted_pca.transform(phenotypes))
