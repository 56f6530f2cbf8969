"""The texts of a report that need more than a template: warnings, the methods paragraph, the command to type."""

import shlex
from collections.abc import Iterable

from data.cohorts.records import PHENOTYPE_SIZE
from data.grids import GRIDS
from models import MODELS
from utils.report.tables import LABELS, MODEL, RULE, Count, Tables
from utils.report.templates import paragraph, paragraphs


def warnings(tables: Tables) -> list[str]:
    """What a reader must know before any figure: what the tables show, and the run's own warnings."""
    subjects = tables.labelled["subject"].nunique()
    auc, accuracy = (tables.scores[name].numbers if tables.scores else None for name in ("auc", "accuracy"))
    found = paragraphs("warnings", run=tables.run, subjects=subjects, auc=auc, accuracy=accuracy)
    return list(dict.fromkeys(found + tables.run.warnings))


def quoted(command: list[str]) -> str:
    """A command as it can be typed into bash, on one line, whatever its arguments hold."""
    return " ".join(shlex.quote(text) if text.isprintable() else escaped(text) for text in command)


def escaped(text: str) -> str:
    r"""bash's `$'...'`, in which `\x0a` stands for a byte."""
    plain = (letter.isprintable() and letter not in "\\'" for letter in text)
    codes = ("".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in text)
    return "$'" + "".join(letter if keep else code for letter, keep, code in zip(text, plain, codes, strict=True)) + "'"


def methods(tables: Tables) -> str:
    """A paragraph for a paper."""
    run = tables.run
    splits = {split: [row for row in run.subjects if row.split == split] for split in ("train", "test")}
    return paragraph(
        "methods",
        run=run,
        people={name: total(rows) for name, rows in (splits | {"all": run.subjects}).items()},
        folds=tables.predictions["fold"].nunique() if tables.pooled else 0,
        grid=GRIDS.get(run.grid or ""),
        num_phenotype=PHENOTYPE_SIZE if "phenotype" in MODELS[run.model].reads else 0,
        metrics=tables.scores.keys(),
        floors=[] if tables.floors is None else [name for name in tables.floors["floor"] if name not in (MODEL, RULE)],
    )


def total(rows: Iterable[Count]) -> dict[str, int]:
    """Subjects by label and in all, and the number of sites."""
    rows = list(rows)
    labels = {name: sum(getattr(row, name) for row in rows) for name in LABELS}
    return labels | {"total": sum(labels.values()), "sites": len({row.site for row in rows})}
