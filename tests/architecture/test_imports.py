"""The plan of the house, held by the syntax trees: imports flow downwards, and each library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("providers/**/*.py")])

# What each part of the gateway may import of the gateway, besides itself.
BELOW = {
    "model": set(),
    "policy": {"model"},
    "execution": {"model"},
    "config": {"model", "geoip"},
    "service": {"policy", "execution", "model", "geoip"},
    "telemetry": {"model"},
    "state": {"model"},
    "switching": {"policy", "model", "signing"},
    "api": {"service", "policy", "execution", "model"},
    "evaluate": {"config", "policy", "execution", "model", "state"},
}
# Third-party libraries, and the only places that may import them.
HOMES = {
    "fastapi": ("gateway/api/admin.py", "gateway/api/routes.py"),
    "fastapi_offline": ("gateway/api/routes.py",),
    "starlette": ("gateway/api/routes.py",),
    "httpx": (
        "gateway/execution/httpx_transport.py",
        "gateway/demo.py",
        "providers/client.py",
        "providers/transport",
    ),
    "httptools": ("providers/transport", "gateway/protocol.py"),
    "aiohappyeyeballs": ("providers/transport",),
    "babel": ("gateway/config/locales.py", "gateway/config/profiles.py"),
    "certifi": ("providers/transport",),
    "google": ("providers/signing/google.py",),
    "botocore": ("providers/signing/sigv4.py",),
    "tenacity": ("gateway/execution/run.py",),
    "uvicorn": ("gateway/serve.py", "gateway/protocol.py", "gateway/cycle.py", "providers/simulator/server.py"),
    "uvloop": ("gateway/serve.py", "providers/simulator/server.py"),
    "structlog": ("gateway/telemetry/log.py",),
    "opentelemetry": ("gateway/telemetry/otlp.py",),
    "prometheus_client": ("gateway/telemetry/exposition.py",),
    "pydantic": ("gateway/config", "gateway/evaluate", "gateway/settings.py", "gateway/cli.py"),
    "pydantic_core": ("gateway/config",),
    "pydantic_settings": ("gateway/settings.py",),
    "yaml": ("gateway/config",),
    "orjson": ("gateway/api", "gateway/protocol.py", "gateway/telemetry", "providers/json_values.py"),
    "jwt": ("gateway/policy/claims.py",),
    "cryptography": ("gateway/signing.py",),
    "maxminddb": ("gateway/geoip.py",),
    "jinja2": ("gateway/evaluate/page.py",),
    "jsonschema": ("gateway/evaluate/scorers.py",),
    "matplotlib": ("gateway/evaluate/charts.py",),
    "numpy": ("gateway/evaluate/statistics.py", "gateway/evaluate/load.py"),
    "rich": ("gateway/evaluate/progress.py",),
    "scipy": ("gateway/evaluate/statistics.py",),
    "pytest": ("providers/conformance",),
    "hypothesis": ("providers/conformance",),
}
_PROVIDERS = ("anthropic", "bedrock", "dashscope", "gemini", "openai", "vertex")
PURE = ("gateway/policy", "gateway/model", "gateway/switching", "providers/adapters", "providers/codec")
IMPURE = {"asyncio", "socket", "time", "random", "os", "logging", "httpx", "threading", "subprocess", "secrets"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            yield node.module or "", node.lineno


def stdlib(name: str) -> bool:
    import sys

    return name.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_flow_downwards(path: Path) -> None:
    here = name_of(path)
    package = here.split("/")[1] if here.count("/") > 1 else ""
    for name, line in imports_of(path):
        place = f"{here}:{line} imports {name}"
        if here.startswith("providers/"):
            assert not name.startswith("gateway"), place
        elif name.startswith("gateway.") and package in BELOW:
            assert name.split(".")[1] in BELOW[package] | {package}, place


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_library_has_one_home(path: Path) -> None:
    here = name_of(path)
    for name, line in imports_of(path):
        library = name.partition(".")[0]
        if library in ("gateway", "providers") or stdlib(name):
            continue
        assert library in HOMES, f"{here}:{line}: {library} has no home yet"
        assert here.startswith(HOMES[library]), f"{here}:{line}: {library} lives in {HOMES[library]}"


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith(PURE)], ids=name_of)
def test_what_is_pure_has_no_clock_no_chance_and_no_io(path: Path) -> None:
    for name, line in imports_of(path):
        assert name.partition(".")[0] not in IMPURE, f"{name_of(path)}:{line} imports {name}"


def makers_of(permit: str) -> list[str]:
    return [
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == permit
    ]


def test_only_the_fence_makes_permits_for_prompts_and_only_the_compiler_those_for_services() -> None:
    assert makers_of("Permit") == ["gateway/policy/fence.py"]
    assert makers_of("ServicePermit") == ["gateway/config/services.py"]


def test_only_an_evaluation_asks_for_a_permit_that_waives_an_approval() -> None:
    """Traffic never does: `decide` takes a candidate from `gateway.evaluate` alone, and nobody else imports that."""
    for path in MODULES:
        here = name_of(path)
        asks = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.keyword) and node.arg == "evaluating"
        ]
        assert not asks or here.startswith(("gateway/evaluate/", "gateway/policy/routing.py")), f"{here}:{asks}"
        names = {name for name, _ in imports_of(path)}
        if not here.startswith("gateway/evaluate/") and here != "gateway/evaluate_commands.py":
            assert not any(name.startswith("gateway.evaluate.") for name in names), here
        if "evaluation_permit" in path.read_text("utf-8"):
            assert here in ("gateway/policy/fence.py", "gateway/policy/routing.py", "gateway/evaluate/asking.py"), here


def test_no_module_names_the_providers_in_code() -> None:
    """Adding a provider touches its own files: no list, enum or match of names stands anywhere else."""
    for path in MODULES:
        here = name_of(path)
        if here.startswith(("providers/adapters", "providers/simulator")):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in _PROVIDERS:
                raise AssertionError(f"{here}:{node.lineno} names the provider {node.value!r}")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{name_of(path)} has no docstring"
