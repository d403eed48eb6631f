"""The adapter for the native API of Alibaba DashScope (Model Studio): text generation and multimodal generation.

Each model has exactly one of the two paths. The catalogue (`api`) decides which one; it is never tried out.

Source: Alibaba Cloud Model Studio API reference (DashScope) and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, Bearer
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import Failure
from providers.json_values import dumps
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.reading.errors import error_object
from providers.reading.event_stream import EventStreamParser
from providers.stated_uses import StatedUses
from providers.vendors.dashscope.answer import DashScopeReader, dashscope_failure, read_completion
from providers.vendors.dashscope.request import encode_body, is_multimodal
from providers.wire import WireRequest, WireResponse

_TEXT_PATH = "/services/aigc/text-generation/generation"
_MULTIMODAL_PATH = "/services/aigc/multimodal-generation/generation"
_WHOLE = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM = (("content-type", "application/json"), ("accept", "text/event-stream"), ("x-dashscope-sse", "enable"))
_FEATURES = FEATURES - {"tool_choice_required", "file", "prefill"}
_UNKNOWN = {"frequency_penalty", "logit_bias", "user", "strict_tools", "message_name", "image_detail"}
_PARAMETERS = (PARAMETERS - _UNKNOWN) | {
    "top_k",
    "repetition_penalty",
    "enable_thinking",
    "thinking_budget",
    "vl_high_resolution_images",
}


@dataclass(frozen=True, slots=True)
class DashScopeAdapter(StatedUses, FactsAdapter):
    """The adapter for DashScope's native wire format."""

    facts_package: ClassVar[str] = "providers.vendors.dashscope"
    name: str = "dashscope"
    # The features and parameters that the two paths can express together.
    capabilities: ClassVar[Capabilities] = Capabilities(_FEATURES, _PARAMETERS, limits_thinking=False)
    auth: ClassVar[AuthScheme] = Bearer()

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`. May request a stream although the client wants one JSON body."""
        body, streams, changed = encode_body(request, target)
        path = _MULTIMODAL_PATH if is_multimodal(target.facts) else _TEXT_PATH
        # Only the headers request a stream; the body has no field for it.
        headers = _STREAM if streams else _WHOLE
        return WireRequest("POST", target.base_path + path, headers, dumps(body), changed=changed)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        return read_completion(response, target.model)

    def stream_parser(self, target: Target) -> StreamParser:
        reader = DashScopeReader(target.model)
        return EventStreamParser(reader.assembler, reader.read_event, read_comment=reader.read_comment)

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`. The body may be an event stream although its content type is JSON."""
        return dashscope_failure(error_object(response.body), response)


ADAPTER = DashScopeAdapter()
