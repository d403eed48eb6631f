"""A plug-in as its author writes it, type-checked by `make types` and never run.

Acme speaks a small dialect of its own: one text in, one text out, in JSON or as server-sent events. The package
registers it with one line of its pyproject.toml:

    [project.entry-points."providers.adapters"]
    acme = "acme_assistant.adapter:ADAPTER"

Each `type: ignore` below is a mistake that the contract has to catch: mypy reports the ones that it doesn't need.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import assert_type

from providers.adapter import Adapter, Capabilities, KnowsModels, StreamParser, Target
from providers.auth import AuthScheme, Bearer, HeaderKey, Secret, apply
from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    Finished,
    FinishReason,
    Message,
    StreamEvent,
    SystemMessage,
    ToolMessage,
    Usage,
    UserMessage,
    text_of,
)
from providers.client import Client
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.reading.assembler import Assembler
from providers.reading.errors import by_status, error_object, failure
from providers.reading.event_stream import EventStreamParser
from providers.registry import check_adapter
from providers.sites import Availability, Residency, Site
from providers.territories import parse_places
from providers.wire import WireRequest, WireResponse

_FINISH: Mapping[str, FinishReason] = {"done": "stop", "cut": "length", "blocked": "content_filter"}
_NORWAY = parse_places(["NO"])
_SITES = {
    "oslo": Site(
        name="oslo",
        origin="https://api.acme.example",
        base_path="/v2",
        residency=Residency(stores=_NORWAY, processes=_NORWAY),
        availability=Availability(parse_places(["@EEA"]), published=True),
        api_key_env="ACME_API_KEY",
    )
}


@dataclass(frozen=True, slots=True)
class AcmeAdapter:
    """Acme's assistant: data only, no state, no I/O."""

    name: str
    auth: AuthScheme
    capabilities: Capabilities
    sites: Mapping[str, Site]
    models: Mapping[str, ModelFacts]

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`."""
        body: dict[str, object] = {"model": target.model, "lines": [_line(message) for message in request.messages]}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["limit"] = request.max_tokens
        body.update(target.pins)
        path = f"{target.base_path}/{'stream' if request.stream else 'answer'}"
        return WireRequest("POST", path, (("content-type", "application/json"),), json.dumps(body).encode())

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """See `providers.adapter.Adapter`."""
        try:
            body = json.loads(response.body)
        except ValueError:
            body = None
        text, word = (_text(body, "text"), _text(body, "ended")) if isinstance(body, dict) else ("", "")
        if not word:
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no text in the answer"))
        choice = Choice(AssistantMessage(text), _FINISH.get(word, "other"), raw_finish_reason=word)
        return ChatCompletion(_text(body, "id"), target.model, 0, (choice,), _usage(body))

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`."""
        assembler = Assembler(target.model)
        return EventStreamParser(assembler, lambda chunk, event: _read_chunk(assembler, chunk, event))

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`."""
        code = _text(error_object(response.body), "code")
        kind = FailureKind.CONTENT_FILTER if code == "unsafe" else by_status(response.status)
        return failure(response, kind, code=code)


def _line(message: Message) -> dict[str, str]:
    match message:
        case SystemMessage(content) | UserMessage(content):
            return {"from": "them", "text": text_of(content)}
        case AssistantMessage(content):
            return {"from": "me", "text": text_of(content)}
        case ToolMessage():
            raise UnsupportedFeature("tools", "Acme has no tools")


def _text(source: Mapping[str, object], key: str) -> str:
    value = source.get(key)
    return value if isinstance(value, str) else ""


def _usage(body: Mapping[str, object]) -> Usage | None:
    match body.get("counted"):
        case {"in": int(prompt), "out": int(completion)}:
            return Usage(prompt, completion)
        case _:
            return None


def _read_chunk(assembler: Assembler, chunk: Mapping[str, object], event: str) -> None:
    if event == "error":
        assembler.fail(Failure(FailureKind.UNAVAILABLE, "Acme broke off", code=_text(chunk, "code")))
        return
    assembler.identify(id=_text(chunk, "id"))
    assembler.text(_text(chunk, "text"))
    if usage := _usage(chunk):
        assembler.usage(usage)
    if word := _text(chunk, "ended"):
        assembler.finish(_FINISH.get(word, "other"), raw=word)


ADAPTER = AcmeAdapter(
    name="acme",
    auth=HeaderKey("x-acme-key"),
    capabilities=Capabilities(features=frozenset(), parameters=frozenset({"temperature", "max_tokens"})),
    sites=_SITES,
    models={"acme-*": ModelFacts(context_tokens=32_000)},
)

# --- guarantees of the contract -------------------------------------------------------------------

as_adapter: Adapter = ADAPTER
knows_models: KnowsModels = ADAPTER
assert_type(check_adapter(object()), Adapter)


def a_parser_is_one(parser: StreamParser) -> None:
    """Bytes in, events out, at once."""
    assert_type(parser.feed(b""), tuple[StreamEvent, ...])
    assert_type(parser.close(), tuple[StreamEvent, ...])


def a_key_is_put_on_by_the_library(wire: WireRequest, key: str) -> WireRequest:
    """The adapter never sees it."""
    apply(ADAPTER.auth, wire, "https://api.acme.example", key, 0.0)  # type: ignore[arg-type]  # a text is not a Secret
    return apply(ADAPTER.auth, wire, "https://api.acme.example", Secret(key), 0.0)


async def a_client_speaks_through_it(client: Client, request: ChatRequest) -> str | None:
    """Whole or in pieces."""
    stream = client.stream(request)
    assert_type(stream, AsyncIterator[StreamEvent])
    async for event in stream:
        if isinstance(event, Finished):
            break
    completion = await client.chat(request)
    assert_type(completion, ChatCompletion)
    return text_of(completion.choices[0].message.content)


# --- mistakes that the types catch ----------------------------------------------------------------


class Waiting(AcmeAdapter):
    """An adapter may not wait."""

    async def parse_response(  # type: ignore[override]
        self, response: WireResponse, target: Target
    ) -> ChatCompletion:
        raise NotImplementedError


class Forgetful:
    """It can ask, and not read the answer."""

    name = "forgetful"
    auth = Bearer()
    capabilities = Capabilities(frozenset(), frozenset())
    sites: Mapping[str, Site] = {}

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """All that it has."""
        raise NotImplementedError


waiting: Adapter = Waiting("waiting", Bearer(), ADAPTER.capabilities, {}, {})  # type: ignore[assignment]
forgetful: Adapter = Forgetful()  # type: ignore[assignment]
ADAPTER.name = "other"  # type: ignore[misc]  # an adapter is a value


def values_stay_as_they_are(request: ChatRequest, wire: WireRequest) -> None:
    """A request is shared by every attempt."""
    request.model = "other"  # type: ignore[misc]
    wire.headers += (("host", "evil.example"),)  # type: ignore[misc]
    Assembler("m").finish("eos")  # type: ignore[arg-type]  # a provider's own word is not a finish reason
    Failure("overloaded", "busy")  # type: ignore[arg-type]  # the kinds are a closed set
