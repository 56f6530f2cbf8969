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

SUMS_FILE = "SHA256SUMS"
People = dict[str, np.ndarray]  # what networks read of them, by name, and their labels


def read_bundle_files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rebuild_bundle(path: Path, target: Path, changes: Mapping[str, bytes | None]) -> Path:
    """The bundle with other parts, those that are None left out, and sums that fit, as a new file."""
    bytes_by_name = {
        name: file_bytes
        for name, file_bytes in {**read_bundle_files(path), **changes}.items()
        if name != SUMS_FILE and file_bytes is not None
    }
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(bytes_by_name.items())
    )
    target.unlink(missing_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (bytes_by_name | {SUMS_FILE: sums.encode()}).items():
            archive.writestr(name, content)
    return target


def read_people(cohort: Path, maps: int = 2) -> People:
    """In the order of the cohort's table. Volumes (n, x, y, z, maps) are z-scored over the brain, as networks that
    have `standardise=brain` read them."""
    table = lab.read_table(cohort / "subjects.csv")
    records = [lab.read_record(cohort / name, maps) for name in table["file"]]
    label, phenotype, volumes = map(np.stack, zip(*records, strict=True))
    arrays_by_name = {"subject": table["subject"].to_numpy(), "site": table["site"].to_numpy(), "label": label}
    with h5py.File(cohort / "connectomes.h5") as store:
        edges = pd.DataFrame(store["z"][()], store["subject"].asstr()[()]).loc[arrays_by_name["subject"]]
    volumes = np.moveaxis(volumes.astype(float), 1, -1)
    background, value_range = volumes[:, :1, :1, :1], np.ptp(volumes, axis=(1, 2, 3), keepdims=True)
    brain = np.where(np.abs(volumes - background) > 1e-4 * value_range, volumes, np.nan)
    mean, spread = (statistic(brain, axis=(1, 2, 3), keepdims=True) for statistic in (np.nanmean, np.nanstd))
    volumes = np.nan_to_num((brain - mean) / spread)
    return arrays_by_name | {"phenotype": phenotype, "volume": volumes.astype("f4"), "connectome": edges.to_numpy("f4")}


def load_npz(npz_bytes: bytes) -> dict[str, np.ndarray]:
    """The arrays of a part whose name ends in .npz, in their order."""
    return dict(np.load(io.BytesIO(npz_bytes), allow_pickle=False))


def build_bundled_network(path: Path) -> Callable[[People], np.ndarray]:
    """Of a bundled mmnn the log odds of autism of people."""
    bytes_by_name = read_bundle_files(path)
    settings, edges = (
        json.loads(bytes_by_name["model.json"])["settings"],
        load_npz(bytes_by_name["likeness.npz"])["edges"].size,
    )
    model = MODELS[settings["model"]]
    network = model.module.build(model.parse_settings(settings["config"]), model.required_grid, maps=2, edges=edges)
    network.set_weights([*load_npz(bytes_by_name["weights.npz"]).values()])

    def compute_log_odds(people: People) -> np.ndarray:
        logits = network({name: people[name] for name in network.input}, training=False).numpy().astype(float)
        return logits[:, 1] - logits[:, 0]

    return compute_log_odds
