"""`gateway providers check` with signed requests: it shows no part of a credential and no value derived from one."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from providers.registry import load_registry
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.cli.conftest import Command, Outcome
from tests.kit.configs import Config
from tests.kit.gateway_process import config_of_one_region
from tests.kit.usage_rows import kept_rows

PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode("ascii")
)
ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "project_id": "house-1",
        "private_key_id": "key-id-of-mine",
        "private_key": PEM,
        "client_email": "robot@house-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
)
CREDENTIALS: dict[str, tuple[str, str, list[str]]] = {
    "anthropic": ("claude-sonnet-4-6", "sk-ant-very-secret", ["sk-ant-very-secret"]),
    "bedrock": (
        "anthropic.claude-sonnet-4-6-v1:0",
        "AKIAVERYSECRET:secret/access+key=in:session//token==of+mine",
        ["AKIAVERYSECRET", "secret/access+key", "session//token", "Signature=", "Credential="],
    ),
    "vertex": ("gemini-3.8-flash", ACCOUNT, ["robot@", "key-id-of-mine", "PRIVATE KEY", "Bearer "]),
    "tokenhub": ("hy3", "sk-secret-key-of-mine", ["secret-key-of-mine"]),
}


def _config(provider: str, model: str, endpoint: str) -> Config:
    real = {"provider": provider, "model": model, "endpoint": endpoint, "api_key": "${REAL_KEY}"}
    return config_of_one_region({"real": {**real, "stores": "US", "processes": "US"}})


def test_request_of_a_check_leaves_a_row_of_the_internal_project(
    gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_KEY", "sk-very-secret")
    with SimulatorThread({"real": SimulatorServer(load_simulators().simulators["openai"], "the real one")}) as provider:
        config, state = _config("openai", "gpt-5.4-mini", f"{provider['real'].origin}/v1"), tmp_path / "state"
        for budget in (10_000, 1):
            projects = {"operations": {"budgets": [{"tokens": budget, "per": "total"}]}}
            path = config.merge({"usage": {"internal_project": "operations"}, "projects": projects}).write(tmp_path)
            shown = gateway("providers", "check", "real", "--config", path, "--state", state)
            assert shown.status == (0 if budget > 1 else 1), shown
        assert "not sent: `usage.internal_project` pays for it" in shown.out
        assert provider["real"].received == 1
    rows = kept_rows(state)
    assert [(row.client, row.project, row.request) for row in rows] == [(None, "operations", "check")]


@pytest.mark.parametrize("fault", [None, HttpError(401)], ids=["well", "refused"])
@pytest.mark.parametrize("name", CREDENTIALS)
def test_provider_check_shows_no_part_of_a_credential(
    gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: HttpError | None
) -> None:
    model, secret, hidden = CREDENTIALS[name]
    monkeypatch.setenv("REAL_KEY", secret)
    adapter = load_registry().adapters[name]
    base_path = next(iter(adapter.sites.values())).base_path.replace("PROJECT", "house-1")
    faults = ((fault, 1.0),) if fault else ()
    with SimulatorThread({"real": SimulatorServer(load_simulators().simulators[name], "the real one")}) as provider:
        provider["real"].scenario = Scenario(faults=faults)
        path = _config(name, model, provider["real"].origin + base_path).write(tmp_path)
        shown = gateway("providers", "check", "real", "--config", path)
        sent = provider["real"].requests[-1]
    assert shown.status == (1 if fault else 0), shown.out
    assert ("\nit failed (credentials): " if fault else "\nit answered: ") in shown.out
    if fault and name == "tokenhub":
        assert "another site (each of ap-guangzhou, ap-singapore has its own keys)" in shown.out, (
            "the possible reason is missing"
        )
    assert "authorization: (masked)" in shown.out.lower() or "x-api-key: (masked)" in shown.out
    for word in (secret, *hidden):
        assert word not in shown.out + shown.err
    signatures = re.findall(r"[^\s,;=]{32,}", sent.headers.get("authorization", ""))
    assert signatures or name in ("anthropic", "tokenhub")
    assert not any(word in shown.out + shown.err for word in signatures)


@pytest.fixture
def check(gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Outcome]:
    """Return a function that checks a server which answers with these bytes."""

    def check(answer: bytes) -> Outcome:
        monkeypatch.setenv("REAL_KEY", "sk-house")
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def speak() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            speaking = threading.Thread(target=speak)
            speaking.start()
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
            path = _config("openai-compatible", "m", f"{origin}/v1").write(tmp_path)
            shown = gateway("providers", "check", "real", "--config", path)
            speaking.join()
        return shown

    return check


def test_provider_check_escapes_control_characters(check: Callable[[bytes], Outcome]) -> None:
    """Control characters are escaped in the body, in headers and in the error message."""
    body = json.dumps({"error": {"message": "\x9b31m stop", "code": "x"}}, ensure_ascii=False).encode()
    answer = b"HTTP/1.1 403 No\r\nx-note: \x9b31m\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    shown = check(answer)
    assert shown.status == 1, shown.out
    assert "x-note: \\x9b31m" in shown.out
    assert '"message": "\\x9b31m stop"' in shown.out
    assert all(line.isprintable() for line in shown.out.split("\n"))


def answered(check: Callable[[bytes], Outcome], answer: dict[str, object]) -> Outcome:
    """Return the outcome of a check of a server that gives this answer."""
    body = json.dumps(answer).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-house-trace: t1\r\nconnection: close\r\n"
    return check(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))


def checked(check: Callable[[bytes], Outcome], answer: dict[str, object]) -> str:
    """Return the output of such a check, which must succeed."""
    shown = answered(check, answer)
    assert shown.status == 0, shown.out + shown.err
    return shown.out


def answer_of(**changes: object) -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    return {
        "id": "r",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    } | changes


def test_provider_check_finds_an_answer_as_the_facts_have_it(check: Callable[[bytes], Outcome]) -> None:
    shown = checked(check, answer_of())
    assert "  same     model: 'm' answered" in shown
    assert "  same     finish reason: stop" in shown
    assert "  same     usage: 9 input and 1 output tokens" in shown
    assert "differs" not in shown


def test_provider_check_names_a_finish_reason_that_is_not_known(check: Callable[[bytes], Outcome]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "OK"}, "finish_reason": "monsoon"}
    shown = answered(check, answer_of(choices=[choice]))
    assert "  differs  finish reason: 'monsoon' is not known, and is shown as `length`" in shown.out


def test_provider_check_names_what_differs_from_the_facts(check: Callable[[bytes], Outcome]) -> None:
    """Reasoning tokens outside of `completion_tokens`, and an unknown member."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 700}
    shown = checked(check, answer_of(usage=usage, palm={"a": 1}, model="m-2"))
    assert "  note     model: 'm-2' answered for 'm', which may be an alias" in shown
    assert "  differs  usage: the total is 700 tokens, but input and output that were read make 10" in shown
    assert "  note     request id: none was found; these headers may have one: x-house-trace" in shown
    assert "  note     members that the adapter does not read: palm" in shown
