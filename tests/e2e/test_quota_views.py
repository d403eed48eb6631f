"""Operators see the quotas of a running gateway: the counters at once, over all workers, and what had no room."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import client_of, serving
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts gateways with two workers")
QUOTA = {
    "quotas": {"account": {"requests": {"minute": 6000, "day": 4}, "burst": "1s"}},
    "deployments": {"ok": {"quota": "account"}},
}


def shown(gateway: GatewayProcess, path: str) -> httpx.Response:
    return httpx.get(f"{gateway.admin_url}{path}", trust_env=False, timeout=30).raise_for_status()


def test_operators_see_what_is_used_and_what_had_no_room(tmp_path: Path) -> None:
    with serving(tmp_path, "ok", QUOTA, workers=2) as (gateway, meter):
        statuses = []
        for number in range(12):
            with client_of(gateway, **{"x-request-id": f"r-{number}"}) as client:
                statuses.append(client.post(CHAT, json=body(max_tokens=5)).status_code)
        assert statuses == [200] * 4 + [503] * 8
        minute, day = shown(gateway, "/v1/admin/quotas").json()["quotas"]
        assert (day["used"], day["limit"], day["deployments"], day["clients"]) == (4, 4, ["ok"], {"app": 1.0})
        assert (day["free_at"][-10:], minute["free_at"]) == ("T00:00:00Z", None)
        (step,) = shown(gateway, "/explain?client=app").json()["outcome"]["plan"]
        assert [(one["unit"], one["window"], one["used"]) for one in step["quota"]] == [
            ("requests", "minute", 0),
            ("requests", "day", 4),
        ]
        status = shown(gateway, "/status").json()
        assert "the quota account is used to 100%: 4 requests a day" in status["warnings"]
        problem = "no step of assistant (chat) in the region default has room in its quotas: gateway quotas"
        assert [it for it in status["problems"] if "quotas" in it] == [problem]
        metrics = shown(gateway, "/metrics").text
        assert 'gateway_quota_used_ratio{quota="account",unit="requests",window="day"} 1.0' in metrics
        assert 'gateway_quota_skips_total{deployment="ok",priority="normal",quota="account"} 8.0' in metrics
        eventually(lambda: "r-11" in shown(gateway, "/requests").text)
        (last,) = [it for it in shown(gateway, "/requests").json()["requests"] if it["request_id"] == "r-11"]
        assert last["passed_over_codes"] == {"ok": "quota"}
        assert last["skipped"]["ok"].startswith("quota account: 4 requests a day are used, free in ")
        report = in_this_process("usage", "--by", "quota", "--json", "--admin", gateway.admin_url, environ={})
        assert [(it["quota"], it["calls"]) for it in json.loads(report.stdout)["groups"]] == [("account", 4)]
        assert meter.number("ok") == 4
