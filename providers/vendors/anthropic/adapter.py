"""The adapters for Anthropic's Messages API: `POST /v1/messages`, as one JSON body or as server-sent events.

Claude on Google's Vertex AI has the same API at Google's hosts, with Google's credentials. There the path has the
model, with `:rawPredict` or `:streamRawPredict` as the method, and the body has the API version.

`request` writes requests; `formats.claude_answer` reads the messages and events of answers. `formats.reasoning_state`
carries thoughts to the next turn.

Source: anthropic 2.10.0 and platform.claude.com, read 2026-11-20. For Vertex AI: platform.claude.com
(claude-on-vertex-ai), docs.cloud.google.com (count-tokens) and anthropic 2.14.0 (`lib/vertex`), read 2026-11-27.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar
from urllib.parse import quote

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, GoogleAccount, HeaderKey
from providers.catalogue import FactsFile
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest, ImagePart
from providers.chat.messages import is_data_uri
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.formats.claude import thinking_tokens
from providers.formats.claude_answer import MessageReader
from providers.formats.fitting import fit
from providers.formats.request_options import SAFETY_IDENTIFIER
from providers.json_values import as_list, as_map, dumps, read_str, with_exact_integers
from providers.matching.requirements import ATTRIBUTION, CACHE_CONTROL, FEATURES
from providers.reading.errors import IN_A_STREAM, error_object, failure, load_rules
from providers.reading.errors import classify as classify_by_rules
from providers.reading.event_stream import EventStreamParser
from providers.reading.folding import fold
from providers.reading.json_object import JSON_OBJECT
from providers.value import replace
from providers.vendors.anthropic.request import encode_body, version_of
from providers.wire import WireRequest, WireResponse

_FEATURES = FEATURES - {"audio", "n", "logprobs"}
_PARAMETERS = frozenset(
    "temperature top_p top_k stop parallel_tool_calls reasoning_effort user max_tokens strict_tools".split()
) | {SAFETY_IDENTIFIER, CACHE_CONTROL, ATTRIBUTION}

_WITH_MEMORY = ("anthropic-beta", "context-management-2025-06-27")
"""Claude's memory tool is a part of this beta. Source: platform.claude.com, memory tool (2026-11-20)."""
_VERTEX_VERSION = "vertex-2023-10-16"
"""The value of `anthropic_version`. It accepts sampling parameters."""
_COUNTED = ("system", "messages", "tools", "tool_choice", "thinking", "output_config")
"""The members of a request that a count may have. Source: anthropic 2.14.0 (MessageCountTokensParams)."""
_VERSIONED = "@"
_OF_ALIBABA = FactsFile("providers.vendors.dashscope", "dashscope")


def _classify(body: Mapping[str, object], response: WireResponse, facts: FactsFile) -> Failure:
    """Return the failure of an error. Alibaba's Anthropic-compatible endpoint has the form of its native API."""
    is_native = not body.get("error") and read_str(body, "code")
    return classify_by_rules(body, response, load_rules(_OF_ALIBABA if is_native else facts))


def _call(path: str, request: ChatRequest, body: Mapping[str, object], *headers: tuple[str, str]) -> WireRequest:
    """Return the request with this body, and with the headers that switch on what it uses."""
    accept = "text/event-stream" if request.stream else "application/json"
    own_types = [str(tool.own.get("type")) for tool in request.tools if tool.own is not None]
    betas = [_WITH_MEMORY] if any(kind.startswith("memory_") for kind in own_types) else []
    sent = (("content-type", "application/json"), ("accept", accept), *headers, *betas)
    return WireRequest("POST", path, sent, dumps(body))


def _reader_of(target: Target, facts: FactsFile) -> MessageReader:
    return MessageReader(target, partial(_classify, response=IN_A_STREAM, facts=facts))


@dataclass(frozen=True, slots=True)
class AnthropicAdapter(FactsAdapter):
    """The adapter for the Messages API."""

    facts_package: ClassVar[str] = "providers.vendors.anthropic"
    name: str = "anthropic"
    # The features and parameters that the format can express. No model supports all of them.
    capabilities: ClassVar[Capabilities] = Capabilities(_FEATURES, _PARAMETERS)
    # The API has no JSON mode without a schema.
    emulated: ClassVar[frozenset[str]] = frozenset({JSON_OBJECT})
    auth: ClassVar[AuthScheme] = HeaderKey("x-api-key")

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        request, changed = fit(request, self.takes)
        body = encode_body(request, target)
        version = ("anthropic-version", version_of(body))
        return replace(_call(f"{target.base_path}/messages", request, body, version), changed=changed)

    def thinking_tokens(self, request: ChatRequest, target: Target) -> int:
        return thinking_tokens(request, target)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        body = error_object(response.body)
        if body.get("error"):
            raise ProviderFailed(_classify(body, response, self.facts))
        if body.get("type") != "message" or not isinstance(body.get("content"), list):
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no message in the answer"))
        reader = _reader_of(target, self.facts)
        # Here a call's arguments are part of the answer's JSON. Their numbers must not be rounded.
        reader.read_message(with_exact_integers(body, response.body, b"tool_use"))
        return fold(reader.assembler.take())

    def stream_parser(self, target: Target) -> StreamParser:
        reader = _reader_of(target, self.facts)
        return EventStreamParser(reader.assembler, reader.read_event)

    def classify_error(self, response: WireResponse) -> Failure:
        return _classify(error_object(response.body), response, self.facts)


@dataclass(frozen=True, slots=True)
class AnthropicVertexAdapter(AnthropicAdapter):
    """See `AnthropicAdapter`. No page of Google's or Anthropic's confirms that sources by URL are fetched here."""

    name: str = "anthropic-vertex"
    capabilities: ClassVar[Capabilities] = Capabilities(_FEATURES - {"image_url"}, _PARAMETERS - {ATTRIBUTION})
    auth: ClassVar[AuthScheme] = GoogleAccount()

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        request, changed = fit(request, self.takes)
        body = _encoded(request, target)
        for name in ("model", "inference_geo"):
            body.pop(name, None)
        body["anthropic_version"] = _VERTEX_VERSION
        method = "streamRawPredict" if request.stream else "rawPredict"
        path = _path(target, f"{quote(target.model, safe=_VERSIONED)}:{method}")
        return replace(_call(path, request, body), changed=changed)

    def count_request(self, request: ChatRequest, target: Target) -> WireRequest | None:
        """See `providers.adapter.CountsTokens`. Few locations count; the server of an operator only if it is stated.

        The model has no version (BerriAI/litellm#25798), and the content no marks of a cache, which are refused
        (anthropics/claude-code#2569).
        """
        if not target.counts:
            return None
        request, _ = fit(replace(request, stream=False), self.takes)
        whole = _encoded(request, target)
        body: dict[str, object] = {name: _unmarked(whole[name]) for name in _COUNTED if name in whole}
        body["model"] = target.model.partition(_VERSIONED)[0]
        body["anthropic_version"] = _VERTEX_VERSION
        return _call(_path(target, "count-tokens:rawPredict"), request, body)


def _encoded(request: ChatRequest, target: Target) -> dict[str, object]:
    """Return the body as for Anthropic's own API. Raises UnsupportedFeature, also for an image by URL."""
    contents = [message.content for message in request.messages if isinstance(message.content, tuple)]
    if any(isinstance(part, ImagePart) and not is_data_uri(part.url) for content in contents for part in content):
        raise UnsupportedFeature("image_url", "the provider fetches no image by its URL: send the data of the image")
    return encode_body(request, target)


def _path(target: Target, call: str) -> str:
    return f"{target.base_path}/publishers/anthropic/models/{call}"


def _unmarked(value: object) -> object:
    """Return blocks, and the blocks in their content, without `cache_control`. Schemas and inputs stay as they are."""
    if isinstance(value, list):
        return [_unmarked(block) for block in as_list(value)]
    if not isinstance(value, dict):
        return value
    return {
        name: _unmarked(member) if name == "content" else member
        for name, member in as_map(value).items()
        if name != "cache_control"
    }


ADAPTER = AnthropicAdapter()
VERTEX = AnthropicVertexAdapter()
