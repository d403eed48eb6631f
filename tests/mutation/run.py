"""How many small mistakes in the rules do the tests notice?

    .venv/bin/python -m tests.mutation.run                       every module of MODULES
    .venv/bin/python -m tests.mutation.run gateway/policy/fence.py

Each mutant runs in a process of its own, forked from one that has imported what tests need, but neither the package under
test nor the tests. It is killed if a test fails, or if they take too long. What survives is printed with its line; the ones
that are known to change nothing are in `EQUAL`, with the reason.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
LIMIT_S = 120
_POLICY = ["tests/gateway/policy"]
_BROKEN = "tests/gateway/config/test_broken_configs.py"
_CONFIG = [
    "tests/gateway/config/test_compile.py",
    "tests/gateway/config/test_fence.py",
    "tests/gateway/config/test_shipped.py",
]
MODULES: dict[str, list[str]] = {
    "gateway/policy/fence.py": ["tests/gateway/policy/test_fence.py", *_POLICY, "tests/gateway/test_stateful_fence.py"],
    "gateway/policy/renewal.py": [*_POLICY, "tests/gateway/test_stateful_fence.py"],
    "gateway/policy/routing.py": [
        "tests/gateway/policy/test_routing.py",
        *_POLICY,
        "tests/gateway/test_request_fields.py",
    ],
    "gateway/policy/consent.py": ["tests/gateway/policy/test_consent.py"],
    "gateway/policy/location.py": ["tests/gateway/policy/test_location.py", *_POLICY],
    "gateway/policy/claims.py": ["tests/gateway/policy/test_claims.py"],
    "gateway/policy/memo.py": _POLICY,
    "gateway/policy/pace.py": ["tests/gateway/policy/test_pace.py"],
    "gateway/config/routes.py": [_BROKEN, *_CONFIG],
    "gateway/config/regions.py": [_BROKEN, *_CONFIG],
    "gateway/config/cells.py": [_BROKEN, *_CONFIG],
    "gateway/config/endpoints.py": [_BROKEN, *_CONFIG],
    "gateway/config/deployments.py": ["tests/gateway/config/test_compile.py", *_CONFIG],
    "gateway/config/approvals.py": ["tests/gateway/config/test_approval_records.py", *_CONFIG],
    "gateway/config/location.py": [_BROKEN, *_CONFIG],
    "gateway/config/consent.py": ["tests/gateway/config/test_consent.py"],
}


class _Mutated(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102  # our own source, spoilt


def outcome_of(path: str, mutant: Mutant | None, tests: Sequence[str]) -> str:
    """What the tests say: `killed`, `survived`, or `too long`."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _be_tested(path, mutant, tests)
    deadline = time.monotonic() + LIMIT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too long"
        time.sleep(0.01)


def _be_tested(path: str, mutant: Mutant | None, tests: Sequence[str]) -> None:
    import pytest

    sink = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(sink, number)
    if mutant is not None:
        name = path.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Mutated(name, ROOT / path, mutant.source))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore", "--hypothesis-seed=0"]
    status = 0
    try:
        # The likeliest to notice come first, and most mutants see no others.
        for test in dict.fromkeys(tests):
            status = status or int(pytest.main([*options, test]))
    except BaseException:  # a mutant may break anything
        status = 1
    os._exit(status)


def main() -> None:
    """Every module that is named, or all; a line for each mutant that survives, and the score of each module."""
    os.chdir(ROOT)
    # What every child would import anew, and no mutant touches.
    import hypothesis.strategies
    import jwt
    import openai
    import pydantic
    import pytest
    import yaml

    assert all((hypothesis, jwt, openai, pydantic, pytest, yaml))
    chosen = sys.argv[1:] or list(MODULES)
    for path in chosen:
        tests = MODULES[path]
        if outcome_of(path, None, tests) != "survived":
            sys.exit(f"{path}: its tests fail without any mutant")
        killed = total = 0
        for mutant in mutants_of((ROOT / path).read_text("utf-8")):
            outcome = outcome_of(path, mutant, tests)
            total += 1
            killed += outcome != "survived"
            if outcome == "survived":
                print(f"{path}:{mutant.line}: survived: {mutant.what}", flush=True)
        print(f"{path}: {killed} of {total} killed", flush=True)


if __name__ == "__main__":
    main()
