"""Receipts from a real gateway: for the caller, from any worker, with a signature that an auditor can verify."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.model.sampling import is_id_kept
from gateway.signing import new_key
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for, http_client
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import Command, as_a_process, in_this_process
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess, running_gateway
from tests.kit.waiting import eventually

GERMANY = {"cf-ipcountry": "DE"}


def receipt(gateway: GatewayProcess, request_id: str, key: str = APP_KEY) -> Any:
    """Return the receipt once it exists. Uses many connections, so that any worker may answer."""

    def receipt_exists() -> httpx.Response:
        with http_client(gateway, key) as client:
            return client.get(f"/v1/receipts/{request_id}")

    eventually(lambda: receipt_exists().status_code == 200)
    for _ in range(4):
        answer = receipt_exists()
        assert answer.status_code == 200
    return answer.json()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key that signs receipts. The public key is next to it."""
    pem, public = new_key()
    key = tmp_path / "receipts.pem"
    key.write_bytes(pem)
    key.chmod(0o600)
    (tmp_path / "receipts.pub").write_text(f"{public.text}\n")
    return key


@pytest.fixture(params=WORKERS)
def signing(
    request: pytest.FixtureRequest, providers: SimulatorThread, healthy: None, key: Path, tmp_path: Path
) -> Iterator[tuple[GatewayProcess, Path]]:
    config = config_for(providers, PATIENT).write(tmp_path)
    environ = {
        "GATEWAY_STATE_DIR": str(tmp_path / "state"),
        "GATEWAY_RECEIPT_KEY": str(key),
        "GATEWAY_WORKERS": str(request.param),
    }
    with running_gateway(config, {**KEYS, **environ}) as gateway:
        yield gateway, tmp_path


def test_caller_gets_a_receipt_that_an_auditor_can_verify(
    signing: tuple[GatewayProcess, Path], providers: SimulatorThread
) -> None:
    gateway, folder = signing
    with http_client(gateway) as client:
        answer = client.post(CHAT, json=body(), headers=GERMANY)
        assert answer.status_code == 200
        request_id = answer.headers["x-request-id"]
    found = receipt(gateway, request_id)
    fields = found["receipt"]
    assert (fields["region"], fields["territory"], fields["evidence"]) == ("eu", "DE", "edge_header")
    assert (fields["answered_by"], fields["stores"], fields["processes"]) == ("chatgpt-eu", "DE", "DE")
    assert fields["config_version"] == answer.headers["x-gateway-config"]
    assert [attempt["deployment"] for attempt in fields["tried"]] == ["chatgpt-eu"]
    line = gateway.wait_for("request", request_id=request_id)
    assert (line["stores"], line["processes"], line["region"]) == ("DE", "DE", "eu")
    # Other clients do not get it, not even a trusted backend.
    with http_client(gateway, BACKEND_KEY) as other:
        assert other.get(f"/v1/receipts/{request_id}").json()["error"]["code"] == "not_found"
    with http_client(gateway, "gk-wrong") as stranger:
        assert stranger.get(f"/v1/receipts/{request_id}").status_code == 401
    assert "hello" not in json.dumps(found).lower()
    with closing(sqlite3.connect(folder / "state" / "receipts.db", isolation_level=None)) as database:
        database.execute("UPDATE receipt SET content = replace(content, '\"DE\"', '\"FR\"')")
        with http_client(gateway) as client:
            answer = client.get(f"/v1/receipts/{request_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "receipt_damaged")
        assert "jws" not in answer.text
        database.execute("UPDATE receipt SET content = replace(content, '\"FR\"', '\"DE\"')")
    assert receipt(gateway, request_id) == found

    path = folder / "receipt.json"
    path.write_text(json.dumps(found))
    done = verify_command(path, folder / "receipts.pub", as_a_process)
    assert (done.returncode, json.loads(done.stdout)) == (0, fields)
    path.write_text(found["jws"])
    assert verify_command(path, found["key"]).returncode == 0
    # A changed receipt does not match its signature.
    path.write_text(json.dumps({**found, "receipt": {**fields, "region": "us"}}))
    done = verify_command(path, folder / "receipts.pub", as_a_process)
    assert (done.returncode, "it was changed after it was signed" in done.stderr) == (1, True)
    head, payload, signature = found["jws"].split(".")
    path.write_text(f"{head}.{payload[:-4]}AAAA.{signature}")
    assert verify_command(path, folder / "receipts.pub").returncode == 1
    path.write_text(json.dumps(found))
    assert verify_command(path, new_key()[1].text).returncode == 1


def verify_command(path: Path, key: Path | str, run: Command = in_this_process) -> subprocess.CompletedProcess[str]:
    return run("receipt", "verify", str(path), "--key", str(key))


def test_failover_and_refusal_have_receipts(signing: tuple[GatewayProcess, Path], providers: SimulatorThread) -> None:
    gateway, _ = signing
    providers["eu"].scenario = Scenario(faults=((HttpError(503), 1.0),))
    with http_client(gateway) as client:
        answer = client.post(CHAT, json=body(), headers=GERMANY)
        fields = receipt(gateway, answer.headers["x-request-id"])["receipt"]
        assert fields["answered_by"] == answer.headers["x-gateway-deployment"] == "chatgpt-eu-2"
        tried = [(attempt["deployment"], attempt["stores"], attempt["outcome"]) for attempt in fields["tried"]]
        assert tried[0] == ("chatgpt-eu", "DE", "unavailable")
        assert tried[-1] == ("chatgpt-eu-2", "FR", "ok")
        unable = client.post(CHAT, json={**body(), "n": 5}, headers={"cf-ipcountry": "CN"})
        fields = receipt(gateway, unable.headers["x-request-id"])["receipt"]
        assert (fields["code"], fields["tried"]) == ("unsupported_capability", [])
        assert fields["passed_over"] == {"qwen-cn": "does not support n"}
        # No receipt is kept for a request of unknown region, because its storage location could be wrong.
        refused = client.post(CHAT, json=body(), headers={"cf-ipcountry": "XX"})
        assert refused.status_code == 451
        # The receipt of a later request exists, so this one would exist too.
        after = client.post(CHAT, json=body(), headers=GERMANY)
        receipt(gateway, after.headers["x-request-id"])
        assert client.get(f"/v1/receipts/{refused.headers['x-request-id']}").status_code == 404


@pytest.mark.slow("sends 40 requests, one after another")
def test_samples_of_log_and_receipts_keep_the_same_requests_and_all_failovers(
    providers: SimulatorThread, healthy: None, key: Path, tmp_path: Path
) -> None:
    config = config_for(providers, PATIENT, "log: {sample: 30%}", "receipts: {sample: 0.3}").write(tmp_path)
    environ = {**KEYS, "GATEWAY_STATE_DIR": str(tmp_path / "state"), "GATEWAY_RECEIPT_KEY": str(key)}
    ids = [f"sample-{number}" for number in range(40)]
    with running_gateway(config, environ) as gateway, http_client(gateway) as client:
        for request_id in ids:
            assert client.post(CHAT, json=body(), headers={**GERMANY, "x-request-id": request_id}).status_code == 200
        assert client.post(CHAT, json={**body(), "n": 5}, headers={"cf-ipcountry": "CN", "x-request-id": "refused"})
        providers["eu"].scenario = Scenario(faults=((HttpError(503), 1.0),))
        assert client.post(CHAT, json=body(), headers={**GERMANY, "x-request-id": "failed-over"}).status_code == 200
        gateway.wait_for("request", request_id="failed-over")
        for request_id in ("refused", "failed-over"):
            assert receipt(gateway, request_id)["receipt"]["sample"] == 1
        answers = {request_id: client.get(f"/v1/receipts/{request_id}") for request_id in ids}
        lines = {line["request_id"]: line for line in gateway.lines if isinstance(line, dict) and "request_id" in line}
        metrics = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text
    kept = {request_id for request_id in ids if is_id_kept(request_id, 0.3)}
    assert 0 < len(kept) < len(ids)
    assert {request_id for request_id, answer in answers.items() if answer.status_code == 200} == kept
    assert lines.keys() == {*kept, "refused", "failed-over"}
    assert {lines[request_id]["sample"] for request_id in kept} == {0.3}
    missing = next(answer for request_id, answer in answers.items() if request_id not in kept)
    assert "this gateway keeps the receipts of 30% of the successful requests" in missing.json()["error"]["message"]
    counted = [line for line in metrics.splitlines() if line.startswith("gateway_requests_total{")]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == len(ids) + 2
    # A sampled receipt is signed like any other, and has the share of its sample.
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(answers[min(kept)].json()))
    done = verify_command(path, key.with_suffix(".pub").read_text().strip())
    assert (done.returncode, json.loads(done.stdout)["sample"]) == (0, 0.3)


def test_receipts_without_a_state_directory_are_off_and_reported(client: httpx.Client) -> None:
    answer = client.get("/v1/receipts/req_1")
    assert answer.status_code == 404
    assert "GATEWAY_STATE_DIR is not set" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_key_that_cannot_sign_stops_the_start(providers: SimulatorThread, tmp_path: Path) -> None:
    config = config_for(providers, PATIENT).write(tmp_path)
    environ = {**KEYS, "GATEWAY_STATE_DIR": str(tmp_path / "state"), "GATEWAY_RECEIPT_KEY": str(tmp_path / "no")}
    done = as_a_process("serve", "--config", str(config), "--port", "0", environ=environ)
    assert (done.returncode, "GATEWAY_RECEIPT_KEY: " in done.stderr) == (2, True)
