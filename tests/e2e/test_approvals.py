"""Approvals against the real server: over, it is refused; valid, it answers; and what an app must show of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway

BODY = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
VALID = "valid_from: 2020-01-01, valid_until: 2999-12-31, document: 'https://www.example.cn/1'"
OVER = "valid_until: 2020-01-01"


def write_config(folder: Path, providers: SimulatorThread, validity: str) -> Path:
    """Write a config whose region `cn` requires approvals, with a record of this validity."""
    record = f"{{region: cn, authority: CAC, kind: registration, number: N-1, model_name: 通义千问, {validity}}}"
    approvals = f"{{regions: {{cn: {{approvals: required}}}}, deployments: {{qwen-cn: {{approvals: [{record}]}}}}}}"
    return config_for(providers, PATIENT, approvals).write(folder)


@contextmanager
def asking(path: Path) -> Iterator[tuple[httpx.Client, GatewayProcess]]:
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "CN"}
    with (
        running_gateway(path, KEYS) as process,
        httpx.Client(base_url=process.url, headers=headers, trust_env=False, timeout=30) as client,
    ):
        yield client, process


@pytest.mark.slow
def test_one_that_is_valid_answers_and_is_disclosed(providers: SimulatorThread, tmp_path: Path) -> None:
    with asking(write_config(tmp_path, providers, VALID)) as (client, process):
        answer = client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 200, answer.text
        told = client.get("/v1/disclosure", params={"assistant": "gpt-4o"})
        assert told.status_code == 200
        assert told.json() == {
            "object": "disclosure",
            "assistant": "assistant",
            "region": "cn",
            "labels": [],
            "data": [
                {
                    "deployment": answer.headers["x-gateway-deployment"],
                    "model": answer.json()["model"],
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


def test_one_that_is_over_is_refused_and_never_asked(providers: SimulatorThread, tmp_path: Path) -> None:
    said = "its approval for region 'cn' ended on 2020-01-01"
    with asking(write_config(tmp_path, providers, OVER)) as (client, process):
        before = providers["cn"].received
        for path, answer in (
            ("chat", client.post("/v1/chat/completions", json=BODY)),
            ("stream", client.post("/v1/chat/completions", json={**BODY, "stream": True})),
            ("disclosure", client.get("/v1/disclosure")),
        ):
            assert answer.status_code == 451, path
            error = answer.json()["error"]
            assert (error["code"], error["type"]) == ("no_approved_deployment", "permission_error")
            assert said in error["message"]
        assert providers["cn"].received == before
        [considered] = client.get("/v1/explain").json()["considered"]
        assert (considered["reason"], considered["detail"]) == ("approval", said)
        with httpx.Client(base_url=process.admin_url, trust_env=False) as admin:
            [ready] = admin.get("/readyz").json()["approvals"]
            assert ready["days_left"] < 0
            assert ready["warned_days"] == 7
    assert any(isinstance(line, dict) and said in line.get("detail", "") for line in process.lines)


@pytest.mark.slow
def test_disclosure_follows_the_rules_of_every_other_question(providers: SimulatorThread, tmp_path: Path) -> None:
    with asking(write_config(tmp_path, providers, VALID)) as (client, _):
        for change, query, status, code in (
            ({"authorization": "Bearer wrong"}, {}, 401, "invalid_api_key"),
            ({"cf-ipcountry": "CU"}, {}, 451, "region_blocked"),
            ({"cf-ipcountry": "XX"}, {}, 451, "region_unknown"),
            ({}, {"assistant": "nobody"}, 404, "model_not_found"),
        ):
            answer = client.get("/v1/disclosure", headers=change, params=query)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.headers["x-request-id"]
