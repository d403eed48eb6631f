"""Every call to another server has a row in the page of the fence, and every row its call.

A call is found by the method that makes it. A module that imports one of the doors below without a call of its own passes
the door on, so it is listed here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from scripts.outgoing_calls import counting_providers, outgoing_calls
from tests.architecture.source_tree import ROOT, Module, modules

DOORS = {"PlanExecutor": "run", "UpstreamClient": "send, send_alone and count", "ServiceClient": "call"}
"""What makes calls, and its methods that do."""
PASS_ON = {
    "gateway/server/workers.py",
    "gateway/features/feature.py",
    "gateway/features/shadow/feature.py",
    "gateway/service/claim_issuer.py",
    "gateway/identity/client_tokens.py",
    "gateway/features/crisis/gate.py",
    "gateway/service/location.py",
    "gateway/service/moderation.py",
    "gateway/identity/operator_tokens.py",
}
_METHODS = {
    "run": ("executor", "runner"),
    "send": ("client",),
    "send_alone": (),
    "count": ("client",),
    "call": ("services",),
}
"""The methods of the doors, and the last words of the names under which the doors are known; any name if there is none."""
# Also where they are mentioned only: a class of connections may be chosen first.
_CONNECTS = {
    "create_connection",
    "open_connection",
    "create_unix_connection",
    "HTTPConnection",
    "HTTPSConnection",
    "AsyncClient",
}
_ELSEWHERE = ("providers.client", "providers.conformance.", "providers.testkit.", "providers.transport.")
"""The client for programs without a gateway, the kit, simulators, and the pool behind the doors."""


def calls_of(module: Module) -> Iterator[str]:
    """Yield each function that makes a call, as `PATH QUALIFIED_NAME`."""
    path = module.path.relative_to(ROOT).as_posix()

    def within(node: ast.AST, name: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            is_scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            inner = f"{name}.{child.name}" if is_scope else name  # type: ignore[attr-defined]
            if is_call(child):
                yield f"{path} {name.removeprefix('.')}"
            yield from within(child, inner)

    if any(map(is_call, module.nodes)):
        yield from within(module.tree, "")


def is_call(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute | ast.Name):
        return name_of(node) in _CONNECTS
    if not isinstance(node, ast.Call) or not isinstance(function := node.func, ast.Attribute):
        return False
    receiver = name_of(function.value)
    if function.attr == "connect":
        return receiver == "asyncpg"
    known = _METHODS.get(function.attr)
    return known is not None and (not known or receiver.lower().endswith(known))


def name_of(node: ast.AST) -> str:
    """Return the last word of `a.b`, `b` and `B(...)`."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=function):
            return name_of(function)
    return ""


def test_every_call_has_a_row_and_every_row_its_call() -> None:
    found = {call for name, module in modules().items() if not name.startswith(_ELSEWHERE) for call in calls_of(module)}
    rows = {call for row in outgoing_calls()["calls"] for call in row["made_in"]}
    assert found - rows == set(), "add these calls to scripts/outgoing_calls.toml, and run `make generate`"
    assert rows - found == set(), "remove these calls from scripts/outgoing_calls.toml"


def test_every_module_that_holds_a_door_makes_a_call_or_passes_it_on() -> None:
    """A call under another name would not be found."""
    rows = {call.partition(" ")[0] for row in outgoing_calls()["calls"] for call in row["made_in"]}
    holding = {
        module.path.relative_to(ROOT).as_posix()
        for module in modules().values()
        for node in module.nodes
        if isinstance(node, ast.ImportFrom) and any(alias.name in DOORS for alias in node.names)
    }
    assert holding - rows == PASS_ON


def test_a_call_with_a_byte_of_a_request_has_a_permit() -> None:
    """The rows with another permit are those of modules that have no request."""
    data = outgoing_calls()
    assert {call["permit"] for call in data["calls"]} == data["permits"].keys()
    for call in data["calls"]:
        assert bool(call["made_in"]) == (call["permit"] != "none"), call["what"]


def test_page_names_the_providers_that_count() -> None:
    assert counting_providers() == ["anthropic-vertex", "llamacpp", "sglang", "vllm"]
