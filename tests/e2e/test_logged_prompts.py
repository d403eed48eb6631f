"""Prompts are logged for the region that enables it, and for no other."""

from __future__ import annotations

from pathlib import Path

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for, http_client
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import running_gateway

WORDS = "what a neighbour\nmust not read"


def test_log_has_the_prompts_of_the_region_that_enables_it(providers: SimulatorThread, tmp_path: Path) -> None:
    logging = "{cell: {territory: DE, serves: [eu, default]}, regions: {eu: {log_prompts: true}}}"
    path = config_for(providers, PATIENT, logging).write(tmp_path)
    with running_gateway(path, KEYS) as gateway, http_client(gateway) as client:
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": WORDS}]},
        ]
        for number, place in enumerate(("JP", "CN", "DE")):
            headers = {"cf-ipcountry": place, "x-request-id": f"id-{number}"}
            response = client.post(CHAT, json={**body(), "messages": messages}, headers=headers)
            assert response.status_code == (421 if place == "CN" else 200), response.text
            gateway.wait_for("request", request_id=f"id-{number}")
        gateway.stop()
        lines = [line for line in gateway.lines if "neighbour" in str(line)]
    assert [
        {name: line[name] for name in ("event", "level", "request_id", "region", "prompt")}
        for line in lines
        if isinstance(line, dict)
    ] == [
        {
            "event": "prompt",
            "level": "info",
            "request_id": "id-2",
            "region": "eu",
            "prompt": f"system: Be kind.\nuser: {WORDS}",
        }
    ]
    assert len(lines) == 1
