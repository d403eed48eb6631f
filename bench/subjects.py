"""Who is measured: our gateway, and beside it what others would put in its place, each started as its makers say."""

from __future__ import annotations

import json
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

__all__ = ["Floor", "LiteLLM", "Naive", "Nginx", "Ours", "Request", "Running", "Subject", "python_environ"]

ROOT = Path(__file__).parents[1]
_CHAT = "/v1/chat/completions"


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


def _chats(models: Mapping[str, str], headers: Mapping[str, str] | None = None) -> dict[str, Request]:
    return {
        scenario: Request(_CHAT, chat_body(model, stream=scenario != "json"), headers or client_headers())
        for scenario, model in models.items()
    }


def python_environ(cache: Path) -> dict[str, str]:
    """What an interpreter gets: compiled files in a folder of their own, so that a start isn't the compiler's time."""
    return {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""}


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")  # noqa: S603  # our own words
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def _versions(python: str, *packages: str) -> str:
    code = (
        "import sys, importlib.metadata as m; "
        f"print('Python %d.%d.%d' % sys.version_info[:3], *(p + ' ' + m.version(p) for p in {packages!r}), sep=', ')"
    )
    return _ask(python, "-c", code)


def _by_uvicorn(python: str, name: str, folder: Path, cores: Cores, **environ: str) -> Running:
    """`bench/NAME.py` under uvicorn, which takes uvloop and httptools where it finds them."""
    port = free_port()
    command = [python, "-m", "uvicorn", f"bench.{name}:app", "--port", str(port), "--no-access-log"]
    environ = {**environ, **python_environ(folder / "cache"), "PYTHONPATH": str(ROOT)}
    process = Process(command, cores.subject, folder / f"{name}.log", environ)
    return Running(process, port, process.wait_until_healthy(port, "/healthz"))


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
        return _chats(
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
        where = _ask(self.python, "-c", "import gateway, os; print(os.path.dirname(gateway.__file__))")
        git = ("git", "-C", where, "describe", "--always", "--dirty")
        revision = _ask(*git) if (Path(where).parent / ".git").exists() else ""
        versions = _versions(self.python, "assistant-gateway", "uvicorn", "uvloop", "httptools", "orjson")
        return f"{versions}, revision {revision}" if revision else versions

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


@dataclass(frozen=True, slots=True)
class Naive:
    """`bench/naive.py` under uvicorn with uvloop and httptools."""

    python: str = sys.executable
    name: str = "naive"

    @property
    def requests(self) -> Mapping[str, Request]:
        """It translates nothing."""
        return _chats({"json": "fast", "burst": "fast", "paced": "paced", "held": "held"})

    def version(self) -> str:
        """Of the libraries that it is made of."""
        return _versions(self.python, "fastapi", "httpx", "tenacity", "uvicorn")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        upstreams = json.dumps({name: f"http://127.0.0.1:{number}{_CHAT}" for name, number in ports.items()})
        return _by_uvicorn(self.python, self.name, folder, cores, NAIVE_UPSTREAMS=upstreams)


@dataclass(frozen=True, slots=True)
class Floor:
    """`bench/floor.py` under uvicorn with uvloop and httptools: it asks no provider."""

    python: str = sys.executable
    name: str = "floor"

    @property
    def requests(self) -> Mapping[str, Request]:
        """It streams nothing."""
        return _chats({"json": "any"})

    def version(self) -> str:
        """Of the interpreter and the server."""
        return _versions(self.python, "uvicorn", "uvloop", "httptools")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`; the provider's ports are not needed."""
        return _by_uvicorn(self.python, self.name, folder, cores)


_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections {files}; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_buffering off;
{upstreams}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /healthz {{ return 200; }}
{locations}
  }}
}}
"""
_UPSTREAM = "  upstream {name} {{ server 127.0.0.1:{port}; keepalive 1024; keepalive_requests 1000000000; }}"
_LOCATION = "    location /{name}/ {{ proxy_pass http://{name}/; }}"


@dataclass(frozen=True, slots=True)
class Nginx:
    """`proxy_pass` with one worker, connections to the provider kept alive, nothing buffered."""

    binary: str
    name: str = "nginx"

    @classmethod
    def found(cls) -> Nginx | None:
        """nginx, if it is installed."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        return cls(binary) if binary else None

    @property
    def requests(self) -> Mapping[str, Request]:
        """Passed on as they are."""
        return {
            scenario: Request(f"/{port}{_CHAT}", chat_body("gpt-4o", stream=scenario != "json"))
            for scenario, port in (("json", "fast"), ("burst", "fast"), ("paced", "paced"), ("held", "held"))
        }

    def version(self) -> str:
        """As it says itself."""
        done = subprocess.run([self.binary, "-v"], capture_output=True, text=True)  # noqa: S603  # found by name
        return done.stderr.strip().removeprefix("nginx version: ")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        port, config = free_port(), folder / "nginx.conf"
        upstreams = "\n".join(_UPSTREAM.format(name=name, port=number) for name, number in ports.items())
        locations = "\n".join(_LOCATION.format(name=name) for name in ports)
        config.write_text(
            _NGINX.format(folder=folder, files=16384, port=port, upstreams=upstreams, locations=locations), "utf-8"
        )
        command = [self.binary, "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(config)]
        process = Process(command, cores.subject, folder / "nginx.out")
        return Running(process, port, process.wait_until_healthy(port, "/healthz"))


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's proxy with one worker and a master key."""

    python: str
    name: str = "litellm"

    @classmethod
    def found(cls, python: str) -> LiteLLM | None:
        """LiteLLM's proxy, if that interpreter has it."""
        code = "import importlib.util as u; print(bool(u.find_spec('litellm') and u.find_spec('orjson')))"
        return cls(python) if _ask(python, "-c", code) == "True" else None

    @property
    def requests(self) -> Mapping[str, Request]:
        """As ours."""
        models = {"json": "fast", "burst": "fast", "gemini": "gemini", "paced": "paced", "held": "held"}
        return _chats(models, client_headers("sk-bench"))

    def version(self) -> str:
        """Of the package and the interpreter."""
        return _versions(self.python, "litellm")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        port, config = free_port(), folder / "litellm.json"
        openai = {"model": "openai/gpt-4o", "api_key": "sk-bench"}
        models = {name: {**openai, "api_base": f"http://127.0.0.1:{number}/v1"} for name, number in ports.items()}
        models["gemini"] = {
            "model": "gemini/gemini-3.8-flash",
            "api_key": "bench",
            "api_base": f"http://127.0.0.1:{ports['fast']}/v1beta/models/gemini-3.8-flash",
        }
        listed = [{"model_name": name, "litellm_params": parameters} for name, parameters in models.items()]
        settings = {"general_settings": {"master_key": "sk-bench"}, "litellm_settings": {"drop_params": True}}
        config.write_text(json.dumps({"model_list": listed, **settings}), "utf-8")  # JSON is YAML
        start = "from litellm import run_server; run_server()"
        command = [self.python, "-c", start, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
        environ |= python_environ(folder / "cache")
        process = Process(command, cores.subject, folder / "litellm.log", environ)
        return Running(process, port, process.wait_until_healthy(port, "/health/liveliness"))
