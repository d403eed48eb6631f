"""A feature that refuses chats at night is a folder and an entry in one list, and every view asks its door.

With what it logs, keeps and counts it is an addition of `tests/architecture/addition.py`, as a shipped feature would be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assembly import application
from gateway.assembly.application import Gateway
from gateway.changes.plan import plan_of
from gateway.config.check_report import render_matrix
from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from gateway.features.configuration import COMPILERS
from gateway.model.config_version import ConfigVersion
from gateway.model.refusal_reason import STATUS
from gateway.policy.location.resolution import resolve
from gateway.service.explain import PlainRequest, explain, reports_from
from gateway.state.receipts import receipt_of
from gateway.telemetry.batching import Ended
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS, MetricDefinition
from gateway.telemetry.metric_snapshots import unpack
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import JsonLines
from providers.registry import load_registry
from tests.kit.configs import Config
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.input_gateway import CONFIG, InputGateway
from tests.kit.quiet_feature.config import QUIET_COMPILER

NIGHT, DAY = (datetime(2027, 1, 2, hour, 30, tzinfo=UTC).timestamp() for hour in (2, 12))
QUIET = {"hours": "06:00-22:00", "timezone": "UTC", "text": {"en": "Good night.", "de": "Gute Nacht."}}
CHILD = {"age_bands": {"child": {"hours": "08:00-20:00", "timezone": "UTC"}}, "age_missing": "child"}
CRISIS = {
    "crisis": {
        "judges": ["judge"],
        "categories": ["self-harm"],
        "then": "stop",
        "on_failure": "closed",
        "text": {"en": "Call 112."},
    }
}
FLAGGED = {"flagged": True, "categories": {"self-harm": True}, "category_scores": {"self-harm": 0.9}}


def compiled(config: Config) -> ConfigVersion:
    document = parse_document(config.text.encode(), "gateway.yaml", {})
    return compile_config(document, registry=load_registry(), features=(*COMPILERS, QUIET_COMPILER)).config


def region(*rules: dict[str, Any]) -> Config:
    return CONFIG.merge(*({"regions": {"default": rule}} for rule in rules))


def served(config: Config, now_s: float, verdict: Callable[[], dict[str, Any]] = dict) -> InputGateway:
    """Return a gateway at a moment, whose judge gives this verdict."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/moderations"):
            return httpx.Response(200, json={"id": "m", "model": "j", "results": [verdict()]})
        message = {"role": "assistant", "content": "Hello."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "c", "choices": [choice], "usage": usage}
        return httpx.Response(200, json=body)

    made = InputGateway(answer, CONFIG)
    transport = HttpxTransport(httpx.MockTransport(made._answer))
    made.gateway = Gateway(compiled(config), transport)
    made.gateway._chat.service.decider.clock = lambda: now_s
    return made


def ask(gateway: InputGateway, **headers: str) -> httpx.Response:
    chat = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}
    return gateway.post("/v1/chat/completions", chat, {name.replace("_", "-"): it for name, it in headers.items()})


def test_chat_at_night_is_refused_in_the_language_of_the_user_and_no_provider_gets_it() -> None:
    night = served(region({"quiet": QUIET}), NIGHT)
    answer = ask(night, accept_language="de")
    assert answer.status_code == STATUS["region_blocked"]
    assert answer.json()["error"]["user_message"] == "Gute Nacht."
    assert 0 <= int(answer.headers["retry-after"]) - 3.5 * 3600 <= 5
    assert night.requests == []
    assert ask(served(region({"quiet": QUIET}), DAY)).status_code == 200


def test_refusal_is_logged_kept_and_counted_for_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators see that it was night, and no matter of geography."""
    kept: list[Ended] = []
    monkeypatch.setattr(application, "log_requests", lambda ended, share=1.0: kept.extend(ended))
    ask(served(region({"quiet": QUIET}), NIGHT))
    [(record, ended_at_s)] = kept
    line = json.loads(JsonLines().of(kept)[0])
    assert (line["code"], line["reason"], line["quiet_until"]) == ("region_blocked", "quiet", "2027-01-02T06:00:00Z")
    receipt = receipt_of(record, ended_at_s, None)
    assert receipt["quiet"] == line["quiet_until"]
    assert record.duties == {"quiet"}
    metrics = Metrics()
    definition = MetricDefinition("counter", "Chats refused at night.", ("region",))
    definitions = cast("dict[str, MetricDefinition]", METRIC_DEFINITIONS)
    monkeypatch.setitem(definitions, "gateway_quiet_refusals_total", definition)
    metrics.observe(record)
    series = unpack(metrics.snapshot())
    assert series["gateway_quiet_refusals_total"] == {("default",): [1]}
    assert {labels[5] for labels in series["gateway_requests_total"]} == {"quiet"}


def test_mistake_in_its_section_is_reported_as_any() -> None:
    with pytest.raises(ConfigRejected) as rejected:
        compiled(region({"quiet": {**QUIET, "hour": "1"}}))
    assert [it.path for it in rejected.value.problems if it.severity == "error"] == [
        ("regions", "default", "quiet", "hour")
    ]


def test_check_and_plan_show_it() -> None:
    before, after = compiled(CONFIG), compiled(region({"quiet": QUIET}))
    assert "quiet: chats are answered 06:00-22:00 (UTC)" in render_matrix(after)
    assert [change.what for item in plan_of(before, after).regions for change in item.changes] == ["quiet"]


def test_help_in_a_crisis_comes_before_the_refusal() -> None:
    config = region({"quiet": QUIET, **CRISIS})
    refused = ask(served(config, NIGHT, lambda: {**FLAGGED, "flagged": False, "categories": {"self-harm": False}}))
    assert refused.status_code == STATUS["region_blocked"]
    helped = ask(served(config, NIGHT, lambda: FLAGGED))
    assert (helped.status_code, helped.json()["x_gateway"]["crisis"]["then"]) == (200, "stop")


RULES: dict[str, dict[str, Any]] = {"quiet": {"quiet": QUIET}, "hours": CHILD, "use": {"use": {"gap": "30m"}}}


@given(st.sets(st.sampled_from(sorted(RULES))), st.integers(0, 23))
def test_what_explain_answers_is_what_a_chat_gets(rules: set[str], hour: int) -> None:
    """All features with a door that needs no text of the chat, together and at any hour."""
    now_s = datetime(2027, 1, 2, hour, 30, tzinfo=UTC).timestamp()
    gateway = served(region(*(RULES[name] for name in sorted(rules))), now_s)
    config = gateway.gateway.config
    request = PlainRequest(config, None, reports_from("DE"), config.assistants["assistant"], now_s)
    assert resolve(config, None, request.reports).region is not None
    outcome: Any = explain(request)["outcome"]
    answer = ask(gateway)
    error = answer.json().get("error")
    if error is None:
        assert [step["deployment"] for step in outcome["plan"]] == ["chat"]
    else:
        assert (outcome["refusal"]["code"], outcome["refusal"]["message"]) == (error["code"], error["message"]), (
            json.dumps(outcome)
        )
