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
PAGES = (ROOT / "README.md", ROOT / "docs/reference/evidence.md")
TABLE = re.compile(r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAIN = "mmnn --folds 10 --repeats 3"
BLACKED_OUT = ("mmnn --folds 10", "mmnn --folds site")
TESTS = {
    MAIN: "`mmnn`, ten folds",
    "mmnn --folds site": "`mmnn`, sites held out",
    "cnn --folds 10": "`cnn`, ten folds",
    "cnn --folds site": "`cnn`, sites held out",
    "nn --folds 10": "`nn`, ten folds",
    "nn --folds site": "`nn`, sites held out",
}
FAMILIES = {
    "values": "groups of phenotype values",
    "regions": "regions",
    "maps": "regions in one map",
    "connections": "pairs of systems",
}
ENDS = ["value", "low", "high"]
SITES = ["sites", "way"]  # by which planning.csv is drawn


# From results


def runs_of(results: Path, job: str) -> dict[str, tuple[Path, dict]]:
    """The finished runs of a job that pool their folds, by what was asked for, such as `mmnn --folds 10`."""
    found = {}
    for path in sorted(results.glob(f"*-{job}-folds-*/run.json")):
        record = json.loads(path.read_text())
        repeats = f" --repeats {record['repeats']}" if record["repeats"] > 1 else ""
        if record["finished"]:
            found[f"{record['settings']['model']} --folds {record['folds']}{repeats}"] = (path.parent, record)
    return found


def rows_of_test(folder: Path, record: dict) -> list[tuple]:
    """Measures of a test, each with the ends of its 95 % interval."""
    metrics = json.loads((folder / "metrics.json").read_text())
    confounds = pd.read_csv(folder / "confounds.csv").set_index("measure")
    conclusion = record["told"]["conclusion"]
    names = {"auc_sites": "AUC within sites", "auc": "AUC of all participants", "accuracy": "accuracy"}
    rows = [(text, *(metrics[name][end] for end in ENDS)) for name, text in names.items()]
    for of, text in (("auc", "pre-specified baseline"), ("less", "difference from the pre-specified baseline")):
        rows.append((text, *(conclusion["baseline"][of][end] for end in ENDS)))
    names = {"masked": "missingness masked", "partial": "partial correlation"}
    return rows + [(text, *confounds.loc[name, ENDS]) for name, text in names.items() if name in confounds.index]


def families_of(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a blackout, one row a thing that was tested, by its name."""
    names = {"values": ["group"], "regions": ["name"], "regions_by_map": ["name", "map"], "connections": ["a", "b"]}
    tables = {name: pd.read_csv(folder / f"{name}.csv").set_index(keys) for name, keys in names.items()}
    tables["connections"] = tables["connections"].query("level == 'systems'")
    return {name.replace("regions_by_map", "maps"): table for name, table in tables.items()}


def collected(results: Path) -> pd.DataFrame:
    """One row a number: run, measure, value with its interval, participants, seed, commit and command."""
    rows, found = [], {}
    for name, (folder, record) in runs_of(results, "test").items():
        rows += [(name, record, *row) for row in rows_of_test(folder, record)]
    for name, (folder, record) in runs_of(results, "blackout").items():
        replication = pd.read_csv(folder / "replication.csv").query("between == 'halves' and significant == 1")
        again = replication[replication["replicates"] > 0.5].dropna(subset="thing")
        families = families_of(folder)
        for family, table in families.items():
            found[family, name] = set(table.index[table["p_reliance"] < 0.05])
            counts = {"tested": len(table), "significant": len(found[family, name])}
            counts["replicate"] = (again["family"] == family).sum()
            counts["in both"] = len(set.intersection(*(found[of] for of in found if of[0] == family)))
            rows += [(name, record, f"{FAMILIES[family]}: {what}", n, None, None) for what, n in counts.items()]
        values = families["values"].query("p_reliance < 0.05")
        ends = values[["reliance", "reliance_low", "reliance_high"]].itertuples()
        rows += [(name, record, f"effect of {group}", *effect) for group, *effect in ends]
    columns = ["run", "record", "measure", *ENDS]
    table = pd.DataFrame(rows, columns=columns).round(dict.fromkeys(ENDS, 4))
    records = table.pop("record")
    table["participants"] = [len(pd.read_csv(Path(record["cohort"]) / "subjects.csv")) for record in records]
    table["seed"] = [record["settings"]["seed"] for record in records]
    table["commit"] = [record["versions"]["git_commit"][:8] for record in records]
    table["command"] = [" ".join(record["command"]) for record in records]
    return table


# From tables of evidence into pages


def shown(row: pd.Series) -> str:
    """A value with its 95 % interval; of a share, the Wilson interval over as many repetitions as were counted."""
    value, low, high = row[ENDS]
    if pd.isna(value):
        return f"{low} to {high} {row['unit']}".strip()
    text = f"{value} {row['unit']}".strip()
    if pd.notna(low):
        return f"{text} ({low} to {high})"
    if not row["repetitions"]:
        return text
    total = int(row["repetitions"])
    hits = round(float(value) * total / 100) if row["unit"] == "%" else int(value)
    ends = binomtest(hits, total).proportion_ci(method="wilson")
    return f"{text} ({100 * ends.low:.0f} to {100 * ends.high:.0f} %)"


def of_simulations(name: str) -> list[list[str]]:
    """The rows that shown.csv names for a table: what, its value, and the commit that computed it."""
    rows = [["", "result (95 % interval)", "commit"]]
    chosen = pd.read_csv(EVIDENCE / "shown.csv", dtype=str, keep_default_na=False)
    for row in chosen[chosen["table"] == name].itertuples():
        table = pd.read_csv(EVIDENCE / f"{row.file}.csv", dtype=str).fillna({"unit": ""})
        (found,) = table[(table["case"] == row.case) & (table["measure"] == row.measure)].to_dict("records")
        found["unit"] = found["unit"] or (f"of {row.repetitions}" if row.repetitions else "")
        found["repetitions"] = row.repetitions
        rows.append([row.shown, shown(pd.Series(found)), found["commit"]])
    return rows


def participants() -> pd.DataFrame:
    """Numbers of real participants, by run and measure."""
    return pd.read_csv(EVIDENCE / "participants.csv").set_index(["run", "measure"])


def interval(row: pd.Series) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def of_readme() -> list[list[str]]:
    """The scores of the default network in ten folds, beside those of its baseline."""
    of = participants().loc[MAIN]
    names = {
        "AUC within sites": "`mmnn`",
        "pre-specified baseline": "pre-specified baseline: the mean of plain classifiers",
        "difference from the pre-specified baseline": "difference",
        "missingness masked": "`mmnn`, missingness masked",
    }
    first = ["", f"AUC within sites (95 % interval), commit {of['commit'].iloc[0]}"]
    return [first, *([text, interval(of.loc[name])] for name, text in names.items())]


def of_scores() -> list[list[str]]:
    """A row for each network and each way to test it."""
    table = participants()
    columns = ["AUC within sites", "pre-specified baseline", "missingness masked", "partial correlation"]
    rows = [[f"commit {table['commit'].iloc[0]}", *columns]]
    for run, text in TESTS.items():
        cells = [interval(table.loc[(run, name)]) if (run, name) in table.index else "" for name in columns]
        rows.append([text, *cells])
    return rows


def of_blackout() -> list[list[str]]:
    """A row for each family: how many are significant, and replicate, in both designs."""
    table = participants()
    counts, commit = table["value"].map("{:.0f}".format), table.loc[BLACKED_OUT[0], "commit"].iloc[0]
    first = [f"commit {commit}", "ten folds: significant", "half", "sites held out: significant", "half"]
    rows = [[*first, "significant in both"]]
    for text in FAMILIES.values():
        cells = [counts[run, f"{text}: {what}"] for run in BLACKED_OUT for what in ("significant", "replicate")]
        tested, both = counts[BLACKED_OUT[0], f"{text}: tested"], counts[BLACKED_OUT[1], f"{text}: in both"]
        rows.append([f"{tested} {text}", *cells, both])
    return rows


def of_values() -> list[list[str]]:
    """Groups of phenotype values that are significant with sites held out, and their effects in both designs."""
    table, rows = participants(), [["effect on the logit", "ten folds", "sites held out"]]
    for run, name in table.index:
        if run == BLACKED_OUT[1] and name.startswith("effect of "):
            cells = [interval(table.loc[(design, name)]) for design in BLACKED_OUT]
            rows.append([name.removeprefix("effect of "), *cells])
    return rows


MAKERS = {"readme": of_readme, "scores": of_scores, "blackout": of_blackout, "values": of_values}


def with_tables(text: str) -> str:
    """A page with all its tables made anew."""

    def made(match: re.Match) -> str:
        name = match[2]
        first, *rows = MAKERS[name]() if name in MAKERS else of_simulations(name)
        lines = [first, ["---"] * len(first), *rows]
        return match[1] + "".join(f"| {' | '.join(line)} |\n" for line in lines) + match[3]

    return TABLE.sub(made, text)


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
    for (title, (rows, keys, axis)), panel in zip(panels.items(), axes.flat, strict=True):
        for names, line in rows.groupby(keys):
            first = str(names[0]).removeprefix("training: ")
            label = first if len(names) == 1 else f"{first} site{'s' * (names[0] > 1)}, {names[1]}"
            panel.plot(line["participants"], line["value"], marker="o", markersize=4, label=label)
        panel.set(title=title, xlabel="participants", ylabel=axis, xscale="log")
        ticks = sorted({50, 100, 200, 400, 663 if len(keys) == 1 else 800})
        panel.set_xticks(ticks, ticks)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(target, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        collected(Path(sys.argv[1])).to_csv(EVIDENCE / "participants.csv", index=False)
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    draw_planning(ROOT / "images/planning.png")
