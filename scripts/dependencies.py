"""Generate the page of dependencies from `dependencies.toml`, the lock, and the code that uses them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from scripts.lock_diff import pins_of

ROOT = Path(__file__).parents[1]
_PRODUCT = ("evaluation", "gateway", "providers")
_ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.0", "sys_platform": "linux", "extra": ""}
# A change of the code rarely changes the page.
_BOUNDS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
_HEAD = """\
# Dependencies

All that an installation gets from others, and why. [Licences](licences.md) has all packages of the image. Versions are
those of `locks/runtime.lock`; `make lock-diff` shows what a change of the locks brings, and CI refuses a package
that runs code at each start of Python (`.pth`) or has no wheel.

"Lines" are those of the product that name it. Facts of {read}; the day is that of the locked version.

| package | what for | lines | maintained by | last release | what would replace it |
|---|---|---|---|---|---|
"""
_TAIL = """
## httpx without releases

httpx has had no release since 0.28.1 of 2024-12-06. Pydantic maintains a fork of it and of httpcore, with which it
sends: httpx2 and httpcore2 (2.16.2). By the locks for tests, the SDKs of OpenAI
(3.51.0), Anthropic (2.10.0) and Mistral (3.7.0) and the SDK of MCP (2.3.0) require the fork. Starlette (1.10.0) and
FastAPI (0.163.2) name both, in optional parts that the gateway does not install. So httpx2 is in the environment of
tests, and in no installation.

- **Use.** Two files name it: the demo asks its own gateway for examples, and `providers.client.Client` takes an
  `httpx.AsyncClient` of its caller. The server, the calls to providers, sign-ins, traces and alerts use
  `providers.transport`, and the commands `http.client`. `tests/architecture/test_imports.py` holds the list. The tests
  use httpx to call a gateway.
- **A fault in it** reaches the demo and programs that use adapters without the gateway. No prompt of a client
  of the gateway passes through it.
- **A fix of it** may come from its repository, but no release since 2024 shows that it would. `make audit` finds an
  advisory, and without a release the fix is ours: in the demo by `http.client`, in `Client` by the step below.
- **The step.** `Client` uses `build_request`, `send`, `aiter_bytes`, `aclose`, and three classes of errors, all of
  which httpx2 has under the same names. It would take a client of either package, and the locks would bring httpx2 in
  place of httpx. `httpx.AsyncClient` is a part of a public face, so a client of httpx goes on to work until 2.0.

httpx stays: a move without a fault would ask each caller of `Client` for another package.

## Packages they bring

| package | brought by |
|---|---|
"""


def dependencies_page() -> str:
    """Return docs/reference/dependencies.md."""
    rows = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    pins = {_named(name): version for name, (version, _) in pins_of((ROOT / "locks/runtime.lock").read_text()).items()}
    counts = _lines_by_module(row.get("import", name) for name, row in rows.items() if name != "read")
    text = _HEAD.format(read=rows.pop("read"))
    for name in direct():
        row = rows.pop(name)
        version = pins[_named(name)]
        shown = f"below {next(it for it in _BOUNDS if counts[row.get('import', name)] < it):,}"
        day = row["released"][version]
        text += f"| {name} | {row['for']} | {shown} | {row['by']} | {version}, {day} | {row['instead']} |\n"
    if rows:
        raise ValueError(f"scripts/dependencies.toml has rows of packages that are not a dependency: {', '.join(rows)}")
    brought = sorted({*pins} - {_named(name) for name in direct()})
    text += _TAIL
    for name in brought:
        users = sorted(it for it in pins if name in _required_by(it))
        text += f"| {name} | {', '.join(users) or 'the build'} |\n"
    return text


def direct() -> list[str]:
    """Return the names of the direct dependencies, as `pyproject.toml` writes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [Requirement(it).name for it in project["dependencies"]]


def _required_by(name: str) -> set[str]:
    try:
        needed = [Requirement(it) for it in requires(name) or ()]
    except PackageNotFoundError:  # of another platform
        return set()
    brought = {_named(it.name) for it in needed if it.marker is None or it.marker.evaluate(_ENVIRONMENT)}
    return brought | ({"cryptography"} if name == "pyjwt" else set())  # `PyJWT[crypto]`


def _lines_by_module(modules: Iterable[str]) -> Counter[str]:
    """Count the lines of the product that import a package or use what they imported from it."""
    wanted = re.compile(rf"(?m)^[ ]*(?:from|import) (?:{'|'.join(modules)})\b")
    counted: Counter[str] = Counter()
    for path in (path for folder in _PRODUCT for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        if wanted.search(text) is not None:
            for module, lines in _lines_of(ast.parse(text)).items():
                counted[module] += len(lines)
    return counted


def _lines_of(tree: ast.Module) -> dict[str, set[int]]:
    lines: dict[str, set[int]] = defaultdict(set)
    module_of: dict[str, str] = {}
    named: list[ast.Name] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            named.append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                source = alias.name if isinstance(node, ast.Import) else node.module or ""
                module = source.split(".")[0]
                lines[module].add(node.lineno)
                module_of[(alias.asname or alias.name).split(".")[0]] = module
    for name in named:
        if name.id in module_of:
            lines[module_of[name.id]].add(name.lineno)
    return lines


def _named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
