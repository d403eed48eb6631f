"""Approvals on the real server: an expired one refuses requests, a valid one allows them, and the disclosure shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for, http_client
from tests.kit.gateway_process import GatewayProcess, running_gateway

BODY = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
VALID = "valid_from: 2020-01-01, valid_until: 2999-12-31, document: 'https://www.example.cn/1'"
OVER = "valid_until: 2020-01-01"


def write_config(folder: Path, providers: SimulatorThread, validity: str) -> Path:
    """Write a config whose region `cn` requires approvals, with a record of this validity."""
    record = f"{{region: cn, authority: CAC, kind: registration, number: N-1, model_name: 通义千问, {validity}}}"
    approvals = f"{{regions: {{cn: {{approvals: required}}}}, deployments: {{qwen-cn: {{approvals: [{record}]}}}}}}"
    return config_for(providers, PATIENT, approvals).write(folder)


@contextmanager
def running_client(path: Path) -> Iterator[tuple[httpx.Client, GatewayProcess]]:
    with running_gateway(path, KEYS) as process, http_client(process, **{"cf-ipcountry": "CN"}) as client:
        yield client, process


@pytest.mark.slow
def test_valid_approval_answers_and_is_in_the_disclosure(providers: SimulatorThread, tmp_path: Path) -> None:
    with running_client(write_config(tmp_path, providers, VALID)) as (client, process):
        answer = client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 200, answer.text
        disclosure = client.get("/v1/disclosure", params={"assistant": "gpt-4o"})
        assert disclosure.status_code == 200
        assert disclosure.json() == {
            "object": "disclosure",
            "assistant": "assistant",
            "region": "cn",
            "labels": [],
            "data": [
                {
                    "deployment": answer.headers["x-gateway-deployment"],
                    "model": answer.json()["model"],
                    "redirected_to": None,
                    "model_name": "通义千问",
                    "approvals": [
                        {
                            "authority": "CAC",
                            "kind": "registration",
                            "number": "N-1",
                            "model_name": "通义千问",
                            "document": "https://www.example.cn/1",
                        }
                    ],
                    "consent": None,
                    "redacts": [],
                }
            ],
        }
        europe: Any = client.get("/v1/disclosure", headers={"cf-ipcountry": "DE"}).json()
        assert [item["deployment"] for item in europe["data"]] == ["chatgpt-eu", "chatgpt-eu-2"]
        assert {(item["model_name"], len(item["approvals"])) for item in europe["data"]} == {(None, 0)}
        with httpx.Client(base_url=process.admin_url, trust_env=False) as admin:
            [ready] = admin.get("/readyz").json()["approvals"]
            assert (ready["deployment"], ready["region"], ready["warned_days"]) == ("qwen-cn", "cn", None)
            days_left = ready["days_left"]
            assert days_left > 300_000
            metric = f'gateway_approval_days_left{{deployment="qwen-cn",region="cn"}} {float(days_left)}'
            assert metric in admin.get("/metrics").text.splitlines()


def test_expired_approval_refuses_and_the_deployment_gets_nothing(providers: SimulatorThread, tmp_path: Path) -> None:
    reason = "its approval for region 'cn' ended on 2020-01-01"
    with running_client(write_config(tmp_path, providers, OVER)) as (client, process):
        before = providers["cn"].received
        for path, answer in (
            ("chat", client.post("/v1/chat/completions", json=BODY)),
            ("stream", client.post("/v1/chat/completions", json={**BODY, "stream": True})),
            ("disclosure", client.get("/v1/disclosure")),
        ):
            assert answer.status_code == 451, path
            error = answer.json()["error"]
            assert (error["code"], error["type"]) == ("no_approved_deployment", "permission_error")
            assert reason in error["message"]
        assert providers["cn"].received == before
        [considered] = client.get("/v1/explain").json()["considered"]
        assert (considered["reason"], considered["detail"]) == ("approval", reason)
        with httpx.Client(base_url=process.admin_url, trust_env=False) as admin:
            [ready] = admin.get("/readyz").json()["approvals"]
            assert ready["days_left"] < 0
            assert ready["warned_days"] == 7
    assert any(isinstance(line, dict) and reason in line.get("detail", "") for line in process.lines)
