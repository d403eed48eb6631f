"""Start the real gateway in its own process, on a free port, with simulated providers."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.configs import BASE, Config, key_hash
from tests.kit.gateway_template import TEMPLATE, ForkedProcess, can_be_forked

APP_KEY = "gk-app"
BACKEND_KEY = "gk-backend"
_START_LIMIT_S = 90
"""Long, because a busy machine needs much time for a start. It only limits a start that hangs."""


class GatewayProcess:
    """A running `gateway` command. Its log lines are read as they are written.

    Args:
        keep_lines: whether the lines are kept.
    """

    def __init__(self, process: subprocess.Popen[str] | ForkedProcess) -> None:
        self.process = process
        self.keep_lines = True
        self.lines: list[dict[str, Any] | str] = []
        self._arrived: queue.Queue[dict[str, Any] | str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""
        self.admin_url = ""
        self.console_url = ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            if not self.keep_lines:
                continue
            try:
                line: dict[str, Any] | str = json.loads(text)
            except ValueError:
                line = text
            self.lines.append(line)
            self._arrived.put(line)
        self._arrived.put(None)

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next log line of that event with those fields. Fails if the process ends or stays silent."""
        while True:
            try:
                line = self._arrived.get(timeout=_START_LIMIT_S)
            except queue.Empty:
                self.abort()
                raise AssertionError(f"the gateway hangs: {self.lines}") from None
            assert line is not None, f"the gateway ended: {self.lines}"
            wanted = {"event": event, **fields}
            if isinstance(line, dict) and all(line.get(name) == value for name, value in wanted.items()):
                return line

    def close(self) -> None:
        """Close the log after its end, which comes when a gateway that has taken over has ended too."""
        assert self.process.stderr is not None
        self._reader.join(_START_LIMIT_S)
        self.process.stderr.close()

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=_START_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.abort()
            raise AssertionError(f"the gateway does not stop: {self.lines}") from None

    def abort(self) -> None:
        """End a gateway that hangs. Its log gets the stacks of its threads."""
        self.process.send_signal(signal.SIGABRT)
        self.process.wait(timeout=_START_LIMIT_S)
        self._reader.join(_START_LIMIT_S)


@contextmanager
def running_gateway(
    config: Path, environ: Mapping[str, str] | None = None, command: Sequence[str] = ("serve",)
) -> Iterator[GatewayProcess]:
    """Run `gateway serve`, or another command, on a free port. `url` is its address."""
    process = _start([*command, "--config", str(config), "--port", "0"], environ or {})
    gateway = GatewayProcess(process)
    try:
        listening = gateway.wait_for("listening")
        gateway.url, gateway.admin_url = listening["url"], listening["admin"]
        gateway.console_url = listening.get("console", "")
        yield gateway
    finally:
        try:
            if process.poll() is None:
                gateway.stop()
        finally:
            gateway.close()


def _start(arguments: list[str], environ: Mapping[str, str]) -> subprocess.Popen[str] | ForkedProcess:
    """Fork the template, unless this gateway needs its own interpreter settings."""
    environment = {**os.environ, "GATEWAY_LOG_FORMAT": "json", **environ}
    if can_be_forked(environ):
        return TEMPLATE.start(arguments, environment)
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def config_of_one_region(deployments: Mapping[str, Mapping[str, Any]], *patches: str | Mapping[str, Any]) -> Config:
    """Return a config with one region for the whole world, and an assistant for each deployment with its name.

    Args:
        deployments: the settings of each deployment without its places and its key.
        patches: changes, each as data or as YAML.
    """
    anywhere = {"stores": "any", "processes": "any", "api_key": "${KEY}"}
    return Config(
        {
            "version": 1,
            "assistants": {name: {"routes": {"world": [name]}} for name in deployments},
            "regions": {"world": {"territories": ["*"], "boundary": ["*"]}},
            "deployments": {name: {**anywhere, **keys} for name, keys in deployments.items()},
            "clients": {"app": {"keys": [key_hash(APP_KEY)], "region": "world"}},
        }
    ).merge(*patches)


_DEPLOYMENTS = Config.parse("""
qwen-cn:
  {provider: dashscope, model: qwen-plus, stores: CN, processes: CN, api_key: "${KEY_CN}"}
chatgpt-eu:
  {provider: openai, model: gpt-6-luna, stores: DE, processes: DE, api_key: "${KEY_EU}"}
chatgpt-eu-2:
  {provider: openai, model: gpt-5.4-mini, stores: FR, processes: FR, api_key: "${KEY_EU}"}
chatgpt-us:
  {provider: openai, model: gpt-4o, accept_ended: true, stores: US, processes: US, api_key: "${KEY_US}"}
gemini:
  {provider: gemini, model: gemini-3.8-flash, stores: any, processes: any, available: [JP, GB, IN], api_key: "${KEY_GEMINI}"}
qwen-intl:
  {provider: dashscope, model: qwen3.7-plus, stores: SG, processes: ["*", "!CN"], available: [HK, MO], api_key: "${KEY_INTL}"}
""")
_FOUR_REGIONS = (
    BASE.without("clients")
    .replace(deployments=_DEPLOYMENTS.data)
    .merge("assistants: {assistant: {routes: {eu: [chatgpt-eu, chatgpt-eu-2]}}}")
    .merge("location: {signals: [assertion, edge_header]}")
)


def config_of_four_regions(origins: Mapping[str, str], *patches: str | Mapping[str, Any]) -> Config:
    """Return a config like one of production, with merge patches.

    Args:
        origins: the origins of the deployments by site: cn, eu, eu2, us, gemini, intl.
        patches: changes, each as data or as YAML.
    """
    endpoints = {
        "qwen-cn": f"{origins['cn']}/api/v1",
        "chatgpt-eu": f"{origins['eu']}/v1",
        "chatgpt-eu-2": f"{origins['eu2']}/v1",
        "chatgpt-us": f"{origins['us']}/v1",
        "gemini": f"{origins['gemini']}/v1beta",
        "qwen-intl": f"{origins['intl']}/api/v1",
    }
    clients = {
        "app": {"keys": [key_hash(APP_KEY)]},
        "backend": {"keys": [key_hash(BACKEND_KEY)], "may_assert": ["territory"]},
    }
    deployments = {name: {"endpoint": endpoint} for name, endpoint in endpoints.items()}
    return _FOUR_REGIONS.merge({"deployments": deployments, "clients": clients}, *patches)
