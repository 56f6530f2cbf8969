"""Writes the tables of README.md and docs/reference/evidence.md, and draws images/planning.png: no number is typed.

    python docs/results.py            from docs/evidence/*.csv into the pages
    python docs/results.py RESULTS    before that, from finished runs into docs/evidence/participants.csv

RESULTS is a folder of `run.py --test` and `--blackout` on folds of one cohort. In a page, a table stands between
`<!-- table NAME -->` and `<!-- end -->`. docs/evidence/shown.csv names the rows of simulations that are shown.
"""

import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs/evidence"
PAGES = (ROOT / "README.md", ROOT / "docs/reference/evidence.md", ROOT / "docs/howto/own_model.md")
TABLE_PATTERN = re.compile(r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAIN_RUN = "mmnn --folds 10 --repeats 3"
BLACKOUT_RUNS = ("mmnn --folds 10", "mmnn --folds site")
TEXT_BY_RUN = {
    MAIN_RUN: "`mmnn`, ten folds",
    "mmnn --folds site": "`mmnn`, sites held out",
    "cnn --folds 10": "`cnn`, ten folds",
    "cnn --folds site": "`cnn`, sites held out",
    "nn --folds 10": "`nn`, ten folds",
    "nn --folds site": "`nn`, sites held out",
}
TEXT_BY_FAMILY = {
    "values": "groups of phenotype values",
    "regions": "regions",
    "maps": "regions in one map",
    "connections": "pairs of systems",
}
VALUE_COLUMNS = ["value", "low", "high"]
SITES = ["sites", "way"]  # by which planning.csv is drawn


# From results


def find_runs(results: Path, job: str) -> dict[str, tuple[Path, dict]]:
    """The finished runs of a job that pool their folds, by what was asked for, such as `mmnn --folds 10`."""
    run_by_options = {}
    for path in sorted(results.glob(f"*-{job}-folds-*/run.json")):
        manifest = json.loads(path.read_text())
        repeats = f" --repeats {manifest['repeats']}" if manifest["repeats"] > 1 else ""
        if manifest["finished"]:
            run_by_options[f"{manifest['settings']['model']} --folds {manifest['folds']}{repeats}"] = (
                path.parent,
                manifest,
            )
    return run_by_options


def make_test_rows(folder: Path, manifest: dict) -> list[tuple]:
    """Measures of a test, each with the ends of its 95 % interval."""
    metrics = json.loads((folder / "metrics.json").read_text())
    confounds = pd.read_csv(folder / "confounds.csv").set_index("measure")
    conclusion = manifest["test"]["conclusion"]
    text_by_measure = {"auc_sites": "AUC within sites", "auc": "AUC of all participants", "accuracy": "accuracy"}
    rows = [(text, *(metrics[name][end] for end in VALUE_COLUMNS)) for name, text in text_by_measure.items()]
    for measure, text in (("auc", "pre-specified baseline"), ("less", "difference from the pre-specified baseline")):
        rows.append((text, *(conclusion["baseline"][measure][end] for end in VALUE_COLUMNS)))
    text_by_measure = {"masked": "missingness masked", "partial": "partial correlation"}
    return rows + [
        (text, *confounds.loc[name, VALUE_COLUMNS]) for name, text in text_by_measure.items() if name in confounds.index
    ]


def read_families(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a blackout, one row a thing that was tested, by its name."""
    names = {"values": ["group"], "regions": ["name"], "regions_by_map": ["name", "map"], "connections": ["a", "b"]}
    tables = {name: pd.read_csv(folder / f"{name}.csv").set_index(keys) for name, keys in names.items()}
    tables["connections"] = tables["connections"].query("level == 'systems'")
    return {name.replace("regions_by_map", "maps"): table for name, table in tables.items()}


def collect_numbers(results: Path) -> pd.DataFrame:
    """One row a number: run, measure, value with its interval, participants, seed, commit and command."""
    rows, significant_by_family_run = [], {}
    for name, (folder, manifest) in find_runs(results, "test").items():
        rows += [(name, manifest, *row) for row in make_test_rows(folder, manifest)]
    for name, (folder, manifest) in find_runs(results, "blackout").items():
        replication = pd.read_csv(folder / "replication.csv").query("between == 'halves' and significant == 1")
        replicated_rows = replication[replication["replicates"] > 0.5].dropna(subset="thing")
        families = read_families(folder)
        for family, table in families.items():
            significant_by_family_run[family, name] = set(table.index[table["p_reliance"] < 0.05])
            counts = {"tested": len(table), "significant": len(significant_by_family_run[family, name])}
            counts["replicate"] = (replicated_rows["family"] == family).sum()
            counts["in both"] = len(
                set.intersection(
                    *(
                        significant_by_family_run[family_run]
                        for family_run in significant_by_family_run
                        if family_run[0] == family
                    )
                )
            )
            rows += [
                (name, manifest, f"{TEXT_BY_FAMILY[family]}: {count_name}", n, None, None)
                for count_name, n in counts.items()
            ]
        values = families["values"].query("p_reliance < 0.05")
        ends = values[["reliance", "reliance_low", "reliance_high"]].itertuples()
        rows += [(name, manifest, f"effect of {group}", *effect) for group, *effect in ends]
    columns = ["run", "record", "measure", *VALUE_COLUMNS]
    table = pd.DataFrame(rows, columns=columns).round(dict.fromkeys(VALUE_COLUMNS, 4))
    manifests = table.pop("record")
    table["participants"] = [len(pd.read_csv(Path(manifest["cohort"]) / "subjects.csv")) for manifest in manifests]
    table["seed"] = [manifest["settings"]["seed"] for manifest in manifests]
    table["commit"] = [manifest["versions"]["git_commit"][:8] for manifest in manifests]
    table["command"] = [" ".join(manifest["command"]) for manifest in manifests]
    return table


# From tables of evidence into pages


def format_result(row: pd.Series) -> str:
    """A value with its 95 % interval; of a share, the Wilson interval over as many repetitions as were counted."""
    value, low, high = row[VALUE_COLUMNS]
    if pd.isna(value):
        return f"{low} to {high} {row['unit']}".strip()
    text = f"{value} {row['unit']}".strip()
    if pd.notna(low):
        return f"{text} ({low} to {high})"
    if not row["repetitions"]:
        return text
    repetition_count = int(row["repetitions"])
    success_count = round(float(value) * repetition_count / 100) if row["unit"] == "%" else int(value)
    wilson_interval = binomtest(success_count, repetition_count).proportion_ci(method="wilson")
    return f"{text} ({100 * wilson_interval.low:.0f} to {100 * wilson_interval.high:.0f} %)"


def make_simulation_table(name: str) -> list[list[str]]:
    """The rows that shown.csv names for a table: what, its value, and the commit that computed it."""
    rows = [["", "result (95 % interval)", "commit"]]
    chosen_rows = pd.read_csv(EVIDENCE / "shown.csv", dtype=str, keep_default_na=False)
    for row in chosen_rows[chosen_rows["table"] == name].itertuples():
        table = pd.read_csv(EVIDENCE / f"{row.file}.csv", dtype=str).fillna({"unit": ""})
        (result,) = table[(table["case"] == row.case) & (table["measure"] == row.measure)].to_dict("records")
        result["unit"] = result["unit"] or (f"of {row.repetitions}" if row.repetitions else "")
        result["repetitions"] = row.repetitions
        rows.append([row.shown, format_result(pd.Series(result)), result["commit"]])
    return rows


def read_participants() -> pd.DataFrame:
    """Numbers of real participants, by run and measure."""
    return pd.read_csv(EVIDENCE / "participants.csv").set_index(["run", "measure"])


def format_value(row: pd.Series) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def make_readme_table() -> list[list[str]]:
    """The scores of the default network in ten folds, beside those of its baseline."""
    measures = read_participants().loc[MAIN_RUN]
    text_by_measure = {
        "AUC within sites": "`mmnn`",
        "pre-specified baseline": "pre-specified baseline: the mean of plain classifiers",
        "difference from the pre-specified baseline": "difference",
        "missingness masked": "`mmnn`, missingness masked",
    }
    heading_row = ["", f"AUC within sites (95 % interval), commit {measures['commit'].iloc[0]}"]
    return [heading_row, *([text, format_value(measures.loc[name])] for name, text in text_by_measure.items())]


def make_score_table() -> list[list[str]]:
    """A row for each network and each way to test it."""
    table = read_participants()
    columns = ["AUC within sites", "pre-specified baseline", "missingness masked", "partial correlation"]
    rows = [[f"commit {table['commit'].iloc[0]}", *columns]]
    for run, text in TEXT_BY_RUN.items():
        cells = [format_value(table.loc[(run, name)]) if (run, name) in table.index else "" for name in columns]
        rows.append([text, *cells])
    return rows


def make_blackout_table() -> list[list[str]]:
    """A row for each family: how many are significant, and replicate, in both designs."""
    table = read_participants()
    count_text_by_measure, commit = table["value"].map("{:.0f}".format), table.loc[BLACKOUT_RUNS[0], "commit"].iloc[0]
    heading_row = [f"commit {commit}", "ten folds: significant", "half", "sites held out: significant", "half"]
    rows = [[*heading_row, "significant in both"]]
    for text in TEXT_BY_FAMILY.values():
        cells = [
            count_text_by_measure[run, f"{text}: {count_name}"]
            for run in BLACKOUT_RUNS
            for count_name in ("significant", "replicate")
        ]
        tested_text, both_text = (
            count_text_by_measure[BLACKOUT_RUNS[0], f"{text}: tested"],
            count_text_by_measure[BLACKOUT_RUNS[1], f"{text}: in both"],
        )
        rows.append([f"{tested_text} {text}", *cells, both_text])
    return rows


def make_value_table() -> list[list[str]]:
    """Groups of phenotype values that are significant with sites held out, and their effects in both designs."""
    table, rows = read_participants(), [["effect on the logit", "ten folds", "sites held out"]]
    for run, name in table.index:
        if run == BLACKOUT_RUNS[1] and name.startswith("effect of "):
            cells = [format_value(table.loc[(design, name)]) for design in BLACKOUT_RUNS]
            rows.append([name.removeprefix("effect of "), *cells])
    return rows


TABLE_MAKERS = {
    "readme": make_readme_table,
    "scores": make_score_table,
    "blackout": make_blackout_table,
    "values": make_value_table,
}


def with_tables(text: str) -> str:
    """A page with all its tables made anew."""

    def make_table(match: re.Match) -> str:
        name = match[2]
        heading_row, *rows = TABLE_MAKERS[name]() if name in TABLE_MAKERS else make_simulation_table(name)
        lines = [heading_row, ["---"] * len(heading_row), *rows]
        return match[1] + "".join(f"| {' | '.join(line)} |\n" for line in lines) + match[3]

    return TABLE_PATTERN.sub(make_table, text)


def draw_planning(target: Path) -> None:
    """Four panels of planning.csv: training participants, width of the interval, chance, difference of two models."""
    table = pd.read_csv(EVIDENCE / "planning.csv").dropna(subset="value")
    training = table[table["question"].str.match("training: (?!.*minus)")]
    panels = {
        "More training participants": (training, ["question"], "AUC within sites"),
        "Precision of an AUC": (table[table["question"] == "width of the interval"], SITES, "width of the interval"),
        "AUC that 8 of 10 studies distinguish from chance": (table[table["question"] == "chance"], SITES, "AUC"),
        "Difference that 8 of 10 comparisons find": (table[table["question"] == "difference"], SITES, "gain over 0.70"),
    }
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for (title, (rows, keys, y_label)), panel in zip(panels.items(), axes.flat, strict=True):
        for group_values, group_rows in rows.groupby(keys):
            group_name = str(group_values[0]).removeprefix("training: ")
            label = (
                group_name
                if len(group_values) == 1
                else f"{group_name} site{'s' * (group_values[0] > 1)}, {group_values[1]}"
            )
            panel.plot(group_rows["participants"], group_rows["value"], marker="o", markersize=4, label=label)
        panel.set(title=title, xlabel="participants", ylabel=y_label, xscale="log")
        ticks = sorted({50, 100, 200, 400, 663 if len(keys) == 1 else 800})
        panel.set_xticks(ticks, ticks)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(target, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        collect_numbers(Path(sys.argv[1])).to_csv(EVIDENCE / "participants.csv", index=False)
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    draw_planning(ROOT / "images/planning.png")
