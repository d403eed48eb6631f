"""Other gateways and proxies to compare with, each started as its documentation recommends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.config import chat_body, client_headers
from bench.processes import Cores, Process, free_port
from bench.subjects import CHAT, ROOT, Request, Running, ask, chats, python_environ, versions

__all__ = ["Floor", "Lean", "LiteLLM", "Naive", "Nginx", "Smg"]


def _by_uvicorn(python: str, name: str, folder: Path, cores: Cores, **environ: str) -> Running:
    """Run `bench/NAME.py` under uvicorn, which uses uvloop and httptools if they are installed."""
    port = free_port()
    command = [python, "-m", "uvicorn", f"bench.{name}:app", "--port", str(port), "--no-access-log"]
    environ = {**environ, **python_environ(folder / "cache"), "PYTHONPATH": str(ROOT)}
    process = Process(command, cores.subject, folder / f"{name}.log", environ)
    return Running(process, port, process.wait_until_healthy(port, "/healthz"))


@dataclass(frozen=True, slots=True)
class Naive:
    """`bench/naive.py` under uvicorn with uvloop and httptools."""

    python: str = sys.executable
    name: str = "naive"

    @property
    def requests(self) -> Mapping[str, Request]:
        """Only the OpenAI scenarios, because it translates nothing."""
        return chats({"json": "fast", "burst": "fast", "paced": "paced", "held": "held"})

    def version(self) -> str:
        """Return the versions of its libraries."""
        return versions(self.python, "fastapi", "httpx", "tenacity", "uvicorn")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        upstreams = json.dumps({name: f"http://127.0.0.1:{number}{CHAT}" for name, number in ports.items()})
        return _by_uvicorn(self.python, self.name, folder, cores, NAIVE_UPSTREAMS=upstreams)


@dataclass(frozen=True, slots=True)
class Floor:
    """`bench/floor.py` under uvicorn with uvloop and httptools. It calls no provider."""

    python: str = sys.executable
    name: str = "floor"

    @property
    def requests(self) -> Mapping[str, Request]:
        """Only JSON, because it does not stream."""
        return chats({"json": "any"})

    def version(self) -> str:
        """Return the versions of the interpreter and the server."""
        return versions(self.python, "uvicorn", "uvloop", "httptools")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`; the provider's ports are not needed."""
        return _by_uvicorn(self.python, self.name, folder, cores)


@dataclass(frozen=True, slots=True)
class Lean:
    """`bench/lean.py` under uvicorn with uvloop and httptools: forwards requests and does nothing else."""

    python: str = sys.executable
    name: str = "lean"

    @property
    def requests(self) -> Mapping[str, Request]:
        """Only JSON, because it does not stream."""
        return chats({"json": "any"})

    def version(self) -> str:
        """Return the versions of the interpreter and the server."""
        return versions(self.python, "uvicorn", "uvloop", "httptools", "orjson")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`."""
        return _by_uvicorn(self.python, self.name, folder, cores, LEAN_UPSTREAM=str(ports["fast"]))


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
    def installed(cls) -> Nginx | None:
        """Return nginx if it is installed."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        return cls(binary) if binary else None

    @property
    def requests(self) -> Mapping[str, Request]:
        """The scenarios that need no translation."""
        return {
            scenario: Request(f"/{port}{CHAT}", chat_body("gpt-4o", stream=scenario != "json"))
            for scenario, port in (("json", "fast"), ("burst", "fast"), ("paced", "paced"), ("held", "held"))
        }

    def version(self) -> str:
        """Return the version that nginx prints."""
        done = subprocess.run([self.binary, "-v"], capture_output=True, text=True)  # noqa: S603  # installed by name
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
    def installed(cls, python: str) -> LiteLLM | None:
        """Return LiteLLM's proxy if that interpreter has it."""
        code = "import importlib.util as u; print(bool(u.find_spec('litellm') and u.find_spec('orjson')))"
        return cls(python) if ask(python, "-c", code) == "True" else None

    @property
    def requests(self) -> Mapping[str, Request]:
        """The same scenarios as the gateway."""
        models = {"json": "fast", "burst": "fast", "gemini": "gemini", "paced": "paced", "held": "held"}
        return chats(models, client_headers("sk-bench"))

    def version(self) -> str:
        """Return the versions of the package and the interpreter."""
        return versions(self.python, "litellm")

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


@dataclass(frozen=True, slots=True)
class Smg:
    """Shepherd Model Gateway, a router in Rust, in front of one provider: that of answers at once, or of paced events.

    Attributes:
        provider: The stub's port that it forwards to. It chooses by the models of its providers, and each of the
            stub's ports has the same.
    """

    python: str
    provider: str = "fast"
    name: str = "smg"

    @classmethod
    def installed(cls, python: str, provider: str) -> Smg | None:
        """Return smg if that interpreter has it."""
        if ask(python, "-c", "import importlib.util as u; print(bool(u.find_spec('smg')))") != "True":
            return None
        return cls(python, provider, "smg" if provider == "fast" else f"smg, {provider}")

    @property
    def requests(self) -> Mapping[str, Request]:
        """The scenarios of its provider that need no translation."""
        scenarios = ("json", "burst") if self.provider == "fast" else (self.provider,)
        return chats(dict.fromkeys(scenarios, "gpt-4o"))

    def version(self) -> str:
        """Return the versions of the package and the interpreter."""
        return versions(self.python, "smg")

    def start(self, folder: Path, ports: Mapping[str, int], cores: Cores) -> Running:
        """See `Subject`. Probes of the provider are off, because the stub answers none."""
        port, metrics = free_port(), free_port()
        command = [self.python, "-m", "smg.launch_router", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", f"http://127.0.0.1:{ports[self.provider]}", "--backend", "openai"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
        command += ["--disable-health-check", "--log-level", "warn"]
        process = Process(command, cores.subject, folder / "smg.log", python_environ(folder / "cache"))
        return Running(process, port, process.wait_until_healthy(port, "/readiness"))
