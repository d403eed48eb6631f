"""Print the requests that providers get in the turns of random conversations, one line of JSON for each request.

    python -m tests.gateway.prompt_bytes SEED CONVERSATIONS

A line has the conversation, the dialect of the client, the deployment, the turn and the body. Nothing but the seed may
change it: not the process, and not `PYTHONHASHSEED`.
"""

import asyncio
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import httpx

from gateway.assembly.application import Gateway
from gateway.execution.transport import UpstreamResponse
from gateway.execution.upstream_request import UpstreamRequest
from gateway.telemetry.log import configure
from providers import chat
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from tests.kit.configs import Config, table_of
from tests.kit.dialect_clients import DIALECT_CLIENTS

DEPLOYMENTS = {
    "openai": ("openai", "gpt-4.1", "/v1"),
    "reasoning": ("openai", "gpt-6-luna", "/v1"),
    "anthropic": ("anthropic", "claude-sonnet-5", "/v1"),
    "bedrock": ("bedrock", "anthropic.claude-sonnet-5", ""),
    "gemini": ("gemini", "gemini-3.8-flash", "/v1beta"),
    "dashscope": ("dashscope", "qwen3-max", "/api/v1"),
    "mistral": ("mistral", "mistral-medium-3", "/v1"),
    "moonshot": ("moonshot", "kimi-k3", "/v1"),
    "deepseek": ("deepseek", "deepseek-flash", "/v1"),
    "openrouter": ("openrouter", "anthropic/claude-sonnet-5", "/api/v1"),
    "vllm": ("vllm", "m", "/v1"),
    "house": ("openai-compatible", "m", "/v1"),
}
"""The wire formats: by deployment the provider, its model and the base path."""
_REGION = {
    "territories": ["*"],
    "boundary": ["*"],
    "labels": [{"name": "house", "text": {"en": "Answers may be wrong."}}],
    "profile": {"locale": "en", "timezone": "Europe/Oslo", "units": "metric", "tone": "Be brief."},
}
_PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_WORDS = "the a look file test branch error names weather Oslo 你好 größe build reads fast slow".split()
_MOST_TURNS, _BUDGET = 4, 9000
_KEYS = {"all": "gk-prompt-bytes", "private": "gk-private-bytes", "capped": "gk-capped-bytes"}
"""The key of each client: of two regions, and of a budget."""
_REDACTED, CAPPED = "redacted-", "capped-"
RESUMED = "resumed"
"""The assistant whose first deployment breaks its answer off."""
BROKEN = "The answer that breaks off"
PREFILLED = "The answer that the client begins"
"""The last message of some turns. In the next turn, the answer of the model stands in its place."""


class _Broken(UpstreamResponse):
    """A stream that breaks off after its first words."""

    def __init__(self) -> None:
        self.status, self.headers, self.received_at = 200, {"content-type": "text/event-stream"}, 0.0
        chunk = {"id": "a", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": BROKEN}}]}
        self._pieces = [f"data: {json.dumps(chunk)}\n\n".encode()]

    async def read(self, _: object = None) -> bytes:
        if self._pieces:
            return self._pieces.pop()
        raise ProviderFailed(Failure(FailureKind.INTERRUPTED, "the connection broke"))

    async def close(self) -> None:
        pass


class _Captured:
    """A transport that keeps the bodies, and answers each request with a refusal that shows nothing about a provider.

    Attributes:
        breaks: The first request of a turn gets an answer that breaks off.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.breaks = False

    async def send(self, request: UpstreamRequest) -> Any:
        """See `Transport`."""
        self.bodies.append(request.body)
        if self.breaks and len(self.bodies) == 1:
            return _Broken()
        raise ProviderFailed(Failure(FailureKind.INVALID_REQUEST, "kept"))

    async def aclose(self) -> None:
        """See `Transport`."""


def _config() -> Config:
    deployments = {
        name: {
            "provider": provider,
            "model": model,
            "endpoint": f"https://llm.example.com{path}",
            "stores": "any",
            "processes": "any",
            "api_key": "${KEY}",
            "capabilities": ["tools", "vision"],
            "fold": False,
            "accept_ended": True,
        }
        for name, (provider, model, path) in DEPLOYMENTS.items()
    }
    assistants = {name: {"routes": {"all": [name, "openai"][: 1 + (name == "house")]}} for name in DEPLOYMENTS}
    assistants[RESUMED] = {"routes": {"all": ["house", "mistral"]}, "resume": True}
    barrier = {"hand_off": {"when": ["asked"], "share": "conversation"}}
    deployments["behind"] = {**deployments["openai"], "consent": {"recipient": "OpenAI", "mode": "per_request"}}
    assistants["barrier"] = {"routes": {"all": ["house", barrier, "behind"]}}
    for name in ("openai", "anthropic", "gemini"):
        assistants[f"{_REDACTED}{name}"] = {"routes": {"private": [name]}}
        assistants[f"{CAPPED}{name}"] = {"routes": {"all": [name]}}
    clients: dict[str, Any] = {
        name: {"keys": [f"sha256:{sha256(key.encode()).hexdigest()}"], "region": "all"} for name, key in _KEYS.items()
    }
    clients["private"]["region"] = "private"
    clients["capped"]["budgets"] = [{"tokens": _BUDGET, "per": "month"}]
    return Config(
        {
            "version": 1,
            "cell": {"territory": "US"},
            "secrets": {"consent": "${SECRET}", "identity": "${SECRET}"},
            "redactions": {"personal": {"kinds": ["email"], "terms": ["Oslo"], "media": "pass"}},
            "regions": {"all": _REGION, "private": {**_REGION, "territories": ["NO"], "redact": "personal"}},
            "clients": clients,
            "resilience": {"breaker": "off"},
            "assistants": assistants,
            "deployments": deployments,
        }
    )


def _words(draw: random.Random, most: int = 12) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(draw.randint(1, most)))


def _schema(draw: random.Random) -> dict[str, Any]:
    names = draw.sample(["path", "line", "text", "deep", "when"], draw.randint(1, 4))
    properties = {name: {"type": draw.choice(["string", "integer", "boolean"])} for name in names}
    return {"type": "object", "properties": properties, "required": sorted(draw.sample(names, 1))}


def conversation(draw: random.Random) -> Iterator[chat.ChatRequest]:
    """Yield the turns of a random conversation, each with all before it."""
    names = draw.sample(["look", "run", "write", "weather"], draw.randint(0, 3))
    tools = tuple(chat.Tool(name, _words(draw), _schema(draw)) for name in names)
    messages: list[chat.Message] = [chat.SystemMessage(_words(draw)) for _ in range(draw.randint(0, 2))]
    options: dict[str, Any] = {"max_tokens": 900} if draw.random() < 0.5 else {}
    for turn in range(_MOST_TURNS):
        # The first value that a redaction finds adds a system message, so it is in the first turn.
        said: Any = _words(draw) if turn else f"{_words(draw)} ada@example.com"
        if draw.random() < 0.25:
            said = (chat.TextPart(said), chat.ImagePart(_PICTURE))
        if turn < 2 and draw.random() < 0.5:
            texts = said if isinstance(said, tuple) else (chat.TextPart(said),)
            said = (replace(texts[0], cache="5m"), *texts[1:])
        messages.append(chat.UserMessage(said))
        yield chat.ChatRequest("assistant", tuple(messages), tools=tools, **options)
        if tools and draw.random() < 0.6:
            calls = tuple(
                chat.ToolCall(f"call_{turn}{at}", tool.name, json.dumps({"path": _words(draw, 2), "line": at}))
                for at, tool in enumerate(draw.sample(tools, draw.randint(1, len(tools))))
            )
            messages.append(chat.AssistantMessage(draw.choice([None, _words(draw)]), tool_calls=calls))
            messages += [chat.ToolMessage(call.id, _words(draw)) for call in calls]
            yield chat.ChatRequest("assistant", tuple(messages), tools=tools, **options)
        if turn % 2:
            yield chat.ChatRequest("assistant", (*messages, chat.AssistantMessage(PREFILLED)), tools=tools, **options)
        label = draw.choice(["", "Answers may be wrong.\n\n"])
        messages.append(chat.AssistantMessage(f"{label}{_words(draw)}"))


def _talk(messages: tuple[chat.Message, ...]) -> tuple[chat.Message, ...]:
    """Return the messages without calls of tools, because such an answer is not continued."""
    return tuple(
        it
        for it in messages
        if not isinstance(it, chat.ToolMessage) and not (isinstance(it, chat.AssistantMessage) and it.tool_calls)
    )


def _client_of(assistant: str) -> str:
    return "private" if assistant.startswith(_REDACTED) else "capped" if assistant.startswith(CAPPED) else "all"


async def requests(seed: int, conversations: int, state_dir: Path) -> list[dict[str, Any]]:
    """Return the requests that providers get. `state_dir` gets the accounts of the budget."""
    environ = {"KEY": "k:k", "SECRET": "s" * 40}
    config, transport = table_of(_config(), environ), _Captured()
    gateway, sent = Gateway(config, transport, state_dir=state_dir, consent_key=b"k" * 32), []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
        for number in range(conversations):
            turns = list(conversation(random.Random(f"{seed} {number}")))
            stream = number % 2 == 1
            for dialect in DIALECT_CLIENTS.values():
                for name in config.assistants:
                    target = replace(dialect.target, model=name)
                    speaker = replace(dialect, target=target)
                    for turn, request in enumerate(turns):
                        transport.breaks = name == RESUMED
                        options: dict[str, Any] = {"model": name, "stream": stream}
                        if name.startswith(CAPPED):
                            options["reasoning_effort"] = "low"
                        if transport.breaks:
                            options = {"model": name, "stream": True, "tools": (), "messages": _talk(request.messages)}
                        try:
                            wire = speaker.request(chat.change_request(request, **options))
                        except UnsupportedFeature:
                            continue
                        transport.bodies.clear()
                        path = f"{wire.path}?{urlencode(wire.query)}" if wire.query else wire.path
                        headers = {
                            "content-type": "application/json",
                            "authorization": f"Bearer {_KEYS[_client_of(name)]}",
                            "x-session-id": "s-1",
                        }
                        await client.post(path, content=wire.body, headers=headers)
                        for at, body in enumerate(transport.bodies):
                            place = {"conversation": number, "dialect": dialect.name, "deployment": f"{name} {at}"}
                            sent.append({**place, "turn": turn, "body": body.decode()})
    return sent


if __name__ == "__main__":
    configure(level="error", stream=io.StringIO())
    with TemporaryDirectory() as folder:
        found = asyncio.run(requests(int(sys.argv[1]), int(sys.argv[2]), Path(folder)))
    for one in found:
        print(json.dumps(one))
