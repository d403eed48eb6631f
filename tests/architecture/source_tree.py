"""The source of the three packages, read once: every module with its imports, and which module imports which.

An import counts as one of three kinds:

- `eager`: runs when the module is imported;
- `lazy`: inside a function or an `if __name__ == "__main__"` block, runs later or never;
- `types`: inside `if TYPE_CHECKING`, never runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PACKAGES = ("evaluation", "gateway", "providers")

Kind = Literal["eager", "lazy", "types"]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name. `target` is a module of these packages or the name of another library's module."""

    target: str
    line: int
    kind: Kind


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One file. `name` is dotted; a package's `__init__.py` has the package's name."""

    name: str
    path: Path
    lines: int
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    imports: tuple[Import, ...]

    @property
    def is_package(self) -> bool:
        """Whether this is an `__init__.py`."""
        return self.path.name == "__init__.py"


@cache
def modules() -> Mapping[str, Module]:
    """Return every module of the packages by its dotted name."""
    paths = {_name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
    return {name: _read(name, path, paths) for name, path in paths.items()}


def module_at(path: Path) -> Module:
    """Return the module in this file."""
    return modules()[_name_of(path)]


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _read(name: str, path: Path, known: Mapping[str, Path]) -> Module:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    imports = tuple(_imports_in(tree.body, "eager", known))
    return Module(name, path, text.count("\n"), tree, tuple(ast.walk(tree)), imports)


def _imports_in(statements: Iterable[ast.stmt], kind: Kind, known: Mapping[str, Path]) -> Iterator[Import]:
    for node in statements:
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno, kind) for alias in names)
            case ast.ImportFrom(module=module, names=names):
                # `from gateway.model import route` names a module, `from gateway.model.route import Route` does not.
                for alias in names:
                    inner = f"{module}.{alias.name}"
                    yield Import(inner if inner in known else module or "", node.lineno, kind)
            case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body):
                yield from _imports_in(body, "lazy" if kind == "eager" else kind, known)
            case ast.If(test=test, body=body, orelse=orelse):
                yield from _imports_in(body, _kind_under(test, kind), known)
                yield from _imports_in(orelse, kind, known)
            case _:
                yield from _imports_in(_blocks_of(node), kind, known)


def _kind_under(test: ast.expr, kind: Kind) -> Kind:
    words = {word.id if isinstance(word, ast.Name) else getattr(word, "attr", "") for word in ast.walk(test)}
    if "TYPE_CHECKING" in words:
        return "types"
    return "lazy" if "__name__" in words and kind == "eager" else kind


def _blocks_of(node: ast.stmt) -> Iterator[ast.stmt]:
    """Return the statements inside a compound statement other than a function or an `if`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


def our_imports(kinds: Iterable[Kind] = ("eager", "lazy", "types")) -> Iterator[tuple[Module, Module, int]]:
    """Yield each import from one module of the packages to another: importer, imported module, line."""
    wanted, known = set(kinds), modules()
    for module in known.values():
        for one in module.imports:
            if one.kind in wanted and one.target in known and one.target != module.name:
                yield module, known[one.target], one.line


def circles(kinds: Iterable[Kind]) -> list[list[str]]:
    """Return groups of modules that import each other, directly or through others (Tarjan's algorithm)."""
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for module, imported, _ in our_imports(kinds):
        graph[module.name].add(imported.name)
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in number:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], number[target])
        if lowest[name] == number[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return sorted(found)


def closure_of(*entries: str) -> set[str]:
    """Return everything that importing these modules imports: modules of the packages and top-level names of libraries."""
    known = modules()
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        parents = name.rpartition(".")[0]
        if name in found:
            continue
        found.add(name)
        if name not in known:
            found.add(name.partition(".")[0])
            continue
        waiting += [parents] if parents else []
        waiting += [one.target for one in known[name].imports if one.kind == "eager"]
    return found


def functions() -> Iterator[tuple[Module, str, Function]]:
    """Yield every function and method with its qualified name."""
    for module in modules().values():
        yield from ((module, name, node) for name, node in _functions_in(module.tree, module.name))


def _functions_in(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from _functions_in(child, name)
        else:
            yield from _functions_in(child, prefix)
