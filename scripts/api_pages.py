"""Generate the pages of the names that authors of adapters and of simulators import, from the docstrings.

They are read by griffe without an import, as `docs/reference/api-app.md` is shown on the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
OPTIONS = {"returns_named_value": False, "returns_multiple_items": False, "warnings": False}
"""How griffe reads a docstring."""
_CONTRACT = """\
# API: providers.contract

All names that an adapter may import, in the order of the alphabet. They change only after a deprecation.
[The adapter contract](../extend/contract.md) explains how they are used together, and
[Write an adapter](../extend/adapters.md) has a complete adapter.
"""
_TESTKIT = """\
# API: providers.testkit

Simulated providers for tests: what a simulator implements, and how it is served.
[Write an adapter](../extend/adapters.md) has a complete simulator.
"""


def contract_page() -> str:
    """Return docs/reference/api-contract.md."""
    return _CONTRACT + "".join(_entries("providers.contract"))


def testkit_page() -> str:
    """Return docs/reference/api-testkit.md."""
    return _TESTKIT + "".join(_entries("providers.testkit"))


@cache
def module_of(name: str) -> griffe.Module:
    """Return a module of this repository as griffe reads it. A whole package would take two seconds."""
    path = ROOT.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return griffe.visit(name.rpartition(".")[2], file, file.read_text("utf-8"))


def names_of(module: str) -> list[str]:
    """Return the names of a public face: those that it lists, or else those that it imports."""
    shown = module_of(module)
    return sorted(map(str, shown.exports or shown.members), key=str.lower)


def export_of(module: str, name: str) -> griffe.Object:
    """Return what a module exports under this name, from the module that defines it."""
    item = module_of(module)[name]
    while isinstance(item, griffe.Alias):
        where, _, what = item.target_path.rpartition(".")
        item = module_of(where)[what]
    if not isinstance(item, griffe.Object):
        raise TypeError(f"{module}.{name} is not defined in this repository")
    return item


def _entries(module: str) -> Iterator[str]:
    for name in names_of(module):
        item = export_of(module, name)
        yield f"\n## {name}\n\n`{_signature(item)}`\n\n" + "\n".join(_described(item)) + "\n"


def _signature(item: griffe.Object) -> str:
    match item:
        case griffe.Class():
            bases = ", ".join(str(base) for base in item.bases)
            return f"class {item.name}({bases})" if bases else f"class {item.name}"
        case griffe.Function():
            return f"{item.name}{_parameters(item)}"
        case griffe.Attribute():
            return (
                f"{item.name}: {_type(item.annotation)}"
                if item.annotation is not None
                else f"{item.name} = {item.value}"
            )
    return item.name


def _parameters(function: griffe.Function) -> str:
    names = [
        f"{parameter.name}: {_type(parameter.annotation)}" if parameter.annotation is not None else parameter.name
        for parameter in function.parameters
        if parameter.name not in ("self", "cls")
    ]
    return f"({', '.join(names)}) -> {_type(function.returns)}"


def _type(annotation: object) -> str:
    """Return a type as an author of a plug-in writes it, who imports each name."""
    return re.sub(r"\bchat\.", "", str(annotation))


def _described(item: griffe.Object) -> Iterator[str]:
    """Yield the lines of a docstring, its arguments and result as a list, then the fields and methods of a class."""
    for section in item.docstring.parse("google", **OPTIONS) if item.docstring else ():
        match section:
            case griffe.DocstringSectionText():
                yield section.value
            case griffe.DocstringSectionExamples():
                yield from (f"\n```pycon\n{text}\n```" for _, text in section.value)
            case griffe.DocstringSectionParameters() | griffe.DocstringSectionAttributes():
                yield ""
                yield from (f"- `{_typed(entry)}`: {_line(entry.description)}" for entry in section.value)
            case griffe.DocstringSectionReturns():
                yield from (f"\nReturns: {_line(entry.description)}" for entry in section.value)
    members = item.members.values() if isinstance(item, griffe.Class) else ()
    own = [it for it in members if isinstance(it, griffe.Object) and it.docstring and not it.name.startswith("_")]
    if own:
        yield ""
        yield from (f"- `{_signature(it)}`: {_about(it.docstring.value)}" for it in own if it.docstring)


def _typed(entry: griffe.DocstringNamedElement) -> str:
    return f"{entry.name}: {entry.annotation}" if entry.annotation is not None else entry.name


def _about(docstring: str) -> str:
    """Return the first paragraph: all of a field's text, and the summary of a method."""
    return _line(docstring.partition("\n\n")[0])


def _line(text: str) -> str:
    return " ".join(text.split())
