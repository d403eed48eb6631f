"""The adapters for Google Gemini: `generateContent`, and `streamGenerateContent` as server-sent events.

The Developer API and Vertex AI have the same format. Hosts, paths and credentials differ.

`request` writes requests; `answer` reads answers and errors. `formats.reasoning_state` carries signatures to the next
turn.

Source: google-genai 3.3.0 and ai.google.dev, read 2026-11-20.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, GoogleAccount, HeaderKey
from providers.catalogue.facts_adapter import FactsAdapter
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import Failure
from providers.formats.fitting import fit
from providers.json_values import dumps
from providers.matching.requirements import FEATURES
from providers.reading.assembler import Assembler
from providers.reading.errors import error_object
from providers.stated_uses import StatedUses
from providers.vendors.gemini.answer import ChunkParser, ChunkReader, gemini_failure, read_completion
from providers.vendors.gemini.request import encode_body
from providers.wire import WireRequest, WireResponse

_PARAMETERS = frozenset(
    "temperature top_p top_k presence_penalty frequency_penalty seed stop max_tokens reasoning_effort".split()
)
_BYPASS = base64.b64encode(b"skip_thought_signature_validator").decode()


@dataclass(frozen=True, slots=True)
class GeminiAdapter(StatedUses, FactsAdapter):
    """The adapter for the native wire format."""

    facts_package: ClassVar[str] = "providers.vendors.gemini"
    # All features, and the parameters that the format has. No model supports all of them.
    capabilities: ClassVar[Capabilities] = Capabilities(FEATURES, _PARAMETERS)
    name: str
    auth: AuthScheme
    bypass_signature: str
    """The thought signature that is sent for a call that another model made. Google documents the text
    `skip_thought_signature_validator`. The field is of the type bytes, so its base64 is sent; some clients send the
    text itself."""
    publisher: str = ""
    """The part of the path before the model, if the host has models of several publishers."""

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        request, changed = fit(request, self.takes)
        method = "streamGenerateContent" if request.stream else "generateContent"
        accept = "text/event-stream" if request.stream else "application/json"
        return WireRequest(
            method="POST",
            path=f"{target.base_path}{self.publisher}/models/{_quoted(target.model)}:{method}",
            headers=(("content-type", "application/json"), ("accept", accept)),
            body=dumps(encode_body(request, target, self.bypass_signature)),
            query=(("alt", "sse"),) if request.stream else (),
            changed=changed,
        )

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        return read_completion(response, target.model)

    def stream_parser(self, target: Target) -> StreamParser:
        assembler = Assembler(target.model)
        reader = ChunkReader(assembler, target.model)
        return ChunkParser(assembler, reader.read, read_run=reader.read_run)

    def classify_error(self, response: WireResponse) -> Failure:
        return gemini_failure(error_object(response.body), response)


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return quote(model, safe="")


ADAPTER = GeminiAdapter("gemini", HeaderKey("x-goog-api-key"), _BYPASS)
VERTEX = GeminiAdapter("vertex", GoogleAccount(), _BYPASS, "/publishers/google")
