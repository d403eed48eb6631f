"""Measure how many small errors in the rules the tests detect.

    .venv/bin/python -m tests.mutation.run                       every module of modules.toml
    .venv/bin/python -m tests.mutation.run gateway/policy/fence.py
    .venv/bin/python -m tests.mutation.run --every 10    every tenth mutant of each, without a second check of survivors

Each mutant runs in its own process. It is put into an imported module, in a child of a process that has collected the
tests. A survivor, and a mutant that cannot be put in this way, is checked again in a child that imports everything
anew. A mutant is killed if a test fails or if the tests take too long. Survivors are printed with their line.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.swap import can_be_swapped, swap

ROOT = Path(__file__).parents[2]
LIMIT_S = 240
_COMPILE = "tests/gateway/config/test_compile.py"
# The test of the growth of work takes longer than all the others and tests no rule. Where pytest rewrites asserts, it
# imports the packages itself and would never see a mutant of `providers`. The long form of an experiment has the rules
# of the short one, and takes a minute for each mutant.
_OPTIONS = [
    "-x",
    "-m",
    "not full",
    "-q",
    "--assert=plain",
    "--deselect",
    f"{_COMPILE}::TestTable::test_the_work_grows_as_the_deployments_do",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-W",
    "ignore",
    "--hypothesis-seed=0",
]


def _file_of(test: str) -> str:
    """Return the path of a file, of a folder, or of one function of a file."""
    path, *function = test.split("::")
    folder, _, name = path.rpartition("/")
    return "::".join([f"tests/{folder}/test_{name}.py" if name else f"tests/{folder}", *function])


MODULES = {
    module: [_file_of(test) for test in tests]
    for module, tests in tomllib.loads(Path(__file__).with_name("modules.toml").read_text("utf-8")).items()
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
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102  # the project's own source, mutated


def outcome_of(path: str, mutant: Mutant | None, tests: Sequence[str]) -> str:
    """Run the tests and return `killed`, `survived`, or `too long`. All code under test is imported anew, which is
    slow.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _run_in_child(path, mutant, tests)
    return _outcome_of_child(child)


def _outcome_of_child(child: int) -> str:
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


def _run_in_child(path: str, mutant: Mutant | None, tests: Sequence[str]) -> None:
    import pytest

    _discard_output()
    if mutant is not None:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        sys.meta_path.insert(0, _Mutated(name, ROOT / path, mutant.source))
    status = 0
    try:
        # The tests most likely to fail come first, because most mutants need no others.
        for test in dict.fromkeys(tests):
            status = status or int(pytest.main([*_OPTIONS, test]))
    except BaseException:  # a mutant may break anything
        status = 1
    os._exit(status)


def _discard_output() -> None:
    sink = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(sink, number)


class _Swapping:
    """Replaces pytest's test loop: runs the collected tests for each mutant, in a child process each."""

    def __init__(self, path: str, mutants: Sequence[Mutant], report_outcome: Callable[[Mutant, str], None]) -> None:
        self._path, self._mutants, self._report_outcome = path, mutants, report_outcome

    def pytest_runtestloop(self, session: Any) -> bool:
        module = importlib.import_module(self._path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        items = list(session.items)
        gc.freeze()
        for mutant in self._mutants:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                _discard_output()
                os._exit(_status_with(session, items, module, mutant, writing))
            os.close(writing)
            self._report_outcome(mutant, _outcome_of_child(child))
            # A test that detected one mutant is likely to detect the next.
            with os.fdopen(reading) as detected_by:
                if number := detected_by.read():
                    items.insert(0, items.pop(int(number)))
        return True


def _status_with(session: Any, items: Sequence[Any], module: ModuleType, mutant: Mutant, detected_by: int) -> int:
    try:
        swap(module, mutant.source)
        for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                _write(detected_by, str(number))
                return 1
    except BaseException:  # a mutant may break anything
        return 1
    return 0


def outcomes_of(
    path: str, mutants: Sequence[Mutant], tests: Sequence[str], *, quick: bool = False
) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with its outcome. A survivor is checked again with fresh imports, unless `quick` is set."""
    import pytest

    source = (ROOT / path).read_text("utf-8")
    swapped = [mutant for mutant in mutants if can_be_swapped(source, mutant.line)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        numbers = {id(mutant): number for number, mutant in enumerate(swapped)}
        plugin = _Swapping(
            path, swapped, lambda swapped_mutant, outcome: _write(writing, f"{numbers[id(swapped_mutant)]} {outcome}\n")
        )
        _discard_output()
        os._exit(int(pytest.main([*_OPTIONS, *dict.fromkeys(tests)], plugins=[plugin])))
    os.close(writing)
    reported = set()
    with os.fdopen(reading) as lines:
        for line in lines:
            number, _, outcome = line.strip().partition(" ")
            reported.add(int(number))
            mutant = swapped[int(number)]
            yield mutant, outcome_of(path, mutant, tests) if outcome == "survived" and not quick else outcome
    os.waitpid(child, 0)
    remaining = [mutant for number, mutant in enumerate(swapped) if number not in reported]
    for mutant in [*remaining, *(mutant for mutant in mutants if not can_be_swapped(source, mutant.line))]:
        yield mutant, outcome_of(path, mutant, tests)


def _write(pipe: int, line: str) -> None:
    os.write(pipe, line.encode())


def import_what_tests_share() -> None:
    """Import what each child would import again and no mutant changes, and set how properties draw examples."""
    import hypothesis.strategies
    import jwt
    import openai
    import pydantic
    import pytest
    import yaml

    assert all((hypothesis, jwt, openai, pydantic, pytest, yaml))
    # A failing child needs neither a minimal example nor examples of another child.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", database=None, phases=phases, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    hypothesis.settings.load_profile("mutation")


def main() -> None:
    """Run the named modules, or all. Prints each surviving mutant and the score of each module."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help="a path of modules.toml; default: all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth mutant only")
    options = parser.parse_args()
    if options.every < 1:
        parser.error("--every takes a number from 1 on")
    if unknown := [path for path in options.modules if path not in MODULES]:
        parser.error(f"{unknown[0]} is not in tests/mutation/modules.toml")
    os.chdir(ROOT)
    import_what_tests_share()
    if unmeasured := measure(options.modules or list(MODULES), options.every):
        sys.exit(f"not measured: {', '.join(unmeasured)}")


def measure(paths: Sequence[str], every: int) -> list[str]:
    """Measure each module, and print its survivors and its score. Returns the modules that cannot be measured."""
    totals, unmeasured = Counter[str](), list[str]()
    for path in paths:
        tests = MODULES[path]
        if outcome_of(path, None, tests) != "survived":
            print(f"{path}: its tests fail without any mutant", flush=True)
            unmeasured.append(path)
            continue
        killed = total = 0
        mutants = list(mutants_of((ROOT / path).read_text("utf-8")))[::every]
        for mutant, outcome in outcomes_of(path, mutants, tests, quick=every > 1):
            total += 1
            killed += outcome != "survived"
            if outcome == "survived":
                print(f"{path}:{mutant.line}: survived: {mutant.description}", flush=True)
        print(f"{path}: {killed} of {total} killed", flush=True)
        totals.update(killed=killed, total=total)
    print(f"all: {totals['killed']} of {totals['total']} killed", flush=True)
    return unmeasured


if __name__ == "__main__":
    main()
