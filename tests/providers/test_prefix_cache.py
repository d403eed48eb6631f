"""The prompt cache of a simulated provider: what it keeps, for how long and for whom, and how answers report it."""

import json
from typing import Any, Literal

import httpx
import pytest

from providers.testkit import IncomingRequest, PrefixCache, SimulatorServer, SimulatorThread, load_simulators

LONG = "A sentence that stands in front of every question of this team. " * 128


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_of(clock: Clock, mode: Literal["plain", "routed", "marked"] = "plain") -> PrefixCache:
    return PrefixCache(mode, 300, clock=clock)


def ask(cache: PrefixCache, *texts: Any, key: str = "k", model: str = "m", **more: Any) -> int:
    messages = [{"role": "user" if at % 2 == 0 else "assistant", "content": text} for at, text in enumerate(texts)]
    body = json.dumps({"model": model, "messages": messages, **more}).encode()
    return cache.read(IncomingRequest("POST", "/", "", {"authorization": f"Bearer {key}"}, body), model).cached_tokens


def marked(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


def test_beginning_is_read_by_the_same_account_and_model_until_its_time_is_over(clock: Clock) -> None:
    cache = cache_of(clock)
    assert ask(cache, LONG, "One") == 0
    first = ask(cache, LONG, "One", "Two")
    assert 2048 <= first <= len(LONG) // 4 + 16
    assert first % 16 == 0, "blocks of 64 bytes"
    assert ask(cache, LONG, "One", key="other") == ask(cache, LONG, "One", model="other") == 0
    assert ask(cache, LONG, "One", cache_salt="p_1") == 0
    clock.now_s += 299
    assert ask(cache, LONG, "One") > 0
    clock.now_s += 299
    assert ask(cache, LONG, "One") > 0, "each use keeps it"
    clock.now_s += 300
    assert ask(cache, LONG, "One") == 0
    assert [read.cached_tokens for read in cache.reads][:2] == [0, first]


def test_short_or_changed_beginning_is_not_read(clock: Clock) -> None:
    cache = cache_of(clock)
    short = LONG[:4000]
    assert [ask(cache, short), ask(cache, short)] == [0, 0]
    ask(cache, LONG, "One")
    assert ask(cache, f"x{LONG}", "One") == 0
    assert ask(cache, LONG, "One", tools=[{"name": "look"}]) == 0, "tools come first"


def test_machine_is_chosen_by_beginning_and_key_and_takes_fifteen_a_minute(clock: Clock) -> None:
    cache = cache_of(clock, "routed")

    def hits(number: int) -> int:
        return sum(ask(cache, LONG, prompt_cache_key=f"{number}") > 0 for _ in range(15))

    assert [hits(1), hits(3)] == [14, 14], "another key, another machine"
    assert ask(cache, LONG, prompt_cache_key="1") == 0, "the next machine has not read it"
    clock.now_s += 61
    assert hits(1) == 15
    assert sum(ask(cache, LONG) > 0 for _ in range(40)) == 37, "without a key, all share three machines"


def test_only_what_is_marked_is_kept_and_found_twenty_blocks_back(clock: Clock) -> None:
    cache = cache_of(clock, "marked")
    assert [ask(cache, LONG), ask(cache, LONG)] == [0, 0]
    assert ask(cache, marked(LONG)) == 0
    assert ask(cache, marked(LONG), "One", marked("Two")) > 0
    near = ["More"] * 10
    assert ask(cache, LONG, *near, marked("End")) == 0, "a message is two blocks, so the mark is 22 blocks away"
    assert ask(cache, LONG, *near[:8], marked("End")) > 0


@pytest.mark.parametrize(
    ("provider", "path", "count"),
    [
        ("openai", "/v1/chat/completions", lambda body: body["usage"]["prompt_tokens_details"]["cached_tokens"]),
        ("anthropic", "/v1/messages", lambda body: body["usage"]["cache_read_input_tokens"]),
        (
            "gemini",
            "/v1beta/models/gemini-3.8-flash:generateContent",
            lambda body: body["usageMetadata"]["cachedContentTokenCount"],
        ),
    ],
)
def test_answer_reports_the_tokens_in_the_form_of_the_vendor(provider: str, path: str, count: Any) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": LONG}]}
    if provider == "gemini":
        body = {"contents": [{"role": "user", "parts": [{"text": LONG}]}]}
    else:
        body |= {"model": "gpt-4.1" if provider == "openai" else "claude-sonnet-5"}
    if provider == "anthropic":
        body |= {"max_tokens": 9}
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "anthropic-version": "2023-06-01"}
    server = SimulatorServer(load_simulators().named(provider), "a site", cache=PrefixCache())
    with SimulatorThread({"one": server}) as thread, httpx.Client(base_url=thread["one"].origin) as client:
        counts = [count(client.post(path, json=body, headers=headers).json()) for _ in range(2)]
    assert counts[0] == 0
    assert counts[1] >= 2048
