"""Approvals as properties: no deployment is called without an approval that is valid at that time.

This holds for all records and for every run of the clock between attempts, in a region that requires approvals.
"""

import contextlib
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.execution.deadline import Deadline
from gateway.execution.exchange import Exchange
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor, PlanExhausted
from gateway.execution.service_client import ServiceClient
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import RefusalCode, Refused
from gateway.model.record import Record
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.client_limits import ClientLimits
from providers.chat import ChatRequest, UserMessage
from tests.gateway.deciding_anew import answer_of, exchange_of
from tests.gateway.decisions import place_of
from tests.kit.configs import table_of
from tests.kit.example_counts import examples
from tests.kit.httpx_transport import HttpxTransport

TODAY = datetime(2026, 11, 20, tzinfo=UTC)

days = st.none() | st.integers(-3, 3).map(lambda number: (TODAY.date() + timedelta(days=number)).isoformat())
record = st.fixed_dictionaries(
    {"region": st.sampled_from(["de", "rest"]), "valid_from": days, "valid_until": days}
).filter(lambda item: not (item["valid_from"] and item["valid_until"]) or item["valid_from"] <= item["valid_until"])


def table_with(records: list[list[dict[str, Any]]], required: list[bool]) -> ConfigVersion:
    names = [f"d{index}" for index in range(len(records))]
    facts = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "api_key": "${KEY}"}
    given = {"authority": "A", "kind": "registration", "number": "n", "model_name": "m"}
    approvals = [
        [given | {key: value for key, value in item.items() if value is not None} for item in some] for some in records
    ]
    asked = ["required" if one else "none" for one in required]
    config = {
        "version": 1,
        "assistants": {"assistant": {"routes": {"de": names, "rest": names}}},
        "regions": {
            "de": {"territories": ["DE"], "boundary": ["DE"], "approvals": asked[0]},
            "rest": {"territories": ["*"], "boundary": ["*"], "approvals": asked[1]},
        },
        "deployments": {
            name: {"endpoint": f"https://{name}.example/v1", **facts, "approvals": some}
            for name, some in zip(names, approvals, strict=True)
        },
        "location": {"signals": ["edge_header"]},
    }
    return table_of(json.dumps(config), {"KEY": "k"})


def is_approved(records: list[dict[str, Any]], region: str, now: float) -> bool:
    """Compute independently whether the approvals cover every date that it currently is in some time zone."""
    moment = datetime.fromtimestamp(now, UTC)
    dates = {(moment + timedelta(hours=offset)).date() for offset in range(-12, 15)}
    return all(
        any(
            item["region"] == region
            and date.fromisoformat(item["valid_from"] or "0001-01-01") <= day
            and day <= date.fromisoformat(item["valid_until"] or "9999-12-31")
            for item in records
        )
        for day in dates
    )


class Asking:
    """A chat service over a transport that always fails, and a clock that jumps with each attempt and each wait."""

    def __init__(self, tables: list[ConfigVersion], start: float, jumps_s: list[float]) -> None:
        self.now = start
        self.asked: list[tuple[str, float]] = []
        self._tables, self._jumps_s = tables, jumps_s
        transport = HttpxTransport(httpx.MockTransport(self._provide))
        executor = PlanExecutor(transport, Health(), sleep=self._sleep)
        locations = LocationService(ServiceClient(transport), lambda _: None)
        self.service = ChatService(self._current, executor, locations, ClientLimits(), lambda: self.now)

    def _current(self) -> ConfigVersion:
        return self._tables[min(len(self.asked), len(self._tables) - 1)]

    def _provide(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.host.removesuffix(".example"), self.now))
        self._jump()
        return httpx.Response(500)

    async def _sleep(self, _: float) -> None:
        self._jump()

    def _jump(self) -> None:
        if self._jumps_s:
            self.now += self._jumps_s.pop()

    async def ask(self, territory: str, *, stream: bool = False) -> Record:
        request = ChatRequest("assistant", (UserMessage("hello"),), stream=stream)
        record = Record("r", 0, self._tables[0].version)

        deadline = Deadline.start(60, 50)

        def prepared() -> Exchange:
            table = self._current()
            location = place_of(table, territory)
            return exchange_of(table, location, request, deadline, record)

        await answer_of(self.service, prepared)
        return record


@pytest.mark.slow("compiles a hundred random configs")
@given(
    records=st.lists(st.lists(record, max_size=3), min_size=1, max_size=3),
    others=st.none() | st.lists(st.lists(record, max_size=3), min_size=3, max_size=3),
    required=st.lists(st.booleans() | st.just(True), min_size=2, max_size=2),
    territory=st.sampled_from(["DE", "FR"]),
    start=st.integers(-3 * 24, 3 * 24).map(lambda hours: TODAY.timestamp() + 3600 * hours),
    jumps=st.lists(st.sampled_from([0.0, 60.0, 3600.0, 9 * 3600.0, 86_400.0, -86_400.0]), max_size=6),
    stream=st.booleans(),
)
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow], deadline=None)
async def test_attempt_never_goes_to_a_deployment_without_a_valid_approval(
    records: list[list[dict[str, Any]]],
    others: list[list[dict[str, Any]]] | None,
    required: list[bool],
    territory: str,
    start: float,
    jumps: list[float],
    stream: bool,
) -> None:
    tables = [records, *([others[: len(records)]] if others else [])]
    asking = Asking([table_with(one, required) for one in tables], start, list(jumps))
    # A decision of an hour ago, or of a day ahead, must not be used now.
    for off_s in (-3600.0, 86_400.0):
        asking.now = start + off_s
        with contextlib.suppress(Refused, PlanExhausted):
            await asking.ask(territory)
        asking.asked.clear()
    asking.now, asking._jumps_s = start, list(jumps)
    refused: Refused | None = None
    try:
        await asking.ask(territory, stream=stream)
    except PlanExhausted:
        pass
    except Refused as error:
        refused = error
    region, is_required = ("de", required[0]) if territory == "DE" else ("rest", required[1])
    for position, (name, at) in enumerate(asking.asked):
        current = tables[min(position, len(tables) - 1)]
        assert not is_required or is_approved(current[int(name[1:])], region, at), (name, at)
    anybody = any(is_approved(some, region, start) for some in records)
    assert (refused is not None and not asking.asked) == (is_required and not anybody)
    if refused is not None and not asking.asked:
        assert refused.refusal.code is RefusalCode.NO_APPROVED_DEPLOYMENT


async def test_an_approval_that_ends_between_two_attempts_ends_them() -> None:
    ends = [{"region": "de", "valid_from": None, "valid_until": "2026-11-20"}]
    lasts = [{"region": "de", "valid_from": None, "valid_until": "2026-11-21"}]
    last_second = datetime(2026, 11, 20, 9, 59, 59, tzinfo=UTC).timestamp()
    table = table_with([ends, lasts], [True, True])
    asking = Asking([table], last_second, [2.0])
    record = Record("r", 0, table.version)
    location = place_of(table, "DE")
    request = ChatRequest("assistant", (UserMessage("hello"),))
    with pytest.raises(PlanExhausted):
        await asking.service.answer(exchange_of(table, location, request, Deadline.start(60, 50), record))
    assert [name for name, _ in asking.asked] == ["d0", "d1", "d1"]
    [skipped] = record.skipped
    assert (skipped.deployment, skipped.reason) == ("d0", "its approval for region 'de' ended on 2026-11-20")
