"""Simulated providers in several territories that fail at random and record each request.

Each answer depends only on the marker of its request, so that a truncated, mixed or repeated answer is detected.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.kit.faulty_provider import Call, Provider, chunk_of

__all__ = ["KEY", "PLACES", "REGIONS", "Site", "config_of", "site_at", "words_of"]

REGIONS = {"eu": ("DE", "FR"), "us": ("US", "US"), "cn": ("CN", "CN"), "default": ("SG", "JP")}
"""The sites of each region by territory: the first step of its route, then the second."""
PLACES = {"eu": ("DE", "FR", "IT"), "us": ("US",), "cn": ("CN",), "default": ("JP", "BR", "IN", "ZA")}
"""The territories of its clients."""

KEY = "gk-chaos"
_KEY_HASH = f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
_MARKER = re.compile(r"marker-\d{7}")
_WORDS = 12


def words_of(marker: str) -> list[str]:
    """Return the complete answer to a request, in pieces."""
    draw = random.Random(marker)
    return [f"{marker} ", *(f"{draw.randrange(10**6)} " for _ in range(_WORDS)), "end"]


@dataclass(slots=True)
class Site:
    """One provider's host.

    Attributes:
        asked: how often each marker reached it.
        calls: all requests that reached it.
    """

    name: str
    region: str
    territory: str
    rates: Mapping[str, float]
    draw: random.Random
    provider: Provider = field(init=False)
    asked: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    async def behave(self, call: Call) -> None:
        """Answer the call, or fail in one of the ways."""
        self.calls += 1
        found = _MARKER.findall(str(call.body["messages"]))
        assert found, "a request without a marker"
        self.asked.update(set(found))
        fault = self._fault()
        self.faults[fault or "none"] += 1
        await (_FAULTS[fault](call, words_of(found[-1])) if fault else _answer(call, words_of(found[-1])))

    def _fault(self) -> str | None:
        at = self.draw.random()
        for name, rate in self.rates.items():
            at -= rate
            if at < 0:
                return name
        return None


def site_at(name: str, region: str, territory: str, rates: Mapping[str, float], seed: int) -> Site:
    """Return a site and its server, which starts when it is entered as a context."""
    site = Site(name, region, territory, rates, random.Random(f"{seed} {name}"))
    site.provider = Provider({name: site.behave})
    return site


def config_of(sites: list[Site], turn: int) -> str:
    """Return the config after this number of changes. Each change rotates the routes."""
    place: dict[str, Any] = {"provider": "openai-compatible", "model": "m"}
    deployments = {
        site.name: {
            **place,
            "endpoint": f"{site.provider.origin}/{site.name}/v1",
            "stores": site.territory,
            "processes": site.territory,
        }
        for site in sites
    }
    steps = {region: [site.name for site in sites if site.region == region] for region in REGIONS}
    routes = {region: names[turn % 2 :] + names[: turn % 2] for region, names in steps.items()}
    boundaries = {"eu": ["@EEA"], "us": ["US"], "cn": ["CN"], "default": ["*", "!CN", "!US"]}
    territories = {"eu": ["@EEA"], "us": ["US"], "cn": ["CN"], "default": ["*"]}
    return yaml.safe_dump(
        {
            "version": 1,
            "assistants": {"assistant": {"routes": routes}},
            "regions": {name: {"territories": territories[name], "boundary": boundaries[name]} for name in REGIONS},
            "deployments": deployments,
            "clients": {"app": {"keys": [_KEY_HASH]}},
            "location": {"edges": [{"from": ["127.0.0.0/8"], "country": "CF-IPCountry"}]},
            "resilience": {
                "first_token": "500ms",
                "idle": "500ms",
                "commit": "4s",
                "total": "8s",
                "connect": "2s",
                "failover_after": "100ms",
                "breaker": {"failures": 20, "window": "5s", "samples": 200, "rate": "90%", "open": "200ms"},
            },
        }
    )


async def _answer(call: Call, words: list[str]) -> None:
    if call.stream:
        await _start_stream(call, words)
        await call.end()
        return
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    base = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m"}
    await call.respond(200, {**base, "choices": [choice]})


async def _start_stream(call: Call, words: list[str]) -> None:
    await call.head(transfer_encoding="chunked")
    await call.event(chunk_of({"role": "assistant", "content": ""}))
    for word in words:
        await call.event(chunk_of({"content": word}))


def _fail_midway(act: Any) -> Any:
    async def behave(call: Call, words: list[str]) -> None:
        if not call.stream:
            await call.head(content_length="100000")
            await call.send('{"id": "chatcmpl-p", "choices": [')
        else:
            await _start_stream(call, words[: len(words) // 2])
            # Sometimes the text sent so far reaches the client before the connection breaks.
            await asyncio.sleep(0.01 if call.number % 2 else 0)
        await act(call)

    return behave


async def _reset(call: Call, *_: object) -> None:
    call.reset()


async def _silent(call: Call, *_: object) -> None:
    await call.until_closed()


async def _garbage(call: Call, *_: object) -> None:
    await call.send('1f\r\ndata: {"choices": [{"delta": \r\n')
    call.reset()


async def _http(status: int, call: Call, **headers: str) -> None:
    await call.error(status, "server_error", None, **headers)


_FAULTS: dict[str, Any] = {
    "500": lambda call, _: _http(500, call),
    "503": lambda call, _: _http(503, call),
    "429": lambda call, _: _http(429, call, retry_after_ms="20"),
    "429-long": lambda call, _: _http(429, call, retry_after_ms="300"),
    "reset": _reset,
    "silent": _silent,
    "html": lambda call, _: call.respond(200, "<html>", content_type="text/html"),
    "midway-reset": _fail_midway(_reset),
    "midway-silent": _fail_midway(_silent),
    "midway-garbage": _fail_midway(_garbage),
}
