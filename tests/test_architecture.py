"""The house rules that a reader relies on: imports point one way, files and parameter lists stay short."""

import ast
from collections import defaultdict
from pathlib import Path

from helpers import ROOT

from data.base import files

MAX_LINES, MAX_PARAMETERS = 350, 5
FLOORS = ["abide_commands", "run", "utils", "models", "data"]  # each imports from those after it only
WINGS = {  # of a floor: each imports from those after it only; modules in none of them are above all
    "data": ("derivation", "likeness", "conversion", "cohorts", "pages", "base"),
    "utils": (
        *(
            "jobs",
            "preview",
            "compare",
            "permutations",
            "blackout",
            "evaluation",
            "choice",
            "bundle",
            "report",
        ),
        *("training", "runs", "machines", "scores", "figures"),
    ),
}
TOPS = [ROOT / "abide_commands.py", ROOT / "run.py"]
SOURCES = sorted([*TOPS, *(path for top in FLOORS[2:] for path in (ROOT / top).rglob("*.py"))])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): ast.parse(path.read_text()) for path in SOURCES}


def imports_of(tree: ast.AST) -> set[str]:
    """Modules of this project that a module imports, at its top, in functions, and for types."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & MODULES.keys()


IMPORTS = {name: imports_of(tree) - {name} for name, tree in MODULES.items()}

SEALED = {f"data.cohorts.{name}" for name in ("entries", "seal", "twins")}  # what a cohort is known by
SUMS = {"SUMS", "sum_of", "sums_of", "write_sums", "read_sums", "verify_sums", "check_sums"}  # of `data.base.files`
IMPORTED_BY_ALL = ("data",)  # the version


def floor_of(name: str) -> tuple[int, int]:
    top, wing = [*name.split("."), ""][:2]
    wings = ("", *WINGS.get(top, ()))
    return FLOORS.index(top), wings.index(wing) if wing in wings else 0


def test_imports_point_one_way():
    upward = [
        (name, other)
        for name, others in IMPORTS.items()
        for other in others
        if other not in IMPORTED_BY_ALL and floor_of(other) < floor_of(name)
    ]
    assert not upward


def test_no_circle_of_imports():
    left = defaultdict(set, {name: set(others) for name, others in IMPORTS.items()})
    while leaves := [name for name, others in left.items() if not others]:
        for leaf in leaves:
            del left[leaf]
        for others in left.values():
            others.difference_update(leaves)
    assert not dict(left)


def test_a_run_asks_its_cohort():
    """It knows nothing of digests, findings, people who share a scan, forms of storage and sums."""
    assert MODULES.keys() >= SEALED and all(hasattr(files, name) for name in SUMS)
    asking = {name: tree for name, tree in MODULES.items() if name.startswith(("run", "utils."))}
    assert not {name: IMPORTS[name] & SEALED for name in asking if IMPORTS[name] & SEALED}
    for name, tree in asking.items():
        nodes = list(ast.walk(tree))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "files"}
        from_files = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "data.base.files"]
        used |= {alias.name for node in from_files for alias in node.names}
        assert not used & SUMS, name


def test_the_demo_cohort_is_found_without_what_converts_one():
    imported = [node for node in MODULES["data.demo"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [name for name in imports_of(ast.Module(imported, [])) if name.startswith("data.conversion")]


def test_files_and_parameter_lists_are_short():
    long = [str(path) for path in SOURCES if len(path.read_text().splitlines()) > MAX_LINES]
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([one for one in arguments if one.arg not in ("self", "cls")]) > MAX_PARAMETERS:
                    long.append(f"{name}.{node.name}")
    assert not long
