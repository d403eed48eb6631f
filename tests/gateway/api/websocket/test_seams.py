"""Turns where another feature acts: a turn is what its POST is, with the same row of use, receipt and metrics."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.model.record import Record
from gateway.state.receipts import receipt_of
from gateway.telemetry.metrics import Metrics
from gateway.usage.accounting import Accounting
from gateway.usage.journal import Journal
from gateway.usage.usage_row import UsageRow
from tests.gateway.api.websocket.websocket_gateway import (
    Provider,
    Running,
    connected,
    expect_a_turn_to_be_the_post,
    serving,
)

ANSWER = ("A first sentence, which is long enough to be judged. ", "And another one, from here.")
JUDGE = "{provider: openai-compatible, model: j, endpoint: 'https://judge.example/v1', stores: any, processes: any}"
CLOUD = (
    "{provider: openai-compatible, model: c, endpoint: 'https://cloud.example/v1', stores: any, processes: any, "
    "capabilities: [vision], consent: {mode: per_request, recipient: Cloud}}"
)
PICTURE = [
    {"type": "input_text", "text": "See"},
    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
]


class World(Provider):
    """A model that repeats the last text of the user before its answer, and a judge that flags the word `harm`."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.host == "judge.example":
            self.bodies.append(body)
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            results = [{"flagged": "harm" in it, "categories": {"self-harm": "harm" in it}} for it in texts]
            return httpx.Response(200, json={"results": results})
        content = body["messages"][-1]["content"]
        self.words = (*([content] if isinstance(content, str) else []), *self.answer)
        return await super().__call__(request)

    answer = ANSWER


@dataclass(frozen=True)
class Case:
    """A feature: the patches of the configuration, the request, and words that only a client that met it gets."""

    patches: tuple[str, ...]
    words: str
    input: Any = "Hello"
    answer: tuple[str, ...] = ANSWER
    first: int = 0


def of_region(rules: str, *more: str) -> tuple[str, ...]:
    return f"regions: {{world: {{{rules}}}}}", *more


CRISIS = "crisis: {judges: [judge], categories: [self-harm], then: THEN, on_failure: open, text: {en: 'Call 112.'}}"
MODERATION = "moderation: {input: [judge], output: [judge], on_failure: closed}"
WITH_JUDGE = f"deployments: {{judge: {JUDGE}}}"
BARRIER = "assistants: {assistant: {routes: {world: [house, {hand_off: {when: [capability]}}, cloud]}}}"
CASES = {
    "redaction": Case(
        of_region("redact: personal", "redactions: {personal: {kinds: [email], countries: [DE]}}"),
        "jane@mail.example",
        "Write to jane@mail.example.",
    ),
    "labels": Case(of_region("labels: [eu-art50]"), '"labels"'),
    "judged": Case(of_region(MODERATION, WITH_JUDGE), "response.completed"),
    "flagged prompt": Case(of_region(MODERATION, WITH_JUDGE), "content_filter", "I harm"),
    "flagged answer": Case(of_region(MODERATION, WITH_JUDGE), '"incomplete"', answer=(*ANSWER, "Then harm. ", "No.")),
    "crisis": Case(of_region(CRISIS.replace("THEN", "stop"), WITH_JUDGE), "Call 112.", "I harm"),
    "crisis before an answer": Case(of_region(CRISIS.replace("THEN", "answer"), WITH_JUDGE), "Call 112.", "I harm"),
    "consent": Case((BARRIER, f"deployments: {{cloud: {CLOUD}}}"), "consent_required", [{"role": "user", "content": PICTURE}]),
    "quota": Case(
        ("quotas: {account: {requests: {day: 1}}}", "deployments: {house: {quota: account}}"), "overloaded", first=1
    ),
    "budget": Case(("clients: {app: {budgets: [{tokens: 1, per: day}]}}",), "insufficient_quota"),
    "rate": Case(("clients: {app: {limits: {rpm: 1}}}",), "rate_limited", first=1),
    "profile": Case(of_region("profile: {locale: de-DE}"), "response.completed"),
}  # fmt: skip


@pytest.fixture
async def accounting(tmp_path: Path) -> AsyncIterator[Accounting]:
    journal = Journal.open(tmp_path)
    yield Accounting(journal, b"k" * 32)
    journal.close()


def rows_of(accounting: Accounting) -> list[UsageRow]:
    """Return the list to which the row of each call is added that ends from now on."""
    rows: list[UsageRow] = []
    add = accounting.counts.add

    def adding(row: UsageRow) -> None:
        rows.append(row)
        add(row)

    accounting.counts.add = adding  # type: ignore[method-assign]
    return rows


def ends_of(running: Running) -> tuple[list[dict[str, Any] | None], list[Any]]:
    """Return the lists to which the receipt and the metrics of each request are added that ends from now on."""
    receipts: list[dict[str, Any] | None] = []
    metrics: list[Any] = []
    endpoint = running.app._chat

    def observe(record: Record) -> None:
        receipt: dict[str, Any] | None = receipt_of(record, 0.0, "DE")
        if receipt is not None:
            assert receipt.pop("id") == record.request_id
            assert receipt.pop("transport") == ("http" if record.websocket is None else "websocket")
            for name, why in receipt.get("passed_over", {}).items():  # one may be asked a second after the other
                receipt["passed_over"][name] = re.sub(r"free in \d+ s", "free later", why)
        receipts.append(receipt)
        counts = Metrics()
        counts.observe(record)
        metrics.append(([*counts._rows], sorted(counts._counts.items()), [*counts._attempts]))

    endpoint._observe = observe
    return receipts, metrics


def alike(row: UsageRow) -> dict[str, Any]:
    """Return a row without what differs from call to call."""
    names = {"call", "time_ns", "request"}
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in names}


@pytest.mark.parametrize("name", CASES)
async def test_feature_does_to_a_turn_what_it_does_to_a_post(name: str, accounting: Accounting) -> None:
    case = CASES[name]
    world = World()
    world.answer = case.answer
    async with serving(*case.patches, provider=world) as running:
        running.app._executor.accounting = accounting
        for _ in range(case.first):
            assert (await running.post({"model": "assistant", "input": "Hello"})).status_code == 200
        rows, (receipts, metrics) = rows_of(accounting), ends_of(running)
        request = {"model": "assistant", "input": case.input}
        got = await expect_a_turn_to_be_the_post(running, request)
        assert case.words in got
        posted, turned = receipts
        assert turned == posted
        assert metrics[0] == metrics[1]
    half = len(rows) // 2
    assert [alike(row) for row in rows[:half]] == [alike(row) for row in rows[half:]]
    if name == "redaction":
        assert "jane@mail.example" not in json.dumps(world.bodies)


async def test_warm_up_is_refused_by_a_door_whose_refusals_wait_for_a_judge_and_asks_no_judge() -> None:
    bands = "age_bands: {child: {tools: false}}, age_missing: child"
    world = World()
    async with connected(*of_region(f"{bands}, {CRISIS.replace('THEN', 'stop')}", WITH_JUDGE), provider=world) as (
        _running,
        socket,
    ):
        tool = {"type": "function", "name": "f"}
        refused = await socket.asked("I harm", generate=False, tools=[tool])
        assert (refused["status"], refused["error"]["code"]) == (403, "age_restricted")
        assert (await socket.asked("I harm", generate=False))["type"] == "response.completed"
    assert not world.bodies
