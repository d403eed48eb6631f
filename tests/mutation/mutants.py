"""Create mutants of a module: the same source with one small error each, as people make them.

Docstrings, annotations, `__all__` and texts for people (strings with a space) stay unchanged, because only a reader can
check them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

__all__ = ["Mutant", "mutants_of"]

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.BitOr,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Mult: ast.Add,
}
_SWAPPED = {"any": "all", "all": "any", "min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    """One error: its line, a description, and the source with it."""

    line: int
    description: str
    source: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Yield each mutant in the order of the source."""
    tree = ast.parse(source)
    count = len(list(_change_points(tree)))
    for number in range(count):
        copy = deepcopy(tree)
        node, mutate, change = list(_change_points(copy))[number]
        before = ast.unparse(node)
        mutate()
        after = ast.unparse(node)
        description = f"{change}: {before[:70]!r} -> {after[:70]!r}" if before != after else change
        yield Mutant(node.lineno, " ".join(description.split()), ast.unparse(ast.fix_missing_locations(copy)))


def _change_points(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, object, str]]:
    """Yield every node that can be changed, with the function that changes it."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop(0)
        yield from _changes_of(node)
        pending[:0] = list(_descendants(node))


def _descendants(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST) or _is_excluded(item):
                continue
            yield item


def _is_excluded(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    return isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)


def _changes_of(node: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, object, str]]:
    def setting(name: str, value: object) -> object:
        return lambda: setattr(node, name, value)

    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                if type(op) in _COMPARED:
                    yield node, setting("ops", [*ops[:index], _COMPARED[type(op)](), *ops[index + 1 :]]), "comparison"
        case ast.BoolOp(op=op):
            yield node, setting("op", ast.Or() if isinstance(op, ast.And) else ast.And()), "and/or"
            for index in range(len(node.values)) if len(node.values) > 1 else ():
                kept = [value for position, value in enumerate(node.values) if position != index]
                yield node, setting("values", kept if len(kept) > 1 else [kept[0], kept[0]]), "condition left out"
        case ast.UnaryOp(op=ast.Not()):
            yield node, setting("op", ast.UAdd()) if False else _remove_not(node), "not left out"
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            yield node, setting("op", _COMPUTED[type(op)]()), "operator"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield node, setting("test", ast.UnaryOp(ast.Not(), test)), "test turned round"
        case ast.comprehension(ifs=[*tests]) if tests:
            pass
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield node, setting("value", ast.Constant(None)), "returns None"
        case ast.Expr(value=ast.Call()):
            yield node, setting("value", ast.Constant(None)), "call left out"
        case ast.Raise():
            yield node, setting("exc", ast.Call(ast.Name("RuntimeError", ast.Load()), [], [])), "another error"
        case ast.Call(func=ast.Name(id=name)) if name in _SWAPPED:
            yield node, setting("func", ast.Name(_SWAPPED[name], ast.Load())), "any/all/min/max"
        case ast.Constant(value=bool() as value):
            yield node, setting("value", not value), "constant"
        case ast.Constant(value=int() | float() as value):
            yield node, setting("value", value + 1), "constant"
        case ast.Constant(value=str() as value) if value and " " not in value:
            yield node, setting("value", f"{value}X"), "word"
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
        for clause in node.generators:
            for index in range(len(clause.ifs)):
                yield node, _remove_clause(clause, index), "filter left out"


def _remove_not(node: ast.UnaryOp) -> object:
    def change() -> None:
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)

    return change


def _remove_clause(clause: ast.comprehension, index: int) -> object:
    return lambda: clause.ifs.pop(index)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
