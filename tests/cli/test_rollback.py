"""`gateway rollback`, also to a version with warnings, with and without a running gateway."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from gateway.changes.change_log import ChangeLog, review_change
from gateway.changes.compile_job import CompiledState
from gateway.changes.initial_config import InitialConfig
from gateway.changes.plan import NO_CONFIG_VERSION
from gateway.cli.admin_client import AdminClient
from gateway.config.loading import load_document
from gateway.features.configuration import compile_config
from gateway.state.lock import Lock
from providers.registry import load_registry
from tests.cli.conftest import Command
from tests.kit.configs import Config

CONFIG = Config.parse("""
version: 1
cell: {territory: DE}
assistants: {assistant: {routes: {de: [house]}}}
regions: {de: {territories: [DE], boundary: [DE], approvals: required}}
deployments:
  house:
    provider: openai-compatible
    endpoint: "http://127.0.0.1:1/v1"
    stores: DE
    processes: DE
    api_key: "${HOUSE_KEY}"
    approvals: [{region: de, authority: BSI, kind: registration, number: "1", model_name: m, valid_until: 2026-11-01}]
""")
MESSAGES = ("HOUSE_KEY is not set", "its approval for region 'de' ended on 2026-11-01")


def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch, *patches: dict[str, object]) -> tuple[str, str]:
    """Create a history of two versions that were served from this folder while the key was set."""
    log, state, versions = ChangeLog(folder / "state"), CompiledState(NO_CONFIG_VERSION, None), list[str]()
    for model in ("one", "two"):
        CONFIG.merge(*patches, {"deployments": {"house": {"model": model}}}).write(folder)
        compiled = compile_config(load_document(folder / "gateway.yaml", {"HOUSE_KEY": "sk"}), registry=load_registry())
        new = CompiledState(compiled.config, compiled.written)
        log.record_switch(review_change(state, new, 0.0, lambda: None), new, "file", "")
        state = new
        versions.append(new.config.version)
    log.close()
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("GATEWAY_CONFIG", str(folder / "gateway.yaml"))
    return versions[0], versions[1]


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    return recorded(Path(), monkeypatch)


def test_rollback_without_a_gateway_warns_about_ended_approvals(gateway: Command, served: tuple[str, str]) -> None:
    shown = gateway("rollback")
    assert (shown.status, f"the next one serves {served[0]}" in shown.out) == (0, True), shown.err
    for message in MESSAGES:
        assert message in shown.err


def test_rollback_of_a_running_gateway_warns_about_ended_approvals(
    gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = {"severity": "warning", "path": "deployments.house.api_key", "message": MESSAGES[0]}
    answer = {"result": "activated", "config_version": "abcd", "file_active": False, "findings": [finding]}
    answering(monkeypatch, 200, answer)
    shown = gateway("rollback", "--admin", "http://127.0.0.1:1")
    assert (shown.status, shown.err) == (0, f"gateway: warning: deployments.house.api_key: {MESSAGES[0]}\n")


def test_rollback_prints_a_finding_without_a_file(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "there is no earlier version; `gateway history` lists the versions"
    refused = {"severity": "error", "path": "", "file": "", "message": message}
    answering(monkeypatch, 422, {"result": "rejected", "config_version": "abcd", "findings": [refused]})
    shown = gateway("rollback", "--admin", "http://127.0.0.1:1")
    assert shown.err == f"gateway: {message}\ngateway: not rolled back; abcd stays active\n"


@pytest.mark.parametrize("digits", [0, 3])
def test_rollback_rejects_a_version_prefix_that_is_too_short(
    gateway: Command, served: tuple[str, str], digits: int
) -> None:
    """An empty version (from an unset shell variable) is an error too. It does not mean the previous version."""
    shown = gateway("rollback", served[0][:digits])
    assert (shown.status, "write at least four characters" in shown.err) == (2, True)


def test_unknown_version_has_the_same_message_with_and_without_a_gateway(
    gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rest = gateway("rollback", "ffff")
    lock = Lock(Path("state"))
    lock.write_info({"admin": "http://127.0.0.1:1"})
    refused = {"severity": "error", "path": "", "file": "gateway.yaml", "message": "'ffff' is not a version"}
    answering(monkeypatch, 422, {"result": "rejected", "findings": [refused]})
    running = gateway("rollback", "ffff")
    lock.release()
    assert running == at_rest
    assert (running.status, "'ffff' is not a version of the history" in running.err) == (2, True)


@pytest.mark.parametrize(("missing", "status"), [(True, 2), (False, 1)])
def test_remote_gateway_decides_whether_a_version_exists(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, missing: bool, status: int
) -> None:
    """The history may be on another machine, so the command can't look it up."""
    refused = {"severity": "error", "path": "", "file": "gateway.yaml", "message": "'ffff' is not a version"}
    monkeypatch.delenv("GATEWAY_STATE_DIR")
    answering(monkeypatch, 422, {"result": "rejected", "findings": [refused], "missing": missing})
    shown = gateway("rollback", "ffff", "--admin", "http://127.0.0.1:1")
    assert (shown.status, "'ffff' is not a version" in shown.err) == (status, True)


def _with_a_catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Create a history from this folder, whose config names a catalogue in it."""
    folder.mkdir()
    (folder / "models.yaml").write_text("version: 1\nmodels: {openai-compatible: {m: {}}}\n")
    return recorded(folder, monkeypatch, {"catalogue": {"models": "models.yaml"}})


def test_version_finds_its_catalogue_next_to_the_config_from_any_directory(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions = _with_a_catalogue(tmp_path / "etc", monkeypatch)
    assert "models.yaml" not in (shown := gateway("diff", *versions)).err
    assert shown.status == 0
    shown = gateway("rollback")
    assert (shown.status, f"the next one serves {versions[0]}" in shown.out) == (0, True), shown.err


def test_rollback_stays_active_when_the_gateway_starts_without_the_file(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, served: tuple[str, str]
) -> None:
    Path("gateway.yaml").unlink()
    shown = gateway("serve", "--port", "0")
    assert (shown.status, "gateway.yaml" in shown.err) == (2, True), "nothing stands in for it by itself"
    shown = gateway("rollback")
    assert (shown.status, "`gateway rollback --release`" in shown.out) == (0, True), shown.err
    begun: list[InitialConfig] = []
    monkeypatch.setattr("gateway.server.start.serve_config", lambda _, started, *more: begun.append(started))
    assert gateway("serve", "--port", "0").status == 0
    assert [started.config.version for started in begun] == [served[0]]
    begun[0].change_log.close()


@pytest.mark.parametrize("is_rolled_back", [True, False])
def test_start_reads_a_changed_catalogue_unless_a_version_is_pinned(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_rolled_back: bool
) -> None:
    folder = tmp_path / "etc"
    active = _with_a_catalogue(folder, monkeypatch)[0 if is_rolled_back else 1]
    if is_rolled_back:
        assert gateway("rollback").status == 0
    (folder / "models.yaml").write_text("version: 1\nmodels: {openai-compatible: {m: {context_tokens: 4096}}}\n")
    begun: list[InitialConfig] = []
    monkeypatch.setattr("gateway.server.start.serve_config", lambda _, started, *more: begun.append(started))
    for _ in range(2):
        shown = gateway("serve", "--port", "0")
        assert shown.status == 0, shown.err
        log = begun[-1].change_log
        pointer, aside = log.pointer(), log.active_rollback()
        assert pointer.version == begun[-1].config.version
        assert (aside is not None) is is_rolled_back
        assert (pointer.version if is_rolled_back else log.history.before(pointer.version)) == active
        log.close()
    trail = [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]
    if not is_rolled_back:
        assert [line["event"] for line in trail[-3:]] == ["started", "activated", "started"]
        assert (trail[-2]["before"], trail[-2]["config_version"]) == (active, begun[0].config.version)
    assert begun[0].config.version == begun[1].config.version
    assert (begun[0].config.version == active) is is_rolled_back
    shown = gateway("history")
    assert shown.out.startswith(f"* {begun[0].config.version}")


def test_start_that_fails_at_its_port_reports_that_nothing_was_served(gateway: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = gateway("serve", "--port", str(taken.getsockname()[1]))
    assert shown.status == 2, shown.err
    last = json.loads(Path("state/audit.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last.get("detail")) == ("stopped", "nothing was served")


def test_rollback_overrides_the_last_served_config_by_default(
    gateway: Command, served: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_CONFIG")
    unknown = gateway("rollback")
    assert (unknown.status, "there is no config at config/gateway.yaml: name the config file" in unknown.err) == (
        2,
        True,
    )
    lock = Lock(Path("state"))
    lock.write_info({"config": str(Path("gateway.yaml").absolute())})
    lock.release()
    shown = gateway("rollback")
    assert (shown.status, f"{Path('gateway.yaml').absolute()} is no longer active" in shown.out) == (0, True)
    assert pinned_version() == served[0]


def test_rollback_overrides_a_named_config_that_does_not_exist(gateway: Command, served: tuple[str, str]) -> None:
    assert gateway("rollback", "--config", "gone.yaml").status == 0
    assert pinned_version() == served[0]


def test_release_without_a_gateway_activates_the_config_file(gateway: Command, served: tuple[str, str]) -> None:
    assert gateway("rollback").status == 0
    edited = CONFIG.merge({"deployments": {"house": {"model": "three"}}})
    edited.write(Path())
    assert pinned_version() == served[0], "an edit does not remove the pin"
    shown = gateway("rollback", "--release")
    assert (shown.status, "no version is pinned any more" in shown.out) == (0, True), shown.err
    assert pinned_version() is None
    events = [json.loads(line) for line in (Path("state") / "audit.jsonl").read_text().splitlines()]
    assert (events[-1]["event"], events[-1]["cause"]) == ("activated", "release")
    again = gateway("rollback", "--release")
    assert (again.status, "no version is pinned" in again.err) == (2, True)


def test_release_of_a_file_with_errors_keeps_the_pin(gateway: Command, served: tuple[str, str]) -> None:
    assert gateway("rollback").status == 0
    Path("gateway.yaml").write_text("nonsense: [\n")
    shown = gateway("rollback", "--release")
    assert (shown.status, "gateway.yaml:" in shown.err) == (1, True), shown
    assert pinned_version() == served[0]


def test_release_and_a_version_are_refused_together(gateway: Command, served: tuple[str, str]) -> None:
    shown = gateway("rollback", served[0], "--release")
    assert (shown.status, "leave out VERSION" in shown.err) == (2, True)


def test_check_and_history_report_the_pinned_version(gateway: Command, served: tuple[str, str]) -> None:
    assert "pinned" not in gateway("check").err
    assert gateway("rollback").status == 0
    note = f"version {served[0]} is pinned by a rollback, so no config file is activated; `gateway rollback --release`"
    assert note in gateway("check").err
    Path("gateway.yaml").write_text("nonsense: [\n")
    assert note in gateway("check").err
    assert f"{served[0]} is pinned by a rollback" in gateway("history").out
    assert json.loads(gateway("history", "--json").out)["pinned"] == served[0]


def test_explanation_of_another_file_has_no_pin_of_this_gateway(gateway: Command, served: tuple[str, str]) -> None:
    lock = Lock(Path("state"))
    lock.write_info({"config": str(Path("gateway.yaml").absolute())})
    lock.release()
    assert gateway("rollback").status == 0
    Path("other.yaml").write_bytes(Path("gateway.yaml").read_bytes())
    assert "is pinned by a rollback" in gateway("check", "gateway.yaml").err
    for words in (("explain", "--config", "other.yaml", "--from", "DE"), ("check", "--config", "other.yaml")):
        assert "pinned" not in gateway(*words).err


def test_release_of_a_running_gateway_asks_its_listener(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    def post(_: AdminClient, path: str, content: object, operator: str) -> tuple[int, dict[str, object]]:
        sent.append((path, content, operator))
        return 200, {"result": "activated", "config_version": "abcd", "file_active": True}

    monkeypatch.setattr(AdminClient, "post", post)
    shown = gateway("rollback", "--release", "--as", "ada", "--admin", "http://127.0.0.1:1")
    assert (shown.status, sent) == (0, [("/rollback", {"release": True}, "ada")])
    assert "no version is pinned any more" in shown.out


def test_running_gateway_names_its_config_file(gateway: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_CONFIG")
    answer = {"result": "activated", "config_version": "abcd", "file_active": False}
    answering(monkeypatch, 200, answer)
    lock = Lock(Path("state"))
    lock.write_info({"admin": "http://127.0.0.1:1", "config": "/etc/house.yaml"})
    shown = gateway("rollback")
    lock.release()
    assert "/etc/house.yaml is no longer active" in shown.out
    assert "the config file is no longer active" in gateway("rollback", "--admin", "http://127.0.0.1:1").out


def answering(monkeypatch: pytest.MonkeyPatch, status: int, answer: dict[str, object]) -> None:
    """Stand for a running gateway that answers each rollback so."""
    monkeypatch.setattr(AdminClient, "post", lambda *_: (status, answer))


def pinned_version() -> str | None:
    """Return the version that the next gateway serves instead of the config file."""
    log = ChangeLog(Path("state"))
    pinned = log.active_rollback()
    log.close()
    return pinned.version.version if pinned is not None else None
