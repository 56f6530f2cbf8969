"""A bundle as its format says, read without the program: its parts, its networks, and what these are shown of people.

What the program says of a network's predictions or effects is compared with whole passes of these networks.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import lab
import numpy as np
import pandas as pd

from models import MODELS

SUMS = "SHA256SUMS"
People = dict[str, np.ndarray]  # what networks read of them, by name, and their labels


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def rebuilt(path: Path, to: Path, changes: Mapping[str, bytes]) -> Path:
    """The bundle with other parts, and sums that fit, as a new file."""
    parts = {name: content for name, content in (parts_of(path) | changes).items() if name != SUMS}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(parts.items()))
    to.unlink(missing_ok=True)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as found:
        for name, content in (parts | {SUMS: sums.encode()}).items():
            found.writestr(name, content)
    return to


def people_of(cohort: Path, maps: int = 2) -> People:
    """In the order of the cohort's table. Volumes (n, x, y, z, maps) are z-scored over the brain, as networks that
    have `standardise=brain` read them."""
    table = lab.read_table(cohort / "subjects.csv")
    records = [lab.read_record(cohort / name, maps) for name in table["file"]]
    label, phenotype, volumes = map(np.stack, zip(*records, strict=True))
    found = {"subject": table["subject"].to_numpy(), "site": table["site"].to_numpy(), "label": label}
    with h5py.File(cohort / "connectomes.h5") as store:
        edges = pd.DataFrame(store["z"][()], store["subject"].asstr()[()]).loc[found["subject"]]
    volumes = np.moveaxis(volumes.astype(float), 1, -1)
    background, extent = volumes[:, :1, :1, :1], np.ptp(volumes, axis=(1, 2, 3), keepdims=True)
    brain = np.where(np.abs(volumes - background) > 1e-4 * extent, volumes, np.nan)
    mean, spread = (of(brain, axis=(1, 2, 3), keepdims=True) for of in (np.nanmean, np.nanstd))
    volumes = np.nan_to_num((brain - mean) / spread)
    return found | {"phenotype": phenotype, "volume": volumes.astype("f4"), "connectome": edges.to_numpy("f4")}


def networks_of(path: Path) -> list[Callable[[People], np.ndarray]]:
    """Of each network of a mmnn the log odds of autism of people."""
    parts = parts_of(path)
    model, found = json.loads(parts["model.json"]), []
    kind, edges = MODELS[model["model"]], np.load(io.BytesIO(parts["likeness_edges.npy"])).size
    for number, member in enumerate(model["members"]):
        network = kind.module.build(kind.settings(model["config"]), kind.grid, maps=2, edges=edges)
        ends = np.cumsum([int(np.prod(shape)) for shape in member["shapes"]])
        weights = np.split(np.load(io.BytesIO(parts[f"weights/{number}.npy"])), ends[:-1])
        network.set_weights([of.reshape(shape) for of, shape in zip(weights, member["shapes"], strict=True)])
        found.append(log_odds(network, *(np.float32(member[f"phenotype_{name}"]) for name in ("scale", "shift"))))
    return found


def log_odds(network, scale: np.ndarray, shift: np.ndarray) -> Callable[[People], np.ndarray]:
    """The function of a network that reads the phenotype times `scale` plus `shift`, as it is if these are empty."""

    def function(people: People) -> np.ndarray:
        own = people["phenotype"] * scale + shift if len(scale) else people["phenotype"]
        inputs = {name: people[name] for name in ("volume", "connectome")} | {"phenotype": own.astype("f4")}
        logits = network(inputs, training=False).numpy().astype(float)
        return logits[:, 1] - logits[:, 0]

    return function
