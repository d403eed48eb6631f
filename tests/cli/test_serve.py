"""`gateway serve`: errors at the start, printed as one line, and signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.settings import read_settings
from tests.cli.conftest import LIMIT_S, ROOT, Command, Running
from tests.kit.case_files import cases
from tests.kit.ports import free_port

EXAMPLE = ROOT / "config" / "gateway.yaml"
DEMO = ROOT / "config" / "demo.yaml"
LISTENS = r'"event":"listening","url":"(http://127\.0\.0\.1:\d+)"'
Start = Callable[..., Running]


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--config", EXAMPLE),
        ("serve", "--config", EXAMPLE, "--workers", "2"),
        ("serve", "--config", DEMO),
        ("demo",),
    ],
    ids=["serve", "workers", "serve-demo", "demo"],
)
def test_used_port_prints_one_line(gateway: Command, busy_port: int, command: tuple[str, ...]) -> None:
    shown = gateway(*command, "--port", busy_port)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.splitlines()[-1] == (
        f"gateway: port {busy_port} on 127.0.0.1 is used by another program (Address already in use); "
        "stop it, or choose another port with --port (make run PORT=9000)"
    )
    assert "Traceback" not in shown.err


@cases("name", "setting", "how")
def test_used_port_of_operators_prints_one_line(
    gateway: Command, busy_port: int, monkeypatch: pytest.MonkeyPatch, name: str, setting: str, how: str
) -> None:
    monkeypatch.setenv(setting, str(busy_port))
    shown = gateway("serve", "--config", EXAMPLE, "--port", "0")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.splitlines()[-1] == (
        f"gateway: the {name} port {busy_port} on 127.0.0.1 is used by another program (Address already in use); "
        f"stop it, or choose another port with {how}"
    )


def test_public_admin_listener_needs_a_token(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_HOST", "0.0.0.0")  # noqa: S104  # refused
    shown = gateway("serve", "--config", EXAMPLE, "--port", "0")
    assert shown.status == 2
    assert "the admin listener on 0.0.0.0 is open to others: set GATEWAY_ADMIN_TOKEN" in shown.err
    for token, reason in {
        "short-secret": "it must have at least 16 characters, not 12",
        "a-token-of-24-characters|short-secret": "it must have at least 16 characters, not 12",
        f"{'a' * 16}|{'b' * 16}|{'c' * 16}": "it must be one text, or the new and the former one with `|` between them",
    }.items():
        monkeypatch.setenv("GATEWAY_ADMIN_TOKEN", token)
        shown = gateway("serve", "--config", EXAMPLE, "--port", "0")
        assert shown.err == f"gateway: GATEWAY_ADMIN_TOKEN: {reason}\n"
    monkeypatch.delenv("GATEWAY_ADMIN_TOKEN")
    monkeypatch.delenv("GATEWAY_ADMIN_HOST")
    monkeypatch.setenv("GATEWAY_VIEWER_TOKEN", "v" * 16)
    shown = gateway("serve", "--config", EXAMPLE, "--port", "0")
    assert "GATEWAY_VIEWER_TOKEN needs GATEWAY_ADMIN_TOKEN" in shown.err


@pytest.mark.slow("starts three demos")
def test_two_demos_run_at_the_same_time(start: Start, busy_port: int) -> None:
    # Not 0, so that the default port of the admin listener is used too.
    first, second = start("demo", "--port", free_port()), start("demo", "--port", "0")
    admins = {demo.wait_for(r"For operators: +curl (http\S+)/readyz")[1] for demo in (first, second)}
    assert len(admins) == 2
    with_busy_port = start("demo", "--port", "0", "--admin-port", busy_port)
    assert with_busy_port.wait_for("gateway: .*")[0].startswith(
        f"gateway: the admin port {busy_port} on 127.0.0.1 is used by another program"
    )


@cases("host", "message")
def test_foreign_host_address_prints_one_line(gateway: Command, host: str, message: str) -> None:
    shown = gateway("demo", "--host", host, "--port", "0")
    assert shown.status == 2
    assert shown.err.startswith(f"gateway: {message}")


def test_missing_config_prints_one_line(gateway: Command) -> None:
    shown = gateway("serve")
    assert shown.status == 2
    assert shown.err.startswith("gateway: there is no config at config/gateway.yaml; `gateway init` writes one")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "two"])
def test_config_with_errors_is_not_served(gateway: Command, workers: tuple[str, ...]) -> None:
    Path("broken.yaml").write_text("version: 1\nregion: {}\n")
    shown = gateway("serve", "--config", "broken.yaml", *workers)
    assert (shown.status, shown.out) == (1, "")
    assert "broken.yaml:2:1: region: unknown key 'region'; did you mean 'regions'?" in shown.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "gateway.invalid"])  # noqa: S104  # refused
def test_config_without_clients_is_served_only_locally(gateway: Command, host: str) -> None:
    shown = gateway("serve", "--config", EXAMPLE, "--host", host, "--port", "0")
    assert shown.status == 2
    assert f"this config has no clients, so it serves this machine only, and {host} is open to others" in shown.err


@cases("settings", "message")
def test_invalid_setting_prints_one_line(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    shown = gateway("serve", "--config", EXAMPLE)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.startswith(f"gateway: {message}")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(("option", "number", "least"), [("--port", "-1", 0), ("--workers", "0", 1)])
def test_invalid_option_is_named_as_an_option(gateway: Command, option: str, number: str, least: int) -> None:
    shown = gateway("serve", "--config", EXAMPLE, option, number)
    assert shown.err == f"gateway: {option} is {number}: input should be greater than or equal to {least}\n"


def test_demo_runs_in_one_process(gateway: Command) -> None:
    shown = gateway("serve", "--config", DEMO, "--workers", "2", "--port", "0")
    assert (shown.status, shown.err) == (
        2,
        "gateway: a demo runs in one process with its simulators; leave out --workers (GATEWAY_WORKERS)\n",
    )


def test_option_overrides_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "8081")
    monkeypatch.setenv("GATEWAY_HOST", "127.0.0.2")
    settings = read_settings({"port": 9000})
    assert (settings.port, settings.host) == (9000, "127.0.0.2")


def test_serve_logs_the_warnings_of_check(start: Start) -> None:
    serving = start("serve", "--config", EXAMPLE, "--port", "0")
    serving.wait_for(LISTENS)
    ended = serving.end(signal.SIGTERM)
    assert (ended.status, ended.out) == (0, "")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {line["event"] for line in lines} == {"config", "listening"}
    assert any("GEMINI_API_KEY is not set" in line.get("detail", "") for line in lines)


@pytest.mark.slow("starts a demo")
def test_serve_runs_a_demo_config_as_a_demo(start: Start) -> None:
    serving = start("serve", "--config", DEMO, "--port", "0")
    serving.wait_for("Ctrl-C")
    assert serving.end(signal.SIGTERM).status == 0


# Ways in which SIGTERM comes: by a call, or while the modules load, which takes most of the start on a busy machine.
CALLING = """
setattr(pkgutil.resolve_name({!r}), {!r}, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
"""
LOADING = """
class Loading:
    def find_spec(self, name, *_):
        if name == "gateway.server.start":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Loading())
"""
SERVE = ["serve", "--config", str(EXAMPLE)]
COMPILES, LISTENS_AT = "gateway.changes.compile_process:Child", "gateway.server.start"
DEMOS = CALLING.format("gateway.server.demo", "serve_demo")
ALONE = pytest.mark.slow("starts an interpreter")


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        pytest.param(SERVE, CALLING.format(COMPILES, "prepare"), id="begun", marks=ALONE),
        pytest.param(SERVE, CALLING.format("subprocess:Popen", "communicate"), id="compiling"),
        pytest.param([*SERVE, "--port", "0"], CALLING.format(LISTENS_AT, "raise_file_limit"), id="bound", marks=ALONE),
        pytest.param(["demo"], DEMOS, id="demo"),
        pytest.param(["simulate"], DEMOS, id="simulate", marks=pytest.mark.full),
        pytest.param(SERVE, LOADING, id="serve-loading"),
        pytest.param(["demo"], LOADING, id="demo-loading", marks=ALONE),
        pytest.param(["simulate"], LOADING, id="simulate-loading", marks=pytest.mark.full),
    ],
)
def test_sigterm_ends_a_starting_gateway(command: list[str], ends: str) -> None:
    # The first process of a container ignores signals by default, so the gateway needs a handler.
    program = f"""
import os, pkgutil, signal, sys
from gateway.cli import main
{ends}
raise SystemExit(main({command!r}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)


def test_second_ctrl_c_is_not_an_error(start: Start) -> None:
    serving = start("serve", "--config", EXAMPLE, "--port", "0")
    serving.wait_for(LISTENS)
    serving.process.send_signal(signal.SIGINT)
    ended = serving.end(signal.SIGINT)
    assert ended.status == 0
    assert {json.loads(line)["event"] for line in ended.err.splitlines()} == {"config", "listening"}
