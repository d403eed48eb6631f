"""One demo for all pages of a worker, and a directory for each page, like a fresh checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.doc_pages import ROOT
from tests.kit.gateway_template import TEMPLATE, can_be_forked

_STAND_INS = ("gateway", "make", "pip", "pytest", "promtool", "docker")
# For a command that hangs: an evaluation alone takes forty seconds on an idle machine.
_LIMIT_S = 300


@dataclass(slots=True)
class Workspace:
    """The directory in which a page's blocks are run."""

    folder: Path
    port: str
    admin_port: str
    serving: ExitStack

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run a command and return its exit status and all its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_S,
        )
        return done.returncode, done.stdout.decode().replace("\r\n", "\n")

    def serve(self, command: list[str]) -> None:
        """Run a command that serves. The following blocks of the page use its ports."""
        environ = {**self._environ(), "STAND_INS_SERVE_ON": "1"}
        self.port, self.admin_port = self.serving.enter_context(_demo(command, cwd=self.folder, env=environ))

    def with_own_ports(self, text: str) -> str:
        """Return a block's text with the demo's own ports."""
        own = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        return own.replace("127.0.0.1:8081", f"127.0.0.1:{self.admin_port}")

    def _environ(self) -> dict[str, str]:
        # Coverage of these commands would measure only the small cases of the kit, slowly. No key of a real vendor is
        # used.
        left_out = re.compile(r"COV_|COVERAGE_|GATEWAY_|PYTEST_|.*_API_KEY$")
        inherited = {name: value for name, value in os.environ.items() if not left_out.match(name)}
        folder = str(self.folder)
        path = f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Plug-ins of pytest that no page needs, and that take seconds to import where they are installed.
        own = {"PYTHONPATH": f"{folder}/site", "PYTEST_ADDOPTS": "-p no:schemathesis -p no:langsmith_plugin"}
        return {**inherited, **own, "PATH": path, "CURL_HOME": folder, "HOME": folder}


_LISTENS = re.compile(
    r'listens on \S+?:(\d+)\.(?s:.*)For operators: .*:(\d+)/|"event":"listening","url":"[^"]*:(\d+)","admin":"[^"]*:(\d+)"'
)


@pytest.fixture(scope="session")
def current_demo() -> Iterator[Callable[[], tuple[str, str]]]:
    """Return a function that returns the ports of the demo of all pages. One that a page has drained is replaced."""
    command = [str(TEMPLATE.command())] if can_be_forked({}) else [sys.executable, "-m", "gateway.cli"]
    with ExitStack() as running:
        demos: list[tuple[str, str]] = []

        def ports() -> tuple[str, str]:
            url = f"http://127.0.0.1:{demos[-1][0]}/readyz" if demos else ""
            if not demos or httpx.get(url, trust_env=False, timeout=_LIMIT_S).status_code != 200:
                demos.append(running.enter_context(_demo([*command, "demo", "--port", "0"])))
            return demos[-1]

        yield ports


@pytest.fixture
def demo_ports(current_demo: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Return the ports of the demo that all pages share."""
    return current_demo()


@contextmanager
def _demo(command: list[str], **where: Any) -> Iterator[tuple[str, str]]:
    """Return the ports of a running demo or rehearsal: the public one and that of its admin listener."""
    # A shell does not forward a signal, so it is sent to all processes that the command has started.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **where
    )
    try:
        assert process.stdout is not None
        shown, found = "", None
        while line := process.stdout.readline():
            shown += line
            if found := _LISTENS.search(shown):
                break
        assert found, shown
        ports = [port for port in found.groups() if port is not None]
        reader = threading.Thread(target=process.communicate, daemon=True)  # so that its log never waits
        reader.start()
        yield ports[0], ports[1]
        os.killpg(process.pid, signal.SIGTERM)
        reader.join(_LIMIT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def workspace(tmp_path: Path, demo_ports: tuple[str, str]) -> Iterator[Workspace]:
    """Return a directory with the files that a new user has after `git clone` and one `make`."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    (tmp_path / "providers/testkit").mkdir(parents=True)
    shutil.copy(ROOT / "providers/testkit/hello.wav", tmp_path / "providers/testkit")
    (tmp_path / "site").mkdir()
    (tmp_path / "bin").mkdir()
    for name in _STAND_INS:
        script = tmp_path / "bin" / name
        # A fork need not import the gateway. It would not see what a page has installed.
        forks = f'[ "$(ls "{tmp_path}/site")" ] || export STAND_INS_GATEWAY="{TEMPLATE.command()}"\n'
        ends = 'case "${STAND_INS_GATEWAY:+$1}" in ""|serve|demo) ;; *) exec "$STAND_INS_GATEWAY" "$@" ;; esac\n'
        script.write_text(
            f"#!/bin/sh\n{forks if can_be_forked({}) else ''}{ends if name == 'gateway' else ''}"
            f'exec "{sys.executable}" "{ROOT / "tests" / "docs" / "stand_in_commands.py"}" {name} "$@"\n'
        )
        script.chmod(0o755)
    (tmp_path / ".curlrc").write_text('silent\nshow-error\nfail-with-body\nnoproxy = "*"\n')
    with ExitStack() as serving:
        yield Workspace(tmp_path, *demo_ports, serving)
