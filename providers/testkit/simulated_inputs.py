"""Deterministic vectors, scores and decisions of a simulated model, and the vendors' forms of the last two."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Mapping
from hashlib import blake2b

from providers.chat import Usage
from providers.inputs.decisions.facts import DecisionFacts, load_decision_facts
from providers.inputs.decisions.formats import KINDS, VendorDecisions
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens, Vector
from providers.inputs.rerank.facts import load_rerank_facts
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_list, as_map, dumps, dumps_text, loads, read_map
from providers.moderations.values import load_sentences
from providers.testkit.simulated_verdicts import HARMFUL, IN_CRISIS
from providers.testkit.simulator import IncomingRequest
from providers.wire import WireResponse

DIMENSIONS = 1536
"""The length of the vectors of a model whose own length is unknown."""
_WORD_BYTES = 4
_MOST = 2**31


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


_STATED = re.compile(r"simulated-p-(0\.[0-9]{1,6}|[01])")
"""A word in an input that is the probability of each predicate."""
_REFUSED = "simulated-refusal"
"""A word in a question that refuses it, and in an input that refuses every question."""
_FOUND = {"violence": HARMFUL, "self-harm": IN_CRISIS}
_FIELDS = frozenset({"type", "instructions", "criteria", "choices", "levels"})


def answer_decisions(
    provider: str,
    incoming: IncomingRequest,
    check_head: Callable[[IncomingRequest], object],
    refused: Callable[[str], Exception],
) -> WireResponse | None:
    """Return the answer of this vendor to a request for decisions, or None at another path.

    `check_head` raises the vendor's error if method, key or content type are wrong, and `refused` returns its error
    about a body.
    """
    vendor = load_decision_facts(provider)
    path, field = ("/systemone", "state") if vendor and vendor.usual.form == "systemone" else ("/decisions", "input")
    if vendor is None or not incoming.path.endswith(path):
        return None
    check_head(incoming)
    try:
        body = as_map(loads(incoming.body))
    except JsonError:
        body = {}
    model, given, text = str(body.get("model")), body.get("questions"), dumps_text(body.get(field))
    facts, is_list = vendor.of(model), isinstance(given, list)
    asked = {f"{place}": one for place, one in enumerate(as_list(given))} if is_list else as_map(given)
    if not VendorDecisions(vendor).accepts(model) or is_list != (facts.form == "listed") or not body.get(field):
        raise refused("the model, the input or the form of the questions is unknown")
    if not 1 <= len(asked) <= facts.most_questions:
        raise refused(f"1 to {facts.most_questions} questions are required")
    answers = {name: _answer(text, as_map(question), facts, refused) for name, question in asked.items()}
    total = "total_" if facts.form == "mapped" else ""
    usage = {f"{total}input_tokens": len(incoming.body.split()), f"{total}output_tokens": 0}
    sent: dict[str, object] = {"model": model, "usage": usage}
    if is_list:
        sent["answers"] = [{"name": None, **(answer or {"type": "refusal"})} for answer in answers.values()]
    else:
        sent["answers"] = {name: answer for name, answer in answers.items() if answer is not None}
        sent |= {"prompt_feedback": {"block_reason": "safety"}} if None in answers.values() else {}
    return WireResponse(200, {"content-type": "application/json"}, dumps(sent), 0)


def _answer(
    text: str, question: Mapping[str, object], facts: DecisionFacts, refused: Callable[[str], Exception]
) -> dict[str, object] | None:
    """Return the answer to a question in the vendor's form, or None if the model refuses."""
    kind, instructions, is_list = str(question.get("type")), str(question.get("instructions")), facts.form == "listed"
    if kind not in (KINDS.values() if is_list else KINDS) or not question.keys() <= _FIELDS:
        raise refused("a question has an unknown type or field")
    stated, is_refused = _STATED.search(text), _REFUSED in text or _REFUSED in instructions
    if kind in ("predicate", "noul"):
        share = float(stated[1]) if stated is not None else _probability(text, instructions)
        return None if is_refused and stated is None else {"type": kind, "probability" if is_list else kind: share}
    options = question.get("criteria", question.get("choices", question.get("levels")))
    keys: list[object] = [*as_map(options), *as_list(options)]
    if is_list:
        keys = [as_map(one).get("value", as_map(one).get("label")) for one in keys]
    if not 2 <= len(keys) <= (facts.most_choices if kind == "choice" else facts.most_levels):
        raise refused("a question has too few or too many options")
    if is_refused:
        return None
    weights = [_hashed(text, instructions, dumps_text(key)) + 0.01 for key in keys]
    shares = [round(weight / sum(weights), 6) for weight in weights]
    found: object = keys[shares.index(max(shares))]
    if kind == "score":
        found = sum(place * share for place, share in enumerate(shares))
        keys = [*range(len(keys))] if is_list else [f"{place}" for place in range(len(keys))]
    pairs = [*zip(keys, shares, strict=True)]
    listed = [{"value": key, "label": dumps_text(key), "probability": share} for key, share in pairs]
    answer = {"probabilities": listed if is_list else dict(pairs), "confidence": max(shares)}
    return {"type": kind, kind: found, **answer}


def _probability(text: str, instructions: str) -> float:
    """Return the probability of a statement: ours is true of a text with the word for it, any other by chance."""
    for category, sentence in load_sentences().sentences.items():
        if instructions == sentence:
            return 0.97 if category in _FOUND and _FOUND[category] in text.lower() else 0.02
    return round(0.01 + 0.98 * _hashed(text, instructions), 2)


def _hashed(*parts: str) -> float:
    """Return a number from 0 to 1 that depends on texts."""
    digest = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
