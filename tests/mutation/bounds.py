"""Check that each bound of the product has a test at its edge: for the last value that passes and the first that does not.

    .venv/bin/python -m tests.mutation.bounds                     every bound
    .venv/bin/python -m tests.mutation.bounds gateway.api.body    those of one module

A bound is a constant of a module with a name such as `_MOST_ROWS`, `MAX_DEPTH` or `_LEAST_CAP` that a value is compared
with. `bounds.toml` names the tests at its edge. With the bound a little larger at one of the places that read it, one of
them must fail, and with the bound a little smaller too. The texts of messages do not count.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.architecture.source_tree import Module, modules
from tests.mutation.mutants import Mutant
from tests.mutation.run import ROOT, import_what_tests_share, outcome_of, outcomes_of

__all__ = ["compared_bounds", "edge_tests"]

_NAME = re.compile(r"_?(MOST|MAX|LEAST|MIN)_[A-Z0-9_]+")
_CHANGES = {"larger": (1, 1.01), "smaller": (-1, 0.99)}
"""What is added to an integer, and by what another number is multiplied."""
_PARTS = ast.BinOp | ast.UnaryOp | ast.IfExp | ast.Call
"""What may stand around a bound in an operand of a comparison. Of calls, only `min` and `max` do."""


@dataclass(frozen=True)
class Use:
    """A place that reads a bound.

    Attributes:
        bound: The name of the bound after the name of its module.
        path: The file that reads it.
        line: The line of the place.
        column: Its position in the line, in bytes.
        is_compared: Whether it is an operand of a comparison.
    """

    bound: str
    path: Path
    line: int
    column: int
    is_compared: bool

    @property
    def file(self) -> str:
        """The file as `tests.mutation.run` names it."""
        return self.path.relative_to(ROOT).as_posix()


def edge_tests() -> dict[str, list[str]]:
    """Return the tests at the edge of each bound, as `bounds.toml` names them."""
    return {
        f"{module}.{name}": [tests] if isinstance(tests, str) else tests
        for module, names in tomllib.loads(Path(__file__).with_name("bounds.toml").read_text("utf-8")).items()
        for name, tests in names.items()
    }


def compared_bounds() -> set[str]:
    """Return the bounds of the product that a value is compared with. Another one, as of a slice, has no such edge."""
    return {bound for bound, uses in uses_of_bounds().items() if any(use.is_compared for use in uses)}


@cache
def uses_of_bounds() -> dict[str, list[Use]]:
    """Return the places that read each bound. The tests in the conformance kit have no bounds."""
    product = [module for name, module in modules().items() if not name.startswith("providers.conformance.")]
    bounds = {bound for module in product for bound in _bounds_in(module)}
    uses: dict[str, list[Use]] = defaultdict(list)
    for module in product:
        for use in _uses_in(module, bounds):
            uses[use.bound].append(use)
    return uses


def _bounds_in(module: Module) -> Iterator[str]:
    for node in module.tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and _NAME.fullmatch(name.id):
                    yield f"{module.name}.{name.id}"


def _uses_in(module: Module, bounds: set[str]) -> Iterator[Use]:
    known = {bound.rpartition(".")[2]: bound for bound in bounds if bound.rpartition(".")[0] == module.name}
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom):
            imported = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            known |= {name: bound for name, bound in imported.items() if bound in bounds}
    if known:
        yield from _reads_in(module.tree, module.path, known, is_compared=False)


def _reads_in(node: ast.AST, path: Path, known: dict[str, str], *, is_compared: bool) -> Iterator[Use]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and child.id in known:
            yield Use(known[child.id], path, child.lineno, child.col_offset, is_compared)
        is_part = is_compared and isinstance(child, _PARTS) and (not isinstance(child, ast.Call) or _is_choice(child))
        yield from _reads_in(child, path, known, is_compared=is_part or isinstance(child, ast.Compare))


def _is_choice(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("min", "max")


def _mutants_of(use: Use) -> dict[str, Mutant]:
    """Return the source with a larger bound at this place, and with a smaller one."""
    home, _, name = use.bound.rpartition(".")
    value = getattr(importlib.import_module(home), name)
    mutants = {}
    for side, (added, factor) in _CHANGES.items():
        lines = use.path.read_text("utf-8").splitlines(keepends=True)
        line = lines[use.line - 1].encode()
        before, after = line[: use.column].decode(), line[use.column :].decode()
        changed = f"({name} + {added})" if isinstance(value, int) else f"({name} * {factor})"
        lines[use.line - 1] = before + changed + after.removeprefix(name)
        mutants[side] = Mutant(use.line, f"{use.bound} is {side}", "".join(lines))
    return mutants


def _untested_sides(uses: list[Use], tests: list[str]) -> list[str]:
    """Return the sides of a bound that may change at every place without a failure of these tests."""
    left = [*_CHANGES]
    for is_quick in (True, False):
        for use in sorted(uses, key=lambda use: not use.is_compared):
            mutants = [mutant for side, mutant in _mutants_of(use).items() if side in left]
            for mutant, outcome in outcomes_of(use.file, mutants, tests, quick=is_quick) if mutants else ():
                if outcome != "survived":
                    left.remove(mutant.description.rpartition(" ")[2])
    return left


def main() -> None:
    """Change each bound, or those of the named modules, and print what no test at its edge detects."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.bounds", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help="such as gateway.api.body; default: all")
    options = parser.parse_args()
    os.chdir(ROOT)
    import_what_tests_share()
    chosen = {
        bound: tests
        for bound, tests in edge_tests().items()
        if not options.modules or bound.rpartition(".")[0] in options.modules
    }
    problems = 0
    for bound, tests in chosen.items():
        uses = uses_of_bounds()[bound]
        if outcome_of(uses[0].file, None, tests) != "survived":
            print(f"{bound}: its tests fail without a change", flush=True)
            problems += 1
            continue
        for side in _untested_sides(uses, tests):
            print(f"{bound}: no test at its edge fails if it is {side}", flush=True)
            problems += 1
    print(f"{len(chosen)} bounds, {problems} without a test at an edge")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
