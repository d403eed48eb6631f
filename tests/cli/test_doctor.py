"""`gateway doctor` finds what would fail later, and names the remedy."""

from __future__ import annotations

import os
import pwd
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from gateway.cli.doctor import check_origin, environment_of_unit, file_system_of, is_optimised, origins_of
from tests.cli.conftest import Command
from tests.kit.case_files import cases
from tests.kit.config_cases import edited
from tests.kit.configs import BASE, key_hash, table_of
from tests.kit.network_peers import server_context

GOOD = """
version: 1
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  a: {provider: openai-compatible, endpoint: "https://llm.example/v1", model: m, stores: DE, processes: DE, api_key: "${KEY}"}
assistants: {assistant: {routes: {default: [a]}}}
location: {unknown: refuse, signals: [api_key]}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEY", "sk-one")
    path = tmp_path / "gateway.yaml"
    path.write_text(GOOD, "utf-8")
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


def test_each_part_of_a_sound_installation_is_ok(gateway: Command, path: Path, state: Path) -> None:
    shown = gateway("doctor", "--config", path, "--state", state)
    levels = {line.split(":")[0].split(None, 1)[1]: line.split()[0] for line in shown.out.splitlines()}
    assert {"open files", "clock", "state directory", "keys", "network"} <= levels.keys()
    assert levels["keys"] == levels["clock"] == levels["network"] == "ok"
    assert "error" not in levels.values()
    assert shown.status in (0, 3)


def test_error_is_not_hidden_by_a_warning_and_a_file_is_not_valid_with_an_error(gateway: Command, path: Path) -> None:
    path.write_text(edited(GOOD, ("openai-compatible", "openai-compatibel")), "utf-8")
    [line] = [line for line in gateway("doctor", "--config", path).out.splitlines() if "configuration: " in line]
    assert "openai-compatibel" in line
    assert "warning" not in line
    client = f"{{keys: ['{key_hash('gk-app')}'], budgets: [{{tokens: 5, per: day}}]}}"
    path.write_text(f"{GOOD}clients: {{app: {client}}}\n", "utf-8")
    for options, status, word in (([], 1, "gateway: "), (["--no-secrets"], 0, "gateway: warning: ")):
        shown = gateway("check", path, *options)
        assert (shown.status, f"{word}a budget of clients.app needs a state directory" in shown.err) == (status, True)
        assert "--strict" not in shown.err
    lines = [line for line in gateway("doctor", "--config", path).out.splitlines() if "configuration: " in line]
    assert [line.split()[0] for line in lines] == ["error"]
    assert "needs a state directory; set GATEWAY_STATE_DIR" in lines[0]


def test_environment_of_a_unit_is_used(
    gateway: Command, path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {name: value for name, value in os.environ.items() if name != "KEY"})
    folder = path.parent
    (folder / "env").write_text("# keys\nKEY='sk one'\nEMPTY=\n", "utf-8")
    (folder / "g.service.d").mkdir()
    (folder / "g.service.d/local.conf").write_text(f"[Service]\nEnvironment=GATEWAY_STATE_DIR={state} B=2\n", "utf-8")
    unit = folder / "g.service"
    text = f"[Service]\nEnvironment=GATEWAY_STATE_DIR=/none\nEnvironmentFile={folder / 'env'}\nEnvironmentFile=-/none\n"
    unit.write_text(text, "utf-8")
    expected = {"KEY": "sk one", "EMPTY": "", "GATEWAY_STATE_DIR": str(state), "B": "2"}
    assert environment_of_unit(unit) == expected
    shown = gateway("doctor", "--config", path, "--unit", unit).out
    assert f"state directory: {state} belongs to this user alone" in shown
    assert "keys: 1 of 1 deployments can be called" in shown
    assert gateway("doctor", "--config", path, "--unit", folder / "none").status == 2


def test_root_continues_as_the_user_of_the_unit_after_it_read_the_environment(
    gateway: Command, path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(os.environ))
    unit, became = path.parent / "g.service", list[object]()
    for call in ("initgroups", "setgid", "setuid"):
        monkeypatch.setattr(f"os.{call}", lambda *given: became.append(given))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    user = pwd.getpwuid(os.getuid())
    unit.write_text(f"[Service]\nUser={user.pw_name}\nEnvironment=GATEWAY_STATE_DIR={state}\n", "utf-8")
    assert gateway("doctor", "--config", path, "--unit", unit).status in (0, 1, 3)
    assert became == [(user.pw_name, user.pw_gid), (user.pw_gid,), (user.pw_uid,)]
    unit.write_text("[Service]\nUser=no-such-user-of-tests\n", "utf-8")
    shown = gateway("doctor", "--config", path, "--unit", unit)
    assert (shown.status, "the user no-such-user-of-tests of" in shown.err) == (2, True)


def test_missing_key_is_a_warning_and_no_key_at_all_an_error(
    gateway: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY")
    shown = gateway("doctor", "--config", path)
    assert (
        "warning  deployment a: is not used: no credential: KEY is not set; set it where the gateway runs" in shown.out
    )
    assert "error    keys: no deployment can be called; set the key of at least one" in shown.out
    assert shown.status == 1


def test_broken_configuration_is_an_error(gateway: Command, path: Path) -> None:
    path.write_text(GOOD.replace("boundary", "boundery"), "utf-8")
    shown = gateway("doctor", "--config", path)
    assert shown.status == 1
    assert f"gateway check {path} lists every error" in shown.out


def test_setting_that_cannot_be_used_is_an_error(gateway: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "http")
    shown = gateway("doctor", "--config", path)
    assert "error    settings: GATEWAY_PORT is 'http': input should be a valid integer" in shown.out
    assert (shown.status, shown.err) == (1, "")


def test_state_directory_that_cannot_be_reached_is_an_error(gateway: Command, path: Path, state: Path) -> None:
    shown = gateway("doctor", "--config", path, "--state", state / ("x" * 300))
    assert "can't be used (File name too long); name a directory that the user of the gateway can reach" in shown.out
    assert shown.status == 1


def test_state_directory_of_others_is_found(gateway: Command, path: Path, state: Path) -> None:
    state.chmod(0o755)
    assert (
        f"{state} can be read by other users; chmod 700 {state}"
        in gateway("doctor", "--config", path, "--state", state).out
    )
    (state / "file").touch()
    shown = gateway("doctor", "--config", path, "--state", state / "file")
    assert (shown.status, "is a file; name a directory" in shown.out) == (1, True)
    assert "will be made at the first start" in gateway("doctor", "--config", path, "--state", state / "new").out


@cases("configured", "prefix", "optimised")
def test_optimised_builds_are_known(configured: str, prefix: str, optimised: bool) -> None:
    assert is_optimised(configured, prefix) is optimised


def test_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/vda / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\nt /srv/a\\040b tmpfs rw 0 0\n", "utf-8")
    found = [file_system_of(Path(name), mounts) for name in ("/srv/state", "/srv/a b/c", "/var/lib", "/")]
    assert found == ["nfs4", "tmpfs", "ext4", "ext4"]
    assert file_system_of(Path("/"), tmp_path / "none") == ""


def test_origins_are_those_of_deployments_that_have_a_key() -> None:
    with_key, without = table_of(BASE), table_of(BASE, {})
    assert origins_of(with_key)
    assert set(origins_of(without)) <= set(origins_of(with_key))


@contextmanager
def serving(authority: trustme.CA, name: str = "localhost", *, ahead_s: float = 0, days: float = 90) -> Iterator[str]:
    """Serve HTTPS on this machine, with a clock that is ahead of ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            at = datetime.now(UTC) + timedelta(seconds=ahead_s)
            self.wfile.write(f"Date: {format_datetime(at, usegmt=True)}\r\n\r\n".encode())

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = server_context(authority.issue_cert(name, not_after=datetime.now(UTC) + timedelta(days=days)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_origin_with_a_valid_certificate_and_clock_is_ok() -> None:
    authority = trustme.CA()
    with serving(authority) as origin:
        found = check_origin(origin, trusting(authority))
    assert (found.level, found.subject) == ("ok", origin)
    assert "TLS is valid for" in found.message


@cases("behaviour", "level", "words")
def test_problems_of_an_origin_are_named(behaviour: dict[str, object], level: str, words: str) -> None:
    authority = trustme.CA()
    with serving(authority, **behaviour) as origin:  # type: ignore[arg-type]
        found = check_origin(origin, trusting(authority))
    assert (found.level, words in found.message) == (level, True), found
    assert found.remedy


def test_authority_that_the_gateway_does_not_trust_is_an_error() -> None:
    with serving(trustme.CA()) as origin:
        assert "its certificate is not valid" in check_origin(origin).message


def test_origin_without_a_server_is_an_error() -> None:
    assert "no connection" in check_origin("http://127.0.0.1:9").message
    assert "can't be resolved" in check_origin("https://nowhere.invalid").message
