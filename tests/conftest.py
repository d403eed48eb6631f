"""Settings of every test: no deadlines, which a busy machine would miss, and the number of examples of a property.

`make test` draws few examples of each property, different ones in each run, `make quick` fewer than half of them,
`make ci` twice as many, and `make prove` eighty times as many: the profiles `quick`, `wide` and `prove`. Hypothesis's own
profile for CI keeps its settings, and so does that of `tests.mutation`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx._transports.default as httpx_default
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import HealthCheck, settings

from tests.selection.measure import cpu_s

# Each httpx client reads the certificates of all authorities, which takes 40 ms. The tests create thousands, for plain
# HTTP.
httpx_default.create_ssl_context = cache(httpx_default.create_ssl_context)  # type: ignore[attr-defined]

# The collector would visit what the tests have made every 700 objects, which takes a twelfth of their CPU time.
gc.set_threshold(20_000)

_PATIENT = settings(settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _PATIENT, max_examples=10)
settings.register_profile("fast", _PATIENT, max_examples=25)
settings.register_profile("wide", _PATIENT, max_examples=50)
settings.register_profile("prove", _PATIENT, max_examples=2000)
if settings.get_current_profile_name() in ("default", "ci"):
    settings.load_profile("fast")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude all collected objects from garbage collection, because they live until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


_MAY_FAIL_ON_A_BUSY_MACHINE = {
    "tests/chaos/test_cell.py": "each of its requests has a time, and a store is told from a busy one by time",
    "tests/cli/test_console_in_browser.py": "the page must show a state of a second, and the browser may be late",
    "tests/e2e/": "gateways, stores, browsers and hundreds of clients share the cores, and each has time limits",
    "tests/faults/": "a fault is told from a slow answer by time",
    "tests/gateway/changes/test_live_config.py::test_many_reloads_leak_no_memory": "other tests change the free memory",
    "tests/gateway/usage/test_gate_processes.py": "a process that died is told from a busy one by time",
    "tests/gateway/usage/test_ledger_volume.py": "the CPU time of a report is compared while others run",
    "tests/soak/": "the use of memory settles with time",
}
"""The slow tests that run once more after a failure, because real processes meet time limits in them; and the reason."""


def _may_fail_on_a_busy_machine(item: pytest.Item) -> bool:
    return item.nodeid.startswith(tuple(_MAY_FAIL_ON_A_BUSY_MACHINE))


_LEFT_TO_CI = Path(__file__).parent / "selection" / "left_to_ci.txt"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `python -m tests.selection.run` leaves to `make ci`, and the slow ones that may run twice."""
    left = set() if "SELECTION_FOLDER" in os.environ else set(_LEFT_TO_CI.read_text("utf-8").splitlines())
    for item in items:
        if item.nodeid in left or item.get_closest_marker("full"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and _may_fail_on_a_busy_machine(item):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--most-cpu", type=float, metavar="S", help="fail a test that takes more CPU and is not `slow`")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that belongs to `make ci` because of its CPU time."""
    most_s = pyfuncitem.config.getoption("most_cpu")
    if most_s is None or pyfuncitem.get_closest_marker("slow") is not None:
        return (yield)
    before_s = cpu_s()
    try:
        return (yield)
    finally:
        taken_s = cpu_s() - before_s
        assert taken_s <= most_s, f"{taken_s:.2f} s of CPU: mark it `slow`, or make it cheaper"


_LIMIT_S = int(os.environ.get("TEST_LIMIT_S", "600"))
"""A test that hangs fails after this time, and the log has the traceback of each thread. `make prove` sets a longer time."""
_EXIT_S = 1.5 * _LIMIT_S
"""A test that ignores that failure ends its process. A shorter time could crash the interpreter of a busy test, because
the threads are read while they run.
"""
_AGAIN_S = 60
_ARMED_AT_S: pytest.StashKey[float] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Restart the watchdog once a minute.

    The option `faulthandler_timeout` restarts it for each test, which starts a thread and waits for the end of the
    previous one: several milliseconds on a busy machine, seventeen thousand times.
    """
    now_s = time.monotonic()
    if now_s - item.config.stash.get(_ARMED_AT_S, -_AGAIN_S) >= _AGAIN_S:
        item.config.stash[_ARMED_AT_S] = now_s
        faulthandler.dump_traceback_later(_EXIT_S, exit=True, file=item.config.stash[fault_handler_stderr_fd_key])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that hangs, and its teardown too, instead of its process: pytest-xdist cannot go on without one."""
    if not hasattr(signal, "SIGALRM"):
        return (yield)

    def fail(number: int, frame: object) -> None:
        faulthandler.dump_traceback(item.config.stash[fault_handler_stderr_fd_key])
        with suppress(RuntimeError):  # no event loop runs
            for task in asyncio.all_tasks():
                task.print_stack()
        pytest.fail(f"{item.nodeid} hangs: it takes more than {_LIMIT_S} s")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_S, _AGAIN_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Take back a log that a test has configured, perhaps by a command in its own process: it is the process's."""
    result = yield
    log: Any = sys.modules.get("gateway.telemetry.log")
    if log is not None and log._out is not None:
        log._out, log._write_requests = None, log._log_requests_readably
        sys.modules["structlog"].reset_defaults()
    return result


def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()
