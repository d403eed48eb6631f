"""Test the fence on the network: the whole server under load and faults, with every connection recorded.

Each request carries a unique mark. Providers fail in every way that the simulators know, the config is reloaded
continuously, clients disconnect, and headers are forged. Afterwards: the gateway connected only to the sites of the
config; no site received a mark of a region whose boundary excludes it, or of a user who had not consented to it; no
mark of a refused request reached any site; and no mark is in the log. Each request also has an address, which no site
received of a region that redacts.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit import app
from providers.testkit.scenario import (
    Cut,
    DuplicateFinish,
    Empty,
    ErrorEvent,
    Garbage,
    Html,
    HttpError,
    NoEndMark,
    Redirect,
    Reset,
    Scenario,
    Silent,
    Slow,
    Stall,
    Truncated,
)
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_with_inputs, moderated
from tests.e2e.connection_trap import Trap
from tests.e2e.socket_recording import Recording
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess, running_gateway
from tests.kit.network_peers import ConnectProxy, proxy_thread
from tests.kit.prompt_paths import PROMPT_FORMS
from tests.kit.vendor_checks import checked_simulators

CHAT = "/v1/chat/completions"
MARK = re.compile(rb"mark-[0-9]+-[a-z0-9]+")
# The regions whose prompts each site may store, derived by hand from the facts in the config.
INSIDE = {
    "cn": {"cn", "default"},
    "eu": {"eu", "default"},
    "eu2": {"eu", "default"},
    "us": {"us", "default"},
    "gemini": {"default"},
    "intl": {"default"},
}
REGION = {"CN": "cn", "DE": "eu", "FR": "eu", "CH": "eu", "US": "us", "JP": "default", "GB": "default", "HK": "default"}
PROXIED = "eu2"
"""The site to which every connection goes through a proxy."""
NOWHERE = ["CU", "IR", "XX", "T1", "", "zz-9", "CN, US"]
LIMIT_S = 300
_ANSWERING = {"qwen-cn", "chatgpt-eu", "chatgpt-eu-2", "chatgpt-us", "gemini", "qwen-intl"}
# Only the deployment of chats needs the user's consent there.
_WITHOUT_CONSENT = ("/embeddings", "/moderations")
_LEAST_RELOADS = 2
_BETWEEN_RELOADS_S = 1.0
_RESILIENCE = (
    "resilience: {connect: 1s, first_token: 300ms, idle: 300ms, commit: 2s, total: 3s, "
    "breaker: {failures: 4, open: 300ms}, attempts: {per_deployment: 2, total: 4}}"
)


@dataclass
class LoadRecord:
    """The requests that were sent, and the result that was expected of each."""

    url: str
    regions: dict[bytes, str | None] = field(default_factory=dict)
    agreed: set[bytes] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    tables: set[str] = field(default_factory=set)

    def is_varied(self) -> bool:
        """Return whether the load was varied enough: every kind of result has occurred."""
        seen = self.outcomes.keys()
        answering = {name for name, times in self.answered_by.items() if times}
        return (
            len(self.tables) > 1
            and seen >= {"ok", "region_blocked", "region_conflict", "consented", "left"}
            and bool(seen & {"provider_error", "no_healthy_deployment"})
            and answering >= _ANSWERING
        )

    async def ask(self, client: httpx.AsyncClient, number: int, chance: random.Random) -> None:
        region, headers = _random_caller(chance)
        mark = f"mark-{number}-{region or 'nowhere'}".encode()
        self.regions[mark] = region
        path, body = _request(mark, chance)
        response = await self._post(client, path, body, headers, chance)
        if response is None:
            return
        content = json.loads(response.content) if response.headers["content-type"] == "application/json" else {}
        code = _code_in(content)
        if code == "consent_required" and path == CHAT and chance.random() < 0.6:
            self.agreed.add(mark)
            headers = {**headers, "x-gateway-consent": content["error"]["consent"]["token"]}
            response = await self._post(client, path, body, headers, chance)
            code = "consented" if response is not None and response.status_code == 200 else "not answered"
        self.outcomes[code] += 1
        if response is not None:
            self.tables.add(response.headers["x-gateway-config"])
            self.answered_by[response.headers.get("x-gateway-deployment", "-")] += response.status_code == 200
            assert region is not None or response.status_code in (401, 429, 451), (headers, response.text)

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str], chance: random.Random
    ) -> httpx.Response | None:
        """Send one request and return the answer, or None if the client disconnected first."""
        patience_s = chance.choice([0.02, 0.2, 10, 10, 10, 10])
        try:
            async with asyncio.timeout(patience_s):
                return await client.post(path, json=body, headers=headers)
        except TimeoutError:
            self.outcomes["left"] += 1
        except httpx.HTTPError as error:
            # A stream that breaks off is one of the faults.
            self.outcomes[type(error).__name__] += 1
        return None


def _random_caller(chance: random.Random) -> tuple[str | None, dict[str, str]]:
    """Return the region whose policy must hold, and the headers of a caller. The region is None if the request must be
    refused.
    """
    place = chance.choice([*REGION, *REGION, *NOWHERE])
    region = REGION.get(place)
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": place}
    kind = chance.random()
    if kind < 0.2:
        # An app key may not assert a territory.
        headers |= {
            "x-gateway-territory": chance.choice([*REGION]),
            "x-forwarded-for": "8.8.8.8",
            "forwarded": "for=8.8.8.8",
        }
    elif kind < 0.4:
        asserted = chance.choice([*REGION])
        headers |= {"authorization": f"Bearer {BACKEND_KEY}", "x-gateway-territory": asserted}
        region = _region_of_both(place, asserted)
    elif kind < 0.5:
        return None, headers | {"authorization": "Bearer gk-nobody"}
    return region, headers


def _region_of_both(place: str, asserted: str) -> str | None:
    """Return the region that follows from two signals: the one whose boundary is inside the other's."""
    if place in ("XX", "T1", ""):
        return REGION[asserted]
    one, other = REGION.get(place), REGION[asserted]
    if one is None or one == other:
        return one
    return other if one == "default" else one if other == "default" else None


def _request(mark: bytes, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of a request: usually of a chat, else at any other path that accepts a prompt."""
    number = mark.decode().split("-")[1]
    text = f"{mark.decode()} {TRAPS[0]}/fetch-me for user{number}@{PLANTED}"
    kind = chance.random()
    if kind < 0.7:
        return CHAT, _chat_body(mark, text, chance)
    if kind < 0.85:
        form = chance.choice(PROMPT_FORMS)
        return form.write("assistant", text, chance.choice(form.shapes))
    content, other = ({"content": {"parts": [{"text": each}]}} for each in (text, "another text"))
    named = {"model": "assistant", "user": mark.decode()}
    return chance.choice(
        [
            ("/v1/embeddings", {**named, "input": [text, "another text"]}),
            ("/v1/moderations", {**named, "input": text}),
            ("/v1beta/models/assistant:embedContent", content),
            ("/v1beta/models/assistant:batchEmbedContents", {"requests": [content, other]}),
        ]
    )


def _code_in(content: Any) -> str:
    """Return the code of an error in any form; `ok` without an error."""
    last = content[-1] if isinstance(content, list) else content
    error = last.get("error")
    if not error:
        return "ok"
    return str(error["details"][0]["reason"] if "details" in error else error["code"])


def _chat_body(mark: bytes, text: str, chance: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "assistant",
        "messages": [{"role": "user", "content": text}],
        "user": mark.decode(),
    }
    if chance.random() < 0.5:
        body["stream"] = True
    if chance.random() < 0.1:
        body["tools"] = [{"type": "function", "function": {"name": "look", "description": text}}]
    if chance.random() < 0.1:
        body |= {"base_url": TRAPS[0], "api_base": TRAPS[0], "endpoint": TRAPS[0], "metadata": {"to": TRAPS[0]}}
    return body


TRAPS = [""]
PLANTED = "planted.example"
REDACTING = "default"
"""The region whose requests are sent without addresses."""


def _faults(trap: str) -> list[Any]:
    return [
        *(HttpError(status) for status in (400, 401, 404, 408, 429, 500, 503, 529)),
        *(HttpError(429, retry_after_s=wait) for wait in (0.05, 30)),
        *(Reset(), Reset(1), Cut(), Cut(1), Stall(0), Stall(2), Silent(), Slow(0.1), Garbage(), Garbage(0)),
        *(Html(), Empty(), Truncated(), ErrorEvent(), ErrorEvent(after_events=2), NoEndMark(), DuplicateFinish()),
        Redirect(f"{trap}/stolen"),
    ]


class FaultSource:
    """Changes the faults and the config, and takes refused keys back into use, until it is stopped. `reloads` counts the
    reloads tried, valid and invalid.
    """

    def __init__(self, providers: SimulatorThread, config: Path, trap: str, seed: int) -> None:
        self.reloads = 0
        self.admin_url = ""
        self._providers, self._config, self._trap = providers, config, trap
        self._chance = random.Random(seed)  # the random faults need no secure source
        self._safe = Config.parse(config.read_text("utf-8"))
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send_load), threading.Thread(target=self._reload_always)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def _send_load(self) -> None:
        faults, turn = _faults(self._trap), 0
        while not self._stopping.wait(0.1):
            site = self._chance.choice([*SITES])
            drawn = self._chance.sample(faults, 3)
            share = self._chance.choice([0.0, 0.1, 0.3])
            text = self._chance.choice([None, "word " * 30])
            self._providers[site].scenario = Scenario(
                faults=tuple((fault, share) for fault in drawn), seed=turn, text=text, between_events_s=0.002
            )
            turn += 1

    def _reload_always(self) -> None:
        with httpx.Client(base_url=self.admin_url, trust_env=False, timeout=LIMIT_S) as admin:
            while not self._stopping.wait(_BETWEEN_RELOADS_S):
                self._config_of(self.reloads).write(self._config.parent)
                admin.post("/reload")
                self.reloads += 1
                # A refused key is out of use for as long as the whole test: after a few seconds every key would be.
                for name in _ANSWERING:
                    admin.post("/v1/admin/deployments/resume", json={"deployment": name})

    def _config_of(self, turn: int) -> Config:
        """Return a config with another order of steps, a kill switch or a narrower boundary. None of them allows more
        than the first.
        """
        config = self._safe.merge({"resilience": {"total": f"{3000 + turn}ms"}})
        if self._chance.random() < 0.5:
            config = config.merge("assistants: {assistant: {routes: {eu: [chatgpt-eu-2, chatgpt-eu]}}}")
        if self._chance.random() < 0.3:
            config = config.merge("deployments: {chatgpt-eu: {enabled: false}}")
        if self._chance.random() < 0.3:
            config = config.merge("regions: {cn: {territories: [CN, MO]}}")
        if self._chance.random() < 0.2:
            # This one would let a prompt out, so the gateway must refuse it.
            config = config.merge("assistants: {assistant: {routes: {cn: [qwen-cn, gemini]}}}")
        return config


@pytest.fixture
def recording_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_MOST_REMEMBERED", 1_000_000)


def _write_config(folder: Path, providers: SimulatorThread, proxy: ConnectProxy, *patches: Mapping[str, Any]) -> Path:
    consent = "deployments: {chatgpt-us: {consent: {mode: per_request, recipient: OpenAI}}}"
    # Fallbacks to which a caller of the default region has not consented either, and one that needs no consent.
    route = "assistants: {assistant: {routes: {default: [gemini, qwen-intl, chatgpt-us, chatgpt-eu-2]}}}"
    secret = "secrets: {consent: '${CONSENT_SECRET}'}"
    redaction = {"redactions": {"mails": {"kinds": ["email"]}}, "regions": {REDACTING: {"redact": "mails"}}}
    # The simulators have no TLS, so the proxy must be one that may read prompts.
    way = {"url": proxy.origin, "territory": "FR", "inspects": True}
    through = {"deployments": {"chatgpt-eu-2": {"proxy": way}}}
    return config_with_inputs(providers, _RESILIENCE, consent, route, secret, through, redaction, *patches).write(
        folder
    )


@pytest.mark.slow("rare sequences need many requests")
@pytest.mark.usefixtures("recording_sockets")
@pytest.mark.parametrize(
    ("number", "is_moderated"), [(150, True), (1_500, False), pytest.param(6_000, False, marks=pytest.mark.full)]
)
def test_faults_reloads_and_forged_headers_never_connect_outside_the_boundary(
    trap: Trap, tmp_path: Path, number: int, is_moderated: bool
) -> None:
    TRAPS[0] = trap.url
    recording = Recording(tmp_path)
    dialects = checked_simulators()
    servers = {name: SimulatorServer(dialects[provider], f"site {name}") for name, provider in SITES.items()}
    environ = {**KEYS, **recording.environ, "CONSENT_SECRET": "c" * 40, "GATEWAY_WORKERS": "2"}
    environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), trap.url)
    environ |= {"NO_PROXY": "", "no_proxy": ""}
    with SimulatorThread(servers) as providers, proxy_thread() as proxy:
        config = _write_config(tmp_path, providers, proxy, *([moderated("open")] if is_moderated else []))
        fault_source = FaultSource(providers, config, trap.url, seed=number)
        with running_gateway(config, environ) as gateway:
            load, fault_source.admin_url = LoadRecord(gateway.url), gateway.admin_url
            with fault_source.running():
                asyncio.run(_send_load(load, number, fault_source, recording))
            _settle(gateway)
            lines = "\n".join(map(str, gateway.lines))
        print(
            f"{len(load.regions)} requests, {fault_source.reloads} reloads, {len(load.tables)} tables: {dict(load.outcomes)}"
        )
        print(f"answers: {dict(load.answered_by)}")
        _check_what_was_seen(providers, load, is_moderated=is_moderated)
        _check_sockets(providers, recording, trap, proxy)
        _check_what_the_proxy_saw(proxy, load)
    assert trap.requests == []
    assert "mark-" not in lines
    assert PLANTED not in lines
    assert load.is_varied()


async def _send_load(load: LoadRecord, least: int, fault_source: FaultSource, recording: Recording) -> None:
    def goes_on(one: int) -> bool:
        # Only later requests show a reload, and queued requests get an answer. On a slow machine none of this number
        # may be later.
        return one < least or fault_source.reloads < _LEAST_RELOADS or not load.is_varied() or recording.processes() < 2

    numbers = takewhile(goes_on, count())
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)

    async def client_loop(seed: int) -> None:
        chance = random.Random(seed)
        async with httpx.AsyncClient(base_url=load.url, trust_env=False, timeout=30, limits=limits) as client:
            for one in numbers:
                await load.ask(client, one, chance)

    try:
        async with asyncio.timeout(LIMIT_S * (1 + least // 1000)), asyncio.TaskGroup() as group:
            for seed in range(16):
                group.create_task(client_loop(seed))
    except TimeoutError:
        seen = fault_source.reloads, len(load.regions), load.outcomes, load.answered_by, len(load.tables)
        raise AssertionError(
            f"in {LIMIT_S} s not enough was seen, by {recording.processes()} processes: {seen}"
        ) from None


def _settle(gateway: GatewayProcess) -> None:
    """Wait until no request is running. Requests of disconnected clients end a moment later."""
    with httpx.Client(base_url=gateway.admin_url, trust_env=False) as admin:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if all(worker["running"] == 0 for worker in admin.get("/readyz").json()["workers"]["running"]):
                    return


def _check_what_was_seen(providers: SimulatorThread, load: LoadRecord, *, is_moderated: bool) -> None:
    seen: Counter[str] = Counter()
    for site, regions in INSIDE.items():
        for request in providers[site].requests:
            marks = set(MARK.findall(request.body)) | set(MARK.findall(repr(request.headers).encode()))
            if is_moderated and not marks:
                continue  # a verdict on an answer, which has no mark, and which no judge of another region gets
            assert len(marks) == 1, request
            [mark] = marks
            region = load.regions[mark]
            assert region in regions, f"{site} has seen {mark!r}"
            assert (PLANTED.encode() in request.body) is (region != REDACTING), request
            assert PLANTED not in f"{request.path} {request.headers}"
            if site == "us" and not request.path.endswith(_WITHOUT_CONSENT):
                assert mark in load.agreed, f"{site} has seen {mark!r}, whose client_loop has not agreed"
            # The user's name contains the mark too, and must not be sent.
            # Some judges get the prompt again, with the answer.
            assert is_moderated or request.body.count(mark) == 1 + request.body.count(b"look"), request.body
            seen[site] += 1
    print(f"seen by the sites: {dict(seen)}")
    assert all(seen[site] for site in INSIDE)


def _check_what_the_proxy_saw(proxy: ConnectProxy, load: LoadRecord) -> None:
    """The proxy is on the way to one site, and must see no prompt that this site may not see."""
    marks = set(MARK.findall(bytes(proxy.passed)))
    assert marks
    assert {load.regions[mark] for mark in marks} <= INSIDE[PROXIED]


def _check_sockets(providers: SimulatorThread, recording: Recording, trap: Trap, proxy: ConnectProxy) -> None:
    # Connections to this site are made by the proxy.
    ports = {(proxy if site == PROXIED else providers[site]).origin.rpartition(":")[2]: site for site in SITES}
    addresses = recording.addresses()
    for address, times in addresses.items():
        assert address[0] == "127.0.0.1", address
        assert address[1] in ports, f"{times} connections to {address}"
    assert recording.names() <= {"127.0.0.1"}
    # Every connection was recorded, and both workers have connected.
    for port, site in ports.items():
        assert addresses[("127.0.0.1", port)] >= providers[site].accepted > 0, site
    assert recording.processes() >= 2
    assert str(trap.server.server_port) not in {address[1] for address in addresses}
    print(f"{addresses.total()} connections to {len(addresses)} addresses")
