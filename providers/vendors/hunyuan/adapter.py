"""The adapter for Tencent Hunyuan's native API: ChatCompletions of Tencent Cloud API 3.0, signed with TC3-HMAC-SHA256.

With `stop`, the vendor's text ends after the stop sequence that matched. The reader of the answer removes it.

Source: Tencent Cloud API 3.0 and tencentcloud-sdk-python-hunyuan 3.1.180, read 2026-11-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, TencentSignature
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import Failure
from providers.json_values import dumps
from providers.reading.errors import error_object
from providers.reading.event_stream import EventStreamParser
from providers.vendors.hunyuan.answer import HunyuanReader, hunyuan_failure, read_completion
from providers.vendors.hunyuan.request import dialect, encode_body
from providers.wire import WireRequest, WireResponse

_HEADERS = (
    ("content-type", "application/json"),
    ("x-tc-action", "ChatCompletions"),
    ("x-tc-version", "2023-09-01"),
    ("x-tc-language", "en-US"),
)


@dataclass(frozen=True, slots=True)
class HunyuanAdapter(FactsAdapter):
    """The adapter for Hunyuan's native wire format."""

    facts_package: ClassVar[str] = "providers.vendors.hunyuan"
    name: str = "hunyuan"
    ends_behind_stop: ClassVar[bool] = True  # according to the vendor, this may change
    auth: ClassVar[AuthScheme] = TencentSignature("hunyuan")

    @property
    def capabilities(self) -> Capabilities:
        """Text, images and tools. The API has no token limit and only one choice."""
        return dialect().capabilities

    @property
    def emulated(self) -> frozenset[str]:
        """See `providers.adapter.EmulatesFeatures`. The API has no JSON mode."""
        return dialect().emulated

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`. The signature covers the path `/`, the only one of the API."""
        body, changed = encode_body(request, target)
        return WireRequest("POST", f"{target.base_path}/", _HEADERS, dumps(body), changed=changed)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """See `providers.adapter.Adapter`."""
        return read_completion(response, target.model)

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`."""
        reader = HunyuanReader(target.model)
        return EventStreamParser(reader.assembler, reader.read_event)

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`."""
        return hunyuan_failure(error_object(response.body), response)


ADAPTER = HunyuanAdapter()
