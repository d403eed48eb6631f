"""Deterministic vectors and verdicts of a simulated model."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from hashlib import blake2b

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, TextPart, Usage, UserMessage, text_of
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens, Vector
from providers.inputs.rerank.facts import load_rerank_facts
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_list, as_map, dumps, loads, read_map
from providers.moderations.guard_models import GuardKind
from providers.moderations.values import (
    ModerationAnswer,
    ModerationInput,
    ModerationRequest,
    ModerationResult,
    verdict_of,
)
from providers.testkit.simulator import IncomingRequest
from providers.value import replace
from providers.wire import WireResponse

DIMENSIONS = 1536
"""The length of the vectors of a model whose own length is unknown."""
HARMFUL = "simulated-harm"
"""A text with this word is flagged as violence."""
IN_CRISIS = "simulated-crisis"
"""A text with this word is flagged as self-harm."""
_WORD_BYTES = 4
_MOST = 2**31
_CATEGORIES = {HARMFUL: "violence", IN_CRISIS: "self-harm"}
_VERDICTS: dict[GuardKind, dict[str, str]] = {
    "llama-guard": {"": "safe", "violence": "unsafe\nS1", "self-harm": "unsafe\nS11"},
    "qwen3guard": {
        "": "Safety: Safe\nCategories: None",
        "violence": "Safety: Unsafe\nCategories: Violent",
        "self-harm": "Safety: Unsafe\nCategories: Suicide & Self-Harm",
    },
}


def embed(request: EmbeddingRequest, dimensions: int = DIMENSIONS) -> EmbeddingAnswer:
    """Return a vector of length 1 for each input. Equal inputs have equal vectors, other inputs have other vectors."""
    size = request.dimensions or dimensions
    vectors = tuple(_vector(request.model, item, size) for item in request.inputs)
    tokens = sum(len(item) if not isinstance(item, str) else max(1, len(item.split())) for item in request.inputs)
    return EmbeddingAnswer(vectors, Usage(prompt_tokens=tokens))


def _vector(model: str, item: str | Tokens, size: int) -> Vector:
    text = item if isinstance(item, str) else " ".join(map(str, item))
    seed = f"{model}\0{text}".encode("utf-8", "replace")
    values: list[float] = []
    block = 0
    while len(values) < size:
        digest = blake2b(seed, salt=block.to_bytes(8, "big")).digest()
        for start in range(0, len(digest), _WORD_BYTES):
            values.append(int.from_bytes(digest[start : start + _WORD_BYTES], "big") / _MOST - 1)
        block += 1
    values = values[:size]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return array("f", (value / length for value in values))


def moderate(request: ModerationRequest) -> ModerationAnswer:
    """Return a verdict for each input. Only content with one of the words above is flagged."""
    return ModerationAnswer(tuple(map(_verdict, request.inputs)))


def _verdict(content: ModerationInput) -> ModerationResult:
    text = content if isinstance(content, str) else " ".join(it.text for it in content if isinstance(it, TextPart))
    category = _category(text)
    return verdict_of(frozenset({category}) if category else frozenset(), flagged=bool(category))


def _category(text: str) -> str:
    return next((category for word, category in _CATEGORIES.items() if word in text.lower()), "")


def with_verdict(completion: ChatCompletion, request: ChatRequest, kind: GuardKind) -> ChatCompletion:
    """Return the answer of a guard model to a chat, which is its verdict on the last message."""
    is_pair = bool(request.messages) and isinstance(request.messages[-1], AssistantMessage)
    judged = AssistantMessage if is_pair else UserMessage
    texts = [text_of(message.content) for message in request.messages if isinstance(message, judged)]
    verdict = _VERDICTS[kind][_category(texts[-1]) if texts else ""]
    if is_pair and kind == "qwen3guard":
        verdict += "\nRefusal: No"
    choices = tuple(
        replace(choice, message=replace(choice.message, content=verdict, tool_calls=(), reasoning=None))
        for choice in completion.choices
    )
    return replace(completion, choices=choices)


_DOCUMENTS = {"tei": "texts"}
_JSON = {"content-type": "application/json"}


def score(request: RerankRequest) -> RerankAnswer:
    """Return the share of the query's words that each document has. Equal documents have equal scores."""
    words = set(request.query.lower().split()) or {""}
    scores = tuple(len(words & set(text.lower().split())) / len(words) for text in request.documents)
    tokens = sum(max(1, len(text.split())) for text in (request.query, *request.documents))
    return RerankAnswer(scores, Usage(prompt_tokens=tokens))


def read_sent_rerank(
    provider: str,
    incoming: IncomingRequest,
    check_head: Callable[[IncomingRequest], object],
    refused: Callable[[str], Exception],
) -> RerankRequest | None:
    """Return a request for scores as this vendor reads it, or None at another path.

    `check_head` raises the vendor's error if method, key or content type are wrong, and `refused` returns its error
    about a body.
    """
    vendor = load_rerank_facts(provider)
    if vendor is None or not incoming.path.endswith(tuple(one.path for one in (vendor.usual, *vendor.models.values()))):
        return None
    try:
        body = as_map(loads(incoming.body))
    except JsonError:
        body = {}
    how = vendor.of(str(body.get("model")))
    if not incoming.path.endswith(how.path):
        return None
    check_head(incoming)
    source = read_map(body, "input") if how.form == "native" else body
    documents = [one for one in as_list(source.get(_DOCUMENTS.get(how.form, "documents"))) if isinstance(one, str)]
    query = source.get("query")
    if not isinstance(query, str) or not documents:
        raise refused("query and documents are required")
    if len(documents) > how.most_documents:
        raise refused(f"too many documents: at most {how.most_documents}")
    cut = body.get("max_tokens_per_doc")
    if cut is not None and not how.cuts_documents:
        raise refused("unknown parameter: max_tokens_per_doc")
    most = cut if isinstance(cut, int) else None
    return RerankRequest(str(body.get("model")), query, tuple(documents), max_tokens_per_doc=most)


def write_sent_rerank(provider: str, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
    """Return scores as the vendor sends them, with the best first."""
    vendor = load_rerank_facts(provider)
    model = str(as_map(loads(incoming.body)).get("model"))
    results = [{"index": index, "relevance_score": answer.scores[index]} for index in answer.ranked(None)]
    tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
    if vendor is not None and vendor.of(model).form == "native":
        native = {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": "simulated"}
        return WireResponse(200, _JSON, dumps(native), 0)
    if vendor is not None and vendor.of(model).form == "tei":
        ranks = [{"index": index, "score": answer.scores[index]} for index in answer.ranked(None)]
        return WireResponse(200, {**_JSON, "x-compute-tokens": str(tokens)}, dumps(ranks), 0)
    body: dict[str, object] = {"id": "simulated", "results": results}
    if provider == "cohere":
        body["meta"] = {"api_version": {"version": "2"}, "billed_units": {"search_units": -(-len(results) // 100)}}
    elif provider == "siliconflow":
        body["meta"] = {"tokens": {"input_tokens": tokens, "output_tokens": 0}}
    else:
        body |= {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return WireResponse(200, _JSON, dumps(body), 0)
