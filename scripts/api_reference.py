"""Write the API reference of the public Python modules as Markdown, from their signatures and docstrings.

Docstrings use the sections `Args`, `Attributes`, `Returns`, `Raises` and `Example`. An example in the form of a doctest
becomes a block of Python, in which each expected result is an assertion.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import pairwise
from types import FunctionType, ModuleType

import gateway.app
import providers.contract
import providers.testkit

_PREFIXES: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Example):")
_ENTRY = re.compile(r" {4}([\w.]+): (.*)")

_CONTRACT_HEAD = """\
# API: providers.contract

All names that an adapter may import. [contract.md](../extend/contract.md) explains how they are used together, and
[adapters.md](../extend/adapters.md) has a complete adapter. These names change only after a deprecation.

`make generate` writes this page from the docstrings.
"""

_TESTKIT_HEAD = """\
# API: providers.testkit

Simulated providers for tests: what a simulator implements, and how it is served. [adapters.md](../extend/adapters.md)
has a complete simulator.

`make generate` writes this page from the docstrings.
"""

_APP_HEAD = """\
# API: gateway.app

All names that a program imports to embed the gateway. [architecture.md](../architecture.md) shows how the gateway
works.

`make generate` writes this page from the docstrings.
"""

_TOPICS: Mapping[str, str] = {
    "providers.adapter": "Adapter",
    "providers.registry": "Adapter",
    "providers.formats.json_adapter": "Adapter",
    "providers.formats.role_alternation": "Write messages and tool calls",
    "providers.formats.tool_calls": "Write messages and tool calls",
    "providers.formats.tool_results": "Write messages and tool calls",
    "providers.chat.requests": "Requests",
    "providers.chat.messages": "Messages",
    "providers.chat.answers": "Answers",
    "providers.chat.events": "Stream events",
    "providers.value": "Requests",
    "providers.reading.event_stream": "Read streams and answers",
    "providers.reading.json_object": "Write messages and tool calls",
    "providers.reading.assembler": "Read streams and answers",
    "providers.reading.folding": "Read streams and answers",
    "providers.wire": "HTTP messages",
    "providers.auth": "Credentials",
    "providers.failures": "Failures",
    "providers.reading.errors": "Classify errors",
    "providers.reading.rate_limits": "Classify errors",
    "providers.json_values": "JSON",
    "providers.sites": "Sites and territories",
    "providers.territories": "Sites and territories",
    "providers.catalogue": "Facts of models and prices",
    "providers.catalogue.facts_adapter": "Facts of models and prices",
    "providers.catalogue.headers": "Facts of models and prices",
    "providers.catalogue.models": "Facts of models and prices",
    "providers.evidence": "Sites and territories",
    "providers.catalogue.prices": "Facts of models and prices",
    "providers.matching.requirements": "Requirements of a request",
    "providers.embeddings.contract": "Embeddings",
    "providers.embeddings.values": "Embeddings",
    "providers.embeddings.openai_format": "Embeddings",
    "providers.embeddings.facts": "Embeddings",
    "providers.moderations.contract": "Moderations",
    "providers.moderations.values": "Moderations",
}
"""The heading under which the names of a module are listed, in the order of the headings."""


@dataclass(frozen=True, slots=True)
class Docs:
    """A parsed docstring.

    Attributes:
        text: The summary and the paragraphs after it.
        entries: Descriptions by name, of the sections `Args`, `Attributes` and `Raises`.
        returns: The section `Returns`, or empty.
        example: The section `Example`, or empty.
    """

    text: str
    entries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    returns: str = ""
    example: str = ""


def contract_page() -> str:
    """Return the page of `providers.contract`, grouped by topic."""
    topics: dict[str, list[str]] = {topic: [] for topic in _TOPICS.values()}
    for name in _exports(providers.contract):
        topics[_TOPICS[source_of(providers.contract, name)]].append(name)
    parts = [_CONTRACT_HEAD]
    for topic, names in topics.items():
        parts += [f"## {topic}\n", *(_entry(providers.contract, name, 3) for name in names)]
    return "\n".join(parts)


def testkit_page() -> str:
    """Return the page of `providers.testkit`."""
    return _plain_page(providers.testkit, _TESTKIT_HEAD)


def app_page() -> str:
    """Return the page of `gateway.app`."""
    return _plain_page(gateway.app, _APP_HEAD)


def docs_of(module: ModuleType, name: str) -> Docs:
    """Return the docs of an exported name: a class, a function or a constant."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(inspect.unwrap(value)):
        return parse(inspect.getdoc(value) or "")
    return parse(_constants(source_of(module, name)).get(name, ""))


def members_of(value: type) -> Iterator[tuple[str, property | FunctionType]]:
    """Yield the public properties and methods that a class defines itself, by name."""
    for name, member in vars(value).items():
        if not name.startswith("_") and (isinstance(member, property | FunctionType)):
            yield name, member


def fields_of(value: type) -> Mapping[str, str]:
    """Return the types of the public fields of a class, by name."""
    annotations = inspect.get_annotations(value)
    return {name: str(kind) for name, kind in annotations.items() if not name.startswith("_")}


def has_written_init(value: type) -> bool:
    """Return whether the source of a class has an `__init__`: not a generated one, and not that of a protocol."""
    init = vars(value).get("__init__")
    if not inspect.isfunction(init) or hasattr(value, "__dataclass_fields__"):
        return False
    return init.__module__ == value.__module__


def parameters_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters of a function or a class, without `self`."""
    return [item for item in inspect.signature(function).parameters.values() if item.name != "self"]


def source_of(module: ModuleType, name: str) -> str:
    """Return the module that defines a name which another module imports."""
    origin = _imports(module.__name__).get(name)
    if origin is None:
        return module.__name__
    return source_of(import_module(origin), name)


def parse(docstring: str) -> Docs:
    """Parse a docstring with sections."""
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in docstring.splitlines():
        match = _SECTION.fullmatch(line)
        if match is not None:
            current = match[1]
            sections[current] = []
        else:
            sections[current].append(line)
    return Docs(
        text="\n".join(sections[""]).strip(),
        entries={title: _entries(sections[title]) for title in ("Args", "Attributes", "Raises") if title in sections},
        returns=" ".join(line.strip() for line in sections.get("Returns", ())).strip(),
        example=inspect.cleandoc("\n".join(sections.get("Example", ()))),
    )


def _entries(lines: list[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    name = ""
    for line in lines:
        match = _ENTRY.fullmatch(line)
        if match is not None:
            name = match[1]
            entries[name] = match[2]
        elif line.strip():
            entries[name] += f" {line.strip()}"
    return entries


def _exports(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


def _plain_page(module: ModuleType, head: str) -> str:
    return "\n".join([head, *(_entry(module, name, 2) for name in _exports(module))])


def _entry(module: ModuleType, name: str, level: int) -> str:
    value = getattr(module, name)
    lines = [f"{'#' * level} `{name}`", ""]
    docs = docs_of(module, name)
    if inspect.isclass(value):
        if value.__name__ != name:
            lines += [f"Another name of `{value.__name__}`.", ""]
            return "\n".join(lines)
        lines += _class_lines(name, value, docs)
    elif inspect.isroutine(inspect.unwrap(value)):
        lines += [_signature(name, value), "", *_lines(docs)]
    else:
        lines += [docs.text, ""]
        if isinstance(value, frozenset):
            lines += [f"Its members: {', '.join(f'`{item}`' for item in sorted(value))}.", ""]
    return "\n".join(lines)


def _class_lines(name: str, value: type, docs: Docs) -> list[str]:
    lines: list[str] = []
    if has_written_init(value):
        lines += [_signature(name, value), ""]
    lines += _lines(docs, fields_of(value))
    for member, code in members_of(value):
        if isinstance(code, property):
            own = parse(inspect.getdoc(code) or "")
            kind = inspect.get_annotations(code.fget).get("return", "") if code.fget is not None else ""
            lines += [f"**`{name}.{member}`**: `{kind}`", "", *_lines(own)]
        else:
            own = parse(inspect.getdoc(code) or "")
            lines += [f"**{_signature(f'{name}.{member}', code)}**", "", *_lines(own)]
    return lines


def _signature(name: str, function: Callable[..., object]) -> str:
    """Return the signature as code in one line."""
    items: list[str] = []
    has_keywords = False
    for item in parameters_of(function):
        if item.kind is inspect.Parameter.KEYWORD_ONLY and not has_keywords:
            items.append("*")
            has_keywords = True
        prefix = _PREFIXES.get(item.kind, "")
        default = "" if item.default is inspect.Parameter.empty else f" = {item.default!r}"
        items.append(f"{prefix}{item.name}: {item.annotation}{default}")
    returns = ""
    if not inspect.isclass(function):
        returns = f" -> {inspect.signature(function).return_annotation}"
    return f"`{name}({', '.join(items)}){returns}`"


def _lines(docs: Docs, types: Mapping[str, str] | None = None) -> list[str]:
    lines = [docs.text, ""]
    for title in ("Args", "Attributes"):
        if entries := docs.entries.get(title):
            lines += [f"{'Arguments' if title == 'Args' else title}:", ""]
            for name, text in entries.items():
                kind = f" (`{types[name]}`)" if types and name in types else ""
                lines.append(f"- `{name}`{kind}: {text}")
            lines.append("")
    if docs.returns:
        lines += [f"Returns: {docs.returns}", ""]
    if raises := docs.entries.get("Raises"):
        lines += ["Raises:", "", *(f"- `{name}`: {text}" for name, text in raises.items()), ""]
    if docs.example:
        lines += [*_example(docs.example), ""]
    return lines


def _example(text: str) -> list[str]:
    if ">>>" not in text:
        return [f"Example: {text}"]
    code: list[str] = []
    for example in doctest.DocTestParser().get_examples(text):
        source = example.source.rstrip()
        code.append(f"assert {source} == {example.want.strip()}" if example.want else source)
    return ["Example:", "", "```python", *code, "```"]


@cache
def _imports(module: str) -> Mapping[str, str]:
    """Return the modules from which a module imports names at its top level."""
    imports: dict[str, str] = {}
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports |= {item.name: node.module for item in node.names if item.asname is None}
    return imports


@cache
def _constants(module: str) -> Mapping[str, str]:
    """Return the docstrings of a module's constants: the text after each assignment."""
    docs: dict[str, str] = {}
    body = _tree(module).body
    for node, after in pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if (
            isinstance(target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[target.id] = inspect.cleandoc(after.value.value)
    return docs


def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))
