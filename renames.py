"""Shows that a commit renames and does nothing else: `python renames.py [OLD] [NEW]`, by default of HEAD.

`renames.csv` has a row a name: `file,scope,old,new`. `scope` is the dotted path of the function or class where the name
is bound, empty at the top of the file; variables of comprehensions and lambdas belong to the function around them, of
which several may have one old name. The
rows that NEW has and OLD has not are applied to the syntax trees of OLD, which must then equal those of NEW.

Names of variables, arguments, functions, classes and imports are looked up as Python does. Of an attribute and a
keyword argument the type is not known here: it may be renamed as any member, function or argument of that name is, also
in earlier rows, where it was missed; types and tests tell the rest. Docstrings and comments are left out, and so is the
order of imported names. Changed strings are printed: each word of them must be renamed somewhere.
"""

import ast
import csv
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WORD = re.compile(r"[A-Za-z_]\w*")


def arguments(node: ast.AST) -> list[ast.arg]:
    args = node.args
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]


class Scopes(ast.NodeVisitor):
    """The names that each scope binds; attributes of `self` belong to the class."""

    def __init__(self, tree: ast.Module):
        self.bound: dict[str, set[str]] = defaultdict(set)
        self.classes: set[str] = set()
        self.scope, self.in_class = "", ""
        self.visit(tree)

    def inside(self, name: str) -> str:
        return f"{self.scope}.{name}" if self.scope else name

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.bound[self.scope].add(node.name)
        before = self.scope, self.in_class
        for outer in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(outer)
        if self.scope in self.classes:
            self.in_class = self.scope
        self.scope = self.inside(node.name)
        self.bound[self.scope] |= {argument.arg for argument in arguments(node)}
        for child in node.body:
            self.visit(child)
        self.scope, self.in_class = before

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bound[self.scope].add(node.name)
        before = self.scope, self.in_class
        for outer in [*node.bases, *node.decorator_list, *node.keywords]:
            self.visit(outer)
        self.scope = self.in_class = self.inside(node.name)
        self.classes.add(self.scope)
        for child in node.body:
            self.visit(child)
        self.scope, self.in_class = before

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.bound[self.scope] |= {argument.arg for argument in arguments(node)}
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound[self.scope].add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self":
            self.bound[self.in_class].add(node.attr)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.bound[self.scope].add(node.name or "")
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        if node.asname:
            self.bound[self.scope].add(node.asname)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.bound[self.scope].add(node.name or "")
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs


Row = tuple[str, str, str, str]


class Renames:
    """The rows, by what they are asked for."""

    def __init__(self, rows: list[Row], earlier: list[Row], trees: dict[str, ast.Module]):
        self.scopes = {file: Scopes(tree) for file, tree in trees.items()}
        self.bound = {(file, scope, old): new for file, scope, old, new in rows}
        self.in_comprehensions = set(rows)  # of which several may share a scope and the old name
        self.tops: dict[tuple[str, str], str] = {}
        self.passed_on = {}  # what a module imports from another one, and others from it
        for file, tree in trees.items():
            for node in tree.body:
                for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                    self.passed_on[module_name(file), alias.asname or alias.name] = (node.module or "", alias.name)
        self.members, self.keywords, self.words = defaultdict(set), defaultdict(set), defaultdict(set)
        for file, scope, old, new in rows:
            self.words[old].add(new)
            if not scope:
                self.tops[module_name(file), old] = new
                self.members[old].add(new)
            elif file in self.scopes and scope in self.scopes[file].classes:
                self.members[old].add(new)
                self.keywords[old].add(new)
            else:
                self.keywords[old].add(new)
        for _, _, old, new in earlier:
            for names in (self.members, self.keywords, self.words):
                names[old].add(new)

    def top(self, module: str, name: str) -> str:
        """The new name of what a module defines or imports under `name`."""
        place = module, name
        while place not in self.tops and place in self.passed_on:
            (_, bound), place = place, self.passed_on[place]
            if bound != place[1]:  # an alias, which has a row of its own
                return name
        return self.tops.get(place, name)


def module_name(file: str) -> str:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name.removeprefix("tests.")  # whose modules import each other by their bare names


class Comparison:
    """Two trees of a file, side by side; `faults` are the places that no row explains."""

    def __init__(self, file: str, renames: Renames):
        self.file, self.renames, self.scopes = file, renames, renames.scopes[file]
        self.faults: list[str] = []
        self.strings: list[str] = []
        self.imports: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)

    def fault(self, node: ast.AST, text: str) -> None:
        self.faults.append(f"{self.file}:{getattr(node, 'lineno', 0)}: {text}")

    def expected(self, name: str, scope: str) -> str:
        """The new name of what `name` stands for in a scope."""
        places, is_first = [scope], True
        while places[-1]:
            places.append(places[-1].rpartition(".")[0])
        for place in places:
            if place in self.scopes.classes and not is_first:
                continue
            is_first = False
            module, original = self.imports[place].get(name, ("", ""))
            if name == original:
                return self.renames.top(module, original)
            if name in self.scopes.bound[place]:
                return self.renames.bound.get((self.file, place, name), name)
        return name

    def same_name(self, node: ast.AST, old: str | None, new: str | None, expected: str | None) -> None:
        if new != expected:
            self.fault(node, f"{old} became {new}, not {expected}")

    def compare(self, old: object, new: object, scope: str) -> None:
        if isinstance(old, list) and isinstance(new, list):
            self.compare_lists(old, new, scope)
        elif type(old) is not type(new):
            self.fault(old if isinstance(old, ast.AST) else new, f"{old!r} became {new!r}")
        elif isinstance(old, ast.AST):
            method = getattr(self, f"compare_{type(old).__name__}", self.compare_fields)
            method(old, new, scope)
        elif old != new:
            self.faults.append(f"{self.file}: {old!r} became {new!r}")

    def compare_lists(self, old: list, new: list, scope: str) -> None:
        if len(old) != len(new):
            self.faults.append(f"{self.file}: {scope}: {len(old)} became {len(new)}")
        for first, second in zip(old, new, strict=False):
            self.compare(first, second, scope)

    def compare_fields(self, old: ast.AST, new: ast.AST, scope: str, without: tuple[str, ...] = ()) -> None:
        for field in old._fields:
            if field not in without:
                self.compare(getattr(old, field), getattr(new, field), scope)

    def compare_Name(self, old: ast.Name, new: ast.Name, scope: str) -> None:
        if (self.file, scope, old.id, new.id) in self.renames.in_comprehensions:
            return
        expected = self.expected(old.id, scope)
        if scope in self.scopes.classes and new.id != expected:  # read before the class binds it
            expected = self.expected(old.id, "")
        self.same_name(old, old.id, new.id, expected)

    def compare_arg(self, old: ast.arg, new: ast.arg, scope: str) -> None:
        if (self.file, scope, old.arg, new.arg) not in self.renames.in_comprehensions:
            self.same_name(old, old.arg, new.arg, self.expected(old.arg, scope))
        self.compare_fields(old, new, scope, ("arg",))

    def compare_keyword(self, old: ast.keyword, new: ast.keyword, scope: str) -> None:
        if old.arg != new.arg and new.arg not in self.renames.keywords[old.arg]:
            self.fault(old, f"keyword {old.arg} became {new.arg}")
        self.compare(old.value, new.value, scope)

    def compare_Attribute(self, old: ast.Attribute, new: ast.Attribute, scope: str) -> None:
        if old.attr != new.attr and new.attr not in self.renames.members[old.attr]:
            self.fault(old, f"attribute {old.attr} became {new.attr}")
        self.compare(old.value, new.value, scope)

    def compare_Constant(self, old: ast.Constant, new: ast.Constant, scope: str) -> None:
        if old.value == new.value and type(old.value) is type(new.value):
            return
        if not (isinstance(old.value, str) and isinstance(new.value, str)):
            self.fault(old, f"{old.value!r} became {new.value!r}")
            return
        self.strings.append(f"{self.file}:{old.lineno}: {old.value!r} became {new.value!r}")
        words = WORD.findall(old.value), WORD.findall(new.value)
        renamed = all(a == b or b in self.renames.words[a] for a, b in zip(*words, strict=False))
        if len(words[0]) != len(words[1]) or not renamed or WORD.sub("", old.value) != WORD.sub("", new.value):
            self.fault(old, f"{old.value!r} became {new.value!r}")

    def compare_function(self, old: ast.FunctionDef, new: ast.FunctionDef, scope: str) -> None:
        self.same_name(old, old.name, new.name, self.expected(old.name, scope))
        inner = f"{scope}.{old.name}" if scope else old.name
        for field in ("decorator_list", "returns", "type_params"):
            self.compare(getattr(old, field, []), getattr(new, field, []), scope)
        self.compare_arguments(old.args, new.args, scope, inner)
        self.compare_body(old.body, new.body, inner)

    compare_FunctionDef = compare_AsyncFunctionDef = compare_function

    def compare_arguments(self, old: ast.arguments, new: ast.arguments, scope: str, inner: str = "") -> None:
        for field in old._fields:
            values = getattr(old, field), getattr(new, field)
            if field in ("defaults", "kw_defaults"):
                self.compare(*values, scope)
            else:
                self.compare(*values, inner or scope)

    def compare_ClassDef(self, old: ast.ClassDef, new: ast.ClassDef, scope: str) -> None:
        self.same_name(old, old.name, new.name, self.expected(old.name, scope))
        self.compare_fields(old, new, scope, ("name", "body"))
        self.compare_body(old.body, new.body, f"{scope}.{old.name}" if scope else old.name)

    def compare_ExceptHandler(self, old: ast.ExceptHandler, new: ast.ExceptHandler, scope: str) -> None:
        self.same_name(old, old.name, new.name, old.name and self.expected(old.name, scope))
        self.compare_fields(old, new, scope, ("name",))

    def compare_MatchAs(self, old: ast.MatchAs, new: ast.MatchAs, scope: str) -> None:
        self.same_name(old, old.name, new.name, old.name and self.expected(old.name, scope))
        self.compare_fields(old, new, scope, ("name",))

    compare_MatchStar = compare_MatchAs

    def compare_Global(self, old: ast.Global, new: ast.Global, scope: str) -> None:
        for first, second in zip(old.names, new.names, strict=True):
            self.same_name(old, first, second, self.expected(first, scope))

    compare_Nonlocal = compare_Global

    def compare_body(self, old: list[ast.stmt], new: list[ast.stmt], scope: str) -> None:
        self.compare_lists(statements(old), statements(new), scope)

    def compare_Module(self, old: ast.Module, new: ast.Module, scope: str) -> None:
        for place, node in imports(old):
            for alias in node.names:
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                self.imports[place][alias.asname or alias.name] = (module.removeprefix("tests."), alias.name)
        self.compare_body(old.body, new.body, "")

    def compare_ImportFrom(self, old: ast.ImportFrom, new: ast.ImportFrom, scope: str) -> None:
        module = (old.module or "").removeprefix("tests.")
        renamed = set()
        for alias in old.names:
            name = self.renames.top(module, alias.name)
            asname = name if alias.asname == alias.name else alias.asname and self.expected(alias.asname, scope)
            renamed.add((name, asname))
        names = {(alias.name, alias.asname) for alias in new.names}
        if old.module != new.module or renamed != names:
            self.fault(old, f"import of {sorted(map(str, renamed))} became {sorted(map(str, names))}")

    def compare_Import(self, old: ast.Import, new: ast.Import, scope: str) -> None:
        for first, second in zip(old.names, new.names, strict=True):
            self.same_name(old, first.name, second.name, first.name)
            self.same_name(old, first.asname, second.asname, first.asname and self.expected(first.asname, scope))


def statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Without a docstring; what is not a string that stands alone."""
    return [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]


def imports(tree: ast.Module) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    """With the scope of each."""

    def visit(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield scope, child
            elif isinstance(child, (*FUNCTIONS, ast.ClassDef)):
                yield from visit(child, f"{scope}.{child.name}" if scope else child.name)
            else:
                yield from visit(child, scope)

    return visit(tree, "")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def trees_of(commit: str) -> dict[str, ast.Module]:
    files = [name for name in git("ls-tree", "-r", "--name-only", commit).splitlines() if name.endswith(".py")]
    return {name: ast.parse(git("show", f"{commit}:{name}")) for name in files if name != "renames.py"}


def rows_in(commit: str) -> list[Row]:
    if "renames.csv" not in git("ls-tree", "--name-only", commit).splitlines():
        return []
    rows = csv.DictReader(git("show", f"{commit}:renames.csv").splitlines())
    return [(row["file"], row["scope"], row["old"], row["new"]) for row in rows]


def main() -> None:
    new = sys.argv[2] if len(sys.argv) > 2 else "HEAD"
    old = sys.argv[1] if len(sys.argv) > 1 else f"{new}^"
    before, after = trees_of(old), trees_of(new)
    earlier = rows_in(old)
    rows = [row for row in rows_in(new) if row not in set(earlier)]
    renames = Renames(rows, earlier, before)
    faults = [f"{name} is in one of them only" for name in sorted(before.keys() ^ after.keys())]
    strings = []
    for name in sorted(before.keys() & after.keys()):
        comparison = Comparison(name, renames)
        comparison.compare(before[name], after[name], "")
        faults += comparison.faults
        strings += comparison.strings
    print(*strings, *faults, sep="\n")
    print(f"{len(rows)} rows, {len(before)} files, {len(strings)} strings changed, {len(faults)} places not explained")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
