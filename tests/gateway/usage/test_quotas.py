"""Quotas of deployments: what a call holds and uses, which step it skips, and the words and errors without room."""

import asyncio
import json
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema.usage import QuotaSection
from gateway.model.budget import Window
from gateway.model.quota import Keep, Priority, Quota, QuotaEntry, QuotaUnit
from gateway.model.status import VendorLimit
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.quota_sums import read_uses
from gateway.usage.quotas import QuotaHold, QuotaLimit, QuotaState, limits_of_quota, quota_refusal, vendor_limits
from gateway.usage.reports import UsageReader
from gateway.usage.windows import MINUTE_NS
from tests.gateway.usage.priced_gateway import PricedGateway, answer, of_app
from tests.kit.case_files import cases
from tests.kit.chat_http import CHAT
from tests.kit.configs import BASE, key_hash, table_of

NOON_NS = int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) * NANO
DAY_NS = 86_400 * NANO
TWO = """
assistants: {assistant: {routes: {no: [acme, spare]}}}
deployments:
  acme: {quota: account}
  spare: {provider: acme, model: m2, endpoint: oslo, api_key: k2}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PricedGateway:
    world = PricedGateway(tmp_path, now_s=NOON_NS / NANO)
    opened = Journal.open.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(opened, "__defaults__", (lambda: int(world.now_s * NANO), *opened.__defaults__[1:]))
    return world


def account(**quota: Any) -> dict[str, Any]:
    return {"quotas": {"account": quota}}


def by(answers: list[httpx.Response]) -> list[str]:
    """Return the deployment of each answer, or the code of its error."""
    return [
        one.headers.get("x-gateway-deployment", "") if one.status_code == 200 else one.json()["error"]["code"]
        for one in answers
    ]


def limit(unit: str, window: str, most: int, kept: int = 0, zone: str = "UTC", **more: Any) -> QuotaLimit:
    entry = QuotaEntry(QuotaUnit(unit), Window(window), most)
    quota = Quota("q", (entry,), zone, Keep(normal=kept), currency="EUR", **more)
    return limits_of_quota(quota, Priority.NORMAL)[0]


def admitted(one: QuotaLimit, at_ns: int = NOON_NS, state: QuotaState | None = None, most: int = 100_000) -> int:
    """Return how many calls of one fit at a time."""
    window = one.calendar.at(at_ns).get(one.window)
    state = state or (QuotaState() if one.is_bucket or window is None else QuotaState(0, 0, *window[:2]))
    for count in range(most):
        if one.wait_ns(1, state, at_ns) != 0:
            return count
        spent = state.spent + (one.duration_ns(1) if one.is_bucket else 1)
        state = state._replace(spent=spent)
    return most


@pytest.mark.parametrize(
    ("one", "count"),
    [
        (limit("requests", "minute", 10), 10),
        (limit("requests", "minute", 7), 7),
        (limit("requests", "minute", 10, 30), 7),
        (limit("requests", "minute", 3, 30), 3),
        (limit("requests", "minute", 60, burst_s=10.0), 10),
        (limit("requests", "minute", 60, burst_s=1.0), 1),
        (limit("requests", "minute", 5, burst_s=1.0), 1),
        (limit("tokens", "minute", 60, burst_s=1.0), 60),
        (limit("requests", "day", 100), 100),
        (limit("requests", "day", 100, 20), 40),
        (limit("requests", "day", 1, 99), 1),
        (limit("amount", "total", 100, 20), 80),
        (limit("amount", "day", 100, 90), 5),
    ],
    ids=str,
)
def test_limit_admits_so_many_calls_at_noon(one: QuotaLimit, count: int) -> None:
    assert admitted(one) == count


def test_at_midnight_a_kept_window_admits_five_percent_and_one_request_at_least() -> None:
    midnight_ns = NOON_NS - DAY_NS // 2
    assert admitted(limit("requests", "day", 100, 20), midnight_ns) == 5
    assert admitted(limit("requests", "day", 10, 20), midnight_ns) == 1


@pytest.mark.parametrize(
    ("one", "amount", "state", "words"),
    [
        (limit("requests", "minute", 5), 1, QuotaState(MINUTE_NS), "5 requests a minute are used, free in 12 s"),
        (limit("requests", "minute", 10, 30), 1, QuotaState(MINUTE_NS * 7 // 10),
         "10 requests a minute are used, free in 6 s; 30 % are kept for others"),
        (limit("input_tokens", "hour", 5), 1, QuotaState(3, 2, NOON_NS, NOON_NS + 60 * NANO),
         "5 input tokens an hour are used, free in 60 s"),
        (limit("amount", "month", 5000 * NANO), 1, QuotaState(5000 * NANO, 0, 0, NOON_NS + 7 * NANO),
         "5000 EUR a month are spent, free in 7 s"),
        (limit("amount", "total", NANO // 2), 1, QuotaState(NANO // 2, 0, 0, 2**63 - 1), "0.50 EUR in total are spent"),
        (limit("tokens", "minute", 100), 101, QuotaState(), "this call can never fit into 100 tokens a minute"),
    ],
)  # fmt: skip
def test_refusal_names_quota_limit_and_time(one: QuotaLimit, amount: int, state: QuotaState, words: str) -> None:
    assert str(quota_refusal([QuotaHold(one, amount, None)], [state], NOON_NS)) == f"quota q: {words}"


@given(
    st.builds(
        limit,
        st.just("tokens"),
        st.sampled_from([Window.MINUTE, Window.HOUR, Window.DAY]),
        most=st.integers(1, 1000),
        kept=st.integers(0, 99),
    ),
    st.integers(1, 1000),
    st.integers(0, 1500),
    st.integers(NOON_NS, NOON_NS + DAY_NS - 1),
)
def test_call_has_room_after_its_wait_and_not_before(one: QuotaLimit, amount: int, spent: int, now_ns: int) -> None:

    def wait_at(at_ns: int) -> int | None:
        if one.is_bucket:
            return one.wait_ns(amount, QuotaState(max(0, one.duration_ns(spent) - (at_ns - now_ns))), at_ns)
        start_ns, end_ns, _ = one.calendar.at(at_ns)[one.window]
        return one.wait_ns(amount, QuotaState(spent if start_ns <= now_ns else 0, 0, start_ns, end_ns), at_ns)

    wait_ns = wait_at(now_ns)
    assert (wait_ns is None) == (amount > one.whole)
    if wait_ns:
        assert wait_at(now_ns + wait_ns - 1) != 0
        assert wait_at(now_ns + wait_ns) == 0


def test_refusal_names_the_limit_into_which_a_call_can_never_fit() -> None:
    holds = [QuotaHold(limit("requests", "minute", 5), 1, None), QuotaHold(limit("tokens", "day", 100), 101, None)]
    found = quota_refusal(holds, [QuotaState(MINUTE_NS), QuotaState(0, 0, 0, DAY_NS)], NOON_NS)
    assert (found.wait_ns, str(found)) == (None, "quota q: this call can never fit into 100 tokens a day")


def test_refusal_waits_for_all_that_has_no_room() -> None:
    few, many = limit("requests", "minute", 5), limit("tokens", "minute", 100)
    holds = [QuotaHold(few, 1, None), QuotaHold(many, 50, None)]
    found = quota_refusal(holds, [QuotaState(MINUTE_NS), QuotaState(MINUTE_NS)], NOON_NS)
    assert (found.limit, found.in_s, len(found.lacking)) == (few, 30, 2)
    assert str(found).endswith("5 requests a minute are used, free in 12 s"), "the words are about the first one"


async def test_step_without_room_is_skipped_and_leaves_no_trace_but_its_reason(world: PricedGateway) -> None:
    answers = await world.ask(TWO, account(requests={"minute": 2}), number=4)
    assert by(answers) == ["acme", "acme", "spare", "spare"]
    assert [row.deployment for row in world.written] == ["acme", "acme", "spare", "spare"]
    last = world.records[-1]
    assert [it.deployment for it in last.attempts] == ["spare"]
    assert last.passed_over == {"acme": "quota account: 2 requests a minute are used, free in 30 s"}
    world.now_s += 30
    assert by(await world.ask(TWO, account(requests={"minute": 2}), number=2)) == ["acme", "spare"]


async def test_without_room_anywhere_the_error_has_the_time(world: PricedGateway) -> None:
    answers = await world.ask("deployments: {acme: {quota: account}}", account(requests={"minute": 2}), number=3)
    assert by(answers) == ["acme", "acme", "overloaded"]
    assert answers[2].status_code == 503
    assert (answers[2].headers["retry-after"], answers[2].headers["x-should-retry"]) == ("30", "true")
    hourly = await world.ask("deployments: {acme: {quota: account}}", account(requests={"hour": 1}), number=2)
    assert (hourly[1].headers["retry-after"], hourly[1].headers["x-should-retry"]) == ("3600", "false")


async def test_call_that_can_never_fit_has_no_time(world: PricedGateway) -> None:
    (answer,) = await world.ask("deployments: {acme: {quota: account}}", account(tokens={"minute": 50}))
    assert by([answer]) == ["overloaded"]
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert "can never fit" in world.records[-1].passed_over["acme"]


async def test_tokens_settle_to_the_count_of_the_provider(world: PricedGateway) -> None:
    answers = await world.ask(TWO, account(tokens={"day": 170}), number=8)
    # A call holds the usual size, and uses 15.
    assert by(answers).count("acme") > 1
    assert sum(row.total_tokens for row in world.written if row.deployment == "acme") <= 170


async def test_amount_admits_the_worst_cost_only(world: PricedGateway) -> None:
    await world.ask()
    worst_nano = world.held[0].amount_nano or 0
    exact, less = (f"{shown_nano(nano)} EUR" for nano in (worst_nano, worst_nano - 1))
    assert by(await world.ask(TWO, account(amount={"total": less}))) == ["spare"]
    assert "can never fit" in world.records[-1].passed_over["acme"]
    assert by(await world.ask(TWO, account(amount={"total": exact}), number=2)) == ["acme", "spare"]


async def test_two_quotas_of_a_deployment_hold_all_or_nothing(world: PricedGateway) -> None:
    both = {"deployments": {"acme": {"quota": ["account", "other"]}}}
    quotas = {"quotas": {"account": {"requests": {"day": 10}}, "other": {"requests": {"day": 1}}}}
    assert by(await world.ask(TWO, both, quotas, number=3)) == ["acme", "spare", "spare"]
    assert world.records[-1].passed_over["acme"].startswith("quota other: 1 requests a day are used")
    alone = {"quotas": {"account": {"requests": {"day": 2}}, "other": {"requests": {"day": 9}}}}
    assert by(await world.ask(TWO, both, alone, number=2)) == ["acme", "spare"], "a refusal by one left nothing"


async def test_low_client_leaves_a_part_to_others(world: PricedGateway) -> None:
    rule = account(requests={"minute": 10}, keep={"low": "30%"})
    assert by(await world.ask(TWO, rule, of_app(priority="low"), number=8)) == [*["acme"] * 7, "spare"]
    assert world.records[-1].passed_over["acme"].endswith("30 % are kept for others")
    assert by(await world.ask(TWO, rule, of_app(priority="high"), number=4)) == [*["acme"] * 3, "spare"]


async def test_changed_limit_keeps_what_is_used(world: PricedGateway) -> None:
    assert by(await world.ask(TWO, account(requests={"minute": 4}), number=4)) == ["acme"] * 4
    assert by(await world.ask(TWO, account(requests={"minute": 6}), number=3)) == ["acme", "acme", "spare"]
    assert by(await world.ask(TWO, account(requests={"minute": 3}))) == ["spare"]


@cases("window", "timezone", "last")
async def test_window_ends_with_the_calendar_of_its_zone(
    world: PricedGateway, window: str, timezone: str, last: str
) -> None:
    """The hour that a changed clock repeats is two windows."""
    world.now_s = datetime.fromisoformat(last).timestamp()
    rule = account(requests={window: 2}, timezone=timezone)
    assert by(await world.ask(TWO, rule, number=3)) == ["acme", "acme", "spare"]
    assert world.records[-1].passed_over["acme"].endswith("are used, free in 2 s")
    world.now_s += 2
    assert by(await world.ask(TWO, rule, number=3)) == ["acme", "acme", "spare"]


@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 25), ("2027-03-28", 23), ("2026-12-01", 24)])
def test_even_use_of_a_day_follows_its_hours(day: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
    one = limit("requests", "day", 1000, 20, "Europe/Berlin")
    assert admitted(one, int(noon.timestamp()) * NANO) == 800 * (hours - 12) // hours


async def test_lowered_limit_admits_nothing_until_its_window_ends(world: PricedGateway) -> None:
    assert by(await world.ask(TWO, account(requests={"day": 6}), number=4)) == ["acme"] * 4
    lowered = account(requests={"day": 3})
    assert by(await world.ask(TWO, lowered)) == ["spare"]
    assert world.records[-1].passed_over["acme"].startswith("quota account: 3 requests a day are used, free in 43200 s")
    with closing(Journal.open(world.folder / "state" / FOLDER)) as journal:
        (use,) = await read_uses(world.gateway.config, journal)
    assert (use.used, use.limit, use.free_at) == (4, 3, "2026-12-02T00:00:00Z")
    world.now_s += 43_200
    assert by(await world.ask(TWO, lowered, number=4)) == ["acme"] * 3 + ["spare"]


async def test_changed_time_zone_holds_from_the_end_of_the_running_window(world: PricedGateway) -> None:
    assert by(await world.ask(TWO, account(requests={"day": 1}))) == ["acme"]
    moved = account(requests={"day": 1}, timezone="Asia/Shanghai")
    world.now_s += 5 * 3_600  # midnight in Shanghai was an hour ago
    assert by(await world.ask(TWO, moved)) == ["spare"]
    world.now_s += 7 * 3_600
    assert by(await world.ask(TWO, moved, number=2)) == ["acme", "spare"]
    world.now_s += 16 * 3_600
    assert by(await world.ask(TWO, moved)) == ["acme"]


async def uses_of(world: PricedGateway) -> dict[str, tuple[Any, Any]]:
    """Return what is used and what is held, by unit."""
    with closing(Journal.open(world.folder / "state" / FOLDER)) as journal:
        return {use.unit: (use.used, use.held) for use in await read_uses(world.gateway.config, journal)}


@pytest.mark.parametrize(
    ("rule", "used"),
    [
        ({"tokens": {"day": 10**6}}, 15),
        ({"input_tokens": {"minute": 10**6}}, 10),
        ({"output_tokens": {"hour": 10**6}}, 5),
        ({"tokens": {"day": 10**6}, "count_cached": False}, 11),
        ({"input_tokens": {"month": 10**6}, "count_cached": False}, 6),
        ({"output_tokens": {"day": 10**6}, "count_cached": False}, 5),
        ({"tokens": {"minute": 10**6}, "output_weight": 5}, 35),
        ({"output_tokens": {"day": 10**6}, "output_weight": 5}, 5),
        ({"requests": {"minute": 100, "day": 100}}, 1),
        ({"amount": {"week": "1 EUR"}}, "0.00002"),
    ],
    ids=str,
)
async def test_call_uses_what_its_unit_counts(world: PricedGateway, rule: dict[str, Any], used: Any) -> None:
    def cached(request: httpx.Request) -> httpx.Response:
        body = answer(request).json()
        body["usage"]["prompt_tokens_details"] = {"cached_tokens": 4}
        return httpx.Response(200, json=body)

    world.provider = cached
    assert by(await world.ask(TWO, account(**rule))) == ["acme"]
    ((found, held),) = (await uses_of(world)).values()
    assert (found, held) == (used, "0.00" if isinstance(used, str) else 0)


async def test_call_that_was_not_sent_is_given_back_and_one_that_failed_is_not(world: PricedGateway) -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"].endswith("k2"):
            return answer(request)
        raise httpx.ConnectError("refused")

    rule = account(requests={"day": 9, "minute": 9}, tokens={"day": 10**6})
    world.provider = unreachable
    assert by(await world.ask(TWO, rule)) == ["spare"]
    assert await uses_of(world) == {"requests": (0, 0), "tokens": (0, 0)}
    world.provider = lambda request: (
        answer(request) if "k2" in request.headers["authorization"] else httpx.Response(500)
    )
    assert by(await world.ask(TWO, rule)) == ["spare"]
    assert (await uses_of(world))["requests"][0] >= 1


async def test_reserved_cap_is_held_in_place_of_the_usual_output(world: PricedGateway) -> None:
    bound = 64 + 16 + 19
    usual = -(-bound // 3)
    rule = account(output_tokens={"day": 100}, reserve="cap")
    assert by(await world.ask(TWO, rule, max_tokens=100)) == ["acme"]
    assert by(await world.ask(TWO, rule, max_tokens=96)) == ["spare"], "5 are used"
    assert by(await world.ask(TWO, rule, max_tokens=95)) == ["acme"]
    both = account(tokens={"month": usual + 100}, reserve="cap")
    assert by(await world.ask(TWO, both, max_tokens=101)) == ["spare"]
    assert by(await world.ask(TWO, both, max_tokens=100)) == ["acme"]


async def test_report_has_a_row_in_each_quota_of_its_deployment_and_once_in_the_total(world: PricedGateway) -> None:
    both = {"deployments": {"acme": {"quota": ["account", "other"]}}}
    quotas = {"quotas": {"account": {"requests": {"day": 2}}, "other": {"requests": {"day": 9}}}}
    await world.ask(TWO, both, quotas, number=3)
    with UsageReader(world.folder / "state") as reader:
        report = reader.report(reader.period_query("2026-12", None, ["quota"])[0], world.gateway.config)
    assert {one.key: one.all.calls for one in report.groups} == {("account",): 2, ("other",): 2, (None,): 1}
    assert report.total.all.calls == 3


async def test_budget_that_refuses_leaves_nothing_in_the_quota(world: PricedGateway) -> None:
    poor = of_app(budgets=[{"tokens": 1, "per": "day"}])
    assert by(await world.ask(TWO, account(requests={"day": 1}), poor)) == ["insufficient_quota"]
    assert by(await world.ask(TWO, account(requests={"day": 1}))) == ["acme"]


def sleeping(world: PricedGateway) -> Any:
    """Return a sleep in which the clock goes on."""

    async def sleep(seconds: float) -> None:
        world.now_s += seconds

    return sleep


async def test_short_wait_is_waited_for_once(world: PricedGateway) -> None:
    only, rule = "deployments: {acme: {quota: account}}", account(requests={"minute": 60}, burst="1s")
    world.sleep = sleeping(world)
    assert by(await world.ask(only, rule, number=4)) == ["acme"] * 4
    assert world.records[-1].passed_over == {}


async def test_bucket_is_waited_for_although_a_window_ends_sooner(world: PricedGateway) -> None:
    """A window is not waited for, and its end may be nearer than the next call of a bucket."""

    world.sleep, world.now_s = sleeping(world), world.now_s + 43_200 - 0.3  # before midnight
    quotas = {"quotas": {"account": {"requests": {"day": 1}}, "other": {"requests": {"minute": 60}, "burst": "1s"}}}
    answered = by(await world.ask(TWO, quotas, {"deployments": {"spare": {"quota": "other"}}}, number=3))
    assert answered == ["acme", "spare", "acme"], "the plan was walked once more, after midnight"


async def test_line_is_served_by_priority_then_arrival_as_far_as_the_wait_allows(world: PricedGateway) -> None:
    """A bucket of one request that refills in 0.86 s, and requests that wait at most two seconds."""
    waiting: list[float] = []
    served: list[tuple[str, float]] = []

    async def sleep(seconds: float) -> None:
        """Let the time pass when all others wait too."""
        waiting.append(until_s := world.now_s + seconds)
        while True:
            for _ in range(300):
                await asyncio.sleep(0)
            if until_s <= min(waiting):
                world.now_s = max(world.now_s, until_s) + 1e-6  # more than the precision of a float of this size
                waiting.remove(until_s)
                return

    def note(request: httpx.Request) -> httpx.Response:
        served.append((json.loads(request.content)["messages"][0]["content"], world.now_s - began_s))
        return answer(request)

    world.sleep, world.provider, began_s = sleep, note, world.now_s
    clients = {name: {"region": "no", "priority": name, "keys": [key_hash(f"gk-{name}")]} for name in ("low", "high")}
    rule = account(requests={"minute": 70}, burst="1s", keep={"low": "0%"})

    async def ask(client: httpx.AsyncClient, priority: str, name: str) -> httpx.Response:
        body = {"model": "assistant", "messages": [{"role": "user", "content": name}]}
        return await client.post(CHAT, json=body, headers={"authorization": f"Bearer gk-{priority}"})

    async def send(client: httpx.AsyncClient) -> list[httpx.Response]:
        asking = []
        for priority, name in (("low", "a"), ("low", "b"), ("low", "c"), ("low", "d"), ("high", "e")):
            asking.append(asyncio.ensure_future(ask(client, priority, name)))
            for _ in range(300):
                await asyncio.sleep(0)
        return list(await asyncio.gather(*asking))

    only = "deployments: {acme: {quota: account}}"
    answers = await world._served((only, rule, {"clients": clients}), {}, send)
    assert [(name, round(at_s, 1)) for name, at_s in served] == [("a", 0), ("e", 0.7), ("b", 1.6)]
    assert by(answers) == ["acme", "acme", "overloaded", "overloaded", "acme"]
    assert world.gateway._executor.accounting.lines.places == []


def test_headers_of_vendors_are_read_by_their_units() -> None:
    quota = {"quotas": {"q": {"requests": {"minute": 500, "day": 9}, "input_tokens": {"minute": 5}}}}
    config = table_of(BASE.merge(quota, "deployments: {gemini: {quota: q}, qwen-cn: {quota: q}}"))
    openai = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
    requests = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0"}
    tokens = {"anthropic-ratelimit-input-tokens-limit": "many", "anthropic-ratelimit-input-tokens-remaining": "1"}
    stated = {"gemini": (openai, 10.0), "qwen-cn": (requests | tokens, 11.0)}
    assert vendor_limits(config, stated) == {("q", "requests"): VendorLimit(50, 0, 11.0)}


@pytest.mark.parametrize("unit", QuotaUnit)
def test_each_unit_has_a_key_whose_limits_are_windows(unit: str) -> None:
    limits, _ = get_args(QuotaSection.model_fields[unit].annotation)
    assert {field.name for field in fields(limits)} <= set(Window)
