"""Embeddings of the Gemini Developer API: `batchEmbedContents`, whose vectors have the order of the requests.

Source: ai.google.dev, "Embeddings", and google-genai 3.4 (`BatchEmbedContentsResponse`), read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from providers.adapter import Target
from providers.chat import Usage
from providers.embeddings.contract import EmbeddingFacts
from providers.embeddings.facts import VendorEmbeddings
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, vector_from_json
from providers.json_values import as_list, as_map, dumps, read_count, read_map
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_METHOD = "batchEmbedContents"
_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


class GeminiEmbeddings(Value, frozen=True):
    """See `EmbeddingFormat`."""

    vendor: VendorEmbeddings

    def facts(self, model: str) -> EmbeddingFacts:
        return self.vendor.facts(model)

    def build_request(self, request: EmbeddingRequest, target: Target) -> WireRequest:
        more: dict[str, object] = dict(self.vendor.fields(request.extra))
        if request.dimensions is not None:
            more["outputDimensionality"] = request.dimensions
        requests = [
            {"model": f"models/{target.model}", "content": {"parts": [{"text": text}]}, **more}
            for text in request.inputs
        ]
        path = f"{target.base_path}/models/{quote(target.model, safe='')}:{_METHOD}"
        return WireRequest("POST", path, _HEADERS, dumps({"requests": requests}))

    def parse_response(self, response: WireResponse, target: Target) -> EmbeddingAnswer:
        body = error_object(response.body)
        data = as_list(body.get("embeddings"))
        if not data:
            raise malformed("the answer has no embeddings")
        return EmbeddingAnswer(tuple(vector_from_json(as_map(entry).get("values")) for entry in data), _usage(body))


def _usage(body: Mapping[str, object]) -> Usage | None:
    """Return the usage. Only newer models report one."""
    tokens = read_count(read_map(body, "usageMetadata"), "promptTokenCount")
    return Usage(prompt_tokens=tokens) if tokens else None
