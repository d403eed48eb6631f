"""The state directories of releases, for the tests of upgrades.

`python -m tests.e2e.release_state CHECKOUT FOLDER` makes one: CHECKOUT is the source of the release, and FOLDER has its
`gateway.yaml` with simulated providers and gets `state.tar.gz`. Requests leave receipts, a canary and shadow records; a
change, a rollback and its release leave a history.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[2]
RELEASES = ROOT / "tests" / "fixtures" / "releases"
_LIMIT_S = 90
_PLACES = ("CN", "DE", "US", "HK", "IN", "CU")


def environ_of(checkout: Path, state: Path) -> dict[str, str]:
    """Return the environment in which `gateway` is the one of the checkout."""
    paths = {"PYTHONPATH": str(checkout), "GATEWAY_STATE_DIR": str(state)}
    return {**os.environ, **paths}


@dataclass(frozen=True, slots=True)
class Served:
    """The addresses of a running gateway."""

    url: str
    admin_url: str


@contextmanager
def serving(checkout: Path, config: Path, state: Path) -> Iterator[Served]:
    """Serve a demo with the gateway of a checkout, on free ports."""
    command = [sys.executable, "-m", "gateway.cli", "demo", "--config", str(config), "--port", "0", "--admin-port", "0"]
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environ_of(checkout, state),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as lines:
        try:
            url = _address(lines, r"listens on (http://[\d.]+:\d+)")
            yield Served(url, _address(lines, r"For operators: +curl (http://[\d.]+:\d+)/"))
        finally:
            process.terminate()
            lines.read()
            status = process.wait(_LIMIT_S)
    assert status == 0


@contextmanager
def release_gateway(checkout: Path, config: Path, state: Path) -> Iterator[GatewayProcess]:
    """Serve a config with the gateway of a checkout, on free ports."""
    if checkout == ROOT:
        with running_gateway(config, {"GATEWAY_STATE_DIR": str(state), "KEY": "sk-one"}) as gateway:
            yield gateway
        return
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--port", "0"]
    environ = {**environ_of(checkout, state), "GATEWAY_LOG_FORMAT": "json", "GATEWAY_ADMIN_PORT": "0", "KEY": "sk-one"}
    process = subprocess.Popen(command, cwd=checkout, env=environ, stderr=subprocess.PIPE, text=True)
    gateway = GatewayProcess(process)
    try:
        gateway.url = gateway.wait_for("listening")["url"]
        yield gateway
    finally:
        process.terminate()
        process.wait(_LIMIT_S)
        process.stderr.close()


def copy_of_this_release(source: Path, version: str) -> Path:
    """Copy the product into a new folder, as a release that is called VERSION, and return the folder."""
    for name in ("gateway", "providers", "evaluation", "config"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    stated = source / "gateway" / "__init__.py"
    text = re.sub(r'(?m)^__version__ = ".+"$', f'__version__ = "{version}"', stated.read_text("utf-8"))
    stated.write_text(text, "utf-8")
    return source


def python_of(source: Path, script: Path) -> str:
    """Write an interpreter whose `gateway` is that of a source. The next gateway inherits its environment."""
    script.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def _address(lines: Iterable[str], pattern: str) -> str:
    return next(match[1] for line in lines if (match := re.search(pattern, line)))


def run_command(checkout: Path, state: Path, *words: str) -> str:
    """Run a command of the checkout, and return its output. Fails if its exit status is not 0."""
    if checkout == ROOT:
        ended = as_a_process(*words, environ={"GATEWAY_STATE_DIR": str(state)})
    else:
        ended = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            cwd=checkout, env=environ_of(checkout, state), capture_output=True, text=True, timeout=_LIMIT_S,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def ask_from_everywhere(url: str, rounds: int = 3) -> list[httpx.Response]:
    """Send requests from several territories."""
    return [
        httpx.post(f"{url}{CHAT}", json=body(user=f"u{number}"), headers={"cf-ipcountry": place}, trust_env=False)
        for number in range(rounds)
        for place in _PLACES
    ]


def make_state(checkout: Path, config: Path, state: Path) -> None:
    """Use every file of a state directory."""
    with serving(checkout, config, state) as gateway:
        ask_from_everywhere(gateway.url)
        text, first = config.read_text("utf-8"), run_command(checkout, state, "history").split("*")[-1].split()[0]
        config.write_text(Config.parse(text).merge("resilience: {idle: 25s}").text, "utf-8")
        httpx.post(f"{gateway.admin_url}/reload", trust_env=False)
        ask_from_everywhere(gateway.url)
        run_command(checkout, state, "rollback", "--as", "ada")
        eventually(lambda: first in run_command(checkout, state, "history").split("*")[-1])
        ask_from_everywhere(gateway.url)
    config.write_text(text, "utf-8")


@contextmanager
def unpacked(release: str) -> Iterator[tuple[Path, Path]]:
    """Give the config file and the state directory of a release, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_bytes((RELEASES / release / "gateway.yaml").read_bytes())
        with tarfile.open(RELEASES / release / "state.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        yield config, Path(folder) / "state"


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out the lock, and the counters of budgets, which are large and made again from the ledger."""
    return None if member.name.endswith(".lock") or member.name.startswith("state/gate") else member


def main() -> None:
    checkout, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "gateway.yaml"
        config.write_bytes((folder / "gateway.yaml").read_bytes())
        make_state(checkout, config, Path(place) / "state")
        with tarfile.open(folder / "state.tar.gz", "w:gz") as archive:
            archive.add(Path(place) / "state", "state", filter=_kept)


if __name__ == "__main__":
    main()
