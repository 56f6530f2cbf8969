"""Trained networks -> one ONNX file that predicts records as they are stored, without TensorFlow or this program.

All that this program does between a record and a network is inside the file. It z-scores volumes within the brain,
averages regions and cubes, standardises values, and reads edges by their ridge regression.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.cohort import Standard

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

NEEDS = ("onnx", "onnxruntime", "tf2onnx")
OPSET = 15  # of ONNX: what tf2onnx prefers, since most runtimes know it
LARGEST_DIFFERENCE = 1e-5  # of a probability, between ONNX and TensorFlow
FLOAT_BYTES = 4
MAX_BYTES = 2**31  # of an ONNX file, which is one Protocol Buffers message
PURPOSE = (
    "Probability of autism of brain maps as records hold them. For research on groups of people, not for diagnosis."
)
PROVIDERS = ["CPUExecutionProvider"]
SPACE = (1, 2, 3)  # the axes of voxels in a batch of volumes


@dataclass(frozen=True, eq=False)
class Network:
    """A network of an ensemble. `standard` says how its volumes are standardised; it reads the phenotype (29,) of a
    record times `phenotype_scale` plus `phenotype_shift`, since that of its training may have been scaled otherwise."""

    network: "keras.Model"
    standard: Standard = "stored"
    phenotype_scale: np.ndarray | float = 1.0
    phenotype_shift: np.ndarray | float = 0.0

    def inputs(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the network reads of records as they are stored, of NumPy or TensorFlow. Those with a `volume` have it
        `within_brain`, too."""
        inputs = {name: record[name] for name in self.network.input}
        if "volume" in inputs and self.standard != "stored":
            inputs["volume"] = record["within_brain"]
        if "phenotype" in inputs:
            inputs["phenotype"] = record["phenotype"] * np.float32(self.phenotype_scale)
            inputs["phenotype"] += np.float32(self.phenotype_shift)
        return inputs


def check_possible(standard: Standard) -> None:
    """Raises InputError if the libraries are not installed, or if volumes are z-scored by people who are not there. It
    imports none of the libraries."""
    if absent := [name for name in NEEDS if find_spec(name) is None]:
        raise InputError(
            f"ONNX needs {' and '.join(absent)}, not installed here. In the folder of this program: "
            ".venv/bin/python -m pip install --editable '.[onnx]'"
        )
    if standard == "site":
        raise InputError(
            "ONNX reads one person, and standardise=site z-scores volumes over the people of a site; "
            "train with run.py --set standardise=brain."
        )


def export(members: Sequence[Network], path: Path, batches: Iterable[dict]) -> float:
    """Writes the ONNX model of a network, or of an ensemble; returns the largest difference from TensorFlow, see
    `parity`. Raises InputError, and writes nothing, as `check_possible` does or if they differ.

    Inputs, float32, each if a network reads it: `volume` (n, x, y, z, maps) as a record holds it, on the reduced grid;
    `phenotype` (n, 29), scaled as in a record; `connectome` (n, edges), Fisher z, NaN where unknown. Outputs, float32:
    `probability` (n,) of autism, the mean over the networks; `logits` (n, networks, 2) of (control, autism).
    """
    for member in members:
        check_possible(member.standard)
    check_networks([member.network for member in members])
    with files.unfinished(path) as unfinished:
        write(converted(members), unfinished)
        difference = parity(unfinished, members, batches)
        if not difference <= LARGEST_DIFFERENCE:
            raise InputError(
                f"{path} was not written: ONNX and TensorFlow differ by {difference:.1g} in a probability; expected at "
                f"most {LARGEST_DIFFERENCE:g}. Install the versions of pyproject.toml, or train another preset."
            )
    return difference


def check_networks(networks: Sequence["keras.Model"]) -> None:
    """Raises InputError for networks that one ONNX file cannot hold."""
    if odd := {layer.compute_dtype for network in networks for layer in network.layers} - {"float32"}:
        raise InputError(
            f"A network computes in {odd.pop()}; expected float32 for ONNX. Train with run.py --precision float32."
        )
    size = FLOAT_BYTES * sum(network.count_params() for network in networks)
    if size >= MAX_BYTES:
        raise InputError(
            f"{len(networks)} networks hold {size / 1e9:.1f} GB; ONNX takes {MAX_BYTES / 1e9:.1f}. Bundle fewer."
        )


def converted(members: Sequence[Network]) -> bytes:
    """The ONNX model as tf2onnx makes it."""
    import tensorflow as tf
    import tf2onnx

    inputs = {name: tensor for member in members for name, tensor in member.network.input.items()}
    signature = {name: tf.TensorSpec(tensor.shape, tf.float32, name) for name, tensor in inputs.items()}
    predict = tf.function(lambda record: predicted(members, record), input_signature=[signature])
    model, _ = tf2onnx.convert.from_function(predict, [signature], opset=OPSET)
    return model.SerializeToString()


def write(model: bytes, path: Path) -> None:
    """Writes an ONNX model, with what does not depend on a record computed once, which halves its size, in operations
    of the ONNX standard alone. Raises InputError if the disk is full, which onnxruntime calls an invalid model."""
    import onnx
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    try:
        onnxruntime.InferenceSession(model, options, providers=PROVIDERS)
    except InvalidProtobuf as error:
        raise InputError(
            f"{path.parent} takes no ONNX model of {len(model):,} bytes; is the disk full? Free space, or name another "
            "folder in the variable TMPDIR, and repeat the command."
        ) from error
    simpler = onnx.load(path)
    del simpler.opset_import[:]
    simpler.opset_import.add(version=OPSET)  # onnxruntime lists its own sets, of which nothing is used
    for value in (*simpler.graph.input, *simpler.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    simpler.doc_string, simpler.graph.doc_string = PURPOSE, ""
    onnx.checker.check_model(simpler, full_check=True)
    path.write_bytes(simpler.SerializeToString())


def predicted(members: Sequence[Network], record: dict[str, "tf.Tensor"]) -> dict[str, "tf.Tensor"]:
    """What ONNX computes of records, see `export`."""
    import tensorflow as tf

    if "volume" in record:
        record = record | {"within_brain": within_brain(record["volume"])}
    logits = tf.stack([member.network(member.inputs(record), training=False) for member in members], axis=1)
    probability = tf.reduce_mean(tf.sigmoid(logits[..., 1] - logits[..., 0]), axis=1)
    return {"probability": probability, "logits": logits}


def within_brain(volume: "tf.Tensor") -> "tf.Tensor":
    """`records.within_brain` of a batch (n, x, y, z, maps)."""
    import tensorflow as tf

    def total(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(values, tf.float64), SPACE, keepdims=True)

    span = tf.reduce_max(volume, SPACE, keepdims=True) - tf.reduce_min(volume, SPACE, keepdims=True)
    brain = tf.abs(volume - background(volume)) > 1e-4 * span
    brain = brain | (total(brain) == 0)
    voxels = total(brain)
    mean = tf.cast(total(tf.where(brain, volume, 0)) / voxels, tf.float32)
    centred = tf.where(brain, volume - mean, 0)
    spread = tf.sqrt(total(tf.square(centred)) / voxels)
    return centred / tf.cast(tf.where(spread > records.SMALLEST_SPREAD, spread, 1), tf.float32)


def background(volume: "tf.Tensor") -> "tf.Tensor":
    """`records.background` of a batch (n, x, y, z, maps) -> (n, 1, 1, 1, maps): the median over the outer faces. They
    have an even number of voxels."""
    import tensorflow as tf

    faces = [tf.gather(volume, index, axis=axis) for axis in SPACE for index in (0, volume.shape[axis] - 1)]
    values = tf.concat([tf.reshape(face, (-1, np.prod(face.shape[1:3]), face.shape[3])) for face in faces], axis=1)
    greater_half = tf.math.top_k(tf.transpose(values, (0, 2, 1)), values.shape[1] // 2 + 1).values
    return tf.reduce_mean(greater_half[..., -2:], axis=-1)[:, None, None, None]


def parity(path: Path, members: Sequence[Network], batches: Iterable[dict]) -> float:
    """The largest difference of a probability between an ONNX file in onnxruntime and this program. Batches of records
    (`Cohort.batches`, at least one) have their volumes as stored."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=PROVIDERS)
    names, differences = [one.name for one in session.get_inputs()], []
    for batch in batches:
        (found,) = session.run(["probability"], {name: batch[name] for name in names})
        differences.append(np.abs(found - by_program(members, batch)).max())
    return float(np.max(differences))


def by_program(members: Sequence[Network], batch: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities of autism (n,) float64, as `--test` computes them of a batch whose volumes are as stored."""
    from utils.training.network import probability_of_autism

    if "volume" in batch:
        batch = batch | {"within_brain": np.stack([records.within_brain(volume) for volume in batch["volume"]])}
    logits = [member.network(member.inputs(batch), training=False) for member in members]
    return np.mean([probability_of_autism(of_member) for of_member in logits], axis=0)
