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

from data.base.effort import EFFORT
from data.base.tables import make_printable
from data.cohorts.division import Division
from data.cohorts.records import GRID_BY_NAME, Grid
from data.cohorts.rows import find_recorded_sites
from models import MODELS
from utils.figures import number
from utils.report.tables import Described, Tables
from utils.scores import results
from utils.scores.results import HEADLINES, NAMED, ROLE, Estimate

BATCHES = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence
CHOSEN_ON_ABIDE = ("combined", "regions")  # presets, see docs/reference/evidence.md
MEASURES = {  # of maps, by the beginning of their names: the work that defines it
    "alff": "Zang et al. 2007, doi:10.1016/j.braindev.2006.07.002",
    "degree": "Zuo et al. 2012, doi:10.1093/cercor/bhr269",
    "dual_regression": "Filippini et al. 2009, doi:10.1073/pnas.0811879106",
    "eigenvector": "Zuo et al. 2012, doi:10.1093/cercor/bhr269",
    "falff": "Zou et al. 2008, doi:10.1016/j.jneumeth.2008.04.012",
    "lfcd": "Tomasi and Volkow 2010, doi:10.1073/pnas.1001414107",
    "reho": "Zang et al. 2004, doi:10.1016/j.neuroimage.2003.12.030",
    "vmhc": "Zuo et al. 2010, doi:10.1523/JNEUROSCI.2612-10.2010",
}
PARCELS = {  # of connectomes, by a pattern of what is in their names; AAL2 and AAL3 are other atlases
    "aal(?![23])": "Tzourio-Mazoyer et al. 2002, doi:10.1006/nimg.2001.0978",
    "cc[24]00": "Craddock et al. 2012, doi:10.1002/hbm.21333",
    "schaefer": "Schaefer et al. 2018, doi:10.1093/cercor/bhx179",
}


def told_sites(sites: Iterable[str]) -> str:
    """How many are known, in words."""
    count = len(find_recorded_sites(sites))
    return f"{count} site{'s' if count > 1 else ''}" if count else "unknown site"


@dataclass(frozen=True)
class Facts:
    """What the methods of a paper need of a test's tables."""

    run: Described
    scores: Mapping[str, Estimate]
    folds: int  # 0: one split
    division: Division  # how people are divided into them
    same_folds: bool  # in all repeats, if there are some
    grid: Grid | None  # of the volumes that the model reads
    reads_phenotype: bool
    maps: list[str]  # each measure, and the work that defines it
    connectome: str  # the series whose correlations it reads, and the work that defines its parcels
    settings: dict[str, Any]  # those that change something
    changed: dict[str, Any]  # settings that differ from the preset
    seen_by_authors: bool  # whether the preset was chosen by results on people of ABIDE I
    one_class: list[str]  # sites whose tested people of known diagnosis are of one class
    baselines: list[str]
    prespecified: str  # empty without baselines
    calibrated: bool


def facts(tables: Tables) -> Facts:
    run, model = tables.run, MODELS[tables.run.model]
    preset = model.module.PRESETS.get(run.preset)
    saved = json.loads(json.dumps(asdict(preset))) if preset else dict(run.config)
    if not run.prepared.connectome:  # the cohort decided that
        saved.pop("connectome", None)
    baselines = pd.DataFrame(columns=["baseline", ROLE]) if tables.baselines is None else tables.baselines
    classes = tables.labelled.groupby("site")["label"].nunique()
    series = run.prepared.connectome if run.config.get("connectome") else ""
    parcels = next((work for name, work in PARCELS.items() if re.search(name, series.lower())), "")
    return Facts(
        run=run,
        scores=tables.scores,
        folds=tables.predictions["fold"].nunique() if "fold" in tables.predictions else 0,
        division=Division.parse(run.folds or ""),
        same_folds=bool(tables.folds),
        grid=GRID_BY_NAME.get(run.grid or ""),
        reads_phenotype="phenotype" in model.input_names,
        maps=[f"{name}, {work}" for name, work in MEASURES.items() if any(of.startswith(name) for of in run.maps)],
        connectome=", ".join(filter(None, (series, parcels))),
        settings=used(run),
        changed={name: value for name, value in run.config.items() if name in saved and saved[name] != value},
        seen_by_authors=seen_by_authors(run),
        one_class=classes.index[classes == 1].tolist(),
        baselines=baselines["baseline"].tolist(),
        prespecified=next(iter(baselines["baseline"][baselines[ROLE] == NAMED]), ""),
        calibrated=tables.probabilities is not None,
    )


def seen_by_authors(run: Described) -> bool:
    """Whether its preset, or one of its candidates, was made by results on people of ABIDE I."""
    names = [name for of in run.chosen.values() for name in of.scores] or [run.preset]
    reads_maps = "volume" in MODELS[run.model].input_names and not run.simulated
    return reads_maps and bool({name.split()[0] for name in names} & set(CHOSEN_ON_ABIDE))


def used(run: Described) -> dict[str, Any]:
    """The hyper-parameters of a run without those that change nothing with the others as they are."""
    idle = MODELS[run.model].parse_settings(run.config).idle()
    return {name: value for name, value in run.config.items() if name not in idle}


def methods(tables: Tables) -> list[str]:
    """Paragraphs for a paper, each on one line; not escaped for HTML."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
        undefined=jinja2.StrictUndefined,
    )
    templates.filters.update(number=number, line=make_printable, told_sites=told_sites)
    templates.tests["in_text"] = lambda text, part: part in text
    templates.globals.update(BATCHES=BATCHES, HEADLINES=HEADLINES, results=results, effort=EFFORT)
    text = templates.get_template("methods.jinja").render(of=facts(tables))
    return [make_printable(" ".join(part.split())) for part in re.split(r"\n\s*\n", text) if part.strip()]


def quoted(command: list[str]) -> str:
    r"""A command as it can be typed into bash, on one line: in bash's `$'...'`, `\x0a` stands for a byte."""
    return " ".join(shlex.quote(text) if text.isprintable() else f"$'{escaped(text)}'" for text in command)


def escaped(text: str) -> str:
    codes = ("".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in text)
    plain = (letter.isprintable() and letter not in "\\'" for letter in text)
    return "".join(letter if keep else code for letter, keep, code in zip(text, plain, codes, strict=True))
