"""A checkpoint of everybody, its cohort and its score -> the parts of a bundle, the model card among them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from data import __version__
from data.base import files
from data.base.archive import make_npz
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.tables import make_printable
from data.cohorts.atlas import compute_aal_sha256
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import load_all_covariates
from data.cohorts.derivation import DERIVE_PROGRAM
from data.cohorts.records import CLASS_NAMES, MIN_DESCRIBED_PEOPLE
from data.cohorts.rows import SITE_UNKNOWN_SENTENCE, RecordRow, join_names
from data.conversion import template
from data.likeness.reference import compute_quantiles, make_reference
from models import MODELS
from utils.bundle.model import AAL, CARD, MODEL, PEOPLE, WEIGHTS
from utils.report.build import INTENDED_USE
from utils.report.cross_validation import read_cross_validation
from utils.runs import guards
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.cross_validation import MIN_PEOPLE_PER_GROUP, CrossValidation
from utils.runs.record import Caveats, Manifest, TrainingPeople
from utils.scores.features import covariates
from utils.scores.results import counted

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  Markdown, of plain text
    finalize=lambda value: make_printable(value) if type(value) is str else value,
)
MIDDLE = (0.05, 0.95)  # the quantiles between which most people lie, none of them one person's value


def of_everybody(folder: CheckpointFolder) -> tuple[Manifest, Cohort]:
    """The record of a checkpoint, and the cohort that trained it. Raises InputError unless it is a classifier of
    everybody that new people can be prepared for, and its cohort is there as it was."""
    if not folder.exists or not folder.manifest().everybody:
        raise InputError(
            f"{folder.path} is no checkpoint of everybody; expected such as CKPT/mmnn/everybody. Make one: run.py "
            "--train --everybody."
        )
    folder.print_if_training()
    saved = folder.manifest()
    if MODELS[saved.model].predicted != "label":
        raise InputError(f"{folder.path} is of {saved.model}, which predicts no label; bundle a classifier.")
    if (cohort := folder.find_training_cohort()) is None:
        raise InputError(
            f"{saved.cohort}, on which {folder.path} was trained, is gone or was changed; a bundle takes from it how "
            "participants were prepared and what they were like. Copy it back."
        )
    metadata = cohort.metadata
    if not (metadata.maps and metadata.phenotype_median) or metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{cohort.path} does not say how its participants were prepared from maps, or holds volumes of an "
            "encoder; train on a cohort of abide-data convert."
        )
    if few := known_of_few(cohort):
        print(
            f"Few participants have {join_names(few)}, so that the name, the median and the scale, which a bundle "
            "holds, nearly tell their values; to keep these, train on a cohort without: convert --phenotype."
        )
    return saved, cohort


def known_of_few(cohort: Cohort) -> list[str]:
    """The values of the phenotype that too few people have to be described, and categories of fewer than TELLING."""
    raw = cohort.raw_phenotype
    if raw is None:
        return []
    categories = cohort.metadata.phenotype_categories.items()
    coded = raw[[f"{column}_{value}" for column, values in categories for value in values]].sum()
    known = raw.drop(columns=coded.index).notna().sum()
    return [
        *known.index[known.between(1, EFFORT.describe_from - 1)],
        *coded.index[coded.between(1, MIN_DESCRIBED_PEOPLE - 1)],
    ]


def cross_validation_of(saved: Manifest, folder: Path | None) -> CrossValidation | None:
    """The test on folds that goes with a checkpoint: that in a folder, or its own. Raises InputError for another's."""
    found = read_cross_validation(folder, saved.model) if folder else saved.cross_validation
    if found:
        assert saved.settings
        guards.check_cross_validation(found, saved.cohort, saved.cohort_sha256, saved.settings, saved.step)
    return found


def parts_of(folder: CheckpointFolder, saved: Manifest, cohort: Cohort, licence: str) -> dict[str, bytes]:
    """The parts of a bundle by name. TensorFlow must have been started. Raises InputError for damaged weights."""
    bundled = without_people(saved, cohort)
    texts = {MODEL: files.format_json(asdict(bundled)), CARD: card_text(bundled, cohort, licence)}
    parts = {name: text.encode() for name, text in texts.items()}
    return parts | weights_parts(folder, saved, cohort) | template.make_template_files(cohort) | likeness_parts(cohort)


def without_people(saved: Manifest, cohort: Cohort) -> Manifest:
    """The record of a checkpoint without anything of single people or of where it was made: no ID, scan, path, and no
    text but the program's own."""
    score = saved.cross_validation
    label = Counter({row.subject: row.label for row in cohort.rows if row.split == "train"}.values())
    about = {
        text: heading for heading, part in cohort.take_census().findings_by_heading.items() for text in part.problems
    }
    if cohort.verdict:
        about |= dict(zip(cohort.verdict.problems, cohort.verdict.about, strict=False))
    caveats = Caveats(
        simulated=cohort.is_simulated,
        problems=tuple(
            f"one about {about.get(text, 'records')}, which abide-data check names where the cohort is"
            for text in cohort.find_problems()
        ),
        accepted_leaks=cohort.metadata.accepted_leaks,
        transductive=saved.caveats.transductive,
        unknown_site=cohort.is_site_unknown,
    )
    return Manifest(
        job=saved.job,
        settings=saved.settings,
        everybody=True,
        step=saved.step,
        cohort_sha256=saved.cohort_sha256,
        maps=saved.maps,
        num_maps=saved.num_maps,
        preparation=saved.preparation,
        shares=saved.shares,
        cross_validation=replace(score, folder="") if score else None,
        caveats=caveats,
        people=TrainingPeople(scans_sha256=cohort.scans_sha256()),
        versions={name: saved.versions.get(name) for name in ("git_commit", "packages")} | {AAL: compute_aal_sha256()},
        told={PEOPLE: {name: label[value] for value, name in enumerate(CLASS_NAMES)}},
    )


def weights_parts(folder: CheckpointFolder, saved: Manifest, cohort: Cohort) -> dict[str, bytes]:
    """The weights of the network."""
    model = MODELS[saved.model]
    assert saved.settings
    network = model.build_network(model.parse_settings(saved.settings.config), cohort)
    folder.restore(network)
    weights = network.get_weights()
    if not all(np.isfinite(values).all() for values in weights):
        raise InputError(f"{folder.path} has weights that are not finite: its training diverged. Train again.")
    return {WEIGHTS: make_npz(**{f"{number:04}": values for number, values in enumerate(weights)})}


def likeness_parts(cohort: Cohort) -> dict[str, bytes]:
    """What the training people are like; nothing if they are too few, which is printed."""
    try:
        return make_reference(cohort, cohort.split_indices("train")).bytes_by_file
    except InputError as error:
        print(f"Nobody can be told to be out of distribution: {error}")
        return {}


def card_text(bundled: Manifest, cohort: Cohort, licence: str) -> str:
    """The model card as Markdown: what it is for, of whom, how good (Mitchell et al. 2019,
    doi:10.1145/3287560.3287596)."""
    rows = [row for row in cohort.rows if row.split == "train"]
    return TEMPLATES.get_template("card.jinja").render(
        model=bundled,
        made=f"{time.strftime('%Y-%m-%d')} by {DERIVE_PROGRAM} {__version__}",
        licence=licence,
        people=bundled.told[PEOPLE],
        cohort=cohort,
        SITE_IS_UNKNOWN=SITE_UNKNOWN_SENTENCE,
        use=INTENDED_USE,
        sites=sites_table(rows),
        variables=variables_table(cohort, rows),
        fewest=MIN_PEOPLE_PER_GROUP,
    )


def sites_table(rows: Sequence[RecordRow]) -> list[dict[str, str]]:
    """People by site and class; sites of fewer than `MIN_DESCRIBED_PEOPLE` people are counted together."""
    table = pd.DataFrame([{"subject": row.subject, "site": row.site, "label": row.label} for row in rows])
    table = table.drop_duplicates("subject")
    small = table.groupby("site")["site"].transform("size") < MIN_DESCRIBED_PEOPLE
    table["site"] = table["site"].where(
        ~small, f"sites of fewer than {MIN_DESCRIBED_PEOPLE}: {table['site'][small].nunique()}"
    )
    of_site = pd.crosstab(table["site"], table["label"])
    return [
        {"site": site or "unknown"} | {name: counted(counts.get(value, 0)) for value, name in enumerate(CLASS_NAMES)}
        for site, counts in of_site.iterrows()
    ]


def variables_table(cohort: Cohort, rows: Sequence[RecordRow]) -> list[dict[str, str]]:
    """Age, sex, head motion and other covariates of the people: mean, SD and where most of them lie, or shares of
    categories. Of what fewer than `MIN_DESCRIBED_PEOPLE` people have nothing is told."""
    site_of = {row.subject: row.site for row in rows}
    table = covariates([*site_of], [*site_of.values()], load_all_covariates(cohort))
    found = []
    for name, values in table.drop(columns="site", errors="ignore").items():
        known = values.dropna()
        if pd.api.types.is_numeric_dtype(values) and known.nunique() > 2:
            low, high = compute_quantiles(known.to_numpy(float), MIDDLE).tolist()
            told = f"mean {known.mean():.3g}, SD {known.std():.3g}, 90 % between {low:.3g} and {high:.3g}"
        else:
            shares = known.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value)).value_counts()
            told = ", ".join(f"{value} {count}" for value, count in shares.items() if count >= MIN_DESCRIBED_PEOPLE)
        if len(known) >= MIN_DESCRIBED_PEOPLE and told:
            found.append({"name": str(name), "told": told, "unknown": counted(values.isna().sum())})
    return found
