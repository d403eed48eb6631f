"""The subjects to measure: the gateway, and what it shares with its peers (`bench/peers.py`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.config import ENVIRON, chat_body, client_headers, production_config
from bench.processes import Cores, Process, free_port
from bench.stores import Stores

__all__ = ["CHAT", "ROOT", "Ours", "Request", "Running", "Subject", "ask", "chats", "python_environ", "versions"]

ROOT = Path(__file__).parents[1]
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Request:
    """The request that the load client sends: JSON by POST."""

    target: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=client_headers)


@dataclass(frozen=True, slots=True)
class Running:
    """A running subject: its process, its port, and its start time in seconds.
    `admin_port` and `config` are set for the gateway only.
    """

    process: Process
    port: int
    start_s: float
    admin_port: int = 0
    config: Path | None = None


class Subject(Protocol):
    """A program that can be measured. `requests` has the supported scenarios of json, burst, gemini, paced and held."""

    @property
    def name(self) -> str:
        """The name in tables."""
        ...

    @property
    def requests(self) -> Mapping[str, Request]:
        """The request of each scenario."""
        ...

    def version(self) -> str:
        """Describe the exact version."""
        ...

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """Start it with the stub's ports as providers. `folder` is for its files."""
        ...


def chats(models: Mapping[str, str], headers: Mapping[str, str] | None = None) -> dict[str, Request]:
    """Return the requests of these scenarios, each to its model."""
    return {
        scenario: Request(CHAT, chat_body(model, stream=scenario != "json"), headers or client_headers())
        for scenario, model in models.items()
    }


def python_environ(cache: Path) -> dict[str, str]:
    """Return the environment of an interpreter with its own folder of compiled files, so that a start excludes compile
    time.

    """
    return {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""}


def ask(*command: str) -> str:
    """Return its output, or the last line of its error. Empty if it is not installed."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")  # noqa: S603  # our own words
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def versions(python: str, *packages: str) -> str:
    """Return the versions of the interpreter and its packages."""
    code = (
        "import sys, importlib.metadata as m; "
        f"print('Python %d.%d.%d' % sys.version_info[:3], *(p + ' ' + m.version(p) for p in {packages!r}), sep=', ')"
    )
    return ask(python, "-c", code)


@dataclass(frozen=True, slots=True)
class Ours:
    """`gateway serve` with one worker on a production-like config. Its JSON log lines go to a file.

    Attributes:
        accounts: Whether its clients have limits and four budgets, and calls are recorded.
        stores: Shared stores for the limits and the records. None: the default stores.
        environ: Further settings.
    """

    python: str = sys.executable
    deployments: int = 8
    keys: int = 10
    name: str = "ours"
    accounts: bool = False
    stores: Stores | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def requests(self) -> Mapping[str, Request]:
        """Each scenario is an assistant of the config."""
        return chats(
            {
                "json": "assistant",
                "burst": "assistant",
                "gemini": "assistant-gemini",
                "paced": "assistant-paced",
                "held": "assistant-held",
            }
        )

    def version(self) -> str:
        """Return the versions of the package, the interpreter and the server libraries, and the revision of the
        checkout.

        """
        where = ask(self.python, "-c", "import gateway, os; print(os.path.dirname(gateway.__file__))")
        git = ("git", "-C", where, "describe", "--always", "--dirty")
        revision = ask(*git) if (Path(where).parent / ".git").exists() else ""
        parts = versions(self.python, "assistant-gateway", "uvicorn", "uvloop", "httptools", "orjson")
        return f"{parts}, revision {revision}" if revision else parts

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        config, port, admin_port = folder / f"{self.name}.yaml", free_port(), free_port()
        text = production_config(ports, self.deployments, self.keys, accounts=self.accounts)
        config.write_text(text + (self.stores.config if self.stores is not None else ""), "utf-8")
        command = [self.python, "-m", "gateway.cli", "serve", "--config", str(config), "--port", str(port)]
        environ = {
            "GATEWAY_LOG_FORMAT": "json",
            "GATEWAY_ADMIN_PORT": str(admin_port),
            **ENVIRON,
            **(self.stores.environ if self.stores is not None else {}),
            **python_environ(folder / "cache"),
            **self.environ,
        }
        if self.accounts:
            environ["GATEWAY_STATE_DIR"] = tempfile.mkdtemp(prefix="state-", dir=folder)
        process = Process(command, cores.subject, folder / f"{self.name}.log", environ)
        return Running(process, port, process.wait_until_healthy(port, "/healthz"), admin_port, config)
