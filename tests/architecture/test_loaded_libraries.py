"""Libraries that each process loads at start. A heavy library costs start-up time and memory in every process.
The first test follows the imports in the source, so it names the responsible module. The second one starts a process
and checks what is loaded, which includes what libraries import themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.known_exceptions import shrinking
from tests.architecture.source_tree import closure_of, modules

HEAVY = frozenset(
    "pydantic pydantic_core pydantic_settings yaml tomllib jwt prometheus_client sqlite3 fastapi starlette babel uvicorn "
    "httpx cryptography botocore google maxminddb opentelemetry jinja2 jsonschema numpy rich scipy".split()
)
# structlog loads it where it is installed.
NOT_OURS = frozenset({"rich"})
# Each entry module, and the heavy libraries that it may load when it is imported.
SERVES = frozenset({"uvicorn"})
ENTRIES = {
    "gateway.server.worker": SERVES,
    "gateway.server.host": SERVES | {"pydantic", "pydantic_core", "pydantic_settings"},  # receives the settings
    "gateway.server.workers": SERVES,
    "gateway.server.start": SERVES | {"pydantic", "pydantic_core", "pydantic_settings"},  # receives the settings
    "gateway.changes.compile_job": frozenset(),  # the child that compiles a config; it loads pydantic and yaml when it begins
    "gateway.cli": frozenset(),
}
# How a process really starts, where importing the entry is not all that it does at once.
STARTS = {
    "gateway.cli": "import contextlib, io, gateway.cli\n"
    "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
    "    sys.argv = ['gateway', '--help']; gateway.cli.main()"
}


@shrinking
def test_no_process_imports_a_heavy_library_at_start() -> Iterator[str]:
    for entry, allowed in ENTRIES.items():
        # The command line is a package once its parsers are in a module of their own.
        also = [name for name in (f"{entry}.arguments",) if name in modules()]
        closure = closure_of(entry, *also)
        for name in sorted(closure & modules().keys()):
            targets = {one.target.partition(".")[0] for one in modules()[name].imports if one.kind == "eager"}
            yield from (f"{entry}: {library} by {name}" for library in (targets & HEAVY) - allowed)


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_heavy_library_is_loaded_at_start(entry: str) -> None:
    start = STARTS.get(entry, f"import {entry}")
    code = f"import sys\n{start}\nprint(*sorted({set(HEAVY - NOT_OURS - ENTRIES[entry])!r} & {{*sys.modules}}))"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr
