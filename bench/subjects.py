"""Who is measured: our gateway, and what it shares with its peers (`bench/peers.py`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.config import ENVIRON, chat_body, client_headers, production_config
from bench.processes import Cores, Process, free_port

__all__ = ["CHAT", "ROOT", "Ours", "Request", "Running", "Subject", "ask", "chats", "python_environ", "versions"]

ROOT = Path(__file__).parents[1]
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Request:
    """What the load client sends: JSON by POST."""

    target: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=client_headers)


@dataclass(frozen=True, slots=True)
class Running:
    """A subject that serves: its process, its port, and how long it took from the start of the process.

    admin_port, config: of ours.
    """

    process: Process
    port: int
    start_s: float
    admin_port: int = 0
    config: Path | None = None


class Subject(Protocol):
    """One that can be measured. `requests` has those of json, burst, gemini, paced and held that it can do."""

    @property
    def name(self) -> str:
        """In tables."""
        ...

    @property
    def requests(self) -> Mapping[str, Request]:
        """By scenario."""
        ...

    def version(self) -> str:
        """What exactly it is."""
        ...

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """Start it in front of the stub's ports; `folder` is for its files."""
        ...


def chats(models: Mapping[str, str], headers: Mapping[str, str] | None = None) -> dict[str, Request]:
    """The requests of these scenarios, each to its model."""
    return {
        scenario: Request(CHAT, chat_body(model, stream=scenario != "json"), headers or client_headers())
        for scenario, model in models.items()
    }


def python_environ(cache: Path) -> dict[str, str]:
    """What an interpreter gets: compiled files in a folder of their own, so that a start isn't the compiler's time."""
    return {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""}


def ask(*command: str) -> str:
    """What it prints, or the last line of what it complains of; nothing where it isn't installed."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")  # noqa: S603  # our own words
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def versions(python: str, *packages: str) -> str:
    """Of the interpreter and its packages."""
    code = (
        "import sys, importlib.metadata as m; "
        f"print('Python %d.%d.%d' % sys.version_info[:3], *(p + ' ' + m.version(p) for p in {packages!r}), sep=', ')"
    )
    return ask(python, "-c", code)


@dataclass(frozen=True, slots=True)
class Ours:
    """`gateway serve` with one worker on a production-like config, its JSON log lines going to a file."""

    python: str = sys.executable
    deployments: int = 8
    keys: int = 10
    name: str = "ours"

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
        """Of the package, the interpreter and what carries the load; and which revision of the checkout."""
        where = ask(self.python, "-c", "import gateway, os; print(os.path.dirname(gateway.__file__))")
        git = ("git", "-C", where, "describe", "--always", "--dirty")
        revision = ask(*git) if (Path(where).parent / ".git").exists() else ""
        parts = versions(self.python, "assistant-gateway", "uvicorn", "uvloop", "httptools", "orjson")
        return f"{parts}, revision {revision}" if revision else parts

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        config, port, admin_port = folder / f"{self.name}.yaml", free_port(), free_port()
        config.write_text(production_config(ports, self.deployments, self.keys), "utf-8")
        command = [self.python, "-m", "gateway.cli", "serve", "--config", str(config), "--port", str(port)]
        environ = {
            "GATEWAY_LOG_FORMAT": "json",
            "GATEWAY_ADMIN_PORT": str(admin_port),
            **ENVIRON,
            **python_environ(folder / "cache"),
        }
        process = Process(command, cores.subject, folder / f"{self.name}.log", environ)
        return Running(process, port, process.wait_until_healthy(port, "/healthz"), admin_port, config)
