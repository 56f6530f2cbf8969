"""Tables of a test -> the paragraphs of a paper's methods (`methods.jinja`), and its command."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from data.base import thresholds
from data.base.effort import EFFORT
from data.base.tables import make_printable
from data.cohorts.division import Division
from data.images.grids import GRID_BY_NAME, Grid
from data.tables.vocabulary import find_recorded_sites
from models import MODELS
from utils.figures import format_number
from utils.report.tables import EvaluationManifest, EvaluationTables
from utils.scores import results
from utils.scores.results import PRESPECIFIED_ROLE, ROLE_COLUMN, TITLE_BY_AUC, Estimate

BATCH_SETTINGS = (
    "batch_size",
    "optimizer",
    "learning_rate",
    "decay",
)  # hyper-parameters that a sentence of its own names
PRESETS_CHOSEN_ON_ABIDE = ("combined", "regions")  # presets, see docs/reference/evidence.md
CITATION_BY_MEASURE = {  # of maps, by the beginning of their names: the work that defines it
    "alff": "Zang et al. 2007, doi:10.1016/j.braindev.2006.07.002",
    "degree": "Zuo et al. 2012, doi:10.1093/cercor/bhr269",
    "dual_regression": "Filippini et al. 2009, doi:10.1073/pnas.0811879106",
    "eigenvector": "Zuo et al. 2012, doi:10.1093/cercor/bhr269",
    "falff": "Zou et al. 2008, doi:10.1016/j.jneumeth.2008.04.012",
    "lfcd": "Tomasi and Volkow 2010, doi:10.1073/pnas.1001414107",
    "reho": "Zang et al. 2004, doi:10.1016/j.neuroimage.2003.12.030",
    "vmhc": "Zuo et al. 2010, doi:10.1523/JNEUROSCI.2612-10.2010",
}
# of connectomes, by a pattern of what is in their names; AAL2 and AAL3 are other atlases
CITATION_BY_PARCELS_PATTERN = {
    "aal(?![23])": "Tzourio-Mazoyer et al. 2002, doi:10.1006/nimg.2001.0978",
    "cc[24]00": "Craddock et al. 2012, doi:10.1002/hbm.21333",
    "schaefer": "Schaefer et al. 2018, doi:10.1093/cercor/bhx179",
}


def format_site_count(sites: Iterable[str]) -> str:
    """How many sites are known, in words."""
    site_count = len(find_recorded_sites(sites))
    if not site_count:
        return "unknown site"
    return f"{site_count} sites" if site_count > 1 else "1 site"


@dataclass(frozen=True)
class MethodsContext:
    """What the methods of a paper need of a test's tables."""

    run: EvaluationManifest  # the record of the test
    scores: Mapping[str, Estimate]  # by metric
    folds: int  # 0: one split
    division: Division  # how people are divided into them
    same_folds: bool  # whether all repeats have the same folds, if there are some
    grid: Grid | None  # of the volumes that the model reads
    reads_phenotype: bool
    maps: list[str]  # each measure, and the work that defines it
    connectome: str  # the series whose correlations it reads, and the work that defines its parcels
    settings: dict[str, Any]  # those that change something
    changed: dict[str, Any]  # settings that differ from the preset
    seen_by_authors: bool  # whether the preset was chosen by results on people of ABIDE I
    one_class: list[str]  # sites whose tested people of known diagnosis are of one class
    baselines: list[str]  # names of them
    prespecified: str  # empty without baselines
    calibrated: bool  # whether the test calibrated probabilities


def make_methods_context(tables: EvaluationTables) -> MethodsContext:
    manifest = tables.manifest
    preset_config = MODELS[manifest.model].module.PRESETS.get(manifest.preset) if manifest.is_network else None
    preset_settings = json.loads(json.dumps(asdict(preset_config))) if preset_config else dict(manifest.config)
    for input_name in list_inputs_cohort_lacks(manifest):  # the cohort decided that
        preset_settings.pop(input_name, None)
    baseline_table = pd.DataFrame(columns=["baseline", ROLE_COLUMN]) if tables.baselines is None else tables.baselines
    class_count_by_site = tables.labelled_predictions.groupby("site")["label"].nunique()
    connectome_series = manifest.prepared.connectome if "connectome" in manifest.input_names else ""
    parcels_citation = next(
        (
            citation
            for name, citation in CITATION_BY_PARCELS_PATTERN.items()
            if re.search(name, connectome_series.lower())
        ),
        "",
    )
    cited_measures = []
    for measure, citation in CITATION_BY_MEASURE.items():
        if any(map_name.startswith(measure) for map_name in manifest.maps):
            cited_measures.append(f"{measure}, {citation}")
    return MethodsContext(
        run=manifest,
        scores=tables.scores,
        folds=tables.predictions["fold"].nunique() if "fold" in tables.predictions else 0,
        division=Division.parse_folds_option(manifest.folds or ""),
        same_folds=bool(tables.scores_by_fold),
        grid=GRID_BY_NAME.get(manifest.grid or ""),
        reads_phenotype="phenotype" in manifest.input_names,
        maps=cited_measures,
        connectome=", ".join(filter(None, (connectome_series, parcels_citation))),
        settings=find_used_settings(manifest),
        changed={
            name: setting_value
            for name, setting_value in manifest.config.items()
            if name in preset_settings and preset_settings[name] != setting_value
        },
        seen_by_authors=is_preset_seen_by_authors(manifest),
        one_class=class_count_by_site.index[class_count_by_site == 1].tolist(),
        baselines=baseline_table["baseline"].tolist(),
        prespecified=next(iter(baseline_table["baseline"][baseline_table[ROLE_COLUMN] == PRESPECIFIED_ROLE]), ""),
        calibrated=tables.probabilities is not None,
    )


def is_preset_seen_by_authors(manifest: EvaluationManifest) -> bool:
    """Whether its preset, or one of its candidates, was made by results on people of ABIDE I."""
    candidate_names = [candidate_name for choice in manifest.chosen.values() for candidate_name in choice.scores] or [
        manifest.preset
    ]
    reads_real_maps = "volume" in manifest.input_names and not manifest.simulated
    return (
        manifest.is_network
        and reads_real_maps
        and bool({candidate_name.split()[0] for candidate_name in candidate_names} & set(PRESETS_CHOSEN_ON_ABIDE))
    )


def list_inputs_cohort_lacks(manifest: EvaluationManifest) -> list[str]:
    """The inputs of networks that the cohort does not have, so that no setting of the user leaves them out."""
    is_lacking_by_input = {
        "volume": not manifest.num_maps,
        "phenotype": not manifest.num_maps and not manifest.prepared.num_phenotype,
        "connectome": not manifest.prepared.connectome,
    }
    return [input_name for input_name, is_lacking in is_lacking_by_input.items() if is_lacking]


def find_used_settings(manifest: EvaluationManifest) -> dict[str, Any]:
    """The hyper-parameters of a run without those that change nothing with the others as they are, and those that only
    say that maps and phenotype are read, as they are unless a setting says otherwise; none of what is no network."""
    if not manifest.is_network:
        return {}
    model_spec = MODELS[manifest.model]
    lacking_input_names = list_inputs_cohort_lacks(manifest)
    unsaid_setting_names = {*model_spec.parse_settings(manifest.config).idle()}
    unsaid_setting_names |= {
        name for name in model_spec.input_names if manifest.config.get(name) or name in lacking_input_names
    }
    return {
        setting_name: setting_value
        for setting_name, setting_value in manifest.config.items()
        if setting_name not in unsaid_setting_names
    }


def make_methods_paragraphs(tables: EvaluationTables) -> list[str]:
    """Paragraphs for a paper, each on one line; not escaped for HTML."""
    jinja_environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
        undefined=jinja2.StrictUndefined,
    )
    jinja_environment.filters.update(number=format_number, line=make_printable, told_sites=format_site_count)
    jinja_environment.tests["in_text"] = lambda text, fragment: fragment in text
    jinja_environment.globals.update(
        BATCHES=BATCH_SETTINGS, HEADLINES=TITLE_BY_AUC, results=results, thresholds=thresholds, effort=EFFORT
    )
    text = jinja_environment.get_template("methods.jinja").render(of=make_methods_context(tables))
    return [make_printable(" ".join(fragment.split())) for fragment in re.split(r"\n\s*\n", text) if fragment.strip()]


def quote_command(command_words: list[str]) -> str:
    r"""A command as it can be typed into bash, on one line: in bash's `$'...'`, `\x0a` stands for a byte."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{escape_word(word)}'" for word in command_words)


def escape_word(word: str) -> str:
    escaped_word = ""
    for letter in word:
        is_plain = letter.isprintable() and letter not in "\\'"
        escaped_word += letter if is_plain else "".join(f"\\x{byte:02x}" for byte in letter.encode())
    return escaped_word
