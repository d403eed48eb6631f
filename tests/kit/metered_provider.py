"""A provider that counts the tokens of every call, in whatever way the call ends, and can hold all answers back."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.kit.configs import Config, key_hash
from tests.kit.faulty_provider import Behaviour, Call, Provider, chunk_of

APP_KEY = "gk-app"
PROMPT_TOKENS = 10
"""The least input of a call."""

MAXIMUM = 1000
"""The longest answer of the model."""

_LATE_S = 0.25
PACE_S = 0.5
"""How long each answer of `paced` takes."""

_DIMENSIONS = 1536
_NAMED = re.compile(r"request-\d+")
INPUT_PRICE, OUTPUT_PRICE = 1, 2
"""Units of EUR for a million tokens."""


@dataclass(slots=True)
class SeenCall:
    """One call as the provider counts it.

    Attributes:
        deployment: The deployment that was called.
        request: The name of the request, such as `request-7`, if its prompt has one.
        prompt_tokens: The input.
        cached_tokens: The part of the input that was cached.
        reasoning_tokens: The part of a whole answer that is reasoning.
        completion_tokens: The generated tokens, also of an answer that broke off.
        is_reported: Whether the gateway got the count.
        is_refused: Whether it got an error status instead of an answer.
        at_s: When it came, by the monotonic clock.
    """

    deployment: str
    request: str = ""
    prompt_tokens: int = PROMPT_TOKENS
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    completion_tokens: int = 0
    is_reported: bool = False
    is_refused: bool = False
    at_s: float = field(default_factory=time.monotonic)

    def usage(self) -> dict[str, Any]:
        """Return the count as the provider reports it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


@dataclass(slots=True)
class Meter:
    """The calls of all deployments. It can hold the answers of some of them back.

    Attributes:
        answers_briefly: Whether the answers of `long` have one token. Otherwise they are the longest that are allowed.
    """

    calls: list[SeenCall] = field(default_factory=list)
    answers_briefly: bool = False
    _held: set[str] = field(default_factory=set)
    _is_open: threading.Event = field(default_factory=threading.Event)

    def number(self, deployment: str) -> int:
        """Return how many calls of a deployment were seen."""
        return sum(call.deployment == deployment for call in self.calls)

    def hold(self, deployment: str) -> None:
        """Let a deployment answer no more, until `release`."""
        self._is_open.clear()
        self._held.add(deployment)

    def release(self) -> None:
        """Let all deployments answer."""
        self._held.clear()
        self._is_open.set()

    def note(self, call: SeenCall) -> SeenCall:
        self.calls.append(call)
        return call

    async def wait(self, deployment: str) -> None:
        if deployment in self._held:
            await asyncio.to_thread(self._is_open.wait)


async def answer_long(call: Call, seen: SeenCall, *, briefly: bool) -> None:
    """Send a short text, and count as many tokens as the cap or the maximum of the model allows, or one."""
    seen.completion_tokens = 1 if briefly else min(call.body.get("max_tokens") or MAXIMUM, MAXIMUM)
    seen.is_reported = True
    if "input" in call.body:
        seen.completion_tokens, vector = 0, {"object": "embedding", "index": 0, "embedding": [0.5] * _DIMENSIONS}
        await call.respond(200, {"object": "list", "model": "m", "data": [vector], "usage": seen.usage()})
    elif call.stream:
        await call.begin(0)
        for chunk in (
            chunk_of({"content": "word"}),
            chunk_of({}, "stop"),
            {**chunk_of({}), "choices": [], "usage": seen.usage()},
        ):
            await call.event(chunk)
        await call.event("[DONE]")
        await call.send("0\r\n\r\n")
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}
        base = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        await call.respond(200, {**base, "usage": seen.usage()})


async def answer_metered(call: Call, seen: SeenCall, *, pause_s: float = 0.0, usage: bool = True) -> None:
    """Send a whole answer of as many tokens as the cap, a word each. It ends with the usage."""
    tokens = min(call.body.get("max_tokens") or 20, 200)
    if not call.stream:
        seen.completion_tokens, seen.is_reported = tokens, usage
        choice = {"index": 0, "message": {"role": "assistant", "content": "word " * tokens}, "finish_reason": "stop"}
        base = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        await call.respond(200, {**base, **({"usage": seen.usage()} if usage else {})})
        return
    await call.begin(0)
    for _ in range(tokens):
        seen.completion_tokens += 1
        await call.event(chunk_of({"content": "word "}))
        if pause_s:
            await asyncio.sleep(pause_s)
    await call.event(chunk_of({}, "stop"))
    if usage:
        seen.is_reported = True
        await call.event({**chunk_of({}), "choices": [], "usage": seen.usage()})
    await call.event("[DONE]")
    await call.send("0\r\n\r\n")


def behaviour(meter: Meter, name: str) -> Behaviour:
    """Return a behaviour by name: a kind of `behave`, or `flaky` for several in turn with varied numbers of tokens."""

    async def behave(call: Call) -> None:
        kind, number = name.partition("-")[0], call.number
        named = _NAMED.search(json.dumps(call.body.get("messages", "")))
        seen = SeenCall(name, named[0] if named else "")
        if kind == "flaky":
            kind = ("ok", "error", "breaks", "late", "uncounted", "ok", "closes")[number % 7]
            seen.prompt_tokens += number % 6
            seen.cached_tokens, seen.reasoning_tokens = number % 4, number % 3
        meter.note(seen)
        if kind == "long":
            leaving = asyncio.ensure_future(call.until_closed())
            await asyncio.wait({leaving, asyncio.ensure_future(meter.wait(name))}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                return  # as a provider that generates nothing for a client that has left
            leaving.cancel()
            await asyncio.wait({leaving})
        await meter.wait(name)
        match kind:
            case "error":
                seen.is_refused = True
                await call.error(500, "server_error")
            case "breaks" if call.stream:
                await call.begin(0)
                for _ in range(5):
                    seen.completion_tokens += 1
                    await call.event(chunk_of({"content": "word "}))
                call.reset()
            case "breaks":
                seen.completion_tokens = 5
                # Without a byte of an answer, the request would be sent again on a new connection.
                await call.send("HTTP/1.1 200 ")
                call.reset()
            case "closes" if not call.is_first:
                call.writer.close()
            case "paced":
                await asyncio.sleep(PACE_S)
                await answer_metered(call, seen)
            case "slow":
                await answer_metered(call, seen, pause_s=0.02)
            case "silent":
                await call.until_closed()
            case "pauses":
                if call.stream:
                    await call.begin(0)
                    for _ in range(5):
                        seen.completion_tokens += 1
                        await call.event(chunk_of({"content": "word "}))
                await call.until_closed()
            case "long":
                await answer_long(call, seen, briefly=meter.answers_briefly)
            case "late":
                try:
                    async with asyncio.timeout(_LATE_S):
                        await call.until_closed()
                except TimeoutError:
                    await answer_metered(call, seen)
            case _:
                await answer_metered(call, seen, usage=kind != "uncounted")

    return behave


@contextmanager
def metered_provider(*names: str) -> Iterator[tuple[Provider, Meter]]:
    meter = Meter()
    with Provider({name: behaviour(meter, name) for name in names}) as provider:
        yield provider, meter


def metered_config(provider: Provider, folder: Path, route: str, *patches: str | Mapping[str, Any]) -> Config:
    """Return a config with a deployment for each behaviour of a route, and one client with a key."""
    price = {"input": INPUT_PRICE, "output": OUTPUT_PRICE, "currency": "EUR", "as_of": "2026-11-01", "source": "test"}
    models = {"version": 1, "models": {"openai-compatible": {"m": {"price": price, "output_tokens": MAXIMUM}}}}
    # The date must be a date in YAML.
    (folder / "models.yaml").write_text(yaml.safe_dump(models).replace("'2026-11-01'", "2026-11-01"), "utf-8")
    names = [name.strip() for name in route.split(",")]
    shared = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "api_key": "${KEY}"}
    data: dict[str, Any] = {
        "version": 1,
        "catalogue": {"models": "models.yaml"},
        "regions": {"default": {"territories": ["*"], "boundary": ["*"]}},
        "deployments": {name: {**shared, "endpoint": f"{provider.origin}/{name}/v1"} for name in names},
        "assistants": {"assistant": {"routes": {"default": names}}},
        "location": {"unknown": "default"},
        "clients": {"app": {"keys": [key_hash(APP_KEY)]}},
        "usage": {"currency": "EUR"},
        "resilience": {"breaker": "off", "retry_budget": "off", "total": "120s", "commit": "100s"},
    }
    return Config(data).merge(*patches)
