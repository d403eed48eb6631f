"""The wire formats of embeddings: OpenAI's, for clients and for providers that speak it, Gemini's, and DashScope's.

The vectors of Gemini have the order of the requests.

Source: the official Python SDK 3.51 (`EmbeddingCreateParams`, `CreateEmbeddingResponse`), read 2026-11-20;
ai.google.dev, "Embeddings", and google-genai 3.4 (`BatchEmbedContentsResponse`); Alibaba Cloud Model Studio,
"Synchronous API details" of text embedding; read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias
from urllib.parse import quote

from providers.adapter import Target
from providers.failures import InvalidRequest
from providers.formats.request_options import azure_path
from providers.inputs.embeddings.contract import EmbeddingFormat
from providers.inputs.embeddings.facts import TASK_FIELDS, EmbeddingFacts, VendorEmbeddings
from providers.inputs.embeddings.values import (
    EmbeddingAnswer,
    EmbeddingRequest,
    Tokens,
    Vector,
    vector_from_base64,
    vector_from_json,
    vector_to_base64,
)
from providers.inputs.reading import JSON_HEADERS, counted, expect_some, in_order
from providers.json_values import as_list, as_map, dumps, read_map
from providers.openai_json.fields import choice, describe, integer, items, mapping, present, text
from providers.reading.errors import error_object
from providers.value import Value
from providers.wire import WireRequest, WireResponse

Encoding: TypeAlias = Literal["float", "base64"]
MOST_INPUTS = 2048
"""The most inputs of a client's request, as at OpenAI."""
_MOST_TOKEN = 2**31 - 1
_MOST_DIMENSIONS = 65_536
_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


def decode_embedding_request(value: object) -> tuple[EmbeddingRequest, Encoding]:
    """Read a client's request strictly. Return it with the wanted encoding of the vectors. Raises InvalidRequest."""
    body = mapping(value, "body")
    model = text(body, "model", "model")
    if model is None:
        raise InvalidRequest("`model` is required: name an assistant", "model")
    encoding = body.get("encoding_format")
    shown: Encoding = "float"
    if encoding is not None and choice(encoding, "encoding_format", ("float", "base64")) == "base64":
        shown = "base64"
    for name in TASK_FIELDS:
        text(body, name, name)
    request = EmbeddingRequest(
        model,
        _inputs(present(body, "input", "input")),
        integer(body, "dimensions", "dimensions", 1, _MOST_DIMENSIONS),
        text(body, "user", "user"),
        {name: item for name, item in body.items() if name not in _KNOWN and item is not None},
    )
    return request, shown


def _inputs(value: object) -> tuple[str, ...] | tuple[Tokens, ...]:
    if isinstance(value, str):
        value = [value]
    entries = items(value, "input")
    if not entries:
        raise InvalidRequest("`input` must not be empty", "input")
    if all(type(entry) is int for entry in entries):
        return (_tokens(entries, "input"),)
    if len(entries) > MOST_INPUTS:
        raise InvalidRequest(f"`input` has {len(entries)} entries; at most {MOST_INPUTS} are accepted", "input")
    if all(isinstance(entry, str) for entry in entries):
        for position, entry in enumerate(entries):
            if not entry:
                raise InvalidRequest(f"`input[{position}]` must not be empty", f"input[{position}]")
        return tuple(entry for entry in entries if isinstance(entry, str))
    if all(isinstance(entry, list) for entry in entries):
        return tuple(_tokens(as_list(entry), f"input[{position}]") for position, entry in enumerate(entries))
    expected = "a string, an array of strings, an array of tokens, or an array of arrays of tokens"
    kinds = " and ".join(sorted({describe(entry) for entry in entries}))
    raise InvalidRequest(f"`input` must be {expected}, not an array of {kinds}", "input")


def _tokens(entries: Sequence[object], path: str) -> Tokens:
    if not entries:
        raise InvalidRequest(f"`{path}` must not be empty", path)
    tokens = tuple(entry for entry in entries if type(entry) is int and 0 <= entry <= _MOST_TOKEN)
    if len(tokens) != len(entries):
        raise InvalidRequest(f"`{path}` must have only tokens: whole numbers from 0", path)
    return tokens


def encode_embeddings(answer: EmbeddingAnswer, model: str, encoding: Encoding) -> bytes:
    """Return the body of an answer for a client."""
    shown = vector_to_base64 if encoding == "base64" else _numbers
    data = [
        {"object": "embedding", "index": index, "embedding": shown(vector)}
        for index, vector in enumerate(answer.vectors)
    ]
    tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return dumps({"object": "list", "data": data, "model": model, "usage": usage})


def _numbers(vector: Vector) -> list[float]:
    return vector.tolist()


class OpenAIEmbeddings(Value, frozen=True):
    """The format of OpenAI, and of vendors that speak it. See `EmbeddingFormat`.

    Attributes:
        vendor: The facts of the vendor, and its differences from OpenAI's format.
        path_of: Returns path and query of a call, if they are not the base path with the vendor's path.
    """

    vendor: VendorEmbeddings
    path_of: Callable[[Target, str], tuple[str, tuple[tuple[str, str], ...]]] | None = None

    def facts(self, model: str) -> EmbeddingFacts:
        """See `Embeds`."""
        return self.vendor.facts(model)

    def build_request(self, request: EmbeddingRequest, target: Target) -> WireRequest:
        """See `EmbeddingFormat`. Base64 is a quarter of the size of numbers, which are the
        default everywhere: servers that know nothing else refuse the field."""
        body: dict[str, object] = {"model": target.model, "input": list(request.inputs)}
        if self.facts(target.model).base64:
            body["encoding_format"] = "base64"
        if request.dimensions is not None:
            body[self.vendor.dimensions_field] = request.dimensions
        if request.user is not None:
            body["user"] = request.user
        body.update(self.vendor.fields(request.extra))
        path = f"{target.base_path}{self.vendor.path}"
        query: tuple[tuple[str, str], ...] = ()
        if self.path_of is not None:
            path, query = self.path_of(target, self.vendor.path)
        return WireRequest("POST", path, JSON_HEADERS, dumps(body), query)

    def parse_response(self, response: WireResponse, target: Target) -> EmbeddingAnswer:
        """See `EmbeddingFormat`. Both encodings are read, whichever was asked for."""
        body = error_object(response.body)
        vectors: list[Vector] = []
        for entry in in_order(body.get("data"), "embeddings", "an embedding"):
            value = entry.get("embedding")
            vectors.append(vector_from_base64(value) if isinstance(value, str) else vector_from_json(value))
        return EmbeddingAnswer(tuple(vectors), counted(read_map(body, "usage"), "prompt_tokens", "total_tokens"))


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
        """See `Embeds`."""
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
        """See `Embeds`."""
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
