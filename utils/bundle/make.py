"""Trained networks, their cohort and their score -> the parts of a bundle, the model card among them."""

import json
import re
import shlex
import time
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from data import __version__
from data.base import archive, files
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.tables import printable
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import known_covariates
from data.cohorts.derivation import PROGRAM
from data.cohorts.phenotype import Scaler
from data.cohorts.records import CLASSES, TELLING
from data.cohorts.rows import SITE_IS_UNKNOWN
from data.cohorts.variants import everybody, within_sites
from data.conversion import template
from data.likeness.reference import quantiles, reference
from utils.bundle.model import (
    CARD,
    EVERYBODY,
    FLOORS,
    FLOORS_EDGES,
    FOLDS,
    LIKENESS,
    LIKENESS_EDGES,
    LIKENESS_VOLUME,
    MODEL,
    REPORT,
    SPLIT,
    WEIGHTS,
    BundledModel,
    Member,
    aal_sha256,
    flat,
    who_trained,
)
from utils.bundle.trained import Trained, network_of
from utils.machines.devices import git_commit, package_versions
from utils.report.build import INTENDED_USE
from utils.runs import record
from utils.runs.cross_validation import FEWEST as FEWEST_TOLD
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Caveats, Choices, Record, mean_of_shares
from utils.scores import floors
from utils.scores.features import covariates
from utils.scores.results import Estimate, counted

SHORTEST = 4  # characters of an ID that is told from other words and numbers in texts
ID, PIECE = "ID", r"[^\W_]+"  # in place of one; of a name
TOLD = ("caveats", "internal", "licence")  # what has free text in `model.json`
PARSED = (MODEL, template.DATA)
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  Markdown, of plain text
    finalize=lambda value: printable(value) if type(value) is str else value,
)
MIDDLE = (0.05, 0.95)  # the quantiles between which most people lie, none of them one person's value


@dataclass(frozen=True)
class Told:
    """What goes with networks: a test on folds of the same people, and the licence of the weights."""

    internal: CrossValidation | None = None
    licence: str = ""


def parts_of(trained: Sequence[Trained], cohort: Cohort, told: Told) -> dict[str, bytes]:
    """The parts of a bundle by name. TensorFlow must have been started."""
    subjects = {row.subject for row in cohort.rows}
    weights = [network_of(one, cohort).get_weights() for one in trained]
    members = [member_of(one, of_one, cohort) for one, of_one in zip(trained, weights, strict=True)]
    model = model_of(trained, cohort, tuple(members), told)
    texts = {
        MODEL: model_json(model, subjects),
        template.DATA: json_of(template.of_cohort(cohort)),
        CARD: card_text(model, cohort),
    }
    if told.internal and (report := report_of(told.internal)):
        texts[REPORT] = report
    parts = {name: (text if name in PARSED else withheld(text, subjects)).encode() for name, text in texts.items()}
    parts |= {WEIGHTS.format(number): archive.npy(flat(of_one)) for number, of_one in enumerate(weights)}
    if cohort.connectomes and cohort.connectomes.image is not None:
        parts[template.PARCELS] = archive.npy(cohort.connectomes.image.astype("<i2"))
    used = np.array(who_trained(model.trained_on, cohort))
    return parts | template.derivation_parts(cohort) | likeness_parts(cohort, used) | floors_parts(model, cohort)


def floors_parts(model: BundledModel, cohort: Cohort) -> dict[str, bytes]:
    """Linear floors of the people who trained the networks."""
    trained = everybody(cohort) if model.trained_on == FOLDS else cohort
    standard = model.config.get("standardise", "stored")
    trained = within_sites(trained) if standard == "site" else replace(trained, standard=standard)
    found = floors.fit_linear(trained)
    parts = {FLOORS: json.dumps(asdict(found.constants), separators=(",", ":")).encode()}  # thousands of weights
    return parts | ({} if found.edges is None else {FLOORS_EDGES: archive.npy(found.edges.astype("<f8"))})


def likeness_parts(cohort: Cohort, used: np.ndarray) -> dict[str, bytes]:
    """What the training people, whose records are at these positions, were like; nothing if they are too few."""
    if len({cohort.rows[at].subject for at in used}) < EFFORT.describe_from:
        print(f"Fewer than {EFFORT.describe_from} people trained it, so nobody can be told to be unlike them.")
        return {}
    found = reference(cohort, used)
    parts = {LIKENESS: json_of(found.constants).encode(), LIKENESS_VOLUME: archive.npy(found.volume.astype("<f4"))}
    return parts | ({} if found.edges is None else {LIKENESS_EDGES: archive.npy(found.edges.astype("<f4"))})


def content_of(path: Path) -> list[str]:
    """The size of a bundle, and of each of its parts."""
    with zipfile.ZipFile(path) as found:
        infos = found.infolist()
    rows = [f"  {info.file_size:>12,}  {info.compress_size:>12,}  {info.filename}" for info in infos]
    return [f"{path}: {path.stat().st_size:,} bytes; its parts, in bytes and compressed:", *rows]


def member_of(one: Trained, weights: Sequence[np.ndarray], cohort: Cohort) -> Member:
    """The description of a network, which reads records that are imputed and scaled as those of `cohort`."""
    own = Scaler.of(one.saved.preparation) if one.saved.preparation else None
    stored = Scaler.of(cohort.metadata)
    scale, shift = affine(stored, own) if own and stored else ((), ())
    shapes = tuple(tuple(values.shape) for values in weights)
    return Member(name=one.name, step=one.saved.step, shapes=shapes, phenotype_scale=scale, phenotype_shift=shift)


def affine(stored: Scaler, own: Scaler) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scale and the shift (29,) that make z-scores by `own` of those by `stored`; nothing if these are the same.
    Imputed values stay those of `stored`, and a value that is constant in either is 0."""
    if all(np.array_equal(getattr(own, name), getattr(stored, name)) for name in ("mean", "scale")):
        return (), ()
    known = (own.scale > 0) & (stored.scale > 0)
    divisor = np.where(known, own.scale, 1)
    scale, shift = stored.scale / divisor, (stored.mean - own.mean) / divisor
    return tuple(np.where(known, scale, 0).tolist()), tuple(np.where(known, shift, 0).tolist())


def model_of(trained: Sequence[Trained], cohort: Cohort, members: tuple[Member, ...], told: Told) -> BundledModel:
    saved, internal = trained[0].saved, told.internal
    trained_on = FOLDS if len(trained) > 1 else EVERYBODY if saved.everybody else SPLIT
    rows = [cohort.rows[at] for at in who_trained(trained_on, cohort)]
    label = Counter({row.subject: row.label for row in rows}.values())
    return BundledModel(
        **{field.name: getattr(saved.settings, field.name) for field in fields(Choices)},
        format=files.FORMAT,
        program=f"{PROGRAM} {__version__}",
        git_commit=git_commit(),
        packages=package_versions(),
        made=time.strftime("%Y-%m-%d"),
        trained_on=trained_on,
        people={name: label[value] for value, name in enumerate(CLASSES)},
        members=members,
        caveats=caveats_of(saved, cohort),
        internal=replace(internal, folder=Path(internal.folder).name) if internal else None,
        licence=told.licence,
        aal_sha256=aal_sha256(cohort.grid),
        scans_sha256=cohort.scans_sha256(),
        shares=mean_of_shares([one.saved.shares for one in trained]),
    )


def caveats_of(saved: Record, cohort: Cohort) -> Caveats:
    """What must stand beside every result of the networks."""
    return Caveats(
        simulated=cohort.simulated,
        problems=tuple(cohort.problems()),
        accepted_leaks=cohort.metadata.accepted_leaks,
        transductive=saved.caveats.transductive,
        unknown_site=cohort.unknown_site,
    )


def report_of(internal: CrossValidation) -> str | None:
    """The report of the test on folds, as far as it is still there; if it is not, this is printed. Raises InputError
    for one that is not as the program wrote it."""
    folder = Path(internal.folder)
    path, found = folder / REPORT, record.read(folder)
    if not path.is_file():
        print(f"{path} is gone, so the bundle has the scores of the test, and not its report.")
        return None
    if found and found.outputs.get(REPORT) not in (None, record.mark(path)):
        raise InputError(f"{path} is not as it was written; build it again: abide-report {shlex.quote(str(folder))}")
    return path.read_text(encoding="utf-8")


def json_of(content: object) -> str:
    """A dataclass as JSON."""
    return files.json_text(asdict(content))  # type: ignore[call-overload]


def model_json(model: BundledModel, subjects: Collection[str]) -> str:
    """`model.json` without IDs in what is told of the training; the rest is what the program itself says."""
    content = asdict(model)
    return files.json_text(content | {name: texts_without(content[name], subjects) for name in TOLD})


def texts_without(content: Any, subjects: Collection[str]) -> Any:
    """Dictionaries and lists of any depth with `withheld` texts."""
    if isinstance(content, dict):
        return {name: texts_without(one, subjects) for name, one in content.items()}
    if isinstance(content, list | tuple):
        return [texts_without(one, subjects) for one in content]
    return withheld(content, subjects) if isinstance(content, str) else content


def withheld(text: str, subjects: Collection[str]) -> str:
    """The text with `ID` in place of each subject's. That may stand by itself or in a name, such as `sub-50003`, but is
    no part of a number."""
    known = {name for subject in subjects for name in (subject, subject.lstrip("0")) if len(name) >= SHORTEST}

    def of(word: re.Match) -> str:
        if word[0] in known or word[0].lstrip("0") in known:
            return ID
        return re.sub(PIECE, of, word[0]) if re.search(r"[\W_]", word[0]) else word[0]

    return re.sub(r"(?<![\w.])[\w-]+(?![\w]|\.\d)", of, text)


def card_text(model: BundledModel, cohort: Cohort) -> str:
    """The model card as Markdown: what it is for, of whom, how good (Mitchell et al. 2019,
    doi:10.1145/3287560.3287596)."""
    rows = [cohort.rows[at] for at in who_trained(model.trained_on, cohort)]
    return TEMPLATES.get_template("card.jinja").render(
        model=model,
        cohort=cohort,
        SITE_IS_UNKNOWN=SITE_IS_UNKNOWN,
        use=INTENDED_USE,
        sites=sites_table(rows),
        variables=variables_table(cohort, rows),
        Estimate=Estimate,
        fewest=FEWEST_TOLD,
    )


def sites_table(rows: list) -> list[dict[str, str]]:
    """People by site and class; sites of fewer than `TELLING` people are counted together."""
    table = pd.DataFrame([{"subject": row.subject, "site": row.site, "label": row.label} for row in rows])
    table = table.drop_duplicates("subject")
    small = table.groupby("site")["site"].transform("size") < TELLING
    table["site"] = table["site"].where(~small, f"sites of fewer than {TELLING}: {table['site'][small].nunique()}")
    of_site = pd.crosstab(table["site"], table["label"])
    return [
        {"site": site or "unknown"} | {name: counted(counts.get(value, 0)) for value, name in enumerate(CLASSES)}
        for site, counts in of_site.iterrows()
    ]


def variables_table(cohort: Cohort, rows: list) -> list[dict]:
    """Age, sex, head motion and other covariates of the people: mean, SD and where most of them lie, or shares of
    categories. Of what fewer than `TELLING` people have nothing is told."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    site_of = {row.subject: row.site for row in rows}
    table = covariates(subjects, [site_of[subject] for subject in subjects], known_covariates(cohort))
    found = []
    for name, values in table.drop(columns="site", errors="ignore").items():
        known = values.dropna()
        if pd.api.types.is_numeric_dtype(values) and known.nunique() > 2:
            low, high = quantiles(known.to_numpy(float), MIDDLE).tolist()
            told = f"mean {known.mean():.3g}, SD {known.std():.3g}, 90 % between {low:.3g} and {high:.3g}"
        else:
            shares = known.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value)).value_counts()
            told = ", ".join(f"{value} {count}" for value, count in shares.items() if count >= TELLING)
        if len(known) >= TELLING and told:
            found.append({"name": str(name), "told": told, "unknown": counted(values.isna().sum())})
    return found
