"""The paths of the admin listener that the console is built on: territories, explain with facts, requests, events, faults."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.api.admin import build_admin
from gateway.api.admin_control import no_faults
from gateway.api.admin_guard import Guard
from gateway.model.stored_client import Role
from gateway.signing import new_key
from tests.kit.configs import BASE, table_of
from tests.kit.console_pages import StatedControl, control_of, demo_config


@pytest.fixture
def control() -> StatedControl:
    return control_of(demo_config())


def client_of(control: StatedControl, guard: Guard | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_admin(control, guard or Guard()))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081")


async def test_territories_have_their_region_and_deployments(control: StatedControl) -> None:
    document: Any = (await client_of(control).get("/territories")).json()
    assert [region["name"] for region in document["regions"]] == ["cn", "eu", "us", "default"]
    eu = {"name": "eu", "territories": "@EEA, CH", "boundary": "@EEA, CH", "approvals_required": False}
    assert document["regions"][1] == eu
    served = {"region": "default", "deployments": ["qwen-hk", "qwen-intl"], "refusal": None}
    assert document["territories"]["HK"] == served
    assert document["territories"]["CU"] == {"region": "default", "deployments": [], "refusal": "region_blocked"}
    assert len(document["territories"]) == 250


async def test_explain_has_boundary_labels_and_facts_with_their_source(control: StatedControl) -> None:
    document: Any = (await client_of(control).get("/explain", params={"territory": "HK"})).json()
    assert (document["boundary"], document["labels"]) == ("any", [])
    facts = next(item["facts"] for item in document["considered"] if item["deployment"] == "qwen-hk")
    shown = {"site": "hongkong", "stores": "HK", "processes": "any", "as_of": "2026-11-23"}
    assert facts.items() >= shown.items()
    assert facts["source"].startswith("https://www.alibabacloud.com/")
    assert document["not_on_route"] == ["chatgpt-eu", "chatgpt-us", "qwen-cn"]
    china: Any = (await client_of(control).get("/explain", params={"territory": "CN"})).json()
    assert china["boundary"] == "CN"


@pytest.mark.parametrize(
    ("passed_on", "protected", "gets"),
    [([], False, "pseudonym"), ([], True, "strip"), (["prompt_cache_key"], True, "pass")],
)
async def test_explain_has_what_a_deployment_gets_for_its_prompt_cache(
    passed_on: list[str], *, protected: bool, gets: str
) -> None:
    control = control_of(
        table_of(
            BASE.merge(
                {
                    "admin_keys": [new_key()[1].text],
                    "regions": {"us": {"protected": protected, "boundary": ["*"]}},
                    "deployments": {
                        "chatgpt-us": {"passthrough": passed_on},
                        "claude": {
                            "provider": "anthropic", "model": "claude-sonnet-5", "endpoint": "global",
                            "api_key": "${OPENAI_US_API_KEY}", "cache": "auto",
                        }
                    },
                    "assistants": {"assistant": {"routes": {"us": ["chatgpt-us", "claude"]}}},
                }
            )
        )
    )  # fmt: skip
    document: Any = (await client_of(control).get("/explain", params={"territory": "US"})).json()
    found = {it["deployment"]: it["facts"] for it in document["considered"]}
    assert found["chatgpt-us"]["cache_key"] == gets
    assert ("cache_key" in found["claude"], found["claude"]["cache"]) == (False, "auto")


async def test_requests_can_be_selected_by_id(control: StatedControl) -> None:
    control.documents = [{"request_id": "b"}, {"request_id": "a"}]
    client = client_of(control)
    assert (await client.get("/requests")).json() == {"requests": [{"request_id": "b"}, {"request_id": "a"}]}
    assert (await client.get("/requests", params={"id": "a"})).json() == {"requests": [{"request_id": "a"}]}


async def test_faults_are_set_listed_and_removed(control: StatedControl) -> None:
    client = client_of(control)
    done = await client.put("/faults", json={"deployment": "qwen-hk", "fault": "429=2"})
    assert [site["fault"] for site in done.json()["sites"] if site["site"] == "hongkong"] == ["429=2"]
    assert (await client.put("/faults", json={"deployment": "qwen-hk", "fault": None})).status_code == 200
    assert (await client.put("/faults", json={"deployment": "none", "fault": "500"})).status_code == 400
    refused = await client.put("/faults", json={"deployment": "qwen-hk", "kind": "500"})
    assert "unknown field 'kind'" in refused.json()["error"]["message"]
    await client.put("/faults", json={"deployment": "qwen-hk", "fault": "500"})
    assert {site["fault"] for site in (await client.delete("/faults")).json()["sites"]} == {None}


async def test_faults_do_not_exist_outside_a_demo(control: StatedControl, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise no_faults()

    for name in ("faults", "set_fault", "clear_faults"):
        monkeypatch.setattr(control, name, refuse)
    client = client_of(control)
    answers = [
        await client.get("/faults"),
        await client.put("/faults", json={"deployment": "a", "fault": "500"}),
        await client.delete("/faults"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert "no provider is simulated" in answers[0].json()["error"]["message"]


async def streamed(control: StatedControl, query: bytes, publish: Callable[[], None]) -> list[Any]:
    """Return what `/events` sends if these events are published once it is open, and the process ends after the first."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 2:
            publish()
        elif len(sent) == 3:
            control.feed.close()

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": query, "headers": headers}
    await build_admin(control, Guard())(scope, receive, send)
    return sent


async def test_events_are_streamed_until_the_process_ends(control: StatedControl) -> None:
    sent = await streamed(control, b"", lambda: control.feed.publish("config", {"config_version": "abc"}))
    assert dict(sent[0]["headers"])[b"content-type"] == b"text/event-stream"
    kind, data, *_ = sent[2]["body"].decode().split("\n")
    assert (kind, json.loads(data.removeprefix("data: "))["config_version"]) == ("event: config", "abc")
    assert sent[-1]["more_body"] is False


async def test_stream_has_only_the_wanted_kinds_and_costs_nothing_for_others(control: StatedControl) -> None:
    def publish() -> None:
        assert not control.feed.has_subscribers("requests")
        assert control.feed.has_subscribers("health")
        control.feed.publish("requests", {"requests": []})
        control.feed.publish("health", {"deployment": "gemini"})

    sent = await streamed(control, b"kinds=config,health", publish)
    assert sent[2]["body"].startswith(b"event: health\n")
    answer = await client_of(control).get("/events?kinds=config,prompts")
    assert (answer.status_code, "`kinds` must list some of" in answer.text) == (400, True)


async def test_pages_and_callers_without_the_token_are_refused(control: StatedControl) -> None:
    for path in ("/territories", "/requests", "/events", "/faults"):
        assert (await client_of(control).get(path, headers={"origin": "http://evil.example"})).status_code == 403
        assert (await client_of(control, Guard((("a-token", Role.ADMIN),))).get(path)).status_code == 401
