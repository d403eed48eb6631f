"""Every exported name of the public modules is documented, a class with its arguments, and the examples run.

`docs/reference/api-*.md` have these docstrings, read by griffe as here.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Collection, Iterator
from types import ModuleType

import griffe
import pytest

import gateway.app
import providers.contract
import providers.testkit
from scripts.api_pages import OPTIONS, export_of, names_of

MODULES = (providers.contract, providers.testkit, gateway.app)
EXPORTS = [(module.__name__, name) for module in MODULES for name in names_of(module.__name__)]


def described(item: griffe.Object) -> dict[str, set[str]]:
    """Return the names that each section of a docstring describes."""
    names: dict[str, set[str]] = {}
    for section in item.docstring.parse("google", **OPTIONS) if item.docstring else ():
        match section:
            case griffe.DocstringSectionParameters() | griffe.DocstringSectionAttributes():
                names[section.kind.value] = {entry.name for entry in section.value}
    return names


def gaps_of(item: griffe.Object, inherited: Collection[str] = ()) -> Iterator[str]:
    """Yield the parts of a class, a function or a constant that its docstring lacks or has wrong.

    The base of a class describes members that are `inherited`.
    """
    if not item.docstring:
        yield f"{item.name}: a summary"
    elif isinstance(item, griffe.Function):
        for name in described(item).get("parameters", set()).difference(parameters_of(item)):
            yield f"{item.name}: {name} is no argument"
    elif isinstance(item, griffe.Class):
        documented = described(item)
        for name, member in item.members.items():
            if isinstance(member, griffe.Object) and not name.startswith("_"):
                if name not in documented.get("attributes", ()) and (member.docstring or name not in inherited):
                    yield from gaps_of(member)
            elif name == "__init__" and isinstance(member, griffe.Function) and "dataclass" not in item.labels:
                named = documented.get("parameters", set())
                yield from (f"the argument {name}" for name in parameters_of(member) if name not in named)


def parameters_of(function: griffe.Function) -> list[str]:
    """Return the names of the parameters of a function, without `self`."""
    return [parameter.name for parameter in function.parameters if parameter.name not in ("self", "cls")]


@pytest.mark.parametrize(("module", "name"), EXPORTS, ids=[".".join(export) for export in EXPORTS])
def test_exported_name_is_documented(module: str, name: str) -> None:
    bases = getattr(getattr(importlib.import_module(module), name), "__mro__", ())[1:]
    gaps = list(gaps_of(export_of(module, name), {member for base in bases for member in vars(base)}))
    assert not gaps, f"{name}: the docstring lacks, or has wrong: {', '.join(gaps)}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_of_docstrings_run(module: ModuleType) -> None:
    finder, runner = doctest.DocTestFinder(recurse=True), doctest.DocTestRunner()
    values = [getattr(module, name) for name in names_of(module.__name__)]
    for value in (value for value in values if inspect.isclass(value) or inspect.isroutine(inspect.unwrap(value))):
        for example in finder.find(inspect.unwrap(value), value.__name__):
            runner.run(example)
    assert runner.failures == 0
    assert runner.tries > 0 or module is gateway.app


def test_missing_summary_and_wrong_argument_are_reported() -> None:
    """The signature shows names and types. A docstring has what they do not show."""
    code = '''
def add(one: int, two: int) -> int:
    """Add.

    Args:
        three: A number.
    """
def take(one: int) -> int: ...
class Sum:
    """A sum."""
    def __init__(self, one: int) -> None: ...
'''
    with griffe.temporary_visited_module(code) as module:
        gaps = [gap for name in ("add", "take", "Sum") for gap in gaps_of(module[name])]
    assert gaps == ["add: three is no argument", "take: a summary", "the argument one"]
