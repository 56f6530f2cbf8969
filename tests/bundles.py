"""A bundle as its format says, read without the program: its parts, its network, and what this is shown of people.

What the program says of a network's predictions or effects is compared with whole passes of this network.
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


def rebuilt(path: Path, to: Path, changes: Mapping[str, bytes | None]) -> Path:
    """The bundle with other parts, those that are None left out, and sums that fit, as a new file."""
    parts = {name: part for name, part in (parts_of(path) | changes).items() if name != SUMS and part is not None}
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


def arrays_of(part: bytes) -> dict[str, np.ndarray]:
    """The arrays of a part whose name ends in .npz, in their order."""
    return dict(np.load(io.BytesIO(part), allow_pickle=False))


def network_of(path: Path) -> Callable[[People], np.ndarray]:
    """Of a bundled mmnn the log odds of autism of people."""
    parts = parts_of(path)
    settings, edges = json.loads(parts["model.json"])["settings"], arrays_of(parts["likeness.npz"])["edges"].size
    kind = MODELS[settings["model"]]
    network = kind.module.build(kind.parse_settings(settings["config"]), kind.required_grid, maps=2, edges=edges)
    network.set_weights([*arrays_of(parts["weights.npz"]).values()])

    def function(people: People) -> np.ndarray:
        logits = network({name: people[name] for name in network.input}, training=False).numpy().astype(float)
        return logits[:, 1] - logits[:, 0]

    return function
