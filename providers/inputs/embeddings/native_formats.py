"""Embeddings of APIs that are not OpenAI's: Gemini's, whose vectors have the order of the requests, and DashScope's.

Source: ai.google.dev, "Embeddings", and google-genai 3.4 (`BatchEmbedContentsResponse`); Alibaba Cloud Model Studio,
"Synchronous API details" of text embedding; read 2026-11-23.
"""

from __future__ import annotations

from urllib.parse import quote

from providers.adapter import Target
from providers.formats.azure import azure_path
from providers.inputs.embeddings.contract import EmbeddingFormat
from providers.inputs.embeddings.facts import EmbeddingFacts, VendorEmbeddings
from providers.inputs.embeddings.openai_format import OpenAIEmbeddings
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, vector_from_json
from providers.inputs.reading import JSON_HEADERS, counted, expect_some, in_order
from providers.json_values import as_list, as_map, dumps, read_map
from providers.reading.errors import error_object
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_PATH = "/services/embeddings/text-embedding/text-embedding"


def embeddings_of_vendor(vendor: VendorEmbeddings) -> EmbeddingFormat:
    """Return the wire format that the facts of a vendor name."""
    match vendor.form:
        case "batch":
            return GeminiEmbeddings(vendor)
        case "native":
            return DashScopeEmbeddings(vendor)
        case "by_deployment":
            return OpenAIEmbeddings(vendor, azure_path)
    return OpenAIEmbeddings(vendor)


class GeminiEmbeddings(Value, frozen=True):
    """`batchEmbedContents` of the Gemini Developer API. See `EmbeddingFormat`."""

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
        path = f"{target.base_path}/models/{quote(target.model, safe='')}:batchEmbedContents"
        return WireRequest("POST", path, JSON_HEADERS, dumps({"requests": requests}))

    def parse_response(self, response: WireResponse, target: Target) -> EmbeddingAnswer:
        """See `EmbeddingFormat`. Only newer models report a usage."""
        body = error_object(response.body)
        data = expect_some(as_list(body.get("embeddings")), "embeddings")
        vectors = tuple(vector_from_json(as_map(entry).get("values")) for entry in data)
        return EmbeddingAnswer(vectors, counted(read_map(body, "usageMetadata"), "promptTokenCount"))


class DashScopeEmbeddings(Value, frozen=True):
    """The embeddings of DashScope's native API. See `EmbeddingFormat`."""

    vendor: VendorEmbeddings

    def facts(self, model: str) -> EmbeddingFacts:
        return self.vendor.facts(model)

    def build_request(self, request: EmbeddingRequest, target: Target) -> WireRequest:
        parameters: dict[str, object] = {"output_type": "dense"}
        if request.dimensions is not None:
            parameters["dimension"] = request.dimensions
        parameters.update(self.vendor.fields(request.extra))
        body = {"model": target.model, "input": {"texts": list(request.inputs)}, "parameters": parameters}
        return WireRequest("POST", target.base_path + _PATH, JSON_HEADERS, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> EmbeddingAnswer:
        body = error_object(response.body)
        data = in_order(read_map(body, "output").get("embeddings"), "embeddings", "an embedding", "text_index")
        vectors = tuple(vector_from_json(entry.get("embedding")) for entry in data)
        return EmbeddingAnswer(vectors, counted(read_map(body, "usage"), "total_tokens"))
