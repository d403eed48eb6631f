"""Change the gateway's config while it serves, and measure how long that takes.

    python -m bench.reloading [--saves 20] [--callers 64]

For 8 and for 1,000 deployments it saves the file again and again, on a machine that is idle and while callers fill all
cores. It prints the time from a save to the answers by the new version, as `gateway status` has it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.processes import Cores, Tools, build_tools
from bench.subjects import Ours, Running

__all__ = ["reload"]

_LIMIT_S, _LOOK_S = 60.0, 0.05
_FIRST_S = 8.0  # the gateway starts the process of the first compile after five seconds


def reload(running: Running, idle: str) -> float:
    """Change one time limit of the config and return the seconds until the change is active. Raises RuntimeError if it
    fails.

    """
    if running.config is None:
        raise RuntimeError("only the gateway itself can reload")
    changed = re.sub(r"idle: \w+", f"idle: {idle}", running.config.read_text("utf-8"))
    running.config.write_text(changed, "utf-8")
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/reload")
        response = connection.getresponse()
        answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"the reload returned {response.status} {answer[:600].decode('utf-8', 'replace')}")
    return time.monotonic() - began


def _every_core() -> Cores:
    every = frozenset(os.sched_getaffinity(0))
    return Cores(every, every)


def _loaded(running: Running) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        loaded: dict[str, Any] = json.loads(connection.getresponse().read())["config_version"]["loaded"]
    return loaded


def _save(running: Running, number: int) -> tuple[float, float]:
    """Save a change, and return the seconds until it is live, and those of them without a core. Raises TimeoutError."""
    if running.config is None:
        raise RuntimeError("only the gateway itself can reload")
    before = _loaded(running)["at"]
    text = re.sub(r"idle: \w+", f"idle: {31 + number}s", running.config.read_text("utf-8"))
    running.config.write_text(text, "utf-8")
    ends_at = time.monotonic() + _LIMIT_S
    while time.monotonic() < ends_at:
        time.sleep(_LOOK_S)
        if (loaded := _loaded(running))["at"] != before:
            return loaded["duration_ms"] / 1000, loaded["waited_ms"] / 1000
    raise TimeoutError(f"the change is not live after {_LIMIT_S:g} s")


@contextlib.contextmanager
def _callers(tools: Tools, folder: Path, running: Running, callers: int, subject: Ours) -> Iterator[None]:
    """Ask without a pause on so many connections, on all cores."""
    request = subject.requests["json"]
    body = folder / "body"
    body.write_bytes(request.body)
    command = [*tools.load, "--port", str(running.port), "--target", request.target, "--body", str(body)]
    for name, value in request.headers.items():
        command += ["--header", f"{name}: {value}"]
    command += ["--connections", str(callers), "--seconds", "3600", "--warm-up", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as load:  # noqa: S603  # our own client
        try:
            yield
        finally:
            load.kill()


def _measure(
    tools: Tools, ports: Mapping[str, int], folder: Path, deployments: int, options: argparse.Namespace
) -> None:
    subject = Ours(deployments=deployments)
    running = subject.start(folder, ports, _every_core())
    with running.process:
        for state, callers in (("idle", 0), (f"{options.callers} callers", options.callers)):
            time.sleep(_FIRST_S)
            asking = _callers(tools, folder, running, callers, subject) if callers else contextlib.nullcontext()
            with asking:
                times = []
                for number in range(options.saves):
                    times.append(_save(running, number + (100 if callers else 0)))
                    time.sleep(_FIRST_S)
            live, waited = zip(*times, strict=True)
            median, most = statistics.median(live), max(live)
            times_s = f"median {median:.2f} s, at most {most:.2f} s of {len(live)} saves"
            print(f"{deployments} deployments, {state}: {times_s}; without a core {statistics.median(waited):.2f} s")


def main() -> None:
    """Measure, and print a line for each number of deployments and each state of the machine."""
    from bench.run import running_stub

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = build_tools(folder)
        with running_stub(tools, folder, _every_core()) as ports:
            for deployments in (8, 1000):
                _measure(tools, ports, folder, deployments, options)


if __name__ == "__main__":
    main()
