"""A protected region changes only with an admin's signature on that change: at a reload, a rollback and a start."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.signing import new_key
from providers.testkit.server import SimulatorThread
from tests.e2e.switching_gateway import (
    audit_events,
    content_of,
    environ_of,
    gateway_command,
    replace_config,
    state_dir_of,
)
from tests.kit.configs import Config
from tests.kit.gateway_command import in_this_process
from tests.kit.reloading_gateway import Operator, config, operated


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread) -> Path:
    for name in ("admin", "stranger"):
        pem, public = new_key()
        (tmp_path / f"{name}.pem").write_bytes(pem)
        (tmp_path / f"{name}.pem").chmod(0o600)
        (tmp_path / f"{name}.pub").write_text(public.text)
    path = tmp_path / "gateway.yaml"
    path.write_text(protected(path, pair), "utf-8")
    return path


def protected(path: Path, pair: SimulatorThread, route: str = "a", number: int = 0, keys: str = "admin") -> str:
    """Return the usual config with its only region protected."""
    public = (path.parent / f"{keys}.pub").read_text()
    patch = {"regions": {"default": {"protected": True}}, "admin_keys": [public]}
    return config(pair, route, number, patch).text


def run_command(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return in_this_process(*words, environ=environ_of(path))


def sign(path: Path, text: str, since: str, key: str = "admin", name: str = "new.yaml") -> Path:
    """Sign the change to this config and return the path of the signature."""
    new = path.with_name(name)
    new.write_text(text, "utf-8")
    done = run_command(path, "plan", str(new), "--from", since, "--sign", str(path.with_name(f"{key}.pem")))
    signature = new.with_name(f"{name}.sig")
    assert signature.exists(), done.stderr
    return signature


@pytest.fixture
def operator(path: Path, pair: SimulatorThread) -> Iterator[Operator]:
    with operated(path, 1, GATEWAY_STATE_DIR=str(state_dir_of(path))) as operator:
        yield operator


def refusal_reasons(operator: Operator) -> str:
    """Return why the last edit was not accepted."""
    findings: list[str] = operator.gateway.wait_for("config_rejected")["findings"]
    assert len(findings) == 1
    return findings[0]


@pytest.mark.slow("compiles several changes")
def test_change_of_a_protected_region_needs_a_signature(operator: Operator, pair: SimulatorThread, path: Path) -> None:
    first = operator.version()
    # A change that does not touch the region needs no signature.
    second = replace_config(operator, protected(path, pair, "a", 1))
    text = protected(path, pair, "b", 2)
    operator.replace(text)
    reasons = refusal_reasons(operator)
    assert "a protected region would change (default: the route of assistant" in reasons
    assert operator.version() == second
    signature_file = path.with_name("gateway.yaml.sig")
    # Signatures by an unknown key or of another change are not accepted.
    for key, since in (("stranger", second), ("admin", first)):
        signature_file.write_text(sign(path, text, since, key).read_text())
        assert "its signature is not accepted" in refusal_reasons(operator)
    signature_file.write_text(sign(path, text, second).read_text())
    operator.wait_for_another(second)
    assert operator.answered_by() == "b"
    events = [line["event"] for line in audit_events(path)]
    assert events[-2:] == ["signature_accepted", "activated"]
    assert events.count("signature_refused") == 3
    # The way back is another change and needs its own signature.
    third = operator.version()
    done = run_command(path, "rollback", second)
    assert (done.returncode, "a protected region would change" in done.stderr) == (1, True)
    back = sign(path, protected(path, pair, "a", 1), third, name="back.yaml")
    assert run_command(path, "rollback", second, "--signature", str(back)).returncode == 0
    assert operator.answered_by() == "a"


@pytest.mark.slow("compiles several changes")
@pytest.mark.parametrize(
    "change", ["unprotected", pytest.param("another admin", marks=pytest.mark.slow), "an edit of the account"]
)
def test_protection_itself_is_protected(operator: Operator, pair: SimulatorThread, path: Path, change: str) -> None:
    before = operator.version()
    text = {
        "unprotected": Config.parse(protected(path, pair)).merge("regions: {default: {protected: null}}").text,
        "another admin": protected(path, pair, keys="stranger"),
        "an edit of the account": Config.parse(protected(path, pair))
        .merge("deployments: {a: {api_key: '${OTHER}'}}")
        .text,
    }[change]
    operator.replace(text)
    assert "a protected region would change" in refusal_reasons(operator)
    assert operator.version() == before


@pytest.mark.slow("starts a gateway several times")
def test_start_without_anything_to_compare_with_can_be_refused(path: Path) -> None:
    state = state_dir_of(path)
    warned = run_command(path, "check", "--state", str(state))
    assert (warned.returncode, "the next start checks no signature" in warned.stderr) == (0, True)
    assert run_command(path, "check", "--strict", "--state", str(state)).returncode == 1
    environ = {**environ_of(path), "GATEWAY_REQUIRE_STATE": "true", "GATEWAY_STATE_DIR": str(state)}
    for _ in range(2):  # a refused start leaves nothing to compare with
        refused = in_this_process("serve", "--port", "0", environ=environ)
        assert (refused.returncode, "no earlier version is known" in refused.stderr) == (2, True)
    with operated(path, 1, GATEWAY_STATE_DIR=str(state)):
        pass
    with operated(path, 1, GATEWAY_STATE_DIR=str(state), GATEWAY_REQUIRE_STATE="true") as operator:
        assert operator.version()
    assert "checks no signature" not in run_command(path, "check", "--state", str(state)).stderr


@pytest.mark.slow("starts a gateway several times")
def test_restart_does_not_bypass_the_protection(path: Path, pair: SimulatorThread) -> None:
    environ = {"GATEWAY_STATE_DIR": str(state_dir_of(path))}
    with operated(path, 1, **environ) as operator:
        first = operator.version()
        unchecked = [line for line in operator.gateway.lines if isinstance(line, dict)]
        assert any(line["event"] == "protected_unchecked" for line in unchecked)
    text = protected(path, pair, "b", 1)
    path.write_text(text, "utf-8")
    done = gateway_command(path, "serve", "--port", "0")
    assert (done.returncode, "a protected region would change" in done.stderr) == (2, True)
    # A version that can no longer be compared does not either: in doubt, everything counts as changed.
    with sqlite3.connect(state_dir_of(path) / "history.db") as database:
        ((stored,),) = database.execute("SELECT text FROM version").fetchall()
        gone = stored.replace(b"openai-compatible", b"gone")
        content = content_of(gone.decode())
        database.execute("UPDATE version SET text = ?, content = ?, version = ?", (gone, content, content[:12]))
        database.execute("UPDATE pointer SET version = ?", (content[:12],))
    database.close()
    done = gateway_command(path, "serve", "--port", "0")
    assert (done.returncode, "cannot be compiled any more" in done.stderr) == (2, True)
    with sqlite3.connect(state_dir_of(path) / "history.db") as database:
        content = content_of(stored.decode())
        database.execute("UPDATE version SET text = ?, content = ?, version = ?", (stored, content, first))
        database.execute("UPDATE pointer SET version = ?", (first,))
    database.close()
    path.with_name("gateway.yaml.sig").write_text(sign(path, text, first).read_text())
    with operated(path, 1, **environ) as operator:
        assert operator.answered_by() == "b"
    assert run_command(path, "audit", "verify").returncode == 0
    events = [line["event"] for line in audit_events(path)]
    assert events.count("signature_refused") == 2
    # Each failed start is recorded with its end.
    assert events.count("started") == events.count("stopped") == 4
    assert sum("detail" in line for line in audit_events(path) if line["event"] == "stopped") == 2


@pytest.mark.slow
def test_plan_reports_whether_it_is_signed(path: Path, pair: SimulatorThread) -> None:
    new = path.with_name("new.yaml")
    new.write_text(protected(path, pair, "b"), "utf-8")
    done = run_command(path, "plan", str(new), "--json")
    assert done.returncode == 1
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "protected"]
    assert (check["ok"], "sign the plan" in check["findings"][0]) == (False, True)
    done = run_command(path, "plan", str(new), "--json", "--sign", str(path.with_name("admin.pem")))
    assert done.returncode == 0, done.stdout
    new.write_text(protected(path, pair, "b, nobody"), "utf-8")
    assert run_command(path, "plan", str(new), "--sign", str(path.with_name("admin.pem"))).returncode == 1
