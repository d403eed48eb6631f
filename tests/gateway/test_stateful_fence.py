"""The fence over sequences: requests begin, configs change, clocks run, deployments break, and each attempt is judged anew.

A walk of random events holds requests in the middle of their plans. Each attempt must be allowed by the config with
which the request began, and by the config that is active now. The oracle reads the written configs and shares no code
with the gateway. It checks the boundary, the territory, the approvals of the day, kill switches, and the user's consent. Accounts of vendors
get full and have room again, which must change none of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.run import AttemptFailed, PlanExecutor, PlanExhausted, Run, RunContext
from gateway.execution.service_client import ServiceClient
from gateway.execution.upstream_client import ConfigChanged
from gateway.model.config_version import ConfigVersion
from gateway.model.consent import ConsentStatement
from gateway.model.decision import Plan, Refused
from gateway.model.record import Destinations, Record
from gateway.model.resilience import Attempts, Resilience
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.accounting import Accounting
from gateway.usage.amounts import NANO
from gateway.usage.client_limits import ClientLimits
from gateway.usage.journal import Journal
from providers.chat import ChatRequest, UserMessage
from providers.failures import Failure, FailureKind
from providers.territories import Places, parse_places
from tests.gateway.deciding_anew import answer_once, exchange_of
from tests.gateway.location_reports import reported
from tests.kit.configs import table_of
from tests.kit.httpx_transport import HttpxTransport

START = datetime(2026, 11, 20, 8, tzinfo=UTC)
NAMES = ("d0", "d1", "d2")
CALLERS = {"app": "a" * 64, "shop": "b" * 64}
MODES = [
    None,
    None,
    None,
    None,
    None,
    None,
    "per_request refuse",
    "per_request skip",
    "standing refuse",
    "standing skip",
]
TOLD: Counter[str] = Counter()
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
MEMORY = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None


@dataclass(frozen=True)
class WrittenDeployment:
    """A deployment as written in the config."""

    stores: str
    processes: str
    enabled: bool
    consent: str | None
    recipient: str
    approved_days: int | None
    host: str
    proxy: str = ""
    """The territory of its proxy. Empty: it has none."""
    calls: int = 0
    """The calls of each hour that its account takes. 0: it has no quota."""

    def fits(self, boundary: Places) -> bool:
        """Return whether content stays inside, and its proxy is there too."""
        seen = [self.stores, self.processes, *([self.proxy] if self.proxy else [])]
        return all(parse_places([word]).within(boundary) for word in seen)

    @property
    def proxy_origin(self) -> str:
        return f"https://{self.proxy.lower()}.proxy" if self.proxy else ""


@dataclass(frozen=True)
class WrittenConfig:
    """A config before it is compiled."""

    items: tuple[WrittenDeployment, ...]
    boundary: str
    rest_boundary: str
    with_fr: bool
    approvals: bool
    blocked: bool
    bound: bool
    orders: tuple[tuple[int, ...], tuple[int, ...]]

    def boundary_of(self, region: str) -> list[str]:
        return (self.boundary if region == "de" else self.rest_boundary).split()

    def route(self, region: str) -> list[str]:
        """Return the deployments of the wanted order that fit the boundary. Others would make the config invalid."""
        places = parse_places(self.boundary_of(region))
        wanted = self.orders[region == "rest"]
        return [NAMES[index] for index in wanted if self.items[index].fits(places)]

    def region_of(self, territory: str, caller: str) -> str | None:
        if self.blocked and territory == "JP":
            return None
        if caller == "shop" and self.bound:
            return "de"
        return "de" if territory == "DE" or (territory == "FR" and self.with_fr) else "rest"


def _item(chance: random.Random) -> WrittenDeployment:
    return WrittenDeployment(
        stores=chance.choice(["DE", "DE", "FR", "US"]),
        processes=chance.choice(["DE", "DE", "US", "any"]),
        enabled=chance.random() < 0.9,
        consent=chance.choice(MODES),
        recipient=chance.choice(["One", "Two"]),
        approved_days=chance.choice([None, -1, 0, 1, 400, 400]),
        host=chance.choice(["x", "y"]),
        proxy=chance.choice(["", "", "DE", "US"]),
        calls=chance.choice([0, 0, 1, 2]),
    )


@lru_cache(maxsize=4096)
def config_of(seed: int) -> WrittenConfig:
    """Return one of many valid configs. A seed draws it, so that several walks use one that is already compiled."""
    chance = random.Random(seed)
    while True:
        first, second = list(range(3)), list(range(3))
        chance.shuffle(first)
        chance.shuffle(second)
        written = WrittenConfig(
            items=(_item(chance), _item(chance), _item(chance)),
            boundary=chance.choice(["DE", "@EU", "*"]),
            rest_boundary=chance.choice(["*", "* !US", "@EU"]),
            with_fr=chance.random() < 0.5,
            approvals=chance.random() < 0.5,
            blocked=chance.random() < 0.3,
            bound=chance.random() < 0.5,
            orders=(tuple(first), tuple(second)),
        )
        if written.route("de") and written.route("rest"):
            return written


@lru_cache(maxsize=4096)
def compiled(written: WrittenConfig) -> ConfigVersion:
    deployments: dict[str, Any] = {}
    for name, one in zip(NAMES, written.items, strict=True):
        deployments[name] = {
            "provider": "openai-compatible",
            "model": f"m{name}",
            "endpoint": f"https://{name}.{one.host}.example/v1",
            "stores": one.stores,
            "processes": one.processes,
            "enabled": one.enabled,
        }
        if one.calls:
            deployments[name]["quota"] = f"of-{name}"
        if one.proxy:
            deployments[name]["proxy"] = {"url": one.proxy_origin, "territory": one.proxy}
        if one.consent is not None:
            mode, missing = one.consent.split()
            deployments[name]["consent"] = {"mode": mode, "on_missing": missing, "recipient": one.recipient}
        if one.approved_days is not None:
            until = (START + timedelta(days=one.approved_days)).date().isoformat()
            record = {"region": "de", "authority": "A", "kind": "registration", "number": "n", "model_name": "m"}
            deployments[name]["approvals"] = [{**record, "valid_until": until}]
    approvals = "required" if written.approvals else "none"
    clients = {name: {"keys": [f"sha256:{key}"]} for name, key in CALLERS.items()}
    if written.bound:
        clients["shop"]["region"] = "de"  # type: ignore[assignment]
    config = {
        "version": 1,
        "assistants": {"assistant": {"routes": {"de": written.route("de"), "rest": written.route("rest")}}},
        "regions": {
            "de": {
                "territories": ["DE", "FR"] if written.with_fr else ["DE"],
                "boundary": written.boundary_of("de"),
                "approvals": approvals,
            },
            "rest": {"territories": ["*"], "boundary": written.boundary_of("rest")},
        },
        "blocked": ["JP"] if written.blocked else ["CU"],
        "deployments": deployments,
        "quotas": {
            f"of-{name}": {"requests": {"hour": one.calls}}
            for name, one in zip(NAMES, written.items, strict=True)
            if one.calls
        },
        "clients": clients,
        "location": {"signals": ["api_key", "edge_header"], "edges": [{"from": ["10.0.0.0/8"], "country": "c"}]},
        "secrets": {"consent": "s" * 32},
    }
    return table_of(json.dumps(config), {})


# --- the oracle -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IssuedToken:
    """A token that the gateway issued: the content shown to the user, the caller, and the expiry."""

    text: str
    shown: tuple[str, str, str]
    region: str
    caller: str
    message: str
    until: float


@dataclass
class FenceRequest:
    """One request in the middle of its plan."""

    written: WrittenConfig
    territory: str
    caller: str
    standing: frozenset[str]
    asserted: bool
    issued: IssuedToken | None
    message: str
    began: float
    execution: Run | None = None
    within: Destinations | None = None
    attempts: int = 0
    reloads: int = field(default=0)


def why_not(written: WrittenConfig, asked: FenceRequest, way: tuple[str, str], now: float) -> str | None:
    """Why this host must not get the request's prompt through this proxy under that config then; None if it may."""
    host, proxy = way
    name, which = host.split(".")[:2]
    one = written.items[NAMES.index(name)]
    region = written.region_of(asked.territory, asked.caller)
    if region is None:
        return "blocked"
    if name not in written.route(region) or which != one.host or proxy != one.proxy_origin:
        return "not routed there"
    if not one.fits(parse_places(written.boundary_of(region))):
        return "outside"
    if not one.enabled:
        return "disabled"
    if region == "de" and written.approvals and not _is_approved(one, now):
        return "not approved"
    return None if _has_agreed(one, asked, region) else "no consent"


def _is_approved(one: WrittenDeployment, now: float) -> bool:
    if one.approved_days is None:
        return False
    last: date = (START + timedelta(days=one.approved_days)).date()
    # Somewhere on earth it is tomorrow fourteen hours before it is so in Greenwich.
    return (datetime.fromtimestamp(now, UTC) + timedelta(hours=14)).date() <= last


def _has_agreed(one: WrittenDeployment, asked: FenceRequest, region: str) -> bool:
    if one.consent is None:
        return True
    shown = (one.recipient, one.stores, one.processes)
    issued = asked.issued
    if issued is not None and asked.began < issued.until:
        agreed = (issued.region, issued.caller, issued.message, issued.shown)
        if agreed == (region, asked.caller, asked.message, shown):
            return True
    return one.consent.startswith("standing") and (one.recipient in asked.standing or asked.asserted)


# --- the machine ----------------------------------------------------------------------------------


class PlanMade(Exception):
    """Raised when a plan was made. The test executes it step by step."""

    def __init__(self, plan: Plan, still_allowed: Any) -> None:
        super().__init__()
        self.plan, self.still_allowed = plan, still_allowed


class PlanRaisingExecutor:
    """A plan executor that raises the plan instead of executing it."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.accounting = None

    async def run(self, plan: Plan, request: Any, context: RunContext) -> NoReturn:
        raise PlanMade(plan, context.still_allowed)


GOOD = {"id": "a", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": "stop"}]}
GOOD["choices"][0]["message"] = {"role": "assistant", "content": "hi"}  # type: ignore[index]
OUTCOMES = ["good", "500", "401", "429", "reset", "html", "redirect"]


class Fence:
    """The gateway during one walk, and the events that may happen in it."""

    def __init__(self, chance: random.Random) -> None:
        TOLD["sequences"] += 1
        self.chance = chance
        self.running: list[FenceRequest] = []
        self.yeses: list[IssuedToken] = []
        self.now, self.ticks = START.timestamp(), 0.0
        self.loop = asyncio.new_event_loop()
        self.health = Health(lambda: self.ticks)
        transport = HttpxTransport(httpx.MockTransport(self.provide))
        self.executor = PlanExecutor(transport, self.health, draw=lambda: 0.0, clock=lambda: self.now)
        self.service = ChatService(
            lambda: self.table,
            PlanRaisingExecutor(self.health),  # type: ignore[arg-type]  # what the service asks of a runner
            LocationService(ServiceClient(transport), lambda _: None),
            ClientLimits(),
            lambda: self.now,
        )
        self.asked: FenceRequest | None = None
        self.outcome = "good"
        self.reloads = 0
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.journal = Journal.open(Path(self.folder.name))
        self.executor.accounting = Accounting(self.journal, b"k" * 32)
        self.executor.accounting.clock = lambda: int(self.now * NANO)
        self.begin_with(config_of(chance.randrange(60)))

    def walk(self, steps: int) -> None:
        events = [*self.WEIGHTS]
        for event in self.chance.choices(events, [self.WEIGHTS[one] for one in events], k=steps):
            event(self)
        self.loop.close()
        self.journal.close()
        self.folder.cleanup()

    def begin_with(self, written: WrittenConfig) -> None:
        self.written, self.table = written, compiled(written)

    def reload(self, written: WrittenConfig | None = None) -> None:
        self.begin_with(written or config_of(self.chance.randrange(60)))
        self.health.prune(self.table)
        self.reloads += 1

    def change_one_thing(self) -> None:
        """Change one key of one deployment, as an operator does."""
        index, other = self.chance.randrange(3), _item(self.chance)
        one = self.written.items[index]
        match self.chance.choice(["enabled", "consent", "place", "host", "proxy", "calls", "approval", "approval"]):
            case "enabled":
                one = replace(one, enabled=not one.enabled)
            case "consent":
                one = replace(one, consent=other.consent, recipient=other.recipient)
            case "place":
                one = replace(one, stores=other.stores, processes=other.processes)
            case "host":
                one = replace(one, host="y" if one.host == "x" else "x")
            case "proxy":
                one = replace(one, proxy=other.proxy)
            case "calls":
                one = replace(one, calls=other.calls)
            case "approval":
                one = replace(one, approved_days=other.approved_days)
        first, second, third = (one if place == index else item for place, item in enumerate(self.written.items))
        written = replace(self.written, items=(first, second, third))
        if written.route("de") and written.route("rest"):
            self.reload(written)

    def clock(self) -> None:
        self.now += self.chance.choice([1.0, 1.0, 299.0, 301.0, 36_000.0, 50_000.0])

    def wait(self) -> None:
        self.ticks += self.chance.choice([1.0, 20.0, 100.0])

    def bench(self) -> None:
        deployment, for_s = self.table.deployments[self.chance.choice(NAMES)], self.chance.choice([5.0, 60.0])
        self.health.cool_down(deployment, None, for_s, Failure(FailureKind.CREDENTIALS, "benched"))

    def ask(self) -> None:
        chance = self.chance
        self._ask(
            chance.choice(["DE", "DE", "FR", "US", "JP"]),
            chance.choice([*CALLERS]),
            frozenset(name for name in ("One", "Two") if chance.random() < 0.5),
            chance.random() < 1 / 3,
            chance.choice(["hello", "secret"]),
        )

    def ask_with_a_yes(self) -> None:
        if not self.yeses:
            return
        chance = self.chance
        issued = chance.choice(self.yeses)
        caller, message = issued.caller, issued.message
        if chance.random() < 0.25:
            caller, message = chance.choice([*CALLERS]), chance.choice(["hello", "secret"])
        self._ask(chance.choice(["DE", "FR", "US"]), caller, frozenset(), False, message, issued)

    def _ask(
        self,
        territory: str,
        caller: str,
        standing: frozenset[str],
        asserted: bool,
        message: str,
        issued: IssuedToken | None = None,
    ) -> None:
        stream = self.chance.random() < 0.5
        asked = FenceRequest(self.written, territory, caller, standing, asserted, issued, message, self.now)
        asked.reloads = self.reloads
        request, record = ChatRequest("assistant", (UserMessage(message),), stream=stream), Record("r", 0, "t")
        refused = self._decide(asked, request, record)
        if refused is None:
            self.running.append(asked)
        elif (consent := refused.consent) is not None:
            location = resolve(self.table, self.table.clients[CALLERS[caller]], reported(EdgeReport((territory,))))
            assert location.region is not None
            shown = (consent.recipient, consent.stores, consent.processes)
            latest = IssuedToken(consent.token, shown, location.region.name, caller, message, consent.expires_at)
            self.yeses.append(latest)
            # Half of them agree at once.
            if issued is None and message == "hello":
                self._ask(territory, caller, standing, asserted, message, latest)

    def _decide(self, asked: FenceRequest, request: Any, record: Record) -> Refused | None:
        """Make a plan under the active config, and check each of its steps. Return the refusal if there is one."""
        issued, deadline = asked.issued, Deadline.start(1e6, 1e6, lambda: self.ticks)
        text = issued.text if issued is not None else None
        statement = ConsentStatement(asked.caller, asked.standing, asked.asserted, text)
        client = self.table.clients[CALLERS[asked.caller]]
        location = resolve(self.table, client, reported(EdgeReport((asked.territory,))))
        exchange = exchange_of(self.table, location, request, deadline, record, client, consent=statement)
        exchange.within = asked.within
        try:
            self.loop.run_until_complete(answer_once(self.service, exchange))
        except Refused as refused:
            TOLD[str(refused.refusal.code)] += 1
            return refused
        except PlanExhausted:
            TOLD["nothing left"] += 1
            return None
        except PlanMade as planned:
            TOLD["plans"] += 1
            bounds = Resilience(Attempts(per_deployment=3, total=9), retry_budget=None)
            usage = self.executor.accounting.request(self.table, client, None, record)
            context = RunContext(bounds, deadline, record, planned.still_allowed, usage=usage)
            asked.execution = Run(self.executor, planned.plan, request, context)
            for step in planned.plan.steps:
                way = step.permit.origin.removeprefix("https://"), step.permit.proxy
                reason = why_not(self.written, asked, way, self.now)
                assert reason is None, (reason, step.deployment.name)
            return None
        raise AssertionError("neither a plan nor a refusal")

    def attempt(self) -> None:
        """The next attempt of a request that is under way; one that was answered is resumed by the next step."""
        if self.running:
            self._attempt(self.chance.choice(self.running), self.chance.choice(OUTCOMES))

    def _attempt(self, asked: FenceRequest, outcome: str) -> None:
        execution = asked.execution
        if execution is None or execution.has_ended:
            return
        self.asked, self.outcome = asked, outcome
        try:
            answer = self.loop.run_until_complete(execution.attempt_next())
        except AttemptFailed:
            pass
        except ConfigChanged:
            TOLD["decided anew"] += 1
            asked.within = execution.context.record.decide_again(asked.within)
            asked.execution = None
            if asked.within is None:  # nothing was sent: the active config decides alone
                asked.written, asked.began = self.written, self.now
            self._decide(asked, execution.request, execution.context.record)
        else:
            TOLD["answers"] += 1
            if answer.stream is not None:
                self.loop.run_until_complete(answer.stream.close())
            execution._leave_step()
        TOLD.update(f"skipped: {one.reason[:60]}" for one in execution.context.record.skipped)
        TOLD["skipped"] += len(execution.context.record.skipped)
        execution.context.record.skipped.clear()

    def leave(self) -> None:
        """The client has gone."""
        if self.running:
            self.running.remove(self.chance.choice(self.running))

    def provide(self, request: httpx.Request) -> httpx.Response:
        asked = self.asked
        assert asked is not None
        TOLD["attempts"] += 1
        TOLD["attempts after a reload"] += asked.reloads != self.reloads
        TOLD["attempts with a token"] += asked.issued is not None
        link = request.extensions["gateway.link"]
        way = request.url.host, link.proxy if link is not None else ""
        reason = why_not(self.written, asked, way, self.now)
        assert reason is None, f"{request.url.host} by the current config: {reason}"
        # An expired approval may be renewed by a reload, so both configs are checked for the time of the attempt.
        reason = why_not(asked.written, asked, way, asked.began)
        assert reason is None, f"{request.url.host} by its own config: {reason}"
        match self.outcome:
            case "good":
                return httpx.Response(200, json=GOOD)
            case "reset":
                raise httpx.ReadError("reset")
            case "html":
                return httpx.Response(200, html="<html>")
            case "redirect":
                return httpx.Response(302, headers={"location": "https://d0.x.example/"})
        return httpx.Response(int(self.outcome), json={"error": {"message": "no"}}, headers={"retry-after": "1"})

    WEIGHTS: ClassVar[dict[Callable[[Fence], None], int]] = {
        **dict.fromkeys((reload, change_one_thing, bench, leave), 2),
        **{clock: 3, wait: 4, ask: 7, ask_with_a_yes: 4, attempt: 18},
    }


@pytest.mark.slow("walks hundreds of sequences of 40 events, and compiles hundreds of configs")
@pytest.mark.parametrize("number", [120, pytest.param(10_000, marks=pytest.mark.full)])
def test_no_attempt_of_any_sequence_leaves_the_fence(number: int) -> None:
    TOLD.clear()

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=number, deadline=None)
    def walk(seed: int) -> None:
        Fence(random.Random(seed)).walk(40)

    walk()
    print(dict(TOLD))
    TOLD["skipped by a quota"] = sum(count for name, count in TOLD.items() if name.startswith("skipped: quota"))
    assert TOLD["sequences"] >= number
    for happened in (
        "attempts after a reload",
        "attempts with a token",
        "skipped",
        "skipped by a quota",
        "consent_required",
        "answers",
    ):
        assert TOLD[happened] >= number / 20, happened
