"""Every exported name of the public modules is documented with the sections that its API reference needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from types import ModuleType

import pytest

import gateway.app
import providers.contract
import providers.testkit
from scripts.api_reference import Docs, docs_of, fields_of, has_written_init, members_of, parameters_of, parse

MODULES: tuple[ModuleType, ...] = (providers.contract, providers.testkit, gateway.app)
EXPORTS = [(module, name) for module in MODULES for name in module.__all__]


def gaps_of_function(function: Callable[..., object], docs: Docs) -> Iterator[str]:
    """Yield the parts of a function that its docstring does not document. A member may refer to its protocol."""
    if not docs.text:
        yield "a summary"
    if docs.text.startswith("See `"):
        return
    documented = docs.entries.get("Args", {}).keys()
    yield from (f"the argument {item.name}" for item in parameters_of(function) if item.name not in documented)
    if inspect.signature(function).return_annotation not in ("None", None) and not docs.returns:
        yield "the returned value"


def gaps_of_class(value: type, docs: Docs) -> Iterator[str]:
    """Yield the parts of a class that its docstrings do not document."""
    if not docs.text:
        yield "a summary"
    attributes = docs.entries.get("Attributes", {}).keys()
    names = list(value.__members__) if issubclass(value, Enum) else list(fields_of(value))
    documented = attributes | dict(members_of(value)).keys()
    yield from (f"the attribute {name}" for name in names if name not in documented)
    if has_written_init(value):
        arguments = docs.entries.get("Args", {}).keys()
        yield from (f"the argument {item.name}" for item in parameters_of(value) if item.name not in arguments)
    for name, member in members_of(value):
        if isinstance(member, property):
            if not inspect.getdoc(member):
                yield f"{name}: a summary"
        else:
            yield from (f"{name}: {gap}" for gap in gaps_of_function(member, parse(inspect.getdoc(member) or "")))


@pytest.mark.parametrize(("module", "name"), EXPORTS, ids=[f"{module.__name__}.{name}" for module, name in EXPORTS])
def test_exported_name_is_documented_with_its_arguments_and_results(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    docs = docs_of(module, name)
    if inspect.isclass(value):
        gaps = list(gaps_of_class(value, docs))
    elif inspect.isroutine(inspect.unwrap(value)):
        gaps = list(gaps_of_function(value, docs))
    else:
        gaps = [] if docs.text else ["a summary"]
    assert not gaps, f"{name}: the docstring does not document: {', '.join(gaps)}"


def test_parse_splits_a_docstring_into_its_sections() -> None:
    docs = parse(
        "Do it.\n\nMore.\n\nArgs:\n    one: The first,\n        on two lines.\n    two: The second.\n\n"
        "Returns:\n    The result.\n\nRaises:\n    ValueError: It is wrong.\n\nExample:\n    >>> 1 + 1\n    2"
    )
    assert docs == Docs(
        text="Do it.\n\nMore.",
        entries={
            "Args": {"one": "The first, on two lines.", "two": "The second."},
            "Raises": {"ValueError": "It is wrong."},
        },
        returns="The result.",
        example=">>> 1 + 1\n2",
    )


def test_undocumented_argument_and_result_are_reported() -> None:
    def function(one: int, two: int) -> int:
        return one + two

    gaps = list(gaps_of_function(function, parse("Add.\n\nArgs:\n    one: A number.")))
    assert gaps == ["the argument two", "the returned value"]
