"""Embeddings of DashScope's native API.

Source: Alibaba Cloud Model Studio, "Synchronous API details" of text embedding, read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.adapter import Target
from providers.chat import Usage
from providers.embeddings.contract import EmbeddingFacts
from providers.embeddings.facts import VendorEmbeddings
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Vector, vector_from_json
from providers.json_values import as_list, as_map, dumps, read_count, read_map
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_PATH = "/services/embeddings/text-embedding/text-embedding"
_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


class DashScopeEmbeddings(Value, frozen=True):
    """See `EmbeddingFormat`."""

    vendor: VendorEmbeddings

    def facts(self, model: str) -> EmbeddingFacts:
        return self.vendor.facts(model)

    def build_request(self, request: EmbeddingRequest, target: Target) -> WireRequest:
        parameters: dict[str, object] = {"output_type": "dense"}
        if request.dimensions is not None:
            parameters["dimension"] = request.dimensions
        parameters.update(self.vendor.fields(request.extra))
        body = {"model": target.model, "input": {"texts": list(request.inputs)}, "parameters": parameters}
        return WireRequest("POST", target.base_path + _PATH, _HEADERS, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> EmbeddingAnswer:
        body = error_object(response.body)
        data = as_list(read_map(body, "output").get("embeddings"))
        if not data:
            raise malformed("the answer has no embeddings")
        vectors: dict[int, Vector] = {}
        for entry in map(as_map, data):
            index = entry.get("text_index")
            if type(index) is not int or index in vectors or not 0 <= index < len(data):
                raise malformed("an embedding has no index, or one that is wrong")
            vectors[index] = vector_from_json(entry.get("embedding"))
        return EmbeddingAnswer(tuple(vectors[index] for index in range(len(data))), _usage(body))


def _usage(body: Mapping[str, object]) -> Usage | None:
    tokens = read_count(read_map(body, "usage"), "total_tokens")
    return Usage(prompt_tokens=tokens) if tokens else None
