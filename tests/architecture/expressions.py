"""All regular expressions of the product: those that modules hold, and those that stand in calls."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tests.architecture.source_tree import ROOT

_PACKAGES = ("gateway", "providers", "evaluation")
_SEARCHES = frozenset({"search", "sub", "subn", "split", "findall", "finditer"})
_METHODS = _SEARCHES | {"match", "fullmatch"}
_MOST_LEVELS = 6


@dataclass(frozen=True)
class Expression:
    """One expression, where it stands, and the methods by which it is used; None if no module uses it by its name."""

    place: str
    pattern: str | bytes
    flags: int
    methods: frozenset[str] = field(default=frozenset())

    @property
    def searches(self) -> bool:
        return not self.methods or not self.methods.isdisjoint(_SEARCHES)

    @property
    def whole(self) -> bool:
        return self.methods == {"fullmatch"}


def _modules() -> Iterator[tuple[str, ModuleType, ast.Module]]:
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.name.startswith(("test_", "conftest", "__main__")):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                yield name, importlib.import_module(name), ast.parse(path.read_text("utf-8"))


def _patterns_in(value: Any, levels: int = 0) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the expressions in a value of a module, and where in it they are."""
    if isinstance(value, re.Pattern):
        yield "", value
        return
    if levels == _MOST_LEVELS or isinstance(value, type | ModuleType) or callable(value):
        return
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = enumerate(value)
    elif type(value).__module__.partition(".")[0] in _PACKAGES:
        kind = type(value)
        names = (
            getattr(kind, "__struct_fields__", ()) or getattr(kind, "__slots__", ()) or getattr(value, "__dict__", ())
        )
        inner = [(name, getattr(value, name, None)) for name in names]
    for name, item in inner:
        for path, found in _patterns_in(item, levels + 1):
            yield f".{name}{path}", found


def _assigned(tree: ast.Module) -> set[str]:
    """Return the names that a module itself gives values."""
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _value_of(node: ast.expr, module: ModuleType) -> Any:
    return eval(compile(ast.Expression(node), "", "eval"), vars(module))  # noqa: S307  # the product's own source


def _in_calls(name: str, module: ModuleType, tree: ast.Module) -> Iterator[Expression | str]:
    """Yield the expressions in calls of `re`, and as a text those that are made when the product runs."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[first, *others]):
                pass
            case _:
                continue
        if method not in {*_METHODS, "compile"}:
            continue
        around = [it.name for it in functions if it.lineno <= node.lineno <= (it.end_lineno or 0)]
        place = f"{name}:{around[-1]}" if around else name
        flags = 0
        for other in [*others, *(it.value for it in node.keywords if it.arg == "flags")]:
            with suppress(Exception):
                flags |= int(value) if isinstance(value := _value_of(other, module), re.RegexFlag) else 0
        try:
            pattern = _value_of(first, module)
        except NameError:
            yield f"{place}: {ast.unparse(first)}"
            continue
        if method != "compile" or around:
            yield Expression(place, pattern, flags, frozenset({method}) & _METHODS)


def expressions() -> tuple[list[Expression], list[str]]:
    """Return all expressions, and the places of those that are made when the product runs."""
    modules = [*_modules()]
    uses: dict[str, set[str]] = {}
    for _, _, tree in modules:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in _METHODS:
                match node.value:
                    case ast.Name(id=name) | ast.Attribute(attr=name):
                        uses.setdefault(name, set()).add(node.attr)
    found: list[Expression] = []
    made: list[str] = []
    for name, module, tree in modules:
        for one in _in_calls(name, module, tree):
            if isinstance(one, Expression):
                found.append(one)
            else:
                made.append(one)
        for variable in sorted(_assigned(tree)):
            for path, pattern in _patterns_in(vars(module).get(variable)):
                methods = frozenset(uses.get(path.rpartition(".")[2] if path else variable, ()))
                found.append(Expression(f"{name}:{variable}{path}", pattern.pattern, pattern.flags, methods))
    return found, made
