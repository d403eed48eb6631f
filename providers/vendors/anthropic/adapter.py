"""The adapter for Anthropic's Messages API: `POST /v1/messages`, as one JSON body or as server-sent events.

`request` writes requests; `formats.claude_answer` reads the messages and events of answers. `formats.reasoning_state`
carries thoughts to the next turn.

Source: anthropic 2.10.0 and platform.claude.com, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, HeaderKey
from providers.catalogue import FactsFile
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest, Tool
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.claude_answer import MessageReader
from providers.formats.fitting import fit
from providers.formats.request_options import SAFETY_IDENTIFIER
from providers.json_values import dumps, read_str, with_exact_integers
from providers.matching.requirements import ATTRIBUTION, CACHE_CONTROL, FEATURES
from providers.reading.errors import IN_A_STREAM, error_object, failure, load_rules
from providers.reading.errors import classify as classify_by_rules
from providers.reading.event_stream import EventStreamParser
from providers.reading.folding import fold
from providers.reading.json_object import JSON_OBJECT
from providers.vendors.anthropic.request import encode_body, version_of
from providers.wire import WireRequest, WireResponse

_FEATURES = FEATURES - {"audio", "n", "logprobs"}
_PARAMETERS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "parallel_tool_calls",
        "reasoning_effort",
        "user",
        SAFETY_IDENTIFIER,
        "max_tokens",
        "strict_tools",
        CACHE_CONTROL,
        ATTRIBUTION,
    }
)


_FACTS = FactsFile("providers.vendors.anthropic", "anthropic")
_WITH_MEMORY = ("anthropic-beta", "context-management-2025-06-27")
"""Claude's memory tool is a part of this beta. Source: platform.claude.com, memory tool (2026-11-20)."""
_OF_ALIBABA = FactsFile("providers.vendors.dashscope", "dashscope")


def _classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure of an error. Alibaba's Anthropic-compatible endpoint has the form of its native API."""
    is_native = not body.get("error") and read_str(body, "code")
    return classify_by_rules(body, response, load_rules(_OF_ALIBABA if is_native else _FACTS))


def _is_memory(tool: Tool) -> bool:
    return tool.own is not None and str(tool.own.get("type")).startswith("memory_")


def _reader_of(target: Target) -> MessageReader:
    return MessageReader(target, partial(_classify, response=IN_A_STREAM))


@dataclass(frozen=True, slots=True)
class AnthropicAdapter(FactsAdapter):
    """The adapter for the Messages API."""

    facts_package: ClassVar[str] = "providers.vendors.anthropic"
    name: str = "anthropic"

    @property
    def capabilities(self) -> Capabilities:
        """The features and parameters that the format can express. No model supports all of them."""
        return Capabilities(_FEATURES, _PARAMETERS)

    @property
    def emulated(self) -> frozenset[str]:
        """See `providers.adapter.EmulatesFeatures`. The API has no JSON mode without a schema."""
        return frozenset({JSON_OBJECT})

    @property
    def auth(self) -> AuthScheme:
        """See `providers.adapter.Adapter`."""
        return HeaderKey("x-api-key")

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`."""
        request, changed = fit(request, self.takes)
        body = encode_body(request, target)
        headers = (
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if request.stream else "application/json"),
            ("anthropic-version", version_of(body)),
            *([_WITH_MEMORY] if any(map(_is_memory, request.tools)) else []),
        )
        return WireRequest("POST", f"{target.base_path}/messages", headers, dumps(body), changed=changed)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """See `providers.adapter.Adapter`."""
        body = error_object(response.body)
        if body.get("error"):
            raise ProviderFailed(_classify(body, response))
        if body.get("type") != "message" or not isinstance(body.get("content"), list):
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no message in the answer"))
        reader = _reader_of(target)
        # Here a call's arguments are part of the answer's JSON. Their numbers must not be rounded.
        reader.read_message(with_exact_integers(body, response.body) if b"tool_use" in response.body else body)
        return fold(reader.assembler.take())

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`."""
        reader = _reader_of(target)
        return EventStreamParser(reader.assembler, reader.read_event)

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`."""
        return _classify(error_object(response.body), response)


ADAPTER = AnthropicAdapter()
