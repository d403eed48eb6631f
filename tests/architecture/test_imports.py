"""Architecture rules checked on the syntax trees: where each library may be imported, and which modules stay pure."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

from tests.architecture.source_tree import PACKAGES, module_at

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in PACKAGES for path in ROOT.glob(f"{package}/**/*.py"))

# Third-party libraries, and the only modules that may import them.
HOMES = {
    "fastapi": (
        "gateway/api/admin_clients.py",
        "gateway/api/admin_config.py",
        "gateway/api/admin_request.py",
        "gateway/api/admin_routes.py",
        "gateway/api/feature_paths.py",
        "gateway/api/public_routes.py",
    ),
    "fastapi_offline": ("gateway/api/public_routes.py",),
    "starlette": (
        "gateway/api/admin_config.py",
        "gateway/api/admin_routes.py",
        "gateway/api/feature_paths.py",
        "gateway/api/public_routes.py",
    ),
    "httpx": ("gateway/server/demo.py", "providers/client.py"),
    "httptools": ("providers/transport", "gateway/server/request_head.py", "gateway/server/http_protocol.py"),
    "aiohappyeyeballs": ("providers/transport",),
    "babel": (
        "evaluation/figures.py",
        "gateway/console/world.py",
        "gateway/console/texts.py",
        "gateway/config/locales.py",
        "gateway/config/profiles.py",
    ),
    "certifi": ("providers/transport",),
    "google": ("providers/signing/google.py",),
    "botocore": ("providers/signing/sigv4.py",),
    "tenacity": ("gateway/execution/run.py",),
    "uvicorn": (
        "gateway/server/uvicorn_server.py",
        "gateway/server/http_protocol.py",
        "gateway/server/request_cycle.py",
        "gateway/server/request_head.py",
        "gateway/server/idle_timeout.py",
        "gateway/server/websocket_connection.py",
        "providers/testkit/server.py",
    ),
    "websockets": ("gateway/server/websocket_connection.py",),
    "uvloop": ("gateway/server/uvicorn_server.py",),
    "structlog": ("gateway/telemetry/log.py",),
    "opentelemetry": ("gateway/telemetry/otlp.py",),
    "prometheus_client": ("gateway/telemetry/exposition.py",),
    "pydantic": ("gateway/config", "gateway/features", "gateway/litellm", "evaluation", "gateway/settings.py"),
    "pydantic_core": ("gateway/config",),
    "pydantic_settings": ("gateway/settings.py",),
    "yaml": ("gateway/config",),
    "orjson": ("gateway/api", "gateway/server/http_protocol.py", "gateway/telemetry", "providers/json_values.py"),
    "jwt": ("gateway/policy/location/claim_verification.py",),
    "cryptography": ("gateway/signing.py", "gateway/config/links.py"),
    "maxminddb": ("gateway/geoip.py",),
    "lmdb": tuple(f"gateway/usage/journal{part}.py" for part in ("", "_file", "_queue", "_reading")),
    "zstandard": ("gateway/api/compressed_body.py",),
    "re2": ("gateway/features/redaction/policy/finding.py",),
    "asyncpg": ("gateway/cell/postgres.py",),
    "libvalkey": ("gateway/cell/valkey_connection.py",),
    "msgspec": (
        "gateway/cli",
        "gateway/features",
        "gateway/model",
        "gateway/execution",
        "gateway/policy",
        "gateway/service",
        "gateway/api/caller",
        "gateway/api/websocket/session.py",
        "gateway/api/websocket/turn.py",
        "gateway/api/dialects",
        "gateway/cell",
        "gateway/identity",
        "gateway/usage",
        "providers/catalogue/__init__.py",
        "providers/catalogue/models.py",
        "providers/openai_json/read_answer.py",
        "providers/reading/assembler.py",
        "providers/value.py",
    ),
    "jinja2": ("gateway/cli/evidence.py", "gateway/console/views.py", "evaluation/report.py"),
    "jsonschema": ("evaluation/checks.py", "gateway/execution/json_schemas.py"),
    "jsonschema_specifications": ("gateway/execution/json_schemas.py",),  # of jsonschema
    "referencing": ("evaluation/checks.py",),  # of jsonschema
    "numpy": ("evaluation/statistics.py", "evaluation/load.py"),
    "rich": ("evaluation/run.py",),
    "scipy": ("evaluation/statistics.py",),
    "pytest": ("providers/conformance",),
    "hypothesis": ("providers/conformance",),
}
_PROVIDERS = ("anthropic", "bedrock", "dashscope", "gemini", "openai", "vertex")
PURE = (
    "gateway/policy",
    "gateway/model",
    *(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("gateway/features/**/*.py")
        if path.stem in ("model", "policy", "views")
    ),
    "gateway/changes/plan.py",
    "gateway/changes/plan_checks.py",
    "gateway/changes/plan_text.py",
)
IMPURE = set(
    "asyncio ctypes glob http io logging multiprocessing os pathlib random secrets select selectors shutil signal socket ssl "
    "sqlite3 subprocess sys tempfile threading time urllib uuid httpx".split()
)
CALLS = {"open", "input", "print", "now", "today", "utcnow", "read_bytes", "write_text", "write_bytes"}
HIDDEN = {"__import__", "import_module", "spec_from_file_location", "modules", "eval", "__builtins__"}


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return module_at(path).nodes


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    """Yield every imported module, also inside functions. `from gateway import app` is an import of
    `gateway.assembly.application`.

    """
    found: list[tuple[str, int]] = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            module = node.module or ""
            found.append((module, node.lineno))
            if module.partition(".")[0] in PACKAGES:
                found += ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
    return tuple(found)


def called_by(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def hides(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(alias.name.partition(".")[0] in PACKAGES for alias in names)
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word):
            return word in HIDDEN
    return False


def test_code_has_no_hidden_imports() -> None:
    """The test above cannot follow an import of a whole package or by a computed name, so the code has none."""
    # The conformance kit loads the adapter that its command line names, and checks what that import has loaded. A command is
    # loaded when it is called: `commands.json` names its function, and the name begins with `gateway.cli.` in the code.
    seen = [
        path
        for path in MODULES
        if not name_of(path).startswith("providers/conformance/") and name_of(path) != "gateway/cli/arguments.py"
    ]
    hidden = [f"{name_of(path)}: {ast.unparse(node)}" for path in seen for node in nodes_of(path) if hides(node)]
    assert hidden == []


def stands_in(here: str, home: str) -> bool:
    return here == home or here.startswith(f"{home}/")


def test_each_library_has_one_importing_module_and_none_is_obsolete() -> None:
    unseen = {(library, home) for library, homes in HOMES.items() for home in homes}
    strays = []
    for path in MODULES:
        here = name_of(path)
        for name, line in imports_of(path):
            library = name.partition(".")[0]
            if library in PACKAGES or library in sys.stdlib_module_names:
                continue
            homes = {home for home in HOMES.get(library, ()) if stands_in(here, home)}
            unseen -= {(library, home) for home in homes}
            if not homes:
                strays.append(f"{here}:{line}: {library} lives in {HOMES.get(library, 'no place yet')}")
    assert strays == []
    assert unseen == set()


def test_pure_modules_use_no_clock_randomness_or_io() -> None:
    impure = []
    for path in (path for path in MODULES if stands_in_any(path, PURE)):
        impure += [
            f"{name_of(path)}:{line} imports {name}"
            for name, line in imports_of(path)
            if name.partition(".")[0] in IMPURE and name != "urllib.parse"
        ]
        calls = [node for node in nodes_of(path) if isinstance(node, ast.Call)]
        impure += [
            f"{name_of(path)}:{call.lineno} calls {called_by(call)}" for call in calls if called_by(call) in CALLS
        ]
    assert impure == []


def stands_in_any(path: Path, homes: tuple[str, ...]) -> bool:
    return any(stands_in(name_of(path), home) for home in homes)


def makers_of(permit: str) -> list[str]:
    """Return the modules that call this class, under any imported name, or copy a permit with another origin."""
    found = []
    for path in MODULES:
        aliases = [alias for node in nodes_of(path) if isinstance(node, ast.ImportFrom) for alias in node.names]
        names = {permit, *(alias.asname for alias in aliases if alias.name == permit and alias.asname)}
        for node in nodes_of(path):
            if not isinstance(node, ast.Call):
                continue
            changed = {word.arg for word in node.keywords} & {"origin", "waives"}
            if called_by(node) in names or (called_by(node) in ("replace", "__replace__") and changed):
                found.append(name_of(path))
    return found


def test_only_the_fence_creates_prompt_permits_and_only_the_compiler_service_permits() -> None:
    assert makers_of("Permit") == ["gateway/policy/fence.py"]
    assert makers_of("ServicePermit") == ["gateway/config/service_permits.py"]


def test_only_evaluations_and_judges_request_a_permit_that_waives_an_approval() -> None:
    """Answers never have one: `decide` takes a candidate from `evaluation` alone. A judge needs no approval."""
    for path in MODULES:
        here = name_of(path)
        asks = [node.lineno for node in nodes_of(path) if isinstance(node, ast.keyword) and node.arg == "evaluating"]
        assert not asks or here.startswith(("evaluation/", "gateway/policy/routing.py")), f"{here}:{asks}"
        if "evaluation_permit" in text_of(path):
            assert here in (
                "gateway/policy/fence.py",
                "gateway/policy/routing.py",
                "gateway/execution/judging.py",
                "evaluation/asking.py",
                "evaluation/run.py",
            ), here


def test_no_module_names_the_providers_in_code() -> None:
    """Adding a provider changes only its own files: no list, enum or match contains the names.

    The keys of another gateway's file are by provider, so what reads them names those that have a sign-in there.
    """
    own = "providers/vendors", "providers/compatible", "gateway/litellm/sign_ins.py"
    elsewhere = [path for path in MODULES if not stands_in_any(path, own)]
    named = [
        f"{name_of(path)}:{node.lineno} names the provider {node.value!r}"
        for path in elsewhere
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and node.value in _PROVIDERS
    ]
    assert named == []


_YET_TO_CHANGE = {
    "gateway/execution/run.py",
    "gateway/execution/upstream_client.py",
    "gateway/service/chat_service.py",
    "gateway/service/decider.py",
    "gateway/usage/accounting.py",
    "gateway/usage/holding.py",
}
"""The modules that still change values in another way. `replace` of `providers.value` is for each of them too."""


def test_values_are_changed_by_one_function() -> None:
    """`dataclasses.replace` takes twenty times as long for a `Value`, and msgspec's is not checked by mypy."""
    others = {"dataclasses.replace", "msgspec.structs.replace", "providers.value.change"}
    found = {
        name_of(path)
        for path in MODULES
        for node in nodes_of(path)
        if (isinstance(node, ast.ImportFrom) and {f"{node.module}.{one.name}" for one in node.names} & others)
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in others)
    }
    assert found - _YET_TO_CHANGE == {"providers/value.py"}


def test_every_module_has_a_docstring() -> None:
    assert [name_of(path) for path in MODULES if not ast.get_docstring(module_at(path).tree)] == []


def test_no_docstring_has_half_a_surrogate_pair() -> None:
    """Python 3.13 and newer versions cannot compile such a module: an escape in an example needs `r""" """`."""
    halves = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if any("\ud800" <= letter <= "\udfff" for letter in node.value.value)
    ]
    assert halves == []
