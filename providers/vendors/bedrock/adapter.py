"""The adapter for Amazon Bedrock's Converse and ConverseStream: one format for the models of many makers.

The host and the model's name decide where a request is computed: the prefix `eu.` allows any region in Europe,
`global.` any region. `request` writes requests; `answer` and `errors` read answers.

Source: botocore 1.44.5 and docs.aws.amazon.com, read 2026-11-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, AwsSigV4
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import Failure, UnsupportedFeature
from providers.formats.claude import thinking_tokens
from providers.formats.fitting import fit
from providers.json_values import dumps, read_str
from providers.matching.requirements import CACHE_CONTROL, FEATURES
from providers.reading.errors import error_object
from providers.reading.json_object import JSON_OBJECT
from providers.vendors.bedrock.answer import ConverseStreamParser, exception_failure, read_completion
from providers.vendors.bedrock.event_stream import CONTENT_TYPE
from providers.vendors.bedrock.request import encode_body
from providers.wire import WireRequest, WireResponse

_FEATURES = FEATURES - {"audio", "image_url", "n", "logprobs"}
_PARAMETERS = frozenset(
    {"temperature", "top_p", "stop", "reasoning_effort", "max_tokens", "strict_tools", CACHE_CONTROL}
)


@dataclass(frozen=True, slots=True)
class BedrockAdapter(FactsAdapter):
    """The adapter for Converse, with an AWS key pair or an API key."""

    facts_package: ClassVar[str] = "providers.vendors.bedrock"
    name: str = "bedrock"
    # The features and parameters that the format can express. No model supports all of them.
    capabilities: ClassVar[Capabilities] = Capabilities(_FEATURES, _PARAMETERS)
    # The API has no JSON mode without a schema.
    emulated: ClassVar[frozenset[str]] = frozenset({JSON_OBJECT})
    auth: ClassVar[AuthScheme] = AwsSigV4("bedrock")
    cache_mark: ClassVar[str] = "cachePoint"

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        request, changed = fit(request, self.takes)
        model = quote(target.model, safe="")
        if not model.strip("."):
            raise UnsupportedFeature("model", f"the model's name {target.model!r} must not consist of dots only")
        body, is_lost = encode_body(request, target)
        return WireRequest(
            method="POST",
            path=f"{target.base_path}/{model}/{'converse-stream' if request.stream else 'converse'}",
            headers=(
                ("content-type", "application/json"),
                ("accept", CONTENT_TYPE if request.stream else "application/json"),
            ),
            body=dumps(body),
            changed=changed | {CACHE_CONTROL} if is_lost else changed,
        )

    def thinking_tokens(self, request: ChatRequest, target: Target) -> int:
        return thinking_tokens(request, target)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        return read_completion(response, target)

    def stream_parser(self, target: Target) -> StreamParser:
        return ConverseStreamParser(target)

    def classify_error(self, response: WireResponse) -> Failure:
        body = error_object(response.body)
        name = response.headers.get("x-amzn-errortype") or read_str(body, "__type") or ""
        return exception_failure(name, body, response)


ADAPTER = BedrockAdapter()
